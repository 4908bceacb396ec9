"""Everything that keeps a request from running on a target, found before anything is loaded or sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from . import request_problems as kinds
from .capabilities import Calls, Capabilities, Range, SchedulerSupport
from .modality import Modality
from .problems import Problem, ProblemKind
from .request import ControlUnit, Detect, GenerationRequest, ImageReference, RequestImage, acting, acts_at

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT = "default"


def validate(
    request: GenerationRequest, capabilities: Capabilities, *, starts_elsewhere: bool = False
) -> list[Problem]:
    """All problems of the request on the target, one for each cause; empty if the request can run.

    `starts_elsewhere`: there is an initial image that is not in the request, because the service gets its address.
    """
    starts = request.init_image is not None or starts_elsewhere
    return [
        *_numbers(request, capabilities),
        *_texts(request, capabilities),
        *_scheduler(request, capabilities),
        *_loras(request, capabilities),
        *_start(request, capabilities, starts),
        *_tensors(request, capabilities, starts),
        *_conflicts(request, capabilities),
        *_controls(request, capabilities),
        *_references(request, capabilities),
    ]


def calls_of(request: GenerationRequest, capabilities: Capabilities) -> int:
    """How often the run calls the network. Windows are shares of this number; with an init_image it can be smaller."""
    name = request.scheduler.name or capabilities.schedulers.default
    calls = capabilities.schedulers.calls.get(name, Calls()) if name else Calls()
    unit = None if request.init_image is None else capabilities.init_images.denoise_unit
    return calls.count(request.steps, request.denoise, unit)


def _numbers(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target = capabilities.target
    scheduler_limit = _max_steps(request, capabilities.schedulers)
    for name, allowed in capabilities.ranges.items():
        if not (name == "steps" and scheduler_limit is not None and request.steps > scheduler_limit):
            yield from _number(name, getattr(request, name), allowed, target)
    clip_skip = Range(0, capabilities.prompts.max_clip_skip)
    if request.clip_skip not in clip_skip and clip_skip.maximum == 0:
        yield kinds.UNSUPPORTED_NUMBER("clip_skip", request.clip_skip, 0, target=target)
    else:
        yield from _number("clip_skip", request.clip_skip, clip_skip, target)
    if capabilities.sizes and (request.width, request.height) not in capabilities.sizes:
        yield _wrong_size(request.width, request.height, capabilities)


def _number(field: str, value: float, allowed: Range | None, target: str) -> Iterator[Problem]:
    if allowed is None or value in allowed:
        return
    minimum, maximum, multiple = allowed.minimum, allowed.maximum, allowed.multiple
    nearest = minimum if math.isnan(value) else min(max(value, minimum), maximum)
    if minimum == maximum:
        yield kinds.FIXED_NUMBER(field, value, nearest, target=target)
    elif multiple:
        nearest = min(max(round(nearest / multiple) * multiple, minimum), maximum)
        arguments = {"target": target, "minimum": minimum, "maximum": maximum, "multiple": multiple}
        yield kinds.NOT_A_MULTIPLE(field, value, nearest, **arguments)
    else:
        yield kinds.OUT_OF_RANGE(field, value, nearest, target=target, minimum=minimum, maximum=maximum)


def _wrong_size(width: int, height: int, capabilities: Capabilities) -> Problem:
    sizes = sorted(capabilities.sizes)
    nearest = min(sizes, key=lambda size: (abs(size[0] * height - size[1] * width), abs(size[0] - width)))
    return kinds.UNSUPPORTED_SIZE(
        "size",
        f"{width}x{height}",
        f"{nearest[0]}x{nearest[1]}",
        target=capabilities.target,
        choices=[f"{w}x{h}" for w, h in sizes],
        width=nearest[0],
        height=nearest[1],
    )


def _texts(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target = capabilities.target
    if capabilities.prompts.required and not request.prompt.strip():
        yield kinds.MISSING_PROMPT("prompt", request.prompt, target=target)
    if request.negative_prompt.strip() and not capabilities.prompts.negative:
        yield kinds.UNSUPPORTED_NEGATIVE_PROMPT("negative_prompt", request.negative_prompt, "", target=target)
    if request.vae and not capabilities.vae:
        yield kinds.UNSUPPORTED_VAE("vae", request.vae, "", target=target)
    if request.upscale and not capabilities.upscale:
        yield kinds.UNSUPPORTED_UPSCALE("upscale", True, False, target=target)


def _max_steps(request: GenerationRequest, schedulers: SchedulerSupport) -> int | None:
    name = request.scheduler.name or schedulers.default
    return schedulers.max_steps.get(name) if name else None


def _scheduler(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target, schedulers = capabilities.target, capabilities.schedulers
    name = request.scheduler.name or schedulers.default
    if name is not None and name not in schedulers.names:
        if schedulers.names:
            kind = schedulers.missing.get(name, kinds.UNSUPPORTED_SCHEDULER)
            yield kind("scheduler", name, _DEFAULT, target=target, choices=_names(schedulers.names))
        else:
            yield kinds.FIXED_SCHEDULER("scheduler", name, _DEFAULT, target=target)
        return
    most = _max_steps(request, schedulers)
    if most is not None and request.steps > most:
        yield kinds.TOO_MANY_STEPS("steps", request.steps, most, scheduler=name)
    yield from _karras_sigmas(request, capabilities)
    yield from _algorithm_type(request, capabilities)
    if request.scheduler.name in schedulers.needs_init_image:
        if request.mask is not None:
            yield kinds.SCHEDULER_CANNOT_INPAINT("scheduler", name)
        elif request.init_image is None:
            yield kinds.SCHEDULER_NEEDS_INIT_IMAGE("scheduler", name)


def _karras_sigmas(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target, schedulers = capabilities.target, capabilities.schedulers
    name = request.scheduler.name or schedulers.default
    if not request.scheduler.use_karras_sigmas or name in schedulers.karras_sigmas:
        return
    choices = _names(schedulers.karras_sigmas & schedulers.names)
    if not choices:
        yield kinds.UNSUPPORTED_KARRAS("use_karras_sigmas", True, False, target=target)
    elif name is None:
        yield kinds.KARRAS_WITHOUT_SCHEDULER("use_karras_sigmas", True, False, choices=choices)
    else:
        arguments = {"target": target, "scheduler": name, "choices": choices}
        yield kinds.SCHEDULER_WITHOUT_KARRAS("use_karras_sigmas", True, False, **arguments)


def _algorithm_type(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target, schedulers = capabilities.target, capabilities.schedulers
    name, value = request.scheduler.name or schedulers.default, request.scheduler.algorithm_type
    types = schedulers.algorithm_types.get(name) if name else None
    if value is None or (types and value in types):
        return
    able = _names(name for name in schedulers.algorithm_types if name in schedulers.names)
    if not able:
        yield kinds.UNSUPPORTED_ALGORITHM_TYPES("algorithm_type", value, _DEFAULT, target=target)
    elif name is None:
        yield kinds.ALGORITHM_TYPE_WITHOUT_SCHEDULER("algorithm_type", value, _DEFAULT, choices=able)
    elif not types:
        yield kinds.SCHEDULER_WITHOUT_ALGORITHM_TYPES("algorithm_type", value, _DEFAULT, scheduler=name)
    else:
        arguments = {"target": target, "scheduler": name, "choices": _names(types)}
        yield kinds.UNSUPPORTED_ALGORITHM_TYPE("algorithm_type", value, _DEFAULT, **arguments)


def _loras(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target, loras = capabilities.target, acting(request.loras)
    if loras and capabilities.loras.maximum == 0:
        yield kinds.UNSUPPORTED_LORAS("loras", len(loras), 0, target=target)
        return
    yield from _too_many("loras", len(loras), capabilities.loras.maximum, target)
    for index, lora in loras:
        yield from _number(f"lora {index} strength", lora.strength, capabilities.loras.strength, target)


def _too_many(field: str, count: int, maximum: int, target: str) -> Iterator[Problem]:
    if count > maximum:
        yield kinds.TOO_MANY(field, count, maximum, target=target, excess=count - maximum)


def _start(request: GenerationRequest, capabilities: Capabilities, starts: bool) -> Iterator[Problem]:
    """Problems of init_image, mask and denoise. `starts`: there is an initial image, here or at an address."""
    target, init_images = capabilities.target, capabilities.init_images
    if request.init_image is not None and not init_images.accepted:
        yield kinds.UNSUPPORTED_INIT_IMAGE("init_image", target=target)
    if request.mask is None and init_images.mask_required:
        yield kinds.MISSING_MASK("mask", target=target)
    elif request.mask is not None and not init_images.inpainting:
        yield kinds.UNSUPPORTED_MASK("mask", target=target)
    elif request.mask is not None and not starts:
        yield kinds.MASK_WITHOUT_INIT_IMAGE("mask")
    elif request.mask is not None:
        yield from _empty(kinds.EMPTY_MASK, "mask", request.mask < 0.5)
    if request.denoise not in capabilities.ranges.get("denoise", Range(-math.inf, math.inf)):
        return
    if request.denoise < 1 and not starts:
        if init_images.accepted:
            yield kinds.DENOISE_WITHOUT_INIT_IMAGE("denoise", request.denoise, 1.0)
        else:
            yield kinds.UNSUPPORTED_DENOISE("denoise", request.denoise, 1.0, target=target)
    elif calls_of(request, capabilities) < 1 <= request.steps:
        least = _least_denoise(request, capabilities)
        yield kinds.DENOISE_TOO_LOW("denoise", request.denoise, least, steps=request.steps)


def _least_denoise(request: GenerationRequest, capabilities: Capabilities) -> float:
    """The smallest value of the node's input, in steps of 0.01, with which the network is called at all."""
    values = (hundredth / 100 for hundredth in range(1, 101))
    return next(value for value in values if calls_of(replace(request, denoise=value), capabilities) > 0)


def _conflicts(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    for conflict in capabilities.conflicts:
        if all(_is_used(request, name) for name in conflict.fields):
            yield conflict.kind(conflict.fields[0], target=capabilities.target)


def _is_used(request: GenerationRequest, name: str) -> bool:
    """Whether a field is set. Controls, references and LoRAs count only with a weight other than 0."""
    if name == "controls":
        return bool(acting(request.controls))
    if name == "references":
        return bool(acting(request.references))
    if name == "loras":
        return bool(acting(request.loras))
    value: object = getattr(request, name)
    return value is not None and value != "" and value is not False


def _controls(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target, support = capabilities.target, capabilities.controls
    controls = acting(request.controls)
    if support.required and not controls:
        yield kinds.MISSING_CONTROL("controls", 0, target=target)
    if controls and support.maximum == 0:
        yield kinds.UNSUPPORTED_CONTROLS("controls", len(controls), 0, target=target)
        return
    yield from _too_many("controls", len(controls), support.maximum, target)
    calls = calls_of(request, capabilities)
    for index, control in controls:
        yield from _control(f"control {index} ({control.modality.value})", control, capabilities, calls)


def _control(field: str, control: ControlUnit, capabilities: Capabilities, calls: int) -> Iterator[Problem]:
    target, support = capabilities.target, capabilities.controls
    if control.modality not in support.modalities:
        remedy = support.remedies.get(control.modality, support.remedy)
        choices = _names(support.modalities)
        if choices:
            yield kinds.UNSUPPORTED_MODALITY(field, control.modality, target=target, choices=choices, remedy=remedy)
        else:
            yield kinds.NO_MODALITY(field, control.modality, target=target, remedy=remedy)
    yield from _number(f"{field} strength", control.strength, support.strength, target)
    if support.windows:
        yield from _window(f"{field} window", control, calls)
    elif _has_window(control):
        yield kinds.UNSUPPORTED_CONTROL_WINDOW(f"{field} window", _span(control), "0 to 1", target=target)
    if control.detect is Detect.SERVICE and not support.detects:
        yield kinds.UNSUPPORTED_DETECT(f"{field} detect", control.detect, Detect.LOCAL, target=target)
    if control.mask is not None:
        if not support.masks and control.modality not in support.masked_modalities:
            yield kinds.UNSUPPORTED_CONTROL_MASK(f"{field} mask", target=target)
        elif control.modality is Modality.INPAINT:
            yield from _empty(kinds.EMPTY_INPAINT_MASK, f"{field} mask", control.mask < 0.5)
        else:
            yield from _empty(kinds.EMPTY_CONTROL_MASK, f"{field} mask", control.mask <= 0)


def _references(request: GenerationRequest, capabilities: Capabilities) -> Iterator[Problem]:
    target, support = capabilities.target, capabilities.references
    references = acting(request.references)
    if references and (support.maximum == 0 or not support.kinds):
        yield kinds.UNSUPPORTED_REFERENCES("references", len(references), 0, target=target)
        return
    if len(references) > support.maximum:
        yield from _too_many("references", len(references), support.maximum, target)
        return
    calls = calls_of(request, capabilities)
    for index, reference in references:
        yield from _reference(f"reference {index}", reference, capabilities, calls)


def _reference(field: str, reference: ImageReference, capabilities: Capabilities, calls: int) -> Iterator[Problem]:
    target, support = capabilities.target, capabilities.references
    if reference.kind not in support.kinds:
        choices = _names(support.kinds)
        arguments = {"target": target, "choices": choices}
        yield kinds.UNSUPPORTED_REFERENCE_KIND(f"{field} kind", reference.kind, choices[0], **arguments)
    yield from _number(f"{field} scale", reference.scale, support.scale, target)
    if support.windows:
        yield from _window(f"{field} window", reference, calls)
    elif _has_window(reference):
        yield kinds.UNSUPPORTED_REFERENCE_WINDOW(f"{field} window", _span(reference), "0 to 1", target=target)
    if reference.mask is not None:
        masks, images = len(reference.mask), len(reference.image)
        if not support.masks:
            yield kinds.UNSUPPORTED_REFERENCE_MASK(f"{field} mask", target=target)
        elif masks not in (1, images) and images == 1:
            yield kinds.SINGLE_REFERENCE_MASK(f"{field} mask", masks)
        elif masks not in (1, images):
            yield kinds.REFERENCE_MASK_COUNT(f"{field} mask", masks, images=images)


def _window(field: str, unit: ControlUnit | ImageReference, calls: int) -> Iterator[Problem]:
    if not 0 <= unit.start < unit.end <= 1:
        yield kinds.INVALID_WINDOW(field, _span(unit), "0 to 1")
    elif calls > 0 and not any(acts_at(unit, call, calls) for call in range(calls)):
        yield kinds.EMPTY_WINDOW(field, _span(unit), "0 to 1", calls=calls)


def _has_window(unit: ControlUnit | ImageReference) -> bool:
    return unit.start != 0 or unit.end != 1


def _span(unit: ControlUnit | ImageReference) -> str:
    return f"{unit.start:g} to {unit.end:g}"


def image_problems(field: str, image: Tensor) -> Iterator[Problem]:
    """What makes a tensor unusable as an image: [batch, height, width, 1, 3 or 4 channels]."""
    if image.ndim != 4 or 0 in image.shape or image.shape[-1] not in (1, 3, 4):
        yield kinds.IMAGE_SHAPE(field, list(image.shape))
    else:
        yield from _not_finite(field, image)


def mask_problems(field: str, mask: Tensor) -> Iterator[Problem]:
    """What makes a tensor unusable as a mask: [batch, height, width]."""
    if mask.ndim != 3 or 0 in mask.shape:
        yield kinds.MASK_SHAPE(field, list(mask.shape))
    else:
        yield from _not_finite(field, mask)


def _not_finite(field: str, tensor: Tensor) -> Iterator[Problem]:
    if not bool(tensor.isfinite().all()):
        yield kinds.NOT_FINITE(field)


def _tensors(request: GenerationRequest, capabilities: Capabilities, starts: bool) -> Iterator[Problem]:
    """Problems of every image and mask that is not refused as a whole."""
    accepted = {
        "init_image": capabilities.init_images.accepted,
        "mask": capabilities.init_images.inpainting and starts,
    }
    for image in request.images():
        if accepted.get(image.field, True):
            yield from _tensor(image, request.batch_size)


def _tensor(image: RequestImage, batch_size: int) -> Iterator[Problem]:
    check = mask_problems if image.is_mask else image_problems
    problems = list(check(image.field, image.tensor))
    yield from problems
    if not problems and not image.is_reference and image.tensor.shape[0] not in (1, batch_size):
        yield kinds.WRONG_BATCH(image.field, image.tensor.shape[0], batch_size=batch_size)


def _empty(kind: ProblemKind, field: str, masked_out: Tensor) -> Iterator[Problem]:
    """A mask that leaves out everything, as ComfyUI's Load Image gives for an image without transparency."""
    if masked_out.numel() > 0 and bool(masked_out.all()):
        yield kind(field)


def _names(choices: Iterable[Enum]) -> list[str]:
    return sorted(str(choice.value) for choice in choices)
