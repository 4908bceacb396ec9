"""Squares around the hands and the face of a body, and the keypoints that networks find in them.

The squares follow the rules of OpenPose in the ControlNet 1.1 annotator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..pixels import connected_regions
from .skeleton import (
    HAND_POINTS,
    LEFT_EAR,
    LEFT_ELBOW,
    LEFT_EYE,
    LEFT_SHOULDER,
    LEFT_WRIST,
    NOSE,
    RIGHT_EAR,
    RIGHT_ELBOW,
    RIGHT_EYE,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
    Keypoint,
    Keypoints,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_SMALLEST = 20  # pixels: smaller squares show too little
_HAND_SIGMA = 3.0
_HAND_THRESHOLD = 0.05
_FACE_POINTS = 70
_FACE_THRESHOLD = 0.05
_ARMS = {
    "left_hand": (LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST),
    "right_hand": (RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST),
}
# Half the side of the face's square, as a multiple of the larger of the horizontal and vertical distance to the nose.
_FACE_RADIUS = {LEFT_EYE: 3.0, RIGHT_EYE: 3.0, LEFT_EAR: 1.5, RIGHT_EAR: 1.5}


@dataclass(frozen=True)
class Box:
    """A square of `size` pixels whose upper left corner is at x, y."""

    x: int
    y: int
    size: int


def hand_boxes(body: Keypoints, height: int, width: int) -> Iterator[tuple[str, Box]]:
    """A square inside the image for each hand whose arm is known, with the name of its field of Person."""
    for side, (shoulder, elbow, wrist) in _ARMS.items():
        a, b, c = body[shoulder], body[elbow], body[wrist]
        if a and b and c:
            # The hand extends the forearm.
            x, y = c.x + 0.33 * (c.x - b.x), c.y + 0.33 * (c.y - b.y)
            size = 1.5 * max(_distance(b, c), 0.9 * _distance(a, b))
            if box := _clipped(x - size / 2, y - size / 2, size, height, width):
                yield side, box


def face_box(body: Keypoints, height: int, width: int) -> Box | None:
    """The square inside the image around a face whose nose, and an eye or ear, are known."""
    nose = body[NOSE]
    if not nose:
        return None
    radius = max(
        (
            factor * max(abs(nose.x - at.x), abs(nose.y - at.y))
            for part, factor in _FACE_RADIUS.items()
            if (at := body[part])
        ),
        default=0.0,
    )
    return _clipped(nose.x - radius, nose.y - radius, 2 * radius, height, width)


def hand_points(heat: np.ndarray, box: Box) -> Keypoints:
    """21 keypoints in the image for heatmaps [21 or more, h, w] of a square, or () if no joint is found."""
    import cv2
    import numpy as np

    points: list[Keypoint | None] = []
    for joint in heat[:HAND_POINTS]:
        smooth: np.ndarray = cv2.GaussianBlur(joint, (0, 0), _HAND_SIGMA)
        count, areas = connected_regions(smooth > _HAND_THRESHOLD)
        if count == 1:
            points.append(None)
            continue
        # The area with the largest sum, and the maximum in it.
        largest = 1 + int(np.argmax([joint[areas == area].sum() for area in range(1, count)]))
        y, x = np.unravel_index(np.argmax(np.where(areas == largest, joint, -np.inf)), joint.shape)
        points.append(_in_image(box, (int(x) + 0.5) / joint.shape[1], (int(y) + 0.5) / joint.shape[0], joint[y, x]))
    return tuple(points) if any(points) else ()


def face_points(heat: Tensor, box: Box) -> Keypoints:
    """Up to 70 keypoints in the image for heatmaps [70 or more, h, w] of a square."""
    from torch.nn.functional import interpolate

    size = heat.shape[-1] * 8
    fine = interpolate(heat[None, :_FACE_POINTS], (size, size), mode="bilinear", align_corners=True)[0].flatten(1)
    scores, places = fine.max(1)
    return tuple(
        _in_image(box, (place % size + 0.5) / size, (place // size + 0.5) / size, score)
        for place, score in zip(places.tolist(), scores.tolist(), strict=True)
        if score > _FACE_THRESHOLD
    )


def _in_image(box: Box, x: float, y: float, score: float) -> Keypoint:
    return Keypoint(box.x + x * box.size - 0.5, box.y + y * box.size - 0.5, float(score))


def _clipped(x: float, y: float, size: float, height: int, width: int) -> Box | None:
    """The part of the square that is inside the image, or None if that is too small."""
    left, top = max(0, int(x)), max(0, int(y))
    side = int(min(size, width - left, height - top))
    return Box(left, top, side) if side >= _SMALLEST else None


def _distance(a: Keypoint, b: Keypoint) -> float:
    return ((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5
