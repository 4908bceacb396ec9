"""Webhooks: a service that calls back ends a wait early. Nothing that comes with the call is read or believed.

Off unless CONTROLSTACK_WEBHOOK_URL says under which public https address the service reaches this ComfyUI.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from ..core.errors import ServiceUnreachable

VARIABLE = "CONTROLSTACK_WEBHOOK_URL"
ROUTE = "/controlstack/webhook"
SHOWN = "<the address of this ComfyUI>"  # where a body is shown: the address itself is a secret

_bells: dict[str, threading.Event] = {}


class Bell:
    """A bell for one job; it rings once, so that nobody can keep the service busy with questions."""

    def __init__(self, address: str, rung: threading.Event) -> None:
        self.address = address
        self._rung, self._heard = rung, False

    def heard(self) -> bool:
        """Whether it has rung; True once."""
        if self._heard or not self._rung.is_set():
            return False
        self._heard = True
        return True


def public_address(environ: Mapping[str, str] | None = None) -> str:
    """Where the internet reaches this ComfyUI, "" where the user has not said it.

    Raises ServiceUnreachable for a variable that is no address.
    """
    base = (os.environ if environ is None else environ).get(VARIABLE, "").strip().rstrip("/")
    parts = urlsplit(base)
    if not base:
        return ""
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or not base.isascii():
        rule = "it must be the https:// address under which the internet reaches this ComfyUI"
        raise ServiceUnreachable(f"{VARIABLE} is '{base[:60]}': {rule}. Correct or unset it.")
    return base


@contextmanager
def hang(environ: Mapping[str, str] | None = None) -> Iterator[Bell | None]:
    """A bell at an address that cannot be guessed, for as long as the block lasts; None where the user wants none.

    Raises ServiceUnreachable for a variable that is no address.
    """
    base = public_address(environ)
    if not base:
        yield None
        return
    token, rung = secrets.token_urlsafe(32), threading.Event()
    _bells[token] = rung
    try:
        yield Bell(f"{base}{ROUTE}/{token}", rung)
    finally:
        del _bells[token]


def ring(token: str) -> None:
    """Somebody called the address with this token. Unknown ones are ignored, without telling."""
    bell = _bells.get(token)
    if bell is not None:
        bell.set()
