"""The only module that imports ComfyUI. Everything the nodes need of it has one name here."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as memory
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar, load_torch_file, tiled_scale
from comfy_api.latest import ComfyExtension, io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.progress import get_progress_state
from server import PromptServer

from ..models.library import Library
from ..preprocessors.weights.folders import OWN_FOLDER, folders_of_others

if TYPE_CHECKING:
    import torch

    from ..local.engine.run import Step

__all__ = [
    "ComfyExtension",
    "ExecutionBlocker",
    "ModelPatcher",
    "ProgressBar",
    "PromptServer",
    "detector_folders",
    "device",
    "io",
    "is_running",
    "library",
    "load_torch_file",
    "lora_names",
    "memory",
    "offer_detector_folder",
    "offer_samples",
    "report_steps",
    "show_progress",
    "show_text",
    "stop_if_interrupted",
    "tiled_scale",
    "ui",
    "user_folder",
]

log = logging.getLogger(__name__)

_PREVIEW_SIZE = 512
_SECONDS_BETWEEN_UPDATES = 0.1


def device() -> torch.device:
    """Where ComfyUI computes."""
    return memory.get_torch_device()


def offer_samples(samples: Path) -> None:
    """Copy the sample images of the example graphs into ComfyUI's input folder, where LoadImage finds them."""
    inputs = Path(folder_paths.get_input_directory())
    for sample in samples.glob("controlstack_*"):
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


def offer_detector_folder() -> None:
    """Register the folder for trained files of detectors, after those the user named for them himself."""
    folder_paths.add_model_folder_path(OWN_FOLDER, str(Path(folder_paths.models_dir) / OWN_FOLDER))


def detector_folders() -> list[Path]:
    """Where trained files of detectors are looked for; new ones go into the first."""
    own, custom_nodes, checkpoints = (
        [Path(folder) for folder in folder_paths.get_folder_paths(name)]
        for name in (OWN_FOLDER, "custom_nodes", "checkpoints")
    )
    return [*own, *folders_of_others(custom_nodes, checkpoints)]


def lora_names() -> list[str]:
    """The files in ComfyUI's lora folders, as they are shown to the user."""
    return folder_paths.get_filename_list("loras")


def user_folder() -> Path:
    """ComfyUI's user folder; what lies in its `__controlstack` is not handed out by the server."""
    return Path(folder_paths.get_user_directory())


def stop_if_interrupted() -> None:
    """Raise ComfyUI's own exception when the user has stopped the run.

    The flag stays up, so that every node of the run that is at work beside this one sees it, too. ComfyUI takes it down
    itself before the next run.
    """
    if memory.processing_interrupted():
        raise memory.InterruptProcessingException()


def is_running(node_type: str) -> bool:
    """Whether a graph is being run that has such a node."""
    running: list[tuple[Any, ...]] = list(PromptServer.instance.prompt_queue.currently_running.values())
    return any(node.get("class_type") == node_type for _, _, graph, *_ in running for node in graph.values())


_nodes_with_text: set[str] = set()


def show_text(node_id: str, text: str) -> None:
    """Show a text on a node, in the browser that queued the graph. Any thread may call this.

    The editor keeps the text over later runs. An empty text removes it.
    """
    if text or node_id in _nodes_with_text:
        PromptServer.instance.send_progress_text(text, node_id, PromptServer.instance.client_id)
    (_nodes_with_text.add if text else _nodes_with_text.discard)(node_id)


def show_progress(node_id: str, share: float) -> None:
    """Move the progress bar of a node, 0 to 1. Call it in the thread that runs the graph.

    Unlike ProgressBar, it does not clear the interrupt flag.
    """
    get_progress_state().update_progress(node_id, share, 1.0)


def report_steps(node_id: str) -> Callable[[Step], None]:
    """A listener that moves the bar of the running node, shows previews and the time left, and stops on interrupt."""
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
        image = Image.fromarray(step.preview().numpy())
        scale = min(8.0, _PREVIEW_SIZE / max(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        enlarged = image.resize(size, Image.Resampling.BICUBIC)
        bar.update_absolute(step.number, step.total, ("JPEG", enlarged, _PREVIEW_SIZE))
        show_text(node_id, f"step {step.number} of {step.total}, {ceil(step.seconds_left)} s left")

    return report
