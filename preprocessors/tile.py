"""The picture itself, with as much detail taken out as the net shall add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame
from .host import Host
from .parameters import FloatParameter, Value

if TYPE_CHECKING:
    from torch import Tensor


class Tile(Method):
    """As it is (ControlNet 1.1), or reduced and enlarged again (the SDXL union was trained on 1 to 32 times)."""

    parameters = (
        FloatParameter(
            "reduce",
            1.0,
            1.0,
            32.0,
            "How many times smaller the picture is made and enlarged again. 1 keeps it; more leaves more to invent.",
            step=0.5,
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        factor = float(values["reduce"])
        return each_frame(image, host, lambda frame, _: reduce_and_enlarge(frame, factor))


def reduce_and_enlarge(frame: Tensor, factor: float) -> Tensor:
    """[height, width, channel] of the same size with the detail of one `factor` times smaller: by area, then cubic."""
    from torch.nn import functional

    if factor == 1:
        return frame
    height, width = frame.shape[:2]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    planes = functional.interpolate(frame.movedim(-1, 0)[None], small, mode="area")
    return functional.interpolate(planes, (height, width), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)


TILE = Detector(Modality.TILE, "The picture itself, or a coarser version of it.", (Tile(),))
