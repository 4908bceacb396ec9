"""Stable Diffusion's safety checker with random weights, small enough for tests, with its files on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from controlstack.tests.local.tiny_models import WIDTH, image_processor
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from transformers import CLIPConfig

FLAGS_ALL, FLAGS_NONE = -2.0, 2.0  # no cosine is that small, or that large

_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 4,
    "projection_dim": WIDTH,
}


def tiny_checker(threshold: float, special: float = FLAGS_NONE) -> StableDiffusionSafetyChecker:
    """A checker that flags images nearer than `threshold` to a concept, or 0.01 less if near a `special` one."""
    torch.manual_seed(30)
    config = CLIPConfig(vision_config=dict(_VISION), text_config={"hidden_size": WIDTH, "num_attention_heads": 4})
    config.projection_dim = WIDTH
    checker = StableDiffusionSafetyChecker(config).eval()
    with torch.no_grad():
        # Fresh layers see hardly more of an image than its mean.
        for name, parameter in checker.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                torch.nn.init.normal_(parameter, std=0.5)
        torch.nn.init.normal_(checker.concept_embeds)
        torch.nn.init.normal_(checker.special_care_embeds)
        checker.concept_embeds_weights.fill_(threshold)
        checker.special_care_embeds_weights.fill_(special)
    return checker


def write_checker(folder: Path, checker: StableDiffusionSafetyChecker, dtype: torch.dtype = torch.float32) -> Path:
    """The files as published: tensors with the names of transformers in 2022, and the settings of the processor."""
    folder.mkdir(parents=True)
    config = {
        "_name_or_path": "clip-vit-large-patch14",
        "architectures": ["StableDiffusionSafetyChecker"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": WIDTH,
        "text_config_dict": {"hidden_size": WIDTH, "num_attention_heads": 4},
        "torch_dtype": "float32",
        "transformers_version": None,
        "vision_config": {**_VISION, "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "quick_gelu"},
        "vision_config_dict": dict(_VISION),
    }
    tensors = {_published(name): tensor.to(dtype).contiguous() for name, tensor in checker.state_dict().items()}
    tensors["vision_model.vision_model.embeddings.position_ids"] = torch.arange(65)[None]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    image_processor().save_pretrained(folder)
    return folder


def _published(name: str) -> str:
    """`vision_model` had a level below it until transformers 5.6."""
    below = name.removeprefix("vision_model.").removeprefix("vision_model.")
    return f"vision_model.vision_model.{below}" if name.startswith("vision_model.") else name
