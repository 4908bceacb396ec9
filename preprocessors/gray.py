"""The picture without its colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.images import luminance
from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame
from .host import Host
from .parameters import Value

if TYPE_CHECKING:
    from torch import Tensor


class Gray(Method):
    """Luminance in all three channels."""

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        return each_frame(image, host, lambda frame, _: luminance(frame).expand_as(frame))


GRAY = Detector(Modality.GRAY, "The picture in shades of gray.", (Gray(),))
