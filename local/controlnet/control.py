"""One control with its ControlNet, and the stand-in for the net that a diffusers pipeline gets."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Control:
    """One control as its ControlNet takes it.

    `mode` is the number by which a union net knows the kind of map. `mask` [1 or batch, 1, height, width] in 0..1
    limits the control to an area.
    """

    net: Any
    mode: int | None = None
    mask: Tensor | None = None


def stand_in(net: Any, **config: object) -> Any:
    """A module with the weights of a ControlNet, but with this configuration for the pipeline to read."""
    import torch

    module: Any = torch.nn.Module()
    module.net = net
    module.config = SimpleNamespace(**config)
    return module
