"""Scribbles: edges made into strokes of a pen, as a person might draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.images import to_rgb
from ..core.modality import Modality
from .detector import Detector
from .frames import warn_of_empty
from .host import Host
from .parameters import Value
from .shape import RESOLUTION
from .softedge import Hed, PiDiNet, SoftEdges
from .strokes import Xdog

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# As the published scribbles were made, of pictures whose shorter side is 512: the deviation of both blurs, and how
# bright a blurred line, 255 before, counts as stroke; that makes strokes of twelve pixels.
_DRAWN_AT = 512
_BLUR, _INK = 3.0, 4
_REMEDY = "A picture with clearer forms, or another method, may give strokes."


class Scribbled(SoftEdges):
    """The ridges of a network's soft edges, drawn with a pen of twelve pixels, and a thinner one on small pictures."""

    parameters = (RESOLUTION,)

    def finish(self, maps: Tensor, **values: Value) -> Tensor:
        return maps

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        return strokes(super().detect(image, mask, host, **values), host)


class HedScribble(Scribbled, Hed):
    """Strokes along HED's edges."""


class PiDiNetScribble(Scribbled, PiDiNet):
    """Strokes along PiDiNet's edges."""


def strokes(edges: Tensor, host: Host) -> Tensor:
    """Soft edges [batch, height, width, 3] become white strokes on black of the same shape."""
    import numpy as np
    import torch

    drawn = np.stack([_stroke(frame) for frame in edges[..., 0].mul(255).numpy()])
    maps = to_rgb(torch.from_numpy(drawn).float()[..., None])
    warn_of_empty(maps, host, "stroke", _REMEDY)
    return maps


def _stroke(edges: np.ndarray) -> np.ndarray:
    """[height, width] in 0..255 to booleans: the ridges of the edges, widened."""
    import cv2
    import numpy as np

    edges = np.floor(edges)  # as the published scribbles were made, from 8 bit
    smooth = cv2.GaussianBlur(edges, (0, 0), _BLUR)
    ridges = np.zeros(edges.shape, bool)
    for line in _LINES:
        along = np.array(line, np.uint8)
        ridges |= cv2.dilate(smooth, along) == smooth
    thin = np.where(ridges & (smooth > 127), np.uint8(255), np.uint8(0))
    pen = min(1.0, min(edges.shape) / _DRAWN_AT)
    return cv2.GaussianBlur(thin, (0, 0), _BLUR * pen) > _INK / pen


# A ridge is a pixel that none of its two neighbours in one of these directions exceeds.
_LINES = (
    ((0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ((0, 1, 0), (0, 1, 0), (0, 1, 0)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
)

SCRIBBLE = Detector(
    Modality.SCRIBBLE, "White strokes on black, as if drawn by hand.", (HedScribble(), PiDiNetScribble(), Xdog())
)
