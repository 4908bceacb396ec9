"""One generation, from the request to the images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import GenerationFailed, InvalidRequest, OutOfMemory, Problem
from ..core.images import fit_image
from ..core.memory import Offload, is_out_of_memory
from ..core.request import GenerationRequest, Resize
from ..core.scheduler import SchedulerChoice, SchedulerName
from .inputs import init_latents, keep_unmasked
from .loras import ActiveLoras, loras_applied
from .model import LocalModel
from .offload import run_offloaded
from .pipelines import Task, task_of
from .run import Listener, Prepared, Run
from .schedulers import make_inversion, make_scheduler
from .tiled_diffusion import tiling_problems
from .token_merging import tokens_merged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Generation:
    """Images float32 [batch, height, width, 3] in 0..1; image i came from `seeds[i]` and can be made alone from it.

    `scheduler` is the class that ran, `nets` are the names of the ControlNets in the order of the stack, `offload` is
    the mode of memory it ran in, `notes` say what was done in another way than asked.
    """

    images: Tensor
    seeds: tuple[int, ...]
    family: str
    task: str
    scheduler: str
    nets: tuple[str, ...]
    offload: str
    notes: tuple[str, ...]
    seconds: Mapping[str, float]


# The share of noise on the enlarged picture when the model itself enlarges: enough for new detail, too little for a new
# composition.
UPSCALE_DENOISE = 0.5

Upscaler = Callable[["Tensor"], "Tensor"]


def generate(
    model: LocalModel,
    request: GenerationRequest,
    on_step: Listener = lambda step: None,
    upscaler: Upscaler | None = None,
    merge_tokens: float = 0.0,
    tile_size: int = 0,
) -> Generation:
    """Run the request on the model.

    `on_step` is called after every step; what it raises stops the generation and is passed on. Where the picture is to
    be twice as large, `upscaler` enlarges images [batch, h, w, 3]; without one the model draws the picture again over
    its own enlarged result. `merge_tokens` is the share of tokens that are merged (0 to 0.75), which is faster and
    makes another picture. `tile_size` is the side in pixels (a multiple of 64) of the tiles in which a UNet sees the
    picture at every step; 0 is all of it at once. Raises InvalidRequest with every problem before anything runs,
    OutOfMemory, or GenerationFailed when the result is not an image.
    """
    _ensure_possible(model, request, *tiling_problems(model, tile_size))
    with tokens_merged(model, merge_tokens):
        result = _generate_at_size(model, request, on_step, upscaler, tile_size)
    return replace(result, notes=(*result.notes, *_merging_notes(merge_tokens)))


def _generate_at_size(
    model: LocalModel, request: GenerationRequest, on_step: Listener, upscaler: Upscaler | None, tile_size: int
) -> Generation:
    """The pictures, enlarged where that is asked for."""
    if not request.upscale:
        return _generate(model, request, on_step, tile_size)
    again = _drawn_again(request)
    size = (again.width, again.height)
    if upscaler is None:
        _ensure_possible(model, again)
    first = _generate(model, replace(request, upscale=False), on_step, tile_size)
    if upscaler is not None:
        return replace(first, images=fit_image(upscaler(first.images), *size, Resize.STRETCH).clamp(0, 1))
    larger = fit_image(first.images, *size, Resize.STRETCH)
    second = _generate(model, replace(again, init_image=larger), on_step, tile_size)
    seconds = {name: round(first.seconds[name] + second.seconds[name], 3) for name in second.seconds}
    return replace(second, task=first.task, scheduler=first.scheduler, seconds=seconds)


def _ensure_possible(model: LocalModel, request: GenerationRequest, *more: Problem) -> None:
    if problems := [*model.problems(request), *more]:
        raise InvalidRequest(model.name, problems)


def _drawn_again(request: GenerationRequest) -> GenerationRequest:
    """The second pass over the enlarged result, which is to become its init_image."""
    import torch

    inverts = request.scheduler.name is SchedulerName.DDIM_INVERSE  # the picture has been inverted already
    return replace(
        request,
        upscale=False,
        width=2 * request.width,
        height=2 * request.height,
        denoise=UPSCALE_DENOISE,
        init_image=torch.zeros(request.batch_size, 1, 1, 3),
        scheduler=SchedulerChoice() if inverts else request.scheduler,
    )


def _generate(model: LocalModel, request: GenerationRequest, on_step: Listener, tile_size: int) -> Generation:
    started = time.perf_counter()
    run = Run.of(model, request, tile_size)
    task = task_of(request)

    def attempt() -> tuple[Prepared, float, Tensor]:
        with loras_applied(model, request.loras) as loras:
            prepared, more = _prepare(run, loras, on_step)
            ready = time.perf_counter()
            return prepared, ready, prepared.call(on_step, **more)

    try:
        (prepared, ready, planes), offload = run_offloaded(model.memory, run.stages(), model.offload, attempt)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{model.device} has too little memory for {request.batch_size} x {request.width}x{request.height} with "
            f"{len(run.controls)} controls. Lower batch_size or the size, or close other programs that use it."
        ) from error
    images = planes.movedim(1, -1).float().cpu()
    if not bool(images.isfinite().all()):
        raise GenerationFailed(
            f"The result holds values that are not numbers, which {model.dtype} can cause. Set precision to fp32."
        )
    if task is Task.INPAINT:
        images = keep_unmasked(request, images)
    finished = time.perf_counter()
    return Generation(
        images=images,
        seeds=run.seeds,
        family=model.family.value,
        task=task.value,
        scheduler=type(prepared.pipeline.scheduler).__name__,
        nets=tuple(net.name for net in run.nets),
        offload=offload.value,
        notes=(*run.notes(), *prepared.notes(), *_memory_notes(model.offload, offload)),
        seconds={"prepare": round(ready - started, 3), "generate": round(finished - ready, 3)},
    )


def _memory_notes(asked: Offload, ran: Offload) -> Iterator[str]:
    if asked not in (Offload.AUTO, ran):
        yield f"Memory ran out with offload {asked.value}, so it ran once more with {ran.value}."


def _merging_notes(share: float) -> Iterator[str]:
    if share:
        yield f"A share of {share:.2g} of the tokens was merged: the picture is another than without."


def _prepare(run: Run, loras: ActiveLoras, on_step: Listener) -> tuple[Prepared, dict[str, Any]]:
    """The run, ready to be called, with what else to call it with."""
    model, choice = run.model, run.request.scheduler
    if choice.name is not SchedulerName.DDIM_INVERSE:
        return run.prepare(make_scheduler(choice, model.scheduler_config), loras), {}
    # Two runs from noise: the first, backwards and without a prompt, finds the noise that the picture would come from.
    inversion = make_inversion(model.scheduler_config, run.request.denoise)
    forward = replace(run.request, init_image=None, denoise=1.0)
    inverse = replace(forward, prompt="", negative_prompt="", guidance_scale=1.0, references=())
    found = Run.of(model, inverse, run.tile_size).prepare(inversion.inverse, loras)
    noise = found.call(on_step, output="latent", latents=init_latents(model, run.request))
    return Run.of(model, forward, run.tile_size).prepare(inversion.forward, loras), {"latents": noise}
