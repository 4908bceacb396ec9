"""Scribbles: edges drawn as pen strokes, as a person might draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.images import to_rgb
from ...core.modality import Modality
from ..detector import Detector
from ..difference_of_gaussians import Xdog
from ..frames import warn_of_empty
from ..host import Host
from ..parameters import Value
from ..resolution import RESOLUTION
from .softedge import Hed, PiDiNet, SoftEdges

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# As the published scribbles were made from images with a shorter side of 512: the sigma of both blurs, and the
# threshold (of 255) for a blurred line. They give strokes of twelve pixels.
_DRAWN_AT = 512
_SIGMA, _STROKE_THRESHOLD = 3.0, 4
_REMEDY = "Try another method, or an image with clearer shapes."


class Scribbled(SoftEdges):
    """The ridges of a network's soft edges, drawn twelve pixels wide, and thinner on images smaller than 512."""

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
    """Draw soft edges [batch, height, width, 3] as white strokes on black, of the same shape."""
    import numpy as np
    import torch

    drawn = np.stack([_stroke(frame) for frame in edges[..., 0].mul(255).numpy()])
    maps = to_rgb(torch.from_numpy(drawn).float()[..., None])
    warn_of_empty(maps, host, "stroke", _REMEDY)
    return maps


def _stroke(edges: np.ndarray) -> np.ndarray:
    """The widened ridges of edges: [height, width] in 0..255 to booleans."""
    import cv2
    import numpy as np

    edges = np.floor(edges)  # the published scribbles were made from 8-bit maps
    smooth = cv2.GaussianBlur(edges, (0, 0), _SIGMA)
    ridges = np.zeros(edges.shape, bool)
    for line in _LINES:
        along = np.array(line, np.uint8)
        ridges |= cv2.dilate(smooth, along) == smooth
    thin = np.where(ridges & (smooth > 127), np.uint8(255), np.uint8(0))
    pen = min(1.0, min(edges.shape) / _DRAWN_AT)
    return cv2.GaussianBlur(thin, (0, 0), _SIGMA * pen) > _STROKE_THRESHOLD / pen


# A pixel is on a ridge if neither of its two neighbors along one of these lines exceeds it.
_LINES = (
    ((0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ((0, 1, 0), (0, 1, 0), (0, 1, 0)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
)

SCRIBBLE = Detector(
    Modality.SCRIBBLE, "White strokes on black, as if drawn by hand.", (HedScribble(), PiDiNetScribble(), Xdog())
)
