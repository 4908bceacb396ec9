"""The only module that imports ComfyUI. Everything the nodes need of it has one name here."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management as memory
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.utils import get_executing_context

from ..local.library import Library

if TYPE_CHECKING:
    import torch

    from ..local.run import Step

__all__ = [
    "ComfyExtension",
    "ModelPatcher",
    "ProgressBar",
    "device",
    "io",
    "library",
    "memory",
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


def library() -> Library:
    """ComfyUI's model folders, those of extra_model_paths.yaml included, and the tokenizers it ships."""
    known = folder_paths.folder_names_and_paths
    folders = {name: [Path(folder) for folder in entry[0]] for name, entry in known.items()}
    # Custom nodes agreed on this one; ComfyUI itself has no such folder.
    folders.setdefault("ipadapter", [Path(folder_paths.models_dir) / "ipadapter"])
    package = Path(memory.__file__).parent
    return Library(folders, package / "sd1_tokenizer", package / "text_encoders" / "t5_tokenizer")


def stop_if_interrupted() -> None:
    """Raise ComfyUI's own exception when the user has stopped the run."""
    memory.throw_exception_if_processing_interrupted()


def show_text(text: str) -> None:
    """Write on the node that runs now."""
    # A module of ComfyUI's main program, which is there when a node runs; when the pack is imported it may not be yet.
    from server import PromptServer

    context = get_executing_context()
    if context is not None:
        PromptServer.instance.send_progress_text(text, context.node_id)


def report_steps() -> Callable[[Step], None]:
    """A listener that moves the progress bar of the running node, shows previews and the time left, and stops on
    interrupt."""
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
        show_text(f"step {step.number} of {step.total}, {ceil(step.seconds_left)} s left")

    return report
