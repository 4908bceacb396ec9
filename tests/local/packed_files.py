"""Model folders as ComfyUI users have them, for tiny models: single files in the original layouts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from controlstack.local.model.source import DEMO_MODEL
from controlstack.models.families import Family
from controlstack.models.library import Library
from controlstack.tests.local.original_layouts import flux_original, hf_text, ldm_unet, ldm_vae, open_clip_text, stored
from controlstack.tests.local.tiny_models import components, scheduler, t5_tokenizer
from safetensors.torch import save_file
from torch import Tensor

CONFIG_NAMES = {
    Family.SD15: "sd15",
    Family.SDXL: "sdxl",
    Family.FLUX_DEV: "flux_dev",
    Family.FLUX_SCHNELL: "flux_schnell",
}
FOLDERS = ("checkpoints", "diffusion_models", "vae", "text_encoders", "controlnet")


def networks(parts: Mapping[str, Any]) -> Iterator[tuple[str, torch.nn.Module]]:
    return ((name, part) for name, part in parts.items() if isinstance(part, torch.nn.Module))


def config_of(module: Any) -> dict[str, Any]:
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else module.config
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    return {**kept, "_class_name": type(module).__name__}


def empty_library(root: Path) -> Library:
    """Empty model folders, the tokenizers of the tiny models, and configurations of their size."""
    for name in (*FOLDERS, "configs"):
        (root / name).mkdir(parents=True)
    for family, name in CONFIG_NAMES.items():
        configs = {part: config_of(network) for part, network in networks(components(family))}
        configs["scheduler"] = config_of(scheduler(family))
        (root / "configs" / f"{name}.json").write_text(json.dumps(configs, default=str), encoding="utf-8")
    t5_tokenizer().save_pretrained(root / "t5")
    folders = {name: (root / name,) for name in FOLDERS}
    return Library(folders, DEMO_MODEL / "tokenizer", root / "t5", root / "configs")


def write(library: Library, place: str, tensors: Mapping[str, Tensor]) -> Path:
    folder, name = place.split("/")
    path = library.folders[folder][0] / name
    save_file(dict(tensors), path)
    return path


def write_parts(library: Library, family: Family, parts: Mapping[str, Any]) -> Path:
    """Every network in a file of its own, as distributed for ComfyUI. Returns the path of the denoiser."""
    flux = family.compatible_family is Family.FLUX_DEV
    write(
        library,
        "vae/vae_xl.safetensors" if family is Family.SDXL else "vae/ae.safetensors",
        stored(ldm_vae(parts["vae"])),
    )
    write(library, "text_encoders/clip_l.safetensors", stored(hf_text(parts["text_encoder"])))
    if flux:
        write(library, "text_encoders/t5xxl.safetensors", stored(parts["text_encoder_2"].state_dict()))
    elif family is Family.SDXL:
        write(library, "text_encoders/clip_g.safetensors", stored(open_clip_text(parts["text_encoder_2"])))
    network = flux_original(parts["transformer"]) if flux else ldm_unet(parts["unet"])
    return write(library, "diffusion_models/alone.safetensors", stored(network))
