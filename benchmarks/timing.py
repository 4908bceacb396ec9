"""Two ways of doing the same, timed in turns, so that whatever else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain


@dataclass(frozen=True)
class Comparison:
    """Median seconds of both sides, and the median of the ratios of their pairs."""

    theirs: float
    ours: float
    ratio: float


def interleaved(
    theirs: Callable[[], object],
    ours: Callable[[], object],
    rounds: int,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Comparison:
    """Run both `rounds` times; every other pair begins with the other side.

    `around` is put around our side each time, off the clock.
    """

    def ours_inside() -> float:
        with around():
            return seconds(ours)

    pairs = []
    for number in range(rounds):
        sides = [lambda: seconds(theirs), ours_inside]
        times = [side() for side in (sides if number % 2 == 0 else sides[::-1])]
        pairs.append(times if number % 2 == 0 else times[::-1])
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return Comparison(*medians, ratio=statistics.median(ours / theirs for theirs, ours in pairs))


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """As Markdown, so that it can go into docs/performance.md as it is; each row as soon as it is there."""
    for row in chain((heads, ["---"] * len(heads)), rows):
        print(f"| {' | '.join(row)} |", flush=True)
