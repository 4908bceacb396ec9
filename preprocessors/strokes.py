"""Drawings of a picture by differences of Gaussians, without trained files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .detector import Method
from .frames import each_frame, warn_of_empty
from .host import Host
from .parameters import FloatParameter, IntParameter, Value

if TYPE_CHECKING:
    from torch import Tensor


class StandardLineart(Method):
    """What is darker than its surroundings, in gray, normalised by its median: the `standard` line art of A1111."""

    name = "standard"
    parameters = (
        FloatParameter(
            "line_sigma", 6.0, 0.5, 30.0, "standard: how far around a pixel to look. Higher: broader lines."
        ),
        IntParameter("line_threshold", 8, 0, 255, "standard: lines fainter than this do not count for the brightness."),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        threshold = int(values["line_threshold"]) / 255

        def draw(frame: Tensor, index: int) -> Tensor:
            darker = _darker_than_around(frame, 0, float(values["line_sigma"]))
            lines = darker[darker > threshold]
            # Half gray for the median line; a picture of faint differences is not blown up to full contrast.
            scale = max(16 / 255, float(lines.median())) if len(lines) else 1
            drawn = (darker * (127 / 255) / scale).clamp(0, 1) if len(lines) else darker.zero_()
            return drawn[..., None].expand_as(frame)

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "line", "Lower line_threshold.")
        return maps


class Xdog(Method):
    """Black-and-white strokes by thresholding a difference of two Gaussians (after Winnemoeller et al. 2012)."""

    name = "xdog"
    parameters = (IntParameter("stroke_threshold", 32, 1, 255, "xdog: lower it for more and broader strokes."),)

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        threshold = int(values["stroke_threshold"]) / 255

        def draw(frame: Tensor, index: int) -> Tensor:
            strokes = 2 * _darker_than_around(frame, 0.5, 5.0) > threshold
            return strokes.float()[..., None].expand_as(frame)

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "stroke", "Lower stroke_threshold.")
        return maps


def _darker_than_around(frame: Tensor, inner: float, outer: float) -> Tensor:
    """How much darker a pixel, blurred by `inner`, is than its surroundings, in the channel where it is least so.

    [height, width, 3] to [height, width] in 0..1.
    """
    import cv2
    import torch

    pixels = frame.numpy()
    around = torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), outer))
    here = torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), inner)) if inner else frame
    return (around - here).amin(-1).clamp(0, 1)
