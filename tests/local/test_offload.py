"""Offloading: the same result in every mode, networks on the device when they compute, one retry if memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from controlstack.core.memory import Managed, Offload, PlainMemory, size_of
from controlstack.local.memory.offload import Stage, choose_offload, decoding_bytes, denoising_bytes, run_offloaded
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
MODES = (Offload.NONE, Offload.MODEL, Offload.SEQUENTIAL)


@dataclass
class SmallMemory(PlainMemory):
    """A device of `total` bytes, which records the calls; its `device` is the CPU."""

    total: int = 2**40
    loads: list[tuple[list[Any], int]] = field(default_factory=list)

    def load(self, modules: Any, room: int = 0) -> None:
        super().load(modules, room)
        self.loads.append(([type(managed.module).__name__ for managed in modules], room))

    def _free_now(self) -> int:
        return self.total - sum(size_of(managed.module) for managed in self._on_device())


class Gpu(SmallMemory):
    """As far as decisions go, not the CPU."""

    def __init__(self, total: int, offload: Offload = Offload.AUTO) -> None:
        super().__init__(torch.device("meta"), offload, total=total)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB). Tried to allocate 2.00 GB on private pool."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
]


def linear(numbers: int) -> torch.nn.Module:
    return torch.nn.Linear(numbers, 1, bias=False)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                          num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    none: Any = None
    made = StableDiffusionPipeline(
        vae, none, none, unet.eval(), DDIMScheduler(steps_offset=1, clip_sample=False), none, none, none, False
    )
    made.set_progress_bar_config(disable=True)
    return made


def stages_of(pipeline: StableDiffusionPipeline, memory: PlainMemory) -> list[Stage]:
    denoise, decode = memory.manage(pipeline.unet), memory.manage(pipeline.vae)
    return [Stage([denoise], activation_bytes=100), Stage([decode], activation_bytes=10, divisible=False)]


def run(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    words = torch.linspace(-1, 1, 2 * 4 * 8).reshape(2, 4, 8)
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        prompt_embeds=words[:1], negative_prompt_embeds=words[1:], height=16, width=16, num_inference_steps=3,
        generator=generator, output_type="pt",
    ).images  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_makes_the_same_image_and_leaves_the_networks_unchanged(
    pipeline: StableDiffusionPipeline, mode: Offload
) -> None:
    plain = run(pipeline)
    memory = SmallMemory(CPU)
    images, ran = run_offloaded(memory, stages_of(pipeline, memory), mode, lambda: run(pipeline))
    assert ran is mode
    assert torch.equal(images, plain)
    assert torch.equal(run(pipeline), plain)
    modules = [module for network in (pipeline.unet, pipeline.vae) for module in network.modules()]
    assert not any({"_hf_hook", "forward"} & set(vars(module)) for module in modules)


def test_without_offloading_all_used_networks_stay_on_the_device(pipeline: StableDiffusionPipeline) -> None:
    memory = SmallMemory(CPU)
    run_offloaded(memory, stages_of(pipeline, memory), Offload.NONE, lambda: run(pipeline))
    assert memory.loads == [(["UNet2DConditionModel"], 100), (["UNet2DConditionModel", "AutoencoderTiny"], 100)]


def test_a_network_that_is_not_called_is_not_loaded(pipeline: StableDiffusionPipeline) -> None:
    for mode in MODES:
        memory = SmallMemory(CPU)
        run_offloaded(memory, stages_of(pipeline, memory), mode, lambda: None)
        assert memory.loads == []


def test_each_stage_is_loaded_once_when_it_starts(pipeline: StableDiffusionPipeline) -> None:
    memory = SmallMemory(CPU)
    run_offloaded(memory, stages_of(pipeline, memory), Offload.MODEL, lambda: run(pipeline))
    assert memory.loads == [(["UNet2DConditionModel"], 100), (["AutoencoderTiny"], 10)]


def test_layer_by_layer_never_loads_the_large_network_as_a_whole(pipeline: StableDiffusionPipeline) -> None:
    memory = SmallMemory(CPU)
    run_offloaded(memory, stages_of(pipeline, memory), Offload.SEQUENTIAL, lambda: run(pipeline))
    assert memory.loads == [(["AutoencoderTiny"], 10)]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:3])
@pytest.mark.parametrize(("first", "second"), [(Offload.NONE, Offload.MODEL), (Offload.MODEL, Offload.SEQUENTIAL)])
def test_a_run_out_of_memory_is_repeated_in_the_next_mode(
    pipeline: StableDiffusionPipeline, first: Offload, second: Offload, error: Exception
) -> None:
    calls: list[int] = []

    def short_of_memory_once() -> torch.Tensor:
        calls.append(len(calls))
        if len(calls) == 1:
            raise error
        return run(pipeline)

    memory = SmallMemory(CPU)
    images, ran = run_offloaded(memory, stages_of(pipeline, memory), first, short_of_memory_once)
    assert (ran, calls) == (second, [0, 1])
    assert torch.equal(images, run(pipeline))


def test_a_run_that_fails_for_another_reason_is_not_repeated(pipeline: StableDiffusionPipeline) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(0)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    memory = SmallMemory(CPU)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_offloaded(memory, stages_of(pipeline, memory), Offload.NONE, broken)
    assert calls == [0]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_is_repeated_once_only_and_the_networks_stay_usable(
    pipeline: StableDiffusionPipeline, mode: Offload
) -> None:
    calls: list[int] = []

    def short_of_memory() -> torch.Tensor:
        calls.append(0)
        run(pipeline)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    plain = run(pipeline)
    memory = SmallMemory(CPU)
    with pytest.raises(torch.OutOfMemoryError):
        run_offloaded(memory, stages_of(pipeline, memory), mode, short_of_memory)
    assert len(calls) == (1 if mode is Offload.SEQUENTIAL else 2)
    assert torch.equal(run(pipeline), plain)


@pytest.mark.parametrize(
    ("total", "mode"), [(64, Offload.NONE), (63, Offload.MODEL), (50, Offload.MODEL), (49, Offload.SEQUENTIAL)]
)
def test_the_first_mode_that_fits_is_chosen(total: int, mode: Offload) -> None:
    gpu = Gpu(total)
    sizes_and_rooms = [(8, 0), (40, 10), (4, 12)]
    stages = [Stage([gpu.manage(linear(size // 4))], room) for size, room in sizes_and_rooms]
    assert choose_offload(stages, gpu, Offload.AUTO) is mode


def test_the_users_offload_mode_comes_before_that_of_the_process_and_that_before_auto() -> None:
    for started in Offload:
        gpu = Gpu(2**40, started)
        stages = [Stage([gpu.manage(linear(2))])]
        assert choose_offload(stages, gpu, Offload.SEQUENTIAL) is Offload.SEQUENTIAL
        asked = Offload.NONE if started is Offload.AUTO else started
        assert choose_offload(stages, gpu, Offload.AUTO) is asked


def test_on_the_cpu_nothing_is_offloaded_by_default() -> None:
    memory = SmallMemory(CPU, total=0)
    stages = [Stage([memory.manage(linear(1000))])]
    assert choose_offload(stages, memory, Offload.AUTO) is Offload.NONE
    assert choose_offload(stages, memory, Offload.MODEL) is Offload.MODEL


def test_activation_estimates_are_those_of_comfyui() -> None:
    assert denoising_bytes(512, 512, 2, 2, 1.0) == pytest.approx(164e6, rel=0.06)
    assert decoding_bytes(512, 512, 2) == pytest.approx(1.14e9, rel=0.01)


def test_plain_memory_unloads_the_least_recently_used_only_if_it_must() -> None:
    memory = SmallMemory(CPU, total=100)
    moved: list[int] = []
    unload = memory.unload

    def note(modules: list[Managed]) -> None:
        moved.extend(names[id(managed)] for managed in modules)
        unload(modules)

    memory.unload = note  # type: ignore[method-assign]
    parts = [memory.manage(linear(10)) for _ in range(3)]  # 40 bytes each
    names = {id(part): number for number, part in enumerate(parts)}
    memory.load(parts[:1])
    memory.load(parts[1:2])
    memory.load(parts[:1])
    assert moved == []
    memory.load(parts[2:])
    assert moved == [1]
    memory.load(parts[2:], room=50)
    assert moved == [1, 0]
    assert memory.free() == 100
