"""Steps per second and peak memory on a GPU, against the plain diffusers pipeline.

Models of real size with random weights in bf16, at the size each family was trained for; nets act at every step, so
that nothing is gained by windows. Says so and ends where there is no GPU.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from controlstack.benchmarks.plain import plain_pipeline
from controlstack.benchmarks.random_models import MODALITIES, let_nets_act, random_model
from controlstack.benchmarks.timing import interleaved, print_table
from controlstack.core.memory import PlainMemory
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.local.families import FACTS, Family
from controlstack.local.generate import generate

ROUNDS = 3
STEPS = 20
NETS = (0, 1, 3)


def peak_of(run: Callable[[], object]) -> float:
    """GiB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def measure(family: Family, device: torch.device) -> list[list[str]]:
    model = random_model(family, PlainMemory(device), torch.bfloat16, nets=max(NETS))
    let_nets_act(list(model.networks.values()))
    side = FACTS[family].size
    controls = tuple(ControlUnit(modality, torch.rand(1, side, side, 3)) for modality in MODALITIES)
    rows = []
    for count in NETS:
        request = GenerationRequest(
            "a circle",
            width=side,
            height=side,
            steps=STEPS,
            guidance_scale=FACTS[family].guidance,
            controls=controls[:count],
        )
        plain = plain_pipeline(model, request)

        def ours(request: GenerationRequest = request) -> object:
            return generate(model, request).images

        same = torch.equal(plain().cpu().float(), generate(model, request).images)
        result = interleaved(plain, ours, ROUNDS)
        rates = [f"{STEPS / seconds:.2f}" for seconds in (result.theirs, result.ours)]
        peaks = [f"{peak_of(run):.1f} GiB" for run in (plain, ours)]
        title = f"{family.value} {side}x{side}"
        rows.append([title, str(count), *rates, f"{result.ratio:.3f}", *peaks, "yes" if same else "no"])
    return rows


def main() -> None:
    if not torch.cuda.is_available():
        print("No GPU is at hand: the figures of docs/performance.md that need one are not measured.")
        return
    print(f"{torch.cuda.get_device_name()}, bf16, {STEPS} steps with everything around them, torch {torch.__version__}")
    rows = []
    for family in (Family.SD15, Family.SDXL, Family.FLUX_DEV):
        rows += measure(family, torch.device("cuda"))
        gc.collect()
        torch.cuda.empty_cache()
    sides = ["diffusers", "ControlStack"]
    heads = ["model", "nets", *(f"{side} it/s" for side in sides), "ratio of time", *(f"{side} peak" for side in sides)]
    print_table([*heads, "same image"], rows)


if __name__ == "__main__":
    main()
