"""A double of Scenario's controlnet-ip-adapter endpoint (docs/services/scenario.md).

Sides taken: unknown fields are refused, although the service seems to tolerate them; the control image may stand in
any of its four fields; jobs and assets are there for calls of their own project only; an asset's address opens only
with its signature as it was given, and not with credentials; a job is canceled on request unless `cancels` is off,
which is what the service does for most generations.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .contracts import scenario as contract
from .double import (
    Asked,
    Double,
    ErrorShape,
    Job,
    Refused,
    Route,
    Stage,
    Step,
    checked,
    numbers,
)
from .drawing import Wish
from .loopback_server import Reply

KEY = "fake-scenario-5Tb7Mx1QcL9j"
SECRET = "fake-secret-8Wg4Ra2ZkE6u"

_STATUS = {
    Stage.QUEUED: "queued",
    Stage.RUNNING: "in-progress",
    Stage.DONE: "success",
    Stage.CANCELED: "canceled",
}
_UNIT_COST = 3


def _error(status: int, says: str, step: Step = Step.SUBMIT, **body: Any) -> ErrorShape:
    return ErrorShape(step, Reply(body, status), says)


class ScenarioDouble(Double):
    name = "Scenario"
    color = (76, 120, 214)
    url_variable = "CONTROLSTACK_SCENARIO_URL"
    prefix = "/v1"
    variables = {"SCENARIO_SDK_API_KEY": KEY, "SCENARIO_SDK_API_SECRET": SECRET}

    def reset(self) -> None:
        super().reset()
        self._numbers = numbers(1)
        kept = getattr(self, "owners", {})
        self.owners: dict[str, str] = {name: owner for name, owner in kept.items() if name in self.uploads}

    def generate(self, asked: Asked) -> Reply:
        self._authorize(asked)
        query = checked(contract.GenerateQuery, asked.query, _refuse)
        body = checked(contract.GenerateRequest, asked.seen.json, _refuse)
        cost = {
            "creativeUnitsCost": _UNIT_COST * body.numSamples,
            "creativeUnitsDiscount": 0,
            "costDetails": {"inference-images": _UNIT_COST * body.numSamples},
        }
        if query.dryRun:
            return Reply(cost, 269)
        image = self._image(body, asked)
        seed = int(body.seed or 0)
        facts = [body.modality, f"{body.modelId} seed {body.seed or 'random'}"]
        facts += [f"references: {len(found)}" for found in (body.ipAdapterImages, body.ipAdapterImageIds) if found]
        wish = Wish(body.prompt, int(body.width), int(body.height), body.numSamples, facts, seed, image)
        job = self.accept(f"job_{next(self._numbers):04d}", body, wish)
        self.owners[job.id] = _owner(asked)
        return Reply({**self._told(job, Stage.QUEUED), **cost})

    def job(self, asked: Asked) -> Reply:
        self._authorize(asked)
        found = self.polled(asked.parts["id"])
        if found is None or self.owners[found.id] != _owner(asked):
            return Reply({"reason": f"Job {asked.parts['id']} not found"}, 404)
        return Reply(self._told(found, self.stage(found)))

    def act(self, asked: Asked) -> Reply:
        self._authorize(asked)
        checked(contract.ActionRequest, asked.seen.json, _refuse)
        found = self.jobs.get(asked.parts["id"])
        strange = found is None or self.owners[found.id] != _owner(asked)
        if found is None or strange or not self.cancels or self.stage(found) is Stage.DONE:
            return Reply({"reason": "Cannot cancel this type of job"}, 400)
        found.canceled = True
        return Reply(self._told(found, Stage.CANCELED))

    def store(self, asked: Asked) -> Reply:
        self._authorize(asked)
        body = checked(contract.AssetRequest, asked.seen.json, _refuse)
        asset = f"asset_upload{len(self.uploads) + 1:04d}"
        self.uploads[asset] = base64.b64decode(body.image.partition(",")[2])
        self.owners[asset] = _owner(asked)
        return Reply({"asset": {"id": asset, "url": f"{self.base_url}/files/{asset}.png", "status": "success"}})

    def asset(self, asked: Asked) -> Reply:
        self._authorize(asked)
        name = asked.parts["id"]
        if self.owners.get(name.rpartition("-")[0].removeprefix("asset_")) != _owner(asked):
            return Reply({"reason": f"Asset {name} not found"}, 404)
        address = f"{self.base_url}/files/{name}?{_signature(name)}"
        told = {"id": name, "url": address, "mimeType": "image/png", "kind": "image", "status": "success"}
        return Reply({"asset": told})

    def result(self, asked: Asked) -> Reply:
        name = asked.parts["asset"]
        if urlsplit(asked.seen.path).query != _signature(name) or "Authorization" in asked.seen.headers:
            return Reply(b"<Error><Code>AccessDenied</Code></Error>", 403, {"Content-Type": "application/xml"})
        job_id, _, index = name.removeprefix("asset_").rpartition("-")
        return self.file(job_id, int(index))

    def _authorize(self, asked: Asked) -> None:
        expected = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
        if asked.seen.headers.get("Authorization") != f"Basic {expected}":
            raise Refused(self.errors["bad key"].reply)

    def _image(self, body: contract.GenerateRequest, asked: Asked) -> bytes | None:
        given = body.image or body.imageId or body.controlImage or body.controlImageId or ""
        if given.startswith("data:"):
            return base64.b64decode(given.partition(",")[2])
        if self.owners.get(given) != _owner(asked):
            raise Refused(Reply({"reason": f"Asset {given} not found"}, 404))
        return self.uploads[given]

    def _told(self, job: Job, stage: Stage) -> dict[str, Any]:
        assets = _assets(job) if stage is Stage.DONE else []
        told = {
            "jobId": job.id,
            "jobType": "flux" if str(job.body["modelId"]).startswith("flux") else "inference",
            "status": _STATUS[stage],
            "progress": 1 if stage is Stage.DONE else self.progress(job) if stage is Stage.RUNNING else 0,
            "createdAt": "2026-11-21T12:00:00.000Z",
            "updatedAt": "2026-11-21T12:00:01.000Z",
            "statusHistory": [],
            "metadata": {"input": _without_images(job.body), "assetIds": assets},
            "billing": {"cuCost": _UNIT_COST * job.body["numSamples"], "cuDiscount": 0},
        }
        return {"job": told}

    routes = (
        Route("POST", "/generate/controlnet-ip-adapter", Step.SUBMIT, generate),
        Route("GET", r"/jobs/(?P<id>[\w-]+)", Step.POLL, job),
        Route("POST", r"/jobs/(?P<id>[\w-]+)/action", Step.CANCEL, act),
        Route("POST", "/assets", Step.UPLOAD, store),
        Route("GET", r"/assets/(?P<id>[\w-]+)", Step.LOCATE, asset),
        Route("GET", r"/files/(?P<asset>[\w-]+)", Step.RESULT, result),
    )
    errors = {
        "validation": _error(400, "lorasScale must be at most 2", reason="Input lorasScale must be at most 2"),
        "custom model": _error(
            400, "Custom models only are supported", reason="Custom models only are supported for this endpoint"
        ),
        "bad key": _error(401, "Unauthorized", message="Unauthorized"),
        "credits": _error(402, "Not enough creative units", reason="Not enough creative units"),
        "protected": _error(
            403, "cannot access protected resources", message="API Keys cannot access protected resources"
        ),
        "model": _error(404, "Model model_x not found", reason="Model model_x not found", traceId="1-5f"),
        "cooldown": _error(429, "Please wait", reason="Please wait", remainingSeconds=12),
        "parallel limit": _error(
            429,
            "Too many parallel inferences",
            reason="Too many parallel inferences",
            details={"actionName": "parallel-inference", "actionLimit": 4},
        ),
        "failed job": _error(
            200,
            "The model ran out of memory. Use a smaller size",
            Step.POLL,
            job={
                "jobId": "job_0001",
                "status": "failure",
                "metadata": {"error": "The model ran out of memory.", "hint": "Use a smaller size"},
            },
        ),
        "failed job, other words": _error(
            200, "nsfw", Step.POLL, job={"jobId": "job_0001", "status": "failed", "failureReason": "nsfw"}
        ),
        "no image": _error(
            200,
            "names no image",
            Step.POLL,
            job={"jobId": "job_0001", "status": "success", "metadata": {"assetIds": []}},
        ),
    }
    account_errors = ("bad key", "credits", "protected")
    contracts = {"Scenario": (contract.GenerateQuery, contract.GenerateRequest)}


def _owner(asked: Asked) -> str:
    """The project that a call asserts; "" for the key's own."""
    return asked.query.get("projectId", "")


def _assets(job: Job) -> list[str]:
    return [f"asset_{job.id}-{index}" for index in range(job.body["numSamples"])]


def _signature(name: str) -> str:
    """The query that opens an asset."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"Policy=eyJ~{digest[:16]}_&Signature={digest[16:48]}-~A__&Key-Pair-Id=K{digest[48:60].upper()}"


def _without_images(body: Mapping[str, Any]) -> dict[str, Any]:
    def short(value: object) -> object:
        if isinstance(value, str) and value.startswith("data:"):
            return "asset_input"
        return [short(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value

    return {name: short(value) for name, value in body.items()}


def _refuse(reason: str) -> Reply:
    return Reply({"reason": reason}, 400)
