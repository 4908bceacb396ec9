"""Qolaba's ControlNet and Image to Image endpoints: one route, two pages, one image (docs/services/qolaba.md).

Where the documents and observed code disagree:

- a job is queued (`celery`) and polled (docs/services/qolaba.md 4);
- `strength` has the direction that the service's own source gives it for each app (docs/services/qolaba.md 3);
- a field that does not act for an app is not sent (docs/services/qolaba.md 2.3).

There is no seed: the same request makes another image each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..core.capabilities import Capabilities
from ..core.errors import Problem
from ..core.request import Detect, GenerationRequest, acting
from ..core.validate import validate
from .answers import field, identifier, is_about_account, message, refusal, strings, unclear, words, worth_asking_again
from .checks import acting_controls, acting_references, batches, fitted_control, fitted_picture, web_address
from .endpoint import Endpoint, JobState, Pace, Phase
from .messages import Answer, Call, Carrier, ImageSlot, Json, seconds_to_wait
from .options import check_options
from .qolaba_apps import (
    AUTO,
    CONTROLNET_APPS,
    GUIDANCE,
    IMAGE_APPS,
    KNOWN_APPS,
    MACHINE,
    MACHINES,
    NEGATIVE,
    STEPS,
    App,
    QolabaControlNetOptions,
    QolabaImageToImageOptions,
    QolabaOptions,
    Source,
    Strength,
    other_controlnet,
    other_image_app,
    table,
    union,
)
from .redaction import Secret

if TYPE_CHECKING:
    from torch import Tensor

_WORDS = ("error", "error_data", "message", "detail")
_FAILED = ("failed", "failure")
_MODERATED = "pictures that its check for nudity or copyright flags are dropped without a word. Change the prompt"

Options = TypeVar("Options", bound=QolabaOptions)


class _Qolaba(Endpoint[Options]):
    """What both endpoints share; a subclass adds its apps."""

    service = "qolaba"
    base_url = "https://qolaba-server-b2b.up.railway.app/api/v1/studio"
    url_variable = "CONTROLSTACK_QOLABA_URL"
    pace = Pace(first=2, shortest=2, longest=5, deadline=600)
    apps: ClassVar[tuple[App, ...]]
    sources: ClassVar[tuple[Source, ...]]
    other_app: Callable[[str], App]

    def capabilities(self, options: Options) -> Capabilities:
        app = self._named(options)
        return table(app, f"Qolaba {app.name}") if app else union(self.apps, self.target, self.sources)

    def needs_image_host(self, options: Options) -> bool:
        return not options.image_url

    def starts_elsewhere(self, request: GenerationRequest, options: Options) -> bool:
        """An address without anything connected is that of an initial image, else of what is connected."""
        connected = acting_controls(request) or acting_references(request)
        return bool(options.image_url) and not connected and Source.INIT_IMAGE in self.sources

    def problems(self, request: GenerationRequest, options: Options) -> list[Problem]:
        found = [
            *check_options(options),
            *web_address("image_url", options.image_url),
            *batches(request, self.target),
            *_single_reference(request, self.target),
        ]
        app = self.app_for(request, options)
        if app is None:
            return [*found, *_no_app(request, self.apps, self.target)]
        if not set(app.sources) & set(self.sources):
            found.append(_wrong_page(app, self.target))
        starts = self.starts_elsewhere(request, options)
        general = {problem.field for problem in validate(request, self.capabilities(options), starts_elsewhere=starts)}
        own = validate(request, table(app, f"Qolaba {app.name}"), starts_elsewhere=starts)
        found += [problem for problem in own if problem.field not in general]
        return [*found, *_app_problems(request, options, app, self.apps, starts)]

    def notes(self, request: GenerationRequest, options: Options) -> list[str]:
        app = self.app_for(request, options)
        return list(_notes(request, app, self.starts_elsewhere(request, options))) if app else []

    def app_for(self, request: GenerationRequest, options: Options) -> App | None:
        """The app chosen by the user, else the first live one that takes what is connected."""
        starts = self.starts_elsewhere(request, options)
        live = (app for app in self.apps if not app.retired and _takes(app, request, starts))
        return self._named(options) or next(live, None)

    def _named(self, options: Options) -> App | None:
        custom = options.custom_app_id.strip()
        if custom:
            return next((app for app in KNOWN_APPS if app.app_id == custom), None) or self.other_app(custom)
        return next((app for app in self.apps if app.name == options.app_id), None)

    def _app(self, request: GenerationRequest, options: Options) -> App:
        app = self.app_for(request, options)
        assert app is not None, "a request without problems has an app"
        return app

    def image_slots(self, request: GenerationRequest, options: Options) -> list[ImageSlot]:
        if options.image_url:
            return [ImageSlot("image", None, Carrier.URL, options.image_url)]
        source = _source(self._app(request, options), request, starts_elsewhere=False)
        return [ImageSlot("image", _picture(source, request), Carrier.URL)]

    def build_payload(self, request: GenerationRequest, options: Options, images: Mapping[str, str]) -> dict[str, Any]:
        app = self._app(request, options)
        acting = {
            GUIDANCE: request.guidance_scale,
            STEPS: request.steps,
            MACHINE: options.inference_type,
            "width": request.width,
            "height": request.height,
        }
        body = {
            "app_id": app.app_id,
            "image": images["image"],
            "prompt": request.prompt,
            "batch": request.batch_size,
            "strength": _strength(request, options, app, self.starts_elsewhere(request, options)),
            "celery": options.celery,
            **{name: value for name, value in acting.items() if name in app.fields},
        }
        return body | ({NEGATIVE: request.negative_prompt} if request.negative_prompt.strip() else {})

    def submit(self, payload: Json, options: Options) -> Call:
        return Call("POST", options.route, body=payload, paid=True)

    def read_submit(self, answer: Answer) -> JobState:
        """The job, or the results if `celery` is off. Failures have HTTP 200 or 500 (docs/services/qolaba.md 4, 5)."""
        state, said = words(field(answer, "status")).lower(), message(answer, _WORDS)
        task = identifier(field(answer, "task_id"))
        if answer.status == 429:
            raise refusal(self.target, answer, said)
        if state in (*_FAILED, "error"):
            raise refusal(self.target, answer, said, account=is_about_account(said))
        if state == "success" or _links(answer):
            return _finished(answer, task)
        if task and answer.status < 400:
            return JobState(Phase.QUEUED, task, metadata=_metadata(answer))
        if 400 <= answer.status < 500:
            raise refusal(self.target, answer, said)
        raise unclear(self.target, answer, said)

    def poll(self, job_id: str) -> Call:
        return Call("POST", "/getImage", body={"id": job_id})

    def read_poll(self, answer: Answer) -> JobState:
        """An unknown or expired id stays pending without end; the deadline ends it (docs/services/qolaba.md 4).

        A job fails with HTTP 200 or 500, and a wrong key is `FAILED` with HTTP 500 (docs/services/qolaba.md 5). The
        gateway has an "error" of its own, such as a 404 while a new version starts: that passes.
        """
        state, said = words(field(answer, "status")).lower(), message(answer, _WORDS)
        task = identifier(field(answer, "task_id"))
        if state == "success" or (answer.status < 400 and _links(answer)):
            return _finished(answer, task)
        if state in _FAILED and not 400 <= answer.status < 500:
            if answer.status >= 500 and is_about_account(said):
                raise refusal(self.target, answer, said, account=True)
            return JobState(Phase.FAILED, task, message=said or "no reason given", metadata=_metadata(answer))
        if 400 <= answer.status < 500 and answer.status != 404 and not worth_asking_again(answer):
            raise refusal(self.target, answer, said)
        return JobState(Phase.QUEUED, task, message=said, wait=seconds_to_wait(answer, said))

    def authorize(self, call: Call, secrets: Mapping[str, Secret]) -> Call:
        return replace(call, headers={**call.headers, "Authorization": f"Bearer {secrets['api_key'].reveal()}"})


class QolabaControlNet(_Qolaba[QolabaControlNetOptions]):
    """POST /getImagetoImage with one of the ControlNet apps."""

    target = "Qolaba ControlNet"
    options_type = QolabaControlNetOptions
    apps = CONTROLNET_APPS
    sources = (Source.CONTROL,)
    other_app = staticmethod(other_controlnet)
    tables = (
        union(CONTROLNET_APPS, target, sources),
        *(table(app, f"Qolaba {app.name}") for app in CONTROLNET_APPS),
    )


class QolabaImageToImage(_Qolaba[QolabaImageToImageOptions]):
    """POST /getImagetoImage with one of the Image to Image apps."""

    target = "Qolaba Image to Image"
    options_type = QolabaImageToImageOptions
    apps = IMAGE_APPS
    sources = tuple(Source)
    other_app = staticmethod(other_image_app)
    tables = (union(IMAGE_APPS, target, sources), *(table(app, f"Qolaba {app.name}") for app in IMAGE_APPS))

    def build_payload(
        self, request: GenerationRequest, options: QolabaImageToImageOptions, images: Mapping[str, str]
    ) -> dict[str, Any]:
        body = super().build_payload(request, options, images)
        if options.swap_size and self._app(request, options).swaps_size:
            body |= {"width": request.height, "height": request.width}
        return body


def _source(app: App, request: GenerationRequest, starts_elsewhere: bool) -> Source | None:
    """Which of the connected things is the app's picture; one at most in a request without problems."""
    there = {
        Source.CONTROL: bool(acting_controls(request)),
        Source.REFERENCE: bool(acting_references(request)),
        Source.INIT_IMAGE: request.init_image is not None or starts_elsewhere,
    }
    return next((source for source, connected in there.items() if connected and source in app.sources), None)


def _takes(app: App, request: GenerationRequest, starts_elsewhere: bool = False) -> bool:
    controls, references = acting_controls(request), acting_references(request)
    source = _source(app, request, starts_elsewhere)
    if source is Source.CONTROL:
        return controls[0].modality in app.modalities
    if controls:
        return False
    if source is Source.REFERENCE:
        return references[0].kind in app.kinds
    return source is Source.INIT_IMAGE and not references


def _picture(source: Source | None, request: GenerationRequest) -> Tensor | None:
    """[1, h, w, channel]; the size of the result is that of the picture, except for references."""
    if source is Source.CONTROL:
        return fitted_control(acting_controls(request)[0], request)
    if source is Source.REFERENCE:
        return acting_references(request)[0].image
    return None if request.init_image is None else fitted_picture(request.init_image, request)


def _closeness(source: Source | None, request: GenerationRequest) -> tuple[str, float]:
    """How much of the picture is to be kept, 0 to 1, with the field it comes from; one meaning for every app."""
    if source is Source.CONTROL:
        return "control strength", acting_controls(request)[0].strength
    if source is Source.REFERENCE:
        return "reference scale", acting_references(request)[0].scale
    return "denoise", 1 - request.denoise


def _strength(request: GenerationRequest, options: QolabaOptions, app: App, starts_elsewhere: bool) -> float:
    """What is sent: closeness as it is, or turned round where more strength changes more."""
    _, closeness = _closeness(_source(app, request, starts_elsewhere), request)
    direction = app.strength.value if options.strength_direction == AUTO else options.strength_direction
    return round(1 - closeness if direction == Strength.FARTHER.value else closeness, 6)


def _single_reference(request: GenerationRequest, target: str) -> Iterator[Problem]:
    for index, reference in acting(request.references):
        count = reference.image.shape[0] if reference.image.ndim else 0
        if count > 1:
            yield Problem(
                f"reference {index} image", f"a batch of {count}", f"{target} takes one picture", "Pick one of them."
            )


def _no_app(request: GenerationRequest, apps: Sequence[App], target: str) -> Iterator[Problem]:
    retired = [app for app in apps if app.retired and _takes(app, request)]
    if retired:
        modality = acting_controls(request)[0].modality.value
        limit = f"{target} has no live app for {modality} controls"
        yield Problem("app_id", AUTO, limit, f"Choose '{retired[0].name}' if it still answers, or another service.")
        return
    wanted = sorted({source.value for app in apps for source in app.sources})
    limit = f"no app fits what is connected; {target} takes {' or '.join(wanted)}"
    yield Problem("app_id", AUTO, limit, "Connect one of these, or choose an app.")


def _wrong_page(app: App, target: str) -> Problem:
    limit = f"{app.name} takes {' or '.join(app.sources)}, and {target} has none"
    return Problem("custom_app_id", app.app_id, limit, "Use Qolaba Image to Image for it.")


def _app_problems(
    request: GenerationRequest, options: QolabaOptions, app: App, apps: Sequence[App], starts_elsewhere: bool
) -> Iterator[Problem]:
    target = f"Qolaba {app.name}"
    connected = [
        name
        for name, there in (
            ("a control", acting_controls(request)),
            ("a reference", acting_references(request)),
            ("an initial image", request.init_image is not None),
        )
        if there
    ]
    wanted = " or ".join(source.value for source in app.sources)
    source = _source(app, request, starts_elsewhere)
    if len(connected) > 1:
        limit = f"{target} takes one picture, from {wanted}"
        yield Problem("image", " and ".join(connected), limit, "Disconnect the others.")
    if source is None and app.sources != (Source.CONTROL,):
        yield Problem("image", "not connected", f"{target} needs {wanted}", "Connect it to the request.")
    if request.negative_prompt.strip() and NEGATIVE not in app.fields:
        able = " or ".join(other.name for other in apps if NEGATIVE in other.fields)
        remedy = f"Empty it, or choose {able} as app_id" if able else "Empty it"
        yield Problem("negative_prompt", f"'{request.negative_prompt[:40]}'", f"{target} ignores it", f"{remedy}.")
    if options.inference_type != MACHINES[0] and MACHINE not in app.fields:
        limit = f"{target} runs elsewhere and has no choice of GPU"
        yield Problem("inference_type", options.inference_type, limit, f"Set it to {MACHINES[0]}.")
    name, closeness = _closeness(source, request)
    strength = _strength(request, options, app, starts_elsewhere)
    if source is not None and not 0 < strength <= 1:
        shown = request.denoise if name == "denoise" else closeness
        limit = f"{target} would get strength {strength:g}, and it must be above 0 and at most 1"
        yield Problem(name, f"{shown:g}", limit, "Move it a little, e.g. by 0.01.")


def _notes(request: GenerationRequest, app: App, starts_elsewhere: bool) -> Iterator[str]:
    if app.retired:
        then = f"use {app.successor} instead" if app.successor else "no other app succeeds it"
        yield f"Qolaba took the app {app.app_id} off its service on 2025-04-15; {then}."
    yield "Qolaba has no seed: the same request gives another picture each time."
    if STEPS not in app.fields:
        yield f"Qolaba {app.name} chooses the number of steps itself."
    if GUIDANCE not in app.fields:
        yield f"Qolaba {app.name} chooses the guidance itself."
    source = _source(app, request, starts_elsewhere)
    if source is Source.CONTROL and acting_controls(request)[0].detect is not Detect.SERVICE:
        yield "Qolaba makes the control map itself: detect = service sends it the picture, which is what it expects."
    if source is Source.REFERENCE and app.strength is Strength.IGNORED:
        yield f"Qolaba {app.name} has no weight for its reference: the scale is not used."
    if source is Source.INIT_IMAGE and request.denoise == 1:
        yield "With denoise 1 the initial image is ignored."


def _links(answer: Answer) -> tuple[str, ...]:
    """`output.result`, a list, a string or `url`; the thumbnails in `low_res_urls` are never taken.

    See docs/services/qolaba.md 4.
    """
    return strings(field(answer, "output"))


def _metadata(answer: Answer) -> dict[str, Any]:
    output = field(answer, "output")
    flags = output.get("Has_NSFW_Content") if isinstance(output, Mapping) else None
    told = {name: field(answer, name) for name in ("app_id", "time_required", "status")}
    return {name: value for name, value in {**told, "Has_NSFW_Content": flags}.items() if value not in (None, "", {})}


def _finished(answer: Answer, task: str) -> JobState:
    outputs, echo = _links(answer), field(answer, "input")
    asked = echo.get("batch") if isinstance(echo, Mapping) else None
    if not outputs:
        why = f"Qolaba reports success, but names no picture: {_MODERATED}."
        return JobState(Phase.FAILED, task, message=why, metadata=_metadata(answer))
    said = ""
    if isinstance(asked, int) and len(outputs) < asked:
        said = f"{len(outputs)} of {asked} pictures came back: {_MODERATED}."
    return JobState(Phase.DONE, task, outputs, said, 1.0, metadata=_metadata(answer))
