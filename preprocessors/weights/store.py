"""Find a trained file on this machine, or download it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ...core.errors import ModelNotFound, ModelUnreadable
from .declarations import Weights
from .fetch import fetch


class WeightStore(Protocol):
    """The folders for trained files, and where the progress of a download is reported.

    `weight_folders` are searched in this order. A missing file is downloaded into the first.
    """

    @property
    def weight_folders(self) -> Sequence[Path]: ...

    def progress(self, done: int, total: int) -> None:
        """Report progress in frames, tiles or bytes. Raises when the user has stopped the run."""
        ...


def find(weights: Weights, store: WeightStore) -> Path | None:
    """The path of the file in the store's folders or in the cache of huggingface_hub, or None.

    A file of another size is another file. Checksums are verified after a download and not here, where that would take
    seconds per gigabyte.
    """
    return _in_folders(weights, store.weight_folders) or _in_hub_cache(weights)


def obtain(weights: Weights, store: WeightStore) -> Path:
    """The path of the file, which is downloaded into the first folder of the store if it is missing.

    Raises ModelNotFound when it cannot be downloaded, within a second when the hub cannot be reached, and
    ModelUnreadable when the file there, or the one that was downloaded, is another file.
    """
    return find(weights, store) or _download(weights, store)


def _download(weights: Weights, store: WeightStore) -> Path:
    if not store.weight_folders:
        raise ModelNotFound(f"{weights.file} is missing, and no folder for trained files is set.")
    target = store.weight_folders[0] / weights.path
    if target.is_file():
        raise ModelUnreadable(
            f"{target} has {target.stat().st_size} bytes instead of {weights.size}. It is damaged or another file. "
            f"Move it elsewhere. The next run downloads it again from {weights.url}."
        )
    fetch(weights.url, target, weights.size, weights.sha256, store.progress)
    return target


def _in_folders(weights: Weights, folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        for name in (weights.path, *weights.names):
            if _has_expected_size(weights, folder / name):
                return folder / name
    return None


def _has_expected_size(weights: Weights, path: Path) -> bool:
    """Without a checksum the declared size is rounded, so that any size counts."""
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return size == weights.size if weights.sha256 else size > 0


def _in_hub_cache(weights: Weights) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(weights.repo, weights.file, revision=weights.revision)
    return Path(cached) if isinstance(cached, str) and _has_expected_size(weights, Path(cached)) else None
