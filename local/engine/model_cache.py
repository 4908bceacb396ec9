"""Keeps loaded models, so that a graph that switches between two of them reads each once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from ...core.cache import Cache
from ...models.weight_files import PICKLES, SAFETENSORS, Stamp, stamps
from ..model.local_model import LocalModel

log = logging.getLogger(__name__)


class ModelCache:
    """The models used last, at most `limit` of them."""

    def __init__(self, limit: int = 2) -> None:
        # diffusers leaves reference cycles in networks that it put hooks into.
        self._models: Cache[Hashable, LocalModel] = Cache(limit, on_evict=gc.collect)

    @property
    def loads(self) -> int:
        """How many models were loaded."""
        return self._models.misses

    @property
    def hits(self) -> int:
        """How often a model was in the cache."""
        return self._models.hits

    def get(self, key: Hashable, load: Callable[[], LocalModel]) -> LocalModel:
        """The model of that key. If it is not cached, room is made first, then `load` is called."""
        return self._models.get(key, load)

    def clear(self) -> None:
        """Drop all models, unless one is being loaded at this moment. May be called from any thread."""
        if count := self._models.clear():
            log.info("ControlStack drops %d models, as ComfyUI frees its memory.", count)


def stamp(*paths: Path) -> tuple[Stamp, ...]:
    """A value that changes when one of these files, or a file in one of these folders, is replaced."""
    return stamps(file for path in paths for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.suffix in (*SAFETENSORS, *PICKLES, ".json"))
    else:
        yield path
