"""How an autoencoder computes: in the number format diffusers' pipelines take, and in pieces that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .families import Family
from .offload import decoding_room

if TYPE_CHECKING:
    import torch

# Sides in pixels of tiles. The larger they are, the fewer seams.
TILES = (1024, 512, 256)


def encoding_format(family: Family, vae: Any) -> torch.dtype:
    """SDXL's autoencoder leaves the range of fp16; its pipelines encode in fp32 whatever it lies in."""
    import torch

    return torch.float32 if _leaves_its_range(family, vae) else vae.dtype


def decoding_format(family: Family, vae: Any) -> torch.dtype:
    """As for encoding, but that the pipelines decode in bf16, which has the range."""
    import torch

    return torch.float32 if _leaves_its_range(family, vae) and vae.dtype == torch.float16 else vae.dtype


@contextmanager
def in_format(vae: Any, dtype: torch.dtype) -> Iterator[None]:
    """While this lasts the autoencoder computes in that format; afterwards it is in its own, also if broken off."""
    own = vae.dtype
    try:
        _turn_to(vae, dtype)
        yield
    finally:
        _turn_to(vae, own)


def _turn_to(vae: Any, dtype: torch.dtype) -> None:
    if vae.dtype != dtype:  # diffusers warns of every call
        vae.to(dtype=dtype)


def _leaves_its_range(family: Family, vae: Any) -> bool:
    # The other families' pipelines do not look at this entry, which diffusers sets by itself where a file has none.
    return family is Family.SDXL and bool(vae.config.get("force_upcast", False))


def tile_side(width: int, height: int, dtype: torch.dtype, free: int) -> int | None:
    """The side in pixels of the tiles a picture is worked on in; None where `free` bytes are enough for one piece."""
    if decoding_room(width, height, dtype.itemsize) <= free or max(width, height) <= TILES[-1]:
        return None
    sides = [side for side in TILES if side < max(width, height)]
    return next((side for side in sides if decoding_room(side, side, dtype.itemsize) <= free), sides[-1])


@contextmanager
def in_pieces(vae: Any, tile: int | None) -> Iterator[None]:
    """While this lasts the autoencoder takes one picture of a batch at a time and, where `tile` says so, in tiles.

    diffusers' own tiles are as large as the pictures a model was trained on: 1024 pixels for SDXL and FLUX.
    """
    sides = vae.tile_sample_min_size, vae.tile_latent_min_size
    try:
        vae.enable_slicing()
        if tile is not None:
            vae.enable_tiling()
            vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile * sides[1] // sides[0]
        yield
    finally:
        vae.disable_slicing()
        vae.disable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = sides


@contextmanager
def in_one_go(vae: Any) -> Iterator[None]:
    """While this lasts the autoencoder takes a batch as one, which for a batch of small things is faster by far."""
    one_by_one = vae.use_slicing
    vae.use_slicing = False
    try:
        yield
    finally:
        vae.use_slicing = one_by_one
