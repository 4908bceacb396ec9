"""What a remote endpoint is, without any input or output: pure functions from values to values.

A service module subclasses `Endpoint`; `jobs.py` sends the calls it makes and hands it the answers. So everything that
can be wrong about a service's contract stands in one file and is tested without a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from ..core.capabilities import Capabilities
from ..core.problems import Problem
from ..core.request import GenerationRequest
from ..core.validate import validate
from .messages import Answer, Call, ImageSlot, Json
from .options import type_problems
from .redaction import Secret


class Phase(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        return self in (Phase.DONE, Phase.FAILED, Phase.CANCELED)


@dataclass(frozen=True)
class JobState:
    """One report about a job.

    `outputs` are result references in order: URLs, inline base64 or whatever `Endpoint.locate` understands. `progress`
    is 0..1, `wait` the seconds the service asks to wait before the next question, `metadata` what it says about the
    job in its own words, `cost` what it charged, or would, in its own unit.
    """

    phase: Phase
    job_id: str = ""
    outputs: tuple[str, ...] = ()
    message: str = ""
    progress: float | None = None
    wait: float | None = None
    metadata: Json = field(default_factory=dict)
    cost: float | None = None


@dataclass(frozen=True)
class Pace:
    """Seconds: before the first question, between questions (growing from one to the other), and the deadline."""

    first: float
    shortest: float
    longest: float
    deadline: float


Options = TypeVar("Options")


class Endpoint(ABC, Generic[Options]):
    """One documented endpoint.

    `service` is the credentials' namespace, `target` the name shown to users, `base_url` the documented one,
    `url_variable` the environment variable that replaces it, `options_type` a frozen dataclass whose fields are the
    documented request fields that a GenerationRequest does not carry (see `options.py`), `tables` everything that
    `capabilities` may answer.
    """

    service: ClassVar[str]
    target: ClassVar[str]
    base_url: ClassVar[str]
    url_variable: ClassVar[str]
    pace: ClassVar[Pace]
    tables: ClassVar[tuple[Capabilities, ...]]
    options_type: type[Options]

    def bound(self, options: Options) -> Endpoint[Options]:
        """The endpoint whose every call, not the paid one alone, goes where these options say."""
        return self

    def bound_again(self, sent: Json) -> Endpoint[Options]:
        """The same for a job that was sent before, by its order's `body`; unbound where that is empty."""
        return self

    def needs_image_host(self, options: Options) -> bool:
        """Whether a picture of this machine must get a public address to travel."""
        return False

    @abstractmethod
    def capabilities(self, options: Options) -> Capabilities:
        """The table that holds for these options (a model family may narrow it)."""

    @abstractmethod
    def problems(self, request: GenerationRequest, options: Options) -> list[Problem]:
        """What the table cannot say: options out of range, and combinations that this endpoint cannot express."""

    def starts_elsewhere(self, request: GenerationRequest, options: Options) -> bool:
        """Whether the options give the address of an initial image."""
        return False

    def check(self, request: GenerationRequest, options: Options) -> list[Problem]:
        """Every problem, those of the table first; a body may be built when there is none.

        Options of a wrong kind, which JSON and links may bring, are told alone: no rule can be asked about them.
        """
        if wrong := type_problems(options):
            return wrong
        starts = self.starts_elsewhere(request, options)
        general = validate(request, self.capabilities(options), starts_elsewhere=starts)
        return [*general, *self.problems(request, options)]

    def notes(self, request: GenerationRequest, options: Options) -> list[str]:
        """What the service will do otherwise than a user may expect, one sentence each; nothing that needs refusing."""
        return []

    @abstractmethod
    def image_slots(self, request: GenerationRequest, options: Options) -> list[ImageSlot]:
        """The images the body needs, each with its carrier."""

    @abstractmethod
    def build_payload(self, request: GenerationRequest, options: Options, images: Mapping[str, str]) -> dict[str, Any]:
        """The exact JSON body, without credentials. `images` holds, for each slot's key, what its carrier made of it.

        Pure and total: every request without problems gives a body the service's contract accepts.
        """

    def with_webhook(self, payload: dict[str, Any], address: str) -> dict[str, Any]:
        """The body with the address that the service calls when the job ends; unchanged where it calls nobody."""
        return payload

    @abstractmethod
    def submit(self, payload: Json, options: Options) -> Call:
        """The paid call."""

    @abstractmethod
    def read_submit(self, answer: Answer) -> JobState:
        """The state after submitting. Raises ServiceError (core.errors) for what the service refused."""

    def read_estimate(self, answer: Answer) -> JobState:
        """The price, without an id, after a submission that is not paid."""
        return self.read_submit(answer)

    @abstractmethod
    def poll(self, job_id: str) -> Call:
        """The question after a job."""

    @abstractmethod
    def read_poll(self, answer: Answer) -> JobState:
        """The state a poll tells; only a state ends a job.

        Raises ServiceError where the question was refused and asking again is of no use: that tells nothing of the job.
        """

    def cancel(self, job_id: str) -> Call | None:
        """The call that cancels a job, or None where the service has none."""
        return None

    def upload(self, data: bytes, media_type: str, name: str) -> Call | None:
        """The call that stores an image at the service, or None where it has no such thing."""
        return None

    def read_upload(self, answer: Answer) -> str:
        """What stands for an uploaded image in the body."""
        raise NotImplementedError

    def locate(self, output: str) -> Call | None:
        """The call that turns an output reference into a URL, or None where it is one already (or inline data)."""
        return None

    def read_location(self, answer: Answer) -> str:
        """The URL in the answer to `locate`."""
        raise NotImplementedError

    @abstractmethod
    def authorize(self, call: Call, secrets: Mapping[str, Secret]) -> Call:
        """The call with the secrets, by the names of the service's CredentialSpec, in the body or in a header."""
