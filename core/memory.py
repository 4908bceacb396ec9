"""Where modules compute, and who decides what stays there.

ComfyUI manages the memory of the device for everybody in its process. `preprocessors` and `local` reach that management
through `Memory`; scripts and tests use `PlainMemory`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Offload(StrEnum):
    """How much of a model lies on the device at a time, from fastest to leanest.

    `NONE`: all of it. `MODEL`: what the present stage needs (text encoders, then denoiser and nets, then VAE).
    `SEQUENTIAL`: of the large networks only the layer that computes. `AUTO`: the first of these that fits.
    """

    AUTO = "auto"
    NONE = "none"
    MODEL = "model"
    SEQUENTIAL = "sequential"


class Managed(Protocol):
    """A module under management: it lives as long as this is kept, and may be moved off between two uses."""

    @property
    def module(self) -> torch.nn.Module: ...


class Memory(Protocol):
    """The device to compute on and what lies on it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def offload(self) -> Offload:
        """What the user asked for when the process was started (`--lowvram`, `--gpu-only`); AUTO when nothing."""
        ...

    def manage(self, module: torch.nn.Module) -> Managed:
        """Put a module, which lies on the CPU, under management."""
        ...

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        """Bring modules to the device, with `room` bytes left beside them; what is needed less is moved off for it.

        To be called before every use. Raises what `is_out_of_memory` knows when they do not fit.
        """
        ...

    def unload(self, modules: Sequence[Managed]) -> None:
        """Move modules back to the CPU; those that are there already stay."""
        ...

    def free(self) -> int:
        """Bytes of the device that `load` could provide, counting what it would move off."""
        ...


def size_of(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(tensor.nbytes for tensors in (module.parameters(), module.buffers()) for tensor in tensors)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device, or the computer, had too little memory; only CUDA has an error class of its own for it."""
    import torch

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


@dataclass(frozen=True, eq=False)
class _Plain:
    module: torch.nn.Module


@dataclass
class PlainMemory:
    """A device that nobody else uses: modules stay on it until there is no room for others."""

    device: torch.device
    offload: Offload = Offload.AUTO
    _loaded: list[weakref.ref[_Plain]] = field(default_factory=list)
    """What lies on the device, the one used last at the end."""

    def manage(self, module: torch.nn.Module) -> Managed:
        return _Plain(module)

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        wanted = [managed for managed in modules if isinstance(managed, _Plain)]
        there = self._there()
        missing = sum(size_of(managed.module) for managed in wanted if managed not in there)
        for managed in there:
            if self._spare() >= missing + room:
                break
            if managed not in wanted:
                self.unload([managed])
        for managed in wanted:
            if managed not in there:
                managed.module.to(self.device)
        kept = [managed for managed in self._there() if managed not in wanted]
        self._loaded = [weakref.ref(managed) for managed in (*kept, *wanted)]

    def unload(self, modules: Sequence[Managed]) -> None:
        import torch

        for managed in modules:
            managed.module.to("cpu")
        self._loaded = [weakref.ref(managed) for managed in self._there() if managed not in modules]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def free(self) -> int:
        return self._spare() + sum(size_of(managed.module) for managed in self._there())

    def _there(self) -> list[_Plain]:
        return [managed for reference in self._loaded if (managed := reference()) is not None]

    def _spare(self) -> int:
        import torch

        if self.device.type == "cuda":
            reserved = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return torch.cuda.mem_get_info(self.device)[0] + reserved
        return 4 * 2**30  # what a CPU run may take without asking
