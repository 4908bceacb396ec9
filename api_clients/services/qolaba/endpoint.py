"""Qolaba's ControlNet and Image to Image endpoints: one route, two pages, one image (docs/services/qolaba.md).

Where the documents and observed code disagree:

- a job is queued (`celery`) and polled (docs/services/qolaba.md 4);
- `strength` has the direction that the service's own source gives it for each app (docs/services/qolaba.md 3);
- a field that does not act for an app is not sent (docs/services/qolaba.md 2.3).

There is no seed: the same request makes another image each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from ....core.capabilities import Capabilities
from ....core.problems import Problem
from ....core.request import GenerationRequest
from ....core.validate import validate
from ...credentials.redaction import Secret
from ...credentials.specs import api_key_spec
from ...http.messages import Answer, Call, Carrier, ImageSlot, Json, is_object, seconds_to_wait
from ..answers import field, identifier, is_about_account, message, refusal, strings, unclear, words, worth_asking_again
from ..checks import acting_controls, acting_references, web_address
from ..endpoint import Endpoint, JobState, Pace, Phase
from ..options import check_options
from .rules import (
    APP_OF_ANOTHER_ENDPOINT,
    accepts,
    app_notes,
    app_problems,
    no_app,
    single_reference,
    source_image,
    source_of,
    strength_of,
)
from .tables import (
    CONTROLNET_APPS,
    GUIDANCE,
    IMAGE_APPS,
    KNOWN_APPS,
    MACHINE,
    NEGATIVE,
    STEPS,
    App,
    QolabaControlNetOptions,
    QolabaImageToImageOptions,
    QolabaOptions,
    Source,
    other_controlnet,
    other_image_app,
    table,
    union,
)

_WORDS = ("error", "error_data", "message", "detail")
_FAILED = ("failed", "failure")
_MODERATED = "Qolaba silently drops images that its check for nudity or copyright flags. Change the prompt."

Options = TypeVar("Options", bound=QolabaOptions)


class _Qolaba(Endpoint[Options]):
    """What both endpoints share. A subclass adds its apps."""

    credential_spec = api_key_spec("qolaba", "Qolaba")
    base_url = "https://qolaba-server-b2b.up.railway.app/api/v1/studio"
    url_variable = "CONTROLSTACK_QOLABA_URL"
    pace = Pace(first=2, shortest=2, longest=5, deadline=600)
    apps: ClassVar[tuple[App, ...]]
    sources: ClassVar[tuple[Source, ...]]
    other_app: Callable[[str], App]

    def capabilities(self, options: Options) -> Capabilities:
        app = self._named(options)
        if app is None or not self._sends(app):
            return union(self.apps, self.target, self.sources)
        return table(app, f"Qolaba {app.name}")

    def needs_image_host(self, options: Options) -> bool:
        return not options.image_url

    def starts_elsewhere(self, request: GenerationRequest, options: Options) -> bool:
        """If nothing is connected, the address is that of an initial image, otherwise that of what is connected."""
        connected = acting_controls(request) or acting_references(request)
        return bool(options.image_url) and not connected and Source.INIT_IMAGE in self.sources

    def problems(self, request: GenerationRequest, options: Options) -> list[Problem]:
        found = [
            *check_options(options),
            *web_address("image_url", options.image_url),
            *single_reference(request, self.target),
        ]
        app = self.app_for(request, options)
        if app is None:
            return [*found, no_app(request, self.apps, self.target)]
        if not self._sends(app):
            facts = {"app": app.name, "sources": " or ".join(app.sources), "target": self.target}
            return [*found, APP_OF_ANOTHER_ENDPOINT("custom_app_id", app.app_id, "", **facts)]
        starts = self.starts_elsewhere(request, options)
        general = {problem.field for problem in validate(request, self.capabilities(options), starts_elsewhere=starts)}
        own = validate(request, table(app, f"Qolaba {app.name}"), starts_elsewhere=starts)
        found += [problem for problem in own if problem.field not in general]
        return [*found, *app_problems(request, options, app, self.apps, starts)]

    def notes(self, request: GenerationRequest, options: Options) -> list[str]:
        app = self.app_for(request, options)
        return list(app_notes(request, app, self.starts_elsewhere(request, options))) if app else []

    def app_for(self, request: GenerationRequest, options: Options) -> App | None:
        """The app chosen by the user, else the first live one that accepts what is connected."""
        starts = self.starts_elsewhere(request, options)
        live = (app for app in self.apps if not app.retired and accepts(app, request, starts))
        return self._named(options) or next(live, None)

    def _sends(self, app: App) -> bool:
        """Whether this endpoint can send an image that the app accepts."""
        return bool(set(app.sources) & set(self.sources))

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
        source = source_of(self._app(request, options), request, starts_elsewhere=False)
        return [ImageSlot("image", source_image(source, request), Carrier.URL)]

    def build_payload(self, request: GenerationRequest, options: Options, images: Mapping[str, str]) -> dict[str, Any]:
        app = self._app(request, options)
        documented = {
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
            "strength": strength_of(request, options, app, self.starts_elsewhere(request, options)),
            "celery": options.celery,
            **{name: value for name, value in documented.items() if name in app.fields},
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


def _links(answer: Answer) -> tuple[str, ...]:
    """`output.result`, a list, a string or `url`; the thumbnails in `low_res_urls` are never used.

    See docs/services/qolaba.md 4.
    """
    return strings(field(answer, "output"))


def _metadata(answer: Answer) -> dict[str, Any]:
    output = field(answer, "output")
    flags = output.get("Has_NSFW_Content") if is_object(output) else None
    facts = {name: field(answer, name) for name in ("app_id", "time_required", "status")}
    return {name: value for name, value in {**facts, "Has_NSFW_Content": flags}.items() if value not in (None, "", {})}


def _finished(answer: Answer, task: str) -> JobState:
    outputs, echo = _links(answer), field(answer, "input")
    asked = echo.get("batch") if is_object(echo) else None
    if not outputs:
        why = f"Qolaba reports success, but names no image. {_MODERATED}"
        return JobState(Phase.FAILED, task, message=why, metadata=_metadata(answer))
    said = ""
    if isinstance(asked, int) and len(outputs) < asked:
        said = f"{len(outputs)} of {asked} images came back. {_MODERATED}"
    return JobState(Phase.DONE, task, outputs, said, 1.0, metadata=_metadata(answer))
