"""Tiny models with the tensor names of the published original layouts.

Written from diffusers' names to the original ones, the opposite way of `local/files/layouts.py` and without its tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from controlstack.models.families import Family
from torch import Tensor

Tensors = dict[str, Tensor]
LAYERS = 2
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def ldm_unet(module: torch.nn.Module) -> Tensors:
    """A UNet or ControlNet in LDM layout, without a prefix."""
    tensors = module.state_dict()
    attentive = {int(m[1]) for name in tensors if (m := re.match(r"up_blocks\.(\d+)\.attentions", name))}
    return {_ldm_unet_name(name, attentive): tensor for name, tensor in tensors.items()}


def _ldm_unet_name(name: str, attentive: set[int]) -> str:
    stem, leaf = name.rsplit(".", 1)
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{leaf}"
    if match := re.match(r"controlnet_down_blocks\.(\d+)", name):
        return f"zero_convs.{match[1]}.0.{leaf}"
    if match := re.match(r"controlnet_cond_embedding\.blocks\.(\d+)", name):
        return f"input_hint_block.{2 * (int(match[1]) + 1)}.{leaf}"
    if match := re.match(r"down_blocks\.(\d+)\.downsamplers", name):
        return f"input_blocks.{(int(match[1]) + 1) * (LAYERS + 1)}.0.op.{leaf}"
    if match := re.match(r"up_blocks\.(\d+)\.upsamplers", name):
        place = 2 if int(match[1]) in attentive else 1
        return f"output_blocks.{int(match[1]) * (LAYERS + 1) + LAYERS}.{place}.conv.{leaf}"
    block = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)\.", name)
    middle = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)\.", name)
    if block:
        number = int(block[2]) * (LAYERS + 1) + int(block[4]) + (block[1] == "down")
        side, is_resnet, rest = "input" if block[1] == "down" else "output", block[3] == "resnets", block[5]
        return f"{side}_blocks.{number}.{0 if is_resnet else 1}.{_RESNET[rest] if is_resnet else rest}.{leaf}"
    assert middle, name
    if middle[1] == "resnets":
        return f"middle_block.{2 * int(middle[2])}.{_RESNET[middle[3]]}.{leaf}"
    return f"middle_block.1.{middle[3]}.{leaf}"


def ldm_vae(module: torch.nn.Module, levels: int = 4) -> Tensors:
    """An autoencoder in LDM layout, without a prefix."""
    written: Tensors = {}
    letters = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    for name, tensor in module.state_dict().items():
        new = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2", name)
        new = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample", new)
        if match := re.match(r"decoder\.up_blocks\.(\d)\.(resnets\.(\d)|upsamplers\.0)\.(.*)", name):
            part = f"block.{match[3]}" if match[3] else "upsample"
            new = f"decoder.up.{levels - 1 - int(match[1])}.{part}.{match[4]}"
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if match := re.match(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.*)\.(weight|bias)", name):
            new = f"{match[1]}.mid.attn_1.{letters[match[2]]}.{match[3]}"
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        written[new.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")] = tensor
    return written


def hf_text(module: torch.nn.Module) -> Tensors:
    """A CLIP text model under the names that transformers wrote before 5.6."""
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in module.state_dict().items()}
    named = {name if name.startswith("text_projection") else f"text_model.{name}": t for name, t in tensors.items()}
    return {**named, "text_model.embeddings.position_ids": torch.arange(77)[None]}


def open_clip_text(module: torch.nn.Module) -> Tensors:
    """A CLIP text model with projection in OpenCLIP's layout."""
    tensors = {name.removeprefix("text_model."): tensor for name, tensor in module.state_dict().items()}
    written = {
        "positional_embedding": tensors["embeddings.position_embedding.weight"],
        "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
        "ln_final.weight": tensors["final_layer_norm.weight"],
        "ln_final.bias": tensors["final_layer_norm.bias"],
        "text_projection": tensors["text_projection.weight"].T,
        "logit_scale": torch.ones(()),
    }
    layers = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"encoder\.layers\.(\d+)", name)))
    pairs = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for leaf in ("weight", "bias"):
            for a, b in {**pairs, "self_attn.out_proj": "attn.out_proj"}.items():
                written[f"{new}{b}.{leaf}"] = tensors[f"{old}{a}.{leaf}"]
            thirds = [tensors[f"{old}self_attn.{letter}_proj.{leaf}"] for letter in "qkv"]
            written[f"{new}attn.in_proj_{leaf}"] = torch.cat(thirds)
    return written


def flux_original(module: torch.nn.Module) -> Tensors:
    """FLUX's transformer, or the part of it in a ControlNet, as Black Forest Labs published it, without a prefix."""
    tensors = module.state_dict()
    written: Tensors = {}

    def take(new: str, *olds: str, norm: bool = False) -> None:
        for leaf in ("weight",) if norm else ("weight", "bias"):
            written[f"{new}.{'scale' if norm else leaf}"] = torch.cat([tensors[f"{old}.{leaf}"] for old in olds])

    take("img_in", "x_embedder")
    take("txt_in", "context_embedder")
    for new, old in (("time_in", "timestep"), ("vector_in", "text"), ("guidance_in", "guidance")):
        if f"time_text_embed.{old}_embedder.linear_1.weight" in tensors:
            take(f"{new}.in_layer", f"time_text_embed.{old}_embedder.linear_1")
            take(f"{new}.out_layer", f"time_text_embed.{old}_embedder.linear_2")
    if "proj_out.weight" in tensors:
        take("final_layer.linear", "proj_out")
        for leaf in ("weight", "bias"):
            scale, shift = tensors[f"norm_out.linear.{leaf}"].chunk(2)
            written[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])
    for number in range(_count(tensors, "transformer_blocks")):
        old, new = f"transformer_blocks.{number}.", f"double_blocks.{number}."
        for side, norm, attn, out, ff, added in (
            ("img", "norm1", "to_{}", "to_out.0", "ff", ""),
            ("txt", "norm1_context", "add_{}_proj", "to_add_out", "ff_context", "added_"),
        ):
            take(f"{new}{side}_mod.lin", f"{old}{norm}.linear")
            take(f"{new}{side}_attn.qkv", *(f"{old}attn.{attn.format(letter)}" for letter in "qkv"))
            take(f"{new}{side}_attn.proj", f"{old}attn.{out}")
            take(f"{new}{side}_attn.norm.query_norm", f"{old}attn.norm_{added}q", norm=True)
            take(f"{new}{side}_attn.norm.key_norm", f"{old}attn.norm_{added}k", norm=True)
            take(f"{new}{side}_mlp.0", f"{old}{ff}.net.0.proj")
            take(f"{new}{side}_mlp.2", f"{old}{ff}.net.2")
    for number in range(_count(tensors, "single_transformer_blocks")):
        old, new = f"single_transformer_blocks.{number}.", f"single_blocks.{number}."
        take(f"{new}modulation.lin", f"{old}norm.linear")
        take(f"{new}linear1", *(f"{old}{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")))
        take(f"{new}linear2", f"{old}proj_out")
        take(f"{new}norm.query_norm", f"{old}attn.norm_q", norm=True)
        take(f"{new}norm.key_norm", f"{old}attn.norm_k", norm=True)
    return written


def xlabs_original(net: torch.nn.Module) -> Tensors:
    """A FLUX ControlNet that encodes maps itself, as XLabs published it."""
    hint = {"conv_in": 0, **{f"blocks.{index}": 2 * (index + 1) for index in range(6)}, "conv_out": 14}
    written = flux_original(net)
    for name, tensor in net.state_dict().items():
        stem, leaf = name.rsplit(".", 1)
        if stem.startswith("input_hint_block."):
            written[f"input_hint_block.{hint[stem.removeprefix('input_hint_block.')]}.{leaf}"] = tensor
        elif stem.startswith("controlnet_blocks."):
            written[name] = tensor
        elif stem == "controlnet_x_embedder":
            written[f"pos_embed_input.{leaf}"] = tensor
    return written


def _count(tensors: Mapping[str, Tensor], room: str) -> int:
    return 1 + max((int(match[1]) for name in tensors if (match := re.match(rf"{room}\.(\d+)\.", name))), default=-1)


def checkpoint(family: Family, parts: Mapping[str, Any]) -> Tensors:
    """A whole checkpoint as A1111 and ComfyUI read it."""
    if family.compatible_family is Family.FLUX_DEV:
        rooms = {
            "model.diffusion_model.": flux_original(parts["transformer"]),
            "vae.": ldm_vae(parts["vae"]),
            "text_encoders.clip_l.transformer.": hf_text(parts["text_encoder"]),
            "text_encoders.t5xxl.transformer.": dict(parts["text_encoder_2"].state_dict()),
        }
    elif family is Family.SDXL:
        rooms = {
            "model.diffusion_model.": ldm_unet(parts["unet"]),
            "first_stage_model.": ldm_vae(parts["vae"]),
            "conditioner.embedders.0.transformer.": hf_text(parts["text_encoder"]),
            "conditioner.embedders.1.model.": open_clip_text(parts["text_encoder_2"]),
        }
    else:
        rooms = {
            "model.diffusion_model.": ldm_unet(parts["unet"]),
            "first_stage_model.": ldm_vae(parts["vae"]),
            "cond_stage_model.transformer.": hf_text(parts["text_encoder"]),
        }
    tensors = {prefix + name: tensor for prefix, room in rooms.items() for name, tensor in room.items()}
    return {**tensors, "betas": torch.linspace(0, 1, 10)}


def stored(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Tensors:
    """The tensors as in a file: of one dtype, contiguous and not shared."""
    return {name: (t.to(dtype) if t.is_floating_point() else t).contiguous().clone() for name, t in tensors.items()}


def scaled_fp8(tensors: Mapping[str, Tensor], spelling: str = "scale_weight") -> Tensors:
    """Matrices in 8 bits, each with a scale, as ComfyUI's scaled files have them."""
    written: Tensors = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and name.endswith(".weight") and tensor.is_floating_point():
            scale = tensor.abs().amax() / 448
            written[name] = (tensor / scale).to(torch.float8_e4m3fn)
            written[name.removesuffix("weight") + spelling] = scale.reshape(())
        else:
            written[name] = tensor.half() if tensor.is_floating_point() else tensor
    return {name: tensor.contiguous().clone() for name, tensor in written.items()}
