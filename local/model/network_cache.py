"""The networks of a model under memory management: its own components, and those read from files for requests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ...core.cache import Cache
from ...core.memory import Managed, Memory
from ...models.weight_files import stamps_of

# How many networks from files (ControlNets, VAEs, image encoders) are kept: a stack of three ControlNets, and one more,
# so that another ControlNet can be tried without reading any again. A ControlNet of FLUX takes up to 7 GB of memory.
KEPT_NETWORKS = 4


class NetworkCache:
    """Keeps the networks used last together with their memory handles. The networks of the current request all stay."""

    def __init__(self, memory: Memory, limit: int = KEPT_NETWORKS) -> None:
        self.memory = memory
        self._components: dict[str, Managed] = {}
        # diffusers leaves reference cycles in networks that it put hooks into.
        self._from_files: Cache[Path, Managed] = Cache(limit, on_evict=gc.collect)

    def component(self, name: str, network: Any) -> Managed:
        """The memory handle of one of the model's own components."""
        managed = self._components.get(name)
        if managed is None or managed.module is not network:
            managed = self._components[name] = self.memory.manage(network)
        return managed

    def from_file(self, path: Path, load: Callable[[], Any]) -> Managed:
        """The network in a file or folder. `load` reads it, again if the file was replaced. Raises what `load` does."""
        return self._from_files.get(path, lambda: self.memory.manage(load()), version=stamps_of(path))

    def keep(self, paths: Iterable[Path]) -> None:
        """Keep the networks of these files, which the current request needs, until the next call."""
        self._from_files.pin(paths)
