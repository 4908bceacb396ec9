"""Reads what a weights file declares (names, shapes, number formats) without reading its weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ..core.errors import ModelUnreadable
from .weight_files import PICKLES, SAFETENSORS, Stamp, is_pickle, load_pickle, stamps_of, unreadable

_LONGEST_HEADER = 100_000_000  # what the safetensors library itself allows


@dataclass(frozen=True)
class Tensor:
    """A tensor as its header describes it; `format` is spelled as safetensors does (F16, BF16, F8_E4M3, ...)."""

    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The tensors of a file or of all files of a diffusers folder, by name, and the metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def read_header(path: Path) -> Header:
    """The header of a weights file, or of the weights in a diffusers folder.

    A pickle is opened with torch's restricted unpickler, which runs no code, and its tensors are not read. Raises
    ModelNotFound or ModelUnreadable.
    """
    return _read(stamps_of(path))


@lru_cache(maxsize=16)
def _read(stamps: Sequence[Stamp]) -> Header:
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file, _, size in stamps:
        header = _read_pickle(file) if is_pickle(file) else _read_safetensors(file, size)
        tensors |= header.tensors
        metadata |= header.metadata
    return Header(tensors, metadata)


def _read_safetensors(path: Path, size: int) -> Header:
    if path.suffix.lower() not in SAFETENSORS:
        raise ModelUnreadable(
            f"{path} is not a weights file. Choose one that ends in {', '.join(SAFETENSORS + PICKLES)}."
        )
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
                raise ValueError("its header is truncated or invalid")
            content = json.loads(file.read(length))
        metadata = content.pop("__metadata__", None) or {}
        tensors = {name: Tensor(entry["dtype"], tuple(entry["shape"])) for name, entry in content.items()}
        end = max((entry["data_offsets"][1] for entry in content.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise unreadable(path, error) from error
    if 8 + length + end > size:
        missing = 8 + length + end - size
        raise ModelUnreadable(f"{path} is truncated: {missing} bytes are missing. Download the model again.")
    return Header(tensors, metadata)


def _read_pickle(path: Path) -> Header:
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3"}
    tensors = load_pickle(path, meta=True)
    formats = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return Header(
        {name: Tensor(names.get(formats[name], formats[name]), tuple(t.shape)) for name, t in tensors.items()}
    )
