"""What a detector is: a declaration from which its node, its help page and its tests are derived."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..core.modality import Modality

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class IntParameter:
    """A whole number a user can set on the node."""

    name: str
    default: int
    minimum: int
    maximum: int
    tooltip: str


class Detector(ABC):
    """Makes the map of one modality.

    `summary` says in a sentence what the map shows, `parameters` what a user may set.
    """

    modality: ClassVar[Modality]
    summary: ClassVar[str]
    parameters: ClassVar[tuple[IntParameter, ...]] = ()

    @abstractmethod
    def detect(self, image: Tensor, **values: int) -> Tensor:
        """The maps of a batch of images.

        `image` is float32 [batch, height, width, channel] in 0..1 with one, three or four channels, of any size; the
        result is float32 [batch, height, width, 3] of the same size. `values` holds one entry per parameter.
        """
