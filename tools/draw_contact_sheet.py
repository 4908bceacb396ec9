"""Draw docs/preprocessors.png: the nineteen control maps of one photo.

    python -m controlstack.tools.draw_contact_sheet [FOLDER ...]

The folders may hold the published weights. A detector whose weights are in none of them is drawn with a trained
network that some package contains, where the tests know one, and otherwise left blank with a note. An untrained
network is never used. `python dev.py docs --images` draws the sheet without such folders.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from ..core.images import fit_image
from ..core.memory import PlainMemory
from ..core.modality import Modality
from ..core.request import Resize
from ..preprocessors.detector import Detector
from ..preprocessors.detectors.registry import detector_for
from ..preprocessors.host import PlainHost
from ..preprocessors.parameters import Value
from ..preprocessors.weights.store import find
from ..tests.preprocessors import packaged_networks
from ..tests.preprocessors.packaged_mediapipe import face_task, mediapipe_folder

SHEET = Path(__file__).resolve().parent.parent / "docs" / "preprocessors.png"
TILE, CAPTION, GAP, COLUMNS, COLORS, RARE_COLORS = 224, 34, 8, 5, 256, 40

_MISSING = "no trained file\nwhere this sheet\nwas drawn"
# What shows a modality better than its defaults do.
SETTINGS: Mapping[Modality, Mapping[str, Value]] = {
    Modality.QRCODE: {"text": "ControlStack"},
    Modality.TILE: {"reduce": 12.0},
    Modality.LOW_QUALITY: {"reduce": 4.0, "noise": 0.1, "jpeg_quality": 10},
}
DRAWN_IN_COLORS = {Modality.OPENPOSE, Modality.POSE, Modality.FACE_DETECTOR, Modality.SEGMENTATION}
PACKAGED: Mapping[Modality, Callable[[], Any]] = {
    Modality.HED: packaged_networks.hed,
    Modality.MLSD: packaged_networks.mlsd,
    Modality.SCRIBBLE: packaged_networks.hed_scribble,
    Modality.SOFTEDGE: packaged_networks.hed,
    Modality.DEPTH: packaged_networks.depth,
    Modality.OPENPOSE: packaged_networks.openpose,
}


@dataclass(frozen=True)
class Tile:
    """A map [height, width, 3], or None with the reason in `note`."""

    title: str
    note: str
    picture: torch.Tensor | None


def make_tile(modality: Modality, photo: torch.Tensor, host: PlainHost) -> Tile:
    """The map of a modality by the first of its methods that can be run."""
    detector, settings = detector_for(modality), SETTINGS.get(modality, {})
    mask = _disc(photo) if detector.needs_mask else None
    ready = [m for m in detector.methods if all(find(w, host) for w in m.weights)]
    trained = [method for method in ready if method.weights]
    if not trained and modality in PACKAGED:
        stand_in = Detector(modality, detector.summary, (PACKAGED[modality](),))
        return Tile(modality.title, "weights from a package", stand_in.detect(photo, host, {})[0])
    for method in trained or ready:
        chosen = {"method": method.name} if len(detector.methods) > 1 else {}
        return Tile(modality.title, method.name, detector.detect(photo, host, {**settings, **chosen}, mask)[0])
    size = sum(weights.size for weights in detector.methods[0].weights) / 1e6
    return Tile(modality.title, f"needs a trained file of {size:.0f} MB", None)


def _disc(photo: torch.Tensor) -> torch.Tensor:
    height, width = photo.shape[1:3]
    y, x = torch.meshgrid(torch.arange(height) - height * 0.25, torch.arange(width) - width * 0.44, indexing="ij")
    return (torch.hypot(x, y) < height * 0.17).float()[None]


def draw_sheet(tiles: list[Tile]) -> Image.Image:
    """The tiles in rows, each above its caption."""
    rows = math.ceil(len(tiles) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP), "white")
    pen, title_font, note_font = ImageDraw.Draw(sheet), ImageFont.load_default(14), ImageFont.load_default(11)
    for index, tile in enumerate(tiles):
        left = GAP + index % COLUMNS * (TILE + GAP)
        top = GAP + index // COLUMNS * (TILE + CAPTION + GAP)
        if tile.picture is None:
            pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill="#e8e8e8", outline="#b0b0b0")
            middle = (left + TILE / 2, top + TILE / 2)
            pen.multiline_text(middle, _MISSING, fill="#606060", font=title_font, anchor="mm", align="center")
        else:
            pixels = tile.picture.clamp(0, 1).mul(255).round().byte().numpy()
            sheet.paste(Image.fromarray(pixels), (left, top))
        pen.text((left, top + TILE + 2), tile.title, fill="black", font=title_font)
        pen.text((left, top + TILE + 19), tile.note, fill="#606060", font=note_font)
    return sheet


def main(folders_with_weights: Sequence[Path] = ()) -> None:
    torch.manual_seed(0)
    sys.path.append(str(mediapipe_folder()))
    folders = [*folders_with_weights, face_task().parent]
    host = PlainHost(PlainMemory(torch.device("cpu")), folders)
    # Twice the tiles' size: lines of one pixel stay visible when they are reduced.
    photo = fit_image(torch.from_numpy(data.astronaut()).float()[None] / 255, 2 * TILE, 2 * TILE, Resize.STRETCH)
    tiles = [Tile("the photo", "NASA, public domain", photo[0])]
    for modality in Modality:
        tiles.append(make_tile(modality, photo, host))
        print(tiles[-1].title, "-", tiles[-1].note)
    reduced = [
        Tile(tile.title, tile.note, None if tile.picture is None else _reduce(tile.picture, modality))
        for tile, modality in zip(tiles, (None, *Modality), strict=True)
    ]
    drawn = [tile for tile, modality in zip(reduced, (None, *Modality), strict=True) if modality in DRAWN_IN_COLORS]
    sheet = draw_sheet(reduced)
    palette = Image.new("P", (1, 1))
    # The colors of thin limbs are too rare to get a place of their own among all others.
    rare = _palette(draw_sheet(drawn), RARE_COLORS, Image.Quantize.MAXCOVERAGE)
    palette.putpalette([255, 255, 255, *_palette(sheet, COLORS - RARE_COLORS - 1), *rare])
    sheet.quantize(palette=palette, dither=Image.Dither.NONE).save(SHEET, optimize=True)
    print(f"{SHEET}: {SHEET.stat().st_size / 1000:.0f} kB")
    for warning in host.warnings:
        print(warning)


def _palette(picture: Image.Image, count: int, method: Image.Quantize = Image.Quantize.MEDIANCUT) -> list[int]:
    """Red, green and blue of `count` colors that suit a picture."""
    chosen = picture.quantize(count, method).getpalette() or []
    return (chosen + [0] * 3 * count)[: 3 * count]


def _reduce(picture: torch.Tensor, modality: Modality | None) -> torch.Tensor:
    thin = modality is not None and modality.thin_lines
    return fit_image(picture[None], TILE, TILE, Resize.STRETCH, thin)[0]


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
