"""How a detector's declaration becomes inputs of a node, and what a detector gets from ComfyUI."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ..preprocessors.parameters import (
    ChoiceParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    SwitchParameter,
)
from .comfy import ProgressBar, io, stop_if_interrupted
from .memory import ComfyMemory


def parameter_input(parameter: Parameter) -> io.WidgetInput:
    """The widget of a detector's parameter."""
    name, tooltip = parameter.name, parameter.tooltip
    if isinstance(parameter, IntParameter):
        return io.Int.Input(
            name, default=parameter.default, min=parameter.minimum, max=parameter.maximum, tooltip=tooltip
        )
    if isinstance(parameter, FloatParameter):
        return io.Float.Input(
            name,
            default=parameter.default,
            min=parameter.minimum,
            max=parameter.maximum,
            step=parameter.step,
            tooltip=tooltip,
        )
    if isinstance(parameter, SwitchParameter):
        return io.Boolean.Input(name, default=parameter.default, tooltip=tooltip)
    if isinstance(parameter, ChoiceParameter):
        return io.Combo.Input(name, options=list(parameter.choices), default=parameter.default, tooltip=tooltip)
    return io.String.Input(name, default=parameter.default, tooltip=tooltip)


class NodeHost:
    """ComfyUI as a detector's host, for one run of one node."""

    def __init__(self) -> None:
        self.memory = ComfyMemory()
        self.warnings: list[str] = []

    @property
    def weight_folders(self) -> Sequence[Path]:
        return ()

    @cached_property
    def _bar(self) -> ProgressBar:
        return ProgressBar(1)

    def progress(self, done: int, total: int) -> None:
        stop_if_interrupted()
        self._bar.update_absolute(done, total)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
