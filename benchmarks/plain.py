"""The plain diffusers pipeline, called as a script would call it: what the local engine is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from controlstack.core.request import GenerationRequest
from controlstack.core.scheduler import SchedulerChoice
from controlstack.local.model import LocalModel
from controlstack.local.schedulers import make_scheduler
from diffusers import MultiControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from torch import Tensor


def plain_pipeline(model: LocalModel, request: GenerationRequest) -> Callable[[], Tensor]:
    """A function that makes the request's images [batch, height, width, 3]; the pipeline is built beforehand."""
    parts = {**model.components, "scheduler": make_scheduler(SchedulerChoice(), model.scheduler_config)}
    inputs = {}
    if request.controls:
        known = model.nets()
        nets = MultiControlNetModel([model.net(known[control.modality]) for control in request.controls])
        pipeline = StableDiffusionControlNetPipeline(**parts, controlnet=nets, requires_safety_checker=False)
        inputs = {
            "image": [control.image.movedim(-1, 1) for control in request.controls],
            "controlnet_conditioning_scale": [control.strength for control in request.controls],
            "control_guidance_start": [control.start for control in request.controls],
            "control_guidance_end": [control.end for control in request.controls],
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
