"""Declarations of a service's own request fields, from which its body, its node and its help page derive."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any

from ...core.problems import Problem, ProblemKind

NOT_A_SWITCH = ProblemKind("option_not_a_switch", "{field} is {value}. It must be true or false. Set it to {default}.")
NOT_A_WHOLE_NUMBER = ProblemKind(
    "option_not_a_whole_number", "{field} is {value}. It must be a whole number. Set it to {default}."
)
NOT_A_NUMBER = ProblemKind("option_not_a_number", "{field} is {value}. It must be a number. Set it to {default}.")
NOT_A_TEXT = ProblemKind("option_not_a_text", "{field} is {value}. It must be a text. Set it to {default}.")
NOT_A_CHOICE = ProblemKind("option_not_a_choice", "{field} is '{value}'. It must be one of {choices}.")
NOT_IN_RANGE = ProblemKind(
    "option_not_in_range", "{field} is {value}. It must be from {minimum} to {maximum}. Set it to {suggestion}."
)
TOO_SMALL = ProblemKind(
    "option_too_small", "{field} is {value}. It must be at least {minimum}. Set it to {suggestion}."
)
TOO_LARGE = ProblemKind("option_too_large", "{field} is {value}. It must be at most {maximum}. Set it to {suggestion}.")


@dataclass(frozen=True)
class Option:
    """A documented field: its tooltip and its allowed values. `minimum` and `maximum` are None for no limit."""

    tooltip: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()


def option(default: Any, tooltip: str, **limits: Any) -> Any:
    """A dataclass field with its declaration; `limits` are the other arguments of Option."""
    return field(default=default, metadata={"option": Option(tooltip, **limits)})


def declared(options_type: Any) -> dict[str, tuple[Any, Option]]:
    """The default and the declaration of every option of a dataclass (or of a value of one), in order."""
    return {f.name: (f.default, f.metadata["option"]) for f in fields(options_type) if "option" in f.metadata}


def type_problems(options: Any) -> list[Problem]:
    """The values of another type than their default. No other rule can be applied to them."""
    return [
        _TYPE_KINDS[type(default)](name, repr(value), default, default=json.dumps(default))
        for name, (default, _) in declared(options).items()
        if not _same_type(value := getattr(options, name), default)
    ]


def check_options(options: Any) -> list[Problem]:
    """The values outside their declaration: of another type than the default, out of range, or not a choice."""
    problems = type_problems(options)
    for name, (default, limits) in declared(options).items():
        value = getattr(options, name)
        if not _same_type(value, default):
            continue
        if limits.choices and value not in limits.choices:
            problems.append(NOT_A_CHOICE(name, value, default, choices=limits.choices))
        elif isinstance(value, (int, float)) and not _in_range(value, limits):
            problems.append(_out_of_range(name, value, default, limits))
    return problems


_TYPE_KINDS = {bool: NOT_A_SWITCH, int: NOT_A_WHOLE_NUMBER, float: NOT_A_NUMBER, str: NOT_A_TEXT}


def _same_type(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


def _in_range(value: float, limits: Option) -> bool:
    above = limits.minimum is None or value >= limits.minimum
    below = limits.maximum is None or value <= limits.maximum
    return value == value and above and below


def _out_of_range(name: str, value: float, default: float, limits: Option) -> Problem:
    if limits.minimum is not None and limits.maximum is not None:
        return NOT_IN_RANGE(name, value, default, minimum=limits.minimum, maximum=limits.maximum)
    if limits.minimum is not None:
        return TOO_SMALL(name, value, default, minimum=limits.minimum)
    if limits.maximum is not None:
        return TOO_LARGE(name, value, default, maximum=limits.maximum)
    return NOT_A_NUMBER(name, value, default, default=default)
