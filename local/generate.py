"""One generation, from the request to the images."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import GenerationFailed, OutOfMemory
from ..core.request import ControlUnit, GenerationRequest, ImageReference
from ..core.validate import ensure_valid
from .adapters import adapters_applied, reference_inputs
from .controlnets import flux_control_stack, hints_encoded_once, unet_control_stack
from .inputs import control_inputs, is_guided, keep_unmasked, net_controls, start_inputs, text_inputs
from .loras import loras_applied
from .model import LocalModel
from .nets import Net
from .pipelines import Task, pipeline_kind, task_of
from .schedulers import make_scheduler

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A finished denoising step; `preview()` gives a small picture, uint8 [h, w, 3]."""

    number: int
    total: int
    seconds_left: float
    preview: Callable[[], Tensor]


@dataclass(frozen=True)
class Generation:
    """Images float32 [batch, height, width, 3] in 0..1; image i came from `seeds[i]` and can be made alone from it.

    `nets` are the names of the ControlNets that ran, in the order of the stack.
    """

    images: Tensor
    seeds: tuple[int, ...]
    family: str
    task: str
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
    run = _Run.of(model, request)
    try:
        with loras_applied(model, request.loras) as loras:
            pipeline, inputs = run.prepare(loras)
            prepared = time.perf_counter()
            planes = run.denoise(pipeline, inputs, on_step)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"{model.device} has too little memory for {request.batch_size} x {request.width}x{request.height} with "
            f"{len(run.controls)} controls. Lower batch_size or the size, or close other programs that use it."
        ) from error
    images = planes.movedim(1, -1).float().cpu()
    if not bool(images.isfinite().all()):
        raise GenerationFailed(
            f"The result holds values that are not numbers, which {model.dtype} can cause. Set precision to fp32."
        )
    if run.task is Task.INPAINT:
        images = keep_unmasked(request, images)
    finished = time.perf_counter()
    return Generation(
        images=images,
        seeds=run.seeds,
        family=model.family.value,
        task=run.task.value,
        scheduler=type(pipeline.scheduler).__name__,
        nets=tuple(net.name for net in run.nets),
        seconds={"prepare": round(prepared - started, 3), "generate": round(finished - prepared, 3)},
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """A valid request and what of the model takes part in it."""

    model: LocalModel
    request: GenerationRequest
    task: Task
    seeds: tuple[int, ...]
    controls: Sequence[ControlUnit]
    nets: Sequence[Net]
    references: Sequence[ImageReference]

    @classmethod
    def of(cls, model: LocalModel, request: GenerationRequest) -> _Run:
        controls = [control for control in request.controls if control.strength != 0]
        known = model.nets()
        return cls(
            model=model,
            request=request,
            task=task_of(request),
            seeds=tuple((request.seed + index) % 2**64 for index in range(request.batch_size)),
            controls=controls,
            nets=[known[control.modality] for control in controls],
            references=[reference for reference in request.references if reference.scale != 0],
        )

    def prepare(self, loras: object) -> tuple[Any, dict[str, Any]]:
        """The pipeline and what it is called with; text and references are embedded here."""
        model, request, guided = self.model, self.request, is_guided(self.model, self.request)
        kind = pipeline_kind(model.family, self.task, bool(self.controls))
        units = net_controls(model, request, self.controls, self.nets)
        inputs = {
            **text_inputs(model, request, loras),
            **reference_inputs(model, self.references, request.width, request.height, guided),
            **start_inputs(request),
            **control_inputs(model, request, self.controls, self.nets, kind.hints),
        }
        # The pipelines are given embeddings, so they need no text encoders, which may lie elsewhere by now.
        without_text = dict.fromkeys((*model.facts.text_encoders, *model.facts.tokenizers))
        scheduler = make_scheduler(request.scheduler, model.scheduler_config)
        parts = {**model.components, **without_text, "scheduler": scheduler}
        if units:
            flow = model.facts.flow
            parts["controlnet"] = (
                flux_control_stack(units, model.denoiser) if flow else unet_control_stack(units, guided)
            )
        return kind.build(parts), inputs

    def denoise(self, pipeline: Any, inputs: Mapping[str, Any], on_step: Callable[[Step], None]) -> Tensor:
        """The images [batch, 3, height, width]; `on_step` is called after every step."""
        import torch

        model, request = self.model, self.request
        units = pipeline.controlnet.forward.controls if self.controls else []
        model.bring(model.denoiser, model.components["vae"], *{id(unit.net): unit.net for unit in units}.values())
        with adapters_applied(pipeline, model, self.references) as scale_references, hints_encoded_once(units):
            scale_references(0, request.steps)
            started = time.perf_counter()

            def after_step(pipe: Any, index: int, _time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
                done, total = index + 1, pipe.num_timesteps
                scale_references(done, total)
                left = (time.perf_counter() - started) / done * (total - done)
                on_step(Step(done, total, left, lambda: model.preview(self._latents(pipe, values["latents"]))))
                return values

            return pipeline(
                **inputs,
                **_size(pipeline, request),
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in self.seeds],
                output_type="pt",
                callback_on_step_end=after_step,
            ).images

    def _latents(self, pipeline: Any, latents: Tensor) -> Tensor:
        """[batch, channels, h, w]; FLUX packs them into tokens."""
        if not self.model.facts.flow:
            return latents
        return pipeline._unpack_latents(latents, self.request.height, self.request.width, pipeline.vae_scale_factor)


def _size(pipeline: Any, request: GenerationRequest) -> dict[str, int]:
    """Where a pipeline does not take the size, it is that of the picture it starts from."""
    size = {"width": request.width, "height": request.height}
    return size if "width" in inspect.signature(pipeline.__call__).parameters else {}
