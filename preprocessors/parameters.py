"""What a user can set on a detector; the node's inputs and its help page are derived from these."""

from __future__ import annotations

from dataclasses import dataclass


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
    """One of several words; the first is the default."""

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
