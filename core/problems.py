"""What keeps a request from running, as data: a stable code, the field, its value, and a value that would work.

The editor offers the suggestion and translates the sentence by its code; everybody else reads `str(problem)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from string import Formatter
from types import MappingProxyType
from typing import cast


@dataclass(frozen=True)
class Problem:
    """One reason why a request cannot run.

    `field` is the input that the user has to change and `value` what it is set to. An input of one control, reference
    or LoRA has its number in the stack, counted from 1: `control 2 (depth) strength`. `suggestion` is a value of that
    input that resolves the problem, None where no single value does. `arguments` are the other words of the sentence.
    """

    kind: ProblemKind
    field: str
    value: object = None
    suggestion: object = None
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict[str, object])

    @property
    def code(self) -> str:
        """The stable name of the kind of problem."""
        return self.kind.code

    @property
    def cause(self) -> str:
        """The first sentence: what is wrong, without what to do about it."""
        return self._filled(self.kind.template.partition(". ")[0].removesuffix(".") + ".")

    def __str__(self) -> str:
        return self._filled(self.kind.template)

    def _filled(self, template: str) -> str:
        named = {**self.arguments, "field": self.field, "value": self.value, "suggestion": self.suggestion}
        return template.format_map({name: _text(value) for name, value in named.items()})


@dataclass(frozen=True)
class ProblemKind:
    """A kind of problem: its stable code, and the template of its sentence with the names of a problem's arguments."""

    code: str
    template: str

    def __call__(self, field: str, value: object = None, suggestion: object = None, **arguments: object) -> Problem:
        """A problem of this kind. Raises TypeError when the arguments are not those of the template."""
        placeholders = {name for _, name, _, _ in Formatter().parse(self.template) if name}
        expected = placeholders - {"field", "value", "suggestion"}
        if arguments.keys() != expected:
            raise TypeError(f"{self.code} takes {sorted(expected)}, not {sorted(arguments)}")
        return Problem(self, field, value, suggestion, MappingProxyType(arguments))


def _text(value: object) -> str:
    """A value as it stands in a sentence: a float without trailing zeros, a switch as on or off, a list with commas."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Enum):
        return _text(value.value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(item) for item in cast("Sequence[object]", value))
    return str(value)
