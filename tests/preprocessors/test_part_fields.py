"""Bodies are put together along OpenPose's affinity fields, each joint with its own person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest
from controlstack.preprocessors.pose.part_fields import find_bodies
from controlstack.preprocessors.pose.skeleton import (
    BODY_POINTS,
    LEFT_ANKLE,
    LEFT_EAR,
    LEFT_SHOULDER,
    NECK,
    NOSE,
    RIGHT_EAR,
    RIGHT_HIP,
    Keypoints,
)

SIZE = 240
# As OpenPose publishes its COCO net: joints counted from 1, and the channels of x and y counted after the 19 heatmaps.
# fmt: off
LINKS = (
    (2, 3, 31), (2, 6, 39), (3, 4, 33), (4, 5, 35), (6, 7, 41), (7, 8, 43), (2, 9, 19),
    (9, 10, 21), (10, 11, 23), (2, 12, 25), (12, 13, 27), (13, 14, 29), (2, 1, 47),
    (1, 15, 49), (15, 17, 53), (1, 16, 51), (16, 18, 55), (3, 17, 37), (6, 18, 45),
)
# fmt: on

Places = Mapping[int, tuple[int, int]]
STANDING: Places = dict(
    enumerate(
        [
            *[(60, 30), (60, 50), (40, 52), (30, 90), (26, 126), (80, 52), (92, 88), (98, 124), (48, 120)],
            *[(44, 164), (42, 208), (72, 120), (76, 166), (80, 210), (54, 22), (67, 22), (46, 26), (76, 26)],
        ]
    )
)


def maps_of(people: Iterable[Places]) -> tuple[np.ndarray, np.ndarray]:
    """The heatmaps and fields of a net that is sure of these people."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    heat, fields = np.zeros((19, SIZE, SIZE), np.float32), np.zeros((38, SIZE, SIZE), np.float32)
    for places in people:
        for part, (px, py) in places.items():
            heat[part] = np.maximum(heat[part], np.exp(-((x - px) ** 2 + (y - py) ** 2) / 30))
        for first, second, channel in LINKS:
            start, end = first - 1, second - 1
            if start in places and end in places:
                a, way = np.array(places[start]), np.subtract(places[end], places[start])
                length = np.hypot(*way)
                along = ((x - a[0]) * way[0] + (y - a[1]) * way[1]) / length
                beside = np.abs((x - a[0]) * way[1] - (y - a[1]) * way[0]) / length
                near = (along > -3) & (along < length + 3) & (beside < 4)
                for axis in range(2):
                    fields[channel - 19 + axis][near] = way[axis] / length
    return heat, fields


def moved(places: Places, dx: int) -> Places:
    return {part: (x + dx, y) for part, (x, y) in places.items()}


def assert_is(body: Keypoints, places: Places) -> None:
    for part in range(BODY_POINTS):
        point = body[part]
        assert (point is not None) == (part in places), part
        if point is not None:
            assert np.hypot(point.x - places[part][0], point.y - places[part][1]) <= 1, part


def test_a_whole_person_is_one_body() -> None:
    (body,) = find_bodies(*maps_of([STANDING]))
    assert_is(body, STANDING)


def test_every_limb_holds_on_its_own() -> None:
    """Without ears there is one way only from any joint to another."""
    places = {part: place for part, place in STANDING.items() if part not in (RIGHT_EAR, LEFT_EAR)}
    (body,) = find_bodies(*maps_of([places]))
    assert_is(body, places)


def test_arms_are_joined_to_the_ears_where_the_neck_is_hidden() -> None:
    legs = range(RIGHT_HIP, LEFT_ANKLE + 1)
    places = {part: place for part, place in STANDING.items() if part != NECK and part not in legs}
    (body,) = find_bodies(*maps_of([places]))
    assert_is(body, places)


@pytest.mark.parametrize("distance", [30, 110])
def test_joints_of_two_people_are_not_mixed_up(distance: int) -> None:
    people = [STANDING, moved(STANDING, distance)]
    bodies = sorted(find_bodies(*maps_of(people)), key=lambda body: body[NOSE].x)
    assert len(bodies) == 2
    for body, places in zip(bodies, people, strict=True):
        assert_is(body, places)


def test_fewer_than_four_joints_are_nobody() -> None:
    assert find_bodies(*maps_of([{part: STANDING[part] for part in (NOSE, NECK, LEFT_SHOULDER)}])) == []


def test_a_saturated_map_has_one_joint_and_not_hundreds() -> None:
    heat, fields = maps_of([STANDING])
    (body,) = find_bodies(np.minimum(heat * 4, 1), fields)
    for part, (x, y) in STANDING.items():
        assert np.hypot(body[part].x - x, body[part].y - y) <= 8


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_maps_are_nobody_and_take_no_time(level: float) -> None:
    assert find_bodies(np.full((19, 64, 64), level, np.float32), np.full((38, 64, 64), level, np.float32)) == []
