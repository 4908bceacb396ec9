"""What the tests of the services share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from controlstack.tests.api_clients.scripted_service import loopback_only

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing leaves this machine, or tries to."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with loopback_only():
        yield
