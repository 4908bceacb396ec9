"""How the VAE computes: in the dtype that diffusers' pipelines use, and in tiles that fit the memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...models.families import Family
from .offload import decoding_bytes

if TYPE_CHECKING:
    import torch

# Sides of tiles in pixels. Larger tiles leave fewer seams.
TILES = (1024, 512, 256)


def encoding_dtype(family: Family, vae: Any) -> torch.dtype:
    """The dtype to encode in. SDXL's VAE overflows in fp16, so its pipelines always encode in fp32."""
    import torch

    return torch.float32 if _overflows_in_fp16(family, vae) else vae.dtype


def decoding_dtype(family: Family, vae: Any) -> torch.dtype:
    """The dtype to decode in. The pipelines decode in bf16, which does not overflow, and in fp32 instead of fp16."""
    import torch

    return torch.float32 if _overflows_in_fp16(family, vae) and vae.dtype == torch.float16 else vae.dtype


@contextmanager
def cast_vae(vae: Any, dtype: torch.dtype) -> Generator[None]:
    """Within this context the VAE has that dtype; afterwards its own again, also after an exception."""
    own_dtype = vae.dtype
    try:
        _cast(vae, dtype)
        yield
    finally:
        _cast(vae, own_dtype)


def _cast(vae: Any, dtype: torch.dtype) -> None:
    if vae.dtype != dtype:  # a cast to the same dtype would log a warning
        vae.to(dtype=dtype)


def _overflows_in_fp16(family: Family, vae: Any) -> bool:
    # diffusers sets force_upcast for every VAE whose file has no such entry; only SDXL's pipelines use it.
    return family is Family.SDXL and bool(vae.config.get("force_upcast", False))


def tile_side(width: int, height: int, dtype: torch.dtype, free: int) -> int | None:
    """The side in pixels of the tiles for an image of this size, or None if `free` bytes are enough without tiles."""
    if decoding_bytes(width, height, dtype.itemsize) <= free or max(width, height) <= TILES[-1]:
        return None
    sides = [side for side in TILES if side < max(width, height)]
    return next((side for side in sides if decoding_bytes(side, side, dtype.itemsize) <= free), sides[-1])


@contextmanager
def sliced_and_tiled(vae: Any, tile: int | None) -> Generator[None]:
    """Within this context the VAE takes one image of a batch at a time, in tiles of side `tile` (pixels) unless None.

    diffusers' own tiles are as large as the images that the model was trained on: 1024 pixels for SDXL and FLUX.
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
def unsliced(vae: Any) -> Generator[None]:
    """Within this context the VAE takes a batch at once, which is much faster for small images."""
    use_slicing = vae.use_slicing
    vae.use_slicing = False
    try:
        yield
    finally:
        vae.use_slicing = use_slicing
