"""ComfyUI's memory management as `core.memory.Memory`, for the engine and the detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.memory import Offload
from .comfy import ModelPatcher, device, memory

if TYPE_CHECKING:
    import torch

    from ..core.memory import Managed

# How ComfyUI's start options split models. With --cpu or unified memory there is nothing to split.
_OFFLOAD = {
    memory.VRAMState.HIGH_VRAM: Offload.NONE,  # --highvram, --gpu-only
    memory.VRAMState.LOW_VRAM: Offload.MODEL,  # --lowvram
    memory.VRAMState.NO_VRAM: Offload.SEQUENTIAL,  # --novram
}


class ManagedModule:
    """A module in ComfyUI's list of loaded models. ComfyUI may evict it for another model, and unloads it on /free."""

    def __init__(self, module: torch.nn.Module) -> None:
        import torch

        class Holder(torch.nn.Module):
            """ModelPatcher sets `device` on the module that it manages, which modules of diffusers do not allow.

            The module is passed as an argument. A closure over it would create a reference cycle through the class.
            """

            def __init__(self, held: torch.nn.Module) -> None:
                super().__init__()
                self.held = held
                self.device = torch.device("cpu")

        # ComfyUI logs this name when it loads or evicts the module.
        Holder.__name__ = type(module).__name__
        self.module = module
        self.patcher = ModelPatcher(Holder(module), load_device=device(), offload_device=memory.unet_offload_device())


class ComfyMemory:
    """The device that ComfyUI computes on, shared with all other models that it runs."""

    @property
    def device(self) -> torch.device:
        return device()

    @property
    def offload(self) -> Offload:
        return _OFFLOAD.get(memory.vram_state, Offload.AUTO)

    def manage(self, module: torch.nn.Module) -> Managed:
        return ManagedModule(module)

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        patchers = _patchers(modules)
        # Only ComfyUI's own layers can compute with weights on another device. Other modules must be loaded completely.
        memory.load_models_gpu(patchers, memory_required=room, force_full_load=True)
        for patcher in patchers:
            if patcher.loaded_size() < patcher.model_size():  # --novram ignores force_full_load
                patcher.load(patcher.load_device, full_load=True)

    def unload(self, modules: Sequence[Managed]) -> None:
        patchers = _patchers(modules)
        for loaded in list(memory.current_loaded_models):
            if any(loaded.model is patcher for patcher in patchers):
                loaded.model_unload()
                memory.current_loaded_models.remove(loaded)
        memory.soft_empty_cache()

    def free(self) -> int:
        evictable = sum(
            loaded.model_loaded_memory()
            for loaded in memory.current_loaded_models
            if loaded.device == self.device and loaded.model is not None
        )
        spare: Any = memory.get_free_memory(self.device)
        return int(spare + evictable - memory.extra_reserved_memory())


def _patchers(modules: Sequence[Managed]) -> list[ModelPatcher]:
    return [managed.patcher for managed in modules if isinstance(managed, ManagedModule)]
