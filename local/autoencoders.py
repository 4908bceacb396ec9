"""In which number format an autoencoder computes: the rule of diffusers' pipelines, for the calls made without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .families import Family

if TYPE_CHECKING:
    import torch


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
        vae.to(dtype=dtype)
        yield
    finally:
        vae.to(dtype=own)


def _leaves_its_range(family: Family, vae: Any) -> bool:
    # The other families' pipelines do not look at this entry, which diffusers sets by itself where a file has none.
    return family is Family.SDXL and bool(vae.config.get("force_upcast", False))
