"""Between pictures and the two nets of DWPose: people as boxes, and 133 keypoints of each.

YOLOX (Ge et al. 2021) finds people; RTMPose (Jiang et al. 2023), distilled by DWPose (Yang et al. 2023), finds the
keypoints of COCO-WholeBody as a place along x and one along y (SimCC).
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
_PERSON = 0  # the class
_PERSON_SCORE = 0.3
_SAME_PERSON = 0.45  # overlap
_BORDER = 114  # gray, beside the picture

POSE_HEIGHT, POSE_WIDTH = 384, 288
_POSE_MARGIN = 1.25
_POSE_MEAN, _POSE_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_SIMCC_STEPS = 2  # per pixel
_VISIBLE = 0.3

# Where the points of OpenPose's body are among COCO's; the neck is not, it lies between the shoulders.
_BODY = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_FACE, _LEFT_HAND, _RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)


@dataclass(frozen=True)
class View:
    """What part of a picture the keypoint net sees: a rectangle of its proportions around a person, in pixels."""

    left: float
    top: float
    width: float
    height: float


def detector_input(picture: np.ndarray) -> np.ndarray:
    """float32 [1, 3, 640, 640] for a uint8 RGB picture: BGR in 0..255, in the left upper corner, gray beside it."""
    import cv2
    import numpy as np

    height, width = picture.shape[:2]
    scale = DETECTOR_SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.full((DETECTOR_SIZE, DETECTOR_SIZE, 3), _BORDER, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)[..., ::-1]
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32)


def people_boxes(answer: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """Left, top, right and bottom of every person, the surest first, in pixels of a picture of this size.

    `answer` is [8400, 85]: for every cell of three grids x, y, width and height of a box, coded relative to its cell,
    how sure it is that there is something, and of each of 80 classes.
    """
    import cv2
    import numpy as np

    cells, steps = [], []
    for stride in _STRIDES:
        side = DETECTOR_SIZE // stride
        cells.append(np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2))
        steps.append(np.full((side * side, 1), stride))
    cell, step = np.concatenate(cells), np.concatenate(steps)
    scores = answer[:, 4] * answer[:, 5 + _PERSON]
    likely = scores > _PERSON_SCORE
    middle = (answer[likely, :2] + cell[likely]) * step[likely]
    size = np.exp(answer[likely, 2:4]) * step[likely]
    corners = np.concatenate((middle - size / 2, size), 1) * (max(height, width) / DETECTOR_SIZE)
    kept = cv2.dnn.NMSBoxes(corners.tolist(), scores[likely].tolist(), _PERSON_SCORE, _SAME_PERSON)
    boxes = []
    for left, top, box_width, box_height in corners[np.asarray(kept, int).ravel()]:
        box = np.array((left, top, left + box_width, top + box_height))
        boxes.append(box.clip(0, (width, height, width, height)))
    return boxes


def view_of(box: np.ndarray) -> View:
    """What the keypoint net sees of a person in a box."""
    left, top, right, bottom = map(float, box)
    width, height = max(right - left, 1.0) * _POSE_MARGIN, max(bottom - top, 1.0) * _POSE_MARGIN
    width, height = max(width, height * POSE_WIDTH / POSE_HEIGHT), max(height, width * POSE_HEIGHT / POSE_WIDTH)
    return View((left + right - width) / 2, (top + bottom - height) / 2, width, height)


def pose_input(picture: np.ndarray, view: View) -> np.ndarray:
    """float32 [1, 3, 384, 288] for what is to be seen of a uint8 RGB picture, black beyond it."""
    import cv2
    import numpy as np

    scale = POSE_WIDTH / view.width
    move = np.array([[scale, 0, -view.left * scale], [0, scale, -view.top * scale]], np.float32)
    seen = cv2.warpAffine(picture, move, (POSE_WIDTH, POSE_HEIGHT), flags=cv2.INTER_LINEAR)
    standardized = (seen - np.array(_POSE_MEAN, np.float32)) / np.array(_POSE_DEVIATION, np.float32)
    return np.ascontiguousarray(standardized.transpose(2, 0, 1)[None], np.float32)


def person_in(view: View, along_x: np.ndarray, along_y: np.ndarray) -> Person:
    """The person in a view, for how likely each of 133 points is at each half pixel: [133, 576] and [133, 768]."""
    import numpy as np

    scores = np.minimum(along_x.max(1), along_y.max(1))
    x = view.left + along_x.argmax(1) / _SIMCC_STEPS * view.width / POSE_WIDTH
    y = view.top + along_y.argmax(1) / _SIMCC_STEPS * view.height / POSE_HEIGHT
    points = [
        Keypoint(float(a), float(b), float(score)) if score > _VISIBLE else None
        for a, b, score in zip(x, y, scores, strict=True)
    ]
    body = [None if place is None else points[place] for place in _BODY]
    left, right = body[LEFT_SHOULDER], body[RIGHT_SHOULDER]
    if left and right:
        body[NECK] = Keypoint((left.x + right.x) / 2, (left.y + right.y) / 2, min(left.score, right.score))
    return Person(tuple(body), _seen(points[_LEFT_HAND]), _seen(points[_RIGHT_HAND]), _seen(points[_FACE]))


def _seen(points: Sequence[Keypoint | None]) -> Keypoints:
    return tuple(points) if any(points) else ()
