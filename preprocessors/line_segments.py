"""Straight lines by OpenCV's line segment detector, without trained files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .detector import Method
from .frames import each_frame, warn_of_empty
from .host import Host
from .parameters import FloatParameter, Value
from .pixels import to_bytes

if TYPE_CHECKING:
    from torch import Tensor


class LineSegments(Method):
    """LSD (von Gioi et al. 2010). The lines are drawn white and one pixel wide, as for M-LSD."""

    name = "opencv"
    parameters = (
        FloatParameter(
            "min_length", 0.04, 0.0, 1.0, "opencv: drop lines shorter than this fraction of the image's shorter side."
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import cv2
        import numpy as np
        import torch

        shortest = float(values["min_length"]) * min(image.shape[1:3])
        detector = cv2.createLineSegmentDetector()

        def draw(frame: Tensor, index: int) -> Tensor:
            found = detector.detect(cv2.cvtColor(to_bytes(frame), cv2.COLOR_RGB2GRAY))[0]
            canvas = np.zeros((*frame.shape[:2], 3), np.uint8)
            for x1, y1, x2, y2 in () if found is None else found.reshape(-1, 4):
                if np.hypot(x2 - x1, y2 - y1) >= shortest:
                    cv2.line(canvas, (round(x1), round(y1)), (round(x2), round(y2)), (255, 255, 255))
            return torch.from_numpy(canvas).float().div_(255)

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "straight line", "Lower min_length.")
        return maps
