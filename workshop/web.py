"""HTTP and websockets to a server on this machine, with the standard library."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

TEXT, CLOSE = 1, 8


def call(url: str, body: object = None, timeout: float = 30) -> tuple[int, Any]:
    """GET, or POST of `body` as JSON, past any proxy: (status, parsed answer)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


class EventStream:
    """The receiving half of a websocket (RFC 6455): iterates over its text messages, parsed as JSON, until it closes.

    `while_idle` is called once a second while nothing arrives, and may raise to end the wait.
    """

    def __init__(self, host: str, port: int, path: str, while_idle: Callable[[], None] = lambda: None) -> None:
        self._while_idle = while_idle
        self._socket = socket.create_connection((host, port), timeout=10)
        self._socket.settimeout(1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._receive(1)
        status = head.splitlines()[0].decode("ascii", "replace")
        if " 101 " not in status:
            raise ConnectionError(f"no websocket at {host}:{port}{path}: {status}")

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __iter__(self) -> Iterator[Any]:
        with_close = False
        while not with_close:
            try:
                opcode, payload = self._frame()
            except EOFError:
                return
            with_close = opcode == CLOSE
            if opcode == TEXT:
                yield json.loads(payload)

    def _frame(self) -> tuple[int, bytes]:
        first, length = self._receive(2)
        if length == 126:
            (length,) = struct.unpack(">H", self._receive(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._receive(8))
        return first & 0x0F, self._receive(length)

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                part = self._socket.recv(min(count - len(data), 1 << 20))
            except TimeoutError:
                self._while_idle()
                continue
            except ConnectionError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            data += part
        return bytes(data)
