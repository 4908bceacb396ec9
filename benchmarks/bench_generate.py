"""Overhead of the local engine over the plain diffusers pipeline: same weights, seed and steps, identical image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.core.scheduler import SchedulerChoice
from controlstack.local.generate import generate
from controlstack.local.model import DEMO_MODEL, LocalModel, load_model
from controlstack.local.schedulers import make_scheduler
from controlstack.tools.demo_scenes import draw_scene
from diffusers import MultiControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from torch import Tensor

ROUNDS = 7
SCENE = draw_scene(7, person=True)
MAPS = {Modality.CANNY: SCENE.canny, Modality.DEPTH: SCENE.depth, Modality.OPENPOSE: SCENE.openpose}


def request_with(count: int) -> GenerationRequest:
    units = [ControlUnit(modality, torch.from_numpy(image).float()[None] / 255) for modality, image in MAPS.items()]
    return GenerationRequest(SCENE.caption, width=128, height=128, seed=1, controls=tuple(units[:count]))


def plain(model: LocalModel, request: GenerationRequest) -> Callable[[], Tensor]:
    """The pipeline as a script would call it, built once, outside the measured time."""
    parts = {**model.components, "scheduler": make_scheduler(SchedulerChoice(), model.scheduler_config)}
    inputs = {}
    if request.controls:
        nets = MultiControlNetModel([model.net(control.modality) for control in request.controls])
        pipeline = StableDiffusionControlNetPipeline(**parts, controlnet=nets, requires_safety_checker=False)
        inputs = {
            "image": [control.image.movedim(-1, 1) for control in request.controls],
            "controlnet_conditioning_scale": [1.0] * len(request.controls),
        }
    else:
        pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)

    def run() -> Tensor:
        return pipeline(
            request.prompt,
            **inputs,
            width=request.width,
            height=request.height,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="pt",
        ).images.movedim(1, -1)

    return run


def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    image = run()
    return time.perf_counter() - started, image


def main() -> None:
    model = load_model(DEMO_MODEL, "demo", torch.device("cpu"), torch.float32)
    print(f"21 steps, 128x128, CPU with {torch.get_num_threads()} threads, medians of {ROUNDS} interleaved rounds")
    print("| controls | diffusers | ControlStack | ratio |")
    print("|---|---|---|---|")
    for count in range(len(MAPS) + 1):
        request = request_with(count)
        by_hand, ours = plain(model, request), lambda request=request: generate(model, request).images
        assert torch.equal(by_hand(), ours()), "the two must make the same image"
        pairs = [(seconds(by_hand)[0], seconds(ours)[0]) for _ in range(ROUNDS)]
        theirs, mine = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"| {count} | {theirs:.2f} s | {mine:.2f} s | {mine / theirs:.3f} |")


if __name__ == "__main__":
    main()
