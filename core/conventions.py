"""How each kind of ControlNet expects its map, and the adaptation of maps to that.

Sources: the ControlNet 1.1 README and its gradio scripts; xinsir's ControlNetPlus README and test scripts; the model
cards of InstantX/FLUX.1-dev-Controlnet-Union and Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro and -Pro-2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from .errors import InvalidRequest
from .images import control_image, fit_mask, luminance, to_rgb
from .modality import Modality
from .problems import ProblemKind
from .request import ControlUnit, Detect

if TYPE_CHECKING:
    from torch import Tensor


INPAINT_WITHOUT_MASK = ProblemKind(
    "inpaint_without_mask",
    "mask is not connected. The Inpaint Control needs it to know which area to fill. Connect a mask.",
)


class NetKind(Enum):
    """Kinds of ControlNets that differ in the maps they expect."""

    SD15 = "ControlNet 1.1 (SD 1.5)"
    SDXL = "ControlNet (SDXL)"
    SDXL_UNION = "ControlNet Union (SDXL)"
    FLUX = "ControlNet (FLUX)"
    FLUX_UNION = "ControlNet Union (FLUX)"
    FLUX_UNION_PRO_2 = "ControlNet Union Pro 2.0 (FLUX)"


# The number by which a union net knows a modality. A net with fewer modes (the first SDXL union net has 0 to 5) lacks
# the later ones.
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
    """The mode number of a modality for a union net, or None if the net takes no mode or does not know the modality."""
    return _MODES.get(kind, {}).get(modality)


def adapt_map(image: Tensor, unit: ControlUnit, kind: NetKind) -> Tensor:
    """The map of a control as ControlNets of this kind expect it.

    `image` is the unit's map from `control_image`: float32 RGB [batch, height, width, 3] in 0..1 at the output size.
    The result has the same format, except that masked pixels of an inpaint map may be -1. A map that needs no change is
    returned as the same object. `limitation` describes what cannot be adapted. Raises InvalidRequest for an inpaint
    control without a mask.
    """
    convention = _CONVENTIONS.get((kind, unit.modality))
    return convention.adapt(image, unit) if convention else image


def limitation(kind: NetKind, modality: Modality) -> str:
    """What `adapt_map` cannot adapt for this kind of ControlNet, as sentences for the user; "" if there is nothing."""
    convention = _CONVENTIONS.get((kind, modality))
    return convention.limitation if convention else ""


# A line map with a larger share of pixels brighter than half gray is taken for a drawing on white paper. Maps that
# detectors make from photos, which users may load again, reach 0.55, and 0.76 with the broadest strokes.
_WHITE_PAPER_SHARE = 0.8


def is_black_on_white(unit: ControlUnit) -> bool:
    """Whether the user supplied a map with dark lines on white, where ControlNets expect white lines on black.

    The batch is judged as a whole, so that its images are either all inverted or none. This is never the case for maps
    made by a detector: they are white on black, however much of them the lines cover.
    """
    if unit.modality not in _LINES or unit.detect is not Detect.NONE:
        return False
    return float((to_rgb(unit.image).mean(-1) > 0.5).float().mean()) > _WHITE_PAPER_SHARE


def _unchanged(image: Tensor, unit: ControlUnit) -> Tensor:
    return image


def _fill_masked(value: float) -> Callable[[Tensor, ControlUnit], Tensor]:
    def fill(image: Tensor, unit: ControlUnit) -> Tensor:
        return image.masked_fill(_masked(unit, *image.shape[1:3])[..., None], value)

    return fill


def _masked(unit: ControlUnit, height: int, width: int) -> Tensor:
    """The pixels of the resized map that the mask touches: bool [batch, height, width].

    A mask pixel counts from 0.5 on. Map and mask are resized with the same filter, and every pixel that the masked area
    bled into counts as masked.
    """
    if unit.mask is None:
        raise InvalidRequest(f"{unit.modality.title} Control", [INPAINT_WITHOUT_MASK("mask")])
    return fit_mask((unit.mask >= 0.5).float(), unit.image, width, height, unit.resize)[..., 0] > 0


def _to_white_on_black(image: Tensor, unit: ControlUnit) -> Tensor:
    """The map, inverted if it is black on white.

    The original is inverted before it is resized: the black bars of `fit` must stay black, and reducing with
    `thin_lines` would keep the white beside a thin black line.
    """
    if not is_black_on_white(unit):
        return image
    return control_image(replace(unit, image=1 - to_rgb(unit.image)), image.shape[2], image.shape[1])


def _gray(image: Tensor, unit: ControlUnit) -> Tensor:
    return luminance(image).expand_as(image)


# Half the width in pixels of a limb as OpenPose draws it, and the factors on it: (below this longer side, factor), and
# 7 for larger images (xinsir's README).
_OPENPOSE_HALF_WIDTH = 4
_WIDTH_FACTORS = ((500, 1), (1000, 2), (2000, 3), (3000, 4), (4000, 5), (5000, 6))


# A limb is drawn as an ellipse: its mean width is this share of the width in its middle.
_MEAN_LIMB_WIDTH = 0.8


def limb_half_width(height: int, width: int) -> int:
    """Half the width in pixels of the limbs that the SDXL union net was trained on, for an image of this size."""
    return _OPENPOSE_HALF_WIDTH * next((factor for below, factor in _WIDTH_FACTORS if max(height, width) < below), 7)


def _thicken_limbs(image: Tensor, unit: ControlUnit) -> Tensor:
    """The skeleton with limbs as wide as the net was trained on. Each limb keeps its color, which identifies it."""
    target = limb_half_width(*image.shape[1:3])
    return _dilate(image, target - _measure_half_width(image))


def _measure_half_width(image: Tensor) -> int:
    """Half the width in pixels of the limbs of a skeleton map in their middle; 0 for a black map.

    The width is measured because a map may come from anywhere, at any size. It is the area divided by the area of a rim
    one pixel wide, averaged over all directions: joints that lie close together, as in a face, would distort a maximum.
    """
    from torch.nn import functional

    black = (image.amax(-1) < 0.1).float()[:, None]
    area = float((1 - black).sum())
    if area == 0:
        return 0
    # A square window erodes a diagonal line more than a straight one, and a cross (the two bars) less.
    square = functional.max_pool2d(black, 3, stride=1, padding=1)
    bars = [functional.max_pool2d(black, (1, 3), 1, (0, 1)), functional.max_pool2d(black, (3, 1), 1, (1, 0))]
    cross = bars[0].maximum(bars[1])
    rim = float((square + cross).sum()) / 2 - float(black.sum())
    return round(area / rim / _MEAN_LIMB_WIDTH - 0.5) if rim else max(image.shape[1:3])


def _dilate(image: Tensor, radius: int) -> Tensor:
    """Widen everything bright by `radius` pixels in its own color; shapes of equal brightness stop where they meet."""
    planes = image.movedim(-1, 1)
    for ring in range(radius):
        # Alternating a square and a cross gives an octagon, which is round enough for a limb.
        windows = ((3, 3),) if ring % 2 else ((1, 3), (3, 1))
        for spread in [_brightest_near(planes, window) for window in windows]:
            planes = planes.where(planes.amax(1, keepdim=True) >= spread.amax(1, keepdim=True), spread)
    return planes.movedim(1, -1).contiguous()


def _brightest_near(planes: Tensor, window: tuple[int, int]) -> Tensor:
    """For every pixel the color of the brightest pixel in a window (height, width) around it."""
    from torch.nn import functional

    padding = (window[0] // 2, window[1] // 2)
    brightness = planes.amax(1, keepdim=True)
    _, where = functional.max_pool2d(brightness, window, stride=1, padding=padding, return_indices=True)
    return planes.flatten(2).gather(2, where.flatten(2).expand(-1, planes.shape[1], -1)).view_as(planes)


@dataclass(frozen=True)
class _Convention:
    adapt: Callable[[Tensor, ControlUnit], Tensor] = _unchanged
    limitation: str = ""


_LINES = (Modality.CANNY, Modality.HED, Modality.SOFTEDGE, Modality.LINEART, Modality.MLSD, Modality.SCRIBBLE)
_CONVENTIONS: Mapping[tuple[NetKind, Modality], _Convention] = {
    **{(kind, modality): _Convention(_to_white_on_black) for kind in NetKind for modality in _LINES},
    (NetKind.SD15, Modality.INPAINT): _Convention(_fill_masked(-1.0)),
    (NetKind.SDXL, Modality.INPAINT): _Convention(
        _fill_masked(-1.0),
        "SDXL inpaint ControlNets use different values for the masked area; -1, which diffusers documents, was used. "
        "If yours was trained with another value, paint that value into the image and set detect to 'none'.",
    ),
    (NetKind.SDXL_UNION, Modality.INPAINT): _Convention(_fill_masked(0.0)),
    (NetKind.SDXL_UNION, Modality.OPENPOSE): _Convention(_thicken_limbs),
    (NetKind.SDXL_UNION, Modality.POSE): _Convention(
        _thicken_limbs,
        "This ControlNet knows bodies only; hands and faces in the map disturb it. Use an OpenPose Control.",
    ),
    (NetKind.SDXL_UNION, Modality.SEGMENTATION): _Convention(
        limitation="This ControlNet was trained on one color per object, as SAM draws them, not on ADE20K's colors. "
        "Set colors to 'per region' in the Segmentation Control."
    ),
    (NetKind.FLUX_UNION, Modality.GRAY): _Convention(_gray),
    (NetKind.FLUX_UNION_PRO_2, Modality.GRAY): _Convention(_gray),
}
