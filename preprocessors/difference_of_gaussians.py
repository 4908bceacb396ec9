"""Line drawings by a difference of Gaussians, without trained files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .detector import Method
from .frames import each_frame, warn_of_empty
from .host import Host
from .parameters import FloatParameter, IntParameter, Value

if TYPE_CHECKING:
    from torch import Tensor


class StandardLineart(Method):
    """Whatever is darker than its surroundings, in gray, scaled by its median: the `standard` line art of A1111."""

    name = "standard"
    parameters = (
        FloatParameter(
            "line_sigma",
            6.0,
            0.5,
            30.0,
            "standard: radius in pixels of the surroundings that a pixel is compared with. Higher values give "
            "broader lines.",
        ),
        IntParameter(
            "line_threshold",
            8,
            0,
            255,
            "standard: lines fainter than this (0 to 255) do not count when the brightness of the map is scaled.",
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        threshold = int(values["line_threshold"]) / 255

        def draw(frame: Tensor, index: int) -> Tensor:
            darker = _darkness(frame, 0, float(values["line_sigma"]))
            lines = darker[darker > threshold]
            # The median line becomes half gray. The minimum keeps an image of faint differences from full contrast.
            scale = max(16 / 255, float(lines.median())) if len(lines) else 1
            drawn = (darker * (127 / 255) / scale).clamp(0, 1) if len(lines) else darker.zero_()
            return drawn[..., None].expand_as(frame)

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "line", "Lower line_threshold.")
        return maps


class Xdog(Method):
    """Strokes in black and white: a thresholded difference of two Gaussians (after Winnemoeller et al. 2012)."""

    name = "xdog"
    parameters = (
        IntParameter(
            "stroke_threshold",
            32,
            1,
            255,
            "xdog: threshold for a stroke (1 to 255). Lower values give more and broader strokes.",
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        threshold = int(values["stroke_threshold"]) / 255

        def draw(frame: Tensor, index: int) -> Tensor:
            strokes = 2 * _darkness(frame, 0.5, 5.0) > threshold
            return strokes.float()[..., None].expand_as(frame)

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "stroke", "Lower stroke_threshold.")
        return maps


def _darkness(frame: Tensor, inner: float, outer: float) -> Tensor:
    """How much darker each pixel is than its surroundings, in the channel with the smallest difference.

    [height, width, 3] to [height, width] in 0..1. `inner` and `outer` are the sigmas of the pixel's own blur (0: none)
    and of its surroundings.
    """
    import cv2
    import torch

    pixels = frame.numpy()
    surroundings = torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), outer))
    blurred = torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), inner)) if inner else frame
    return (surroundings - blurred).amin(-1).clamp(0, 1)
