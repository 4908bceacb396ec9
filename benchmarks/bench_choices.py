"""What the engine could do otherwise, each against what it does: the time, and whether the picture stays the same.

SD 1.5 of real size and a FLUX.1 of real width but few blocks, with random weights. On a CPU the pictures are small, the
steps few and the numbers fp32; on a GPU everything is real, in bf16. A whole generation is timed, the decoder included,
but not the switching over. What is not worth it on what it was measured on is not in the engine: docs/performance.md.
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
from controlstack.local.families import FACTS, Family
from controlstack.local.generate import generate
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from diffusers.models.attention_processor import AttnProcessor, XFormersAttnProcessor
from diffusers.utils import is_xformers_available
from diffusers.utils.logging import set_verbosity_error
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

THREADS = 2
FAMILIES = (Family.SD15, Family.FLUX_DEV)
HEADS = ("model", "nets", "choice", "as it is", "with it", "ratio", "first run", "same picture")


@dataclass(frozen=True)
class Plan:
    """How much is measured; `side` 0 is the size a family was trained for."""

    device: torch.device
    dtype: torch.dtype
    rounds: int
    steps: int
    side: int
    tiny: bool = False


@dataclass(frozen=True)
class Choice:
    """Something that can be switched on around a generation and off again, without a trace."""

    name: str
    around: Callable[[RandomModel], AbstractContextManager[object]]


def denoising(model: RandomModel) -> list[Any]:
    return [model.denoiser, *dict.fromkeys(model.networks.values())]


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
    """Another attention processor: that of UNets calls PyTorch's attention itself and asks for no backend."""
    before = [(network, network.attn_processors) for network in denoising(model)]
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
    """The repeated blocks compiled once, and switched on and off."""
    calls: dict[Any, Any] = {}

    @contextmanager
    def around(model: RandomModel) -> Iterator[None]:
        if not calls:
            for network in denoising(model):
                network._repeated_blocks = model.denoiser._repeated_blocks  # diffusers names none for nets
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
        Choice("channels_last: denoiser and nets", lambda model: channels_last(denoising(model))),
        Choice("channels_last: VAE", lambda model: channels_last([model.components["vae"]])),
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
    # Those called "hub" would download code.
    names = [name.value for name in AttentionBackendName if "hub" not in name.value and name.value != "native"]
    return [Choice(f"set_attention_backend: {name}", lambda _, name=name: attention_backend(name)) for name in names]


BATCHED = Choice(
    "two controls of one net in one call",
    lambda _: batched_stacks(),
)


# -- measuring ---------------------------------------------------------------------------------------------------------


def choices(flow: bool) -> Iterator[tuple[Choice, int]]:
    """Everything that is measured on a family, with the number of controls."""
    yield from ((choice, 1) for choice in (flux_attention() if flow else [*layouts(), *unet_attention()]))
    yield BATCHED, 2
    yield Choice("the repeated blocks compiled", compiled()), 1


class Bench:
    """A model whose two controls have the same net, and the pictures it makes as the engine is."""

    def __init__(self, family: Family, plan: Plan) -> None:
        self.family, self.plan = family, plan
        changes = TINY[family] if plan.tiny else None
        if family is Family.FLUX_DEV and plan.device.type == "cpu" and not plan.tiny:
            changes = SHALLOW_FLUX
        self.model = random_model(family, PlainMemory(plan.device), plan.dtype, 1, changes)
        first, second = MODALITIES[:2]
        self.model.networks[second] = self.model.networks[first]
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
        """A row of the table."""
        request = self.request(controls)

        def picture() -> Tensor:
            return generate(self.model, request).images

        if controls not in self.known:
            self.known[controls] = picture()
        as_it_is, with_it = [self.known[controls]], []
        with choice.around(self.model):
            first = seconds(lambda: with_it.append(picture()))
        result = interleaved(
            lambda: as_it_is.append(picture()),
            lambda: with_it.append(picture()),
            self.plan.rounds,
            lambda: choice.around(self.model),
        )
        if all(torch.equal(image, as_it_is[0]) for image in as_it_is):
            same = compared(as_it_is[0], with_it)
        else:
            # On a CPU nothing is left to chance: then the choice has left something behind.
            assert self.plan.device.type != "cpu", f"{choice.name} leaves a trace"
            same = "no run repeats another"
        times = [f"{value:.2f} s" for value in (result.theirs, result.ours)]
        return [self.family.value, str(controls), choice.name, *times, f"{result.ratio:.3f}", f"{first:.1f} s", same]


def compared(before: Tensor, after: Sequence[Tensor]) -> str:
    if all(torch.equal(before, image) for image in after):
        return "yes"
    return f"no, by up to {max(float((before - image).abs().max()) for image in after) * 255:.2g} of 255"


def rows(plan: Plan, only: str, left_out: list[str]) -> Iterator[list[str]]:
    for family in FAMILIES:
        wanted = [(c, controls) for c, controls in choices(FACTS[family].flow) if only in f"{family.value} {c.name}"]
        bench = Bench(family, plan) if wanted else None
        for choice, controls in wanted:
            assert bench is not None
            try:
                yield bench.measure(choice, controls)
            except (ControlStackError, ImportError, RuntimeError, TypeError, ValueError) as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                left_out.append(f"Left out on {family.value}: {choice.name}: {lines[0][:150]}")
        del bench
        torch.compiler.reset()
        gc.collect()


def main(arguments: Sequence[str] | None = None) -> None:
    plan, only = planned(arguments)
    if plan.device.type == "cpu":
        torch.set_num_threads(THREADS)
    warnings.filterwarnings("ignore", category=UserWarning)  # PyTorch explains each kernel that it cannot take
    set_verbosity_error()
    where = torch.cuda.get_device_name() if plan.device.type == "cuda" else f"CPU with {THREADS} threads"
    side = f"{plan.side}x{plan.side}" if plan.side else "the families' own sizes"
    print(
        f"{where}, {plan.dtype}, {side}, {plan.steps} steps, medians of {plan.rounds} pairs, torch {torch.__version__}"
    )
    left_out: list[str] = []
    print_table(HEADS, rows(plan, only, left_out))
    print("\n".join(left_out))


def planned(arguments: Sequence[str] | None) -> tuple[Plan, str]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, help="of the picture, in pixels")
    parser.add_argument("--rounds", type=int, help="pairs of runs per choice")
    parser.add_argument("--only", default="", help="the choices with this in their family or name")
    parser.add_argument("--rehearse", action="store_true", help="tiny networks: shows that it runs, measures nothing")
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
