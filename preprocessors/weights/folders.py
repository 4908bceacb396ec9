"""The folders with trained files of detectors: the pack's own, and those of other programs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

OWN_FOLDER = "controlstack_detectors"  # a folder in ComfyUI's models, and the key in extra_model_paths.yaml


def folder_of_this_comfyui() -> Path | None:
    """The pack's own folder in the ComfyUI that it is installed in, or None if it is installed elsewhere."""
    pack = Path(__file__).parents[2]
    return pack.parent.parent / "models" / OWN_FOLDER if pack.parent.name == "custom_nodes" else None


def folders_of_others(custom_nodes: Iterable[Path], checkpoints: Iterable[Path]) -> list[Path]:
    """The existing folders in which comfyui_controlnet_aux, A1111 and Forge keep the same files.

    comfyui_controlnet_aux is searched in the folders `custom_nodes`. `checkpoints` are ComfyUI's folders for
    checkpoints. One named Stable-diffusion belongs to A1111 or Forge and comes from extra_model_paths.yaml.
    """
    folders: list[Path] = []
    if chosen := os.environ.get("AUX_ANNOTATOR_CKPTS_PATH"):
        folders.append(Path(chosen))
    for parent in custom_nodes:
        folders.append(parent / "comfyui_controlnet_aux" / "ckpts")
    for folder in checkpoints:
        if folder.name.lower() == "stable-diffusion":
            program = folder.parent.parent
            folders.append(program / "extensions" / "sd-webui-controlnet" / "annotator" / "downloads")
            folders.append(program / "models" / "ControlNetPreprocessor")
    return [folder for folder in folders if folder.is_dir()]
