"""The world the demo model knows: flat shapes and simple people on plain backgrounds, drawn from a seed.

A `Scene` is a picture together with everything that is true of it: its caption, its control maps and the
palette it was painted with. The same seed draws the same scene on every machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import cv2
import numpy as np

SIZE = 128

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 95, 235),
    "yellow": (245, 215, 40),
    "purple": (140, 60, 185),
    "orange": (245, 140, 30),
    "cyan": (60, 205, 215),
    "pink": (245, 105, 175),
}
BACKGROUNDS = {
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
    "black": (20, 20, 20),
    "navy": (25, 35, 90),
    "mint": (190, 235, 205),
    "lavender": (205, 190, 240),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
POSES = {"standing": (70, 100), "with arms up": (-80, -40), "with arms out": (-15, 20)}
SKIN = (235, 185, 140)
RELATIONS = ("left of", "right of", "above", "below")

# OpenPose body order (COCO-18) and colors, as the SD1.5 openpose ControlNet was trained on:
# https://github.com/lllyasviel/ControlNet/blob/main/annotator/openpose/util.py
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
LIMB_COLORS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """The colors of one scene: a background name and three object color names."""

    background: str
    colors: tuple[str, str, str]


@dataclass(frozen=True)
class Scene:
    """A picture and what is true of it. Images are uint8 [128, 128, 3], `silhouette` and `person` bool [128, 128]."""

    image: np.ndarray
    caption: str
    colorless_caption: str
    palette: Palette
    canny: np.ndarray
    depth: np.ndarray
    openpose: np.ndarray
    silhouette: np.ndarray
    person: np.ndarray


def draw_scene(
    seed: int, palette: Palette | None = None, objects: int | None = None, person: bool | None = None
) -> Scene:
    """Draw the scene of `seed`; the optional arguments fix a part of it instead of drawing lots."""
    rng = random.Random(seed)
    drawn_palette = Palette(rng.choice(list(BACKGROUNDS)), tuple(rng.sample(list(COLORS), 3)))
    palette = palette or drawn_palette
    drawn_count = rng.choices((1, 2, 3), (45, 40, 15))[0]
    count = objects or drawn_count
    drawn_person = rng.random() < 0.4
    has_person = drawn_person if person is None else person

    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = BACKGROUNDS[palette.background]
    rows = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None]
    depth = np.repeat(20 + 50 * rows, SIZE, axis=1)
    silhouette = np.zeros((SIZE, SIZE), np.float32)
    person_mask = np.zeros((SIZE, SIZE), np.float32)
    skeleton = np.zeros((SIZE, SIZE, 3), np.uint8)
    phrases: list[tuple[str, str, float, float]] = []

    near = sorted(rng.uniform(0.3, 1.0) for _ in range(count))
    for index, (x, y) in enumerate(_places(rng, count)):
        color = palette.colors[index]
        if has_person and index == 0:
            joints, unit, pose, x, y = _person(rng, x, y)
            layers = _person_layers(joints, unit, np.array(COLORS[color], np.float32))
            skeleton = draw_skeleton(joints)
            thing = "person"
            words = f" {pose}" if rng.random() < 0.8 else ""
            before = ""
        else:
            thing = rng.choice(SHAPES)
            big = rng.random() < 0.5
            radius = rng.uniform(21, 29) if big else rng.uniform(13, 18)
            turn = rng.uniform(-25, 25)
            layers = [(_shape(thing, x, y, radius, turn), np.array(COLORS[color], np.float32))]
            words = ""
            before = rng.choice(("", "big " if big else "small "))
        mask = np.zeros((SIZE, SIZE), np.float32)
        for layer, paint in layers:
            canvas += (paint - canvas) * layer[..., None]
            mask = np.maximum(mask, layer)
        depth += (90 + 165 * near[index] - depth) * mask
        silhouette = np.maximum(silhouette, mask)
        person_mask = np.maximum(person_mask * (1 - mask), mask if thing == "person" else 0 * mask)
        colored, plain = f"{before}{color} {thing}{words}", f"{before}{thing}{words}"
        phrases.append((_with_article(colored), _with_article(plain), x, y))

    image = np.clip(canvas, 0, 255).astype(np.uint8)
    caption, colorless = _caption(rng, phrases, palette.background)
    return Scene(
        image=image,
        caption=caption,
        colorless_caption=colorless,
        palette=palette,
        canny=_as_rgb(edges(image)),
        depth=_as_rgb(np.clip(depth, 0, 255).astype(np.uint8)),
        openpose=skeleton,
        silhouette=silhouette > 0.5,
        person=person_mask > 0.5,
    )


def edges(image: np.ndarray) -> np.ndarray:
    """Canny edges of an RGB image, uint8 [h, w], 0 or 255, with the pack's default thresholds."""
    return cv2.Canny(image, 100, 200)


def draw_skeleton(joints: np.ndarray) -> np.ndarray:
    """An OpenPose body map (uint8 [128, 128, 3]) of 18 joints given as (x, y) pixels."""
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    for (start, end), color in zip(LIMBS, LIMB_COLORS, strict=False):
        a, b = joints[start], joints[end]
        (x, y), length = (a + b) / 2, np.hypot(*(a - b))
        angle = np.degrees(np.arctan2(a[1] - b[1], a[0] - b[0]))
        outline = cv2.ellipse2Poly((int(x), int(y)), (int(length / 2), 2), int(angle), 0, 360, 6)
        cv2.fillConvexPoly(canvas, outline, [int(value * 0.6) for value in color])
    for joint, color in zip(joints, LIMB_COLORS, strict=True):
        cv2.circle(canvas, (int(joint[0]), int(joint[1])), 2, color, -1)
    return canvas


def _places(rng: random.Random, count: int) -> list[tuple[float, float]]:
    if count < 3:
        slots = [(0.28, 0.3), (0.72, 0.3), (0.28, 0.7), (0.72, 0.7), (0.5, 0.5)]
        slots = rng.sample(slots[: 5 if count == 1 else 4], count)
    else:
        slots = rng.sample([(0.26, 0.28), (0.74, 0.28), (0.26, 0.72), (0.74, 0.72)], 3)
    return [(SIZE * (x + rng.uniform(-0.08, 0.08)), SIZE * (y + rng.uniform(-0.08, 0.08))) for x, y in slots]


def _shape(kind: str, x: float, y: float, radius: float, turn: float) -> np.ndarray:
    """Coverage 0..1 of an antialiased shape."""
    scale = 4
    mask = np.zeros((SIZE * scale, SIZE * scale), np.uint8)
    center, size = (round(x * scale), round(y * scale)), round(radius * scale)
    if kind == "circle":
        cv2.circle(mask, center, size, 255, -1)
    elif kind == "ring":
        cv2.circle(mask, center, size, 255, -1)
        cv2.circle(mask, center, round(size * 0.5), 0, -1)
    else:
        outline = np.array(center) + _OUTLINES[kind](turn) * size
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 255)
    return _coverage(mask)


def _rays(degrees: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.reshape(radii, (-1, 1))


_ARM = 0.36
_CROSS = np.array(
    [(-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM), (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM),
     (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)]
)  # fmt: skip
_OUTLINES = {
    "square": lambda turn: _rays(np.array([45, 135, 225, 315]) + turn, 1.15),
    "triangle": lambda turn: _rays(np.array([-90, 30, 150]) + turn, 1.2),
    "star": lambda turn: _rays(np.arange(10) * 36 - 90 + turn, np.tile([1.2, 0.55], 5)),
    "cross": lambda turn: _CROSS * 1.05,
}


def _person(rng: random.Random, x: float, y: float) -> tuple[np.ndarray, float, str, float, float]:
    """Joints (x, y) [18, 2] of a person near (x, y), its unit of length, its pose word and its true center."""
    height = SIZE * rng.uniform(0.55, 0.88)
    unit = height / 8
    x = min(max(x, SIZE * 0.24), SIZE * 0.76)
    base = min(max(y + height / 2, height + 3), SIZE - 3)
    pose = rng.choice(list(POSES))
    hip = np.array([x, base - 4 * unit])
    neck = np.array([x + rng.uniform(-0.3, 0.3) * unit, base - 6.6 * unit])
    nose = neck + np.array([rng.uniform(-0.2, 0.2), -0.8]) * unit

    def reach(side: int, degrees: float, length: float) -> np.ndarray:
        angle = np.radians(degrees)
        return np.array([side * np.cos(angle), np.sin(angle)]) * length * unit

    def arm(side: int) -> list[np.ndarray]:
        shoulder = neck + np.array([side * 1.0, 0.15]) * unit
        upper = rng.uniform(*POSES[pose])
        elbow = shoulder + reach(side, upper, 1.5)
        return [shoulder, elbow, elbow + reach(side, upper + rng.uniform(-25, 25), 1.4)]

    def leg(side: int) -> list[np.ndarray]:
        top = hip + np.array([side * 0.6, 0]) * unit
        knee = top + reach(side, rng.uniform(70, 95), 2)
        return [top, knee, knee + np.array([side * 0.1, 1.9]) * unit]

    face = [nose + np.array(offset) * unit for offset in ((-0.25, -0.2), (0.25, -0.2), (-0.5, 0), (0.5, 0))]
    joints = np.array([nose, neck, *arm(-1), *arm(1), *leg(-1), *leg(1), *face])
    return joints, unit, pose, x, base - height / 2


def _person_layers(joints: np.ndarray, unit: float, paint: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    scale = 4
    points = np.round(joints * scale).astype(np.int32)
    width = max(3 * scale, round(0.8 * unit * scale))

    def strokes(*pairs: tuple[int, int]) -> np.ndarray:
        mask = np.zeros((SIZE * scale, SIZE * scale), np.uint8)
        for a, b in pairs:
            cv2.line(mask, points[a].tolist(), points[b].tolist(), 255, width)
        return mask

    legs = strokes((8, 9), (9, 10), (11, 12), (12, 13))
    body = strokes((2, 3), (3, 4), (5, 6), (6, 7))
    cv2.fillConvexPoly(body, cv2.convexHull(points[[2, 5, 11, 8]]), 255)
    head = np.zeros_like(body)
    cv2.circle(head, points[0].tolist(), round(0.75 * unit * scale), 255, -1)
    skin = np.array(SKIN, np.float32)
    return [(_coverage(legs), paint * 0.62), (_coverage(body), paint), (_coverage(head), skin)]


def _coverage(mask: np.ndarray) -> np.ndarray:
    return cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _caption(rng: random.Random, phrases: list[tuple[str, str, float, float]], background: str) -> tuple[str, str]:
    """The caption and the same caption without a color in it."""
    order = rng.sample(phrases, len(phrases))
    tail = f" on a {background} background" if rng.random() < 0.85 else ""
    relation = None
    if len(order) > 1 and rng.random() < 0.7:
        dx, dy = order[1][2] - order[0][2], order[1][3] - order[0][3]
        sideways = abs(dx) > abs(dy)
        relation = RELATIONS[(0 if dx > 0 else 1) if sideways else (2 if dy > 0 else 3)]

    def sentence(words: list[str]) -> str:
        if relation:
            words = [f"{words[0]} {relation} {words[1]}", *words[2:]]
        return " and ".join(words)

    return sentence([p[0] for p in order]) + tail, sentence([p[1] for p in order])
