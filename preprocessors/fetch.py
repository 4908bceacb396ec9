"""A file comes from the hub: reachable or not within a second, resumable, verified, interruptible.

huggingface_hub's own download keeps nothing of a transfer that broke, retries for 20 s when there is no network, and
reports to a terminal; so the transfer itself stands here.
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

from ..core.errors import ModelNotFound, ModelUnreadable

if TYPE_CHECKING:
    from requests import Response

_REACH_SECONDS = 0.8  # a user who is offline is told within a second
_CONNECT_SECONDS, _READ_SECONDS = 10, 10
_CHUNK = 2**16
_ATTEMPTS_WITHOUT_A_BYTE = 3
_SECONDS_BETWEEN_REPORTS = 0.1

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class _Wanted:
    url: str
    target: Path
    size: int
    sha256: str

    def missing(self, reason: str) -> ModelNotFound:
        return ModelNotFound(
            f"{self.target.name} ({megabytes(self.size)}) is needed and cannot be fetched: {reason}. "
            f"Run again when {urlsplit(self.url).hostname} can be reached, or download {self.url} "
            f"and put it into {self.target.parent}"
        )


def megabytes(size: int) -> str:
    """A number of bytes for people, e.g. "29.4 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{-(-size // 1000)} kB"


def fetch(url: str, target: Path, size: int, sha256: str, progress: Callable[[int, int], None]) -> None:
    """Bring a file of the hub to `target`; `progress(bytes, of_bytes)` may raise to stop, and the rest is kept.

    It is held against `sha256`, or where that is empty against the checksum the hub states for it. Raises
    ModelNotFound when it cannot be fetched, within a second when the hub cannot be reached, and ModelUnreadable when
    something else arrived.
    """
    wanted = _Wanted(url, target, size, sha256)
    if _says_yes("HF_HUB_OFFLINE") or _says_yes("TRANSFORMERS_OFFLINE"):
        raise wanted.missing("HF_HUB_OFFLINE forbids it")
    with _one_at_a_time:
        if target.is_file():  # another thread has just fetched it
            return
        if reason := _why_unreachable(url):
            raise wanted.missing(reason)
        partial = target.with_name(f"{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stated = _transfer(wanted, partial, progress)
            _verify(wanted, partial, stated)
            partial.replace(target)
        except OSError as error:  # the disk's; those of the network are dealt with where they happen
            raise wanted.missing(f"{error.strerror or error} ({error.filename or target.parent})") from error


def _says_yes(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _why_unreachable(url: str) -> str:
    """Why no connection to the hub, or to the proxy before it, can be opened; empty when one can."""
    from requests.utils import get_environ_proxies, select_proxy

    door = urlsplit(select_proxy(url, get_environ_proxies(url)) or url)
    name, port = door.hostname or "", door.port or (443 if door.scheme == "https" else 80)
    answer: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Looking up a name knows no timeout, so it happens aside.
    threading.Thread(target=lambda: answer.put(_knock(name, port)), daemon=True).start()
    try:
        return answer.get(timeout=_REACH_SECONDS)
    except queue.Empty:
        return f"{name} does not answer"


def _knock(name: str, port: int) -> str:
    try:
        addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        # IPv4 first: a broken IPv6 swallows packets where a missing IPv4 refuses at once.
        for family, kind, protocol, _, address in sorted(addresses, key=lambda found: found[0] != socket.AF_INET):
            with socket.socket(family, kind, protocol) as caller:
                caller.settimeout(_REACH_SECONDS)
                try:
                    caller.connect(address)
                    return ""
                except OSError as error:
                    failure = error
        return f"{name} cannot be reached ({failure})"
    except OSError as error:
        return f"{name} cannot be reached ({error})"


def _transfer(wanted: _Wanted, partial: Path, progress: Callable[[int, int], None]) -> str:
    """Append to `partial` what is missing of the file, over as many connections as that takes.

    Returns the checksum that the hub states for the file.
    """
    import requests

    fruitless, reported = 0, 0.0
    while True:
        begun = partial.stat().st_size if partial.exists() else 0
        try:
            with _open(wanted, begun) as response:
                stated = _stated_checksum([*response.history, response])
                if response.status_code == 416:  # nothing is missing: what follows is a page about that
                    if stated or wanted.sha256:
                        progress(begun, begun)
                        return stated
                    partial.unlink()  # only with the file itself the hub says what its checksum is
                    continue
                total, append = _total_size(response)
                done = begun if append else 0
                _check_room(wanted, partial, total - done)
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
                reason = "it ended early"
        except requests.RequestException as error:
            reason = type(error).__name__  # its text holds the signed address of the store
        fruitless += 1
        if fruitless == _ATTEMPTS_WITHOUT_A_BYTE:
            raise wanted.missing(
                f"the connection broke {fruitless} times at {megabytes(begun)} ({reason}); what arrived is kept, and "
                f"the next run goes on from there"
            )
        progress(begun, max(begun, wanted.size))


def _open(wanted: _Wanted, begun: int) -> Response:
    import requests
    from huggingface_hub.utils import build_hf_headers

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    response = requests.get(wanted.url, headers=headers, stream=True, timeout=(_CONNECT_SECONDS, _READ_SECONDS))
    if response.status_code in (200, 206) or (response.status_code == 416 and begun):
        return response
    response.close()
    refusals = {
        401: "the hub asks for a login; accept the model's terms there and set HF_TOKEN",
        403: "the hub refuses it; accept the model's terms there and set HF_TOKEN, or ask who runs your network",
        404: "the hub does not have it at this address",
    }
    raise wanted.missing(refusals.get(response.status_code, f"the hub answers {response.status_code}"))


def _total_size(response: Response) -> tuple[int, bool]:
    """The size of the whole file, and whether what comes continues what is here."""
    _, _, of_range = response.headers.get("Content-Range", "").partition("/")
    if response.status_code == 206 and of_range.isdigit():
        return int(of_range), True
    return int(response.headers.get("Content-Length", 0)), False


def _check_room(wanted: _Wanted, partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if free < needed:
        raise wanted.missing(f"the disk has {megabytes(free)} free, and {megabytes(needed)} are needed")


def _stated_checksum(responses: list[Response]) -> str:
    """What the hub calls the content: the SHA-256 of large files, the git blob's SHA-1 of small ones."""
    for header in ("X-Linked-Etag", "ETag"):
        for response in responses:
            if tag := response.headers.get(header):
                return tag.removeprefix("W/").strip('"')
    return ""


def _verify(wanted: _Wanted, partial: Path, stated: str) -> None:
    """Raise ModelUnreadable, and keep nothing, when the file has another checksum than ours or the one stated."""
    expected = wanted.sha256 or stated
    digests: Mapping[int, Callable[[], hashlib._Hash]] = {
        64: hashlib.sha256,
        40: lambda: hashlib.sha1(b"blob %d\0" % partial.stat().st_size, usedforsecurity=False),
    }
    if len(expected) not in digests:
        raise wanted.missing(f"the hub states no checksum to hold it against ('{expected}')")
    digest = digests[len(expected)]()
    with partial.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != expected.lower():
        partial.unlink()
        raise ModelUnreadable(
            f"What came from {wanted.url} is not {wanted.target.name}: its checksum is {digest.hexdigest()} instead "
            f"of {expected}. It was not kept. Run again; if that does not help, the file was changed on its way or at "
            f"its source."
        )
