"""Which of a model's networks lie on the device when: all, those of the present stage, or single layers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.memory import Managed, Memory, Offload, is_out_of_memory, size_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Bytes beside the weights, as ComfyUI's model_base.py and sd.py estimate them: for the denoiser per latent pixel and
# byte of its number format, for the VAE's decoder per pixel of the latent's area times 64.
_DENOISING = 0.01 * 2**20
_DECODING = 2178 * 64
_LEANER = {Offload.NONE: Offload.MODEL, Offload.MODEL: Offload.SEQUENTIAL}


@dataclass(frozen=True)
class Stage:
    """Networks that compute at the same time, and the bytes their activations take.

    `divisible` networks are large enough to be worth loading layer by layer in the leanest mode.
    """

    parts: Sequence[Managed]
    room: int = 0
    divisible: bool = True

    @property
    def size(self) -> int:
        return sum(size_of(part.module) for part in self.parts)


def denoising_room(width: int, height: int, batch: int, bytes_per_number: int, factor: float) -> int:
    """Bytes of activations of a denoising step at a size in pixels; `batch` counts guidance's second half too.

    `factor` is that of the family.
    """
    return int(factor * _DENOISING * batch * (width // 8) * (height // 8) * bytes_per_number)


def decoding_room(width: int, height: int, bytes_per_number: int) -> int:
    """Bytes of activations of decoding one picture in one piece."""
    return int(_DECODING * (width // 8) * (height // 8) * bytes_per_number)


def choose_offload(stages: Sequence[Stage], memory: Memory, wanted: Offload) -> Offload:
    """The mode to begin with: the wanted one, else what the process was started for, else the first that fits."""
    if memory.device.type == "cpu" and wanted is Offload.AUTO:
        return Offload.NONE
    for asked in (wanted, memory.offload):
        if asked is not Offload.AUTO:
            return asked
    free = memory.free()
    if sum(stage.size for stage in stages) + max(stage.room for stage in stages) <= free:
        return Offload.NONE
    if max(stage.size + stage.room for stage in stages) <= free:
        return Offload.MODEL
    return Offload.SEQUENTIAL


def run_offloaded(
    memory: Memory, stages: Sequence[Stage], wanted: Offload, run: Callable[[], Result]
) -> tuple[Result, Offload]:
    """What `run` gives, with every part on the device when it computes, and the mode that it ran in.

    When memory runs out it is run once more in the next leaner mode; when it runs out again, its error is passed on.
    """
    mode = choose_offload(stages, memory, wanted)
    leaner = _LEANER.get(mode)
    try:
        with _placed(memory, stages, mode):
            return run(), mode
    except Exception as error:
        if leaner is None or not is_out_of_memory(error):
            raise
        log.warning(
            "%s ran out of memory with offload %s (%s); trying %s.", memory.device, mode.value, error, leaner.value
        )
    # Outside of the except block: inside it, the traceback would keep the tensors of the failed run alive.
    memory.unload([part for stage in stages for part in stage.parts])
    with _placed(memory, stages, leaner):
        return run(), leaner


@contextmanager
def _placed(memory: Memory, stages: Sequence[Stage], mode: Offload) -> Iterator[None]:
    present = _Present(memory, keeps=mode is Offload.NONE)
    with ExitStack() as stack:
        for stage in stages:
            by_layer = mode is Offload.SEQUENTIAL and stage.divisible
            stack.enter_context(_by_layer(memory, stage) if by_layer else _on_call(present, stage))
        yield


@dataclass
class _Present:
    """The stages whose parts lie on the device: the last one that came, or with `keeps` all that have come.

    What does not come at all, because its result is known from before, is not loaded either.
    """

    memory: Memory
    keeps: bool
    stages: list[Stage] = field(default_factory=list)

    def become(self, stage: Stage) -> None:
        if any(stage is present for present in self.stages):
            return
        wanted = [*self.stages, stage] if self.keeps else [stage]
        self.stages = []  # stays so when loading fails
        parts = [part for present in wanted for part in present.parts]
        self.memory.load(parts, max(present.room for present in wanted))
        self.stages = wanted


@cache
def _arrival() -> Any:
    """The hook's class, which knows no network: it would keep one until Python looks for cycles."""
    from accelerate.hooks import ModelHook
    from accelerate.utils import send_to_device

    class Arrival(ModelHook):
        def __init__(self, present: _Present, stage: Stage) -> None:
            self.present, self.stage = present, stage
            self.execution_device = present.memory.device

        def pre_forward(self, module: torch.nn.Module, *args: object, **kwargs: object) -> tuple:
            self.present.become(self.stage)
            return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)

    return Arrival


@contextmanager
def _on_call(present: _Present, stage: Stage) -> Iterator[None]:
    """Each part calls its stage up when it is called; diffusers reads the device to compute on from the same hook."""
    from accelerate.hooks import add_hook_to_module, remove_hook_from_module

    arrival = _arrival()
    try:
        for part in stage.parts:
            add_hook_to_module(part.module, arrival(present, stage))
        yield
    finally:
        for part in stage.parts:
            _drop_own_forwards(remove_hook_from_module(part.module))


@contextmanager
def _by_layer(memory: Memory, stage: Stage) -> Iterator[None]:
    """The parts stay on the CPU, and each layer visits the device to compute."""
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
                low_cpu_mem_usage=streams,  # else a pinned second copy of every weight is made beforehand
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
    """Removed hooks leave bound methods on the instances: cycles, which keep a dropped model in memory for long."""
    for module in network.modules():
        own = vars(module).get("forward")
        if getattr(own, "__func__", None) is type(module).forward:
            del module.forward
