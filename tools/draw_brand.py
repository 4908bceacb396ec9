"""Draw assets/icon.png and assets/banner.png, which the ComfyUI registry shows: a stack of control maps.

python -m controlstack.tools.draw_brand
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

ASSETS = Path(__file__).resolve().parent.parent / "assets"
ICON_SIZE = (400, 400)
BANNER_SIZE = (1260, 540)  # the registry asks for 21:9
_OVERSAMPLING = 4  # shapes are drawn this much larger, then reduced: smooth edges
_BACKGROUND = "#14161f"
_LAYERS = ("#4f6bed", "#21b8a6", "#f4b740", "#f2f4f8")  # from the bottom of the stack to its top


def draw_stack(size: tuple[int, int], width: float) -> Image.Image:
    """Four sheets above each other, seen from the side, in the middle of an image of `size`.

    `width` is the width of a sheet as a fraction of the image's width.
    """
    large = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    image = Image.new("RGB", large, _BACKGROUND)
    pen = ImageDraw.Draw(image)
    half = large[0] * width / 2
    center_x, step = large[0] / 2, half * 0.42
    for level, color in enumerate(_LAYERS):
        center_y = large[1] / 2 + step * ((len(_LAYERS) - 1) / 2 - level)
        corners = [(-half, 0), (0, -half / 2), (half, 0), (0, half / 2)]
        outline = [(center_x + x, center_y + y) for x, y in corners]
        pen.polygon(outline, fill=color)
        pen.line([*outline, outline[0], outline[1]], fill=_BACKGROUND, width=round(half * 0.06), joint="curve")
    return image.resize(size, Image.Resampling.LANCZOS)


def main() -> None:
    draw_stack(ICON_SIZE, 0.74).quantize(64).save(ASSETS / "icon.png", optimize=True)
    draw_stack(BANNER_SIZE, 0.32).quantize(64).save(ASSETS / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
