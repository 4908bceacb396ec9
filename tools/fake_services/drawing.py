"""Images as a test double makes them: a human sees which service answered, and what it was asked for."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

Color = tuple[int, int, int]

_SHADES = 5
_TEXT_SHARE = 24  # lines of text fill an image's height


@dataclass(frozen=True)
class Wish:
    """What a request asks for, as far as a drawing shows it. `image` is an image file, None where there is none."""

    prompt: str
    width: int
    height: int
    count: int
    facts: Sequence[str] = ()
    seed: int = 0
    image: bytes | None = None


def draw(service: str, color: Color, wish: Wish, kind: str) -> list[bytes]:
    """`count` image files of the `kind` PNG, JPEG or WEBP: the image in the service's color, its words below."""
    return [_file(_drawing(service, color, wish, index), kind) for index in range(wish.count)]


def one_color(width: int, height: int, kind: str = "PNG") -> bytes:
    """What a safety filter puts in an image's place."""
    return _file(Image.new("RGB", (width, height)), kind)


def _drawing(service: str, color: Color, wish: Wish, index: int) -> Image.Image:
    size = wish.width, wish.height
    gray = _shapes(size) if wish.image is None else _image(wish.image, size)
    dark, light = tuple(part // 5 for part in color), (250, 248, 240)
    turned = (wish.seed + index) % _SHADES
    middle = tuple(min(255, part + 12 * turned) for part in color)
    image = ImageOps.colorize(gray, black=dark, white=light, mid=middle)
    pen = ImageDraw.Draw(image)
    high = max(wish.height // _TEXT_SHARE, 9)
    font = ImageFont.load_default(high)
    letters = max(int(wish.width / (high * 0.6)), 8)
    number = f" {index + 1}/{wish.count}" if wish.count > 1 else ""
    lines = [f"{service}{number} (a test double)", *textwrap.wrap(wish.prompt, letters)[:3], *wish.facts]
    band = (high + 3) * len(lines) + 6
    pen.rectangle((0, wish.height - band, wish.width, wish.height), fill=dark)
    for place, line in enumerate(lines):
        position = 6, wish.height - band + 3 + place * (high + 3)
        pen.text(position, line[:letters], fill=light if place else middle, font=font)
    return image


def _image(data: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.fit(image.convert("L"), size)


def _shapes(size: tuple[int, int]) -> Image.Image:
    """For a request whose image the double may not fetch."""
    image = Image.radial_gradient("L").resize(size)
    ImageDraw.Draw(image).ellipse((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill=40)
    return image


def _file(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 92}))
    return stream.getvalue()
