"""Models of the three families with random weights, small enough to be made and run in a test.

Their architecture is the published one - levels, blocks, layout of the weights - at a fraction of the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from controlstack.core.memory import PlainMemory
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.network_cache import NetworkCache
from controlstack.local.model.source import DEMO_MODEL
from controlstack.models.families import FACTS, Family
from controlstack.models.library import Library
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    ControlNetUnionModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxTransformer2DModel,
    PNDMScheduler,
    UNet2DConditionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WIDTH = 32  # of the text encoders
CPU = torch.device("cpu")

_CHANNELS = (8, 16, 24, 24)
_HINT_CHANNELS = (8, 8, 16, 16)
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_FLUX = {
    "patch_size": 1,
    "in_channels": 16,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "axes_dims_rope": (4, 6, 6),
}


def clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(DEMO_MODEL / "tokenizer")


def t5_tokenizer() -> T5TokenizerFast:
    words = [
        "a",
        "the",
        "red",
        "blue",
        "green",
        "circle",
        "square",
        "star",
        "left",
        "right",
        "on",
        "with",
        "background",
    ]
    pieces = ["<pad>", "</s>", "<unk>", *("\u2581" + word for word in words), "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    return T5TokenizerFast([(piece, -index / 50) for index, piece in enumerate(pieces)], model_max_length=512)


def clip_text(projected: bool = False, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=WIDTH,
        hidden_act="gelu" if projected else "quick_gelu",
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5(seed: int = 8) -> T5EncoderModel:
    torch.manual_seed(seed)
    vocabulary = len(t5_tokenizer())
    config = T5Config(
        vocab_size=vocabulary, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def clip_vision(seed: int = 5) -> CLIPVisionModelWithProjection:
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=WIDTH,
    )
    return CLIPVisionModelWithProjection(config).eval()


def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(crop_size={"height": 32, "width": 32}, size={"shortest_edge": 32})


def vae(seed: int = 1, flux: bool = False) -> AutoencoderKL:
    torch.manual_seed(seed)
    flux_only = {
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        **(flux_only if flux else {"scaling_factor": 0.18215}),
    ).eval()


def unet(family: Family = Family.SD15, in_channels: int = 4, seed: int = 2) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "in_channels": in_channels,
        "sample_size": 16,
        "layers_per_block": 2,
        "norm_num_groups": 4,
    }
    if family is Family.SD15:
        shape |= {"block_out_channels": _CHANNELS, "cross_attention_dim": WIDTH, "attention_head_dim": 4}
    else:
        shape |= {
            "block_out_channels": _CHANNELS[:3],
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 1, 2),
            "attention_head_dim": (2, 4, 4),
            "cross_attention_dim": 2 * WIDTH,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
        }
    return UNet2DConditionModel(**shape).eval()


def flux_transformer(guidance: bool = True, seed: int = 9) -> FluxTransformer2DModel:
    torch.manual_seed(seed)
    return FluxTransformer2DModel(**_FLUX, num_layers=2, num_single_layers=2, guidance_embeds=guidance).eval()


def control_net(family: Family = Family.SD15, seed: int = 3, **changes: Any) -> ControlNetModel | FluxControlNetModel:
    """A ControlNet whose output layers are not zero, so that it acts. `changes` are to the shape of FLUX's."""
    if family.compatible_family is Family.FLUX_DEV:
        shape = {**_FLUX, "num_layers": 2, "num_single_layers": 1, "guidance_embeds": True, **changes}
        return _acting(FluxControlNetModel(**shape), seed)
    made_from = unet(family)
    return _acting(ControlNetModel.from_unet(made_from, conditioning_embedding_out_channels=_HINT_CHANNELS), seed)


def xlabs_net(seed: int = 3) -> ControlNetModel | FluxControlNetModel:
    """A net of XLabs, small: its encoded map has a quarter as many channels as the latents, in patches of two."""
    return control_net(Family.FLUX_DEV, seed, num_single_layers=0, conditioning_embedding_channels=4, patch_size=2)


def union_net(
    family: Family = Family.SDXL, modes: int | None = None, seed: int = 4
) -> ControlNetUnionModel | FluxControlNetModel:
    """A union ControlNet; SDXL's has 6 or, as ProMax, 8 types, FLUX's 10 modes."""
    if family.compatible_family is Family.FLUX_DEV:
        shape = {**_FLUX, "num_layers": 2, "num_single_layers": 1, "guidance_embeds": True}
        return _acting(FluxControlNetModel(**shape, num_mode=modes or 10), seed)
    config = unet(family).config
    shared = (
        "in_channels down_block_types block_out_channels layers_per_block norm_num_groups cross_attention_dim "
        "transformer_layers_per_block attention_head_dim use_linear_projection addition_embed_type "
        "addition_time_embed_dim projection_class_embeddings_input_dim"
    )
    net = ControlNetUnionModel(
        **{key: config[key] for key in shared.split()},
        conditioning_embedding_out_channels=_HINT_CHANNELS,
        num_control_type=modes or 6,
        num_trans_channel=_CHANNELS[0],
        num_proj_channel=_CHANNELS[0],
        num_trans_head=8,
    )
    return _acting(net, seed)


def components(family: Family = Family.SD15, in_channels: int = 4) -> dict[str, Any]:
    """The components of a diffusers pipeline of the family, without the scheduler."""
    if family.compatible_family is Family.FLUX_DEV:
        return {
            "transformer": flux_transformer(guidance=family is Family.FLUX_DEV),
            "vae": vae(flux=True),
            "text_encoder": clip_text(),
            "tokenizer": clip_tokenizer(),
            "text_encoder_2": t5(),
            "tokenizer_2": t5_tokenizer(),
            "image_encoder": None,
            "feature_extractor": None,
        }
    parts = {
        "unet": unet(family, in_channels),
        "vae": vae(),
        "text_encoder": clip_text(),
        "tokenizer": clip_tokenizer(),
        "image_encoder": None,
        "feature_extractor": None,
    }
    if family is Family.SD15:
        return {**parts, "safety_checker": None}
    return {**parts, "text_encoder_2": clip_text(projected=True, seed=6), "tokenizer_2": clip_tokenizer()}


def scheduler(family: Family = Family.SD15) -> Any:
    if family.compatible_family is Family.FLUX_DEV:
        return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=family is Family.FLUX_DEV)
    if family is Family.SDXL:
        return EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading")
    return PNDMScheduler(**_NOISE, skip_prk_steps=True)


def tiny_model(
    family: Family = Family.SD15, library: Library | None = None, in_channels: int = 4, **fields: Any
) -> LocalModel:
    """A model on the CPU, in fp32. `library` is where its nets and adapters are looked for."""
    config: Mapping[str, Any] = scheduler(family).config
    return LocalModel(
        name=f"tiny {family.value}",
        family=family,
        source=DEMO_MODEL.parent / "none",
        dtype=torch.float32,
        components=components(family, in_channels),
        scheduler_config={**config, "_class_name": type(scheduler(family)).__name__},
        networks=NetworkCache(PlainMemory(CPU)),
        library=library or Library(),
        **fields,
    )


def _acting(net: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    for name, parameter in net.named_parameters():
        if name.startswith(("controlnet_", "spatial_ch_projs", "input_hint_block.conv_out")):
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


assert set(FACTS) == {Family.SD15, Family.SDXL, Family.FLUX_DEV, Family.FLUX_SCHNELL}
