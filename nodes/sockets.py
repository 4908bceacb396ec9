"""The pack's own socket types, and inputs that several nodes have."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from ..core.errors import UnknownChoice
from .comfy import io

Controls = io.Custom("CONTROLSTACK_CONTROLS")
References = io.Custom("CONTROLSTACK_REFERENCES")
Loras = io.Custom("CONTROLSTACK_LORAS")
Scheduler = io.Custom("CONTROLSTACK_SCHEDULER")
Request = io.Custom("CONTROLSTACK_REQUEST")
Model = io.Custom("CONTROLSTACK_MODEL")
Nets = io.Custom("CONTROLSTACK_NETS")

Choice = TypeVar("Choice", bound=Enum)


def choose(kind: type[Choice], field: str, value: str) -> Choice:
    """The member of `kind` that a combo names. Raises UnknownChoice: ComfyUI before 0.8 accepts any text."""
    try:
        return kind(value)
    except ValueError:
        raise UnknownChoice(field, value, [member.value for member in kind]) from None


def window_inputs(thing: str) -> list[io.Float.Input]:
    """The two inputs for the part of the steps in which a control or a reference is active."""
    tooltips = {
        "start_percent": f"Fraction of the steps (0 to 1) after which the {thing} starts.",
        "end_percent": f"Fraction of the steps (0 to 1) after which the {thing} ends. Must be above start_percent.",
    }
    defaults = {"start_percent": 0.0, "end_percent": 1.0}
    return [
        io.Float.Input(name, default=defaults[name], min=0.0, max=1.0, step=0.01, tooltip=tooltip)
        for name, tooltip in tooltips.items()
    ]
