"""The picture as a bad copy of it would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame
from .host import Host
from .parameters import FloatParameter, IntParameter, Value
from .pixels import to_bytes
from .seeds import SEED, generator
from .tile import reduce_and_enlarge

if TYPE_CHECKING:
    from torch import Tensor


class LowQuality(Method):
    """Reduced and enlarged, noisy, and compressed, in this order, as pictures lose their quality."""

    parameters = (
        FloatParameter("reduce", 3.0, 1.0, 32.0, "How many times smaller it is made and enlarged again.", step=0.5),
        FloatParameter("noise", 0.03, 0.0, 0.5, "Strength of the noise; 1 would be from black to white."),
        IntParameter("jpeg_quality", 40, 1, 100, "Quality of the JPEG compression; 100 leaves it out."),
        SEED,
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        factor, strength, quality = float(values["reduce"]), float(values["noise"]), int(values["jpeg_quality"])

        def spoil(frame: Tensor, index: int) -> Tensor:
            frame = reduce_and_enlarge(frame, factor)
            if strength > 0:
                noise = torch.randn(frame.shape, generator=generator(values, index))
                frame = (frame + strength * noise).clamp(0, 1)
            return _compress(frame, quality) if quality < 100 else frame

        return each_frame(image, host, spoil)


def _compress(frame: Tensor, quality: int) -> Tensor:
    import cv2
    import torch

    rgb = to_bytes(frame)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    read = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert read is not None, "OpenCV reads what it has just written"
    return torch.from_numpy(cv2.cvtColor(read, cv2.COLOR_BGR2RGB)).float().div_(255)


LOW_QUALITY = Detector(Modality.LOW_QUALITY, "The picture blurred, noisy and full of JPEG artefacts.", (LowQuality(),))
