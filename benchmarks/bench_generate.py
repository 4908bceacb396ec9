"""The overhead of the local engine over the plain diffusers pipeline: same weights, seed and steps, same image.

The engine reports every step with a preview, as the node does; the pipeline reports nothing. All runs have the same
prompt, which the engine encodes once.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from unittest.mock import patch

import torch
from controlstack.benchmarks.plain import plain_pipeline
from controlstack.benchmarks.timing import interleaved, print_table, seconds
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.local.engine.generate import generate
from controlstack.local.files import request_networks
from controlstack.local.files.load import load_model
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.source import DEMO_MODEL, source_of
from controlstack.tools.demo_scenes import draw_scene
from diffusers import StableDiffusionControlNetPipeline
from torch import Tensor

ROUNDS = 7
THREADS = 2
SCENE = draw_scene(7, person=True)
MAPS = {Modality.CANNY: SCENE.canny, Modality.DEPTH: SCENE.depth, Modality.OPENPOSE: SCENE.openpose}
WINDOWS = {"whole": [(0, 1)] * 3, "windows": [(0, 0.5), (0, 1), (0.3, 0.8)]}


def request_with(count: int, windows: str = "whole") -> GenerationRequest:
    units = [
        ControlUnit(modality, torch.from_numpy(image).float()[None] / 255, start=start, end=end)
        for (modality, image), (start, end) in zip(MAPS.items(), WINDOWS[windows], strict=True)
    ]
    return GenerationRequest(SCENE.caption, width=128, height=128, seed=1, controls=tuple(units[:count]))


def run_with_previews(model: LocalModel, request: GenerationRequest) -> Tensor:
    return generate(model, request, lambda step: step.preview()).images


def compare_with_the_plain_pipeline(model: LocalModel) -> None:
    print(f"21 steps, 128x128, CPU with {THREADS} threads, medians of {ROUNDS} interleaved rounds; bar: 1.02")
    rows = []
    for count, windows in [(0, "whole"), (1, "whole"), (1, "windows"), (2, "windows"), (3, "whole"), (3, "windows")]:
        request = request_with(count, windows)
        plain = plain_pipeline(model, request)
        assert torch.equal(plain(), run_with_previews(model, request)), "both must make the same image"
        result = interleaved(plain, lambda request=request: run_with_previews(model, request), ROUNDS)
        spans = ", ".join(f"{control.start:g}-{control.end:g}" for control in request.controls) or "-"
        rows.append([str(count), spans, f"{result.theirs:.2f} s", f"{result.ours:.2f} s", f"{result.ratio:.3f}"])
    print_table(["controls", "windows", "diffusers", "ControlStack", "ratio"], rows)


def measure_a_second_run(model: LocalModel) -> None:
    """The time that a second run with another seed spends outside the pipeline; it must not load or encode again."""
    request = request_with(1)
    generate(model, request, lambda step: step.preview())
    encoder = model.components["text_encoder"]
    inside, overheads = [0.0], []
    run_pipeline = StableDiffusionControlNetPipeline.__call__

    def timed(*args: object, **options: object) -> object:
        results = []
        inside[0] = seconds(lambda: results.append(run_pipeline(*args, **options)))
        return results[0]

    with (
        patch.object(StableDiffusionControlNetPipeline, "__call__", timed),
        patch.object(encoder, "forward", side_effect=AssertionError("the prompt was encoded again")),
        patch.object(request_networks, "load_net", side_effect=AssertionError("a net was loaded again")),
    ):
        for seed in range(2, 2 + ROUNDS):
            whole = seconds(lambda seed=seed: generate(model, replace(request, seed=seed)))
            overheads.append(whole - inside[0])
    overhead = statistics.median(overheads) * 1000
    print(f"\nSecond run, new seed, one control: no load, no text encoding, {overhead:.1f} ms outside; bar: 50 ms")


def main() -> None:
    torch.set_num_threads(THREADS)
    model = load_model(source_of(DEMO_MODEL), "demo", PlainMemory(torch.device("cpu")), torch.float32)
    compare_with_the_plain_pipeline(model)
    measure_a_second_run(model)


if __name__ == "__main__":
    main()
