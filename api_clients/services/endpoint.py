"""The contract of a remote endpoint as pure functions, without input or output.

Each service subclasses `Endpoint`. The job modules send the calls that it makes and give it the answers. So everything
about a service's contract is in one place and is tested without a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from ...core.capabilities import Capabilities
from ...core.problems import Problem
from ...core.request import GenerationRequest
from ...core.request_problems import WRONG_BATCH
from ...core.validate import validate
from ..credentials.redaction import Secret
from ..credentials.specs import CredentialSpec
from ..http.messages import Answer, Call, ImageSlot, Json
from .checks import several_images
from .options import type_problems


class Phase(StrEnum):
    """The stage of a job at the service."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self in (Phase.DONE, Phase.FAILED, Phase.CANCELED)


@dataclass(frozen=True)
class JobState:
    """The state of a job, as the service reports it.

    `outputs` are result references in order: URLs, inline base64, or anything that `Endpoint.locate` understands.
    `progress` is 0..1. `wait` is the number of seconds that the service asks to wait before the next poll. `metadata`
    is what the service says about the job, in its own terms. `cost` is what it charged, or would charge, in its own
    unit.
    """

    phase: Phase
    job_id: str = ""
    outputs: tuple[str, ...] = ()
    message: str = ""
    progress: float | None = None
    wait: float | None = None
    metadata: Json = field(default_factory=dict[str, Any])
    cost: float | None = None


@dataclass(frozen=True)
class Pace:
    """How often to poll, in seconds.

    `first`: before the first poll. `shortest`, `longest`: between polls, growing from one to the other. `deadline`: the
    longest wait for a job.
    """

    first: float
    shortest: float
    longest: float
    deadline: float


Options = TypeVar("Options")


class Endpoint(ABC, Generic[Options]):
    """One documented endpoint.

    `credential_spec` describes its credentials, and `target` is the name shown to users. `base_url` is the documented
    URL, which the environment variable `url_variable` replaces. `options_type` is a frozen dataclass; its fields are
    the documented request fields that a GenerationRequest does not have (see `options.py`). `tables` are all values
    that `capabilities` may return.
    """

    credential_spec: ClassVar[CredentialSpec]
    target: ClassVar[str]
    base_url: ClassVar[str]
    url_variable: ClassVar[str]
    pace: ClassVar[Pace]
    tables: ClassVar[tuple[Capabilities, ...]]
    options_type: type[Options]

    @property
    def service(self) -> str:
        """The name of its credentials."""
        return self.credential_spec.service

    def bound(self, options: Options) -> Endpoint[Options]:
        """The endpoint whose calls all follow these options, polls and downloads included: e.g. the chosen project."""
        return self

    def bound_again(self, sent: Json) -> Endpoint[Options]:
        """The endpoint for a job that an earlier run sent with the body `sent`. Unchanged if `sent` is empty."""
        return self

    def needs_image_host(self, options: Options) -> bool:
        """Whether an image of the request has to get a public address before it can be sent."""
        return False

    @abstractmethod
    def capabilities(self, options: Options) -> Capabilities:
        """The capabilities with these options. The model family may restrict them."""

    @abstractmethod
    def problems(self, request: GenerationRequest, options: Options) -> list[Problem]:
        """Problems that the capabilities cannot express: options out of range, and unsupported combinations."""

    def starts_elsewhere(self, request: GenerationRequest, options: Options) -> bool:
        """Whether the options contain the address of an initial image."""
        return False

    def check(self, request: GenerationRequest, options: Options) -> list[Problem]:
        """All problems, those of the capabilities first. A body can be built if there is none.

        Options of a wrong type, which JSON and links may contain, are reported alone: the other rules cannot read them.
        """
        if wrong := type_problems(options):
            return wrong
        starts = self.starts_elsewhere(request, options)
        general = validate(request, self.capabilities(options), starts_elsewhere=starts)
        # No batch is accepted, whatever batch_size is: `several_images` reports every batch, with a remedy that works.
        general = [problem for problem in general if problem.kind is not WRONG_BATCH]
        return [*general, *several_images(request, self.target), *self.problems(request, options)]

    def notes(self, request: GenerationRequest, options: Options) -> list[str]:
        """What the service does differently from what a user may expect, one sentence each. These are not problems."""
        return []

    @abstractmethod
    def image_slots(self, request: GenerationRequest, options: Options) -> list[ImageSlot]:
        """The images that the body needs, each with its carrier."""

    @abstractmethod
    def build_payload(self, request: GenerationRequest, options: Options, images: Mapping[str, str]) -> dict[str, Any]:
        """The exact JSON body, without credentials. `images` holds the text that stands for the image of each slot.

        Every request without problems gives a body that the service's contract accepts.
        """

    def with_webhook(self, payload: dict[str, Any], address: str) -> dict[str, Any]:
        """The body with an address that the service calls when the job ends. Unchanged if it has no webhooks."""
        return payload

    @abstractmethod
    def submit(self, payload: Json, options: Options) -> Call:
        """The paid call."""

    @abstractmethod
    def read_submit(self, answer: Answer) -> JobState:
        """The state in the answer to the paid call. Raises ServiceError (core.errors) if the service refused it."""

    def read_estimate(self, answer: Answer) -> JobState:
        """The state in the answer to an unpaid submission: a cost, and no job id."""
        return self.read_submit(answer)

    @abstractmethod
    def poll(self, job_id: str) -> Call:
        """The call that asks for the state of a job."""

    @abstractmethod
    def read_poll(self, answer: Answer) -> JobState:
        """The state in the answer to a poll. Only a state ends a job.

        Raises ServiceError if the poll was refused and a retry is of no use. That says nothing about the job.
        """

    def cancel(self, job_id: str) -> Call | None:
        """The call that cancels a job, None if the service cannot cancel."""
        return None

    def upload(self, data: bytes, media_type: str, name: str) -> Call | None:
        """The call that stores an image at the service, None if the service cannot store images."""
        return None

    def read_upload(self, answer: Answer) -> str:
        """The text that stands for the uploaded image in a request body."""
        raise NotImplementedError

    def locate(self, output: str) -> Call | None:
        """The call that turns a result reference into a URL, None if it is a URL or inline data already."""
        return None

    def read_location(self, answer: Answer) -> str:
        """The URL in the answer to `locate`."""
        raise NotImplementedError

    @abstractmethod
    def authorize(self, call: Call, secrets: Mapping[str, Secret]) -> Call:
        """The call with the credentials in its body or in a header. `secrets` has the names of `credential_spec`."""
