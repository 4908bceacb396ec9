"""Stacks of controls that suit a kind of picture, so that nobody has to know which maps go together."""

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
    """What the picture shows, by the words that Scenario uses; what they expand to here is our own choice."""

    CHARACTER = "character"
    LANDSCAPE = "landscape"
    CITY = "city"
    INTERIOR = "interior"


@dataclass(frozen=True)
class Layer:
    """One control of a preset: its share of the preset's strength, and the share of the steps after which it ends."""

    modality: Modality
    strength: float
    end: float = 1.0


# The first layer fixes what the picture stands or falls with, through all steps. The second carries the rest and is
# weaker and ends earlier, so that the model can draw details of its own.
PRESETS: Mapping[Preset, tuple[Layer, ...]] = {
    # A pose is read off the skeleton; the silhouette of hair and clothes off soft edges.
    Preset.CHARACTER: (Layer(Modality.OPENPOSE, 1.0), Layer(Modality.SOFTEDGE, 0.5, end=0.6)),
    # Near and far make a landscape. Of its lines only the large ones matter: foliage would be noise to canny.
    Preset.LANDSCAPE: (Layer(Modality.DEPTH, 1.0), Layer(Modality.SOFTEDGE, 0.4, end=0.5)),
    # Facades are straight lines; depth keeps the houses behind one another.
    Preset.CITY: (Layer(Modality.MLSD, 1.0), Layer(Modality.DEPTH, 0.6, end=0.7)),
    # Walls are straight lines as well; what is a sofa and what a floor only segmentation tells (ADE20K knows rooms).
    Preset.INTERIOR: (Layer(Modality.MLSD, 1.0), Layer(Modality.SEGMENTATION, 0.6, end=0.7)),
}


def expand(
    preset: Preset, strength: float, make_map: Callable[[Modality], Tensor]
) -> tuple[tuple[ControlUnit, ...], tuple[Modality, ...]]:
    """The controls of a preset, and the modalities that are left out because `make_map` gave a black map.

    A black map in a stack is not nothing: it would tell the net that there is nobody, or no line, in the result.
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
    """What a preset became, a control a line."""
    lines = [f"{unit.modality.title}: strength {unit.strength:g}, for {unit.end:.0%} of the steps" for unit in units]
    lines += [f"{modality.title}: nothing found in the picture, left out" for modality in left_out]
    return "\n".join(lines)
