"""One paid job: what is known about it, and how that is recorded in the journal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from ...core.errors import ControlStackError, JournalUnusable, OutcomeUnknown, ServiceError
from ..credentials.redaction import shorten
from ..http.messages import Answer, Json
from ..services.endpoint import JobState, Phase
from .context import JobContext
from .journal import Entry, Status

_STATUS = {Phase.DONE: Status.DONE, Phase.FAILED: Status.FAILED, Phase.CANCELED: Status.CANCELED}


@dataclass(frozen=True)
class Job:
    """One job at a service.

    `number` is its number in the journal, None if the journal does not know it: then nothing is recorded. `body` is
    what was sent, as it may be shown. `expected_images` is the number of images that were paid for, None if unknown.
    `resumed` says that an earlier run has bought the job.

    The status of a job in the journal (`journal.Status`), and what changes it:

                              claimed, about to be sent
                                         |
                                         v
        (deleted) <-------------- SUBMITTING --------------> UNKNOWN
                                   |       |
              the answer names it  |       |  the answer reports its end
                                   v       |
                                RUNNING    |
                                   |       |
                  a poll reports   |       |
                  its end          v       v
                         DONE or FAILED or CANCELED

    - SUBMITTING to FAILED: also if the service refuses the request.
    - SUBMITTING to UNKNOWN: no usable answer came, or the process that was sending died (its lease ran out). The job
      may have been accepted and charged, so the request is sent again only with `force_new`. If the answer comes after
      all, UNKNOWN becomes what SUBMITTING would have become.
    - SUBMITTING to deleted: the request was certainly not accepted. Nothing was sent, the service reported a rate
      limit, or the caller stopped between two attempts.
    - RUNNING: when in doubt, keep polling. Only a state reported by the service ends the job; an HTTP error in reply to
      a poll, a deadline or an interrupt never does.
    - DONE is final, whatever the service says of the job later, except that it becomes FAILED if it has no image.
    - After FAILED and CANCELED, the next equal request is sent as a new job, unless an older job of the request still
      counts (see `Journal.current`). Fetching such a job by its id polls it and records what the service says now.
    """

    number: int | None
    state: JobState
    body: Json | None = None
    expected_images: int | None = None
    resumed: bool = False

    @classmethod
    def from_entry(cls, entry: Entry, expected_images: int | None = None) -> Self:
        """The job that an earlier run recorded."""
        phase = Phase.DONE if entry.status is Status.DONE else Phase.RUNNING
        outputs, message, metadata = entry.outputs, entry.message, entry.metadata
        state = JobState(phase, entry.job_id, outputs, message, metadata=metadata, cost=entry.cost)
        return cls(entry.number, state, entry.body, expected_images, resumed=True)

    @property
    def id(self) -> str:
        """The id that the service gave it, "" if it gave none."""
        return self.state.job_id

    @property
    def ended(self) -> bool:
        """Whether the service has reported its end."""
        return self.state.phase.final

    def updated(self, state: JobState) -> Self:
        """The job in a later state, with what only an earlier one told (the seed: docs/services/modelslab.md 4)."""
        merged = replace(
            state,
            job_id=self.id,
            metadata={**self.state.metadata, **state.metadata},
            cost=self.state.cost if state.cost is None else state.cost,
        )
        return replace(self, state=merged)


def read_answer(context: JobContext, reader: Callable[[Answer], JobState], answer: Answer) -> JobState:
    """What the endpoint's `reader` finds in an answer. Raises OutcomeUnknown if it cannot read the answer."""
    try:
        return reader(answer)
    except ControlStackError:
        raise
    except Exception as error:
        target = context.endpoint.target
        raise OutcomeUnknown(
            f"The answer of {target} (HTTP {answer.status}) cannot be read ({type(error).__name__})."
        ) from None


def record(context: JobContext, job: Job, status: Status, **values: Any) -> None:
    """Record the status of a job. A broken journal must not lose a job that is paid for, so it is only reported."""
    if job.number is None:
        return
    if values.get("message"):
        values["message"] = context.redact(values["message"])
    try:
        context.journal.record(job.number, status, **values)
    except JournalUnusable as error:
        logging.getLogger(__name__).warning("%s", error)
        context.notes.append(f"job {values.get('job_id', '')} is not recorded in the journal: {error}")


def record_running(context: JobContext, job: Job) -> None:
    """Record that the service has accepted the job."""
    state = job.state
    record(
        context, job, Status.RUNNING, job_id=job.id, metadata=shorten(context.redact(state.metadata)), cost=state.cost
    )


def record_end(context: JobContext, job: Job) -> None:
    """Record how the job ended. Raises ServiceError if it failed."""
    state = job.state
    message = context.redact(state.message)
    record(
        context,
        job,
        _STATUS[state.phase],
        job_id=job.id,
        outputs=context.redact.links(state.outputs),
        metadata=shorten(context.redact(state.metadata)),
        message=message,
        cost=state.cost,
    )
    if state.phase is Phase.FAILED:
        reason = message.rstrip(".") or "the service gave no reason"
        raise ServiceError(f"{context.endpoint.target} could not run job {job.id or '(without an id)'}: {reason}.")


def how_to_wait(context: JobContext, job: Job) -> str:
    """How to continue waiting for a job, as sentences."""
    paid = "The job is paid for and not lost. " if job.number is not None else ""
    return f"{paid}To continue waiting, {how_to_fetch(context, job)}"


def how_to_fetch(context: JobContext, job: Job) -> str:
    """How to ask for the job again without paying, as the rest of a sentence.

    The same request continues the job only if the journal knows it. Otherwise it would be bought.
    """
    queue = "queue the same request again with force_new off, or " if job.number is not None else ""
    profile = context.account.credentials.profile
    return f"{queue}use Fetch Job with service {context.endpoint.target}, profile {profile}, job id {job.id}."


def how_to_buy_again(context: JobContext) -> str:
    """What to do about a job that may be lost, as sentences."""
    return (
        f"Nothing was sent this time. Check the job list or the bill at {context.endpoint.target}. To send the request "
        f"again and pay for it again, turn on force_new."
    )


def report_stop(context: JobContext, text: str) -> None:
    """Tell the caller and the log what happens to the job after an interrupt."""
    text = f"Interrupted. {text}"
    logging.getLogger(__name__).info("%s", context.redact(text))
    context.report(message=text)
