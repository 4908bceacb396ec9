"""The only module that imports ComfyUI. Everything the nodes need of it has one name here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management as memory
import folder_paths
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io, ui

if TYPE_CHECKING:
    import torch

    from ..local.generate import Step

__all__ = ["ComfyExtension", "device", "io", "make_room", "model_folders", "net_folders", "report_steps", "ui"]

_PREVIEW_SIZE = 512
_SECONDS_BETWEEN_UPDATES = 0.1


def device() -> torch.device:
    """Where ComfyUI computes."""
    return memory.get_torch_device()


def make_room(size: int) -> None:
    """Ask ComfyUI to unload its own models until `size` bytes are free on the device."""
    memory.free_memory(size, device())


def model_folders() -> dict[str, Path]:
    """The diffusers models among ComfyUI's model folders, by the name shown to the user."""
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths("diffusers"):
        for folder, children, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                found.setdefault(Path(folder).relative_to(root).as_posix(), Path(folder))
                children.clear()
    return dict(sorted(found.items()))


def net_folders() -> list[Path]:
    """The folders ComfyUI looks for ControlNets in."""
    return [Path(folder) for folder in folder_paths.get_folder_paths("controlnet")]


def report_steps() -> Callable[[Step], None]:
    """A listener that moves the progress bar of the running node, shows previews and stops on interrupt."""
    from PIL import Image

    bar = ProgressBar(1)
    last = 0.0

    def report(step: Step) -> None:
        nonlocal last
        memory.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        if step.number < step.total and now - last < _SECONDS_BETWEEN_UPDATES:
            return
        last = now
        picture = Image.fromarray(step.preview().numpy())
        enlarged = picture.resize((picture.width * 8, picture.height * 8), Image.Resampling.BICUBIC)
        bar.update_absolute(step.number, step.total, ("JPEG", enlarged, _PREVIEW_SIZE))

    return report
