"""What the test doubles of the services share: routes, jobs that take their time, files, and a way to upset them.

A double answers what its service's contract says; where that is silent or contradicts itself, the double's own file
says which side it takes.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ValidationError

from .drawing import Color, Wish, draw
from .loopback_server import AS_USUAL, Fault, LoopbackServer, Reply, Seen

Model = TypeVar("Model", bound=BaseModel)

CONTROL = "/double"
_MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class Step(StrEnum):
    """What a call is for, whatever the service calls it."""

    SUBMIT = "submit"
    ESTIMATE = "estimate"
    POLL = "poll"
    CANCEL = "cancel"
    UPLOAD = "upload"
    LOCATE = "locate"
    RESULT = "result"
    UNKNOWN = "unknown"
    DOUBLE = "double"


class Stage(StrEnum):
    """Where a job of a double stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELED = "canceled"


@dataclass
class Job:
    """One accepted, and so charged, request. `body` is what was sent, `files` the images when they are drawn."""

    id: str
    body: Mapping[str, Any]
    began: float
    files: Future[list[bytes]]
    polls: int = 0
    canceled: bool = False


@dataclass(frozen=True)
class Refused(Exception):
    """A handler's way to answer with an error."""

    reply: Reply


@dataclass(frozen=True)
class ErrorShape:
    """An error answer of the contract: at which step, and words of it that a user must read."""

    step: Step
    reply: Reply
    says: str


@dataclass(frozen=True)
class Asked:
    """A request as a route's handler gets it: the path's parts that its pattern names, and the query."""

    seen: Seen
    parts: Mapping[str, str]
    query: Mapping[str, str]


@dataclass(frozen=True)
class Route:
    """`path` is a pattern for everything below the prefix; `answer` a method of the double."""

    method: str
    path: str
    step: Step
    answer: Callable[[Any, Asked], Reply]


class Double(LoopbackServer):
    """One service. `latency` is the seconds a job takes, `pending_polls` how many questions it takes at least.

    `variables` are the environment's names and values of the fake keys; `plan` says what goes wrong next. `contracts`
    has, for each endpoint by its class name, the strict models of its paid call. `account_errors` are the names of
    those `errors` that are about the key, the plan or the credits. `tested_with` is what the tests connect to an
    endpoint, by its class name, if not what suits it first (see tests/services/cases.py).
    """

    name: ClassVar[str]
    color: ClassVar[Color]
    url_variable: ClassVar[str]
    prefix: ClassVar[str] = ""
    variables: ClassVar[Mapping[str, str]]
    routes: ClassVar[Sequence[Route]]
    errors: ClassVar[Mapping[str, ErrorShape]]
    account_errors: ClassVar[Sequence[str]]
    contracts: ClassVar[Mapping[str, Sequence[type[BaseModel]]]]
    tested_with: ClassVar[Mapping[str, str]] = {}
    image_kind: ClassVar[str] = "PNG"
    draw: Callable[[str, Color, Wish, str], list[bytes]] = staticmethod(draw)

    def __init__(self, port: int = 0) -> None:
        self._state = threading.RLock()
        self._artist = ThreadPoolExecutor(1, thread_name_prefix=f"{self.name} draws")
        self.uploads: dict[str, bytes] = {}
        self.reset()
        super().__init__(port)

    def reset(self) -> None:
        """As if it had just been started; a request that hangs is let go."""
        if hasattr(self, "released"):
            self.released.set()
            self.released = threading.Event()
        with self._state:
            self.seen: list[Seen] = []
            self.jobs: dict[str, Job] = {}
            self.plans: dict[Step, list[Reply]] = {}
            self.latency, self.pending_polls, self.cancels = 0.0, 1, True

    @property
    def base_url(self) -> str:
        """What `url_variable` is to be set to."""
        return self.url + self.prefix

    @property
    def paid(self) -> int:
        """How many requests arrived that could have cost money, answered or not."""
        return self.count(Step.SUBMIT)

    @property
    def charged(self) -> int:
        """How many jobs were made."""
        return len(self.jobs)

    def plan(self, step: Step, *replies: Reply, forever: bool = False) -> None:
        """Answer the next calls of this kind so, one after the other, instead of as usual; the last one `forever`.

        A reply whose body is AS_USUAL is the usual one with its fault, delay and headers.
        """
        with self._state:
            self.plans[step] = [*replies, *([replies[-1]] * 10_000 if forever else [])]

    def kind(self, method: str, path: str) -> Step:
        return self._route(method, path)[0]

    def planned(self, kind: str) -> Reply | None:
        with self._state:
            waiting = self.plans.get(Step(kind))
            return waiting.pop(0) if waiting else None

    def answer(self, seen: Seen) -> Reply:
        if seen.kind is Step.DOUBLE:
            self.seen.remove(seen)
            return self._control(seen)
        _, route, parts = self._route(seen.method, seen.path)
        if route is None:
            return Reply(b"<html><body><h1>404 Not Found</h1></body></html>", 404, {"Content-Type": "text/html"})
        query = {name: values[-1] for name, values in parse_qs(urlsplit(seen.path).query).items()}
        try:
            reply = route.answer(self, Asked(seen, parts, query))
        except Refused as refused:
            reply = refused.reply
        kind = "application/octet-stream" if isinstance(reply.body, bytes) else "application/json"
        return reply if "Content-Type" in reply.headers else Reply(reply.body, reply.status, {"Content-Type": kind})

    def close(self) -> None:
        super().close()
        self._artist.shutdown(wait=False, cancel_futures=True)

    def accept(self, number: str, body: BaseModel, wish: Wish) -> Job:
        """Make a job and begin to draw its images."""
        with self._state:
            files = self._artist.submit(self.draw, self.name, self.color, wish, self.image_kind)
            job = self.jobs[number] = Job(number, body.model_dump(exclude_unset=True), time.monotonic(), files)
            return job

    def stage(self, job: Job) -> Stage:
        """Where the job stands now."""
        elapsed = time.monotonic() - job.began
        if job.canceled:
            return Stage.CANCELED
        if elapsed >= self.latency and job.polls > self.pending_polls:
            return Stage.DONE
        return Stage.RUNNING if elapsed > self.latency / 4 else Stage.QUEUED

    def progress(self, job: Job) -> float:
        """0 to 1, by the time that has passed."""
        return min((time.monotonic() - job.began) / self.latency, 0.99) if self.latency else 0.5

    def polled(self, job_id: str) -> Job | None:
        """The job that is asked after, the question counted."""
        with self._state:
            if job := self.jobs.get(job_id):
                job.polls += 1
            return job

    def file(self, job_id: str, index: int) -> Reply:
        """An image of a job as a file store sends it."""
        job = self.jobs.get(job_id)
        if job is None or index >= len(job.files.result(60)):
            return Reply(b"<Error><Code>NoSuchKey</Code></Error>", 404, {"Content-Type": "application/xml"})
        return Reply(job.files.result()[index], headers={"Content-Type": _MEDIA[self.image_kind]})

    def image_at(self, address: str) -> bytes | None:
        """The image at an address: an upload of its own, a file on this machine, or None for any other host.

        Raises OSError where this machine does not have it.
        """
        if address in self.uploads:
            return self.uploads[address]
        if urlsplit(address).hostname != "127.0.0.1":
            return None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.closing(opener.open(address, timeout=10)) as answer:
            return answer.read()

    def _route(self, method: str, path: str) -> tuple[Step, Route | None, Mapping[str, str]]:
        place = urlsplit(path).path
        if place == CONTROL:
            return Step.DOUBLE, None, {}
        below = place.removeprefix(self.prefix)
        for route in self.routes if place.startswith(self.prefix) else ():
            if route.method == method and (found := re.fullmatch(route.path, below)):
                dry = parse_qs(urlsplit(path).query).get("dryRun") == ["true"]
                return Step.ESTIMATE if dry else route.step, route, found.groupdict()
        return Step.UNKNOWN, None, {}

    def _control(self, seen: Seen) -> Reply:
        """The same over the network: GET tells the counts; POST sets latency, pending_polls and cancels, and plans.

        A plan is `{"poll": ["failed job", {"status": 502, "text": "<html>"}, {"fault": "RESET"}]}`: names of `errors`,
        or replies.
        """
        if seen.method == "POST":
            order = seen.json
            if order.get("reset"):
                self.reset()
            for name in ("latency", "pending_polls", "cancels"):
                setattr(self, name, order.get(name, getattr(self, name)))
            for step, replies in order.get("plan", {}).items():
                self.plan(Step(step), *(self._reply(told) for told in replies))
        counts = {step.value: self.count(step) for step in Step if self.count(step)}
        return Reply({"name": self.name, "paid": self.paid, "charged": self.charged, "seen": counts})

    def _reply(self, told: str | Mapping[str, Any]) -> Reply:
        if isinstance(told, str):
            return self.errors[told].reply
        body = told.get("json", told["text"].encode() if "text" in told else AS_USUAL)
        fault = Fault[told["fault"]] if "fault" in told else Fault.NONE
        return Reply(body, told.get("status", 200), told.get("headers", {}), fault, told.get("delay", 0.0))


def checked(model: type[Model], values: Mapping[str, Any], refuse: Callable[[str], Reply]) -> Model:
    """The body as the contract describes it, or the answer that `refuse` makes of what is wrong with it."""
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        reasons = [f"{'.'.join(map(str, error['loc']))} {error['msg']}".strip() for error in invalid.errors()]
        raise Refused(refuse("; ".join(reasons))) from None


def numbers(first: int) -> Iterator[int]:
    """Ids one after the other, the same in every run."""
    while True:
        yield first
        first += 1
