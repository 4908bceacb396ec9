"""Declaring a service's own request fields once, for its body, its node and its help page."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..core.errors import Problem


@dataclass(frozen=True)
class Option:
    """A documented field: what it means and may be. `minimum` and `maximum` are None where nothing limits it."""

    tooltip: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()


def option(default: Any, tooltip: str, **limits: Any) -> Any:
    """A dataclass field with its declaration; `limits` are the other fields of Option."""
    return field(default=default, metadata={"option": Option(tooltip, **limits)})


def declared(options_type: Any) -> dict[str, tuple[Any, Option]]:
    """The default and the declaration of every option of a dataclass (or of a value of one), in order."""
    return {f.name: (f.default, f.metadata["option"]) for f in fields(options_type) if "option" in f.metadata}


def kind_problems(options: Any) -> list[Problem]:
    """The values of another kind than their default, with which nothing else can be asked."""
    return [
        Problem(name, repr(value), f"it must be {_KINDS[type(default)]}", f"Set it to {default!r}.")
        for name, (default, _) in declared(options).items()
        if not _same_kind(value := getattr(options, name), default)
    ]


def check_options(options: Any) -> list[Problem]:
    """The values outside their declaration: of another kind than the default, out of range, or not a choice."""
    problems = kind_problems(options)
    for name, (default, limits) in declared(options).items():
        value = getattr(options, name)
        if not _same_kind(value, default):
            continue
        if limits.choices and value not in limits.choices:
            known = ", ".join(limits.choices)
            problems.append(Problem(name, f"'{value}'", f"it must be one of {known}", "Choose one of these."))
        elif isinstance(value, (int, float)) and not _in_range(value, limits):
            problems.append(Problem(name, f"{value:g}", f"it must be {_span(limits)}", f"Set it to {default:g}."))
    return problems


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _same_kind(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


def _in_range(value: float, limits: Option) -> bool:
    above = limits.minimum is None or value >= limits.minimum
    below = limits.maximum is None or value <= limits.maximum
    return value == value and above and below


def _span(limits: Option) -> str:
    ends = [f"at least {limits.minimum:g}"] if limits.minimum is not None else []
    return " and ".join(ends + ([f"at most {limits.maximum:g}"] if limits.maximum is not None else [])) or "a number"
