"""Randomness that repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .parameters import IntParameter, Value

if TYPE_CHECKING:
    import torch

SEED = IntParameter("seed", 0, 0, 2**32 - 1, "Same seed, same map. Picture number i of a batch uses seed + i.")


def generator(values: Mapping[str, Value], index: int) -> torch.Generator:
    """The source of randomness of picture `index`; nobody else's is touched."""
    import torch

    return torch.Generator().manual_seed(int(values["seed"]) + index)
