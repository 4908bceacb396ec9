"""The engine makes the image of the plain diffusers pipeline, to the last bit, for every family and task.

Documented differences: what is outside of its window or of strength 0 is not run at all; where an image is inpainted,
pixels outside of the mask are the ones that were given; prompts know weights and any length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.files.request_networks import control_network, image_encoder
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.pipelines import Task
from controlstack.local.schedulers.factory import make_scheduler
from controlstack.models.families import Family
from controlstack.tests.local.stocked import SIZE, random_image
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

FAMILIES = [Family.SD15, Family.SDXL, Family.FLUX_DEV, Family.FLUX_SCHNELL]
REQUEST = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=4, guidance_scale=3.5, seed=7)
CONTROLS = (
    ControlUnit(Modality.CANNY, 0.4 * random_image(1), strength=0.8, end=0.5),
    ControlUnit(Modality.DEPTH, random_image(2), strength=1.2, start=0.25),
)
STARTS: dict[Task, dict[str, Any]] = {
    Task.TEXT_TO_IMAGE: {},
    Task.IMAGE_TO_IMAGE: {"init_image": random_image(3), "denoise": 0.75},
    Task.INPAINT: {"init_image": random_image(3), "denoise": 1.0, "mask": torch.ones(1, SIZE, SIZE)},
}
# The class that a script would use for each case, with and without nets.
PLAIN = {
    (Family.SD15, Task.TEXT_TO_IMAGE): ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline"),
    (Family.SD15, Task.IMAGE_TO_IMAGE): ("StableDiffusionImg2ImgPipeline", "StableDiffusionControlNetImg2ImgPipeline"),
    (Family.SD15, Task.INPAINT): ("StableDiffusionInpaintPipeline", "StableDiffusionControlNetInpaintPipeline"),
    (Family.SDXL, Task.TEXT_TO_IMAGE): ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline"),
    (Family.SDXL, Task.IMAGE_TO_IMAGE): (
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
    ),
    (Family.SDXL, Task.INPAINT): ("StableDiffusionXLInpaintPipeline", "StableDiffusionXLControlNetInpaintPipeline"),
    (Family.FLUX_DEV, Task.TEXT_TO_IMAGE): ("FluxPipeline", "FluxControlNetPipeline"),
    (Family.FLUX_DEV, Task.IMAGE_TO_IMAGE): ("FluxImg2ImgPipeline", "FluxControlNetImg2ImgPipeline"),
    (Family.FLUX_DEV, Task.INPAINT): ("FluxInpaintPipeline", "FluxControlNetInpaintPipeline"),
}


def plain(model: LocalModel, request: GenerationRequest, task: Task, **more: Any) -> Tensor:
    """The image that diffusers' own pipeline makes, called as its documentation shows."""
    nets = [control_network(model, inventory_of(model).nets[control.modality]).module for control in request.controls]
    kind = getattr(diffusers, PLAIN[model.family.compatible_family, task][bool(nets)])
    parts = {**model.components, "scheduler": make_scheduler(request.scheduler, model.scheduler_config)}
    flux = model.facts.flow
    if nets:
        several = diffusers.FluxMultiControlNetModel if flux else diffusers.MultiControlNetModel
        parts["controlnet"] = several(nets)
    if flux and nets and task is not Task.TEXT_TO_IMAGE:
        del parts["image_encoder"], parts["feature_extractor"]
    if model.family is Family.SD15:
        parts["requires_safety_checker"] = False
    if model.family is Family.SDXL:
        parts["add_watermarker"] = False
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    inputs: dict[str, Any] = {"width": request.width, "height": request.height}
    if kind is diffusers.StableDiffusionImg2ImgPipeline:
        inputs = {}
    if request.init_image is not None:
        inputs |= {"image": request.init_image.movedim(-1, 1), "strength": request.denoise}
    if request.mask is not None:
        inputs["mask_image"] = request.mask[:, None]
    if flux:
        inputs["max_sequence_length"] = 256 if model.family is Family.FLUX_SCHNELL else 512
    if nets:
        hints = "image" if task is Task.TEXT_TO_IMAGE and not flux else "control_image"
        inputs |= {
            hints: [shown(control.image, flux) for control in request.controls],
            "controlnet_conditioning_scale": [control.strength for control in request.controls],
            "control_guidance_start": [control.start for control in request.controls],
            "control_guidance_end": [control.end for control in request.controls],
        }
        if flux:
            inputs["control_mode"] = [None] * len(nets)
    return pipeline(
        request.prompt,
        **{**inputs, **more},
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="pt",
    ).images.movedim(1, -1)


def shown(image: Tensor, flux: bool) -> Tensor:
    """A map as a pipeline takes it: FLUX's take images in 0..1, and tensors in -1..1."""
    planes = image.movedim(-1, 1)
    return 2 * planes - 1 if flux else planes


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("family", FAMILIES)
def test_the_image_is_that_of_the_plain_pipeline(stocked: Models, family: Family, task: Task, count: int) -> None:
    model = stocked(family)
    request = replace(REQUEST, **STARTS[task], controls=CONTROLS[:count])
    result = generate(model, request)
    assert result.task == task.value
    assert torch.equal(result.images, plain(model, request, task))


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL, Family.FLUX_DEV])
def test_a_map_gives_the_result_of_the_same_pil_image_in_a_script(stocked: Models, family: Family) -> None:
    model = stocked(family)
    image = (random_image(1) * 255).round() / 255
    request = replace(REQUEST, controls=(ControlUnit(Modality.DEPTH, image),))
    hints = "control_image" if model.facts.flow else "image"
    theirs = plain(model, request, Task.TEXT_TO_IMAGE, **{hints: [_pil(image[0])]})
    assert torch.equal(generate(model, request).images, theirs)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_an_inpainting_unet_makes_the_image_of_the_plain_pipeline(stocked_inpainting: Models, family: Family) -> None:
    model = stocked_inpainting(family)
    for count in (0, 1):
        request = replace(REQUEST, **STARTS[Task.INPAINT], controls=CONTROLS[:count])
        assert torch.equal(generate(model, request).images, plain(model, request, Task.INPAINT))


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL, Family.FLUX_DEV])
def test_two_references_make_the_image_of_the_plain_pipeline(stocked: Models, family: Family) -> None:
    model = stocked(family)
    references = (ImageReference(random_image(4, batch=2), scale=0.8), ImageReference(random_image(5), scale=0.4))
    request = replace(REQUEST, references=references)
    ours = generate(model, request).images
    adapter = next(iter(inventory_of(model).adapters.values()))
    managed, processor = image_encoder(model, adapter)
    encoder: Any = managed.module
    pipeline = getattr(diffusers, PLAIN[family, Task.TEXT_TO_IMAGE][0])
    parts = {**model.components, "image_encoder": encoder, "feature_extractor": processor}
    parts["scheduler"] = make_scheduler(request.scheduler, model.scheduler_config)
    parts |= {"requires_safety_checker": False} if family is Family.SD15 else {}
    pipeline = pipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    path = adapter.path
    pipeline.load_ip_adapter([str(path.parent)] * 2, subfolder=[""] * 2, weight_name=[path.name] * 2)
    pipeline.set_ip_adapter_scale([0.8, 0.4])
    images = [[_pil(frame) for frame in reference.image] for reference in references]
    theirs = pipeline(
        request.prompt,
        width=SIZE,
        height=SIZE,
        ip_adapter_image=images,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="pt",
    ).images.movedim(1, -1)
    pipeline.unload_ip_adapter()
    assert torch.equal(ours, theirs)


def _pil(frame: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray((frame * 255).round().byte().numpy())
