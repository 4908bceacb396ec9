"""The picture out of focus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame
from .host import Host
from .parameters import FloatParameter, Value

if TYPE_CHECKING:
    from torch import Tensor


class Blur(Method):
    """A Gaussian: what repeats every d pixels keeps exp(-2 (pi sigma / d)^2) of its contrast."""

    parameters = (
        FloatParameter(
            "sigma", 6.0, 0.1, 100.0, "Radius of the blur in pixels. Raise it to leave more open.", step=0.1
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import cv2
        import torch

        sigma = float(values["sigma"])
        return each_frame(
            image, host, lambda frame, _: torch.from_numpy(cv2.GaussianBlur(frame.numpy(), (0, 0), sigma))
        )


BLUR = Detector(Modality.BLUR, "The picture out of focus.", (Blur(),))
