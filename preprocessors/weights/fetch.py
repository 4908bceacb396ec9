"""Download a file from the hub: resumable, verified, interruptible, and failing within a second when offline.

The download of huggingface_hub keeps nothing of a broken transfer, retries for 20 s without a network, and reports to a
terminal. So the pack has its own.
"""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...core.errors import ModelNotFound, ModelUnreadable

if TYPE_CHECKING:
    from requests import Response

_PROBE_SECONDS = 0.8  # a user who is offline gets an error within a second
_CONNECT_SECONDS, _READ_SECONDS = 10, 10
_CHUNK = 2**16
_FRUITLESS_ATTEMPTS = 3
_SECONDS_BETWEEN_REPORTS = 0.1

_download_lock = threading.Lock()


@dataclass(frozen=True)
class _Download:
    url: str
    target: Path
    size: int
    sha256: str

    def failure(self, reason: str) -> ModelNotFound:
        return ModelNotFound(
            f"{self.target.name} ({megabytes(self.size)}) is needed and cannot be downloaded: {reason}. "
            f"Run again when {urlsplit(self.url).hostname} can be reached, or download {self.url} "
            f"and put it into {self.target.parent}"
        )


def megabytes(size: int) -> str:
    """A number of bytes as a text, e.g. "29.4 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{-(-size // 1000)} kB"


def fetch(url: str, target: Path, size: int, sha256: str, progress: Callable[[int, int], None]) -> None:
    """Download a file of the hub to `target`.

    `progress(bytes, of_bytes)` may raise to stop. What was downloaded is kept, and the next call continues from there.
    The file is verified against `sha256`, or if that is empty against the checksum that the hub states. Raises
    ModelNotFound when it cannot be downloaded, within a second when the hub cannot be reached, and ModelUnreadable when
    the checksum is wrong.
    """
    download = _Download(url, target, size, sha256)
    if _is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"):
        raise download.failure("HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set")
    with _download_lock:
        if target.is_file():  # another thread has just downloaded it
            return
        if reason := _why_unreachable(url):
            raise download.failure(reason)
        partial = target.with_name(f"{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stated = _transfer(download, partial, progress)
            _verify(download, partial, stated)
            partial.replace(target)
        except OSError as error:  # from the disk; errors of the network are handled in _transfer
            raise download.failure(f"{error.strerror or error} ({error.filename or target.parent})") from error


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _why_unreachable(url: str) -> str:
    """Why no connection to the hub or its proxy can be opened, or "" if one can."""
    from requests.utils import get_environ_proxies, select_proxy

    server = urlsplit(select_proxy(url, get_environ_proxies(url)) or url)
    name, port = server.hostname or "", server.port or (443 if server.scheme == "https" else 80)
    result: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Resolving a name has no timeout, so it runs in a thread.
    threading.Thread(target=lambda: result.put(_probe(name, port)), daemon=True).start()
    try:
        return result.get(timeout=_PROBE_SECONDS)
    except queue.Empty:
        return f"{name} does not answer"


def _probe(name: str, port: int) -> str:
    try:
        addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        # IPv4 first: a broken IPv6 drops packets, while a missing IPv4 fails at once.
        for family, kind, protocol, _, address in sorted(addresses, key=lambda found: found[0] != socket.AF_INET):
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(_PROBE_SECONDS)
                try:
                    connection.connect(address)
                    return ""
                except OSError as error:
                    failure = error
        return f"{name} cannot be reached ({failure})"
    except OSError as error:
        return f"{name} cannot be reached ({error})"


def _transfer(download: _Download, partial: Path, progress: Callable[[int, int], None]) -> str:
    """Append the missing bytes of the file to `partial`, with as many connections as that takes.

    Returns the checksum that the hub states for the file.
    """
    import requests

    fruitless, reported = 0, 0.0
    while True:
        begun = partial.stat().st_size if partial.exists() else 0
        try:
            with _open(download, begun) as response:
                stated = _stated_checksum([*response.history, response])
                if (
                    response.status_code == 416
                ):  # range not satisfiable: the file is complete, and the body is an error page
                    if stated or download.sha256:
                        progress(begun, begun)
                        return stated
                    partial.unlink()  # the hub states the checksum only together with the file
                    continue
                total, append = _total_size(response)
                done = begun if append else 0
                _check_disk_space(download, partial, total - done)
                with partial.open("ab" if append else "wb") as file:
                    for chunk in response.iter_content(_CHUNK):
                        file.write(chunk)
                        done += len(chunk)
                        fruitless = 0
                        if (now := time.monotonic()) - reported > _SECONDS_BETWEEN_REPORTS:
                            reported = now
                            progress(done, total)
                if done >= total:
                    progress(total, total)
                    return stated
                reason = "the transfer ended early"
        except requests.RequestException as error:
            reason = type(error).__name__  # its text has the signed address of the storage
        fruitless += 1
        if fruitless == _FRUITLESS_ATTEMPTS:
            raise download.failure(
                f"the connection broke {fruitless} times at {megabytes(begun)} ({reason}); the next run continues from "
                f"there"
            )
        progress(begun, max(begun, download.size))


def _open(download: _Download, begun: int) -> Response:
    import requests
    from huggingface_hub.utils import build_hf_headers

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    response = requests.get(download.url, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, _READ_SECONDS))
    if response.status_code in (200, 206) or (response.status_code == 416 and begun):
        return response
    response.close()
    refusals = {
        401: "the hub asks for a login (401); accept the terms of the model there and set HF_TOKEN",
        403: "the hub or your network refuses it (403); accept the terms of the model on the hub and set "
        "HF_TOKEN, or ask the "
        "administrator of your network",
        404: "the hub does not have this file (404)",
    }
    raise download.failure(
        refusals.get(response.status_code, f"the hub answers with HTTP status {response.status_code}")
    )


def _total_size(response: Response) -> tuple[int, bool]:
    """The size of the whole file, and whether the response continues the partial file."""
    _, _, of_range = response.headers.get("Content-Range", "").partition("/")
    if response.status_code == 206 and of_range.isdigit():
        return int(of_range), True
    return int(response.headers.get("Content-Length", 0)), False


def _check_disk_space(download: _Download, partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise download.failure(f"the disk has {megabytes(free)} free, but {megabytes(needed)} are needed")


def _stated_checksum(responses: list[Response]) -> str:
    """The ETag of the hub: the SHA-256 of a large file, or the SHA-1 of the git blob of a small one."""
    for header in ("X-Linked-Etag", "ETag"):
        for response in responses:
            if tag := response.headers.get(header):
                return tag.removeprefix("W/").strip('"')
    return ""


def _verify(download: _Download, partial: Path, stated: str) -> None:
    """Delete the file and raise ModelUnreadable if it has another checksum than expected."""
    expected = download.sha256 or stated
    digests: Mapping[int, Callable[[], hashlib._Hash]] = {
        64: hashlib.sha256,
        40: lambda: hashlib.sha1(b"blob %d\0" % partial.stat().st_size, usedforsecurity=False),
    }
    if len(expected) not in digests:
        raise download.failure(f"the hub states no usable checksum to verify it ('{expected}')")
    digest = digests[len(expected)]()
    with partial.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        partial.unlink()
        raise ModelUnreadable(
            f"The file downloaded from {download.url} is not {download.target.name}: its checksum is "
            f"{digest.hexdigest()} instead of {expected}. The file was deleted. Run again. "
            f"If the error stays, the file at the source has changed."
        )
