"""The memory of the device that modules compute on, and who manages it.

Inside ComfyUI, ComfyUI manages the device for everything in its process, and `preprocessors` and `local` reach it
through `Memory`. Scripts and tests use `PlainMemory`.
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
    """How much of a model is on the device at a time, from the fastest mode to the leanest.

    `NONE`: the whole model. `MODEL`: the networks of one stage (text encoders, then denoiser and ControlNets, then
    VAE). `SEQUENTIAL`: one layer at a time of the large networks. `AUTO`: the first of these modes that fits.
    """

    AUTO = "auto"
    NONE = "none"
    MODEL = "model"
    SEQUENTIAL = "sequential"


class Managed(Protocol):
    """A managed module: it is kept as long as this object is, and may be moved off the device between two uses."""

    @property
    def module(self) -> torch.nn.Module: ...


class Memory(Protocol):
    """The device to compute on, and the managed modules on it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def offload(self) -> Offload:
        """The mode that the process was started with (`--lowvram`, `--gpu-only`), or AUTO."""
        ...

    def manage(self, module: torch.nn.Module) -> Managed:
        """Manage a module that is on the CPU."""
        ...

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        """Move modules to the device and leave `room` bytes free beside them, moving other modules off if necessary.

        Must be called before every use. If they do not fit, it raises an error that `is_out_of_memory` recognizes.
        """
        ...

    def unload(self, modules: Sequence[Managed]) -> None:
        """Move modules to the CPU. Modules that are on the CPU stay there."""
        ...

    def free(self) -> int:
        """Bytes that `load` could make available on the device, including those of the modules it would move off."""
        ...


def size_of(module: torch.nn.Module) -> int:
    """The size of a module's parameters and buffers in bytes."""
    return sum(tensor.nbytes for tensors in (module.parameters(), module.buffers()) for tensor in tensors)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device or the computer ran out of memory.

    Only CUDA has an exception class for it; other devices are recognized by their message.
    """
    import torch

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


@dataclass(frozen=True, eq=False)
class _PlainManaged:
    module: torch.nn.Module


@dataclass
class PlainMemory:
    """A device that nothing else uses: modules stay on it until others need the memory."""

    device: torch.device
    offload: Offload = Offload.AUTO
    _loaded: list[weakref.ref[_PlainManaged]] = field(default_factory=list)
    """The modules on the device, the last used at the end."""

    def manage(self, module: torch.nn.Module) -> Managed:
        return _PlainManaged(module)

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        wanted = [managed for managed in modules if isinstance(managed, _PlainManaged)]
        loaded = self._on_device()
        missing = sum(size_of(managed.module) for managed in wanted if managed not in loaded)
        for managed in loaded:
            if self._free_now() >= missing + room:
                break
            if managed not in wanted:
                self.unload([managed])
        for managed in wanted:
            if managed not in loaded:
                managed.module.to(self.device)
        kept = [managed for managed in self._on_device() if managed not in wanted]
        self._loaded = [weakref.ref(managed) for managed in (*kept, *wanted)]

    def unload(self, modules: Sequence[Managed]) -> None:
        import torch

        for managed in modules:
            managed.module.to("cpu")
        self._loaded = [weakref.ref(managed) for managed in self._on_device() if managed not in modules]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def free(self) -> int:
        return self._free_now() + sum(size_of(managed.module) for managed in self._on_device())

    def _on_device(self) -> list[_PlainManaged]:
        return [managed for reference in self._loaded if (managed := reference()) is not None]

    def _free_now(self) -> int:
        import torch

        if self.device.type == "cuda":
            reserved = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return torch.cuda.mem_get_info(self.device)[0] + reserved
        return 4 * 2**30  # the CPU's memory is not measured; a run may take this much
