"""Renames the tensors of the original layouts to the names of diffusers and transformers.

The tables describe the published files: CompVis' LDM layout, which A1111 and ComfyUI use for SD 1.5 and SDXL,
OpenCLIP's text model, and the FLUX layout of Black Forest Labs. They hold for networks of any width and depth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ...models.inspection import Kind, Layout

if TYPE_CHECKING:
    from torch import Tensor

Renamed = Iterator[tuple[str, "Tensor"]]

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "middle_block_out.0": "controlnet_mid_block",
    "input_hint_block.0": "controlnet_cond_embedding.conv_in",
    "input_hint_block.14": "controlnet_cond_embedding.conv_out",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def unet_from_ldm(tensors: Mapping[str, Tensor], layers: int = 2) -> Renamed:
    """A UNet or ControlNet in LDM layout, prefix removed, with `layers` residual blocks per level."""
    for name, tensor in tensors.items():
        yield _unet_name(name, layers), tensor


def _unet_name(name: str, layers: int) -> str:
    stem, _, leaf = name.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{leaf}"
    if match := re.fullmatch(r"zero_convs\.(\d+)\.0", stem):
        return f"controlnet_down_blocks.{match[1]}.{leaf}"
    if match := re.fullmatch(r"input_hint_block\.(\d+)", stem):
        return f"controlnet_cond_embedding.blocks.{int(match[1]) // 2 - 1}.{leaf}"
    if match := re.fullmatch(r"middle_block\.([012])\.(.*)", stem):
        return f"mid_block.{_MIDDLE[match[1]]}.{_resnet(match[2])}.{leaf}"
    if match := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.*)", stem):
        side = "down" if match[1] == "input" else "up"
        number = int(match[2]) - (side == "down")  # the first input block is conv_in
        level, place = divmod(number, layers + 1)
        if match[4] in ("op", "conv"):
            return f"{side}_blocks.{level}.{side}samplers.0.conv.{leaf}"
        part = "resnets" if match[3] == "0" else "attentions"
        return f"{side}_blocks.{level}.{part}.{place}.{_resnet(match[4])}.{leaf}"
    return name


def _resnet(part: str) -> str:
    return _RESNET.get(part, part)


_VAE_ATTENTION = {
    # LDM's names, and those of diffusers before 0.18
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def vae_from_ldm(tensors: Mapping[str, Tensor]) -> Renamed:
    """An autoencoder in LDM layout, prefix removed."""
    levels = 1 + max((int(m[1]) for name in tensors if (m := re.match(r"decoder\.up\.(\d+)\.", name))), default=0)
    for name, tensor in tensors.items():
        new = name.replace("norm_out.", "conv_norm_out.").replace("nin_shortcut.", "conv_shortcut.")
        new = re.sub(r"mid\.block_(\d)", lambda match: f"mid_block.resnets.{int(match[1]) - 1}", new)
        new = re.sub(r"encoder\.down\.(\d+)\.block", r"encoder.down_blocks.\1.resnets", new)
        new = re.sub(r"encoder\.down\.(\d+)\.downsample", r"encoder.down_blocks.\1.downsamplers.0", new)
        # The decoder's levels are counted from the other end.
        up = re.match(r"decoder\.up\.(\d+)\.(block|upsample)(.*)", new)
        if up:
            part = "resnets" if up[2] == "block" else "upsamplers.0"
            new = f"decoder.up_blocks.{levels - 1 - int(up[1])}.{part}{up[3]}"
        yield _vae_attention(new.replace("mid.attn_1.", "mid_block.attentions.0."), tensor)


def vae_from_diffusers(tensors: Mapping[str, Tensor]) -> Renamed:
    """An autoencoder in diffusers' layout, including that of versions before 0.18."""
    for name, tensor in tensors.items():
        yield _vae_attention(name, tensor)


def _vae_attention(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    match = re.fullmatch(r"(.*mid_block\.attentions\.0\.)(\w+)\.(weight|bias)", name)
    if not match or match[2] not in _VAE_ATTENTION:
        return name, tensor
    # LDM has 1 x 1 convolutions where diffusers has linear layers.
    return f"{match[1]}{_VAE_ATTENTION[match[2]]}.{match[3]}", tensor[..., 0, 0] if tensor.ndim == 4 else tensor


_OPEN_CLIP = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_OPEN_CLIP_ENDS = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


def text_from_open_clip(tensors: Mapping[str, Tensor]) -> Renamed:
    """OpenCLIP's text model, prefix removed, as transformers' CLIPTextModelWithProjection."""
    for name, tensor in tensors.items():
        block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.*)[._](weight|bias)", name)
        if name in _OPEN_CLIP_ENDS:
            yield _OPEN_CLIP_ENDS[name], tensor
        elif name == "text_projection":
            yield "text_projection.weight", tensor.T.contiguous()
        elif block:
            layer, part, leaf = f"text_model.encoder.layers.{block[1]}.", block[2], block[3]
            if part == "attn.in_proj":
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    yield f"{layer}self_attn.{letter}_proj.{leaf}", third
            else:
                part = _OPEN_CLIP.get(part, part.replace("attn.", "self_attn."))
                yield f"{layer}{part}.{leaf}", tensor
        else:
            yield name, tensor


_FLUX_STEMS = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
    # XLabs' ControlNets
    "pos_embed_input": "controlnet_x_embedder",
    "input_hint_block.0": "input_hint_block.conv_in",
    "input_hint_block.14": "input_hint_block.conv_out",
}
_FLUX_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
_FLUX_SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_FLUX_JOINED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}


def flux_from_original(tensors: Mapping[str, Tensor]) -> Renamed:
    """FLUX's transformer, or one of XLabs' ControlNets for it, in the original layout, prefix removed."""
    import torch

    width = next((t.shape[0] for name, t in tensors.items() if name == "img_in.weight"), 0)
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        leaf = "weight" if leaf == "scale" else leaf
        block = re.fullmatch(r"(double|single)_blocks\.(\d+)\.(.*)", stem)
        if stem in _FLUX_STEMS:
            yield f"{_FLUX_STEMS[stem]}.{leaf}", tensor
        elif stem == "final_layer.adaLN_modulation.1":
            # diffusers stores the scale before the shift.
            yield f"norm_out.linear.{leaf}", torch.cat(tensor.chunk(2)[::-1])
        elif match := re.fullmatch(r"input_hint_block\.(\d+)", stem):
            yield f"input_hint_block.blocks.{int(match[1]) // 2 - 1}.{leaf}", tensor
        elif block:
            blocks = "transformer_blocks" if block[1] == "double" else "single_transformer_blocks"
            if parts := _FLUX_JOINED.get(block[3]):
                sizes = [width] * 3 + ([tensor.shape[0] - 3 * width] if len(parts) == 4 else [])
                for part, piece in zip(parts, tensor.split(sizes), strict=True):
                    yield f"{blocks}.{block[2]}.{part}.{leaf}", piece
            else:
                table = _FLUX_DOUBLE if block[1] == "double" else _FLUX_SINGLE
                yield f"{blocks}.{block[2]}.{table.get(block[3], block[3])}.{leaf}", tensor
        else:
            yield name, tensor


def _unchanged(tensors: Mapping[str, Tensor]) -> Renamed:
    """Tensors that have the names of diffusers or transformers already."""
    yield from tensors.items()


_Rename = Callable[[Mapping[str, "Tensor"]], Iterable[tuple[str, "Tensor"]]]
_RENAMERS: Mapping[tuple[Kind, Layout], _Rename] = {
    (Kind.DENOISER, Layout.LDM): unet_from_ldm,
    (Kind.CONTROLNET, Layout.LDM): unet_from_ldm,
    (Kind.CONTROLNET, Layout.XLABS): flux_from_original,
    (Kind.VAE, Layout.LDM): vae_from_ldm,
    (Kind.VAE, Layout.DIFFUSERS): vae_from_diffusers,
    (Kind.TEXT_ENCODER, Layout.OPEN_CLIP): text_from_open_clip,
}


def renamed(tensors: Mapping[str, Tensor], kind: Kind, layout: Layout, flux: bool = False) -> dict[str, Tensor]:
    """The tensors of one network, without a prefix, under the names of diffusers or transformers."""
    if flux and kind is Kind.DENOISER and layout is Layout.LDM:
        return dict(flux_from_original(tensors))
    return dict(_RENAMERS.get((kind, layout), _unchanged)(tensors))


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, under the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
