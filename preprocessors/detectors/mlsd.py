"""Straight lines, such as the edges of buildings and rooms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.modality import Modality
from ..detector import Detector, Method
from ..frames import warn_of_empty
from ..host import Host
from ..line_segments import LineSegments
from ..networks.controlnet_aux import network_class
from ..networks.runtime import open_network
from ..parameters import FloatParameter, Value
from ..resolution import TRAINED_RESOLUTION, Fit, trained_resolution
from ..weights.declarations import annotators_file
from ..weights.store import obtain
from ..weights.tensors import load_state, read_state

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

_MOST_LINES = 200
_TRAINED_AT = 512  # the network misses long lines in larger images
_MULTIPLE = 32
_BYTES_PER_PIXEL = 1000


class Mlsd(Method):
    """M-LSD (Gu et al. 2021), in the version that ControlNet was trained on, and drawn in the same way."""

    name = "mlsd"
    parameters = (
        FloatParameter(
            "score_threshold", 0.1, 0.01, 1.0, "mlsd: lowest score of a line. Lower values give more lines."
        ),
        FloatParameter(
            "distance_threshold",
            0.1,
            0.0,
            20.0,
            "mlsd: drop lines shorter than this, in pixels at the network's resolution.",
        ),
        TRAINED_RESOLUTION,
    )
    weights = (
        annotators_file(
            "mlsd",
            "mlsd_large_512_fp32.pth",
            6_341_481,
            "5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082",
        ),
    )

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_class("mlsd.models.mbv2_mlsd_large", "MobileV2_MLSD_Large")()
        load_state(network, read_state(files[0]), files[0])
        return network

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        network = open_network(self.build, tuple(obtain(weights, host) for weights in self.weights), host)
        height, width = image.shape[1:3]
        resolution = int(values["resolution"]) or trained_resolution(_TRAINED_AT, height, width)
        fit = Fit(height, width, resolution, _MULTIPLE)

        def infer(module: nn.Module, images: Tensor) -> Tensor:
            rgb = fit.to_network(images) * 2 - 1
            alpha = torch.full_like(rgb[:, :1], 1 / 127.5 - 1)  # the fourth channel, as in training
            return module(torch.cat((rgb, alpha), 1))[:, :5]

        tops = network.run(image.movedim(-1, 1), infer, host, _BYTES_PER_PIXEL * math.prod(fit.padded))
        thresholds = float(values["score_threshold"]), float(values["distance_threshold"])
        maps = torch.stack([draw_lines(lines(top, *thresholds, fit), height, width) for top in tops])
        warn_of_empty(maps, host, "straight line", "Lower score_threshold.")
        return maps


def lines(top: Tensor, score_threshold: float, distance_threshold: float, fit: Fit) -> np.ndarray:
    """Decode the network's output to at most 200 lines, those with the best scores.

    `top` is [5, height, width] at half the network's resolution: the logit that a pixel is the middle of a line, and
    the offsets x1, y1, x2, y2 of the line's ends from there. The result is float32 [count, 4]: x1, y1, x2, y2 in
    pixels of the image.
    """
    import numpy as np
    from torch.nn.functional import max_pool2d

    heat = top[0].sigmoid()
    peaks = (heat * (max_pool2d(heat[None], 3, stride=1, padding=1)[0] == heat)).flatten()
    scores, places = peaks.topk(min(_MOST_LINES, len(peaks)))
    ends = top[1:].flatten(1)[:, places].T  # [count, 4]
    length = (ends[:, :2] - ends[:, 2:]).norm(dim=1)
    y, x = places // top.shape[-1], places % top.shape[-1]
    inside = (2 * y < fit.resized[0]) & (2 * x < fit.resized[1])  # not in the padding
    kept = (scores > score_threshold) & (length > distance_threshold) & inside
    middles = np.stack((x, y, x, y), 1)[kept.numpy()]
    to_image = np.array([fit.width / fit.resized[1], fit.height / fit.resized[0]] * 2, np.float32)
    return (middles + ends.numpy()[kept.numpy()]) * 2 * to_image


def draw_lines(found: np.ndarray, height: int, width: int) -> Tensor:
    """Draw lines white and one pixel wide on black: [height, width, 3]."""
    import cv2
    import numpy as np
    import torch

    canvas = np.zeros((height, width), np.uint8)
    for x1, y1, x2, y2 in found.astype(int).tolist():
        cv2.line(canvas, (x1, y1), (x2, y2), 255)
    return (torch.from_numpy(canvas).float() / 255)[..., None].expand(height, width, 3)


MLSD = Detector(Modality.MLSD, "White straight lines on black.", (Mlsd(), LineSegments()))
