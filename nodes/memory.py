"""ComfyUI's memory management, as the engine and the detectors see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .comfy import ModelPatcher, device, memory

if TYPE_CHECKING:
    import torch

    from ..core.memory import Managed


class ManagedModule:
    """A module that ComfyUI counts among its own models, may evict for another, and unloads on /free."""

    def __init__(self, module: torch.nn.Module) -> None:
        import torch

        class Holder(torch.nn.Module):
            """ModelPatcher sets `device` on what it manages, which diffusers' modules do not allow."""

            def __init__(self) -> None:
                super().__init__()
                self.held = module
                self.device = torch.device("cpu")

        self.module = module
        self.patcher = ModelPatcher(Holder(), load_device=device(), offload_device=torch.device("cpu"))


class ComfyMemory:
    """The device ComfyUI computes on, shared politely with everything else it runs."""

    @property
    def device(self) -> torch.device:
        return device()

    def manage(self, module: torch.nn.Module) -> Managed:
        return ManagedModule(module)

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        patchers = [managed.patcher for managed in modules if isinstance(managed, ManagedModule)]
        # Layers that are not ComfyUI's own cannot be loaded in parts.
        memory.load_models_gpu(patchers, memory_required=room, force_full_load=True)

    def free(self) -> int:
        return int(memory.get_free_memory(device()))
