"""The model files of this machine, by the folders ComfyUI keeps them in."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..core.errors import ModelNotFound, ModelUnreadable
from .weight_files import FOLDER_WEIGHTS, PICKLES, SAFETENSORS, unreadable


@dataclass(frozen=True)
class ModelFile:
    """A weights file or a diffusers folder; `name` is its path below the folder it was found in, as users see it."""

    name: str
    path: Path


@dataclass(frozen=True)
class Library:
    """The folders with model files.

    `folders` are ComfyUI's model folders by their names there (`controlnet`, `loras`, ...). `clip_tokenizer` and
    `t5_tokenizer` are folders with the tokenizers, which single files do not contain. `configs` is the folder with the
    configurations of the families, or None for the pack's own.
    """

    folders: Mapping[str, Sequence[Path]] = field(default_factory=dict[str, Sequence[Path]])
    clip_tokenizer: Path | None = None
    t5_tokenizer: Path | None = None
    configs: Path | None = None

    def files(self, folder: str) -> Iterator[ModelFile]:
        """All models below a ComfyUI folder now, sorted by name. If two have the same name, the first one wins."""
        seen: set[str] = set()
        for root in self.folders.get(folder, ()):
            for file in _listed(root):
                if file.name not in seen:
                    seen.add(file.name)
                    yield file

    def find(self, folder: str, name: str) -> Path:
        """The file or diffusers folder of that name. Raises ModelNotFound."""
        if path := self._path(folder, name):
            return path
        raise ModelNotFound(f"'{name}' is not in {self.places(folder)}. Put it there, or choose another file.")

    def has(self, folder: str, name: str) -> bool:
        """Whether `find` finds it."""
        return self._path(folder, name) is not None

    def _path(self, folder: str, name: str) -> Path | None:
        for root in self.folders.get(folder, ()):
            path = root / name
            # Names come from saved graphs, so they must not lead out of the folder.
            if ".." not in Path(name).parts and not Path(name).is_absolute() and path.exists():
                return path
        return None

    def places(self, *folders: str) -> str:
        """The folders as text for messages."""
        roots = [str(root) for folder in folders for root in self.folders.get(folder, ())]
        return ", ".join(roots) or " or ".join(f"models/{folder}" for folder in folders)


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file of a diffusers folder; raises ModelUnreadable when it is missing or broken."""
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise ModelUnreadable(f"{path} is not a JSON object. Download the model again.")
    return cast("dict[str, Any]", content)


@dataclass(frozen=True)
class _Listing:
    """The weights files and diffusers folders below a folder, and the modification time of each folder on the way.

    ComfyUI caches its lists of files in the same way, but these do not distinguish a diffusers folder from its parts.
    """

    files: tuple[ModelFile, ...]
    modified: tuple[tuple[Path, int], ...]

    @classmethod
    def of(cls, root: Path) -> _Listing:
        files: list[ModelFile] = []
        modified = {root: _modified(root)}
        for folder, children, names in os.walk(root, followlinks=True):
            here = Path(folder)
            whole = "model_index.json" in names or (
                "config.json" in names and any(map(FOLDER_WEIGHTS.fullmatch, names))
            )
            # A config.json directly in ComfyUI's folder does not make that folder one model.
            if whole and here != root:
                children.clear()  # the parts of a diffusers folder are not models
                files.append(ModelFile(here.relative_to(root).as_posix(), here))
                continue
            # Taken before the subfolders are read, so that a change in between is not missed.
            modified |= {here / child: _modified(here / child) for child in children}
            weights = (here / name for name in names if name.lower().endswith(SAFETENSORS + PICKLES))
            files += [ModelFile(path.relative_to(root).as_posix(), path) for path in weights]
        return cls(tuple(sorted(files, key=lambda file: file.name.lower())), tuple(modified.items()))

    def is_current(self) -> bool:
        """Whether no file or folder was added or removed since."""
        return all(_modified(folder) == before for folder, before in self.modified)

    def is_reliable(self, now: int) -> bool:
        """Whether a later change will alter a time. Within the resolution of timestamps (2 s on FAT) it might not."""
        return all(now - before > 2 * _SECOND for _, before in self.modified)


_SECOND = 10**9
# Not a `core.cache.Cache`: whether a listing is current depends on the subfolders that it found, and one that is not
# reliable yet must not be kept. There is one small entry for each model folder of ComfyUI.
_LISTINGS: dict[Path, _Listing] = {}


def _listed(root: Path) -> tuple[ModelFile, ...]:
    """The models below a folder. The folder is searched again only if something was added or removed.

    ComfyUI asks for the choices of the nodes several times in every run, and each generation needs all ControlNets and
    IP-Adapters.
    """
    known = _LISTINGS.get(root)
    if known is not None and known.is_current():
        return known.files
    now = time.time_ns()
    listing = _Listing.of(root)
    if listing.is_reliable(now):
        _LISTINGS[root] = listing
    else:
        _LISTINGS.pop(root, None)
    return listing.files


def _modified(folder: Path) -> int:
    """The modification time of a folder in nanoseconds since 1970, or 0 if it does not exist."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
