"""A double of Qolaba's image routes (docs/services/qolaba.md).

Sides taken: both spellings of the path exist; a wrong key is the 401 of the model server's own exceptions; wrong fields
are an HTTP 200 that says FAILED; the size of a result is that of its image where the app has none; images are JPEG
files that are called .webp; an unknown task is pending for ever.
"""

from __future__ import annotations

import io
import time
import uuid
from typing import Any

from PIL import Image

from .contracts import qolaba as contract
from .double import Asked, Double, ErrorShape, Job, Refused, Route, Stage, Step, checked
from .drawing import Wish
from .loopback_server import Reply

KEY = "fake-qolaba-2Np6Jy8HvS3f"

_LARGEST_SIDE = 1536


def _failure(error: str, data: Any, step: Step = Step.POLL, status: int = 200, says: str = "") -> ErrorShape:
    body = {
        "time_required": {},
        "error": error,
        "error_data": data,
        "input": {},
        "output": {},
        "app_id": "",
        "task_id": "",
        "status": "FAILED",
    }
    return ErrorShape(step, Reply(body, status), says or str(data))


class QolabaDouble(Double):
    name = "Qolaba"
    color = (58, 160, 110)
    url_variable = "CONTROLSTACK_QOLABA_URL"
    prefix = "/api/v1/studio"
    variables = {"QOLABA_API_KEY": KEY}
    image_kind = "JPEG"

    def generate(self, asked: Asked) -> Reply:
        self._authorize(asked)
        told = asked.seen.json
        if not isinstance(told.get("app_id"), str):
            raise Refused(self.errors["app, at once"].reply)
        body = checked(contract.ImageToImageRequest, told, _refuse)
        try:
            image = self.image_at(body.image)
        except OSError:
            raise Refused(self.errors["image, at once"].reply) from None
        width, height = (body.width, body.height) if body.width and body.height else _size(image)
        facts = [f"{body.app_id[:14]}... strength {body.strength:g}"]
        wish = Wish(body.prompt, width, height, body.batch, facts, self.charged, image)
        job = self.accept(str(uuid.UUID(int=0x51ABA << 100 | self.charged + 1)), body, wish)
        if not body.celery:
            self.released.wait(self.latency)
            return Reply(self._finished(job))
        return Reply({"task_id": job.id, "input": dict(job.body), "status": "PENDING"})

    def status(self, asked: Asked) -> Reply:
        self._authorize(asked)
        body = checked(contract.StatusRequest, asked.seen.json, _refuse)
        job = self.polled(body.id)
        if job is not None and self.stage(job) is Stage.DONE:
            return Reply(self._finished(job))
        empty = dict.fromkeys(("time_required", "error", "error_data", "input", "output", "app_id"), "")
        return Reply({**empty, "task_id": body.id, "status": "PENDING"})

    def result(self, asked: Asked) -> Reply:
        return self.file(asked.parts["id"], int(asked.parts["index"]))

    def thumbnail(self, asked: Asked) -> Reply:
        raise AssertionError("a thumbnail is not the result")

    def _authorize(self, asked: Asked) -> None:
        if asked.seen.headers.get("Authorization") != f"Bearer {KEY}":
            raise Refused(self.errors["bad key, as the documents have it"].reply)

    def _finished(self, job: Job) -> dict[str, Any]:
        count = job.body["batch"]
        files = f"{self.base_url}/cdn/{job.id}"
        return {
            "time_required": {"startup_time": 0.1, "runtime": round(time.monotonic() - job.began, 3)},
            "error": None,
            "error_data": None,
            "input": dict(job.body),
            "output": {
                "result": [f"{files}-{index}.webp" for index in range(count)],
                "Has_NSFW_Content": [False] * count,
                "low_res_urls": [f"{files}-{index}-low.webp" for index in range(count)],
            },
            "app_id": job.body["app_id"],
            "task_id": job.id,
            "status": "SUCCESS",
        }

    routes = (
        Route("POST", "/getImage[tT]oImage", Step.SUBMIT, generate),
        Route("POST", "/getImage", Step.POLL, status),
        Route("GET", r"/cdn/(?P<id>[0-9a-f-]{36})-(?P<index>\d+)\.webp", Step.RESULT, result),
        Route("GET", r"/cdn/(?P<id>[0-9a-f-]{36})-(?P<index>\d+)-low\.webp", Step.RESULT, thumbnail),
    )
    errors = {
        "bad key, as the documents have it": _failure("HTTP Exception", "Invalid authentication", Step.SUBMIT, 401),
        "bad key": _failure("Internal Error", "('Invalid API Key',)", Step.SUBMIT, 500),
        "app": _failure("Internal Error", "('ap-unknown',)", Step.SUBMIT, 500),
        "app, at once": _failure("Service Not Found", "Given APP Id '' is not available", Step.SUBMIT),
        "validation, by the framework": ErrorShape(
            Step.SUBMIT, Reply({"detail": "Not authenticated"}, 403), "Not authenticated"
        ),
        "validation": _failure("Input Validation Error", {"batch": "field required"}, says="batch: field required"),
        "image": _failure("Image URL Error", "Given image type is not supported. Please try with JPG or PNG."),
        "image, at once": _failure(
            "Image URL Error", "Given image type is not supported. Please try with JPG or PNG.", Step.SUBMIT
        ),
        "unsuitable": _failure(
            "Image Generation Error",
            "Request cancelled due to detection of NSFW content. Please ensure your prompt is appropriate.",
        ),
        "face": _failure("Face Consistent Error", "Unable to detect faces in the image"),
        "size": _failure("Internal Error", "Invalid Height and width dimension"),
        "crashed": _failure("Internal Error", "Worker exited prematurely", status=500),
        "no image": ErrorShape(
            Step.POLL,
            Reply({"status": "SUCCESS", "output": {"result": [], "Has_NSFW_Content": [True], "low_res_urls": []}}),
            "names no image",
        ),
    }
    account_errors = ("bad key", "bad key, as the documents have it", "validation, by the framework")
    contracts = {
        "QolabaControlNet": (contract.ControlNetRequest,),
        "QolabaImageToImage": (contract.ImageToImageRequest,),
    }
    tested_with = {"QolabaImageToImage": "init_image"}


def _size(image: bytes | None) -> tuple[int, int]:
    """That of the image, reduced as the service does; 1024x1024 for one that the double may not fetch."""
    if image is None:
        return 1024, 1024
    with Image.open(io.BytesIO(image)) as found:
        found.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
        return found.size


def _refuse(reason: str) -> Reply:
    return _failure("Input Validation Error", reason).reply
