"""One generation, from the request to the images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from ...core.errors import GenerationFailed, InvalidRequest, OutOfMemory
from ...core.images import fit_image
from ...core.memory import Offload, is_out_of_memory
from ...core.problems import ProblemKind
from ...core.request import GenerationRequest, Resize
from ...core.scheduler import SchedulerChoice, SchedulerName
from ..adapters.loras import ActiveLoras, loras_applied
from ..extras.block_cache import BlockCache, blocks_cached
from ..extras.safety_check import SafetyCheck, find_checker, flagged_note, load_safety_check, pixelate
from ..extras.token_merging import merging_notes, tokens_merged
from ..memory.autoencoders import sliced_and_tiled
from ..memory.offload import run_offloaded
from ..model.local_model import LocalModel
from ..model.pipelines import Task, task_of
from ..schedulers.factory import make_inversion, make_scheduler
from .check import problems
from .inputs import fitted_mask, init_latents, keep_unmasked
from .inventory import Inventory, inventory_of
from .options import PLAIN, Options
from .run import Listener, Prepared, Run

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Generation:
    """The result: images float32 [batch, height, width, 3] in 0..1.

    Image i was made with `seeds[i]`, and the same image can be made alone with it. `scheduler` is the class that ran,
    `nets` are the names of the ControlNets in the order of the stack, `offload` is the offload mode that was used,
    `flagged` are the indices of the images that the safety check pixelated, `notes` are sentences on what ran otherwise
    than requested, `seconds` are times by stage.
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
    flagged: tuple[int, ...] = ()


# The denoise of the second pass if the model itself makes the larger image: enough for new detail, too little for a new
# composition.
UPSCALE_DENOISE = 0.5

UPSCALE_IMPOSSIBLE = ProblemKind(
    "upscale_impossible",
    "upscale is {value}, but the second pass at {width}x{height} with denoise {denoise} is not possible. {reasons} "
    "Switch upscale off, or choose an upscale_model.",
)


def generate(
    model: LocalModel,
    request: GenerationRequest,
    on_step: Listener = lambda step: None,
    options: Options = PLAIN,
    inventory: Inventory | None = None,
) -> Generation:
    """Run the request on the model.

    `on_step` is called after every step. An exception in it stops the generation and is passed on. `inventory` is that
    of the model if it is known already. Raises InvalidRequest with every problem before anything runs, OutOfMemory, or
    GenerationFailed if the result has values that are not numbers.
    """
    run = Run(model, request, inventory or inventory_of(model), options.tile_size)
    _ensure_possible(run, options)
    if not options.safety_check:
        return _generate_at_size(run, on_step, options)
    check = load_safety_check(model)  # loaded first, so that a broken checker is reported before anything runs
    return _checked(_generate_at_size(run, _with_pixelated_previews(on_step), options), check)


def _with_pixelated_previews(on_step: Listener) -> Listener:
    """Images that are not checked yet must not be recognizable in the previews either."""
    return lambda step: on_step(replace(step, preview=lambda: pixelate(step.preview()[None])[0]))


def _checked(result: Generation, check: SafetyCheck) -> Generation:
    flagged = check.flagged(result.images)
    if not flagged:
        return result
    images = result.images.clone()
    images[list(flagged)] = pixelate(images[list(flagged)])
    notes = (*result.notes, flagged_note(flagged, len(images)))
    return replace(result, images=images, flagged=flagged, notes=notes)


def _generate_at_size(run: Run, on_step: Listener, options: Options) -> Generation:
    """The images, enlarged if the request asks for it."""
    if not run.request.upscale:
        return _generate(run, on_step, options)
    again = _second_pass(run.request)
    size = (again.width, again.height)
    if options.upscaler is None:
        _ensure_second_pass_possible(replace(run, request=again))
    first = _generate(replace(run, request=replace(run.request, upscale=False)), on_step, options)
    if options.upscaler is not None:
        enlarged = fit_image(options.upscaler(first.images), *size, Resize.STRETCH)
        return replace(first, images=enlarged.clamp(0, 1))
    larger = fit_image(first.images, *size, Resize.STRETCH)
    second = _generate(replace(run, request=replace(again, init_image=larger)), on_step, options)
    seconds = {name: round(first.seconds[name] + second.seconds[name], 3) for name in second.seconds}
    more = (f"Second pass: {note}" for note in second.notes if note not in first.notes)
    notes = (*first.notes, *more)
    return replace(second, task=first.task, scheduler=first.scheduler, notes=notes, seconds=seconds)


def _ensure_possible(run: Run, options: Options) -> None:
    if found := [*problems(run.model, run.request, run.inventory), *options.problems(run.model)]:
        raise InvalidRequest(run.model.name, found)


def _ensure_second_pass_possible(run: Run) -> None:
    """Raise InvalidRequest if the second pass cannot run. The user set only half of its size."""
    request = run.request
    if found := problems(run.model, request, run.inventory):
        problem = UPSCALE_IMPOSSIBLE(
            "upscale",
            True,
            False,
            width=request.width,
            height=request.height,
            denoise=request.denoise,
            reasons=" ".join(problem.cause for problem in found),
        )
        raise InvalidRequest(run.model.name, [problem])


def _second_pass(request: GenerationRequest) -> GenerationRequest:
    """The request of the second pass. The enlarged result will be its init_image."""
    import torch

    inverts = request.scheduler.name is SchedulerName.DDIM_INVERSE  # the image was inverted already
    return replace(
        request,
        upscale=False,
        width=2 * request.width,
        height=2 * request.height,
        denoise=UPSCALE_DENOISE,
        steps=max(request.steps, ceil(1 / UPSCALE_DENOISE)),  # with fewer, this denoise would leave no step
        init_image=torch.zeros(request.batch_size, 1, 1, 3),
        # The image has been cropped to the size of the request, so its mask must be cropped as well.
        mask=None if request.mask is None else fitted_mask(request)[..., 0],
        scheduler=SchedulerChoice() if inverts else request.scheduler,
    )


def _generate(run: Run, on_step: Listener, options: Options) -> Generation:
    started = time.perf_counter()
    model, request = run.model, run.request
    task = task_of(request)
    checker = [find_checker(model.source, model.library)] if options.safety_check else []
    model.networks.keep([*run.files(), *checker])

    def attempt() -> tuple[Prepared, BlockCache, float, Tensor]:
        with (
            loras_applied(model, request.loras) as loras,
            tokens_merged(model, options.merge_tokens),
            blocks_cached(model, options.block_cache) as blocks,
        ):
            prepared, more = _prepare(run, loras, on_step)
            ready = time.perf_counter()
            return prepared, blocks, ready, prepared.call(on_step, **more)

    try:
        (prepared, blocks, ready, planes), offload = run_offloaded(model.memory, run.stages(), model.offload, attempt)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{model.device} has too little memory for a batch of {request.batch_size} at "
            f"{request.width}x{request.height} (controls: {len(run.controls)}). Reduce batch_size or the image size, "
            "or close other programs that use the memory."
        ) from error
    images = planes.movedim(1, -1).float().cpu()
    if not bool(images.isfinite().all()):
        raise GenerationFailed(
            f"The result contains values that are not numbers. {model.dtype} can cause this. Set precision to fp32."
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
        notes=(
            *run.notes(),
            *prepared.notes(),
            *_memory_notes(model.offload, offload),
            *merging_notes(options.merge_tokens),
            *blocks.notes(),
        ),
        seconds={"prepare": round(ready - started, 3), "generate": round(finished - ready, 3)},
    )


def _memory_notes(asked: Offload, ran: Offload) -> Iterator[str]:
    if asked not in (Offload.AUTO, ran):
        yield f"Memory ran out with offload {asked.value}, so the generation was repeated with offload {ran.value}."


def _prepare(run: Run, loras: ActiveLoras, on_step: Listener) -> tuple[Prepared, dict[str, Any]]:
    """The run with its pipeline, and additional arguments for the call."""
    model, choice = run.model, run.request.scheduler
    if choice.name is not SchedulerName.DDIM_INVERSE:
        return run.prepare(make_scheduler(choice, model.scheduler_config), loras), {}
    # Two runs: the first one, backwards and without a prompt, turns the image into the noise that it could come from.
    inversion = make_inversion(model.scheduler_config, run.request.denoise)
    forward = replace(run.request, init_image=None, denoise=1.0)
    inverse = replace(forward, prompt="", negative_prompt="", guidance_scale=1.0, references=())
    backwards = replace(run, request=inverse).prepare(inversion.inverse, loras)
    with sliced_and_tiled(run.vae, backwards.tile):
        image = init_latents(model, run.request)
    noise = backwards.call(on_step, output="latent", latents=image)
    return replace(run, request=forward).prepare(inversion.forward, loras), {"latents": noise}
