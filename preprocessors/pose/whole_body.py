"""The inputs and outputs of the two networks of DWPose: boxes of people, and 133 keypoints of each person.

YOLOX (Ge et al. 2021) finds people. RTMPose (Jiang et al. 2023), distilled by DWPose (Yang et al. 2023), finds the
keypoints of COCO-WholeBody, as one classification along x and one along y (SimCC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .skeleton import LEFT_SHOULDER, NECK, RIGHT_SHOULDER, Keypoint, Keypoints, Person

if TYPE_CHECKING:
    import numpy as np

DETECTOR_SIZE = 640
_STRIDES = (8, 16, 32)
_PERSON = 0  # class number
_PERSON_SCORE = 0.3
_SAME_PERSON = 0.45  # intersection over union
_PADDING = 114  # gray

POSE_HEIGHT, POSE_WIDTH = 384, 288
_POSE_MARGIN = 1.25
_POSE_MEAN, _POSE_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_SIMCC_STEPS = 2  # per pixel
_VISIBLE = 0.3

# The COCO number of each keypoint of OpenPose's body. COCO has no neck: it is the middle of the shoulders.
_BODY = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_FACE, _LEFT_HAND, _RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)


@dataclass(frozen=True)
class View:
    """The rectangle around a person that the keypoint network sees, in pixels of the image, in its aspect ratio."""

    left: float
    top: float
    width: float
    height: float


def detector_input(image: np.ndarray) -> np.ndarray:
    """float32 [1, 3, 640, 640] for a uint8 RGB image: BGR in 0..255, resized and padded with gray."""
    import cv2
    import numpy as np

    height, width = image.shape[:2]
    scale = DETECTOR_SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.full((DETECTOR_SIZE, DETECTOR_SIZE, 3), _PADDING, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)[..., ::-1]
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32)


def people_boxes(output: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """Left, top, right and bottom of each person in pixels of an image of this size, best score first.

    `output` is [8400, 85]. For each cell of three grids it has x, y, width and height of a box, encoded relative to the
    cell, the score of an object, and the scores of 80 classes.
    """
    import cv2
    import numpy as np

    cells: list[np.ndarray] = []
    steps: list[np.ndarray] = []
    for stride in _STRIDES:
        side = DETECTOR_SIZE // stride
        cells.append(np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2))
        steps.append(np.full((side * side, 1), stride))
    cell, step = np.concatenate(cells), np.concatenate(steps)
    scores = output[:, 4] * output[:, 5 + _PERSON]
    likely = scores > _PERSON_SCORE
    middle = (output[likely, :2] + cell[likely]) * step[likely]
    size = np.exp(output[likely, 2:4]) * step[likely]
    corners = np.concatenate((middle - size / 2, size), 1) * (max(height, width) / DETECTOR_SIZE)
    kept = cv2.dnn.NMSBoxes(corners.tolist(), scores[likely].tolist(), _PERSON_SCORE, _SAME_PERSON)
    boxes: list[np.ndarray] = []
    for left, top, box_width, box_height in corners[np.asarray(kept, int).ravel()]:
        box = np.array((left, top, left + box_width, top + box_height))
        boxes.append(box.clip(0, (width, height, width, height)))
    return boxes


def view_around(box: np.ndarray) -> View:
    """The rectangle for the person in a box: the box with a margin, extended to the network's aspect ratio."""
    left, top, right, bottom = map(float, box)
    width, height = max(right - left, 1.0) * _POSE_MARGIN, max(bottom - top, 1.0) * _POSE_MARGIN
    width, height = max(width, height * POSE_WIDTH / POSE_HEIGHT), max(height, width * POSE_HEIGHT / POSE_WIDTH)
    return View((left + right - width) / 2, (top + bottom - height) / 2, width, height)


def pose_input(image: np.ndarray, view: View) -> np.ndarray:
    """float32 [1, 3, 384, 288] for the view of a uint8 RGB image. Pixels outside the image are black."""
    import cv2
    import numpy as np

    scale = POSE_WIDTH / view.width
    transform = np.array([[scale, 0, -view.left * scale], [0, scale, -view.top * scale]], np.float32)
    pixels = cv2.warpAffine(image, transform, (POSE_WIDTH, POSE_HEIGHT), flags=cv2.INTER_LINEAR)
    standardized = (pixels - np.array(_POSE_MEAN, np.float32)) / np.array(_POSE_DEVIATION, np.float32)
    return np.ascontiguousarray(standardized.transpose(2, 0, 1)[None], np.float32)


def person_in(view: View, along_x: np.ndarray, along_y: np.ndarray) -> Person:
    """The person in a view, for the scores of 133 keypoints at each half pixel: [133, 576] and [133, 768]."""
    import numpy as np

    scores = np.minimum(along_x.max(1), along_y.max(1))
    x = view.left + along_x.argmax(1) / _SIMCC_STEPS * view.width / POSE_WIDTH
    y = view.top + along_y.argmax(1) / _SIMCC_STEPS * view.height / POSE_HEIGHT
    points = [
        Keypoint(float(a), float(b), float(score)) if score > _VISIBLE else None
        for a, b, score in zip(x, y, scores, strict=True)
    ]
    body = [None if number is None else points[number] for number in _BODY]
    left, right = body[LEFT_SHOULDER], body[RIGHT_SHOULDER]
    if left and right:
        body[NECK] = Keypoint((left.x + right.x) / 2, (left.y + right.y) / 2, min(left.score, right.score))
    return Person(tuple(body), _found(points[_LEFT_HAND]), _found(points[_RIGHT_HAND]), _found(points[_FACE]))


def _found(points: Sequence[Keypoint | None]) -> Keypoints:
    return tuple(points) if any(points) else ()
