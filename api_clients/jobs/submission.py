"""Sending the paid call of a job, and what its answer means."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ...core.errors import (
    ControlStackError,
    JournalUnusable,
    OutcomeUnknown,
    RateLimited,
    ServiceError,
    ServiceUnreachable,
)
from ..http.messages import Answer, Call
from ..http.transport import Abandoned
from ..http.waiting import pause
from ..services.endpoint import JobState, Phase
from .context import JobContext
from .job import Job, read_answer, record, record_end, record_running, report_stop
from .journal import Entry, Status
from .polling import cancel

_HEARTBEAT_SECONDS = 3.0
_GATEWAY_TIMEOUTS = (408, 502, 504)  # from something between here and the service, which may have accepted the call


def submit(context: JobContext, job: Job, call: Call) -> Job:
    """Send the paid call of a job that was claimed in the journal. Whatever the outcome, it is recorded there.

    Raises ServiceUnreachable and RateLimited if the call was not accepted, OutcomeUnknown if it may have been, and
    ServiceError if the service refused it or reports that the job failed.
    """
    assert job.number is not None
    context.report(JobState(Phase.QUEUED, message=f"sending to {context.endpoint.target}"))
    pay = partial(
        context.transport.pay,
        call,
        patience=context.deadline,
        on_late=partial(_settle_late, context, job),
        heartbeat=_Heartbeat(context, job.number),
        busy=partial(_rate_limit, context),
    )
    try:
        return _settle(context, job, pay)
    except Abandoned as abandoned:
        with suppress(JournalUnusable):
            context.journal.renew(job.number, context.settings.limits.paid_read)
        then = "the job is then canceled" if context.stop.cancels else "the next run continues the job"
        report_stop(context, f"The request is already on its way. Its answer is awaited in the background; {then}.")
        context.report.close()
        raise abandoned.reason from None


def wait_for_submission(context: JobContext, entry: Entry) -> Entry | None:
    """Wait for a job that another thread or process is submitting. None if it was not accepted."""
    found: Entry | None = entry
    while found is not None and found.status is Status.SUBMITTING:
        if found.lease < context.clock.wall():
            message = (
                "An earlier run of this request was cut off while it was being sent. It is not known whether the "
                "service accepted and charged it."
            )
            context.journal.record(found.number, Status.UNKNOWN, message=message, only_after=Status.SUBMITTING)
        else:
            context.report(message="waiting for an equal request that is being sent")
            pause(0.25, context.clock, context.stop.check)
        found = context.journal.get(found.number)
    return found


def _settle(context: JobContext, job: Job, outcome: Callable[[], Answer]) -> Job:
    """Interpret the outcome of the paid call, and record it."""
    assert job.number is not None
    target = context.endpoint.target
    try:
        answer = outcome()
        if answer.status in _GATEWAY_TIMEOUTS or (answer.json is None and answer.status not in range(400, 500)):
            text = " ".join(answer.text.split())[:200] or "an empty answer"
            raise OutcomeUnknown(
                f"{target} answered HTTP {answer.status}, but no job can be read from the answer ({text}). The request "
                f"may have been accepted and charged."
            )
        state = read_answer(context, context.endpoint.read_submit, answer)
        if not state.phase.final and not state.job_id:
            raise OutcomeUnknown(f"{target} accepted the request without naming a job.")
    except OutcomeUnknown as error:
        record(context, job, Status.UNKNOWN, message=str(error), only_after=Status.SUBMITTING)
        raise OutcomeUnknown(
            f"{error} The request was not sent again. Check the job list or the bill at {target} before you turn on "
            f"force_new, which sends it again and pays for it again."
        ) from None
    except (ServiceUnreachable, RateLimited):
        context.journal.forget(job.number)
        raise
    except ServiceError as error:
        record(context, job, Status.FAILED, message=str(error))
        raise
    except Abandoned:
        raise
    except BaseException as error:
        if error is context.stop.reason:  # stopped between two attempts; a stop during an attempt is Abandoned
            context.journal.forget(job.number)
        else:
            message = (
                f"The request was cut off by an error in this program ({type(error).__name__}). It may have been "
                f"accepted and charged."
            )
            record(context, job, Status.UNKNOWN, message=message, only_after=Status.SUBMITTING)
        raise
    job = replace(job, state=state)
    if job.ended:
        record_end(context, job)
    else:
        record_running(context, job)
    return job


def _settle_late(context: JobContext, job: Job, outcome: Callable[[], Answer]) -> None:
    """Settle in the background, after the caller has gone. If it canceled the job, cancel it at the service."""
    log = logging.getLogger(__name__)
    try:
        job = _settle(context, job, outcome)
    except ControlStackError as error:
        log.info("%s", context.redact(str(error)))
        return
    except Exception as error:  # nobody else would report it; the journal has recorded it
        reason = context.redact(f"{type(error).__name__}: {error}")
        log.error("The answer to a paid request could not be read (%s).", reason)
        return
    if not job.ended and context.stop.cancels:
        cancel(context, job)


def _rate_limit(context: JobContext, answer: Answer) -> RateLimited | None:
    """The rate limit that an answer to the paid call reports, if any."""
    try:
        read_answer(context, context.endpoint.read_submit, answer)
    except ControlStackError as error:
        return error if isinstance(error, RateLimited) else None
    return None


class _Heartbeat:
    """Renews the lease of a job, and repeats the report, every few seconds while its paid call runs."""

    def __init__(self, context: JobContext, number: int) -> None:
        self._context, self._number = context, number
        self._last = context.clock.monotonic()

    def __call__(self) -> None:
        now = self._context.clock.monotonic()
        if now - self._last >= _HEARTBEAT_SECONDS:
            self._last = now
            with suppress(JournalUnusable):
                self._context.journal.renew(self._number)
            self._context.report()
