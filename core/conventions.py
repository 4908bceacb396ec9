"""What each kind of ControlNet was trained to see: the same map, adapted where it is used.

Sources: the ControlNet 1.1 README and its gradio scripts; xinsir's ControlNetPlus README and test scripts; the model
cards of InstantX/FLUX.1-dev-Controlnet-Union and Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro and -Pro-2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from .errors import InvalidRequest, Problem
from .images import control_image, fit_mask, luminance, to_rgb
from .modality import Modality
from .request import ControlUnit, Detect

if TYPE_CHECKING:
    from torch import Tensor


class NetKind(Enum):
    """The families of nets that read maps by conventions of their own."""

    SD15 = "ControlNet 1.1 (SD 1.5)"
    SDXL = "ControlNet (SDXL)"
    SDXL_UNION = "ControlNet Union (SDXL)"
    FLUX = "ControlNet (FLUX)"
    FLUX_UNION = "ControlNet Union (FLUX)"
    FLUX_UNION_PRO_2 = "ControlNet Union Pro 2.0 (FLUX)"


# A net that was published with fewer modes than these (the first SDXL union has 0 to 5) cannot do the later ones.
_MODES: Mapping[NetKind, Mapping[Modality, int]] = {
    NetKind.SDXL_UNION: {
        Modality.OPENPOSE: 0,
        Modality.POSE: 0,
        Modality.DEPTH: 1,
        Modality.HED: 2,
        Modality.SOFTEDGE: 2,
        Modality.SCRIBBLE: 2,
        Modality.CANNY: 3,
        Modality.LINEART: 3,
        Modality.MLSD: 3,
        Modality.NORMAL: 4,
        Modality.SEGMENTATION: 5,
        Modality.TILE: 6,
        Modality.BLUR: 6,
        Modality.LOW_QUALITY: 6,
        Modality.INPAINT: 7,
    },
    NetKind.FLUX_UNION: {
        Modality.CANNY: 0,
        Modality.TILE: 1,
        Modality.DEPTH: 2,
        Modality.BLUR: 3,
        Modality.OPENPOSE: 4,
        Modality.POSE: 4,
        Modality.GRAY: 5,
        Modality.LOW_QUALITY: 6,
    },
}


def union_mode(kind: NetKind, modality: Modality) -> int | None:
    """The number by which a union net is told the modality; None where the net takes none or cannot do it."""
    return _MODES.get(kind, {}).get(modality)


def adapt_map(image: Tensor, unit: ControlUnit, kind: NetKind) -> Tensor:
    """The map of a control as nets of this kind expect it.

    `image` is the unit's map as RGB at the picture's size, as `control_image` gives it: float32 [batch, height, width,
    3] in 0..1. So is the result, except that masked pixels of an inpaint map may be -1. A map that needs nothing is
    returned as it is. What pixels alone cannot give, `unmet` says. Raises InvalidRequest for inpaint without a mask.
    """
    convention = _CONVENTIONS.get((kind, unit.modality))
    return convention.adapt(image, unit) if convention else image


def unmet(kind: NetKind, modality: Modality) -> str:
    """What a net of this kind expects of a map that `adapt_map` cannot give it, as a sentence; "" where nothing."""
    convention = _CONVENTIONS.get((kind, modality))
    return convention.unmet if convention else ""


# The share of pixels brighter than half gray from which a map of lines is taken for a drawing on paper. Maps that are
# made here of photos, which may be brought back, have up to 0.55; with the broadest strokes of all settings 0.76.
_PAPER = 0.8


def is_on_paper(unit: ControlUnit) -> bool:
    """Whether the user brought dark lines on light paper where nets know light lines on black.

    The batch is taken as a whole, so that no picture of it is turned round and its neighbour not. A map that a detector
    made is never meant: it is light on black by contract, however much of it the lines cover.
    """
    if unit.modality not in _LINES or unit.detect is not Detect.NONE:
        return False
    return float((to_rgb(unit.image).mean(-1) > 0.5).float().mean()) > _PAPER


def _as_it_is(image: Tensor, unit: ControlUnit) -> Tensor:
    return image


def _mark_masked(value: float) -> Callable[[Tensor, ControlUnit], Tensor]:
    def mark(image: Tensor, unit: ControlUnit) -> Tensor:
        return image.masked_fill(_masked(unit, *image.shape[1:3])[..., None], value)

    return mark


def _masked(unit: ControlUnit, height: int, width: int) -> Tensor:
    """Which pixels of the map at this size the mask touches: bool [batch, height, width].

    A pixel of the mask counts from 0.5 on. What the marked area bled into when the map was resized counts as well, as
    mask and map go through the same filter.
    """
    if unit.mask is None:
        missing = Problem("mask", "not connected", "it says what to fill in", "Connect a mask to the Inpaint Control.")
        raise InvalidRequest(f"{unit.modality.title} Control", [missing])
    return fit_mask((unit.mask >= 0.5).float(), unit.image, width, height, unit.resize)[..., 0] > 0


def _white_on_black(image: Tensor, unit: ControlUnit) -> Tensor:
    """Lines drawn on white paper, as a user may bring them, turned round.

    They are turned round before the map is fitted: the bars of `fit` are no paper, and the brightest pixel of a thin
    black line is the paper beside it.
    """
    if not is_on_paper(unit):
        return image
    return control_image(replace(unit, image=1 - to_rgb(unit.image)), image.shape[2], image.shape[1])


def _gray(image: Tensor, unit: ControlUnit) -> Tensor:
    return luminance(image).expand_as(image)


# Half the width of a limb as OpenPose draws it, and the factor on it by the longer side of the picture; 7 above these
# (xinsir's README).
_STICK = 4
# A limb is an ellipse: its width on average is this share of that in its middle.
_LIMB = 0.8
_THICKER = ((500, 1), (1000, 2), (2000, 3), (3000, 4), (4000, 5), (5000, 6))


def stick_width(height: int, width: int) -> int:
    """Half the width in pixels of the limbs that the SDXL union net was trained on, for a picture of this size."""
    return _STICK * next((factor for below, factor in _THICKER if max(height, width) < below), 7)


def _thick_sticks(image: Tensor, unit: ControlUnit) -> Tensor:
    """The skeleton with limbs as wide as the net knows them; each keeps its colour, which names it."""
    wanted = stick_width(*image.shape[1:3])
    return _grow(image, wanted - _half_width(image))


def _half_width(image: Tensor) -> int:
    """Half the width in pixels that the limbs of a skeleton map have in their middle; 0 where there is none.

    It is measured, as maps come from anywhere and at any size: by how much of it one pixel at its rim is, on average
    over all directions, since where joints crowd, as in every face, it is far wider than a limb.
    """
    from torch.nn import functional

    black = (image.amax(-1) < 0.1).float()[:, None]
    area = float((1 - black).sum())
    if area == 0:
        return 0
    # A square takes more off a slanting line than off a straight one, and a cross (the two bars) less.
    square = functional.max_pool2d(black, 3, stride=1, padding=1)
    bars = [functional.max_pool2d(black, reach, 1, (reach[0] // 2, reach[1] // 2)) for reach in ((1, 3), (3, 1))]
    cross = bars[0].maximum(bars[1])
    rim = float((square + cross).sum()) / 2 - float(black.sum())
    return round(area / rim / _LIMB - 0.5) if rim else max(image.shape[1:3])


def _grow(image: Tensor, radius: int) -> Tensor:
    """Every bright thing wider by `radius` pixels, its colour kept; where two of the same brightness meet, both end."""
    planes = image.movedim(-1, 1)
    for ring in range(radius):
        # A square and a cross in turn make an octagon, which is round enough for a limb.
        reaches = ((3, 3),) if ring % 2 else ((1, 3), (3, 1))
        for spread in [_brightest_near(planes, reach) for reach in reaches]:
            planes = planes.where(planes.amax(1, keepdim=True) >= spread.amax(1, keepdim=True), spread)
    return planes.movedim(1, -1).contiguous()


def _brightest_near(planes: Tensor, reach: tuple[int, int]) -> Tensor:
    """For every pixel the colour of the brightest one in a window of this height and width around it."""
    from torch.nn import functional

    padding = (reach[0] // 2, reach[1] // 2)
    brightness = planes.amax(1, keepdim=True)
    _, where = functional.max_pool2d(brightness, reach, stride=1, padding=padding, return_indices=True)
    return planes.flatten(2).gather(2, where.flatten(2).expand(-1, planes.shape[1], -1)).view_as(planes)


@dataclass(frozen=True)
class _Convention:
    adapt: Callable[[Tensor, ControlUnit], Tensor] = _as_it_is
    unmet: str = ""


_LINES = (Modality.CANNY, Modality.HED, Modality.SOFTEDGE, Modality.LINEART, Modality.MLSD, Modality.SCRIBBLE)
_CONVENTIONS: Mapping[tuple[NetKind, Modality], _Convention] = {
    **{(kind, modality): _Convention(_white_on_black) for kind in NetKind for modality in _LINES},
    (NetKind.SD15, Modality.INPAINT): _Convention(_mark_masked(-1.0)),
    (NetKind.SDXL, Modality.INPAINT): _Convention(
        _mark_masked(-1.0),
        "SDXL inpaint nets agree on no mark for the masked area; -1 is what diffusers documents. "
        "For a net trained on another mark, paint it into the picture and set detect to 'none'.",
    ),
    (NetKind.SDXL_UNION, Modality.INPAINT): _Convention(_mark_masked(0.0)),
    (NetKind.SDXL_UNION, Modality.OPENPOSE): _Convention(_thick_sticks),
    (NetKind.SDXL_UNION, Modality.POSE): _Convention(
        _thick_sticks, "The net knows bodies only; hands and face in the map disturb it. Use an OpenPose Control."
    ),
    (NetKind.SDXL_UNION, Modality.SEGMENTATION): _Convention(
        unmet="The net was trained on a colour for every object, as SAM draws them, not on the colours of ADE20K. "
        "Set colors to 'per region' in the Segmentation Control."
    ),
    (NetKind.FLUX_UNION, Modality.GRAY): _Convention(_gray),
    (NetKind.FLUX_UNION_PRO_2, Modality.GRAY): _Convention(_gray),
}
