"""How a detector's declaration becomes inputs of a node, and what a detector gets from ComfyUI."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InvalidRequest, Problem
from ..core.images import fit_mask, to_rgb
from ..core.request import Resize
from ..core.validate import image_problems, mask_problems
from ..preprocessors.detector import Detector
from ..preprocessors.parameters import (
    ChoiceParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    SwitchParameter,
    Value,
)
from .comfy import ProgressBar, detector_folders, io, show_text, stop_if_interrupted
from .memory import ComfyMemory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ..core.memory import Memory

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_UPDATES = 0.1


def parameter_input(parameter: Parameter) -> io.WidgetInput:
    """The widget of a detector's parameter; it may be missing, in graphs made before the parameter was."""
    name, tooltip = parameter.name, parameter.tooltip
    if isinstance(parameter, IntParameter):
        return io.Int.Input(
            name,
            default=parameter.default,
            min=parameter.minimum,
            max=parameter.maximum,
            # The editor would roll a `seed` after every run otherwise, and the map would be made anew each time.
            control_after_generate=False,
            tooltip=tooltip,
            optional=True,
        )
    if isinstance(parameter, FloatParameter):
        return io.Float.Input(
            name,
            default=parameter.default,
            min=parameter.minimum,
            max=parameter.maximum,
            step=parameter.step,
            tooltip=tooltip,
            optional=True,
        )
    if isinstance(parameter, SwitchParameter):
        return io.Boolean.Input(name, default=parameter.default, tooltip=tooltip, optional=True)
    if isinstance(parameter, ChoiceParameter):
        return io.Combo.Input(
            name, options=list(parameter.choices), default=parameter.default, tooltip=tooltip, optional=True
        )
    return io.String.Input(name, default=parameter.default, tooltip=tooltip, optional=True)


class NodeHost:
    """ComfyUI as a detector's host, for one run of one node."""

    def __init__(self, node_id: str) -> None:
        self.memory: Memory = ComfyMemory()
        self.warnings: list[str] = []
        self._node_id = node_id
        self._updated = 0.0
        show_text(node_id, "")

    @property
    def weight_folders(self) -> Sequence[Path]:
        return detector_folders()

    @cached_property
    def _bar(self) -> ProgressBar:
        return ProgressBar(1)

    def progress(self, done: int, total: int) -> None:
        stop_if_interrupted()
        now = time.monotonic()
        # ComfyUI sends the state of all nodes on each update.
        if done == total or now - self._updated >= _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            self._bar.update_absolute(done, total)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            log.warning("Node %s: %s", self._node_id, text)
            self.warnings.append(text)
            show_text(self._node_id, "\n".join(self.warnings))


def ensure_image(image: Tensor, title: str) -> None:
    """Raise InvalidRequest for what no node of this title can use as its image."""
    if problems := list(image_problems("image", image)):
        raise InvalidRequest(title, problems)


def detect_map(
    detector: Detector, image: Tensor, host: NodeHost, given: Mapping[str, Value | None], mask: Tensor | None = None
) -> Tensor:
    """The map of an image as it comes over a link: gray or with transparency, with a mask of another size."""
    if mask is not None:
        mask = _mask_of_image(mask, image, f"{detector.modality.title} Control")
    return detector.detect(to_rgb(image).float().cpu(), host, given, mask)


def _mask_of_image(mask: Tensor, image: Tensor, title: str) -> Tensor:
    """The mask [batch, height, width] at the image's size and for each picture of its batch."""
    problems = list(mask_problems("mask", mask))
    if not problems and mask.shape[0] not in (1, image.shape[0]):
        limit = f"the image is a batch of {image.shape[0]}, which takes 1 or as many"
        problems.append(Problem("mask", f"a batch of {mask.shape[0]}", limit, "Connect one mask for all pictures."))
    if problems:
        raise InvalidRequest(title, problems)
    height, width = image.shape[1:3]
    fitted = fit_mask(mask.float().cpu(), image, width, height, Resize.STRETCH)[..., 0]
    return fitted.expand(image.shape[0], -1, -1)
