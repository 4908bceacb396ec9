"""Following a job at the service to its end, and canceling it.

When in doubt, keep polling: only a state reported by the service ends a job. An HTTP error in reply to a poll never
does, because a job that is wrongly given up would be paid for twice.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial

from ...core.errors import (
    ControlStackError,
    JobUnfinished,
    JournalUnusable,
    OutcomeUnknown,
    RateLimited,
    ServiceError,
    ServiceUnreachable,
)
from ..http.messages import Answer
from ..http.transport import worth_repeating
from ..http.waiting import never_stop, pause
from ..services.endpoint import JobState
from .context import JobContext
from .job import Job, how_to_fetch, how_to_wait, read_answer, record_end, report_stop

_REPORT_SECONDS = 1.0
_POLL_PATIENCE = 180.0
_CANCEL_PATIENCE = 15.0


def poll(context: JobContext, job: Job) -> JobState:
    """The state of a job now.

    Raises JobUnfinished if the service could not be asked, ServiceError if it refused the question. Neither ends the
    job.
    """
    try:
        answer = context.transport.ask(
            context.endpoint.poll(job.id),
            patience=min(_POLL_PATIENCE, context.deadline),
            settled=partial(_settles, context),
        )
    except (ServiceUnreachable, ServiceError) as failure:  # such as a redirect: the service itself has said nothing
        raise JobUnfinished(f"{failure} {how_to_wait(context, job)}") from None
    if worth_repeating(answer.status) and not _settles(context, answer):
        raise JobUnfinished(
            f"{context.transport.host} keeps answering HTTP {answer.status}. {how_to_wait(context, job)}"
        )
    try:
        return read_answer(context, context.endpoint.read_poll, answer)
    except (OutcomeUnknown, RateLimited) as failure:
        raise JobUnfinished(f"{failure} {how_to_wait(context, job)}") from None
    except ServiceError as error:
        unaffected = (
            f"This does not mean that job {job.id} failed."
            if job.number is None
            else f"The job itself ({job.id}, already paid for) is not affected."
        )
        raise ServiceError(f"{error} {unaffected} Fix the problem above, then {how_to_fetch(context, job)}") from None


def follow(context: JobContext, job: Job, *, fresh: bool = False, cancelable: bool = True) -> Job:
    """Wait until the job is done or canceled. `fresh` jobs are given some time before the first poll.

    Raises ServiceError if the job failed, and JobUnfinished at the deadline. If the caller stops and no longer wants a
    `cancelable` job, the job is canceled.
    """
    pace = context.endpoint.pace
    end = context.clock.monotonic() + context.deadline
    interval = pace.shortest
    wait = (pace.first if job.state.wait is None else job.state.wait) if fresh else 0.0
    webhook = context.webhook
    notified = webhook.notified if webhook else lambda: False
    try:
        while not job.ended:
            context.report(job.state, wait=job.state.wait)
            left = max(0.0, end - context.clock.monotonic())
            pause(min(wait, left), context.clock, partial(_tick, context), notified)
            state = poll(context, job)
            job = job.updated(state)
            if not job.ended and context.clock.monotonic() >= end:
                message = f" ({job.state.message})" if job.state.message else ""
                raise JobUnfinished(
                    f"The job at {context.endpoint.target} is still {job.state.phase.value} after "
                    f"{context.deadline:.0f} s{message}. {how_to_wait(context, job)}"
                )
            wait = max(interval, state.wait or 0.0)
            interval = min(interval * 1.5, pace.longest)
    except BaseException:
        if context.stop.cancels and cancelable:
            cancel(context, job)
        raise
    context.report(job.state)
    record_end(context, job)
    return job


def cancel(context: JobContext, job: Job) -> None:
    """Ask the service to cancel a job, in the background, and tell the caller."""
    target = context.endpoint.target
    call = context.endpoint.cancel(job.id)
    if call is None:
        report_stop(context, f"{target} cannot cancel jobs. Job {job.id} continues and can be fetched later.")
        return
    if job.number is not None:
        with suppress(JournalUnusable):
            context.journal.ask_cancel(job.number)

    def ask() -> None:
        with suppress(ControlStackError):
            context.new_transport(never_stop).ask(call, patience=_CANCEL_PATIENCE)

    threading.Thread(target=ask, name="controlstack cancel", daemon=True).start()
    report_stop(context, f"{target} was asked to cancel job {job.id}. It may still finish.")


def _settles(context: JobContext, answer: Answer) -> bool:
    """Whether a poll need not be repeated, whatever its HTTP status. A service may report a failed job with a 500."""
    try:
        return answer.json is not None and read_answer(context, context.endpoint.read_poll, answer).phase.final
    except ControlStackError as error:
        return isinstance(error, ServiceError) and not isinstance(error, RateLimited)


def _tick(context: JobContext) -> None:
    context.stop.check()
    context.report.repeat_after(_REPORT_SECONDS)
