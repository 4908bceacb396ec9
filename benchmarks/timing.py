"""Times two alternatives in interleaved runs, so that other load on the machine affects both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain


@dataclass(frozen=True)
class Comparison:
    """The median seconds of both sides, and the median of the ratios (ours / theirs) of the pairs."""

    theirs: float
    ours: float
    ratio: float


def interleaved(
    theirs: Callable[[], object],
    ours: Callable[[], object],
    rounds: int,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Comparison:
    """Run both sides `rounds` times; the side that runs first alternates.

    Our side runs inside the context `around`. Entering and leaving it is not timed.
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
    """The wall-clock seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table for docs/performance.md, each row as soon as it is measured."""
    for row in chain((heads, ["---"] * len(heads)), rows):
        print(f"| {' | '.join(row)} |", flush=True)
