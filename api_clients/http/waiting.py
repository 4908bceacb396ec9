"""Waiting that reacts to a stop at once: pauses, and blocking work in a thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

T = TypeVar("T")
StopCheck = Callable[[], None]  # raises an exception when the caller wants to stop

SLICE_SECONDS = 0.1


class Clock:
    """The time. Tests use one that passes faster."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment, for durations."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, for times that other processes read."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Detached(BaseException):
    """Raised by a stop check when the caller stops waiting but still wants the job: it is not canceled."""


def never_stop() -> None:
    """The stop check of a caller that does not stop."""


def pause(seconds: float, clock: Clock, should_stop: StopCheck, wake: Callable[[], bool] = lambda: False) -> None:
    """Sleep until the time is over or `wake` returns True. Raises what `should_stop` raises, within one slice."""
    end = clock.monotonic() + seconds
    should_stop()
    while (left := end - clock.monotonic()) > 0 and not wake():
        clock.sleep(min(left, SLICE_SECONDS))
        should_stop()


def interruptible(
    work: Callable[[], T],
    should_stop: StopCheck,
    seconds: float,
    on_late: Callable[[Callable[[], T]], None] | None = None,
) -> T:
    """Run `work` in a thread and return its result.

    Raises what `should_stop` raises at once, and TimeoutError after `seconds`. The work itself goes on in both cases.
    When it ends, `on_late` is called in its thread with a function that returns its result or raises its error.
    """
    outcome: list[Callable[[], T]] = []
    done, gate, left = threading.Event(), threading.Lock(), False

    def run() -> None:
        try:
            result = work()
            outcome.append(lambda: result)
        except BaseException as error:
            outcome.append(_raiser(error))
        with gate:
            done.set()
        if left and on_late:
            on_late(outcome[0])

    threading.Thread(target=run, name="controlstack request", daemon=True).start()
    end = time.monotonic() + seconds
    try:
        while not done.wait(SLICE_SECONDS):
            should_stop()
            if time.monotonic() > end:
                raise TimeoutError(f"no answer within {seconds:g} s")
    except BaseException:
        with gate:
            left = not done.is_set()
        if left or not on_late:
            raise
        on_late(outcome[0])  # the work ended in this moment, so its own thread does not report it
        raise
    return outcome[0]()


def _raiser(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def backoff(attempt: int) -> Iterator[float]:
    """Waiting times that double from about 1 s to about 15 s. Jitter keeps many clients from retrying in step."""
    while True:
        yield min(2.0**attempt, 15.0) * random.uniform(0.75, 1.25)
        attempt += 1
