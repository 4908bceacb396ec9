"""Running blocking work in a thread beside ComfyUI's event loop, so that several nodes of a graph wait in parallel.

Each node has its own thread. asyncio's pool has only six threads on a machine with two cores, and ComfyUI would wait
for it at the end of every run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from ..api_clients.http.waiting import Detached
from ..api_clients.jobs.context import Report
from .comfy import show_progress, show_text, stop_if_interrupted

T = TypeVar("T")

_SECONDS_BETWEEN_TEXTS = 0.25


class Work:
    """The work of one node: when to stop, and what the node shows meanwhile.

    Must be created in the event loop that runs the graph. `check_stop` raises ComfyUI's own exception after an
    interrupt, and Detached after the run ended because another node failed: then the job is not canceled.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._loop = asyncio.get_running_loop()
        self._detached = threading.Event()
        self._shown = ""
        self._shown_at = 0.0

    async def run(self, blocking: Callable[[], T]) -> T:
        """Run `blocking` in its own thread, and return or raise what it does."""
        outcome: asyncio.Future[T] = self._loop.create_future()

        def settle(set_outcome: Callable[[Any], None], value: Any) -> None:
            self._in_loop(lambda: None if outcome.done() else set_outcome(value))

        def work() -> None:
            try:
                result = blocking()
            except BaseException as error:
                settle(outcome.set_exception, error)
            else:
                settle(outcome.set_result, result)

        threading.Thread(target=work, name=f"controlstack node {self._node_id}", daemon=True).start()
        try:
            return await outcome
        except asyncio.CancelledError:
            self._detached.set()
            raise

    def check_stop(self) -> None:
        """The stop check of the job."""
        stop_if_interrupted()
        if self._detached.is_set():
            raise Detached

    def show(self, report: Report) -> None:
        """Show a report of the job as the text and the progress bar of the node."""
        text, now = describe(report), time.monotonic()
        if self._detached.is_set() or text == self._shown:
            return
        if not report.phase.final and now - self._shown_at < _SECONDS_BETWEEN_TEXTS:
            return
        self._shown, self._shown_at = text, now
        show_text(self._node_id, text)
        progress = 1.0 if report.phase.final else report.progress
        if progress is not None:
            self._in_loop(lambda: show_progress(self._node_id, progress))

    def show_result(self, text: str) -> None:
        """Show the text that stays when the work is done."""
        show_text(self._node_id, text)

    def _in_loop(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the run has ended and its loop is closed
            self._loop.call_soon_threadsafe(call)


def describe(report: Report) -> str:
    """The text of a node, in up to three lines: phase and times, the job id, the service's message."""
    parts = [report.phase.value]
    if report.progress and not report.phase.final:
        parts.append(f"{report.progress:.0%}")
    parts.append(f"{report.elapsed:.0f} s")
    if report.progress and report.progress > 0.05 and not report.phase.final:
        parts.append(f"about {report.elapsed * (1 - report.progress) / report.progress:.0f} s left")
    elif report.wait and not report.phase.final:
        parts.append(f"the service expects {report.wait:.0f} s more")
    lines = [", ".join(parts), f"job {report.job_id}" if report.job_id else "", report.message]
    return "\n".join(line for line in lines if line)
