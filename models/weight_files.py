"""Which files hold a model's weights, and the one wording of the errors when a file cannot be read."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from ..core.errors import ModelNotFound, ModelUnreadable
from ..core.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch

SAFETENSORS = (".safetensors", ".sft")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# The weights in a diffusers folder: diffusion_pytorch_model.safetensors, model.fp16.safetensors,
# model-00001-of-00002.safetensors, diffusion_pytorch_model.fp16-00001-of-00003.safetensors
FOLDER_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(?P<before>\.\w+)?(-\d{5}-of-\d{5})?(?P<after>\.\w+)?"
    r"\.(safetensors|bin)"
)

Stamp = tuple[Path, int, int]
"""A file with its time of modification in nanoseconds and its size in bytes."""


def weight_files(path: Path) -> list[Path]:
    """The weights a model consists of: the file itself, or one set of files in a diffusers folder.

    A folder may hold several sets (full and half precision, safetensors and pickle). Safetensors come first, then the
    set without a variant in its name.
    """
    if not path.is_dir():
        return [path] if path.is_file() else []
    sets: dict[tuple[bool, str], list[Path]] = {}
    for file in sorted(path.iterdir()):
        if match := FOLDER_WEIGHTS.fullmatch(file.name):
            variant = match["before"] or match["after"] or ""
            sets.setdefault((is_pickle(file), variant), []).append(file)
    return sets[min(sets)] if sets else []


def is_pickle(path: Path) -> bool:
    """Whether the name is that of a pickle, which could run code if it were not read with care."""
    return path.suffix.lower() in PICKLES


def stamps_of(path: Path) -> tuple[Stamp, ...]:
    """The stamps of a model's weight files: they are the same as long as the model is. Raises ModelNotFound."""
    files = weight_files(path)
    if not files:
        raise ModelNotFound(f"There are no weights in {path}. Download the model again, or choose another.")
    return stamps(files)


def stamps(files: Iterable[Path]) -> tuple[Stamp, ...]:
    """The stamp of each file."""
    return tuple((file, stat.st_mtime_ns, stat.st_size) for file in files for stat in [file.stat()])


def load_pickle(path: Path, meta: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a .ckpt, .pt, .pth or .bin file, read by torch's unpickler that runs no code.

    With `meta` only their shapes. Nested dictionaries are flattened to dotted names. Raises ModelUnreadable.
    """
    import torch

    with reading(path):
        content = torch.load(path, map_location="meta" if meta else "cpu", weights_only=True, mmap=is_zipfile(path))
        content = content.get("state_dict", content)
        return dict(_flat(content, ""))


def _flat(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turn whatever a library raises over a file into ModelUnreadable. Out-of-memory errors are passed on."""
    try:
        yield
    except ModelUnreadable:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> ModelUnreadable:
    """The error for a file that cannot be read, with the first line of the reason."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelUnreadable(f"{path} cannot be read ({reason}). Download the model again.")
