"""Trained files: what they are called and where they are found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelNotFound, ModelUnreadable
from .fetch import fetch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .host import WeightStore


@dataclass(frozen=True)
class Weights:
    """A file on the hub, pinned: `file` in `repo` at commit `revision`, of `size` bytes with the checksum `sha256`.

    Without a `sha256` the size is as the hub lists it, rounded, and a fetched file is held against the checksum that
    the hub states for that commit. A `revision` may be a branch where no commit is known: then the checksum pins it.
    Other programs keep the same file under other paths; `names` are those it is recognised by, relative to one of
    the folders of `WeightStore.weight_folders`.
    """

    repo: str
    revision: str
    file: str
    size: int
    sha256: str = ""
    names: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where it is fetched from; HF_ENDPOINT may name a mirror of the hub."""
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{endpoint.rstrip('/')}/{self.repo}/resolve/{self.revision}/{self.file}"

    @property
    def path(self) -> Path:
        """Where it is put, relative to a weight folder; comfyui_controlnet_aux does the same in its `ckpts`."""
        return Path(self.repo, self.file)


def annotators_file(folder: str, file: str, size: int, sha256: str = "") -> Weights:
    """A file of lllyasviel/Annotators, where most detectors' are; A1111 keeps it in `folder` of its annotators'."""
    revision = "982e7edaec38759d914a963c48c4726685de7d96"
    return Weights("lllyasviel/Annotators", revision, file, size, sha256, names=(file, f"{folder}/{file}"))


def find(weights: Weights, store: WeightStore) -> Path | None:
    """Where the file is, in the store's folders or in the hub's own cache, or None.

    A file of another size is another file. Checksums are verified when a file is fetched and not here: that would
    cost seconds for each gigabyte.
    """
    return _in_folders(weights, store.weight_folders) or _in_hub_cache(weights)


def obtain(weights: Weights, store: WeightStore) -> Path:
    """The file, fetched into the first of the store's folders where it is missing.

    Raises ModelNotFound within a second when it is missing and the hub cannot be reached, and ModelUnreadable when
    what lies or arrives there is another file.
    """
    return find(weights, store) or _fetch(weights, store)


def read_state(file: Path) -> dict[str, Any]:
    """The tensors of a weights file by their names, on the CPU; some files nest them. Of a pickle nothing is executed.

    Raises ModelUnreadable when the file is broken or holds more than tensors.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelUnreadable(
            f"{file} cannot be read ({reason}). Move it elsewhere; it is fetched again on the next run."
        ) from error
    return state


def _fetch(weights: Weights, store: WeightStore) -> Path:
    if not store.weight_folders:
        raise ModelNotFound(f"{weights.file} is missing, and no folder is set where trained files are kept.")
    target = store.weight_folders[0] / weights.path
    if target.is_file():
        raise ModelUnreadable(
            f"{target} has {target.stat().st_size} bytes instead of {weights.size}: it was damaged or is another "
            f"file. Move it elsewhere; it is fetched again on the next run, from {weights.url}."
        )
    fetch(weights.url, target, weights.size, weights.sha256, store.progress)
    return target


def load_state(network: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Fill a network with the tensors of `file`; raises ModelUnreadable when they are those of another network."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ModelUnreadable(
            f"{file} has the weights of another network than {type(network).__name__} ({' '.join(lines[1:2])[:200]}). "
            f"Move it elsewhere; the right one is fetched on the next run."
        ) from error


def _in_folders(weights: Weights, folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        for name in (weights.path, *weights.names):
            if _is_it(weights, folder / name):
                return folder / name
    return None


def _is_it(weights: Weights, path: Path) -> bool:
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return size == weights.size if weights.sha256 else size > 0


def _in_hub_cache(weights: Weights) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(weights.repo, weights.file, revision=weights.revision)
    return Path(cached) if isinstance(cached, str) and _is_it(weights, Path(cached)) else None
