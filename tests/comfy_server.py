"""A real ComfyUI server with the pack, and a client that tells what a run did."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import websocket
from controlstack.workshop.comfyui import Server, find_comfyui, free_port, running_server
from controlstack.workshop.environment import shared_environment
from PIL import Image

Graph = Mapping[str, Mapping[str, Any]]
OnEvent = Callable[[str, dict[str, Any]], None]

# The first four bytes of a binary message (ComfyUI's protocol.py, BinaryEventTypes).
PREVIEW, PROGRESS_TEXT, PREVIEW_WITH_METADATA = 1, 3, 4


class GraphRejectedError(AssertionError):
    """The server refused a graph: `status` and the parsed `answer` of POST /prompt."""

    def __init__(self, status: int, answer: Any) -> None:
        super().__init__(f"POST /prompt answered {status}: {json.dumps(answer, indent=1)}")
        self.status, self.answer = status, answer


@dataclass
class RunResult:
    """What happened between POST /prompt and the end of the run."""

    prompt_id: str
    node_errors: dict[str, Any]
    """Of outputs that were refused while others of the same graph ran (HTTP 200 all the same)."""
    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    """Node id -> its `ui` output, from the history."""
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Every text message of this run, in order: (type, data)."""
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    """(node id, step, steps)."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """Progress texts shown on a node: (node id, text)."""
    previews: int = 0

    @property
    def error(self) -> dict[str, Any] | None:
        """The payload of `execution_error`, with `exception_message`, `exception_type`, `node_id`."""
        return next((data for kind, data in self.messages if kind == "execution_error"), None)

    @property
    def interrupted(self) -> bool:
        return any(kind == "execution_interrupted" for kind, _ in self.messages)

    @property
    def succeeded(self) -> bool:
        return any(kind == "execution_success" for kind, _ in self.messages)


class ComfyClient:
    """HTTP and websocket to one server; every run has its own client id."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no part in this

    def fetch(self, path: str, **params: Any) -> requests.Response:
        """GET, whatever the status."""
        return self._session.get(self.url + path, params=params, timeout=30)

    def get(self, path: str, **params: Any) -> Any:
        """GET, as parsed JSON."""
        answer = self.fetch(path, **params)
        answer.raise_for_status()
        return answer.json()

    def object_info(self, node: str) -> dict[str, Any]:
        """The description of a node class; KeyError when the server does not know it."""
        return self.get(f"/object_info/{node}")[node]

    def post(self, graph: Graph, client_id: str | None = None) -> tuple[int, Any]:
        """POST /prompt, as it is answered: (status, parsed answer)."""
        body = {"prompt": graph, "client_id": client_id or uuid.uuid4().hex}
        answer = self._session.post(f"{self.url}/prompt", json=body, timeout=30)
        return answer.status_code, answer.json()

    def run(self, graph: Graph, timeout: float = 120, on_event: OnEvent | None = None) -> RunResult:
        """Run `graph` to its end, good or bad; `on_event(type, data)` sees each message of the run as it comes.

        Raises GraphRejectedError when the server does not run it, TimeoutError when it does not end.
        """
        client_id = uuid.uuid4().hex
        address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        with contextlib.closing(websocket.create_connection(address, timeout=timeout, http_no_proxy=["*"])) as stream:
            features = {"supports_preview_metadata": True}
            stream.send(json.dumps({"type": "feature_flags", "data": features}))
            status, answer = self.post(graph, client_id)
            if status != 200:
                raise GraphRejectedError(status, answer)
            result = RunResult(answer["prompt_id"], answer.get("node_errors") or {})
            self._collect(stream, result, time.monotonic() + timeout, on_event)
        result.outputs = self.history(result.prompt_id).get("outputs", {})
        return result

    def _collect(
        self, stream: websocket.WebSocket, result: RunResult, deadline: float, on_event: OnEvent | None
    ) -> None:
        while True:
            remaining = deadline - time.monotonic()
            try:
                stream.settimeout(max(remaining, 0.01))
                message = stream.recv()
            except websocket.WebSocketTimeoutException:
                last = result.messages[-1][0] if result.messages else "none"
                raise TimeoutError(f"The run did not end in time; its last message was {last}.") from None
            if isinstance(message, bytes):
                _note_binary(message, result)
                continue
            event = json.loads(message)
            kind, data = event["type"], event.get("data") or {}
            if data.get("prompt_id") != result.prompt_id:
                continue
            result.messages.append((kind, data))
            if kind == "execution_cached":
                result.cached += data["nodes"]
            elif kind == "executing" and data["node"] is not None:
                result.executed.append(data["node"])
            elif kind == "progress":
                result.progress.append((data["node"], int(data["value"]), int(data["max"])))
            if on_event:
                on_event(kind, data)
            if kind == "executing" and data["node"] is None:  # sent last, when the history is written
                return

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What the server keeps of a run (`outputs`, `status`); empty when it keeps nothing."""
        return self.get(f"/history/{prompt_id}").get(prompt_id, {})

    def images(self, result: RunResult, node: str) -> list[Image.Image]:
        return [self.image(output) for output in result.outputs[node]["images"]]

    def image(self, output: Mapping[str, str]) -> Image.Image:
        """The picture behind one entry of an `images` output, with its metadata in `.info`."""
        answer = self.fetch("/view", **{name: output[name] for name in ("filename", "subfolder", "type")})
        answer.raise_for_status()
        image = Image.open(io.BytesIO(answer.content))
        image.load()
        return image

    def interrupt(self) -> None:
        self._session.post(f"{self.url}/interrupt", json={}, timeout=30).raise_for_status()


def _note_binary(message: bytes, result: RunResult) -> None:
    (kind,) = struct.unpack(">I", message[:4])
    if kind in (PREVIEW, PREVIEW_WITH_METADATA):
        result.previews += 1
    elif kind == PROGRESS_TEXT:
        (length,) = struct.unpack(">I", message[4:8])
        node, text = message[8 : 8 + length], message[8 + length :]
        result.texts.append((node.decode(), text.decode()))


class ComfyServer(ComfyClient):
    """A client together with the server process it talks to."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.url)
        self.server = server
        self.base = server.log.parent

    @property
    def log(self) -> str:
        """Everything the server has printed so far."""
        return self.server.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def comfy_server(base: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[ComfyServer]:
    """One real server on a free port with its own folders below `base`; `options` go to its command line, and
    `environment` is added to what the process inherits."""
    comfyui = find_comfyui()
    python = shared_environment(comfyui)
    with running_server(python, comfyui, base, free_port(), *options, environment=environment) as server:
        yield ComfyServer(server)
