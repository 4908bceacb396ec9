"""Run detectors in ComfyUI: inputs from a detector's declaration, and ComfyUI as its host."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InvalidRequest
from ..core.images import fit_mask, to_rgb
from ..core.problems import ProblemKind
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

MASK_BATCH = ProblemKind(
    "detector_mask_batch",
    "mask is a batch of {value}, but image is a batch of {images}. Connect one mask for all images, or one per image.",
)


def parameter_input(parameter: Parameter) -> io.WidgetInput:
    """The widget of a detector's parameter. It is optional, so that graphs saved before it existed still run."""
    name, tooltip = parameter.name, parameter.tooltip
    if isinstance(parameter, IntParameter):
        return io.Int.Input(
            name,
            default=parameter.default,
            min=parameter.minimum,
            max=parameter.maximum,
            # Otherwise the editor changes a `seed` after each run, and the map is computed again each time.
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
    """ComfyUI as the host of a detector, for one run of one node."""

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
        # Each update sends the state of all nodes to the browser.
        if done == total or now - self._updated >= _SECONDS_BETWEEN_UPDATES:
            self._updated = now
            self._bar.update_absolute(done, total)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            log.warning("Node %s: %s", self._node_id, text)
            self.warnings.append(text)
            show_text(self._node_id, "\n".join(self.warnings))


def ensure_image(image: Tensor, title: str) -> None:
    """Raise InvalidRequest if the node with this title cannot use the image."""
    if problems := list(image_problems("image", image)):
        raise InvalidRequest(title, problems)


def detect_map(
    detector: Detector, image: Tensor, host: NodeHost, given: Mapping[str, Value | None], mask: Tensor | None = None
) -> Tensor:
    """The map of an image from a link. It may be gray or have an alpha channel, and the mask may have another size."""
    if mask is not None:
        mask = _fit_mask_to_image(mask, image, f"{detector.modality.title} Control")
    return detector.detect(to_rgb(image).float().cpu(), host, given, mask)


def _fit_mask_to_image(mask: Tensor, image: Tensor, title: str) -> Tensor:
    """The mask [batch, height, width] at the size of the image, one per image of the batch."""
    problems = list(mask_problems("mask", mask))
    if problems:
        raise InvalidRequest(title, problems)
    if mask.shape[0] not in (1, image.shape[0]):
        raise InvalidRequest(title, [MASK_BATCH("mask", mask.shape[0], images=image.shape[0])])
    height, width = image.shape[1:3]
    fitted = fit_mask(mask.float().cpu(), image, width, height, Resize.STRETCH)[..., 0]
    return fitted.expand(image.shape[0], -1, -1)
