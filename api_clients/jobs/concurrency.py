"""Limiting how many jobs of one account run at the same time in this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from ..http.waiting import SLICE_SECONDS, StopCheck

MAX_JOBS = 8

_change = threading.Condition()
_running: Counter[tuple[str, str]] = Counter()


@contextmanager
def job_slot(service: str, profile: str, max_jobs: int, should_stop: StopCheck) -> Generator[None]:
    """Wait until fewer than `max_jobs` jobs of the account run, and count as one of them within the block.

    Raises what `should_stop` raises.
    """
    account = service, profile
    while True:
        with _change:
            if _running[account] < max_jobs or _change.wait_for(lambda: _running[account] < max_jobs, SLICE_SECONDS):
                _running[account] += 1
                break
        should_stop()
    try:
        yield
    finally:
        with _change:
            _running[account] -= 1
            _change.notify_all()
