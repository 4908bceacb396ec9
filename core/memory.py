"""Where modules compute, and who decides what stays there.

ComfyUI manages the memory of the device for everybody in its process. `preprocessors` and `local` reach that management
through `Memory`; scripts and tests use `PlainMemory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Managed(Protocol):
    """A module under management: it lives as long as this is kept, and may be moved off between two uses."""

    @property
    def module(self) -> torch.nn.Module: ...


class Memory(Protocol):
    """The device to compute on and what lies on it."""

    @property
    def device(self) -> torch.device: ...

    def manage(self, module: torch.nn.Module) -> Managed:
        """Put a module, which lies on the CPU, under management."""
        ...

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        """Bring modules to the device, with `room` bytes left beside them; what is needed less is moved off for it.

        To be called before every use. Raises torch.OutOfMemoryError when they do not fit.
        """
        ...

    def free(self) -> int:
        """Bytes of the device that can be taken now."""
        ...


@dataclass(frozen=True)
class _Plain:
    module: torch.nn.Module


class PlainMemory:
    """A device that nobody else uses: modules are moved to it once and stay."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def manage(self, module: torch.nn.Module) -> Managed:
        return _Plain(module)

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        for managed in modules:
            managed.module.to(self.device)

    def free(self) -> int:
        import torch

        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return 4 * 2**30  # what a CPU run may take without asking
