"""The diffusers pipeline for each family and task, and the names of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ...core.request import GenerationRequest
from ...models.families import Family


class Task(StrEnum):
    """What a request starts from: noise, an image, or the unmasked part of an image."""

    TEXT_TO_IMAGE = "txt2img"
    IMAGE_TO_IMAGE = "img2img"
    INPAINT = "inpaint"


def task_of(request: GenerationRequest) -> Task:
    """The task of a valid request."""
    if request.init_image is None:
        return Task.TEXT_TO_IMAGE
    return Task.IMAGE_TO_IMAGE if request.mask is None else Task.INPAINT


@dataclass(frozen=True)
class PipelineKind:
    """A diffusers pipeline class by name; `hints` is its argument for the control maps."""

    name: str
    hints: str = "control_image"

    def build(self, parts: Mapping[str, Any]) -> Any:
        """The pipeline with these components. Those that its class does not take are ignored."""
        import diffusers

        kind = getattr(diffusers, self.name)
        known = inspect.signature(kind.__init__).parameters
        given = {**_OPTIONS, **parts}
        pipeline = kind(**{name: part for name, part in given.items() if name in known})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


# A watermark would change the image. A missing safety checker is intended, so diffusers must not warn about it.
_OPTIONS = {"add_watermarker": False, "requires_safety_checker": False, "safety_checker": None}

_TABLE: Mapping[tuple[Family, Task, bool], PipelineKind] = {
    (Family.SD15, Task.TEXT_TO_IMAGE, False): PipelineKind("StableDiffusionPipeline"),
    (Family.SD15, Task.IMAGE_TO_IMAGE, False): PipelineKind("StableDiffusionImg2ImgPipeline"),
    (Family.SD15, Task.INPAINT, False): PipelineKind("StableDiffusionInpaintPipeline"),
    (Family.SD15, Task.TEXT_TO_IMAGE, True): PipelineKind("StableDiffusionControlNetPipeline", hints="image"),
    (Family.SD15, Task.IMAGE_TO_IMAGE, True): PipelineKind("StableDiffusionControlNetImg2ImgPipeline"),
    (Family.SD15, Task.INPAINT, True): PipelineKind("StableDiffusionControlNetInpaintPipeline"),
    (Family.SDXL, Task.TEXT_TO_IMAGE, False): PipelineKind("StableDiffusionXLPipeline"),
    (Family.SDXL, Task.IMAGE_TO_IMAGE, False): PipelineKind("StableDiffusionXLImg2ImgPipeline"),
    (Family.SDXL, Task.INPAINT, False): PipelineKind("StableDiffusionXLInpaintPipeline"),
    (Family.SDXL, Task.TEXT_TO_IMAGE, True): PipelineKind("StableDiffusionXLControlNetPipeline", hints="image"),
    (Family.SDXL, Task.IMAGE_TO_IMAGE, True): PipelineKind("StableDiffusionXLControlNetImg2ImgPipeline"),
    (Family.SDXL, Task.INPAINT, True): PipelineKind("StableDiffusionXLControlNetInpaintPipeline"),
    (Family.FLUX_DEV, Task.TEXT_TO_IMAGE, False): PipelineKind("FluxPipeline"),
    (Family.FLUX_DEV, Task.IMAGE_TO_IMAGE, False): PipelineKind("FluxImg2ImgPipeline"),
    (Family.FLUX_DEV, Task.INPAINT, False): PipelineKind("FluxInpaintPipeline"),
    (Family.FLUX_DEV, Task.TEXT_TO_IMAGE, True): PipelineKind("FluxControlNetPipeline"),
    (Family.FLUX_DEV, Task.IMAGE_TO_IMAGE, True): PipelineKind("FluxControlNetImg2ImgPipeline"),
    (Family.FLUX_DEV, Task.INPAINT, True): PipelineKind("FluxControlNetInpaintPipeline"),
}


def pipeline_kind(family: Family, task: Task, controlled: bool) -> PipelineKind:
    """The pipeline of a family for a task, with or without ControlNets."""
    return _TABLE[family.compatible_family, task, controlled]
