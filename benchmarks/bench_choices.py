"""Alternatives for the engine, each compared with the engine as it is: the time, and whether the image is the same.

Models are SD 1.5 of real size and FLUX.1 of real width with few blocks, with random weights. On a CPU images are small,
steps few and the dtype fp32; on a GPU all sizes are real, in bf16. The whole generation is timed with the decoder, but
not switching an alternative on and off. docs/performance.md has the results; the engine has only what was worth it.
"""

from __future__ import annotations

import argparse
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from controlstack.benchmarks.batched_stacks import batched_stacks
from controlstack.benchmarks.random_models import (
    MODALITIES,
    SHALLOW_FLUX,
    TINY,
    USUAL,
    RandomModel,
    random_map,
    random_model,
)
from controlstack.benchmarks.timing import interleaved, print_table, seconds
from controlstack.core.errors import ControlStackError
from controlstack.core.memory import PlainMemory
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.models.families import FACTS, Family
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from diffusers.models.attention_processor import AttnProcessor, XFormersAttnProcessor
from diffusers.utils import is_xformers_available
from diffusers.utils.logging import set_verbosity_error
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

THREADS = 2
FAMILIES = (Family.SD15, Family.FLUX_DEV)
HEADS = ("model", "nets", "choice", "engine", "alternative", "ratio", "first run", "same image")


@dataclass(frozen=True)
class Plan:
    """What is measured; `side` is the side of the images in pixels, 0 for the size that a family was trained for."""

    device: torch.device
    dtype: torch.dtype
    rounds: int
    steps: int
    side: int
    tiny: bool = False


@dataclass(frozen=True)
class Choice:
    """An alternative that can be switched on for a generation, and off again without side effects."""

    name: str
    around: Callable[[RandomModel], AbstractContextManager[object]]


def denoising_networks(model: RandomModel) -> list[Any]:
    return [model.model.denoiser, *(net.module for net in dict.fromkeys(model.nets.values()))]


# -- the choices -------------------------------------------------------------------------------------------------------


@contextmanager
def channels_last(modules: Sequence[Any]) -> Iterator[None]:
    for module in modules:
        module.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for module in modules:
            module.to(memory_format=torch.contiguous_format)


@contextmanager
def processed_by(processor: Any, model: RandomModel) -> Iterator[None]:
    """Use another attention processor. The UNets' own calls PyTorch's attention directly, whatever the backend."""
    before = [(network, network.attn_processors) for network in denoising_networks(model)]
    for network, _ in before:
        network.set_attn_processor(processor)
    try:
        yield
    finally:
        for network, processors in before:
            network.set_attn_processor(processors)


def by_xformers(model: RandomModel) -> AbstractContextManager[None]:
    if not is_xformers_available():
        raise ModuleNotFoundError("the package xformers is not installed")
    return processed_by(XFormersAttnProcessor(), model)


def compiled(**options: Any) -> Callable[[RandomModel], AbstractContextManager[None]]:
    """Compile the repeated blocks once, and switch the compiled code on and off."""
    calls: dict[Any, Any] = {}

    @contextmanager
    def around(model: RandomModel) -> Iterator[None]:
        if not calls:
            for network in denoising_networks(model):
                network._repeated_blocks = model.model.denoiser._repeated_blocks  # diffusers names none for nets
                network.compile_repeated_blocks(fullgraph=True, **options)
                calls.update({m: m._compiled_call_impl for m in network.modules() if m._compiled_call_impl})
        for block, call in calls.items():
            block._compiled_call_impl = call
        try:
            yield
        finally:
            for block in calls:
                block._compiled_call_impl = None

    return around


def layouts() -> list[Choice]:
    return [
        Choice("channels_last: denoiser and nets", lambda model: channels_last(denoising_networks(model))),
        Choice("channels_last: VAE", lambda model: channels_last([model.model.components["vae"]])),
    ]


def unet_attention() -> list[Choice]:
    kernels = [
        Choice(f"attention: PyTorch's {kernel.name.split('_')[0].lower()} alone", lambda _, k=kernel: sdpa_kernel(k))
        for kernel in (
            SDPBackend.FLASH_ATTENTION,
            SDPBackend.CUDNN_ATTENTION,
            SDPBackend.EFFICIENT_ATTENTION,
            SDPBackend.MATH,
        )
    ]
    return [
        *kernels,
        Choice("attention: not PyTorch's", lambda model: processed_by(AttnProcessor(), model)),
        Choice("attention: xformers", by_xformers),
        Choice("set_attention_backend: _native_math", lambda _: attention_backend("_native_math")),
    ]


def flux_attention() -> list[Choice]:
    # Backends called "hub" would download code.
    names = [name.value for name in AttentionBackendName if "hub" not in name.value and name.value != "native"]
    return [Choice(f"set_attention_backend: {name}", lambda _, name=name: attention_backend(name)) for name in names]


BATCHED = Choice(
    "two controls of one net in one call",
    lambda _: batched_stacks(),
)


# -- measuring ---------------------------------------------------------------------------------------------------------


def choices(flow: bool) -> Iterator[tuple[Choice, int]]:
    """All alternatives for a family, each with the number of controls."""
    yield from ((choice, 1) for choice in (flux_attention() if flow else [*layouts(), *unet_attention()]))
    yield BATCHED, 2
    yield Choice("the repeated blocks compiled", compiled()), 1


class Bench:
    """A model whose two controls share a ControlNet, and the images that the engine makes with it."""

    def __init__(self, family: Family, plan: Plan) -> None:
        self.family, self.plan = family, plan
        changes = TINY[family] if plan.tiny else None
        if family is Family.FLUX_DEV and plan.device.type == "cpu" and not plan.tiny:
            changes = SHALLOW_FLUX
        self.model = random_model(family, PlainMemory(plan.device), plan.dtype, 1, changes)
        first, second = MODALITIES[:2]
        self.model.nets[second] = self.model.nets[first]
        self.known: dict[int, Tensor] = {}

    def request(self, controls: int) -> GenerationRequest:
        facts = FACTS[self.family]
        side = self.plan.side or USUAL[self.family].side
        maps = (random_map(side, seed) for seed in range(controls))
        return GenerationRequest(
            "a circle",
            width=side,
            height=side,
            steps=1 if facts.flow and self.plan.device.type == "cpu" else self.plan.steps,
            guidance_scale=USUAL[self.family].guidance,
            controls=tuple(
                ControlUnit(modality, image, strength=strength)
                for modality, image, strength in zip(MODALITIES, maps, (1.0, 0.7), strict=False)
            ),
        )

    def measure(self, choice: Choice, controls: int) -> list[str]:
        """Measure an alternative; returns its row of the table."""
        request = self.request(controls)

        def make_image() -> Tensor:
            return self.model.generate(request)

        if controls not in self.known:
            self.known[controls] = make_image()
        expected, changed = [self.known[controls]], []
        with choice.around(self.model):
            first = seconds(lambda: changed.append(make_image()))
        result = interleaved(
            lambda: expected.append(make_image()),
            lambda: changed.append(make_image()),
            self.plan.rounds,
            lambda: choice.around(self.model),
        )
        if all(torch.equal(image, expected[0]) for image in expected):
            same = compared(expected[0], changed)
        else:
            # A CPU is deterministic: the alternative was not switched off completely.
            assert self.plan.device.type != "cpu", f"{choice.name} has side effects"
            same = "not repeatable"
        times = [f"{value:.2f} s" for value in (result.theirs, result.ours)]
        return [self.family.value, str(controls), choice.name, *times, f"{result.ratio:.3f}", f"{first:.1f} s", same]


def compared(before: Tensor, after: Sequence[Tensor]) -> str:
    if all(torch.equal(before, image) for image in after):
        return "yes"
    return f"no, by up to {max(float((before - image).abs().max()) for image in after) * 255:.2g} of 255"


def rows(plan: Plan, only: str, skipped: list[str]) -> Iterator[list[str]]:
    for family in FAMILIES:
        wanted = [(c, controls) for c, controls in choices(FACTS[family].flow) if only in f"{family.value} {c.name}"]
        bench = Bench(family, plan) if wanted else None
        for choice, controls in wanted:
            assert bench is not None
            try:
                yield bench.measure(choice, controls)
            except (ControlStackError, ImportError, RuntimeError, TypeError, ValueError) as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                skipped.append(f"Skipped on {family.value}: {choice.name}: {lines[0][:150]}")
        del bench
        torch.compiler.reset()
        gc.collect()


def main(arguments: Sequence[str] | None = None) -> None:
    plan, only = planned(arguments)
    if plan.device.type == "cpu":
        torch.set_num_threads(THREADS)
    warnings.filterwarnings("ignore", category=UserWarning)  # PyTorch warns about each kernel that it cannot use
    set_verbosity_error()
    where = torch.cuda.get_device_name() if plan.device.type == "cuda" else f"CPU with {THREADS} threads"
    side = f"{plan.side}x{plan.side}" if plan.side else "the families' own sizes"
    print(
        f"{where}, {plan.dtype}, {side}, {plan.steps} steps, medians of {plan.rounds} pairs, torch {torch.__version__}"
    )
    skipped: list[str] = []
    print_table(HEADS, rows(plan, only, skipped))
    print("\n".join(skipped))


def planned(arguments: Sequence[str] | None) -> tuple[Plan, str]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, help="pairs of runs per alternative")
    parser.add_argument("--only", default="", help="measure only alternatives with this text in their family or name")
    parser.add_argument("--rehearse", action="store_true", help="use tiny networks, to check that the script runs")
    options = parser.parse_args(arguments)
    gpu = torch.cuda.is_available()
    plan = Plan(torch.device("cpu"), torch.float32, rounds=3, steps=2, side=128)
    if gpu:
        plan = Plan(torch.device("cuda"), torch.bfloat16, rounds=5, steps=20, side=0)
    if options.rehearse:
        plan = replace(plan, rounds=1, steps=2, side=64, tiny=True)
    return replace(plan, side=options.side or plan.side, rounds=options.rounds or plan.rounds), options.only


if __name__ == "__main__":
    main()
