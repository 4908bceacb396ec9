"""What a user can set on a detector. The node's inputs and its help page are derived from these declarations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..core.errors import InvalidRequest, UnknownChoice
from ..core.problems import Problem, ProblemKind

OUT_OF_RANGE = ProblemKind(
    "detector_parameter_range",
    "{field} is {value}. It must be a number from {minimum} to {maximum}. Set it to {suggestion}.",
)


@dataclass(frozen=True)
class IntParameter:
    """A whole number."""

    name: str
    default: int
    minimum: int
    maximum: int
    tooltip: str


@dataclass(frozen=True)
class FloatParameter:
    """A number."""

    name: str
    default: float
    minimum: float
    maximum: float
    tooltip: str
    step: float = 0.01


@dataclass(frozen=True)
class SwitchParameter:
    """On or off."""

    name: str
    default: bool
    tooltip: str


@dataclass(frozen=True)
class ChoiceParameter:
    """One of several words. The first is the default."""

    name: str
    choices: tuple[str, ...]
    tooltip: str

    @property
    def default(self) -> str:
        return self.choices[0]


@dataclass(frozen=True)
class TextParameter:
    """A text."""

    name: str
    default: str
    tooltip: str


Parameter = IntParameter | FloatParameter | SwitchParameter | ChoiceParameter | TextParameter
Value = int | float | bool | str


def resolve(parameters: Iterable[Parameter], given: Mapping[str, Value | None]) -> dict[str, Value]:
    """One value per parameter: the given one, or the default where it is missing or None.

    Raises UnknownChoice for a word that is not a choice, and InvalidRequest with all numbers that are out of range.
    ComfyUI checks neither of them when a value comes from another node.
    """
    parameters = tuple(parameters)
    values = {p.name: p.default if (value := given.get(p.name)) is None else value for p in parameters}
    for parameter in parameters:
        if isinstance(parameter, ChoiceParameter) and values[parameter.name] not in parameter.choices:
            raise UnknownChoice(parameter.name, values[parameter.name], parameter.choices)
    if problems := list(_out_of_range(parameters, values)):
        raise InvalidRequest("The detector", problems)
    return values


def _out_of_range(parameters: Iterable[Parameter], values: Mapping[str, Value]) -> Iterator[Problem]:
    for parameter in parameters:
        if not isinstance(parameter, IntParameter | FloatParameter):
            continue
        value, minimum, maximum = values[parameter.name], parameter.minimum, parameter.maximum
        if isinstance(value, str) or not minimum <= value <= maximum:
            nearest = _nearest(value, parameter)
            yield OUT_OF_RANGE(parameter.name, value, nearest, minimum=minimum, maximum=maximum)


def _nearest(value: Value, parameter: IntParameter | FloatParameter) -> float:
    """The allowed number next to `value`; the default for a text and for NaN."""
    if isinstance(value, str) or math.isnan(value):
        return parameter.default
    return min(max(value, parameter.minimum), parameter.maximum)
