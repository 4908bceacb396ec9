"""The declaration of a detector. Its node, its help page and its tests are derived from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..core.modality import Modality
from .host import Host
from .parameters import ChoiceParameter, Parameter, Value, resolve
from .weights.declarations import Weights

if TYPE_CHECKING:
    from torch import Tensor


class Method(ABC):
    """One way to make a map.

    name: the choice of the user where a detector has several methods.
    parameters: what the user can set.
    weights: the trained files that the method needs.
    """

    name: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    weights: ClassVar[tuple[Weights, ...]] = ()

    @abstractmethod
    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        """The maps of a batch of images.

        image: float32 [batch, height, width, 3] in 0..1, on the CPU, of any size from 8x8.
        mask: float32 [batch, height, width] of the same size.
        values: one value per parameter.

        Returns float32 [batch, height, width, 3] in 0..1 of the size of `image`, on the CPU. A method that fails
        raises. A method that finds nothing (no face, no line) returns a black map and says so with `host.warn`.
        """


@dataclass(frozen=True)
class Detector:
    """Makes the map of one modality, with its first method or with one that the user chooses.

    summary: one sentence that says what the map shows.
    needs_mask: the map cannot be made without a mask.
    method_last: the choice of the method comes after all other parameters. A detector that had a single method in saved
        graphs needs this when it gets a second one: widgets are saved by position.
    """

    modality: Modality
    summary: str
    methods: tuple[Method, ...]
    needs_mask: bool = False
    method_last: bool = False

    def parameters(self) -> tuple[Parameter, ...]:
        """What a user can set: the method if there are several, then the parameters of all methods, each name once."""
        unique = {parameter.name: parameter for method in self.methods for parameter in method.parameters}
        if len(self.methods) == 1:
            return tuple(unique.values())
        names = tuple(method.name for method in self.methods)
        choice = ChoiceParameter("method", names, "How the map is made. The first method is the usual choice.")
        return (*unique.values(), choice) if self.method_last else (choice, *unique.values())

    def detect(
        self, image: Tensor, host: Host, given: Mapping[str, Value | None], mask: Tensor | None = None
    ) -> Tensor:
        """The maps of a batch, as `Method.detect` returns them, by the method that `given` names.

        A parameter that is missing from `given`, or None in it, has its default. Raises what `resolve` raises.
        """
        values = resolve(self.parameters(), given)
        by_name = {method.name: method for method in self.methods}
        method = by_name[str(values["method"])] if "method" in values else self.methods[0]
        own = {parameter.name: values[parameter.name] for parameter in method.parameters}
        return method.detect(image, mask, host, **own)
