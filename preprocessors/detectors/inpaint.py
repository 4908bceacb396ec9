"""The image with the area to be inpainted taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.errors import InvalidRequest
from ...core.modality import Modality
from ...core.problems import ProblemKind
from ..detector import Detector, Method
from ..frames import each_frame
from ..host import Host
from ..parameters import Value

if TYPE_CHECKING:
    from torch import Tensor


MASK_MISSING = ProblemKind(
    "inpaint_control_without_mask", "mask is not connected. Connect a mask that is white where the image is inpainted."
)


class Inpaint(Method):
    """Masked pixels (mask >= 0.5) are black. `core.conventions` changes that for nets that expect another value."""

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        if mask is None:
            raise InvalidRequest("Inpaint Control", [MASK_MISSING("mask")])
        masked = mask >= 0.5
        if not bool(masked.any()):
            host.warn("The mask is black: nothing is inpainted. Paint the area to inpaint white, or invert the mask.")
        elif bool(masked.all()):
            host.warn(
                "The mask is white everywhere, so that the map is black. Paint the area to keep black, or invert "
                "the mask."
            )
        return each_frame(image, host, lambda frame, index: frame.masked_fill(masked[index, ..., None], 0.0))


INPAINT = Detector(Modality.INPAINT, "The image with the area to be inpainted in black.", (Inpaint(),), needs_mask=True)
