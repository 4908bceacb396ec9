"""Webhooks: a call from the service ends a wait early. The content of the call is neither read nor trusted.

Webhooks are off unless CONTROLSTACK_WEBHOOK_URL names the public https address at which the service reaches this
ComfyUI.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from ...core.errors import ServiceUnreachable

VARIABLE = "CONTROLSTACK_WEBHOOK_URL"
ROUTE = "/controlstack/webhook"
ADDRESS_LABEL = "<the address of this ComfyUI>"  # displayed instead of the address, which is secret

_called: dict[str, threading.Event] = {}  # by token


class Webhook:
    """The webhook of one job. It notifies once, so that nobody can make the pack poll without end."""

    def __init__(self, address: str, called: threading.Event) -> None:
        self.address = address
        self._called, self._notified = called, False

    def notified(self) -> bool:
        """Whether the service has called. True only once."""
        if self._notified or not self._called.is_set():
            return False
        self._notified = True
        return True


def public_address(environ: Mapping[str, str] | None = None) -> str:
    """The address at which the internet reaches this ComfyUI, "" if the user has not set it.

    Raises ServiceUnreachable if the variable is not a plain https URL.
    """
    base = (os.environ if environ is None else environ).get(VARIABLE, "").strip().rstrip("/")
    parts = urlsplit(base)
    if not base:
        return ""
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or not base.isascii():
        raise ServiceUnreachable(
            f"{VARIABLE} is '{base[:60]}'. It must be the https:// address at which the internet reaches this ComfyUI. "
            f"Correct or unset it."
        )
    return base


@contextmanager
def listen(environ: Mapping[str, str] | None = None) -> Generator[Webhook | None]:
    """A webhook with an address that cannot be guessed, valid within the block. None if webhooks are off.

    Raises ServiceUnreachable if the variable is not a plain https URL.
    """
    base = public_address(environ)
    if not base:
        yield None
        return
    token, called = secrets.token_urlsafe(32), threading.Event()
    _called[token] = called
    try:
        yield Webhook(f"{base}{ROUTE}/{token}", called)
    finally:
        del _called[token]


def notify(token: str) -> None:
    """Somebody called the webhook with this token. Unknown tokens are ignored without an error."""
    called = _called.get(token)
    if called is not None:
        called.set()
