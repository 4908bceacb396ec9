"""Reproducible randomness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .parameters import IntParameter, Value

if TYPE_CHECKING:
    import torch

SEED = IntParameter(
    "seed", 0, 0, 2**32 - 1, "The same seed gives the same map. Image number i of a batch uses seed + i, from i = 0."
)


def generator(values: Mapping[str, Value], index: int) -> torch.Generator:
    """The random generator of image `index` in a batch. The global one is not used."""
    import torch

    return torch.Generator().manual_seed(int(values["seed"]) + index)
