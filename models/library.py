"""The model files of this machine, by the folders ComfyUI keeps them in."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import ModelNotFound, ModelUnreadable
from .weight_files import FOLDER_WEIGHTS, PICKLES, SAFETENSORS, unreadable


@dataclass(frozen=True)
class ModelFile:
    """A weights file or a diffusers folder; `name` is its path below the folder it was found in, as users see it."""

    name: str
    path: Path


@dataclass(frozen=True)
class Library:
    """Where models lie.

    `folders` are ComfyUI's model folders by their names there (`controlnet`, `loras`, ...). `clip_tokenizer` and
    `t5_tokenizer` are folders with the tokenizers that single files do not carry, `configs` one with the configurations
    of the families, where it is not the pack's own.
    """

    folders: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    clip_tokenizer: Path | None = None
    t5_tokenizer: Path | None = None
    configs: Path | None = None

    def files(self, folder: str) -> Iterator[ModelFile]:
        """Everything in a ComfyUI folder and below, as it lies on the disk now, sorted; the first of a name wins."""
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
        raise ModelNotFound(
            f"'{name}' is not in {self.places(folder)} any more. Put it back there or choose another file."
        )

    def has(self, folder: str, name: str) -> bool:
        """Whether `find` finds it."""
        return self._path(folder, name) is not None

    def _path(self, folder: str, name: str) -> Path | None:
        for root in self.folders.get(folder, ()):
            path = root / name
            # A name comes from a saved graph: it must not lead out of the folder.
            if ".." not in Path(name).parts and not Path(name).is_absolute() and path.exists():
                return path
        return None

    def places(self, *folders: str) -> str:
        """The folders in words, for messages."""
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
    return content


@dataclass(frozen=True)
class _Listing:
    """The weights files and diffusers folders anywhere below a folder, and when each folder on the way last changed.

    ComfyUI keeps its lists of files by the same sign, but they do not tell a diffusers folder from its parts.
    """

    files: tuple[ModelFile, ...]
    changes: tuple[tuple[Path, int], ...]

    @classmethod
    def of(cls, root: Path) -> _Listing:
        files: list[ModelFile] = []
        changes = {root: _changed(root)}
        for folder, children, names in os.walk(root, followlinks=True):
            here = Path(folder)
            whole = "model_index.json" in names or (
                "config.json" in names and any(map(FOLDER_WEIGHTS.fullmatch, names))
            )
            if whole and here != root:  # of what was downloaded right into ComfyUI's folder, the weights are files
                children.clear()  # the parts of a diffusers folder are not seen
                files.append(ModelFile(here.relative_to(root).as_posix(), here))
                continue
            changes |= {here / child: _changed(here / child) for child in children}  # before they are looked into
            weights = (here / name for name in names if name.lower().endswith(SAFETENSORS + PICKLES))
            files += [ModelFile(path.relative_to(root).as_posix(), path) for path in weights]
        return cls(tuple(sorted(files, key=lambda file: file.name.lower())), tuple(changes.items()))

    def holds(self) -> bool:
        """Whether nothing came or went since."""
        return all(_changed(folder) == before for folder, before in self.changes)

    def settled(self, now: int) -> bool:
        """Whether a further change is sure to be seen: not within the tick of a clock, which is 2 s on FAT."""
        return all(now - before > 2 * _SECOND for _, before in self.changes)


_SECOND = 10**9
_LISTINGS: dict[Path, _Listing] = {}


def _listed(root: Path) -> tuple[ModelFile, ...]:
    """What lies below a folder; it is walked through again only when something came or went.

    ComfyUI asks for the nodes' choices several times in every run, and each generation for all nets and adapters.
    """
    known = _LISTINGS.get(root)
    if known is not None and known.holds():
        return known.files
    now = time.time_ns()
    listing = _Listing.of(root)
    if listing.settled(now):
        _LISTINGS[root] = listing
    else:
        _LISTINGS.pop(root, None)
    return listing.files


def _changed(folder: Path) -> int:
    """When something last came into a folder or went, in nanoseconds since 1970; 0 where there is no such folder."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
