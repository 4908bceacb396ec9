"""Loads a ControlNet; its configuration follows from its shapes and from the denoiser that it must fit."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelUnreadable
from ...models.inspection import FileFacts, Kind, facts_of
from ...models.library import read_config
from ...models.weights import load_tensors
from .assemble import assemble
from .layouts import renamed, strip_prefix

if TYPE_CHECKING:
    from torch import Tensor, dtype

# The classes that a configuration may name. Any other class is not run.
_CLASSES = ("ControlNetModel", "ControlNetUnionModel", "FluxControlNetModel")
_HINTS = "controlnet_cond_embedding"
# Settings that shapes do not show. A ControlNet has those of the UNet it was copied from.
_SHARED = (
    "act_fn",
    "addition_embed_type",
    "addition_time_embed_dim",
    "attention_head_dim",
    "block_out_channels",
    "cross_attention_dim",
    "flip_sin_to_cos",
    "freq_shift",
    "layers_per_block",
    "norm_eps",
    "norm_num_groups",
    "num_attention_heads",
    "projection_class_embeddings_input_dim",
    "upcast_attention",
    "use_linear_projection",
)


def load_net(path: Path, denoiser_config: Mapping[str, Any], dtype: dtype, averaging: bool = False) -> Any:
    """The network of a ControlNet that fits the denoiser, on the CPU.

    `averaging` is for nets whose outputs are averaged over the image (shuffle), which no file declares. Raises
    ModelNotFound or ModelUnreadable.
    """
    facts = facts_of(path)
    flux = "joint_attention_dim" in denoiser_config
    loaded = load_tensors(path, dtype)
    tensors = renamed(strip_prefix(facts.prefix, loaded), facts.kind, facts.layout)
    config = _config_beside(path)
    if config is None:
        try:
            config = _flux_config(tensors, denoiser_config) if flux else _unet_config(tensors, denoiser_config, facts)
        except KeyError as error:
            raise ModelUnreadable(
                f"{path} has no tensor {error}. The file is broken, or of a variant that this pack does not know. "
                "Choose another ControlNet."
            ) from error
    if averaging:
        config["global_pool_conditions"] = True
    return assemble(config, tensors, path)


def _config_beside(path: Path) -> dict[str, Any] | None:
    """The configuration in a diffusers folder."""
    if not (path / "config.json").is_file():
        return None
    config = read_config(path)
    return config if config.get("_class_name") in _CLASSES else None


def _unet_config(tensors: Mapping[str, Tensor], unet: Mapping[str, Any], facts: FileFacts) -> dict[str, Any]:
    # Every second block of the hint encoder halves the resolution and changes the number of channels.
    hints = ["conv_in", *(f"blocks.{index}" for index in range(1, _depth(tensors, f"{_HINTS}.blocks"), 2))]
    levels = range(len(unet["block_out_channels"]))
    depths = [_depth(tensors, f"down_blocks.{level}.attentions.0.transformer_blocks") for level in levels]
    middle = _depth(tensors, "mid_block.attentions.0.transformer_blocks")
    config: dict[str, Any] = {
        **{key: unet[key] for key in _SHARED},
        "_class_name": "ControlNetUnionModel" if facts.kind is Kind.UNION else "ControlNetModel",
        "in_channels": tensors["conv_in.weight"].shape[1],
        "conditioning_channels": tensors[f"{_HINTS}.conv_in.weight"].shape[1],
        "conditioning_embedding_out_channels": [tensors[f"{_HINTS}.{hint}.weight"].shape[0] for hint in hints],
        # Small nets for SDXL have no attention at some levels.
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "transformer_layers_per_block": [depth or 1 for depth in (*depths[:-1], depths[-1] or middle)],
    }
    if facts.kind is Kind.UNION:
        kinds, width = tensors["task_embedding"].shape
        return {
            **config,
            "num_control_type": kinds,
            "num_trans_channel": width,
            "num_trans_layer": _depth(tensors, "transformer_layes"),
            "num_proj_channel": tensors["spatial_ch_projs.weight"].shape[0],
        }
    return {**config, "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D"}


def _flux_config(tensors: Mapping[str, Tensor], transformer: Mapping[str, Any]) -> dict[str, Any]:
    width, channels = tensors["x_embedder.weight"].shape
    head = tensors["transformer_blocks.0.attn.norm_q.weight"].shape[0]
    modes, hint = tensors.get("controlnet_mode_embedder.weight"), tensors.get("input_hint_block.conv_out.weight")
    hint_channels = hint.shape[0] if hint is not None else None
    # Nets that encode the map themselves pack patches of its features into tokens, as FLUX does with latents.
    patch = isqrt(tensors["controlnet_x_embedder.weight"].shape[1] // hint_channels) if hint_channels else 1
    return {
        "_class_name": "FluxControlNetModel",
        "in_channels": channels,
        "num_layers": _depth(tensors, "transformer_blocks"),
        "num_single_layers": _depth(tensors, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": tensors["context_embedder.weight"].shape[1],
        "pooled_projection_dim": tensors["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in tensors,
        "axes_dims_rope": list(transformer["axes_dims_rope"]),
        "num_mode": modes.shape[0] if modes is not None else None,
        "conditioning_embedding_channels": hint_channels,
        "patch_size": patch,
    }


def _depth(tensors: Mapping[str, Tensor], parent: str) -> int:
    """The number of numbered layers below a name."""
    start = f"{parent}."
    return len({name[len(start) :].split(".", 1)[0] for name in tensors if name.startswith(start)})
