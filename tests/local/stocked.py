"""Tiny models with files on the disk as users have them: ControlNets, IP-Adapters, image encoders and LoRAs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from controlstack.local.model.local_model import LocalModel
from controlstack.models.families import Family
from controlstack.models.library import Library
from controlstack.tests.local.tiny_models import WIDTH, clip_vision, control_net, tiny_model, union_net
from safetensors.torch import save_file
from torch import Tensor

SIZE = 64
TOKENS = 4  # per image of a plain adapter

# The names under which nets of each family are published: for canny, for depth, and a union net.
NET_NAMES = {
    Family.SD15: ("control_v11p_sd15_canny", "control_v11f1p_sd15_depth", ""),
    Family.SDXL: ("controlnet-canny-sdxl-1.0", "controlnet-depth-sdxl-1.0", "controlnet-union-sdxl-1.0"),
    Family.FLUX_DEV: ("FLUX.1-dev-Controlnet-Canny", "FLUX.1-dev-Controlnet-Depth", "FLUX.1-dev-Controlnet-Union"),
}


def random_image(seed: int, batch: int = 1, size: int = SIZE) -> Tensor:
    """Smooth noise [batch, size, size, 3] in 0..1."""
    noise = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (size, size), mode="bilinear").movedim(1, -1)


def stocked_model(family: Family, folder: Path, in_channels: int = 4) -> LocalModel:
    """A tiny model whose library in `folder` holds every file that a request can need."""
    model = tiny_model(family, in_channels=in_channels)
    folders = {name: [folder / name] for name in ("controlnet", "ipadapter", "clip_vision", "loras")}
    for (path,) in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    canny, depth, union = NET_NAMES[family.compatible_family]
    control_net(family, seed=3).save_pretrained(folder / "controlnet" / canny)
    control_net(family, seed=13).save_pretrained(folder / "controlnet" / depth)
    if union:
        union_net(family, 8 if family is Family.SDXL else None).save_pretrained(folder / "controlnet" / union)
    save_file(clip_vision().state_dict(), folder / "clip_vision" / "tiny.safetensors")
    for name, tensors in adapters(model).items():
        save_file(tensors, folder / "ipadapter" / f"{name}.safetensors")
    for name, tensors in loras(model).items():
        save_file(tensors, folder / "loras" / f"{name}.safetensors")
    return replace(model, library=Library(folders))


def adapters(model: LocalModel) -> dict[str, dict[str, Tensor]]:
    """The IP-Adapters that exist for the family, by the names of their files."""
    if model.facts.flow:
        return {"flux-ip-adapter": _flux_adapter(model)}
    return {
        "ip-adapter_tiny": _unet_adapter(model, _plain_projection(_text_width(model)), 20),
        "ip-adapter-plus_tiny": _unet_adapter(model, _plus_projection(_text_width(model)), 21),
        "ip-adapter-plus-face_tiny": _unet_adapter(model, _plus_projection(_text_width(model)), 22),
    }


def _text_width(model: LocalModel) -> int:
    return model.denoiser.config.cross_attention_dim


def _random(*shape: int, scale: float = 0.3) -> Tensor:
    return torch.randn(*shape) * scale


def _plain_projection(width: int, prefix: str = "image_proj") -> dict[str, Tensor]:
    return {
        f"{prefix}.proj.weight": _random(TOKENS * width, WIDTH),
        f"{prefix}.proj.bias": torch.zeros(TOKENS * width),
        f"{prefix}.norm.weight": torch.ones(width),
        f"{prefix}.norm.bias": torch.zeros(width),
    }


def _plus_projection(width: int, inner: int = 32, heads: int = 1) -> dict[str, Tensor]:
    size = 64 * heads  # of all heads; diffusers knows heads of 64
    tensors = {
        "latents": _random(1, TOKENS, inner),
        "proj_in.weight": _random(inner, WIDTH),
        "proj_in.bias": torch.zeros(inner),
        "proj_out.weight": _random(width, inner),
        "proj_out.bias": torch.zeros(width),
        "norm_out.weight": torch.ones(width),
        "norm_out.bias": torch.zeros(width),
    }
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            tensors[f"layers.{layer}.{norm}.weight"] = torch.ones(inner)
            tensors[f"layers.{layer}.{norm}.bias"] = torch.zeros(inner)
        tensors[f"layers.{layer}.0.to_q.weight"] = _random(size, inner)
        tensors[f"layers.{layer}.0.to_kv.weight"] = _random(2 * size, inner)
        tensors[f"layers.{layer}.0.to_out.weight"] = _random(inner, size)
        tensors[f"layers.{layer}.1.1.weight"] = _random(4 * inner, inner)
        tensors[f"layers.{layer}.1.3.weight"] = _random(inner, 4 * inner)
    return {f"image_proj.{name}": tensor for name, tensor in tensors.items()}


def _unet_adapter(model: LocalModel, projection: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    tensors = dict(projection)
    readers = [name for name in model.denoiser.attn_processors if ".attn2." in name]
    for number, name in enumerate(readers):
        shape = model.denoiser.get_submodule(name.removesuffix(".processor")).to_k.weight.shape
        for part in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{part}.weight"] = _random(*shape)
    return tensors


def _flux_adapter(model: LocalModel) -> dict[str, Tensor]:
    torch.manual_seed(23)
    width = model.denoiser.config.joint_attention_dim
    tensors = _plain_projection(width, "ip_adapter_proj_model")
    for block in range(len(model.denoiser.transformer_blocks)):
        for part in ("k", "v"):
            stem = f"double_blocks.{block}.processor.ip_adapter_double_stream_{part}_proj"
            tensors[f"{stem}.weight"] = _random(model.denoiser.inner_dim, width)
            tensors[f"{stem}.bias"] = torch.zeros(model.denoiser.inner_dim)
    return tensors


def loras(model: LocalModel) -> dict[str, dict[str, Tensor]]:
    """One LoRA in diffusers' format and, for UNets, one in kohya's that acts on the text encoder as well."""
    torch.manual_seed(24)
    part = model.facts.denoiser
    pairs = list(_pairs(model.denoiser, ("to_q", "to_v")))
    downs = {f"{part}.{name}.lora_A.weight": down for name, down, _ in pairs}
    named = {"diffusers": {**downs, **{f"{part}.{name}.lora_B.weight": up for name, _, up in pairs}}}
    if not model.facts.flow:
        one = "lora_te_" if len(model.facts.text_encoders) == 1 else "lora_te1_"
        words = _pairs(model.components["text_encoder"], ("q_proj", "k_proj", "v_proj", "out_proj"))
        named["kohya"] = {
            **_kohya("lora_unet_", pairs),
            **_kohya(one, ((_with_text_model(name), down, up) for name, down, up in words)),
        }
    return named


def _with_text_model(name: str) -> str:
    """transformers 5.6 flattened CLIPTextModel; files keep the names from before."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _pairs(module: Any, ends: tuple[str, ...]) -> Iterator[tuple[str, Tensor, Tensor]]:
    for name, layer in module.named_modules():
        if name.endswith(ends):
            rows, columns = layer.weight.shape
            yield name, _random(2, columns), _random(rows, 2)


def _kohya(prefix: str, pairs: Any) -> dict[str, Tensor]:
    tensors = {}
    for name, down, up in pairs:
        stem = prefix + name.replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(2.0)}
    return tensors
