"""A small service on loopback that answers as a test scripts it, faults included, and an endpoint that speaks to it."""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from controlstack.api_clients.credentials.redaction import Secret
from controlstack.api_clients.credentials.specs import api_key_spec
from controlstack.api_clients.credentials.store import Credentials
from controlstack.api_clients.http.messages import Answer, Call, Carrier, ImageSlot
from controlstack.api_clients.http.transport import Limits
from controlstack.api_clients.http.waiting import Clock
from controlstack.api_clients.jobs.context import Settings
from controlstack.api_clients.jobs.journal import Entry, Journal
from controlstack.api_clients.services.answers import refusal
from controlstack.api_clients.services.endpoint import Endpoint, JobState, Pace, Phase
from controlstack.core.capabilities import UNLIMITED, Capabilities, ControlSupport, PromptSupport
from controlstack.core.errors import ServiceError
from controlstack.core.modality import Modality
from controlstack.core.problems import Problem
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.tools.fake_services.loopback_server import LoopbackServer, Reply
from PIL import Image

KEY = "sk-toy-0123456789-abcdefghij"
QUICK = Limits(connect=2, read=2, paid_read=2, patience=30)


class Service(LoopbackServer):
    """Replies by path: `script[path]` is a list whose last reply repeats."""

    def __init__(self) -> None:
        self.script: dict[str, list[Reply]] = {}
        self.asked_names: list[str | None] = []
        super().__init__()

    def on(self, path: str, *replies: Reply) -> None:
        self.script[path] = list(replies)

    def planned(self, kind: str) -> Reply:
        replies = self.script.get(kind, [Reply({"error": "no such path"}, 404)])
        return replies.pop(0) if len(replies) > 1 else replies[0]

    @property
    def paid(self) -> int:
        return self.count("/generate")


@contextmanager
def service() -> Iterator[Service]:
    running = Service()
    try:
        yield running
    finally:
        running.close()


class QuickClock(Clock):
    """Sleeping takes no time, but moves the clock; nothing else moves it, however slow the machine is."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return self.slept

    def wall(self) -> float:
        return time.time() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        time.sleep(0)


@dataclass(frozen=True)
class ToyOptions:
    carrier: Carrier = Carrier.DATA_URL
    image_url: str = ""
    max_bytes: int = 0
    estimate_only: bool = False


class Toy(Endpoint[ToyOptions]):
    """Takes one canny control; `{"id", "state", "outputs"}` is all it says."""

    credential_spec = api_key_spec("toy", "Toy")
    target = "Toy"
    base_url = "https://toy.invalid"
    url_variable = "CONTROLSTACK_TOY_URL"
    pace = Pace(first=1, shortest=2, longest=5, deadline=60)
    options_type = ToyOptions
    tables = (
        Capabilities(
            "Toy",
            prompts=PromptSupport(required=True),
            controls=ControlSupport(modalities=frozenset({Modality.CANNY}), maximum=UNLIMITED, windows=True),
        ),
    )

    def capabilities(self, options: ToyOptions) -> Capabilities:
        return self.tables[0]

    def problems(self, request: GenerationRequest, options: ToyOptions) -> list[Problem]:
        return []

    def image_slots(self, request: GenerationRequest, options: ToyOptions) -> list[ImageSlot]:
        control = request.controls[0]
        return [ImageSlot("image", control.image, options.carrier, options.image_url, options.max_bytes)]

    def build_payload(
        self, request: GenerationRequest, options: ToyOptions, images: Mapping[str, str]
    ) -> dict[str, Any]:
        return {"prompt": request.prompt, **images}

    def submit(self, payload: Mapping[str, Any], options: ToyOptions) -> Call:
        query = {"dry": "true"} if options.estimate_only else {}
        return Call("POST", "/generate", query, payload, paid=not options.estimate_only)

    def read_submit(self, answer: Answer) -> JobState:
        if answer.status >= 400:
            raise ServiceError(f"Toy refused: {(answer.json or {}).get('error', answer.text[:60])}")
        return self.read_poll(answer)

    def poll(self, job_id: str) -> Call:
        return Call("GET", f"/jobs/{job_id}")

    def read_poll(self, answer: Answer) -> JobState:
        if answer.json is None or "state" not in answer.json:
            if 400 <= answer.status < 500:
                raise refusal("Toy", answer, answer.text[:60])
            return JobState(Phase.RUNNING)
        reply = answer.json
        return JobState(
            Phase(reply["state"]),
            str(reply.get("id", "")),
            tuple(reply.get("outputs", ())),
            reply.get("message", ""),
            reply.get("progress"),
            reply.get("wait"),
            reply.get("meta", {}),
            reply.get("cost"),
        )

    def cancel(self, job_id: str) -> Call | None:
        return Call("POST", f"/jobs/{job_id}/cancel", body={"action": "cancel"})

    def upload(self, data: bytes, media_type: str, name: str) -> Call:
        return Call("POST", "/upload", body={"name": name, "data": base64.b64encode(data).decode()})

    def read_upload(self, answer: Answer) -> str:
        return str((answer.json or {})["asset"])

    def locate(self, output: str) -> Call | None:
        return Call("GET", f"/assets/{output}") if output.startswith("asset-") else None

    def read_location(self, answer: Answer) -> str:
        return str((answer.json or {})["url"])

    def authorize(self, call: Call, secrets: Mapping[str, Secret]) -> Call:
        return replace(call, headers={**call.headers, "Authorization": f"Bearer {secrets['api_key'].reveal()}"})


CREDENTIALS = Credentials("toy", "default", {"api_key": Secret(KEY)})
PICTURE = torch.linspace(0, 1, 32 * 24 * 3).reshape(1, 24, 32, 3)
REQUEST = GenerationRequest(prompt="a cat", width=32, height=24, controls=(ControlUnit(Modality.CANNY, PICTURE),))


def image_file(width: int = 16, height: int = 8, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A file with a gradient in it."""
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(stream, kind)
    return stream.getvalue()


def settings(running: Service | str, **changes: Any) -> Settings:
    url = running if isinstance(running, str) else running.url
    environ = {"CONTROLSTACK_TOY_URL": url}
    return replace(Settings(limits=QUICK, clock=QuickClock(), environ=environ, resolver=no_resolver), **changes)


def no_resolver(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} must not be looked up")


def resolver(**names: Sequence[str]) -> Callable[[str, int], list[str]]:
    """Knows `cdn_example` as cdn.example, and nothing else."""
    return lambda host, port: list(names[host.replace(".", "_")])


def entries(journal: Journal) -> list[Entry]:
    """Everything in the journal, in order."""
    if not journal.file.exists():
        return []
    with contextlib.closing(sqlite3.connect(journal.file)) as database:
        numbers = [row[0] for row in database.execute("SELECT number FROM jobs ORDER BY number")]
    return [entry for entry in map(journal.get, numbers) if entry]


def journal_in(folder: Path, clock: Clock | None = None) -> Journal:
    return Journal(folder / "user" / "__controlstack" / "jobs.sqlite", clock)


@contextmanager
def loopback_only() -> Iterator[None]:
    """Fails on the first attempt to reach, or even to look up, anything but this machine."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        assert address[0].startswith("127."), f"connection attempt to {address}"
        connect(self, address)

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        assert host == "localhost" or host.startswith("127."), f"look-up of {host}"
        return look_up(host, *arguments, **options)

    socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_look_up
    try:
        yield
    finally:
        socket.socket.connect, socket.getaddrinfo = connect, look_up
