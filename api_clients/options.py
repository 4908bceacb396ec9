"""Declaring a service's own request fields once, for its body, its node and its help page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """A documented field: what it means and may be. `minimum` and `maximum` are None where nothing limits it."""

    tooltip: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    multiline: bool = False


def option(default: Any, tooltip: str, **limits: Any) -> Any:
    """A dataclass field with its declaration; `limits` are the other fields of Option."""
    return field(default=default, metadata={"option": Option(tooltip, **limits)})
