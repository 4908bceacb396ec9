"""How many jobs of one account may be under way at a time, in this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .waiting import SLICE_SECONDS, Stop

MOST_JOBS = 8

_change = threading.Condition()
_running: Counter[tuple[str, str]] = Counter()


@contextmanager
def one_of(service: str, profile: str, most: int, should_stop: Stop) -> Iterator[None]:
    """Hold one of `most` places of the account, waiting for one if need be; raises what `should_stop` raises."""
    account = service, profile
    while True:
        with _change:
            if _running[account] < most or _change.wait_for(lambda: _running[account] < most, SLICE_SECONDS):
                _running[account] += 1
                break
        should_stop()
    try:
        yield
    finally:
        with _change:
            _running[account] -= 1
            _change.notify_all()
