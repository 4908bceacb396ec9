"""The plain diffusers pipeline, called as in a script: the baseline for the local engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from controlstack.core.request import GenerationRequest
from controlstack.core.scheduler import SchedulerChoice
from controlstack.local.engine.inventory import Inventory, inventory_of
from controlstack.local.files.request_networks import control_network
from controlstack.local.model.local_model import LocalModel
from controlstack.local.schedulers.factory import make_scheduler
from controlstack.models.families import Family
from torch import Tensor

# The pipeline class without ControlNets, the class with them, and its argument for the maps.
PIPELINES = {
    Family.SD15: ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline", "image"),
    Family.SDXL: ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline", "image"),
    Family.FLUX_DEV: ("FluxPipeline", "FluxControlNetPipeline", "control_image"),
}
_OPTIONS = {"requires_safety_checker": False, "add_watermarker": False, "safety_checker": None}


def _as_pipeline_input(image: Tensor, flux: bool) -> Tensor:
    """A map [batch, height, width, 3] as a pipeline takes it: [batch, 3, height, width], for FLUX in -1..1."""
    planes = image.movedim(-1, 1)
    return 2 * planes - 1 if flux else planes


def plain_pipeline(
    model: LocalModel, request: GenerationRequest, inventory: Inventory | None = None
) -> Callable[[], Tensor]:
    """Build the pipeline; returns a function that makes the images [batch, height, width, 3] of the request."""
    without, controlled, maps = PIPELINES[model.family.compatible_family]
    kind = getattr(diffusers, controlled if request.controls else without)
    scheduler = make_scheduler(SchedulerChoice(), model.scheduler_config)
    parts: dict[str, Any] = {**_OPTIONS, **model.components, "scheduler": scheduler}
    inputs: dict[str, Any] = {}
    if request.controls:
        known = (inventory or inventory_of(model)).nets
        nets = [control_network(model, known[control.modality]).module for control in request.controls]
        stack = diffusers.FluxMultiControlNetModel if model.facts.flow else diffusers.MultiControlNetModel
        parts["controlnet"] = stack(nets)
        inputs = {
            maps: [_as_pipeline_input(control.image, model.facts.flow) for control in request.controls],
            "controlnet_conditioning_scale": [control.strength for control in request.controls],
            "control_guidance_start": [control.start for control in request.controls],
            "control_guidance_end": [control.end for control in request.controls],
        }
        if model.facts.flow:
            inputs["control_mode"] = [None] * len(nets)
    accepted = inspect.signature(kind.__init__).parameters
    pipeline = kind(**{name: part for name, part in parts.items() if name in accepted})
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
