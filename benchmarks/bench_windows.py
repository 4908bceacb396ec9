"""The time that windows save: the plain pipeline runs every ControlNet at every step, outside its window too.

Networks have SD 1.5's real size; the image is small and the steps few, so that it runs on a CPU. Needs 9 GB of memory.
"""

from __future__ import annotations

import torch
from controlstack.benchmarks.plain import plain_pipeline
from controlstack.benchmarks.random_models import MODALITIES, random_map, random_model
from controlstack.benchmarks.timing import interleaved, print_table
from controlstack.core.memory import PlainMemory
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.models.families import Family

ROUNDS = 3
THREADS = 2
STEPS = 6
SIDE = 64
CASES = {
    "1 net, 0-0.5": ([(0, 0.5)], 0.90),
    "3 nets, a third each": ([(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)], 0.72),
}


def main() -> None:
    torch.set_num_threads(THREADS)
    model = random_model(Family.SD15, PlainMemory(torch.device("cpu")), torch.float32, nets=3)
    print(f"SD 1.5 size, random weights, {SIDE}x{SIDE}, {STEPS} steps, fp32, CPU with {THREADS} threads")
    rows = []
    for name, (windows, bar) in CASES.items():
        controls = tuple(
            ControlUnit(modality, random_map(SIDE, seed), start=start, end=end)
            for seed, (modality, (start, end)) in enumerate(zip(MODALITIES, windows, strict=False))
        )
        request = GenerationRequest("a circle", width=SIDE, height=SIDE, steps=STEPS, controls=controls)
        plain = plain_pipeline(model.model, request, model.inventory)
        assert torch.equal(plain(), model.generate(request)), "both must make the same image"
        result = interleaved(plain, lambda request=request: model.generate(request), ROUNDS)
        rows.append([name, f"{result.theirs:.2f} s", f"{result.ours:.2f} s", f"{result.ratio:.3f}", f"{bar:.2f}"])
    print_table(["nets and windows", "diffusers", "ControlStack", "ratio", "bar"], rows)


if __name__ == "__main__":
    main()
