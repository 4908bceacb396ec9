"""The picture with the area to fill in taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import InvalidRequest, Problem
from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame
from .host import Host
from .parameters import Value

if TYPE_CHECKING:
    from torch import Tensor


class Inpaint(Method):
    """Masked pixels (from 0.5 on) are black; a net that wants another mark gets it from `core.conventions`."""

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        if mask is None:
            missing = Problem("mask", "not connected", "it says what to fill in", "Connect one; white is filled in.")
            raise InvalidRequest("Inpaint Control", [missing])
        masked = mask >= 0.5
        if not bool(masked.any()):
            host.warn("The mask is empty: nothing is filled in. Paint the area white, or invert the mask.")
        elif bool(masked.all()):
            host.warn("The mask covers everything: the map is black. Leave the area to keep black, or invert the mask.")
        return each_frame(image, host, lambda frame, index: frame.masked_fill(masked[index, ..., None], 0.0))


INPAINT = Detector(
    Modality.INPAINT, "The picture with the masked area black, to be filled in.", (Inpaint(),), needs_mask=True
)
