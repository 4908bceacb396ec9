"""A model hub on loopback: it redirects to a store as the real one does, and misbehaves on request."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class HubDouble:
    """Serves `files`, by their path "<repo>/resolve/<revision>/<file>".

    `cut_after` ends the next connections after so many bytes each, `corrupt` sends other bytes than it states the
    checksum of, `resumes` says whether it understands Range. `requests` holds the path and the Range of what it was
    asked for.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    corrupt: bool = False
    resumes: bool = True
    status: int = 200
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def put(self, repo: str, revision: str, file: str, content: bytes) -> None:
        self.files[f"/{repo}/resolve/{revision}/{file}"] = content

    @property
    def transfers(self) -> list[str]:
        """The Range of every request for content."""
        return [span for path, span in self.requests if path.startswith("/store")]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubDouble

    def do_GET(self) -> None:
        self.hub.requests.append((self.path, self.headers.get("Range", "")))
        if self.hub.status != 200:
            self._answer(self.hub.status, {}, b"no")
        elif self.path.removeprefix("/store") not in self.hub.files:
            self._answer(404, {}, b"Entry not found")
        elif self.path.startswith("/store"):
            self._content(self.hub.files[self.path.removeprefix("/store")])
        else:
            content = self.hub.files[self.path]
            large = not self.path.endswith(".json")
            if large:  # kept in a store elsewhere, as files of git LFS are
                digest = hashlib.sha256(content).hexdigest()
                self._answer(302, {"Location": f"/store{self.path}", "X-Linked-Etag": f'"{digest}"'}, b"")
            else:
                self._content(content)

    def _content(self, content: bytes) -> None:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if self.hub.corrupt:
            content = bytes(255 - byte for byte in content)
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if begin is None or not self.hub.resumes:
            self._answer(200, {"ETag": f'W/"{blob}"'}, content)
        elif int(begin[1]) >= len(content):
            self._answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"<Error><Code>InvalidRange</Code></Error>")
        else:
            span = f"bytes {begin[1]}-{len(content) - 1}/{len(content)}"
            self._answer(206, {"Content-Range": span, "ETag": f'"{blob}"'}, content[int(begin[1]) :])

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if status in (200, 206) and self.hub.cut_after:
            body = body[: self.hub.cut_after.pop(0)]
            self.close_connection = True
        with suppress(ConnectionError):  # the client may have been stopped by its user
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_double() -> Iterator[HubDouble]:
    hub = HubDouble()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
