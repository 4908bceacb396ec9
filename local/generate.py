"""One generation, from the request to the images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import GenerationFailed, OutOfMemory
from ..core.images import control_image, to_rgb
from ..core.request import ControlUnit, GenerationRequest, ImageReference, acts_at
from ..core.validate import ensure_valid
from .model import LocalModel, reading
from .nets import Net
from .prompt import encode_prompts
from .schedulers import make_scheduler

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A finished denoising step; `preview()` gives a small picture, uint8 [h, w, 3]."""

    number: int
    total: int
    preview: Callable[[], Tensor]


@dataclass(frozen=True)
class Generation:
    """Images float32 [batch, height, width, 3] in 0..1; image i came from `seeds[i]` and can be made alone from it.

    `nets` are the names of the ControlNets that ran, in the order of the stack.
    """

    images: Tensor
    seeds: tuple[int, ...]
    scheduler: str
    nets: tuple[str, ...]
    seconds: Mapping[str, float]


def generate(
    model: LocalModel, request: GenerationRequest, on_step: Callable[[Step], None] = lambda step: None
) -> Generation:
    """Run the request on the model.

    `on_step` is called after every step; what it raises stops the generation and is passed on. Raises InvalidRequest
    with every problem before anything runs, OutOfMemory, or GenerationFailed when the result is not an image.
    """
    import torch

    ensure_valid(request, model.capabilities())
    started = time.perf_counter()
    seeds = tuple((request.seed + index) % 2**64 for index in range(request.batch_size))
    controls = [control for control in request.controls if control.strength > 0]
    references = [reference for reference in request.references if reference.scale > 0]
    known = model.nets()
    nets = [known[control.modality] for control in controls]
    try:
        pipeline = _pipeline(model, request, nets)
        model.bring(*(part for part in model.components.values() if isinstance(part, torch.nn.Module)))
        with _applied(references, pipeline, model, request) as (reference_inputs, scale_references):
            prepared = time.perf_counter()

            def after_step(pipe: Any, index: int, _time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
                total = pipe.num_timesteps
                scale_references(index + 1, total)
                on_step(Step(index + 1, total, lambda: model.preview(values["latents"])))
                return values

            planes = pipeline(
                **_prompts(model, request),
                **_hints(request, controls),
                **reference_inputs,
                width=request.width,
                height=request.height,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="pt",
                callback_on_step_end=after_step,
            ).images
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"{model.device} has too little memory for {request.batch_size} x {request.width}x{request.height} with "
            f"{len(controls)} controls. Lower batch_size or the size, or close other programs that use it."
        ) from error
    images = planes.movedim(1, -1).float().cpu()
    if not bool(images.isfinite().all()):
        raise GenerationFailed(
            f"The result holds values that are not numbers, which {model.dtype} can cause. Set precision to fp32."
        )
    finished = time.perf_counter()
    seconds = {"prepare": round(prepared - started, 3), "generate": round(finished - prepared, 3)}
    return Generation(
        images=images,
        seeds=seeds,
        scheduler=type(pipeline.scheduler).__name__,
        nets=tuple(net.name for net in nets),
        seconds=seconds,
    )


def _pipeline(model: LocalModel, request: GenerationRequest, nets: Sequence[Net]) -> Any:
    from diffusers import MultiControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

    components = {
        **model.components,
        "scheduler": make_scheduler(request.scheduler, model.scheduler_config),
        "requires_safety_checker": False,
    }
    if nets:
        networks = [model.net(net) for net in nets]
        model.bring(*networks)
        pipeline = StableDiffusionControlNetPipeline(**components, controlnet=MultiControlNetModel(networks))
    else:
        pipeline = StableDiffusionPipeline(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _prompts(model: LocalModel, request: GenerationRequest) -> dict[str, Tensor]:
    texts = (request.prompt, request.negative_prompt)
    encoder = (model.components["tokenizer"], model.components["text_encoder"])
    positive, negative = encode_prompts(texts, *encoder, request.clip_skip)
    count = request.batch_size
    return {"prompt_embeds": positive.repeat(count, 1, 1), "negative_prompt_embeds": negative.repeat(count, 1, 1)}


def _hints(request: GenerationRequest, controls: Sequence[ControlUnit]) -> dict[str, list]:
    if not controls:
        return {}
    size = (request.width, request.height)
    return {
        "image": [control_image(control, *size).movedim(-1, 1) for control in controls],
        "controlnet_conditioning_scale": [float(control.strength) for control in controls],
        "control_guidance_start": [control.start for control in controls],
        "control_guidance_end": [control.end for control in controls],
    }


@contextmanager
def _applied(
    references: Sequence[ImageReference], pipeline: Any, model: LocalModel, request: GenerationRequest
) -> Iterator[tuple[dict[str, Any], Callable[[int, int], None]]]:
    """The pipeline with one IP-Adapter per reference: its inputs, and a function that sets the scales for a step."""
    if not references:
        yield {}, lambda step, steps: None
        return

    def set_scales(step: int, steps: int) -> None:
        pipeline.set_ip_adapter_scale([r.scale if acts_at(r, step, steps) else 0.0 for r in references])

    pictures = [[_to_picture(frame) for frame in to_rgb(reference.image)] for reference in references]
    adapters = [model.adapter(reference.kind) for reference in references]
    unnamed = [""] * len(adapters)
    try:
        with reading(model.source / "ip_adapter"):
            pipeline.load_ip_adapter(adapters, subfolder=unnamed, weight_name=unnamed)
        set_scales(0, request.steps)
        yield {"ip_adapter_image": pictures}, set_scales
    finally:
        pipeline.unload_ip_adapter()


def _to_picture(frame: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(frame.clamp(0, 1).mul(255).round().byte().cpu().numpy())
