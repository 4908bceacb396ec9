"""What a detector is: a declaration from which its node, its help page and its tests are derived."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..core.modality import Modality
from .host import Host
from .parameters import ChoiceParameter, Parameter, Value, resolve
from .weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


class Method(ABC):
    """One way of making a map.

    `name` is how the user chooses it where there are several, `parameters` what he may set, `weights` the trained
    files it needs.
    """

    name: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    weights: ClassVar[tuple[Weights, ...]] = ()

    @abstractmethod
    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        """The maps of a batch of images.

        `image` is float32 [batch, height, width, 3] in 0..1 of any size from 8x8 up, on the CPU, and `mask` float32
        [batch, height, width] of its size; the result is float32 [batch, height, width, 3] of the same size, on the
        CPU. `values` holds one entry per parameter. What cannot be done raises; what finds nothing (no face, no line)
        returns a black map and says so with `host.warn`.
        """


@dataclass(frozen=True)
class Detector:
    """Makes the map of one modality, by its first method or by one the user chooses.

    `summary` says in a sentence what the map shows; `needs_mask` that it cannot be made without one.
    """

    modality: Modality
    summary: str
    methods: tuple[Method, ...]
    needs_mask: bool = False

    def parameters(self) -> tuple[Parameter, ...]:
        """What a user may set: the method where there are several, then each method's own, shared names once."""
        unique = {parameter.name: parameter for parameter in self._all_parameters()}
        return tuple(unique.values())

    def _all_parameters(self) -> Iterator[Parameter]:
        if len(self.methods) > 1:
            names = tuple(method.name for method in self.methods)
            yield ChoiceParameter("method", names, "How the map is made; the first is the usual choice.")
        for method in self.methods:
            yield from method.parameters

    def detect(
        self, image: Tensor, host: Host, given: Mapping[str, Value | None], mask: Tensor | None = None
    ) -> Tensor:
        """The maps of a batch, as `Method.detect` gives them, by the method that `given` names.

        A parameter that is missing from `given`, or None there, has its default. Raises as `resolve` does.
        """
        values = resolve(self.parameters(), given)
        by_name = {method.name: method for method in self.methods}
        method = by_name[str(values["method"])] if "method" in values else self.methods[0]
        own = {parameter.name: values[parameter.name] for parameter in method.parameters}
        return method.detect(image, mask, host, **own)
