"""Files of every common kind are recognized by the tensor names and shapes of published files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from controlstack.models.families import Family
from controlstack.models.headers import Header, Tensor
from controlstack.models.inspection import AdapterVariant, FileFacts, Format, Kind, Layout, file_facts

# name -> shape, in the order the rows of the table need; a number stands for that many values.
Shapes = dict[str, tuple[int, ...]]

_SD15_UNET: Shapes = {
    "time_embed.0.weight": (1280, 320),
    "input_blocks.0.0.weight": (320, 4, 3, 3),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
    "output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
    "out.2.weight": (4, 320, 3, 3),
}
_SD2_UNET = {name: (*shape[:-1], 1024) if "attn2" in name else shape for name, shape in _SD15_UNET.items()}
_SDXL_UNET: Shapes = {
    "input_blocks.0.0.weight": (320, 4, 3, 3),
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    "label_emb.0.0.weight": (1280, 2816),
    "output_blocks.8.0.skip_connection.weight": (320, 640, 1, 1),
}
_REFINER_UNET: Shapes = {
    "input_blocks.0.0.weight": (384, 4, 3, 3),
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (768, 1280),
    "label_emb.0.0.weight": (1536, 2560),
}
_VAE: Shapes = {"encoder.down.0.block.0.norm1.weight": (128,), "decoder.up.0.block.0.norm1.weight": (128,)}
_VAE_4 = {**_VAE, "decoder.conv_in.weight": (512, 4, 3, 3), "quant_conv.weight": (8, 8, 1, 1)}
_VAE_16 = {**_VAE, "decoder.conv_in.weight": (512, 16, 3, 3)}
_CLIP_L: Shapes = {
    "text_model.embeddings.token_embedding.weight": (49408, 768),
    "text_model.encoder.layers.0.self_attn.k_proj.weight": (768, 768),
}
_CLIP_G: Shapes = {
    "transformer.resblocks.9.mlp.c_proj.bias": (1280,),
    "transformer.resblocks.0.attn.in_proj_weight": (3840, 1280),
    "token_embedding.weight": (49408, 1280),
    "text_projection": (1280, 1280),
}
_T5: Shapes = {"encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096), "shared.weight": (32128, 4096)}
_FLUX: Shapes = {
    "img_in.weight": (3072, 64),
    "txt_in.weight": (3072, 4096),
    "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
    "single_blocks.0.linear1.weight": (21504, 3072),
    "time_in.in_layer.weight": (3072, 256),
}
_GUIDANCE: Shapes = {"guidance_in.in_layer.weight": (3072, 256)}
_FLUX_DIFFUSERS: Shapes = {
    "x_embedder.weight": (3072, 64),
    "context_embedder.weight": (3072, 4096),
    "transformer_blocks.0.attn.norm_q.weight": (128,),
    "single_transformer_blocks.0.proj_mlp.weight": (12288, 3072),
}
_GUIDANCE_DIFFUSERS: Shapes = {"time_text_embed.guidance_embedder.linear_1.weight": (3072, 256)}
_SD3: Shapes = {
    "joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,),
    "joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536),
    "context_embedder.weight": (1536, 4096),
    "x_embedder.proj.weight": (1536, 16, 2, 2),
}
_UNET_DIFFUSERS: Shapes = {
    "time_embedding.linear_1.weight": (1280, 320),
    "conv_in.weight": (320, 4, 3, 3),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "up_blocks.0.resnets.0.conv1.weight": (1280, 2560, 3, 3),
}
_NET_LDM: Shapes = {
    "input_hint_block.0.weight": (16, 3, 3, 3),
    "zero_convs.0.0.weight": (320, 320, 1, 1),
    "input_blocks.0.0.weight": (320, 4, 3, 3),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
}
_NET: Shapes = {
    "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
    "controlnet_down_blocks.0.weight": (320, 320, 1, 1),
    "conv_in.weight": (320, 4, 3, 3),
    "time_embedding.linear_1.weight": (1280, 320),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 768),
}
_NET_XL: Shapes = {
    "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
    "controlnet_down_blocks.0.weight": (320, 320, 1, 1),
    "conv_in.weight": (320, 4, 3, 3),
    "add_embedding.linear_1.weight": (1280, 2816),
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
}
_NET_FLUX: Shapes = {
    **_FLUX_DIFFUSERS,
    "controlnet_x_embedder.weight": (3072, 64),
    "controlnet_blocks.0.weight": (3072, 3072),
    **_GUIDANCE_DIFFUSERS,
}
_ADAPTER_15: Shapes = {"ip_adapter.1.to_k_ip.weight": (320, 768)}
_ADAPTER_XL: Shapes = {"ip_adapter.1.to_k_ip.weight": (640, 2048)}


def below(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


_UNET_PREFIX = "model.diffusion_model."
_SD15_CHECKPOINT = {
    **below(_UNET_PREFIX, _SD15_UNET),
    **below("first_stage_model.", _VAE_4),
    **below("cond_stage_model.transformer.", _CLIP_L),
    "betas": (1000,),
}
_SDXL_CHECKPOINT = {
    **below(_UNET_PREFIX, _SDXL_UNET),
    **below("first_stage_model.", _VAE_4),
    **below("conditioner.embedders.0.transformer.", _CLIP_L),
    **below("conditioner.embedders.1.model.", _CLIP_G),
}

# description -> its tensors, and the expected facts.
FILES: dict[str, tuple[Shapes, dict]] = {
    "SD 1.5 checkpoint": (
        _SD15_CHECKPOINT,
        {"kind": Kind.CHECKPOINT, "family": Family.SD15, "layout": Layout.LDM, "width": 768, "in_channels": 4},
    ),
    "SD 1.5 inpainting checkpoint": (
        {**_SD15_CHECKPOINT, f"{_UNET_PREFIX}input_blocks.0.0.weight": (320, 9, 3, 3)},
        {"kind": Kind.CHECKPOINT, "family": Family.SD15, "in_channels": 9},
    ),
    "SD 1.5 checkpoint without VAE": (
        {name: shape for name, shape in _SD15_CHECKPOINT.items() if not name.startswith("first_stage")},
        {"kind": Kind.CHECKPOINT, "family": Family.SD15, "parts": frozenset({Kind.TEXT_ENCODER})},
    ),
    "SD 2.1 checkpoint": (
        {
            **below(_UNET_PREFIX, _SD2_UNET),
            **below("first_stage_model.", _VAE_4),
            "cond_stage_model.model.token_embedding.weight": (49408, 1024),
        },
        {"kind": Kind.CHECKPOINT, "family": Family.SD2, "width": 1024},
    ),
    "SDXL checkpoint": (_SDXL_CHECKPOINT, {"kind": Kind.CHECKPOINT, "family": Family.SDXL, "width": 2048}),
    "SDXL checkpoint that predicts velocity": (
        {**_SDXL_CHECKPOINT, "v_pred": (1,), "ztsnr": (1,)},
        {"kind": Kind.CHECKPOINT, "family": Family.SDXL, "v_prediction": True, "zero_snr": True},
    ),
    "SDXL refiner checkpoint": (
        {
            **below(_UNET_PREFIX, _REFINER_UNET),
            **below("first_stage_model.", _VAE_4),
            **below("conditioner.embedders.0.model.", _CLIP_G),
        },
        {"kind": Kind.CHECKPOINT, "family": Family.SDXL_REFINER},
    ),
    "SD 3 checkpoint": (
        {**below(_UNET_PREFIX, _SD3), **below("first_stage_model.", _VAE_16)},
        {"kind": Kind.CHECKPOINT, "family": Family.SD3},
    ),
    "FLUX.1 dev of Black Forest Labs": (
        {**_FLUX, **_GUIDANCE},
        {"kind": Kind.DENOISER, "family": Family.FLUX_DEV, "layout": Layout.LDM, "in_channels": 64, "width": 4096},
    ),
    "FLUX.1 schnell of Black Forest Labs": (_FLUX, {"kind": Kind.DENOISER, "family": Family.FLUX_SCHNELL}),
    "FLUX.1 Fill": (
        {**_FLUX, **_GUIDANCE, "img_in.weight": (3072, 384)},
        {"kind": Kind.DENOISER, "family": Family.FLUX_DEV, "in_channels": 384},
    ),
    "FLUX.1 dev saved by ComfyUI": (
        below(_UNET_PREFIX, {**_FLUX, **_GUIDANCE}),
        {"kind": Kind.DENOISER, "family": Family.FLUX_DEV, "prefix": _UNET_PREFIX},
    ),
    "FLUX.1 dev all in one file": (
        {
            **below(_UNET_PREFIX, {**_FLUX, **_GUIDANCE}),
            **below("vae.", _VAE_16),
            **below("text_encoders.clip_l.transformer.", _CLIP_L),
            **below("text_encoders.t5xxl.transformer.", _T5),
        },
        {
            "kind": Kind.CHECKPOINT,
            "family": Family.FLUX_DEV,
            "parts": frozenset({Kind.VAE, Kind.TEXT_ENCODER}),
        },
    ),
    "FLUX.1 dev of diffusers": (
        {**_FLUX_DIFFUSERS, **_GUIDANCE_DIFFUSERS},
        {"kind": Kind.DENOISER, "family": Family.FLUX_DEV, "layout": Layout.DIFFUSERS},
    ),
    "Chroma": ({**_FLUX, "distilled_guidance_layer.in_proj.bias": (5120,)}, {"kind": Kind.UNKNOWN}),
    "FLUX.2": ({**_FLUX, "single_stream_modulation.lin.weight": (18432, 6144)}, {"kind": Kind.UNKNOWN}),
    "SD 1.5 UNet alone": (_SD15_UNET, {"kind": Kind.DENOISER, "family": Family.SD15, "prefix": ""}),
    "SD 1.5 UNet of diffusers": (
        _UNET_DIFFUSERS,
        {"kind": Kind.DENOISER, "family": Family.SD15, "layout": Layout.DIFFUSERS},
    ),
    "SD 1.5 VAE": (_VAE_4, {"kind": Kind.VAE, "layout": Layout.LDM, "in_channels": 4, "family": None}),
    "FLUX VAE": (_VAE_16, {"kind": Kind.VAE, "in_channels": 16}),
    "VAE of diffusers": (
        {"decoder.up_blocks.0.resnets.0.conv1.weight": (512, 512, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)},
        {"kind": Kind.VAE, "layout": Layout.DIFFUSERS, "in_channels": 4},
    ),
    "TAESD decoder": ({"1.weight": (64, 4, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)}, {"kind": Kind.TINY_VAE}),
    "TAESD of diffusers": ({"decoder.layers.0.weight": (64, 4, 3, 3)}, {"kind": Kind.TINY_VAE}),
    "CLIP-L": (_CLIP_L, {"kind": Kind.TEXT_ENCODER, "layout": Layout.DIFFUSERS, "width": 768}),
    "CLIP-G of OpenCLIP": (_CLIP_G, {"kind": Kind.TEXT_ENCODER, "layout": Layout.OPEN_CLIP, "width": 1280}),
    "T5-XXL": (_T5, {"kind": Kind.TEXT_ENCODER, "width": 4096}),
    "CLIP vision H": (
        {
            "vision_model.embeddings.patch_embedding.weight": (1280, 3, 14, 14),
            "visual_projection.weight": (1024, 1280),
        },
        {"kind": Kind.CLIP_VISION, "width": 1280, "image_width": 1024},
    ),
    "CLIP vision of OpenCLIP": (
        {"visual.conv1.weight": (1664, 3, 14, 14), "visual.proj": (1664, 1280)},
        {"kind": Kind.CLIP_VISION, "layout": Layout.OPEN_CLIP, "width": 1664, "image_width": 1280},
    ),
    "whole CLIP": (
        {**_CLIP_L, "vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14)},
        {"kind": Kind.CLIP_VISION},
    ),
    "ControlNet of A1111": (
        below("control_model.", _NET_LDM),
        {"kind": Kind.CONTROLNET, "family": Family.SD15, "layout": Layout.LDM, "prefix": "control_model."},
    ),
    "ControlNet without a prefix": (_NET_LDM, {"kind": Kind.CONTROLNET, "family": Family.SD15, "prefix": ""}),
    "ControlNet 1.0 with its base model": (
        {**below("control_model.", _NET_LDM), **_SD15_CHECKPOINT},
        {"kind": Kind.CONTROLNET, "family": Family.SD15},
    ),
    "ControlNet of diffusers": (_NET, {"kind": Kind.CONTROLNET, "family": Family.SD15, "width": 768}),
    "ControlNet for SD 2": (
        {name: (*shape[:-1], 1024) if "attn2" in name else shape for name, shape in _NET.items()},
        {"kind": Kind.CONTROLNET, "family": Family.SD2},
    ),
    "ControlNet for SDXL": (_NET_XL, {"kind": Kind.CONTROLNET, "family": Family.SDXL, "width": 2048}),
    "small ControlNet for SDXL, without attention": (
        {name: shape for name, shape in _NET_XL.items() if "attn2" not in name},
        {"kind": Kind.CONTROLNET, "family": Family.SDXL, "width": 0},
    ),
    "ControlNet-Union for SDXL": (
        {**_NET_XL, "task_embedding": (6, 320), "control_add_embedding.linear_1.weight": (1280, 1536)},
        {"kind": Kind.UNION, "family": Family.SDXL, "modes": 6},
    ),
    "ControlNet-Union ProMax for SDXL": (
        {**_NET_XL, "task_embedding": (8, 320)},
        {"kind": Kind.UNION, "family": Family.SDXL, "modes": 8},
    ),
    "ControlNet of InstantX for FLUX": (_NET_FLUX, {"kind": Kind.CONTROLNET, "family": Family.FLUX_DEV}),
    "ControlNet-Union for FLUX": (
        {**_NET_FLUX, "controlnet_mode_embedder.weight": (10, 3072)},
        {"kind": Kind.UNION, "family": Family.FLUX_DEV, "modes": 10},
    ),
    "ControlNet of XLabs for FLUX": (
        {
            **_FLUX,
            **_GUIDANCE,
            "controlnet_blocks.0.weight": (3072, 3072),
            "input_hint_block.0.weight": (16, 3, 3, 3),
            "pos_embed_input.weight": (3072, 64),
        },
        {"kind": Kind.CONTROLNET, "family": Family.FLUX_DEV, "layout": Layout.XLABS},
    ),
    "ControlNet for SD 3": (
        {
            "controlnet_blocks.0.weight": (1536, 1536),
            "transformer_blocks.0.attn.to_q.weight": (1536, 1536),
            "pos_embed_input.proj.weight": (1536, 16, 2, 2),
            "context_embedder.weight": (1536, 4096),
        },
        {"kind": Kind.CONTROLNET, "family": Family.SD3},
    ),
    "Control-LoRA": (
        {"lora_controlnet": (1,), "input_hint_block.0.weight": (16, 3, 3, 3), "zero_convs.0.0.weight": (320, 320)},
        {"kind": Kind.CONTROL_LORA},
    ),
    "ControlNet-LLLite": (
        {"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight": (64, 640)},
        {"kind": Kind.LLLITE},
    ),
    "T2I-Adapter": (
        {"body.0.block1.weight": (320, 320, 3, 3), "conv_in.weight": (320, 192, 3, 3)},
        {"kind": Kind.T2I_ADAPTER},
    ),
    "T2I-Adapter of diffusers": (
        {"adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
        {"kind": Kind.T2I_ADAPTER},
    ),
    "IP-Adapter": (
        {"image_proj.proj.weight": (3072, 1024), "image_proj.norm.weight": (768,), **_ADAPTER_15},
        {"kind": Kind.IP_ADAPTER, "family": Family.SD15, "variant": AdapterVariant.PLAIN, "image_width": 1024},
    ),
    "IP-Adapter Plus": (
        {"image_proj.latents": (1, 16, 768), "image_proj.proj_in.weight": (768, 1280), **_ADAPTER_15},
        {"kind": Kind.IP_ADAPTER, "family": Family.SD15, "variant": AdapterVariant.PLUS, "image_width": 1280},
    ),
    "IP-Adapter full face": (
        {"image_proj.proj.0.weight": (1280, 1280), "image_proj.proj.2.weight": (768, 1280), **_ADAPTER_15},
        {"kind": Kind.IP_ADAPTER, "family": Family.SD15, "variant": AdapterVariant.FULL, "image_width": 1280},
    ),
    "IP-Adapter FaceID": (
        {"image_proj.proj.0.weight": (1024, 512), "ip_adapter.0.to_q_lora.down.weight": (128, 320), **_ADAPTER_15},
        {"kind": Kind.IP_ADAPTER, "family": Family.SD15, "variant": AdapterVariant.FACE_ID},
    ),
    "IP-Adapter for SDXL": (
        {"image_proj.proj.weight": (8192, 1280), **_ADAPTER_XL},
        {"kind": Kind.IP_ADAPTER, "family": Family.SDXL, "variant": AdapterVariant.PLAIN, "image_width": 1280},
    ),
    "IP-Adapter Plus for SDXL": (
        {"image_proj.latents": (1, 16, 1280), "image_proj.proj_in.weight": (1280, 1280), **_ADAPTER_XL},
        {"kind": Kind.IP_ADAPTER, "family": Family.SDXL, "variant": AdapterVariant.PLUS},
    ),
    "IP-Adapter of XLabs for FLUX": (
        {
            "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (3072, 4096),
            "ip_adapter_proj_model.proj.weight": (16384, 768),
        },
        {"kind": Kind.IP_ADAPTER, "family": Family.FLUX_DEV, "layout": Layout.XLABS, "image_width": 768},
    ),
    "LoRA of kohya for SD 1.5": (
        {
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 768),
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768),
        },
        {"kind": Kind.LORA, "family": Family.SD15, "layout": Layout.KOHYA},
    ),
    "LoRA of kohya for SD 2": (
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 1024)},
        {"kind": Kind.LORA, "family": Family.SD2},
    ),
    "LoRA of kohya for SDXL": (
        {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 2048)},
        {"kind": Kind.LORA, "family": Family.SDXL},
    ),
    "LoRA of kohya for SDXL's text encoders": (
        {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (8, 768), "lora_te2_x.alpha": ()},
        {"kind": Kind.LORA, "family": Family.SDXL},
    ),
    "LoRA of kohya for FLUX": (
        {"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (16, 3072)},
        {"kind": Kind.LORA, "family": Family.FLUX_DEV},
    ),
    "LoRA of diffusers for SD 1.5": (
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
        {"kind": Kind.LORA, "family": Family.SD15, "layout": Layout.DIFFUSERS},
    ),
    "LoRA of diffusers before PEFT": (
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight": (4, 768)},
        {"kind": Kind.LORA, "family": Family.SD15},
    ),
    "LoRA of diffusers for FLUX": (
        {"transformer.single_transformer_blocks.7.attn.to_k.lora_A.weight": (16, 3072)},
        {"kind": Kind.LORA, "family": Family.FLUX_DEV},
    ),
    "LoRA of XLabs for FLUX": (
        {"double_blocks.0.processor.proj_lora1.down.weight": (16, 3072)},
        {"kind": Kind.LORA, "family": Family.FLUX_DEV},
    ),
    "LoHa": (
        {"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.hada_w1_b": (8, 768)},
        {"kind": Kind.LORA, "family": Family.SD15},
    ),
    "embedding": ({"emb_params": (8, 768)}, {"kind": Kind.EMBEDDING}),
    "embedding for SDXL": ({"clip_l": (8, 768), "clip_g": (8, 1280)}, {"kind": Kind.EMBEDDING}),
    "something else": ({"layers.0.weight": (8, 8)}, {"kind": Kind.UNKNOWN, "family": None}),
    "nothing": ({}, {"kind": Kind.UNKNOWN}),
}


def header_of(shapes: Shapes, number_format: str = "F16", **metadata: str) -> Header:
    return Header({name: Tensor(number_format, shape) for name, shape in shapes.items()}, metadata)


@pytest.mark.parametrize("what", FILES)
def test_the_header_tells_what_a_file_is(what: str) -> None:
    shapes, expected = FILES[what]
    facts = file_facts(header_of(shapes))
    assert facts == replace(facts, **expected)


def test_the_family_of_a_lora_is_read_from_its_metadata_if_shapes_do_not_tell() -> None:
    shapes: Shapes = {"lora_unet_mid_block_resnets_0_conv1.lora_down.weight": (8, 1280, 3, 3)}
    assert file_facts(header_of(shapes)).family is None
    for note, family in (("sdxl_base_v1-0", Family.SDXL), ("sd_v1", Family.SD15), ("flux1", Family.FLUX_DEV)):
        assert file_facts(header_of(shapes, ss_base_model_version=note)).family is family
    architecture = {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    assert file_facts(header_of(shapes, **architecture)).family is Family.SDXL


@pytest.mark.parametrize(
    ("number_format", "more", "expected"),
    [
        ("F32", {}, Format.FP32),
        ("F16", {}, Format.FP16),
        ("BF16", {}, Format.BF16),
        ("F8_E4M3", {}, Format.FP8),
        ("F8_E5M2", {}, Format.FP8),
        ("F8_E4M3", {"double_blocks.0.img_attn.qkv.scale_weight": ()}, Format.SCALED_FP8),
        ("F8_E4M3", {"double_blocks.0.img_attn.qkv.weight_scale": ()}, Format.SCALED_FP8),
        ("U8", {}, Format.OTHER),
        ("BF16", {"double_blocks.0.img_attn.qkv.weight.absmax": (8,)}, Format.OTHER),
    ],
)
def test_the_number_format_is_that_of_the_matrices(number_format: str, more: Shapes, expected: Format) -> None:
    norms = Header({"double_blocks.0.norm.bias": Tensor("F32", (8,))})
    header = header_of({**_FLUX, **more}, number_format)
    assert file_facts(Header({**norms.tensors, **header.tensors})).format is expected


def test_file_facts_print_as_kind_and_family() -> None:
    assert str(file_facts(header_of(_NET_XL))) == "ControlNet for SDXL"
    assert str(FileFacts(Kind.UNKNOWN)) == "file of unknown kind"


def test_the_header_of_a_large_checkpoint_is_inspected_quickly(tmp_path: Path) -> None:
    block = _SDXL_CHECKPOINT.items()
    many = {f"{name}.{number}" if number else name: shape for number in range(150) for name, shape in block}
    header = header_of(many)
    started = time.perf_counter()
    file_facts(header)
    assert time.perf_counter() - started < 0.5
    assert len(many) > 2000
