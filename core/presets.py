"""Presets: stacks of controls that suit a kind of image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from .modality import Modality
from .request import ControlUnit, Detect

if TYPE_CHECKING:
    from torch import Tensor


class Preset(StrEnum):
    """What the image shows. The names are Scenario's; the controls they expand to are chosen here."""

    CHARACTER = "character"
    LANDSCAPE = "landscape"
    CITY = "city"
    INTERIOR = "interior"


@dataclass(frozen=True)
class Layer:
    """One control of a preset: its strength as a share of the preset's, and the share of the steps where it ends."""

    modality: Modality
    strength: float
    end: float = 1.0


# The first layer holds the structure that matters most, through all steps. The second adds the rest; it is weaker and
# ends earlier, so that the model can draw its own details.
PRESETS: Mapping[Preset, tuple[Layer, ...]] = {
    # The skeleton gives the pose, soft edges give the silhouette of hair and clothes.
    Preset.CHARACTER: (Layer(Modality.OPENPOSE, 1.0), Layer(Modality.SOFTEDGE, 0.5, end=0.6)),
    # Depth carries a landscape. Only its large lines matter: canny edges of foliage would be noise.
    Preset.LANDSCAPE: (Layer(Modality.DEPTH, 1.0), Layer(Modality.SOFTEDGE, 0.4, end=0.5)),
    # Facades are straight lines; depth keeps the order of the buildings.
    Preset.CITY: (Layer(Modality.MLSD, 1.0), Layer(Modality.DEPTH, 0.6, end=0.7)),
    # Walls are straight lines. Only segmentation tells a sofa from a floor (ADE20K has classes for rooms).
    Preset.INTERIOR: (Layer(Modality.MLSD, 1.0), Layer(Modality.SEGMENTATION, 0.6, end=0.7)),
}


def expand(
    preset: Preset, strength: float, make_map: Callable[[Modality], Tensor]
) -> tuple[tuple[ControlUnit, ...], tuple[Modality, ...]]:
    """The controls of a preset, and the modalities left out because `make_map` returned a black map.

    `make_map` gives the map of a modality: float32 [batch, height, width, 3] in 0..1. A black map must not go into the
    stack: it would tell the ControlNet that the result has no person, or no line.
    """
    units: list[ControlUnit] = []
    left_out: list[Modality] = []
    for layer in PRESETS[preset]:
        image = make_map(layer.modality)
        if bool(image.any()):
            unit = ControlUnit(layer.modality, image, Detect.LOCAL, strength * layer.strength, end=layer.end)
            units.append(unit)
        else:
            left_out.append(layer.modality)
    return tuple(units), tuple(left_out)


def describe_expansion(units: tuple[ControlUnit, ...], left_out: tuple[Modality, ...]) -> str:
    """The controls of an expanded preset as text, one control a line."""
    lines = [f"{unit.modality.title}: strength {unit.strength:g}, for {unit.end:.0%} of the steps" for unit in units]
    lines += [f"{modality.title}: nothing found in the image, left out" for modality in left_out]
    return "\n".join(lines)
