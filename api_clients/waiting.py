"""Waiting so that a stop is felt at once: pauses, and work that blocks in a thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

T = TypeVar("T")
Stop = Callable[[], None]

SLICE_SECONDS = 0.1


class Clock:
    """Time; tests bring one that passes quickly."""

    def monotonic(self) -> float:
        """Seconds of an arbitrary beginning, for durations."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, for what other processes read."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Leave(BaseException):
    """Raised by a stop-callback whose caller goes away without giving the job up: it is not canceled."""


def never() -> None:
    """The stop-callback of a caller that does not stop."""


def pause(seconds: float, clock: Clock, should_stop: Stop, awake: Callable[[], bool] = lambda: False) -> None:
    """Sleep, but raise within a slice what `should_stop` raises, and end when `awake` says so."""
    end = clock.monotonic() + seconds
    should_stop()
    while (left := end - clock.monotonic()) > 0 and not awake():
        clock.sleep(min(left, SLICE_SECONDS))
        should_stop()


def interruptible(
    work: Callable[[], T],
    should_stop: Stop,
    seconds: float,
    late: Callable[[Callable[[], T]], None] | None = None,
) -> T:
    """The result of `work`, done in a thread; raises what `should_stop` raises at once, and TimeoutError at the end.

    With `late` these two do not lose the outcome: it is called in that thread, when `work` has ended after all, with
    a function that returns what `work` returned or raises what it raised.
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
        if left and late:
            late(outcome[0])

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
        if left or not late:
            raise
        late(outcome[0])  # it ended just now: nobody else would tell
        raise
    return outcome[0]()


def _raiser(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def backoff(attempt: int) -> Iterator[float]:
    """Waits from about 1 s, doubling to about 15 s, each with jitter, so that many clients do not come back at once."""
    while True:
        yield min(2.0**attempt, 15.0) * random.uniform(0.75, 1.25)
        attempt += 1
