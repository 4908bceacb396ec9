"""The only module that imports ComfyUI. Everything the nodes need of it has one name here."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management as memory
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io, ui

if TYPE_CHECKING:
    import torch

    from ..local.run import Step

__all__ = [
    "ComfyExtension",
    "ModelPatcher",
    "ProgressBar",
    "all_model_folders",
    "device",
    "io",
    "memory",
    "model_folders",
    "offer_samples",
    "report_steps",
    "stop_if_interrupted",
    "ui",
]

log = logging.getLogger(__name__)

_PREVIEW_SIZE = 512
_SECONDS_BETWEEN_UPDATES = 0.1


def device() -> torch.device:
    """Where ComfyUI computes."""
    return memory.get_torch_device()


def offer_samples(samples: Path) -> None:
    """Put the sample pictures of the example graphs among ComfyUI's inputs, where LoadImage finds them."""
    inputs = Path(folder_paths.get_input_directory())
    for sample in samples.glob("*.png"):
        if not (inputs / sample.name).exists():
            try:
                shutil.copy(sample, inputs)
            except OSError as error:
                log.warning("%s cannot be copied into %s (%s); the examples need it there.", sample, inputs, error)


def model_folders() -> dict[str, Path]:
    """The diffusers models among ComfyUI's model folders, by the name shown to the user."""
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths("diffusers"):
        for folder, children, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                found.setdefault(Path(folder).relative_to(root).as_posix(), Path(folder))
                children.clear()
    return dict(sorted(found.items()))


def all_model_folders() -> dict[str, list[Path]]:
    """ComfyUI's model folders by name, those of extra_model_paths.yaml included."""
    return {name: [Path(folder) for folder in entry[0]] for name, entry in folder_paths.folder_names_and_paths.items()}


def stop_if_interrupted() -> None:
    """Raise ComfyUI's own exception when the user has stopped the run."""
    memory.throw_exception_if_processing_interrupted()


def report_steps() -> Callable[[Step], None]:
    """A listener that moves the progress bar of the running node, shows previews and stops on interrupt."""
    from PIL import Image

    bar = ProgressBar(1)
    last = 0.0

    def report(step: Step) -> None:
        nonlocal last
        stop_if_interrupted()
        now = time.monotonic()
        if step.number < step.total and now - last < _SECONDS_BETWEEN_UPDATES:
            return
        last = now
        picture = Image.fromarray(step.preview().numpy())
        scale = min(8.0, _PREVIEW_SIZE / max(picture.size))
        size = (round(picture.width * scale), round(picture.height * scale))
        enlarged = picture.resize(size, Image.Resampling.BICUBIC)
        bar.update_absolute(step.number, step.total, ("JPEG", enlarged, _PREVIEW_SIZE))

    return report
