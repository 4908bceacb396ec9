"""Loads a VAE or a text encoder from its own file, with the configuration of its family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ModelUnreadable
from ...models.inspection import Kind, facts_of
from ...models.weights import load_tensors
from .assemble import assemble
from .layouts import renamed, strip_prefix

if TYPE_CHECKING:
    from torch import dtype


def load_vae(path: Path, config: Mapping[str, Any], dtype: dtype) -> Any:
    """The VAE in a file or diffusers folder. Raises ModelNotFound or ModelUnreadable."""
    facts = facts_of(path)
    if facts.kind is not Kind.VAE:
        raise ModelUnreadable(f"{path.name} is {facts.with_article}, not a VAE. Choose a VAE.")
    if facts.in_channels != config["latent_channels"]:
        raise ModelUnreadable(
            f"The VAE {path.name} has {facts.in_channels} latent channels, but the model has "
            f"{config['latent_channels']}. It belongs to another family. Choose another VAE."
        )
    tensors = strip_prefix(facts.prefix, load_tensors(path, dtype))
    return assemble(config, renamed(tensors, Kind.VAE, facts.layout), path)


def load_text_encoder(path: Path, config: Mapping[str, Any], dtype: dtype) -> Any:
    """The text encoder in a file. Raises ModelNotFound or ModelUnreadable."""
    facts = facts_of(path)
    if facts.kind is not Kind.TEXT_ENCODER:
        raise ModelUnreadable(f"{path.name} is {facts.with_article}, not a text encoder. Choose a text encoder.")
    return assemble(config, renamed(load_tensors(path, dtype), Kind.TEXT_ENCODER, facts.layout), path)
