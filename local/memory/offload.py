"""Offloading: keeps all networks on the device, only those of the current stage, or only single layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from ...core.memory import Managed, Memory, Offload, is_out_of_memory, size_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Bytes of activations per latent position and byte of the dtype, for a denoising step and for the VAE's decoder, as
# ComfyUI's model_base.py and sd.py estimate them.
_DENOISING = 0.01 * 2**20
_DECODING = 2178 * 64
_LEANER = {Offload.NONE: Offload.MODEL, Offload.MODEL: Offload.SEQUENTIAL}


@dataclass(frozen=True)
class Stage:
    """Networks that compute at the same time, and the bytes of their activations.

    In SEQUENTIAL mode, `divisible` networks are loaded layer by layer; for others that is not worth it.
    """

    parts: Sequence[Managed]
    activation_bytes: int = 0
    divisible: bool = True

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(size_of(part.module) for part in self.parts)


def denoising_bytes(width: int, height: int, batch: int, itemsize: int, factor: float) -> int:
    """Bytes of activations of a denoising step.

    `width` and `height` are pixels, `batch` includes the second half for guidance, `itemsize` the bytes of the dtype,
    `factor` the family's.
    """
    return int(factor * _DENOISING * batch * (width // 8) * (height // 8) * itemsize)


def decoding_bytes(width: int, height: int, itemsize: int) -> int:
    """Bytes of activations of decoding one image (size in pixels) without tiles."""
    return int(_DECODING * (width // 8) * (height // 8) * itemsize)


def choose_offload(stages: Sequence[Stage], memory: Memory, wanted: Offload) -> Offload:
    """The mode to start with: the requested one, else that of the process, else the first that fits."""
    if memory.device.type == "cpu" and wanted is Offload.AUTO:
        return Offload.NONE
    for mode in (wanted, memory.offload):
        if mode is not Offload.AUTO:
            return mode
    free = memory.free()
    if sum(stage.size for stage in stages) + max(stage.activation_bytes for stage in stages) <= free:
        return Offload.NONE
    if max(stage.size + stage.activation_bytes for stage in stages) <= free:
        return Offload.MODEL
    return Offload.SEQUENTIAL


def run_offloaded(
    memory: Memory, stages: Sequence[Stage], wanted: Offload, run: Callable[[], Result]
) -> tuple[Result, Offload]:
    """Call `run` with every network on the device when it computes; returns its result and the mode used.

    If the memory runs out, `run` is called once more in the next leaner mode. If it runs out again, the error is passed
    on.
    """
    mode = choose_offload(stages, memory, wanted)
    leaner = _LEANER.get(mode)
    try:
        with _offloading(memory, stages, mode):
            return run(), mode
    except Exception as error:
        if leaner is None or not is_out_of_memory(error):
            raise
        log.warning(
            "%s ran out of memory with offload %s (%s); trying %s.", memory.device, mode.value, error, leaner.value
        )
    # Outside the except block: inside, the traceback would keep the tensors of the failed run alive.
    memory.unload([part for stage in stages for part in stage.parts])
    with _offloading(memory, stages, leaner):
        return run(), leaner


@contextmanager
def _offloading(memory: Memory, stages: Sequence[Stage], mode: Offload) -> Generator[None]:
    residency = _Residency(memory, keeps=mode is Offload.NONE)
    with ExitStack() as stack:
        for stage in stages:
            by_layer = mode is Offload.SEQUENTIAL and stage.divisible
            stack.enter_context(_offload_by_layer(memory, stage) if by_layer else _load_on_call(residency, stage))
        yield


@dataclass
class _Residency:
    """The stages whose networks are on the device: the last one used, or with `keeps` all that were used.

    A stage that is not used, because its result is cached, is never loaded.
    """

    memory: Memory
    keeps: bool
    stages: list[Stage] = field(default_factory=list)

    def load(self, stage: Stage) -> None:
        if any(stage is one for one in self.stages):
            return
        wanted = [*self.stages, stage] if self.keeps else [stage]
        self.stages = []  # in case loading fails
        parts = [part for one in wanted for part in one.parts]
        self.memory.load(parts, max(one.activation_bytes for one in wanted))
        self.stages = wanted


@cache
def _hook_class() -> Any:
    """The hooks' class. It must not refer to a network, which would then stay in memory until a garbage collection."""
    from accelerate.hooks import ModelHook
    from accelerate.utils import send_to_device

    class LoadStageHook(ModelHook):
        def __init__(self, residency: _Residency, stage: Stage) -> None:
            self.residency, self.stage = residency, stage
            self.execution_device = residency.memory.device

        def pre_forward(self, module: torch.nn.Module, *args: object, **kwargs: object) -> tuple[Any, Any]:
            self.residency.load(self.stage)
            return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)

    return LoadStageHook


@contextmanager
def _load_on_call(residency: _Residency, stage: Stage) -> Generator[None]:
    """A call of a network loads its stage. diffusers reads the device to compute on from the same hook."""
    from accelerate.hooks import add_hook_to_module, remove_hook_from_module

    hook_class = _hook_class()
    try:
        for part in stage.parts:
            add_hook_to_module(part.module, hook_class(residency, stage))
        yield
    finally:
        for part in stage.parts:
            _drop_own_forwards(remove_hook_from_module(part.module))


@contextmanager
def _offload_by_layer(memory: Memory, stage: Stage) -> Generator[None]:
    """The networks stay on the CPU, and each layer is moved to the device while it computes."""
    from diffusers.hooks import HookRegistry, apply_group_offloading

    memory.unload(stage.parts)
    streams = memory.device.type == "cuda"
    try:
        for part in stage.parts:
            apply_group_offloading(
                part.module,
                onload_device=memory.device,
                offload_type="leaf_level",
                use_stream=streams,
                low_cpu_mem_usage=streams,  # otherwise every weight is copied to pinned memory beforehand
            )
        yield
    finally:
        for part in stage.parts:
            registry = HookRegistry.check_if_exists_or_initialize(part.module)
            for name in ("group_offloading", "lazy_prefetch_group_offloading", "layer_execution_tracker"):
                registry.remove_hook(name, recurse=True)
            _drop_own_forwards(part.module)
        memory.unload(stage.parts)


def _drop_own_forwards(network: torch.nn.Module) -> None:
    """Delete the bound methods that removed hooks leave behind: their cycles keep a dropped model in memory."""
    for module in network.modules():
        own_forward = vars(module).get("forward")
        if getattr(own_forward, "__func__", None) is type(module).forward:
            del module.forward
