"""Maps that are the image itself with information taken out: blur, gray, tile and low quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.images import luminance
from ...core.modality import Modality
from ..detector import Detector, Method
from ..frames import each_frame
from ..host import Host
from ..parameters import FloatParameter, IntParameter, Value
from ..pixels import to_bytes
from ..seeds import SEED, generator

if TYPE_CHECKING:
    from torch import Tensor


class Blur(Method):
    """A Gaussian blur. A pattern that repeats every d pixels keeps exp(-2 (pi sigma / d)^2) of its contrast."""

    parameters = (
        FloatParameter(
            "sigma",
            6.0,
            0.1,
            100.0,
            "Radius of the Gaussian blur in pixels. Higher values leave the model more freedom.",
            step=0.1,
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import cv2
        import torch

        sigma = float(values["sigma"])
        return each_frame(
            image, host, lambda frame, _: torch.from_numpy(cv2.GaussianBlur(frame.numpy(), (0, 0), sigma))
        )


class Gray(Method):
    """The luminance in all three channels."""

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        return each_frame(image, host, lambda frame, _: luminance(frame).expand_as(frame))


class Tile(Method):
    """The image unchanged (ControlNet 1.1), or scaled down and up again (the SDXL union was trained on 1 to 32x)."""

    parameters = (
        FloatParameter(
            "reduce",
            1.0,
            1.0,
            32.0,
            "Scale the image down by this factor and up again. 1: unchanged. Higher values leave more detail to "
            "invent.",
            step=0.5,
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        factor = float(values["reduce"])
        return each_frame(image, host, lambda frame, _: reduce_and_enlarge(frame, factor))


class LowQuality(Method):
    """Scaled down and up again, then noise added, then compressed: the order in which images lose their quality."""

    parameters = (
        FloatParameter("reduce", 3.0, 1.0, 32.0, "Scale the image down by this factor and up again.", step=0.5),
        FloatParameter("noise", 0.03, 0.0, 0.5, "Standard deviation of the added noise. 1 is the range of the image."),
        IntParameter("jpeg_quality", 40, 1, 100, "Quality of the JPEG compression. 100: no compression."),
        SEED,
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        factor, strength, quality = float(values["reduce"]), float(values["noise"]), int(values["jpeg_quality"])

        def degrade(frame: Tensor, index: int) -> Tensor:
            frame = reduce_and_enlarge(frame, factor)
            if strength > 0:
                noise = torch.randn(frame.shape, generator=generator(values, index))
                frame = (frame + strength * noise).clamp(0, 1)
            return _compress(frame, quality) if quality < 100 else frame

        return each_frame(image, host, degrade)


def reduce_and_enlarge(frame: Tensor, factor: float) -> Tensor:
    """Scale [height, width, channel] down by `factor` (area) and up again (bicubic), to the same size."""
    from torch.nn import functional

    if factor == 1:
        return frame
    height, width = frame.shape[:2]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    planes = functional.interpolate(frame.movedim(-1, 0)[None], small, mode="area")
    return functional.interpolate(planes, (height, width), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)


def _compress(frame: Tensor, quality: int) -> Tensor:
    import cv2
    import torch

    rgb = to_bytes(frame)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert decoded is not None, "OpenCV decodes what it has just encoded"
    return torch.from_numpy(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)).float().div_(255)


BLUR = Detector(Modality.BLUR, "The image out of focus.", (Blur(),))
GRAY = Detector(Modality.GRAY, "The image in shades of gray.", (Gray(),))
TILE = Detector(Modality.TILE, "The image itself, or a coarser version of it.", (Tile(),))
LOW_QUALITY = Detector(Modality.LOW_QUALITY, "The image blurred, noisy and full of JPEG artifacts.", (LowQuality(),))
