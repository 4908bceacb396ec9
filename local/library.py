"""The model files of this machine, by the folders ComfyUI keeps them in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import ModelNotFound, ModelUnreadable

WEIGHTS = (".safetensors", ".sft")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# The weights in a diffusers folder: diffusion_pytorch_model.safetensors, model.fp16.safetensors,
# model-00001-of-00002.safetensors, diffusion_pytorch_model.fp16-00001-of-00003.safetensors
PART = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(?P<before>\.\w+)?(-\d{5}-of-\d{5})?(?P<after>\.\w+)?"
    r"\.(safetensors|bin)"
)


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
        raise ModelUnreadable(f"{path} cannot be read ({error}). Download the model again.") from error
    if not isinstance(content, dict):
        raise ModelUnreadable(f"{path} is not a JSON object. Download the model again.")
    return content


def scan(root: Path) -> Iterator[ModelFile]:
    """The weights files and diffusers folders anywhere below a folder; the parts of a diffusers folder are not seen."""
    for folder, children, files in os.walk(root, followlinks=True):
        here = Path(folder)
        if "model_index.json" in files or ("config.json" in files and any(PART.fullmatch(name) for name in files)):
            children.clear()
            yield ModelFile(here.relative_to(root).as_posix(), here)
            continue
        for name in files:
            if name.lower().endswith(WEIGHTS + PICKLES):
                yield ModelFile((here / name).relative_to(root).as_posix(), here / name)
