"""Skeletons are drawn as the pose nets know them: OpenPose's colors, limbs that grow with the image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from controlstack.preprocessors.networks.controlnet_aux import network_module
from controlstack.preprocessors.pose.skeleton import (
    BODY_COLORS,
    BODY_POINTS,
    LEFT_SHOULDER,
    NECK,
    NOSE,
    RIGHT_SHOULDER,
    Keypoint,
    Person,
    draw_people,
)


def body_of(places: Mapping[int, tuple[float, float]]) -> tuple[Keypoint | None, ...]:
    return tuple(Keypoint(*places[part]) if part in places else None for part in range(BODY_POINTS))


def spread(seed: int, count: int, size: int) -> list[tuple[float, float]]:
    return [tuple(map(float, place)) for place in np.random.default_rng(seed).integers(20, size - 20, (count, 2))]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("seed", range(5))
def test_a_body_is_drawn_as_controlnet_s_annotator_draws_it(seed: int) -> None:
    """Its angles are whole degrees and its middles whole pixels, so that limbs differ by a pixel or two at an edge."""
    places = spread(seed, BODY_POINTS, 512)
    ours = draw_people([Person(tuple(Keypoint(*place) for place in places))], 512, 512)
    keypoint = network_module("open_pose.body").Keypoint
    canvas = np.zeros((512, 512, 3), np.uint8)
    points = [keypoint(x / 512 + 1e-6, y / 512 + 1e-6) for x, y in places]
    theirs = network_module("open_pose.util").draw_bodypose(canvas, points)
    assert overlap(ours.any(-1), theirs.any(-1)) > 0.78
    for x, y in places:
        assert tuple(ours[int(y), int(x)]) == tuple(theirs[int(y), int(x)])
    assert {tuple(color) for color in ours.reshape(-1, 3)} <= {tuple(color) for color in theirs.reshape(-1, 3)} | {
        tuple(int(channel * 0.6) for channel in color) for color in BODY_COLORS
    }


def test_a_face_is_drawn_as_controlnet_s_annotator_draws_it() -> None:
    places = spread(1, 70, 512)
    ours = draw_people([Person(body_of({}), face=tuple(Keypoint(*place) for place in places))], 512, 512)
    keypoint = network_module("open_pose.body").Keypoint
    points = [keypoint(x / 512 + 1e-6, y / 512 + 1e-6) for x, y in places]
    theirs = network_module("open_pose.util").draw_facepose(np.zeros((512, 512, 3), np.uint8), points)
    assert np.array_equal(ours, theirs)


def test_a_hand_goes_from_the_wrist_through_every_finger_in_a_rainbow() -> None:
    wrist, places = (250.0, 400.0), [(60.0 + 20 * number, 60.0 + 10 * (number % 4)) for number in range(20)]
    hand = tuple(Keypoint(*place) for place in (wrist, *places))
    map_ = draw_people([Person(body_of({}), left_hand=hand)], 512, 512)
    for place in (wrist, *places):
        assert tuple(map_[int(place[1]), int(place[0])]) == (0, 0, 255)
    # The first bone of each finger, halfway from the wrist to its base.
    hues = [tuple(map_[round((400 + places[4 * f][1]) / 2), round((250 + places[4 * f][0]) / 2)]) for f in range(5)]
    assert hues == [(255, 0, 0), (204, 255, 0), (0, 255, 102), (0, 102, 255), (204, 0, 255)]


def test_a_limb_has_the_color_of_its_kind_and_joints_their_own() -> None:
    map_ = draw_people([Person(body_of({NECK: (256, 256), RIGHT_SHOULDER: (100, 256), NOSE: (256, 100)}))], 512, 512)
    assert tuple(map_[256, 256]) == BODY_COLORS[NECK]
    assert tuple(map_[100, 256]) == BODY_COLORS[NOSE]
    assert tuple(map_[256, 100]) == BODY_COLORS[RIGHT_SHOULDER]
    assert tuple(map_[256, 178]) == (153, 0, 0)
    assert tuple(map_[178, 256]) == (0, 0, 153)
    assert not map_[400:].any()


def test_what_is_not_seen_is_not_drawn() -> None:
    assert not draw_people([Person(body_of({}))], 64, 64).any()
    assert not draw_people([], 64, 64).any()
    lone = draw_people([Person(body_of({NECK: (32, 32), LEFT_SHOULDER: (50, 32), NOSE: (-500, -500)}))], 64, 64)
    assert tuple(lone[32, 50]) == BODY_COLORS[LEFT_SHOULDER]


@pytest.mark.parametrize(("size", "stick", "width"), [(512, 4, 9), (1024, 4, 17), (2048, 4, 33), (512, 8, 17)])
def test_limbs_grow_with_the_image(size: int, stick: float, width: int) -> None:
    middle = size / 2
    map_ = draw_people([Person(body_of({NECK: (middle, middle), NOSE: (middle, size / 8)}))], size, size, stick)
    across = map_[int(size * 5 / 16)].any(-1).sum()
    assert abs(int(across) - width) <= 1
