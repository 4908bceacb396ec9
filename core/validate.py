"""Everything that keeps a request from running on a target, found before anything is loaded or sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from .capabilities import UNLIMITED, Calls, Capabilities, Range
from .errors import Problem
from .modality import Modality
from .request import ControlUnit, Detect, GenerationRequest, ImageReference, acting, acts_at
from .scheduler import SchedulerChoice

if TYPE_CHECKING:
    from torch import Tensor


def validate(
    request: GenerationRequest, capabilities: Capabilities, *, starts_elsewhere: bool = False
) -> list[Problem]:
    """All problems of the request on the target, in the order of the request's fields; empty when it can run.

    `starts_elsewhere`: there is an initial image, although not in the request; a service gets its address.
    """
    starts = request.init_image is not None or starts_elsewhere
    return [
        *_fields(request, capabilities, starts),
        *_controls(request, capabilities),
        *_references(request, capabilities),
    ]


def calls_of(request: GenerationRequest, capabilities: Capabilities) -> int:
    """How often the network is called, which is what windows are shares of: for an init_image less than from noise."""
    name = request.scheduler.name or capabilities.schedulers.default
    calls = capabilities.schedulers.calls.get(name, Calls()) if name else Calls()
    share = None if request.init_image is None else capabilities.init_images.denoise_unit
    return calls.count(request.steps, request.denoise, share)


def _fields(request: GenerationRequest, capabilities: Capabilities, starts: bool) -> Iterator[Problem]:
    target = capabilities.target
    for name, allowed in capabilities.ranges.items():
        value = getattr(request, name, None)
        if value is not None and value not in allowed:
            yield _out_of_range(name, value, str(allowed), allowed.minimum, allowed.maximum, allowed.multiple)
    highest = Range(0, capabilities.prompts.max_clip_skip)
    if request.clip_skip not in highest:
        yield _out_of_range("clip_skip", request.clip_skip, str(highest), 0, highest.maximum)
    if capabilities.sizes and (request.width, request.height) not in capabilities.sizes:
        yield _wrong_size(request.width, request.height, capabilities)
    if capabilities.prompts.required and not request.prompt.strip():
        yield Problem("prompt", "empty", f"{target} needs one", "Write what the picture shows.")
    if request.negative_prompt.strip() and not capabilities.prompts.negative:
        yield Problem("negative_prompt", "set", f"{target} has none", "Leave it empty.")
    yield from _scheduler(request.scheduler, request.steps, capabilities)
    loras = acting(request.loras)
    if len(loras) > capabilities.loras.maximum:
        yield _too_many("loras", len(loras), capabilities.loras.maximum, target)
    for index, lora in loras:
        yield from _weight(f"lora {index} strength", lora.strength, capabilities.loras.strength)
    for name, image in request.images():
        yield from _image(name, image, request)
    if request.mask is not None and not capabilities.init_images.inpainting:
        yield Problem("mask", "connected", f"{target} cannot inpaint", "Disconnect it.")
    if request.init_image is not None and not capabilities.init_images.accepted:
        yield Problem("init_image", "connected", f"{target} cannot start from an image", "Disconnect it.")
    if request.mask is None and capabilities.init_images.mask_required:
        limit = f"{target} is an inpainting model, which redraws a part of a picture"
        yield Problem("mask", "not connected", limit, "Connect init_image and mask, or load another model.")
    if request.mask is not None and not starts:
        yield Problem(
            "mask", "connected", "it needs the picture to change", "Connect init_image, or disconnect the mask."
        )
    if request.mask is not None:
        yield from _empty("mask", request.mask < 0.5, "nothing would be redrawn")
    if request.denoise < 1 and not starts:
        meaning = "it is the share of init_image to replace, and there is none"
        yield Problem("denoise", f"{request.denoise:g}", meaning, "Set it to 1, or connect init_image.")
    if calls_of(request, capabilities) < 1 <= request.steps:
        limit = f"that share of {request.steps} steps leaves none"
        remedy = f"Set it to {_least_denoise(request, capabilities):g} or more."
        yield Problem("denoise", f"{request.denoise:g}", limit, remedy)
    yield from _scheduler_start(request, capabilities)
    for conflict in capabilities.conflicts:
        if all(_is_used(request, name) for name in conflict.fields):
            yield Problem(" with ".join(conflict.fields), "connected", conflict.reason, conflict.remedy)
    if request.upscale and not capabilities.upscale:
        yield Problem("upscale", "on", f"{target} cannot upscale", "Switch it off and use an upscale node behind it.")
    if request.vae and not capabilities.vae:
        yield Problem("vae", f"'{request.vae}'", f"{target} has a fixed VAE", "Leave vae empty.")


def _least_denoise(request: GenerationRequest, capabilities: Capabilities) -> float:
    """The least that the node can be set to, a whole hundredth, which leaves something."""
    shares = (hundredth / 100 for hundredth in range(1, 101))
    return next(share for share in shares if calls_of(replace(request, denoise=share), capabilities) > 0)


def _scheduler(choice: SchedulerChoice, steps: int, capabilities: Capabilities) -> Iterator[Problem]:
    name, target = choice.name or capabilities.schedulers.default, capabilities.target
    if name is not None and name not in capabilities.schedulers.names:
        known = ", ".join(sorted(s.value for s in capabilities.schedulers.names)) or "none by name"
        reason = capabilities.schedulers.missing.get(name, f"{target} does not have it")
        yield Problem("scheduler", name.value, reason, f"Choose default or one of {known}.")
        return
    label = name.value if name else "the default scheduler"
    most = capabilities.schedulers.max_steps.get(name, UNLIMITED) if name else UNLIMITED
    if steps > most:
        yield Problem("steps", str(steps), f"{label} takes at most {most}", f"Set it to {most}.")
    if choice.use_karras_sigmas and name not in capabilities.schedulers.karras_sigmas:
        able = ", ".join(sorted(s.value for s in capabilities.schedulers.karras_sigmas)) or "no scheduler"
        yield Problem("use_karras_sigmas", "on", f"on {target} {able} can do that, not {label}", "Switch it off.")
    kinds = capabilities.schedulers.algorithm_types.get(name, frozenset()) if name else frozenset()
    if choice.algorithm_type is not None and choice.algorithm_type not in kinds:
        known = ", ".join(sorted(kind.value for kind in kinds)) or "no algorithm types"
        yield Problem("algorithm_type", choice.algorithm_type.value, f"{label} has {known}", "Choose default.")


def _scheduler_start(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    name = request.scheduler.name
    if name is None or name not in capabilities.schedulers.needs_init_image:
        return
    if request.init_image is None:
        yield Problem("scheduler", name.value, "it begins with a picture", "Connect init_image, or choose another.")
    if request.mask is not None:
        yield Problem("scheduler", name.value, "it cannot inpaint", "Disconnect the mask, or choose another.")


def _is_used(request: GenerationRequest, name: str) -> bool:
    """Whether a field is set; a control, reference or LoRA of weight 0 is not there."""
    value = getattr(request, name)
    if isinstance(value, tuple):
        return bool(acting(value))
    return value is not None and value != "" and value is not False


def _controls(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target = capabilities.target
    controls = acting(request.controls)
    if len(controls) < capabilities.controls.minimum:
        limit = f"{target} needs at least {capabilities.controls.minimum} whose strength is not 0"
        yield Problem("controls", str(len(controls)), limit, "Connect a control node to the request.")
    if len(controls) > capabilities.controls.maximum:
        yield _too_many("controls", len(controls), capabilities.controls.maximum, target)
    for index, control in controls:
        name = f"control {index} ({control.modality.value})"
        if control.modality not in capabilities.controls.modalities:
            known = ", ".join(sorted(m.value for m in capabilities.controls.modalities)) or "no control at all"
            remedy = capabilities.controls.remedies.get(control.modality, capabilities.controls.remedy)
            yield Problem(name, "not available", f"{target} has {known}", remedy)
        yield from _weight(f"{name} strength", control.strength, capabilities.controls.strength)
        yield from _window(name, control, calls_of(request, capabilities))
        if not capabilities.controls.windows and (control.start > 0 or control.end < 1):
            yield Problem(f"{name} window", _span(control), f"{target} applies a control at every step", "Set 0 and 1.")
        if control.detect is Detect.SERVICE and not capabilities.controls.detects:
            yield Problem(f"{name} detect", "service", f"{target} does not make maps", "Set detect to local or none.")
        takes_mask = capabilities.controls.masks or control.modality in capabilities.controls.masked_modalities
        if control.mask is not None and not takes_mask:
            yield Problem(f"{name} mask", "connected", f"{target} cannot limit a control to an area", "Disconnect it.")
        elif control.mask is not None and control.modality is Modality.INPAINT:
            yield from _empty(f"{name} mask", control.mask < 0.5, "nothing would be filled in")
        elif control.mask is not None:
            yield from _empty(f"{name} mask", control.mask <= 0, "the control would act nowhere")


def _references(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target = capabilities.target
    references = acting(request.references)
    if len(references) > capabilities.references.maximum:
        yield _too_many("references", len(references), capabilities.references.maximum, target)
        return
    for index, reference in references:
        name = f"reference {index}"
        if reference.kind not in capabilities.references.kinds:
            known = ", ".join(sorted(kind.value for kind in capabilities.references.kinds))
            yield Problem(f"{name} kind", reference.kind.value, f"{target} has {known}", "Choose one of these.")
        yield from _weight(f"{name} scale", reference.scale, capabilities.references.scale)
        yield from _window(name, reference, calls_of(request, capabilities))
        if not capabilities.references.windows and (reference.start > 0 or reference.end < 1):
            yield Problem(f"{name} window", _span(reference), f"{target} applies it at every step", "Set 0 and 1.")
        if reference.mask is not None and not capabilities.references.masks:
            yield Problem(f"{name} mask", "connected", f"{target} cannot limit it to an area", "Disconnect it.")
        elif reference.mask is not None and len(reference.mask) not in (1, images := len(reference.image)):
            limit = f"the reference has {images} image{'s' if images > 1 else ''}"
            remedy = "Connect one mask for all of them, or one for each."
            yield Problem(f"{name} mask", f"a batch of {len(reference.mask)}", limit, remedy)


def _window(name: str, unit: ControlUnit | ImageReference, calls: int) -> Iterator[Problem]:
    if not 0 <= unit.start < unit.end <= 1:
        limit = "start_percent must be below end_percent, both from 0 to 1"
        yield Problem(f"{name} window", _span(unit), limit, "Use 0 and 1 for the whole generation.")
    elif calls > 0 and not any(acts_at(unit, call, calls) for call in range(calls)):
        yield Problem(f"{name} window", _span(unit), f"none of the {calls} steps lies in it", "Widen it.")


def image_problems(name: str, image: Tensor) -> Iterator[Problem]:
    """What makes a tensor useless as an image [batch, height, width, 1, 3 or 4] or, if named so, as a mask."""
    is_mask = name.endswith("mask")
    fits = image.ndim == (3 if is_mask else 4) and 0 not in image.shape and (is_mask or image.shape[-1] in (1, 3, 4))
    if not fits:
        expected = "[batch, height, width]" if is_mask else "[batch, height, width, 1, 3 or 4 channels]"
        problem = f"it must be {expected} with something in it"
        yield Problem(name, f"of shape {list(image.shape)}", problem, "Check the node before it.")
    elif not bool(image.isfinite().all()):
        broken = "it holds values that are not numbers (NaN or infinite)"
        yield Problem(name, "broken", broken, "Look at the node that made it; a black picture has the same cause.")


def _image(name: str, image: Tensor, request: GenerationRequest) -> Iterator[Problem]:
    problems = list(image_problems(name, image))
    yield from problems
    if not problems and not name.startswith("reference") and image.shape[0] not in (1, request.batch_size):
        limit = f"a batch of {request.batch_size} takes 1 or {request.batch_size}"
        yield Problem(name, f"a batch of {image.shape[0]}", limit, "Pick one image, or set batch_size to match.")


def _empty(name: str, left_out: Tensor, meaning: str) -> Iterator[Problem]:
    """A mask of which all is left out, as Load Image gives with a picture that has no transparent part."""
    if left_out.numel() > 0 and bool(left_out.all()):
        yield Problem(name, "empty", meaning, "Paint one in the mask editor of Load Image, or disconnect it.")


def _weight(name: str, value: float, allowed: Range | None) -> Iterator[Problem]:
    """A strength or scale of what is there."""
    if allowed and value not in allowed:
        yield _out_of_range(name, value, str(allowed), allowed.minimum, allowed.maximum)


def _wrong_size(width: int, height: int, capabilities: Capabilities) -> Problem:
    sizes = sorted(capabilities.sizes)
    nearest = min(sizes, key=lambda size: (abs(size[0] * height - size[1] * width), abs(size[0] - width)))
    known = ", ".join(f"{w}x{h}" for w, h in sizes)
    limit = f"{capabilities.target} makes pictures of {known}"
    return Problem("size", f"{width}x{height}", limit, f"Set width to {nearest[0]} and height to {nearest[1]}.")


def _out_of_range(name: str, value: float, allowed: str, minimum: float, maximum: float, multiple: int = 0) -> Problem:
    nearest = min(max(value, minimum), maximum)
    if multiple:
        nearest = min(max(round(nearest / multiple) * multiple, minimum), maximum)
    return Problem(name, f"{value:g}", f"it must be {allowed}", f"Set it to {nearest:g}.")


def _too_many(name: str, count: int, limit: int, target: str) -> Problem:
    if limit == 0:
        return Problem(name, str(count), f"{target} has none", f"Disconnect {name}.")
    assert limit < UNLIMITED
    return Problem(name, str(count), f"{target} takes at most {limit}", f"Remove {count - limit}.")


def _span(unit: ControlUnit | ImageReference) -> str:
    return f"{unit.start:g} to {unit.end:g}"
