"""Scenario's ControlNet + IP-Adapter endpoint (docs/services/scenario.md).

Where the documents and observed code disagree:

- the control image is sent in `image` (docs/services/scenario.md 6);
- references are sent in the plural fields, and the seed as a string (docs/services/scenario.md 3);
- `numSamples` and `disableModalityDetection` are always sent, and on Flux dev `controlStart` and `controlEnd`, whose
  defaults would end a control early (docs/services/scenario.md 3).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from ....core.capabilities import Capabilities
from ....core.errors import ServiceError
from ....core.problems import Problem
from ....core.request import GenerationRequest
from ...credentials.redaction import Secret
from ...credentials.specs import CredentialSpec
from ...http.messages import Answer, Call, Carrier, ImageSlot, Json, is_object, number, seconds_to_wait
from ..answers import field, identifier, message, refusal, strings, unclear, words, worth_asking_again
from ..checks import acting_controls, fitted_control, service_detects
from ..endpoint import Endpoint, JobState, Pace, Phase
from .rules import (
    CONTROL_KEY,
    INLINE_BYTES,
    carriers,
    combination_problems,
    concepts,
    control_fields,
    family,
    modality,
    reference_fields,
    reference_images,
)
from .tables import TABLES, TCD, Family, ScenarioOptions

# Assets are below 6 MB (docs/services/scenario.md 7.4).
LARGEST_ASSET = 5_900_000
_REASONS = ("reason", "message", "error", "errorMessage", "failureReason", "detail", "hint")
_PHASES: Mapping[str, Phase] = {
    "pending": Phase.QUEUED,
    "queued": Phase.QUEUED,
    "warming-up": Phase.RUNNING,
    "in-progress": Phase.RUNNING,
    "finalizing": Phase.RUNNING,
    "success": Phase.DONE,
    "succeeded": Phase.DONE,
    "completed": Phase.DONE,
    "failure": Phase.FAILED,
    "failed": Phase.FAILED,
    "error": Phase.FAILED,
    "canceled": Phase.CANCELED,
    "cancelled": Phase.CANCELED,
}
_LEGACY = "This endpoint is deprecated. Scenario may no longer offer it, at least for this model."
_ELSEWHERE = (
    "The job may belong to another key or project. For another project, queue its request again with that projectId "
    "and force_new off; Fetch Job finds such a job only if this computer sent it in the last 30 days."
)


@dataclass(frozen=True)
class Scenario(Endpoint[ScenarioOptions]):
    """POST /generate/controlnet-ip-adapter; `project` owns its jobs and images, if not the project of the key."""

    project: str = ""

    credential_spec = CredentialSpec(
        "scenario",
        "Scenario",
        ("api_key", "api_secret"),
        (
            {"api_key": "SCENARIO_SDK_API_KEY", "api_secret": "SCENARIO_SDK_API_SECRET"},
            {"api_key": "SCENARIO_API_KEY", "api_secret": "SCENARIO_API_SECRET"},
        ),
    )
    target = "Scenario"
    base_url = "https://api.cloud.scenario.com/v1"
    url_variable = "CONTROLSTACK_SCENARIO_URL"
    pace = Pace(first=2, shortest=2.5, longest=5, deadline=600)
    options_type = ScenarioOptions
    tables = tuple(TABLES.values())

    def bound(self, options: ScenarioOptions) -> Scenario:
        return replace(self, project=options.projectId.strip())

    def bound_again(self, sent: Json) -> Scenario:
        return replace(self, project=words(sent.get("projectId")))

    def capabilities(self, options: ScenarioOptions) -> Capabilities:
        return TABLES[family(options)]

    def problems(self, request: GenerationRequest, options: ScenarioOptions) -> list[Problem]:
        return list(combination_problems(request, options))

    def notes(self, request: GenerationRequest, options: ScenarioOptions) -> list[str]:
        found: list[str] = []
        kind = family(options)
        if kind is Family.UNKNOWN:
            found.append(
                f"The family of '{options.modelId}' is not known, so the limits of its family are not checked. "
                "Set model_family if you know it. If the model is Flux dev, the service otherwise ends each "
                "control halfway."
            )
        if kind is Family.FLUX_DEV and request.negative_prompt.strip():
            found.append("According to the documentation, Flux models ignore the negative prompt on this endpoint.")
        return found

    def image_slots(self, request: GenerationRequest, options: ScenarioOptions) -> list[ImageSlot]:
        chosen = carriers(request, options)
        references = reference_images(request)
        inline = (chosen.control is Carrier.DATA_URL) + len(references) * (chosen.references is Carrier.DATA_URL)
        sizes = {Carrier.DATA_URL: INLINE_BYTES // max(inline, 1), Carrier.UPLOAD: LARGEST_ASSET}
        control = fitted_control(acting_controls(request)[0], request)
        slots = [ImageSlot(CONTROL_KEY, control, chosen.control, max_bytes=sizes[chosen.control])]
        for reference in references:
            slots.append(
                ImageSlot(reference.key, reference.image, chosen.references, max_bytes=sizes[chosen.references])
            )
        return slots

    def build_payload(
        self, request: GenerationRequest, options: ScenarioOptions, images: Mapping[str, str]
    ) -> dict[str, Any]:
        controls = acting_controls(request)
        body: dict[str, Any] = {
            "modelId": options.modelId.strip(),
            "prompt": request.prompt,
            "modality": "".join(options.modality.split()) or modality(controls),
            "disableModalityDetection": not service_detects(controls),
            "width": request.width,
            "height": request.height,
            "guidance": request.guidance_scale,
            "numInferenceSteps": request.steps,
            "numSamples": request.batch_size,
            "hideResults": options.hideResults,
            "intermediateImages": options.intermediateImages,
        }
        if not options.random_seed:
            body["seed"] = str(request.seed)
        if family(options) is Family.FLUX_DEV:
            body |= {"controlStart": controls[0].start, "controlEnd": controls[0].end}
        if options.scheduler == TCD or request.scheduler.name:
            body["scheduler"] = request.scheduler.name.value if request.scheduler.name else TCD
        if request.negative_prompt.strip():
            body["negativePrompt"] = request.negative_prompt
        if options.negativePromptStrength:
            body["negativePromptStrength"] = options.negativePromptStrength
        if stack := concepts(request, options):
            body["concepts"] = stack
        texts = {name: getattr(options, name).strip() for name in ("baseModelId", "modelEpoch")}
        body |= {name: text for name, text in texts.items() if text}
        return body | control_fields(request, options, images) | reference_fields(request, options, images)

    def submit(self, payload: Json, options: ScenarioOptions) -> Call:
        """`dryRun` goes into the query: in the body it is ignored and the job is paid (docs/services/scenario.md 2)."""
        switches = {"originalAssets": options.originalAssets, "dryRun": options.estimate_only}
        query = {name: "true" for name, on in switches.items() if on} | self.bound(options)._owner
        return Call("POST", "/generate/controlnet-ip-adapter", query, payload, paid=not options.estimate_only)

    def read_submit(self, answer: Answer) -> JobState:
        job, said = _job(answer), message(answer, _REASONS)
        if 200 <= answer.status < 300 and _job_id(job):
            cost = number(field(answer, "creativeUnitsCost"))
            return replace(_state(answer, job), cost=cost if cost is not None else _billed(job))
        if 400 <= answer.status < 500:
            error = refusal(self.target, answer, said)
            raise ServiceError(f"{error} {_LEGACY}") if answer.status in (400, 403, 404) else error
        raise unclear(self.target, answer, said)

    def read_estimate(self, answer: Answer) -> JobState:
        """A price without a job, with HTTP 269 (docs/services/scenario.md 8)."""
        cost = number(field(answer, "creativeUnitsCost"))
        if 200 <= answer.status < 300 and cost is not None and not _job_id(_job(answer)):
            return JobState(Phase.DONE, metadata=_metadata(answer, {}), cost=cost)
        return self.read_submit(answer)

    def poll(self, job_id: str) -> Call:
        return Call("GET", f"/jobs/{quote(job_id, safe='')}", self._owner)

    def read_poll(self, answer: Answer) -> JobState:
        """A status that is not documented counts as running: the deadline ends it.

        A 404 also comes for a job of another project, so it does not end a job (docs/services/scenario.md 8).
        """
        job = _job(answer)
        if 200 <= answer.status < 300 and job:
            return _state(answer, job)
        said = message(answer, _REASONS)
        if answer.status == 404:
            known = f"The job may belong to another key, or to another project than {self.project}."
            raise ServiceError(f"{refusal(self.target, answer, said)} {known if self.project else _ELSEWHERE}")
        if 400 <= answer.status < 500 and not worth_asking_again(answer):
            raise refusal(self.target, answer, said)
        return JobState(Phase.RUNNING, message=said, wait=seconds_to_wait(answer, said))

    def cancel(self, job_id: str) -> Call:
        """Most generations refuse this with HTTP 400 and may still finish (docs/services/scenario.md 7.5)."""
        return Call("POST", f"/jobs/{quote(job_id, safe='')}/action", self._owner, {"action": "cancel"})

    def upload(self, data: bytes, media_type: str, name: str) -> Call:
        text = base64.b64encode(data).decode()
        return Call("POST", "/assets", self._owner, {"image": f"data:{media_type};base64,{text}", "name": name})

    def read_upload(self, answer: Answer) -> str:
        asset = field(answer, "asset")
        found = identifier(asset.get("id")) if is_object(asset) else ""
        if found and 200 <= answer.status < 300:
            return found
        raise refusal(self.target, answer, message(answer, _REASONS))

    def locate(self, output: str) -> Call | None:
        if output.startswith(("https://", "http://", "data:")):
            return None
        return Call("GET", f"/assets/{quote(output, safe='')}", {"originalAssets": "true", **self._owner})

    def read_location(self, answer: Answer) -> str:
        """The signed address, whose query must not be changed (docs/services/scenario.md 7.3)."""
        asset = field(answer, "asset")
        found = words(asset.get("url")) if is_object(asset) else ""
        if found:
            return found
        raise refusal(self.target, answer, message(answer, _REASONS))

    @property
    def _owner(self) -> dict[str, str]:
        """The query that names the project (docs/services/scenario.md 2, 7.2, 7.3)."""
        return {"projectId": self.project} if self.project else {}

    def authorize(self, call: Call, secrets: Mapping[str, Secret]) -> Call:
        """HTTP Basic with key and secret (docs/services/scenario.md 1)."""
        text = f"{secrets['api_key'].reveal()}:{secrets['api_secret'].reveal()}"
        pair = base64.b64encode(text.encode()).decode()
        return replace(call, headers={**call.headers, "Authorization": f"Basic {pair}"})


def _job(answer: Answer) -> Json:
    job = field(answer, "job")
    return job if is_object(job) else {}


def _job_id(job: Json) -> str:
    return identifier(job.get("jobId")) or identifier(job.get("id"))


def _billed(job: Json) -> float | None:
    billing = job.get("billing")
    return number(billing.get("cuCost")) if is_object(billing) else None


def _metadata(answer: Answer, job: Json) -> dict[str, Any]:
    """What the answer says about the job, without the echo of its input."""
    facts = {name: job[name] for name in ("jobType", "status", "createdAt", "updatedAt", "billing") if name in job}
    costs = ("creativeUnitsCost", "creativeUnitsDiscount", "costDetails")
    return facts | {name: field(answer, name) for name in costs if field(answer, name) is not None}


def _state(answer: Answer, job: Json) -> JobState:
    metadata = job.get("metadata")
    details: Json = metadata if is_object(metadata) else {}
    phase = _PHASES.get(words(job.get("status")).lower(), Phase.RUNNING)
    outputs = strings(details.get("assetIds")) if phase is Phase.DONE else ()
    reasons = [words(part.get(name)) for part in (details, job) for name in _REASONS]
    said = " ".join(dict.fromkeys(filter(None, reasons)))
    if phase is Phase.DONE and not outputs:
        phase, said = Phase.FAILED, said or "the service reports success, but names no image"
    progress = number(job.get("progress"))
    return JobState(
        phase,
        _job_id(job),
        outputs,
        said or ("no reason given" if phase is Phase.FAILED else ""),
        None if progress is None else min(max(progress, 0.0), 1.0),
        metadata=_metadata(answer, job),
        cost=_billed(job),
    )
