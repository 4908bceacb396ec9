"""Process a batch image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .host import Host

if TYPE_CHECKING:
    from torch import Tensor


def each_frame(image: Tensor, host: Host, make: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The maps `make(frame, index)`, [height, width, 3] each, as a batch. The user can stop between two of them."""
    import torch

    maps = torch.empty_like(image, memory_format=torch.contiguous_format)
    for index, frame in enumerate(image):
        host.progress(index, len(image))
        maps[index] = make(frame, index)
    host.progress(len(image), len(image))
    return maps


def warn_of_empty(maps: Tensor, host: Host, what: str, remedy: str) -> None:
    """Warn about the images in which nothing was found: their black maps would look like a failure."""
    empty = [index + 1 for index, map_ in enumerate(maps) if not bool(map_.any())]
    if empty:
        listed = ", ".join(map(str, empty[:8])) + (" and more" if len(empty) > 8 else "")
        which = "the image" if len(maps) == 1 else f"image {listed} of {len(maps)}"
        host.warn(f"No {what} found in {which}: the map is black there. {remedy}")
