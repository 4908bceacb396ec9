"""People as keypoints, and the drawing of them that pose ControlNets were trained on.

The order of keypoints, the limbs and the colors are those of OpenPose (COCO, 18 body keypoints), as ControlNet 1.1 and
DWPose draw them.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Color = tuple[int, int, int]

NOSE, NECK, RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST, LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST = range(8)
RIGHT_HIP, RIGHT_KNEE, RIGHT_ANKLE, LEFT_HIP, LEFT_KNEE, LEFT_ANKLE = range(8, 14)
RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR = range(14, 18)
BODY_POINTS = 18
HAND_POINTS = 21

# Limb number i has the color of keypoint number i.
LIMBS = (
    (NECK, RIGHT_SHOULDER),
    (NECK, LEFT_SHOULDER),
    (RIGHT_SHOULDER, RIGHT_ELBOW),
    (RIGHT_ELBOW, RIGHT_WRIST),
    (LEFT_SHOULDER, LEFT_ELBOW),
    (LEFT_ELBOW, LEFT_WRIST),
    (NECK, RIGHT_HIP),
    (RIGHT_HIP, RIGHT_KNEE),
    (RIGHT_KNEE, RIGHT_ANKLE),
    (NECK, LEFT_HIP),
    (LEFT_HIP, LEFT_KNEE),
    (LEFT_KNEE, LEFT_ANKLE),
    (NECK, NOSE),
    (NOSE, RIGHT_EYE),
    (RIGHT_EYE, RIGHT_EAR),
    (NOSE, LEFT_EYE),
    (LEFT_EYE, LEFT_EAR),
)
BODY_COLORS: tuple[Color, ...] = (
    (255, 0, 0),
    (255, 85, 0),
    (255, 170, 0),
    (255, 255, 0),
    (170, 255, 0),
    (85, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 255, 170),
    (0, 255, 255),
    (0, 170, 255),
    (0, 85, 255),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (255, 0, 255),
    (255, 0, 170),
    (255, 0, 85),
)
# Limbs are darker than the joints they connect.
LIMB_BRIGHTNESS = 0.6
# Wrist, then four joints from the base to the tip of each finger.
FINGER_BONES = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
)
HAND_COLOR: Color = (0, 0, 255)
FACE_COLOR: Color = (255, 255, 255)

# Sizes in pixels for an image with a shorter side of 512.
DRAWN_AT = 512
STICK = 4
_BONE, _FINGER_JOINT, _FACE_DOT = 2, 4, 3


@dataclass(frozen=True)
class Keypoint:
    """A point in pixels from the upper left corner of the image, and the score of its network (0..1)."""

    x: float
    y: float
    score: float = 1.0


Keypoints = Sequence[Keypoint | None]


@dataclass(frozen=True)
class Person:
    """One person: 18 keypoints of the body, 21 of each hand, any number of the face. None or (): not found."""

    body: Keypoints
    left_hand: Keypoints = ()
    right_hand: Keypoints = ()
    face: Keypoints = ()


def draw_people(people: Iterable[Person], height: int, width: int, stick: float = STICK) -> np.ndarray:
    """The skeletons on black: uint8 RGB [height, width, 3].

    `stick` is half the width of a limb in pixels, for an image with a shorter side of 512. All sizes scale with the
    image, so that a net sees the same limbs when a large map is scaled down.
    """
    import numpy as np

    canvas = np.zeros((height, width, 3), np.uint8)
    scale = min(height, width) / DRAWN_AT * stick / STICK
    for person in people:
        _draw_body(canvas, person.body, max(1.0, STICK * scale))
        for hand in (person.left_hand, person.right_hand):
            _draw_hand(canvas, hand, scale)
        for point in person.face:
            _draw_dot(canvas, point, _FACE_DOT * scale, FACE_COLOR)
    return canvas


def _draw_body(canvas: np.ndarray, body: Keypoints, radius: float) -> None:
    for (start, end), color in zip(LIMBS, BODY_COLORS, strict=False):
        a, b = body[start], body[end]
        if a and b:
            _draw_limb(canvas, a, b, radius, tuple(int(channel * LIMB_BRIGHTNESS) for channel in color))
    for point, color in zip(body, BODY_COLORS, strict=True):
        _draw_dot(canvas, point, radius, color)


def _draw_limb(canvas: np.ndarray, a: Keypoint, b: Keypoint, radius: float, color: tuple[int, ...]) -> None:
    """Draw an ellipse from a to b."""
    import cv2
    import numpy as np

    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    along = np.array([b.x - a.x, b.y - a.y]) / 2
    length = max(float(np.hypot(*along)), 1e-6)
    across = np.array([-along[1], along[0]]) * radius / length
    outline = np.array([a.x, a.y]) + along + np.outer(np.cos(turn), along) + np.outer(np.sin(turn), across)
    cv2.fillConvexPoly(canvas, np.round(outline).astype(np.int32), color)


def _draw_hand(canvas: np.ndarray, hand: Keypoints, scale: float) -> None:
    import cv2

    for number, (start, end) in enumerate(FINGER_BONES if hand else ()):
        a, b = hand[start], hand[end]
        if a and b:
            hue = colorsys.hsv_to_rgb(number / len(FINGER_BONES), 1, 1)
            color = tuple(round(channel * 255) for channel in hue)
            cv2.line(canvas, _pixel(a), _pixel(b), color, thickness=max(1, round(_BONE * scale)))
    for point in hand:
        _draw_dot(canvas, point, _FINGER_JOINT * scale, HAND_COLOR)


def _draw_dot(canvas: np.ndarray, point: Keypoint | None, radius: float, color: Color) -> None:
    import cv2

    if point:
        cv2.circle(canvas, _pixel(point), max(1, round(radius)), color, thickness=-1)


def _pixel(point: Keypoint) -> tuple[int, int]:
    return round(point.x), round(point.y)
