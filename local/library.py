"""The model files of this machine, by the folders ComfyUI keeps them in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import ModelNotFound

WEIGHTS = (".safetensors", ".sft")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")


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
            for file in sorted(scan(root), key=lambda file: file.name.lower()):
                if file.name not in seen:
                    seen.add(file.name)
                    yield file

    def find(self, folder: str, name: str) -> Path:
        """The file or diffusers folder of that name. Raises ModelNotFound."""
        for root in self.folders.get(folder, ()):
            path = root / name
            # A name comes from a saved graph: it must not lead out of the folder.
            if ".." not in Path(name).parts and not Path(name).is_absolute() and path.exists():
                return path
        raise ModelNotFound(
            f"'{name}' is not in {self.places(folder)} any more. Put it back there or choose another file."
        )

    def places(self, *folders: str) -> str:
        """The folders in words, for messages."""
        roots = [str(root) for folder in folders for root in self.folders.get(folder, ())]
        return ", ".join(roots) or " or ".join(f"models/{folder}" for folder in folders)


def scan(root: Path) -> Iterator[ModelFile]:
    """The weights files and diffusers folders anywhere below a folder; the parts of a diffusers folder are not seen."""
    for folder, children, files in os.walk(root, followlinks=True):
        here = Path(folder)
        if {"config.json", "model_index.json"} & set(files):
            children.clear()
            yield ModelFile(here.relative_to(root).as_posix(), here)
            continue
        for name in files:
            if name.lower().endswith(WEIGHTS + PICKLES):
                yield ModelFile((here / name).relative_to(root).as_posix(), here / name)
