"""Overhead of the local engine over the plain diffusers pipeline: same weights, seed and steps, identical image.

The engine reports every step with a preview, as the node does; the pipeline reports nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from controlstack.benchmarks.plain import plain_pipeline
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.local.generate import generate
from controlstack.local.model import DEMO_MODEL, load_model
from controlstack.tools.demo_scenes import draw_scene
from torch import Tensor

ROUNDS = 7
THREADS = 2
SCENE = draw_scene(7, person=True)
MAPS = {Modality.CANNY: SCENE.canny, Modality.DEPTH: SCENE.depth, Modality.OPENPOSE: SCENE.openpose}


def request_with(count: int) -> GenerationRequest:
    units = [ControlUnit(modality, torch.from_numpy(image).float()[None] / 255) for modality, image in MAPS.items()]
    return GenerationRequest(SCENE.caption, width=128, height=128, seed=1, controls=tuple(units[:count]))


def seconds(run: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    torch.set_num_threads(THREADS)
    model = load_model(DEMO_MODEL, "demo", PlainMemory(torch.device("cpu")), torch.float32)
    print(f"21 steps, 128x128, CPU with {THREADS} threads, medians of {ROUNDS} interleaved rounds")
    print("| controls | diffusers | ControlStack | ratio |")
    print("|---|---|---|---|")
    for count in range(len(MAPS) + 1):
        request = request_with(count)
        plain = plain_pipeline(model, request)

        def ours(request: GenerationRequest = request) -> Tensor:
            return generate(model, request, lambda step: step.preview()).images

        assert torch.equal(plain(), ours()), "the two must make the same image"
        pairs = [(seconds(plain), seconds(ours)) for _ in range(ROUNDS)]
        theirs, mine = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"| {count} | {theirs:.2f} s | {mine:.2f} s | {mine / theirs:.3f} |")
    print("The bar for one control is 3 s.")


if __name__ == "__main__":
    main()
