"""Whole bodies: the way from an image through two nets and back to the image, and the files they come in.

No package carries DWPose's weights. Its nets are stood in for by two that do their task on painted images: a person
is a dark figure on which every keypoint is a dot of a color of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from controlstack.core.errors import DetectorUnavailable, ModelUnreadable
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks import onnx as onnx_networks
from controlstack.preprocessors.networks.onnx import open_onnx
from controlstack.preprocessors.pose.pose import POSE, DwPose, find_people
from controlstack.preprocessors.pose.skeleton import (
    BODY_COLORS,
    LEFT_SHOULDER,
    LEFT_WRIST,
    NECK,
    NOSE,
    RIGHT_ANKLE,
    RIGHT_SHOULDER,
    Person,
)
from controlstack.preprocessors.pose.whole_body import (
    DETECTOR_SIZE,
    POSE_HEIGHT,
    POSE_WIDTH,
    detector_input,
    people_boxes,
)
from controlstack.tests.preprocessors.packaged_networks import FASTDEPTH
from controlstack.tests.preprocessors.packaged_weights import packaged_file

# COCO-WholeBody's numbers.
COCO_NOSE, COCO_LEFT_SHOULDER, COCO_RIGHT_SHOULDER, COCO_LEFT_WRIST, COCO_RIGHT_ANKLE = 0, 5, 6, 9, 16
COCO_LEFT_THUMB, COCO_RIGHT_THUMB, COCO_CHIN = 92, 113, 31

FIGURE = {  # in parts of the person's width and height
    COCO_NOSE: (0.5, 0.1),
    COCO_LEFT_SHOULDER: (0.8, 0.3),
    COCO_RIGHT_SHOULDER: (0.2, 0.3),
    COCO_LEFT_WRIST: (0.9, 0.55),
    COCO_RIGHT_ANKLE: (0.3, 0.95),
    COCO_LEFT_THUMB: (0.95, 0.6),
    COCO_RIGHT_THUMB: (0.05, 0.6),
    COCO_CHIN: (0.5, 0.17),
}


def dot_color(number: int) -> tuple[int, int, int]:
    return 255, 90 + number, 40


def paint(height: int, width: int, *people: tuple[int, int, int, int]) -> np.ndarray:
    """A gray-blue image with people in boxes (left, top, right, bottom)."""
    image = np.full((height, width, 3), (0, 0, 120), np.uint8)
    for left, top, right, bottom in people:
        cv2.rectangle(image, (left, top), (right - 1, bottom - 1), (0, 60, 0), -1)
        for number, (x, y) in FIGURE.items():
            place = round(left + x * (right - left)), round(top + y * (bottom - top))
            cv2.circle(image, place, max(2, min(right - left, bottom - top) // 40), dot_color(number), -1)
    return image


class SeesFigures:
    """YOLOX's answer for painted people: each in the cell of the coarsest grid where its middle is."""

    def run(self, values: np.ndarray) -> Sequence[np.ndarray]:
        assert values.shape == (1, 3, DETECTOR_SIZE, DETECTOR_SIZE) and values.dtype == np.float32
        blue, green, red = values[0]
        figure = ((blue < 60) & ((green > 30) | (red > 100))).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(figure)
        answer = np.zeros((1, 8400, 85), np.float32)
        for left, top, width, height, area in stats[1:count]:
            if area < 50:
                continue
            x, y = left + width / 2, top + height / 2
            cell = 6400 + 1600 + int(y // 32) * 20 + int(x // 32)
            answer[0, cell, :4] = x / 32 - x // 32, y / 32 - y // 32, np.log(width / 32), np.log(height / 32)
            answer[0, cell, 4:6] = 0.9, 0.9
        return [answer]


class SeesDots:
    """RTMPose's answer for painted people: how near every half pixel is to the dot of each keypoint's color."""

    def run(self, values: np.ndarray) -> Sequence[np.ndarray]:
        assert values.shape == (1, 3, POSE_HEIGHT, POSE_WIDTH) and values.dtype == np.float32
        mean, deviation = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
        image = values[0].transpose(1, 2, 0) * deviation + mean
        along_x, along_y = np.zeros((1, 133, 2 * POSE_WIDTH)), np.zeros((1, 133, 2 * POSE_HEIGHT))
        for number in FIGURE:
            y, x = np.nonzero(np.abs(image - dot_color(number)).max(-1) < 0.6)
            if len(x):
                along_x[0, number, round(2 * x.mean())] = 0.8
                along_y[0, number, round(2 * y.mean())] = 0.7
        return along_x.astype(np.float32), along_y.astype(np.float32)


class Painted(DwPose):
    weights = ()

    def networks(self, host: PlainHost) -> tuple[SeesFigures, SeesDots]:
        return SeesFigures(), SeesDots()


def people_in(image: np.ndarray) -> list[Person]:
    return sorted(find_people(image, SeesFigures(), SeesDots()), key=lambda person: person.body[NOSE].x)


def draw(image: np.ndarray, host: PlainHost, **given: object) -> torch.Tensor:
    return Detector(POSE.modality, "", (Painted(),)).detect(torch.from_numpy(image)[None] / 255, host, given)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (512, 512, (100, 60, 300, 480)),
        (300, 900, (500, 40, 620, 290)),
        (900, 300, (20, 500, 280, 890)),
        (480, 640, (0, 0, 640, 480)),
        (2000, 1500, (700, 300, 1400, 1900)),
    ],
)
def test_keypoints_come_back_to_where_they_are_in_the_image(
    height: int, width: int, box: tuple[int, int, int, int]
) -> None:
    (person,) = people_in(paint(height, width, box))
    left, top, right, bottom = box
    seen_pixel = max((right - left) * 1.25 / POSE_WIDTH, (bottom - top) * 1.25 / POSE_HEIGHT)
    openpose = {NOSE: COCO_NOSE, LEFT_SHOULDER: COCO_LEFT_SHOULDER, RIGHT_SHOULDER: COCO_RIGHT_SHOULDER}
    openpose |= {LEFT_WRIST: COCO_LEFT_WRIST, RIGHT_ANKLE: COCO_RIGHT_ANKLE}
    found = {number: person.body[part] for part, number in openpose.items()}
    found[COCO_LEFT_THUMB], found[COCO_RIGHT_THUMB] = person.left_hand[1], person.right_hand[1]
    found[COCO_CHIN] = person.face[8]
    for number, point in found.items():
        x, y = FIGURE[number]
        assert abs(point.x - (left + x * (right - left))) < 1.5 * seen_pixel + 1, number
        assert abs(point.y - (top + y * (bottom - top))) < 1.5 * seen_pixel + 1, number


def test_the_neck_lies_between_the_shoulders_and_the_rest_is_not_invented() -> None:
    (person,) = people_in(paint(512, 512, (100, 60, 300, 480)))
    left, right, neck = (person.body[part] for part in (LEFT_SHOULDER, RIGHT_SHOULDER, NECK))
    assert neck.x == (left.x + right.x) / 2 and neck.y == (left.y + right.y) / 2
    assert sum(point is not None for point in person.body) == 6
    assert sum(point is not None for point in person.face) == 1


def test_everybody_is_found_once() -> None:
    first, second = people_in(paint(600, 800, (50, 100, 250, 560), (450, 80, 700, 580)))
    assert abs(first.body[NOSE].x - 150) < 3 and abs(second.body[NOSE].x - 575) < 3


def test_overlapping_boxes_are_one_person_and_chairs_are_none() -> None:
    answer = np.zeros((8400, 85), np.float32)
    coarse = 8000 + 10 * 20 + 10
    answer[coarse, :6] = 0.5, 0.5, np.log(4), np.log(8), 0.9, 0.9
    answer[coarse + 1, :6] = -0.4, 0.5, np.log(4), np.log(8), 0.8, 0.9  # nearly the same place
    answer[coarse + 5, :4] = 0.5, 0.5, np.log(2), np.log(2)
    answer[coarse + 5, [4, 5 + 56]] = 0.9  # a chair
    answer[coarse + 100, :6] = 0.5, 0.5, np.log(2), np.log(2), 0.5, 0.5  # hardly anything
    (box,) = people_boxes(answer, 640, 640)
    assert np.allclose(box, (10.5 * 32 - 64, 10.5 * 32 - 128, 10.5 * 32 + 64, 10.5 * 32 + 128))
    (small,) = people_boxes(answer, 320, 160)
    assert np.allclose(small, (136, 104, 160, 232)), "cut at the right edge of the image"


def test_the_detector_sees_the_image_unstretched_on_gray() -> None:
    values = detector_input(np.full((100, 200, 3), (255, 0, 0), np.uint8))
    assert values[0, :, 100, 100].tolist() == [0, 0, 255], "blue, green, red"
    assert values[0, :, 319, 639].tolist() == [0, 0, 255] and values[0, :, 320, 0].tolist() == [114] * 3


def test_the_map_shows_body_hands_and_face_and_each_can_be_left_out(host: PlainHost) -> None:
    image = paint(512, 512, (100, 60, 300, 480))
    full, body_only = draw(image, host)[0], draw(image, host, hands=False, face=False)[0]
    nose, thumb, chin = (102, 200), (312, 290), (131, 200)
    assert tuple((full[nose] * 255).int().tolist()) == BODY_COLORS[NOSE]
    assert full[thumb].tolist() == [0, 0, 1] and full[chin].tolist() == [1, 1, 1]
    assert body_only[thumb].tolist() == [0, 0, 0] and body_only[chin].tolist() != [1, 1, 1]
    assert not host.warnings


@pytest.mark.parametrize("size", [(8, 8), (31, 57), (640, 8)])
def test_images_without_anybody_are_black_and_say_so(size: tuple[int, int], host: PlainHost) -> None:
    maps = draw(np.zeros((*size, 3), np.uint8), host)
    assert maps.shape == (1, *size, 3) and not maps.any()
    assert host.warnings[0].startswith("No person found in the image: the map is black there.")


# ONNX files


@pytest.fixture
def without_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if onnxruntime was not installed."""
    find = onnx_networks.importlib.util.find_spec
    monkeypatch.setattr(
        onnx_networks.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    onnx_networks._networks.clear()


def test_a_trained_file_gives_the_same_with_and_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    file = packaged_file(FASTDEPTH, "package/ONNX/fastdepth_7.onnx")
    image = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    onnx_networks._networks.clear()
    (by_runtime,) = open_onnx(file, on_gpu=False).run(image)
    onnx_networks._networks.clear()
    monkeypatch.setattr(onnx_networks.importlib.util, "find_spec", lambda name: None)
    (by_opencv,) = open_onnx(file, on_gpu=False).run(image)
    assert by_runtime.shape == by_opencv.shape == (1, 1, 224, 224)
    assert np.abs(by_runtime - by_opencv).max() < 1e-3 * np.abs(by_runtime).max()


def test_opencv_runs_a_file_whatever_its_folder_is_called(tmp_path: Path, without_runtime: None) -> None:
    """On Windows OpenCV opens names in a code page that lacks letters; on Linux no name but UTF-8."""
    folder = tmp_path / (os.fsdecode(b"mod\xe8les") if sys.platform == "linux" else "\u6a21\u578b")
    folder.mkdir()
    file = folder / "depth.onnx"
    file.write_bytes(packaged_file(FASTDEPTH, "package/ONNX/fastdepth_7.onnx").read_bytes())
    (answer,) = open_onnx(file, on_gpu=False).run(np.zeros((1, 3, 224, 224), np.float32))
    assert answer.shape == (1, 1, 224, 224)


def test_a_file_is_opened_once() -> None:
    file = packaged_file(FASTDEPTH, "package/ONNX/fastdepth_7.onnx")
    assert open_onnx(file, on_gpu=False) is open_onnx(file, on_gpu=False)


def test_a_broken_file_is_named(tmp_path) -> None:
    file = tmp_path / "yolox_l.onnx"
    file.write_bytes(b"no network")
    with pytest.raises(ModelUnreadable, match=r"yolox_l\.onnx cannot be read.*downloads it again"):
        open_onnx(file, on_gpu=False)


def test_what_opencv_cannot_run_asks_for_onnxruntime(tmp_path, without_runtime: None) -> None:
    file = tmp_path / "yolox_l.onnx"
    file.write_bytes(b"no network")
    with pytest.raises(DetectorUnavailable, match=r"yolox_l\.onnx.*pip install onnxruntime"):
        open_onnx(file, on_gpu=False)
