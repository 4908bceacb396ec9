"""A model on this machine, as a value."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.cache import Cache
from ...core.memory import Managed, Memory, Offload
from ...core.modality import Modality
from ...models.families import FACTS, Family, FamilyFacts
from ...models.library import Library
from .network_cache import NetworkCache

if TYPE_CHECKING:
    import torch

# The component that says whether an empty negative prompt of SDXL is embedded as zeros instead of being encoded.
ZEROS_FOR_EMPTY = "force_zeros_for_empty_prompt"

# Embeddings and previews.
KEPT_RESULTS = 64
# Sets of IP-Adapters, each with its weights: up to 1.5 GB for one of FLUX.
KEPT_ADAPTER_SETS = 2


@dataclass(frozen=True, eq=False, repr=False)
class LocalModel:
    """A loaded model of one of the families, and the caches of what was made with it.

    `source` is the file or folder it was loaded from. `components` are what every diffusers pipeline of the family is
    built from, `files` the files of their weights, both by name of the component. `dtype` is the format to compute in;
    `storage_dtype` is the format in which the denoiser's weights are stored, or None for `dtype`. `networks` holds the
    memory handles of the components and of the other networks that requests need. These are found in `library`;
    `nets_chosen` are the ControlNet files that the user chose for a modality. `offload` says how much of the model is
    on the device at a time. `results` caches embeddings and previews, `adapter_sets` the IP-Adapters that were loaded.
    """

    name: str
    family: Family
    source: Path
    dtype: torch.dtype
    components: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    networks: NetworkCache
    library: Library = field(default_factory=Library)
    offload: Offload = Offload.AUTO
    nets_chosen: Mapping[Modality, str] = field(default_factory=dict[Modality, str])
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    storage_dtype: torch.dtype | None = None
    results: Cache[Hashable, Any] = field(default_factory=lambda: Cache(KEPT_RESULTS))
    adapter_sets: Cache[Hashable, Any] = field(default_factory=lambda: Cache(KEPT_ADAPTER_SETS))

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r}, {self.dtype}, {self.device})"

    @property
    def memory(self) -> Memory:
        """What manages the memory of the device."""
        return self.networks.memory

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.memory.device

    @property
    def facts(self) -> FamilyFacts:
        """What its family is made of."""
        return FACTS[self.family]

    @property
    def denoiser(self) -> Any:
        """The UNet or transformer."""
        return self.components[self.facts.denoiser]

    @property
    def text_width(self) -> int:
        """The width of the text features that the denoiser attends to."""
        config = self.denoiser.config
        return config["joint_attention_dim"] if self.facts.flow else config["cross_attention_dim"]

    def managed(self, component: str) -> Managed:
        """The memory handle of a component."""
        return self.networks.component(component, self.components[component])
