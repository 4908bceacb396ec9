"""What a weights file is, decided from the names and shapes of its tensors alone.

The tables are read from top to bottom; the first rule that matches decides. `tests/models/test_inspection.py` lists the
tensor names of the published files that these rows are made for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from .families import Family
from .headers import Header, Stamp, Tensor, read_header, stamps_of


class Kind(StrEnum):
    """What a file is for, in the words of messages."""

    CHECKPOINT = "checkpoint"
    DENOISER = "diffusion model without VAE and text encoders"
    VAE = "VAE"
    TINY_VAE = "tiny VAE for previews"
    TEXT_ENCODER = "text encoder"
    CLIP_VISION = "image encoder"
    CONTROLNET = "ControlNet"
    UNION = "ControlNet-Union"
    CONTROL_LORA = "Control-LoRA"
    LLLITE = "ControlNet-LLLite"
    T2I_ADAPTER = "T2I-Adapter"
    IP_ADAPTER = "IP-Adapter"
    LORA = "LoRA"
    EMBEDDING = "embedding"
    UNKNOWN = "file of unknown kind"


class Layout(StrEnum):
    """How the tensors are named."""

    LDM = "original"  # CompVis, A1111 and ComfyUI; FLUX as Black Forest Labs published it
    DIFFUSERS = "diffusers"
    KOHYA = "kohya"
    OPEN_CLIP = "OpenCLIP"
    XLABS = "XLabs"


class Format(StrEnum):
    """The number format of the weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    SCALED_FP8 = "scaled fp8"
    OTHER = "a quantization this pack cannot read"


class AdapterVariant(StrEnum):
    """The architecture of an IP-Adapter, which decides what image features it takes."""

    PLAIN = "plain"
    PLUS = "plus"
    FULL = "full"
    FACE_ID = "FaceID"


@dataclass(frozen=True)
class FileFacts:
    """What a file is.

    `width` is the width of the text features that the network attends to (768 for SD 1.5), or the hidden size of a text
    or image encoder. `in_channels` is that of the denoiser, or the latent channels of a VAE. `modes` is the number of
    control types of a union net. `image_width` is the width of the image features that an IP-Adapter takes or an image
    encoder projects to. `parts` are the other networks in a checkpoint. `prefix` begins the name of every tensor of the
    network itself. `v_prediction` and `zero_snr` are markers in checkpoints that predict velocity, and in those trained
    from pure noise (zero terminal SNR).
    """

    kind: Kind
    family: Family | None = None
    layout: Layout = Layout.DIFFUSERS
    format: Format = Format.FP32
    width: int = 0
    in_channels: int = 0
    modes: int = 0
    variant: AdapterVariant | None = None
    image_width: int = 0
    parts: frozenset[Kind] = frozenset()
    prefix: str = ""
    v_prediction: bool = False
    zero_snr: bool = False

    def __str__(self) -> str:
        return f"{self.kind.value} for {self.family.value}" if self.family else self.kind.value

    @property
    def with_article(self) -> str:
        """The text of `str` as a noun phrase: "a LoRA for SDXL", "an IP-Adapter for SD 1.5"."""
        return f"{'an' if self.kind in _TAKES_AN else 'a'} {self}"


_TAKES_AN = (Kind.CLIP_VISION, Kind.IP_ADAPTER, Kind.EMBEDDING)


@dataclass(frozen=True)
class _Rule:
    """A file is of this kind and layout if every pattern matches the beginning of some tensor's name."""

    kind: Kind
    layout: Layout
    patterns: tuple[str, ...]


_CONTROL = r"(control_model\.)?"
_VAE_PREFIX = r"(first_stage_model|vae)\."
_TEXT_PREFIX = r"(cond_stage_model|conditioner|text_encoders)\."
_RULES = (
    _Rule(Kind.CONTROL_LORA, Layout.LDM, (r"lora_controlnet$",)),
    _Rule(Kind.LLLITE, Layout.KOHYA, (r"lllite_",)),
    _Rule(Kind.IP_ADAPTER, Layout.XLABS, (r"(single|double)_blocks\.0\.processor\.ip_adapter",)),
    _Rule(Kind.IP_ADAPTER, Layout.DIFFUSERS, (r"image_proj\.", r"ip_adapter\.")),
    _Rule(Kind.LORA, Layout.KOHYA, (r"lora_(unet|te|te1|te2|transformer)_",)),
    _Rule(Kind.LORA, Layout.DIFFUSERS, (r".*(\.lora_[AB]|\.lora_linear_layer|[._]lora[._](up|down))\.",)),
    _Rule(Kind.LORA, Layout.KOHYA, (r".*\.(hada_w1_a|lokr_w1|lokr_w1_a|oft_blocks|oft_diag|dora_scale)$",)),
    _Rule(Kind.LORA, Layout.XLABS, (r".*\.processor\.(proj|qkv)_lora\d?\.",)),
    _Rule(Kind.CONTROLNET, Layout.LDM, (_CONTROL + r"input_hint_block\.0\.", _CONTROL + r"zero_convs\.0\.")),
    _Rule(Kind.UNION, Layout.DIFFUSERS, (r"controlnet_cond_embedding\.", r"task_embedding$")),
    _Rule(Kind.CONTROLNET, Layout.DIFFUSERS, (r"controlnet_cond_embedding\.conv_in", r"controlnet_down_blocks\.0")),
    _Rule(Kind.CONTROLNET, Layout.XLABS, (r"controlnet_blocks\.0\.", r"double_blocks\.0\.")),
    _Rule(Kind.UNION, Layout.DIFFUSERS, (r"controlnet_blocks\.0\.", r"controlnet_mode_embedder\.")),
    _Rule(Kind.CONTROLNET, Layout.DIFFUSERS, (r"controlnet_blocks\.0\.", r"transformer_blocks\.0\.")),
    _Rule(Kind.T2I_ADAPTER, Layout.DIFFUSERS, (r"adapter\.(body\.0|conv_in)",)),
    _Rule(Kind.T2I_ADAPTER, Layout.LDM, (r"body\.0\.(block1|resnets\.0|in_conv)\.",)),
    _Rule(Kind.CHECKPOINT, Layout.LDM, (r"model\.diffusion_model\.", _VAE_PREFIX)),
    _Rule(Kind.CHECKPOINT, Layout.LDM, (r"model\.diffusion_model\.", _TEXT_PREFIX)),
    _Rule(Kind.DENOISER, Layout.LDM, (r"((model\.)?diffusion_model\.)?input_blocks\.0\.0\.",)),
    _Rule(Kind.DENOISER, Layout.LDM, (r"((model\.)?diffusion_model\.)?(double_blocks|joint_blocks)\.0\.",)),
    _Rule(Kind.DENOISER, Layout.DIFFUSERS, (r"down_blocks\.0\.", r"up_blocks\.0\.", r"time_embedding\.")),
    _Rule(Kind.DENOISER, Layout.DIFFUSERS, (r"transformer_blocks\.0\.", r"(x_embedder|pos_embed)\.")),
    _Rule(Kind.TINY_VAE, Layout.DIFFUSERS, (r"(encoder|decoder)\.layers\.0\.",)),
    _Rule(Kind.TINY_VAE, Layout.LDM, (r"(taesd_)?(encoder\.|decoder\.)?[13]\.(weight|conv\.0\.weight)$",)),
    _Rule(Kind.VAE, Layout.LDM, (r"((first_stage_model|vae)\.)?decoder\.up\.0\.block",)),
    _Rule(Kind.VAE, Layout.DIFFUSERS, (r"decoder\.up_blocks\.0\.resnets",)),
    _Rule(Kind.CLIP_VISION, Layout.DIFFUSERS, (r"vision_model\.embeddings\.patch_embedding\.",)),
    _Rule(Kind.CLIP_VISION, Layout.OPEN_CLIP, (r"visual\.(conv1|transformer)\.?",)),
    _Rule(Kind.TEXT_ENCODER, Layout.DIFFUSERS, (r"encoder\.block\.0\.layer\.0\.SelfAttention\.",)),
    _Rule(Kind.TEXT_ENCODER, Layout.DIFFUSERS, (r"(text_model\.)?embeddings\.token_embedding\.",)),
    _Rule(Kind.TEXT_ENCODER, Layout.OPEN_CLIP, (r"(model\.)?transformer\.resblocks\.0\.",)),
    _Rule(Kind.EMBEDDING, Layout.LDM, (r"(emb_params|clip_[gl]|string_to_param\..*)$",)),
)

# Tensors of models that no rule is for, although their other names match one (Chroma, FLUX.2, Qwen-Image).
_OTHER_MODELS = (
    r"(.*\.)?(distilled_guidance_layer|double_stream_modulation_img|single_stream_modulation|txt_norm|llm)\."
)

_FLUX_NAMES = r".*((double|single)_blocks[._]\d|single_transformer_blocks[._]\d|controlnet_x_embedder|context_embedder)"
_SD3_NAMES = r"(.*\.)?(joint_blocks\.0|pos_embed\.proj|pos_embed_input\.proj)\b"
# The layers of a UNet, ControlNet, LoRA or IP-Adapter that project the text features. Their last dimension is the width
# of these features.
_TEXT_PROJECTIONS = (
    r".*attn2[._]to_[kv](\.weight|\.lora_down\.weight|\.lora_A\.weight|\.lora\.down\.weight|_lora\.down\.weight)$",
    r".*attn2[._](processor[._])?to_[kv]_lora\.down\.weight$",
    r".*attn2[._]to_[kv]\.hada_w[12]_b$",
    r"ip_adapter\..*to_k_ip\.weight$",
    r".*ip_adapter_double_stream_k_proj\.weight$",
    r"(.*\.)?(context_embedder|txt_in)\.weight$",
)
_FAMILY_BY_TEXT_WIDTH = {768: Family.SD15, 1024: Family.SD2, 1280: Family.SDXL_REFINER, 2048: Family.SDXL}
# What trainers write into the metadata of a LoRA about its base model.
_FAMILY_BY_BASE_MODEL = (
    (r"sd_?xl|stable-diffusion-xl|illustrious|pony", Family.SDXL),
    (r"flux", Family.FLUX_DEV),
    (r"sd3|stable-diffusion-3", Family.SD3),
    (r"sd_?v?2|stable-diffusion-v2", Family.SD2),
    (r"sd_?v?1|stable-diffusion-v1", Family.SD15),
)
_BASE_MODEL_KEYS = ("modelspec.architecture", "ss_base_model_version")


def facts_of(path: Path) -> FileFacts:
    """What a file or diffusers folder is. Raises ModelNotFound or ModelUnreadable when it cannot be read."""
    return _facts_of(stamps_of(path), path)


# Larger than any collection of ControlNets: facts are small, and every generation asks for those of all files.
@lru_cache(maxsize=8192)
def _facts_of(stamps: tuple[Stamp, ...], path: Path) -> FileFacts:
    return file_facts(read_header(path))


def file_facts(header: Header) -> FileFacts:
    """What a file with this header is."""
    names = _TensorNames(header.tensors)
    rule = next((rule for rule in _RULES if all(names.any(pattern) for pattern in rule.patterns)), None)
    number_format = _format(header.tensors)
    if rule is None or names.any(_OTHER_MODELS):
        return FileFacts(Kind.UNKNOWN, format=number_format)
    prefix = _prefix(rule.kind, names)
    common = {"kind": rule.kind, "layout": rule.layout, "format": number_format, "prefix": prefix}
    if rule.kind in (Kind.TEXT_ENCODER, Kind.CLIP_VISION, Kind.VAE, Kind.TINY_VAE, Kind.EMBEDDING):
        return FileFacts(**common, **_encoder(rule, names))
    family, width = _family(rule, names, header.metadata)
    # The VAE in a checkpoint has a conv_in as well, so the name must follow the prefix directly.
    channels = names.shape(re.escape(prefix) + r"(input_blocks\.0\.0|conv_in|img_in|x_embedder)\.weight$")
    return FileFacts(
        **common,
        family=family,
        width=width,
        in_channels=channels[1] if len(channels) > 1 and rule.kind is not Kind.LORA else 0,
        modes=(names.shape(r"(task_embedding|controlnet_mode_embedder\.weight)$") or (0,))[0],
        parts=_parts(names) if rule.kind is Kind.CHECKPOINT else frozenset(),
        v_prediction=names.any(r"v_pred$"),
        zero_snr=names.any(r"ztsnr$"),
        **(_adapter(names) if rule.kind is Kind.IP_ADAPTER else {}),
    )


class _TensorNames:
    """The tensors of a file, searched by regular expressions that must match from the beginning of a name."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._lines = "\n".join(tensors)

    def find(self, pattern: str) -> str | None:
        match = re.search(rf"^(?:{pattern})", self._lines, re.MULTILINE)
        if match is None:
            return None
        return self._lines[match.start() :].split("\n", 1)[0]

    def any(self, pattern: str) -> bool:
        return self.find(pattern) is not None

    def shape(self, pattern: str) -> tuple[int, ...]:
        name = self.find(pattern)
        return self._tensors[name].shape if name else ()


def _prefix(kind: Kind, names: _TensorNames) -> str:
    candidates = {
        Kind.CHECKPOINT: ("model.diffusion_model.",),
        Kind.DENOISER: ("model.diffusion_model.", "diffusion_model."),
        Kind.CONTROLNET: ("control_model.",),
        Kind.VAE: ("first_stage_model.", "vae."),
    }
    return next((prefix for prefix in candidates.get(kind, ()) if names.any(re.escape(prefix))), "")


def _family(rule: _Rule, names: _TensorNames, metadata: Mapping[str, str]) -> tuple[Family | None, int]:
    shape = next((shape for pattern in _TEXT_PROJECTIONS if (shape := names.shape(pattern))), ())
    width = shape[-1] if shape else 0
    if names.any(_SD3_NAMES):
        return Family.SD3, width
    if names.any(_FLUX_NAMES) or (rule.layout is Layout.XLABS):
        guided = rule.kind not in (Kind.CHECKPOINT, Kind.DENOISER) or names.any(r".*(guidance_in|guidance_embedder)\.")
        return (Family.FLUX_DEV if guided else Family.FLUX_SCHNELL), width
    if rule.kind is Kind.IP_ADAPTER and width >= 3072:
        return Family.FLUX_DEV, width
    if names.any(r"(.*\.)?(label_emb|add_embedding)\.|lora_te2_"):
        return (Family.SDXL_REFINER if width == 1280 else Family.SDXL), width
    if width in _FAMILY_BY_TEXT_WIDTH:
        return _FAMILY_BY_TEXT_WIDTH[width], width
    base_model = " ".join(metadata.get(key, "") for key in _BASE_MODEL_KEYS).lower()
    declared = next((family for pattern, family in _FAMILY_BY_BASE_MODEL if re.search(pattern, base_model)), None)
    networks = (Kind.CHECKPOINT, Kind.DENOISER, Kind.CONTROLNET, Kind.UNION)
    # A UNet without added embeddings belongs to SD 1.5, whatever the width of its text features.
    return declared or (Family.SD15 if rule.kind in networks else None), width


def _encoder(rule: _Rule, names: _TensorNames) -> dict[str, Any]:
    if rule.kind is Kind.TEXT_ENCODER:
        words = names.shape(r".*(token_embedding|shared|embed_tokens)\.weight$|token_embedding$")
        return {"width": words[-1] if words else 0}
    if rule.kind is Kind.CLIP_VISION:
        patches = names.shape(r".*(patch_embedding|visual\.conv1)\.weight$")
        projection = names.shape(r"visual_projection\.weight$") or names.shape(r"visual\.proj$")[::-1]
        return {"width": patches[0] if patches else 0, "image_width": projection[0] if projection else 0}
    if rule.kind is Kind.VAE:
        latents = names.shape(r".*decoder\.conv_in\.weight$")
        return {"in_channels": latents[1] if latents else 0}
    return {}


def _adapter(names: _TensorNames) -> dict[str, Any]:
    plus = names.shape(r"image_proj\.proj_in\.weight$")
    plain = names.shape(r"image_proj\.proj\.weight$|ip_adapter_proj_model\.proj\.weight$")
    two_layers = names.shape(r"image_proj\.proj\.0\.weight$")
    if names.any(r"image_proj\.perceiver_resampler\.|ip_adapter\..*to_q_lora\."):
        return {"variant": AdapterVariant.FACE_ID, "image_width": 512}
    if plus:
        return {"variant": AdapterVariant.PLUS, "image_width": plus[1]}
    if two_layers:
        return {"variant": AdapterVariant.FULL, "image_width": two_layers[1]}
    return {"variant": AdapterVariant.PLAIN, "image_width": plain[1] if plain else 0}


def _parts(names: _TensorNames) -> frozenset[Kind]:
    prefixes = {Kind.VAE: _VAE_PREFIX, Kind.TEXT_ENCODER: _TEXT_PREFIX}
    return frozenset(kind for kind, pattern in prefixes.items() if names.any(pattern))


_FORMATS = {
    "F64": Format.FP32,
    "F32": Format.FP32,
    "F16": Format.FP16,
    "BF16": Format.BF16,
    "F8_E4M3": Format.FP8,
    "F8_E5M2": Format.FP8,
}


def _format(tensors: Mapping[str, Tensor]) -> Format:
    """The number format of most matrices."""
    if any(name.endswith((".absmax", ".quant_map", ".qweight", ".weight_scale_2")) for name in tensors):
        return Format.OTHER
    counts = Counter(tensor.format for tensor in tensors.values() if len(tensor.shape) > 1)
    found = _FORMATS.get(counts.most_common(1)[0][0], Format.OTHER) if counts else Format.FP32
    scaled = any(name.endswith((".scale_weight", ".weight_scale")) for name in tensors)
    return Format.SCALED_FP8 if found is Format.FP8 and scaled else found
