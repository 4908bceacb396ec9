"""Loaded models, kept so that a graph that goes back and forth between two of them reads neither again."""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from .weight_files import PICKLES, SAFETENSORS

if TYPE_CHECKING:
    from .model import LocalModel

log = logging.getLogger(__name__)


@dataclass
class ModelCache:
    """The models used last, at most `limit` of them. `loads` and `hits` count what was asked for."""

    limit: int = 2
    loads: int = 0
    hits: int = 0
    _models: OrderedDict[Hashable, LocalModel] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: Hashable, load: Callable[[], LocalModel]) -> LocalModel:
        """The model of that key, loaded if it is not there. The one that was not used for longest goes first.

        It goes before the new one is loaded: both at once might not fit.
        """
        with self._lock:
            if key in self._models:
                self.hits += 1
            else:
                if len(self._models) >= self.limit:
                    self._models.popitem(last=False)
                    gc.collect()  # diffusers leaves cycles in networks that it put hooks into
                self._models[key] = load()
                self.loads += 1
            self._models.move_to_end(key)
            return self._models[key]

    def clear(self) -> None:
        """Let go of all models, unless one is being loaded at this moment. May be called from any thread."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._models:
                log.info("ControlStack lets go of %d models, as ComfyUI frees its memory.", len(self._models))
            self._models.clear()
        finally:
            self._lock.release()


def stamp(*paths: Path) -> Hashable:
    """What changes when one of these files, or a file in one of these folders, is replaced."""
    return tuple((file, stat.st_mtime_ns, stat.st_size) for file in _files(paths) for stat in [file.stat()])


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix in (*SAFETENSORS, *PICKLES, ".json"))
        else:
            yield path
