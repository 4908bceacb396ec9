"""Canny edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.modality import Modality
from .detector import Detector, Method
from .frames import warn_of_empty
from .host import Host
from .parameters import IntParameter, Value
from .pixels import from_gray_bytes, to_bytes

if TYPE_CHECKING:
    from torch import Tensor


class Canny(Method):
    """Thin white edges on black (Canny 1986), as the canny ControlNets were trained on: OpenCV on the RGB picture."""

    parameters = (
        IntParameter("low_threshold", 100, 0, 1000, "Edges weaker than this are dropped. Lower it to see more detail."),
        IntParameter(
            "high_threshold", 200, 0, 1000, "Edges stronger than this are kept, with the weaker ones they lead to."
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import cv2
        import numpy as np

        low, high = float(values["low_threshold"]), float(values["high_threshold"])
        edges = np.empty(image.shape[:3], np.uint8)
        for index, frame in enumerate(to_bytes(image)):
            host.progress(index, len(image))
            cv2.Canny(frame, low, high, edges[index])
        host.progress(len(image), len(image))
        maps = from_gray_bytes(edges)
        warn_of_empty(maps, host, "edge", "Lower the thresholds.")
        return maps


CANNY = Detector(Modality.CANNY, "Thin white lines on black where the picture has edges.", (Canny(),))
