"""A double of ModelsLab's two ControlNet endpoints (docs/services/modelslab.md).

Sides taken: both paths of each endpoint exist; the first answer is "processing" unless `instant`; errors of its own
have the HTTP status of the newer documents; `.base64` files hold bare base64 and data URLs in turn, as both were seen;
results are read without a key and for ever.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

from .contracts import modelslab as contract
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

KEY = "fake-modelslab-7Hq2Zt9XbW4m"
ENTERPRISE_KEY = "fake-enterprise-3Kd8Vr6YnP1s"

_META = (
    "prompt model_id controlnet_model controlnet_type negative_prompt scheduler safety_checker auto_hint guess_mode "
    "strength guidance_scale controlnet_conditioning_scale use_karras_sigmas tomesd vae upscale enhance_prompt temp "
    "base64"
)
_TIP = "Get 20x faster image generation using enterprise plan. Click here : https://modelslab.com/enterprise"


def _error(status: int, step: Step, says: str, **body: Any) -> ErrorShape:
    return ErrorShape(step, Reply({"status": "error", **body}, status), says)


class ModelsLabDouble(Double):
    name = "ModelsLab"
    color = (214, 92, 60)
    url_variable = "CONTROLSTACK_MODELSLAB_URL"
    variables = {"MODELSLAB_API_KEY": KEY, "MODELSLAB_ENTERPRISE_API_KEY": ENTERPRISE_KEY}

    def reset(self) -> None:
        super().reset()
        self.instant = False
        self._numbers = numbers(120539115)

    def standard(self, asked: Asked) -> Reply:
        return self._submit(asked, contract.ControlNetRequest, KEY, "/api/v6/images/fetch")

    def enterprise(self, asked: Asked) -> Reply:
        return self._submit(asked, contract.EnterpriseControlNetRequest, ENTERPRISE_KEY, "/api/v1/enterprise/fetch")

    def fetch(self, asked: Asked) -> Reply:
        body = self._authorized(asked, KEY)
        checked(contract.FetchRequest, body, _refuse)
        return self._fetched(asked.parts["id"])

    def enterprise_fetch(self, asked: Asked) -> Reply:
        body = self._authorized(asked, ENTERPRISE_KEY)
        return self._fetched(checked(contract.EnterpriseFetchRequest, body, _refuse).request_id)

    def upload(self, asked: Asked) -> Reply:
        body = checked(contract.UploadRequest, self._authorized(asked, KEY), _refuse)
        return Reply({"status": "success", "id": 1047, "output": [self._store(body.base64_string.partition(",")[2])]})

    def enterprise_upload(self, asked: Asked) -> Reply:
        body = checked(contract.EnterpriseUploadRequest, self._authorized(asked, ENTERPRISE_KEY), _refuse)
        return Reply({"status": "success", "message": "image uploaded", "image_url": self._store(body.base64_image)})

    def uploaded(self, asked: Asked) -> Reply:
        data = self.uploads.get(self.url + asked.seen.path)
        return Reply(b"", 404) if data is None else Reply(data, headers={"Content-Type": "image/png"})

    def result(self, asked: Asked) -> Reply:
        reply = self.file(asked.parts["id"], int(asked.parts["index"]))
        if asked.parts["kind"] == "png" or reply.status != 200:
            return reply
        text = base64.b64encode(reply.bytes()).decode()
        bare = int(asked.parts["id"]) % 2 == 0
        return Reply(
            (text if bare else f"data:image/png;base64,{text}").encode(), headers={"Content-Type": "text/plain"}
        )

    def _authorized(self, asked: Asked, key: str) -> Mapping[str, Any]:
        """The body, if it has the key; without the header the body is not read (docs/services/modelslab.md 1, 3.4)."""
        if asked.seen.headers.get("Content-Type") != "application/json":
            raise Refused(self.errors["bad key, old"].reply)
        body = asked.seen.json
        if not body.get("key"):
            raise Refused(self.errors["no key"].reply)
        if body["key"] != key:
            raise Refused(self.errors["bad key"].reply)
        return body

    def _submit(
        self,
        asked: Asked,
        model: type[contract.ControlNetRequest | contract.EnterpriseControlNetRequest],
        key: str,
        path: str,
    ) -> Reply:
        body = checked(model, self._authorized(asked, key), _refuse)
        source = body.control_image or body.init_image or ""
        try:
            image = base64.b64decode(source) if body.base64 == "yes" else self.image_at(source)
        except OSError:
            raise Refused(_refuse("Unable to fetch image from provided URL")) from None
        number = next(self._numbers)
        seed = random.Random(number).randrange(2**32) if body.seed is None else body.seed
        scale = 2 if body.upscale == "yes" else 1
        facts = [f"{body.controlnet_model} {body.controlnet_conditioning_scale:g}", f"{body.model_id} seed {seed}"]
        wish = Wish(body.prompt or "", body.width * scale, body.height * scale, body.samples, facts, seed, image)
        job = self.accept(str(number), body, wish)
        if self.instant:
            job.polls = self.pending_polls + 1
            return Reply({**self._success(job), "meta": _meta(job, seed)})
        return Reply(
            {
                "status": "processing",
                "tip": _TIP,
                "tip_1": "Your image is processing in background, you can get this image using fetch API",
                "eta": self.latency,
                "messege": "Try to fetch request after seconds estimated",
                "fetch_result": f"{self.url}{path}/{number}",
                "id": number,
                "output": "",
                "future_links": self._links(job),
                "meta": _meta(job, seed),
            }
        )

    def _fetched(self, number: str) -> Reply:
        job = self.polled(number)
        if job is None:
            return Reply({"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""})
        if self.stage(job) is Stage.DONE:
            return Reply(self._success(job))
        return Reply({"status": "processing", "messege": "try again later.", "output": "", "tip": _TIP})

    def _success(self, job: Job) -> dict[str, Any]:
        return {"status": "success", "id": int(job.id), "output": self._links(job)}

    def _links(self, job: Job) -> list[str]:
        kind = "base64" if job.body["base64"] == "yes" else "png"
        return [f"{self.url}/generations/{job.id}-{index}.{kind}" for index in range(job.body["samples"])]

    def _store(self, text: str) -> str:
        with self._state:
            address = f"{self.url}/temp/{len(self.uploads) + 1}.png"
            self.uploads[address] = base64.b64decode(text)
            return address

    routes = (
        Route("POST", "/api/(v5|v6/images)/controlnet", Step.SUBMIT, standard),
        Route("POST", "/api/v1/enterprise/(images/)?controlnet", Step.SUBMIT, enterprise),
        Route("POST", r"/api/v6/images/fetch/(?P<id>[\w-]+)", Step.POLL, fetch),
        Route("POST", "/api/v1/enterprise/fetch", Step.POLL, enterprise_fetch),
        Route("POST", "/api/v6/base64_to_url", Step.UPLOAD, upload),
        Route("POST", "/api/v1/enterprise/upload_image", Step.UPLOAD, enterprise_upload),
        Route("GET", r"/temp/\d+\.png", Step.RESULT, uploaded),
        Route("GET", r"/generations/(?P<id>\d+)-(?P<index>\d+)\.(?P<kind>png|base64)", Step.RESULT, result),
    )
    errors = {
        "generic": _error(200, Step.SUBMIT, "Error message", messege="Error message"),
        "generic, new": _error(200, Step.SUBMIT, "Human-readable", message="Human-readable"),
        "rate limit": _error(
            429,
            Step.SUBMIT,
            "Maximum 5 queued requests allowed",
            message="Rate limit exceeded. Maximum 5 queued requests allowed.",
            retry_after=30,
        ),
        "rate limit, old": _error(
            200,
            Step.SUBMIT,
            "spam filter is enabled",
            message="Rate limit exceeded",
            tips="you are sending same request multiple times, spam filter is enabled, please wait for 30 seconds and "
            "try again",
        ),
        "bad key, old": _error(
            200,
            Step.SUBMIT,
            "Invalid Api Key",
            message="Invalid Api Key",
            tip="1. Make sure you are passing Content-Type: application/json in header.",
        ),
        "bad key": _error(401, Step.SUBMIT, "Invalid API key", message="Invalid API key"),
        "no key": _error(401, Step.SUBMIT, "API key required", message="API key required"),
        "validation, old": _error(
            200,
            Step.SUBMIT,
            "prompt: The prompt field is required",
            message={"prompt": ["The prompt field is required."]},
        ),
        "validation": _error(400, Step.SUBMIT, "prompt is required", message="prompt is required"),
        "model": _error(200, Step.SUBMIT, "Model id not found", message="Model id not found"),
        "image": _error(400, Step.SUBMIT, "Unable to fetch", message="Unable to fetch image from provided URL"),
        "credits": _error(
            402,
            Step.SUBMIT,
            "Insufficient credits",
            message="Insufficient credits. Please add more credits to continue.",
        ),
        "credits, old": _error(
            200,
            Step.SUBMIT,
            "monthly limit exceeded",
            message="Your monthly limit exceeded, upgrade subscription now on https://stablediffusionapi.com/pricing",
        ),
        "plan": _error(
            403, Step.SUBMIT, "premium subscription", message="This feature requires a premium subscription"
        ),
        "server": _error(500, Step.SUBMIT, "Internal server error", message="Internal server error. Please try again."),
        "unavailable": _error(
            503,
            Step.SUBMIT,
            "temporarily unavailable",
            message="Service temporarily unavailable. Please try again later.",
        ),
        "failed job": ErrorShape(
            Step.POLL,
            Reply({"status": "failed", "id": "", "message": "Failed, Try Again", "output": ""}),
            "Failed, Try Again",
        ),
        "error of a job": _error(200, Step.POLL, "CUDA out of memory", messege="CUDA out of memory"),
        "no image": ErrorShape(
            Step.POLL, Reply({"status": "success", "id": 120539115, "output": []}), "names no image"
        ),
    }
    account_errors = ("bad key, old", "bad key", "credits, old", "credits", "plan")
    contracts = {
        "ModelsLab": (contract.ControlNetRequest,),
        "ModelsLabEnterprise": (contract.EnterpriseControlNetRequest,),
    }


def _meta(job: Job, seed: int) -> dict[str, Any]:
    body = job.body
    echo = {name: body.get(name) for name in _META.split()}
    sizes = {
        "W": body["width"],
        "H": body["height"],
        "steps": body["num_inference_steps"],
        "n_samples": body["samples"],
    }
    return {**echo, **sizes, "seed": seed, "lora": body.get("lora_model"), "watermark": "no"}


def _refuse(reason: str) -> Reply:
    return Reply({"status": "error", "message": reason}, 400)
