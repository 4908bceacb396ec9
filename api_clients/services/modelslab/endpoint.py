"""ModelsLab's ControlNet endpoints, standard and enterprise (docs/services/modelslab.md).

Where the documents and observed code disagree:

- switches are sent as "yes" and "no" (docs/services/modelslab.md 2.3);
- a field whose default differs between sources is always sent (docs/services/modelslab.md 2.4);
- a job is polled by its id; the key is never posted to the address in `fetch_result` (docs/services/modelslab.md 4);
- `message`, `messege`, `error`, `tip` and `tips` are read alike (docs/services/modelslab.md 3.4).
"""

from __future__ import annotations

import base64
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote, urlsplit

from ....core.capabilities import Capabilities
from ....core.errors import RateLimited, ServiceError
from ....core.problems import Problem, ProblemKind
from ....core.request import GenerationRequest
from ....core.scheduler import SchedulerName
from ...credentials.redaction import Secret
from ...credentials.specs import api_key_spec
from ...http.messages import Answer, Call, ImageSlot, Json, number, seconds_to_wait
from ..answers import field, identifier, is_about_account, message, refusal, strings, unclear, words, worth_asking_again
from ..checks import acting_controls, acting_loras, acting_references, plain, service_detects
from ..endpoint import Endpoint, JobState, Pace, Phase
from .rules import (
    SEEDS,
    adapter,
    adapter_problems,
    body_images,
    common_problems,
    conditioning_scale,
    net_names,
    notes,
    slot,
    steps,
)
from .tables import (
    ALGORITHMS,
    DOCUMENTED_MODALITIES,
    ENTERPRISE_TABLES,
    NO_ALGORITHM,
    TABLES,
    Family,
    ModelsLabEnterpriseOptions,
    ModelsLabOptions,
    SharedOptions,
    family_of,
)

TRACK_ID_NOT_A_NUMBER = ProblemKind(
    "modelslab_track_id_not_a_number",
    "track_id is '{value}'. {target} accepts only a whole number. Use digits only, or clear it.",
)
_HOSTS = ("modelslab.com", "www.modelslab.com", "stablediffusionapi.com", "www.stablediffusionapi.com")
_FETCH_PATH = re.compile(r"/fetch/([\w-]+)/?$", re.ASCII)
_RATE_LIMIT = re.compile(r"rate limit|queued requests", re.IGNORECASE)
_NEWS = ("message", "messege", "error")
_WORDS = (*_NEWS, "tip", "tips")
_BUSY = ("processing", "queued", "pending")

Options = TypeVar("Options", bound=SharedOptions)


class _ModelsLab(Endpoint[Options]):
    """What both endpoints share. A subclass adds its tables, paths and own fields."""

    base_url = "https://modelslab.com"
    url_variable = "CONTROLSTACK_MODELSLAB_URL"
    pace = Pace(first=2, shortest=2, longest=10, deadline=600)
    families: ClassVar[Mapping[Family, Capabilities]]

    def capabilities(self, options: Options) -> Capabilities:
        """The table of the family. ControlNets that the user names by id may be of any documented modality."""
        table = self.families[family_of(options.model_id, options.model_family)]
        if not options.controlnet_model.strip():
            return table
        return replace(table, controls=replace(table.controls, modalities=DOCUMENTED_MODALITIES))

    def starts_elsewhere(self, request: GenerationRequest, options: Options) -> bool:
        return bool(options.init_image_url)

    @abstractmethod
    def own_fields(self, request: GenerationRequest, options: Options) -> dict[str, Any]:
        """The fields that only this endpoint has."""

    def problems(self, request: GenerationRequest, options: Options) -> list[Problem]:
        family = self.families[family_of(options.model_id, options.model_family)]
        return list(common_problems(request, options, family, self.target))

    def notes(self, request: GenerationRequest, options: Options) -> list[str]:
        return list(notes(request, options))

    def image_slots(self, request: GenerationRequest, options: Options) -> list[ImageSlot]:
        found = body_images(request, options)
        return [slot(key, image, url, options.base64) for key, (image, url) in found.items()]

    def build_payload(self, request: GenerationRequest, options: Options, images: Mapping[str, str]) -> dict[str, Any]:
        controls, loras = acting_controls(request), acting_loras(request)
        scheduler = request.scheduler.name or SchedulerName.UNIPC
        body: dict[str, Any] = {
            "model_id": options.model_id.strip(),
            "controlnet_model": ",".join(net_names(controls, options)),
            "controlnet_type": options.controlnet_type.strip() or controls[0].modality.value,
            "auto_hint": _yes_no(service_detects(controls)),
            "guess_mode": _yes_no(options.guess_mode),
            "width": request.width,
            "height": request.height,
            "samples": request.batch_size,
            "scheduler": scheduler.value,
            "tomesd": _yes_no(options.tomesd),
            "use_karras_sigmas": _yes_no(options.use_karras_sigmas or request.scheduler.use_karras_sigmas),
            "num_inference_steps": steps(request, options),
            "safety_checker": _yes_no(options.safety_checker),
            "enhance_prompt": _yes_no(options.enhance_prompt),
            "guidance_scale": request.guidance_scale,
            "controlnet_conditioning_scale": conditioning_scale(controls, options),
            # Documented: 1 destroys all information of init_image. So it means the same as denoise.
            "strength": request.denoise,
            "seed": None if options.random_seed else request.seed % SEEDS,
            # The service counts from 1, its default, which skips no layer; a request counts from 0.
            "clip_skip": request.clip_skip + 1,
            "upscale": _yes_no(request.upscale),
            "base64": _yes_no(options.base64),
            "temp": _yes_no(options.temp),
        }
        if scheduler is SchedulerName.DPM_MULTISTEP:
            kind = request.scheduler.algorithm_type
            body["algorithm_type"] = ALGORITHMS[kind] if kind else NO_ALGORITHM
        if loras:
            body["lora_model"] = ",".join(lora.remote_id.strip() for lora in loras)
            body["lora_strength"] = ",".join(plain(lora.strength) for lora in loras)
        texts = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "vae": request.vae,
            "webhook": options.webhook,
            "track_id": options.track_id,
        }
        body |= {name: text for name, text in texts.items() if text.strip()}
        return body | self.own_fields(request, options) | dict(images)

    def with_webhook(self, payload: dict[str, Any], address: str) -> dict[str, Any]:
        """Best effort, by the documents (docs/services/modelslab.md 5); a webhook that the user set is kept."""
        return {"webhook": address, **payload}

    def submit(self, payload: Json, options: Options) -> Call:
        return Call("POST", options.api_path, body=payload, paid=True)

    def read_submit(self, answer: Answer) -> JobState:
        state, said = words(field(answer, "status")).lower(), message(answer, _WORDS)
        job = _job_id(answer)
        if state == "success":
            return _finished(answer, job)
        if state in _BUSY and job:
            return _waiting(answer, job)
        if answer.status == 429 or (state == "error" and _RATE_LIMIT.search(said)):
            raise RateLimited(str(refusal(self.target, answer, said)), seconds_to_wait(answer, said))
        if state in ("error", "failed") or 400 <= answer.status < 500:
            raise refusal(self.target, answer, said)
        raise unclear(self.target, answer, said)

    def read_poll(self, answer: Answer) -> JobState:
        """`failed`, or an `error` not about the key or the load, ends the job (docs/services/modelslab.md 4.1)."""
        state, said = words(field(answer, "status")).lower(), message(answer, _WORDS)
        job = _job_id(answer)
        if state == "success":
            return _finished(answer, job)
        if state == "failed":
            return JobState(Phase.FAILED, job, message=said or "no reason given", metadata=_metadata(answer))
        # An error about the account may come with HTTP 200 (docs/services/modelslab.md 3.4).
        if state == "error" and _refuses_account(answer):
            raise refusal(self.target, answer, said, account=True)
        if state == "error" and answer.status < 400 and not _RATE_LIMIT.search(said):
            return JobState(Phase.FAILED, job, message=said or "no reason given", metadata=_metadata(answer))
        if 400 <= answer.status < 500 and not worth_asking_again(answer):
            raise refusal(self.target, answer, said)
        return _waiting(answer, job)

    def authorize(self, call: Call, secrets: Mapping[str, Secret]) -> Call:
        """The key is a field of the JSON body (docs/services/modelslab.md 1)."""
        return replace(call, body={"key": secrets["api_key"].reveal(), **(call.body or {})})


class ModelsLab(_ModelsLab[ModelsLabOptions]):
    """POST /api/v5/controlnet."""

    credential_spec = api_key_spec("modelslab", "ModelsLab")
    target = "ModelsLab"
    options_type = ModelsLabOptions
    families = TABLES
    tables = tuple(TABLES.values())

    def problems(self, request: GenerationRequest, options: ModelsLabOptions) -> list[Problem]:
        found = [*super().problems(request, options), *adapter_problems(request, options, self.target)]
        if options.track_id and not (options.track_id.isascii() and options.track_id.isdigit()):
            found.append(TRACK_ID_NOT_A_NUMBER("track_id", options.track_id, "", target=self.target))
        return found

    def own_fields(self, request: GenerationRequest, options: ModelsLabOptions) -> dict[str, Any]:
        references = acting_references(request)
        if not references:
            return {}
        return {"ip_adapter_id": adapter(references[0], options), "ip_adapter_scale": references[0].scale}

    def image_slots(self, request: GenerationRequest, options: ModelsLabOptions) -> list[ImageSlot]:
        slots = super().image_slots(request, options)
        for reference in acting_references(request):
            slots.append(slot("ip_adapter_image", reference.image, options.ip_adapter_image_url, inline=False))
        return slots

    def poll(self, job_id: str) -> Call:
        return Call("POST", f"/api/v6/images/fetch/{quote(job_id, safe='')}", body={})

    def upload(self, data: bytes, media_type: str, name: str) -> Call:
        """A link valid for 24 hours (docs/services/modelslab.md 6)."""
        text = base64.b64encode(data).decode()
        return Call("POST", "/api/v6/base64_to_url", body={"base64_string": f"data:{media_type};base64,{text}"})

    def read_upload(self, answer: Answer) -> str:
        return _uploaded(self.target, answer, "output")


class ModelsLabEnterprise(_ModelsLab[ModelsLabEnterpriseOptions]):
    """POST /api/v1/enterprise/controlnet."""

    credential_spec = api_key_spec("modelslab_enterprise", "ModelsLab Enterprise")
    target = "ModelsLab Enterprise"
    options_type = ModelsLabEnterpriseOptions
    families = ENTERPRISE_TABLES
    tables = tuple(ENTERPRISE_TABLES.values())

    def own_fields(self, request: GenerationRequest, options: ModelsLabEnterpriseOptions) -> dict[str, Any]:
        return {"multi_lingual": _yes_no(options.multi_lingual)}

    def poll(self, job_id: str) -> Call:
        return Call("POST", "/api/v1/enterprise/fetch", body={"request_id": job_id})

    def upload(self, data: bytes, media_type: str, name: str) -> Call:
        """Stored in the server's own bucket (docs/services/modelslab.md 6)."""
        body = {"base64_image": base64.b64encode(data).decode(), "image_type": media_type.removeprefix("image/")}
        return Call("POST", "/api/v1/enterprise/upload_image", body=body)

    def read_upload(self, answer: Answer) -> str:
        return _uploaded(self.target, answer, "image_url")


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _job_id(answer: Answer) -> str:
    """The id in `fetch_result`, if that is an address of the service, else `id` (3.3 prefers the former)."""
    try:
        parts = urlsplit(words(field(answer, "fetch_result")))
        host = parts.hostname or ""
    except ValueError:
        return identifier(field(answer, "id"))
    found = _FETCH_PATH.search(parts.path) if parts.scheme == "https" and host in _HOSTS else None
    return found[1] if found else identifier(field(answer, "id"))


def _refuses_account(answer: Answer) -> bool:
    said = message(answer, _NEWS)  # tips advertise plans in any answer
    return is_about_account(said) and not _RATE_LIMIT.search(said) and not worth_asking_again(answer)


def _metadata(answer: Answer) -> dict[str, Any]:
    """The answer without its images. Only the first answer of a job has `meta` with the seed."""
    return {name: value for name, value in (answer.json or {}).items() if name != "output"}


def _waiting(answer: Answer, job: str) -> JobState:
    said, eta = message(answer, _WORDS), number(field(answer, "eta"))
    wait = seconds_to_wait(answer, said) if answer.status >= 400 else None
    if eta is not None:
        wait = min(max(eta, 1.0), 30.0)
    # The tips of a running job are advertisements (docs/services/modelslab.md 3.3).
    news = message(answer, _NEWS) if answer.status < 400 else said
    return JobState(Phase.RUNNING, job, message=news, wait=wait, metadata=_metadata(answer))


def _finished(answer: Answer, job: str) -> JobState:
    outputs = strings(field(answer, "output"))
    if not outputs:
        said = message(answer, _WORDS)
        why = f"the service reports success, but names no image{': ' + said if said else ''}"
        return JobState(Phase.FAILED, job, message=why, metadata=_metadata(answer))
    return JobState(Phase.DONE, job, outputs, message(answer, _NEWS), 1.0, metadata=_metadata(answer))


def _uploaded(target: str, answer: Answer, name: str) -> str:
    links = strings(field(answer, name)) or strings(field(answer, "link"))
    if words(field(answer, "status")).lower() == "success" and links:
        return links[0]
    said = message(answer, _WORDS)
    raise ServiceError(
        f"{target} did not accept an image: {said or f'HTTP {answer.status}'}. Use image addresses instead."
    )
