"""Loads a model from single files, as ComfyUI users have them: one checkpoint, or a file for each part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelNotFound
from ...models.families import FACTS, Family
from ...models.inspection import Kind, Layout
from ...models.library import Library
from ...models.weight_files import reading
from ...models.weights import load_tensors
from ..model.source import SingleFile
from .assemble import assemble
from .layouts import renamed, strip_prefix
from .part_file import load_text_encoder, load_vae

if TYPE_CHECKING:
    from torch import Tensor, dtype

# The prefix and layout of the text encoders in a checkpoint, by family and number.
_TEXT_ENCODERS: Mapping[tuple[Family, int], tuple[str, Layout]] = {
    (Family.SD15, 0): ("cond_stage_model.transformer.", Layout.DIFFUSERS),
    (Family.SDXL, 0): ("conditioner.embedders.0.transformer.", Layout.DIFFUSERS),
    (Family.SDXL, 1): ("conditioner.embedders.1.model.", Layout.OPEN_CLIP),
    (Family.FLUX_DEV, 0): ("text_encoders.clip_l.transformer.", Layout.DIFFUSERS),
    (Family.FLUX_DEV, 1): ("text_encoders.t5xxl.transformer.", Layout.DIFFUSERS),
}
_VAES = ("first_stage_model.", "vae.")


def load_components(source: SingleFile, dtype: dtype, library: Library) -> dict[str, Any]:
    """The components of a model in single files. Raises ModelNotFound or ModelUnreadable."""
    family, facts, configs, files = source.family, source.facts, source.configs, source.files
    denoiser = FACTS[family].denoiser
    components: dict[str, Any] = dict.fromkeys(("image_encoder", "feature_extractor"))
    components |= tokenizers(family, library)
    tensors = load_tensors(source.path, dtype)
    flux = family.compatible_family is Family.FLUX_DEV
    network = renamed(strip_prefix(facts.prefix, tensors), Kind.DENOISER, facts.layout, flux)
    components[denoiser] = assemble(configs[denoiser], network, source.path)
    if files["vae"] == source.path:
        components["vae"] = assemble(configs["vae"], _vae_tensors(tensors), source.path)
    else:
        components["vae"] = load_vae(files["vae"], configs["vae"], dtype)
    for number, name in enumerate(FACTS[family].text_encoders):
        if files[name] == source.path:
            components[name] = assemble(configs[name], _text_encoder_tensors(tensors, family, number), source.path)
        else:
            components[name] = load_text_encoder(files[name], configs[name], dtype)
    if family is Family.SD15:
        components["safety_checker"] = None
    return components


def _vae_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = next(prefix for prefix in _VAES if any(name.startswith(prefix) for name in tensors))
    return renamed(strip_prefix(prefix, tensors), Kind.VAE, Layout.LDM)


def _text_encoder_tensors(tensors: Mapping[str, Tensor], family: Family, number: int) -> dict[str, Tensor]:
    prefix, layout = _TEXT_ENCODERS[family.compatible_family, number]
    return renamed(strip_prefix(prefix, tensors), Kind.TEXT_ENCODER, layout)


def tokenizers(family: Family, library: Library) -> dict[str, Any]:
    """The tokenizers of a family, from the folders that ComfyUI contains. Raises ModelNotFound or ModelUnreadable."""
    from transformers import CLIPTokenizer, T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

    facts = FACTS[family]
    made: dict[str, Any] = {}
    for number, name in enumerate(facts.tokenizers):
        t5 = number == 1 and facts.flow
        folder = library.t5_tokenizer if t5 else library.clip_tokenizer
        if folder is None or not folder.is_dir():
            raise ModelNotFound(
                f"The {'T5' if t5 else 'CLIP'} tokenizer is missing. It is part of ComfyUI, which was not found. "
                "Choose a model in a diffusers folder, which contains its tokenizers."
            )
        with reading(folder):
            if t5:
                made[name] = T5TokenizerFast.from_pretrained(folder, model_max_length=512, local_files_only=True)
            else:
                # SDXL's second encoder was trained with another padding token.
                padding: dict[str, Any] = {"pad_token": "!"} if number == 1 else {}
                made[name] = CLIPTokenizer.from_pretrained(
                    folder, model_max_length=77, local_files_only=True, **padding
                )
    return made
