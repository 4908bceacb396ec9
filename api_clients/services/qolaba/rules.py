"""How a request becomes Qolaba's image and strength, and what its apps cannot do (docs/services/qolaba.md 2, 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....core.problems import Problem, ProblemKind
from ....core.request import Detect, GenerationRequest, acting
from ..checks import acting_controls, acting_references, fitted_control, fitted_image
from .tables import (
    AUTO,
    GUIDANCE,
    MACHINE,
    MACHINES,
    NEGATIVE,
    STEPS,
    App,
    QolabaOptions,
    Source,
    Strength,
)

if TYPE_CHECKING:
    from torch import Tensor

SEVERAL_REFERENCE_IMAGES = ProblemKind(
    "qolaba_several_reference_images",
    "{field} is a batch of {value} images. {target} accepts one image. Pick one of them.",
)
ONLY_RETIRED_APP = ProblemKind(
    "qolaba_only_retired_app",
    "{target} has no live app for {modality} controls. Set app_id to '{suggestion}', which was retired and may no "
    "longer answer, or use another service.",
)
NO_APP = ProblemKind(
    "qolaba_no_app",
    "{target} has no app for what is connected. Connect {sources} that one of its apps accepts, or choose an app.",
)
APP_OF_ANOTHER_ENDPOINT = ProblemKind(
    "qolaba_app_of_another_endpoint",
    "custom_app_id is {value} ({app}), which needs {sources}. {target} sends only controls. Use Qolaba Image to Image.",
)
SEVERAL_SOURCES = ProblemKind(
    "qolaba_several_sources",
    "The request has {value}. {target} accepts one image, from {sources}. Disconnect the others.",
)
NO_SOURCE = ProblemKind("qolaba_no_source", "{target} needs {sources}. Connect it to the request.")
NEGATIVE_PROMPT = ProblemKind("qolaba_negative_prompt", "{target} ignores negative prompts. Clear negative_prompt.")
NEGATIVE_PROMPT_OTHER_APP = ProblemKind(
    "qolaba_negative_prompt_other_app",
    "{target} ignores negative prompts. Clear negative_prompt, or set app_id to {able}.",
)
NO_CHOICE_OF_GPU = ProblemKind(
    "qolaba_no_choice_of_gpu",
    "inference_type is {value}. {target} has no choice of GPU. Set inference_type to {suggestion}.",
)
STRENGTH_OUT_OF_RANGE = ProblemKind(
    "qolaba_strength_out_of_range",
    "{field} is {value}, which {target} would receive as strength {strength}. It accepts strengths above 0 and up to "
    "1. Change {field} by 0.01 or more.",
)


@dataclass(frozen=True)
class Closeness:
    """How much of the image to keep, 0 to 1, from the request's `field`, whose value is `shown`."""

    field: str
    shown: float
    value: float


def source_of(app: App, request: GenerationRequest, starts_elsewhere: bool) -> Source | None:
    """Which connected part of the request is the app's image. A request without problems has at most one."""
    connected = {
        Source.CONTROL: bool(acting_controls(request)),
        Source.REFERENCE: bool(acting_references(request)),
        Source.INIT_IMAGE: request.init_image is not None or starts_elsewhere,
    }
    return next((source for source, there in connected.items() if there and source in app.sources), None)


def accepts(app: App, request: GenerationRequest, starts_elsewhere: bool = False) -> bool:
    """Whether the app can use what is connected to the request."""
    controls, references = acting_controls(request), acting_references(request)
    source = source_of(app, request, starts_elsewhere)
    if source is Source.CONTROL:
        return controls[0].modality in app.modalities
    if controls:
        return False
    if source is Source.REFERENCE:
        return references[0].kind in app.kinds
    return source is Source.INIT_IMAGE and not references


def source_image(source: Source | None, request: GenerationRequest) -> Tensor | None:
    """[1, height, width, channel] at the size of the request, which the result gets; a reference keeps its own size."""
    if source is Source.CONTROL:
        return fitted_control(acting_controls(request)[0], request)
    if source is Source.REFERENCE:
        return acting_references(request)[0].image
    return None if request.init_image is None else fitted_image(request.init_image, request)


def closeness(source: Source | None, request: GenerationRequest) -> Closeness:
    """How much of the image to keep. This has one meaning for every app."""
    if source is Source.CONTROL:
        strength = acting_controls(request)[0].strength
        return Closeness("control strength", strength, strength)
    if source is Source.REFERENCE:
        scale = acting_references(request)[0].scale
        return Closeness("reference scale", scale, scale)
    return Closeness("denoise", request.denoise, 1 - request.denoise)


def strength_of(request: GenerationRequest, options: QolabaOptions, app: App, starts_elsewhere: bool) -> float:
    """The `strength` to send: the closeness, inverted where a higher strength changes more."""
    kept = closeness(source_of(app, request, starts_elsewhere), request).value
    direction = app.strength.value if options.strength_direction == AUTO else options.strength_direction
    return round(1 - kept if direction == Strength.FARTHER.value else kept, 6)


def single_reference(request: GenerationRequest, target: str) -> Iterator[Problem]:
    """References that are batches of several images."""
    for index, reference in acting(request.references):
        if reference.image.ndim and reference.image.shape[0] > 1:
            yield SEVERAL_REFERENCE_IMAGES(f"reference {index} image", reference.image.shape[0], target=target)


def no_app(request: GenerationRequest, apps: Sequence[App], target: str) -> Problem:
    """Why no app can be chosen for the request."""
    retired = [app for app in apps if app.retired and accepts(app, request)]
    if retired:
        modality = acting_controls(request)[0].modality
        return ONLY_RETIRED_APP("app_id", AUTO, retired[0].name, target=target, modality=modality)
    return NO_APP("app_id", AUTO, target=target, sources=_one_of({source for app in apps for source in app.sources}))


def app_problems(
    request: GenerationRequest, options: QolabaOptions, app: App, apps: Sequence[App], starts_elsewhere: bool
) -> Iterator[Problem]:
    """What the chosen app cannot do; `apps` are those of the endpoint."""
    target = f"Qolaba {app.name}"
    connected = [
        source.value
        for source, there in (
            (Source.CONTROL, acting_controls(request)),
            (Source.REFERENCE, acting_references(request)),
            (Source.INIT_IMAGE, request.init_image is not None),
        )
        if there and source in app.sources
    ]
    source = source_of(app, request, starts_elsewhere)
    if len(connected) > 1:
        value = " and ".join(connected)
        yield SEVERAL_SOURCES("image", value, target=target, sources=_one_of(app.sources))
    if source is None and app.sources != (Source.CONTROL,):
        yield NO_SOURCE("image", target=target, sources=_one_of(app.sources))
    if request.negative_prompt.strip() and NEGATIVE not in app.fields:
        able = " or ".join(other.name for other in apps if NEGATIVE in other.fields and not other.retired)
        if able:
            yield NEGATIVE_PROMPT_OTHER_APP("negative_prompt", request.negative_prompt, "", target=target, able=able)
        else:
            yield NEGATIVE_PROMPT("negative_prompt", request.negative_prompt, "", target=target)
    if options.inference_type != MACHINES[0] and MACHINE not in app.fields:
        yield NO_CHOICE_OF_GPU("inference_type", options.inference_type, MACHINES[0], target=target)
    strength = strength_of(request, options, app, starts_elsewhere)
    if source is not None and not 0 < strength <= 1:
        kept = closeness(source, request)
        yield STRENGTH_OUT_OF_RANGE(kept.field, kept.shown, target=target, strength=strength)


def app_notes(request: GenerationRequest, app: App, starts_elsewhere: bool) -> Iterator[str]:
    """What the app does differently from what a user may expect."""
    if app.retired:
        then = f"Use {app.successor} instead." if app.successor else "It has no successor."
        yield f"Qolaba retired the app {app.app_id} on 2025-04-15. {then}"
    yield "Qolaba has no seed: the same request gives another image each time."
    if STEPS not in app.fields:
        yield f"Qolaba {app.name} chooses the number of steps itself."
    if GUIDANCE not in app.fields:
        yield f"Qolaba {app.name} chooses the guidance itself."
    source = source_of(app, request, starts_elsewhere)
    if source is Source.CONTROL and acting_controls(request)[0].detect is not Detect.SERVICE:
        yield "Qolaba computes the control map itself. Set detect = service to send it the image that it expects."
    if source is Source.REFERENCE and app.strength is Strength.IGNORED:
        yield f"Qolaba {app.name} has no weight for its reference: the scale is not used."
    if source is Source.INIT_IMAGE and request.denoise == 1:
        yield "With denoise 1 the initial image is ignored."


def _one_of(sources: Sequence[Source] | set[Source]) -> str:
    return " or ".join(sorted(source.value for source in sources))
