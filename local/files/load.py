"""Loads a model of any family from its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from ...core.memory import Memory
from ...models.families import FACTS
from ...models.library import Library
from ..model.local_model import LocalModel
from ..model.network_cache import NetworkCache
from ..model.source import DiffusersFolder, ModelSource, SingleFile
from . import diffusers_folder, single_file

if TYPE_CHECKING:
    import torch


def load_model(
    source: ModelSource,
    name: str,
    memory: Memory,
    dtype: torch.dtype,
    library: Library | None = None,
    storage_dtype: torch.dtype | None = None,
) -> LocalModel:
    """Load a model of any family.

    The model computes in `dtype`. The denoiser's large layers are stored in `storage_dtype` if it is given, and cast
    for each use. `library` has the ControlNets, adapters and other files. Raises ModelNotFound or ModelUnreadable.
    """
    library = library or Library()
    components: dict[str, Any]
    scheduler_config: Mapping[str, Any]
    files: Mapping[str, Path]
    match source:
        case DiffusersFolder():
            components = diffusers_folder.load_components(source, dtype, library)
            scheduler_config = diffusers_folder.scheduler_config(source)
            files = diffusers_folder.component_files(source)
        case SingleFile():
            components = single_file.load_components(source, dtype, library)
            scheduler_config, files = source.configs["scheduler"], source.files
        case _:
            assert_never(source)
    if storage_dtype is not None:
        denoiser = components[FACTS[source.family].denoiser]
        denoiser.enable_layerwise_casting(storage_dtype=storage_dtype, compute_dtype=dtype)
    return LocalModel(
        name=name,
        family=source.family,
        source=source.path,
        dtype=dtype,
        components=components,
        scheduler_config=scheduler_config,
        networks=NetworkCache(memory),
        library=library,
        files=files,
        storage_dtype=storage_dtype,
    )
