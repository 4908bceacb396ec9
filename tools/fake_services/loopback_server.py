"""An HTTP server on this machine that keeps what it was asked, and goes wrong where a test says so."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SILENCE_SECONDS = 30.0
_PROMISED_BYTES = 2**30


class Fault(StrEnum):
    """How an answer goes wrong; the status and body of the Reply are used where they can be."""

    NONE = ""
    RESET = "reset after the request was read"
    RESET_UNREAD = "reset before the body was read"
    HALF = "half of the body, then the end"
    SILENT = "no answer while the service lives"
    PROMISE = "one gigabyte promised"


@dataclass(frozen=True)
class Reply:
    """One answer. `body`: bytes, JSON data, or what makes them of the request; `delay`: seconds before it is sent."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault = Fault.NONE
    delay: float = 0.0

    def bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


AS_USUAL = None


@dataclass(frozen=True)
class Seen:
    """A request that arrived; `kind` is what the server takes it for."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    kind: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LoopbackServer:
    """Listens from its making until `close`. A subclass says what it answers."""

    def __init__(self, port: int = 0) -> None:
        self.seen: list[Seen] = []
        self.released = threading.Event()
        self._arrived = threading.Condition()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service._handle(self)

            do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def kind(self, method: str, path: str) -> str:
        """What a request is counted as; a subclass may tell more than its path."""
        return path.partition("?")[0]

    def planned(self, kind: str) -> Reply | None:
        """What the script has for the next request of this kind, asked before its body is read."""
        return None

    def answer(self, seen: Seen) -> Reply:
        """What is answered where the script has nothing, or something with the body AS_USUAL."""
        raise NotImplementedError

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def count(self, kind: str) -> int:
        """How many requests of this kind arrived."""
        return sum(seen.kind == kind for seen in self.seen)

    def wait_for(self, kind: str, count: int = 1, seconds: float = 20) -> None:
        """Until so many of this kind have arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.count(kind) >= count, seconds), f"nothing asked for {kind}"

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        kind = self.kind(handler.command, handler.path)
        plan = self.planned(kind)
        unread = plan is not None and plan.fault is Fault.RESET_UNREAD
        body = b"" if unread else handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        seen = Seen(handler.command, handler.path, dict(handler.headers), body, kind)
        with self._arrived:
            self.seen.append(seen)
            self._arrived.notify_all()
        handler.close_connection = True
        reply = plan or self.answer(seen)
        if callable(reply.body):
            reply = replace(reply, body=reply.body(seen))
        if plan is not None and plan.body is AS_USUAL and not unread:
            usual = self.answer(seen)
            headers = {**usual.headers, **plan.headers}
            reply = replace(usual, headers=headers, fault=plan.fault, delay=plan.delay)
        self._send(handler, reply)

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        if reply.fault in (Fault.RESET, Fault.RESET_UNREAD):
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            return
        wait = _SILENCE_SECONDS if reply.fault is Fault.SILENT else reply.delay
        if wait:
            self.released.wait(wait)
        data = reply.bytes()
        handler.send_response(reply.status)
        length = _PROMISED_BYTES if reply.fault is Fault.PROMISE else len(data)
        for name, value in {"Content-Length": str(length), **reply.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if reply.fault is Fault.HALF else data)
