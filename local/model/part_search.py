"""Finds the VAE and the text encoders for a model file that does not contain them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ModelNotFound, ModelUnreadable
from ...models.families import FACTS, Family
from ...models.headers import read_header
from ...models.inspection import Kind, facts_of
from ...models.library import Library, ModelFile


@dataclass(frozen=True)
class Parts:
    """Files that the user chose: names in the library's folders `vae` and `text_encoders`, empty if none is chosen."""

    vae: str = ""
    text_encoders: tuple[str, ...] = ()

    def files(self, family: Family, library: Library) -> dict[str, Path]:
        """The paths of the chosen files, by component. Raises ModelNotFound."""
        encoders = zip(FACTS[family].text_encoders, self.text_encoders, strict=False)
        named = [("vae", "vae", self.vae), *(("text_encoders", component, name) for component, name in encoders)]
        return {component: library.find(folder, name) for folder, component, name in named if name}


def find_text_encoder(family: Family, config: Mapping[str, Any], library: Library) -> Path:
    """The text encoder of that configuration for a model without one. Raises ModelNotFound."""
    what = "T5" if "d_model" in config else "CLIP"
    width, vocabulary = config.get("d_model") or config["hidden_size"], config["vocab_size"]
    return _first(
        library,
        "text_encoders",
        lambda file: _is_text_encoder(file, width, vocabulary),
        f"the {what} text encoder of {family.value} ({width} wide)",
        "choose it as text_encoder",
    )


_WORD_EMBEDDINGS = ("token_embedding.weight", "shared.weight", "embed_tokens.weight")


def _is_text_encoder(file: ModelFile, width: int, vocabulary: int) -> bool:
    facts = facts_of(file.path)
    if facts.kind is not Kind.TEXT_ENCODER or facts.width != width:
        return False
    tensors = read_header(file.path).tensors
    return any(
        tensor.shape == (vocabulary, width) for name, tensor in tensors.items() if name.endswith(_WORD_EMBEDDINGS)
    )


# The VAEs of SD 1.5 and SDXL have the same shapes, and so do those of FLUX and SD 3. Only their names differ.
_VAE_NAMES = {Family.SD15: r"^(?!.*xl)", Family.SDXL: r"xl", Family.FLUX_DEV: r"^(?!.*sd3)"}


def find_vae(family: Family, config: Mapping[str, Any], library: Library) -> Path:
    """The VAE of that configuration for a model without one. Raises ModelNotFound."""
    pattern, channels = _VAE_NAMES[family.compatible_family], config["latent_channels"]

    def fits(file: ModelFile) -> bool:
        facts = facts_of(file.path)
        has_shape = facts.kind is Kind.VAE and facts.in_channels == channels
        return has_shape and re.search(pattern, file.name.lower()) is not None

    what = f"a VAE for {family.value} ({channels} latent channels)"
    return _first(library, "vae", fits, what, "choose it as vae_name")


def _first(library: Library, folder: str, fits: Callable[[ModelFile], bool], what: str, choose: str) -> Path:
    for file in library.files(folder):
        try:
            if fits(file):
                return file.path
        except (ModelUnreadable, ModelNotFound):
            continue
    raise ModelNotFound(
        f"The model needs {what}, which is not in {library.places(folder)}. Put it there, {choose}, or use a "
        "checkpoint that contains everything."
    )
