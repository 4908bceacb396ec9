"""Steps per second and peak memory on a GPU, compared with the plain diffusers pipeline.

Models have real size, random weights and bf16, at the image size that each family was trained for. ControlNets act at
every step, so that windows save nothing. Without a GPU it prints a message and ends. `--rehearse` runs the same code
with tiny networks on any device: it shows that the script works, and measures nothing.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from controlstack.benchmarks.plain import plain_pipeline
from controlstack.benchmarks.random_models import MODALITIES, TINY, USUAL, random_map, random_model
from controlstack.benchmarks.timing import interleaved, print_table
from controlstack.core.memory import PlainMemory
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.models.families import Family

FAMILIES = (Family.SD15, Family.SDXL, Family.FLUX_DEV)
NETS = (0, 1, 3)


@dataclass(frozen=True)
class Plan:
    """What is measured; `side` is the side of the images in pixels, 0 for the size that a family was trained for."""

    rounds: int = 3
    steps: int = 20
    side: int = 0
    tiny: bool = False


REHEARSAL = Plan(rounds=1, steps=2, side=64, tiny=True)


def measure(family: Family, device: torch.device, plan: Plan) -> list[list[str]]:
    memory = PlainMemory(device)
    model = random_model(family, memory, torch.bfloat16, max(NETS), TINY[family] if plan.tiny else None)
    side = plan.side or USUAL[family].side
    controls = tuple(ControlUnit(modality, random_map(side, seed)) for seed, modality in enumerate(MODALITIES))
    rows = []
    for count in sorted(NETS, reverse=True):
        idle = [model.nets[modality] for modality in MODALITIES[count:]]
        memory.unload(idle)  # networks that are not used must not count for the peak
        request = GenerationRequest(
            "a circle",
            width=side,
            height=side,
            steps=plan.steps,
            guidance_scale=USUAL[family].guidance,
            controls=controls[:count],
        )
        pipeline = plain_pipeline(model.model, request, model.inventory)

        # The pipeline does not wait for the device, but the copy does. The engine's images are on the CPU already.
        def plain(run: Callable[[], torch.Tensor] = pipeline) -> torch.Tensor:
            return run().float().cpu()

        def ours(request: GenerationRequest = request) -> torch.Tensor:
            return model.generate(request)

        same = torch.equal(plain(), ours())
        result = interleaved(plain, ours, plan.rounds)
        rates = [f"{plan.steps / seconds:.2f}" for seconds in (result.theirs, result.ours)]
        peaks = [peak_of(run, device) for run in (plain, ours)]
        title = f"{family.value} {side}x{side}"
        rows.append([title, str(count), *rates, f"{result.ratio:.3f}", *peaks, "yes" if same else "no"])
    return rows[::-1]


def peak_of(run: Callable[[], object], device: torch.device) -> str:
    if device.type != "cuda":
        return "-"
    torch.cuda.reset_peak_memory_stats()
    run()
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rehearse", action="store_true", help="use tiny networks, to check that the script runs")
    plan = REHEARSAL if parser.parse_args(arguments).rehearse else Plan()
    gpu = torch.cuda.is_available()
    if not gpu and not plan.tiny:
        print("There is no GPU: the figures of docs/performance.md that need one are not measured.")
        return
    device = torch.device("cuda" if gpu else "cpu")
    name = torch.cuda.get_device_name() if gpu else "CPU"
    print(f"{name}, bf16, {plan.steps} steps with everything around them, torch {torch.__version__}")
    if plan.tiny:
        print("A rehearsal with tiny networks: the figures mean nothing.")
    rows = []
    for family in FAMILIES:
        try:
            rows += measure(family, device, plan)
        except torch.OutOfMemoryError as error:
            print(f"{family.value} is skipped: it does not fit this GPU ({str(error).partition('.')[0]}).")
        gc.collect()
        torch.cuda.empty_cache()
    sides = ["diffusers", "ControlStack"]
    heads = ["model", "nets", *(f"{side} it/s" for side in sides), "ratio of time", *(f"{side} peak" for side in sides)]
    print_table([*heads, "same image"], rows)


if __name__ == "__main__":
    main()
