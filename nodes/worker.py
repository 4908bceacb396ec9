"""Work that blocks, in a thread beside the loop that runs the graph: several nodes of a graph wait side by side.

The threads are the nodes' own: asyncio's pool holds six on a machine with two cores, and ComfyUI would wait for it at
the end of every run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from ..api_clients.job import Report
from ..api_clients.waiting import Leave
from .comfy import show_progress, show_text, stop_if_interrupted

T = TypeVar("T")

_SECONDS_BETWEEN_TEXTS = 0.25


class Work:
    """One node's work: when it is to stop, and what the node shows meanwhile.

    To be made in the loop that runs the graph. `check_stop` raises ComfyUI's own exception after an interrupt, and
    Leave when the run ended because another node failed: then nobody wants the work to be undone.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._loop = asyncio.get_running_loop()
        self._left = threading.Event()
        self._shown = ""
        self._shown_at = 0.0

    async def run(self, blocking: Callable[[], T]) -> T:
        """What `blocking` returns or raises, in a thread of its own."""
        outcome: asyncio.Future[T] = self._loop.create_future()

        def tell(set_it: Callable[[Any], None], value: Any) -> None:
            self._in_loop(lambda: None if outcome.done() else set_it(value))

        def work() -> None:
            try:
                result = blocking()
            except BaseException as error:
                tell(outcome.set_exception, error)
            else:
                tell(outcome.set_result, result)

        threading.Thread(target=work, name=f"controlstack node {self._node_id}", daemon=True).start()
        try:
            return await outcome
        except asyncio.CancelledError:
            self._left.set()
            raise

    def check_stop(self) -> None:
        """For the engine's `should_stop`."""
        stop_if_interrupted()
        if self._left.is_set():
            raise Leave

    def show(self, report: Report) -> None:
        """For the engine's `on_state`: text and bar of the node."""
        text, now = describe(report), time.monotonic()
        if self._left.is_set() or text == self._shown:
            return
        if not report.phase.final and now - self._shown_at < _SECONDS_BETWEEN_TEXTS:
            return
        self._shown, self._shown_at = text, now
        show_text(self._node_id, text)
        share = 1.0 if report.phase.final else report.progress
        if share is not None:
            self._in_loop(lambda: show_progress(self._node_id, share))

    def say(self, text: str) -> None:
        """The last word: what the node shows when its work is done."""
        show_text(self._node_id, text)

    def _in_loop(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the run is over and its loop is closed
            self._loop.call_soon_threadsafe(call)


def describe(report: Report) -> str:
    """Two or three short lines: phase and times, the job's id, what the service says."""
    parts = [report.phase.value]
    if report.progress and not report.phase.final:
        parts.append(f"{report.progress:.0%}")
    parts.append(f"{report.elapsed:.0f} s")
    if report.progress and report.progress > 0.05 and not report.phase.final:
        parts.append(f"about {report.elapsed * (1 - report.progress) / report.progress:.0f} s left")
    elif report.wait and not report.phase.final:
        parts.append(f"the service says {report.wait:.0f} s more")
    lines = [", ".join(parts), f"job {report.job_id}" if report.job_id else "", report.message]
    return "\n".join(line for line in lines if line)
