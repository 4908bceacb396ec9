"""One paid job, from the moment before it is sent until its pictures are here, with every step in the journal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..core.errors import (
    ControlStackError,
    InvalidRequest,
    JobUnfinished,
    JournalUnusable,
    OutcomeUnknown,
    RateLimited,
    ServiceError,
    ServiceUnreachable,
)
from .download import Resolver, resolve
from .endpoint import Endpoint, JobState, Phase
from .images import MOST_PIXELS
from .journal import Entry, Journal, Standing
from .messages import Answer, Call
from .redaction import Secret, redact_json
from .store import Credentials
from .transport import Abandoned, Limits, Transport, service_url, worth_repeating
from .upload import shortened, show, unsigned
from .waiting import Clock, Leave, Stop, never, pause
from .webhook import Bell

_HEARTBEAT_SECONDS = 3.0
_REPORT_SECONDS = 1.0
_POLL_PATIENCE = 180.0
_CANCEL_PATIENCE = 15.0
_UNTOLD = (408, 502, 504)  # somebody on the way gave up waiting: the service may have taken a paid request all the same
_STANDINGS = {Phase.DONE: Standing.DONE, Phase.FAILED: Standing.FAILED, Phase.CANCELED: Standing.CANCELED}


@dataclass(frozen=True)
class Report:
    """How a job stands: progress is 0..1 where the service tells it, times are seconds; `wait` is what it asks for."""

    phase: Phase
    job_id: str = ""
    message: str = ""
    progress: float | None = None
    elapsed: float = 0.0
    wait: float | None = None


@dataclass(frozen=True)
class Settings:
    """What tests and special cases change. `deadline` (seconds) stands in for the endpoint's own, `environ` for the
    process's; bytes and pixels limit one result."""

    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=Clock)
    resolver: Resolver = resolve
    result_bytes: int = 64 * 2**20
    result_pixels: int = MOST_PIXELS
    deadline: float | None = None
    environ: Mapping[str, str] | None = None


class Pursuit:
    """Everything that one run needs to act; `seconds` and `notes` gather what `info` tells.

    `asked` is how many pictures are paid for, None where that is not known.
    """

    def __init__(
        self,
        endpoint: Endpoint[Any],
        credentials: Credentials,
        journal: Journal,
        on_state: Callable[[Report], None] | None = None,
        should_stop: Stop = never,
        settings: Settings | None = None,
        host_secrets: Sequence[Secret] = (),
    ) -> None:
        settings = settings or Settings()
        self.endpoint, self.credentials, self.journal = endpoint, credentials, journal
        self.clock = settings.clock
        self.base_url = service_url(endpoint, settings.environ)
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.labels: Mapping[str, str] = {}
        self.asked: int | None = None
        self.settings = settings
        self.bell: Bell | None = None
        self._secrets = credentials.reveal()
        self._host_secrets = tuple(secret.reveal() for secret in host_secrets)
        self._on_state, self._should_stop = on_state, should_stop
        self._stop: BaseException | None = None
        self._given_up = False
        self._began = self._beaten = self._reported = self.clock.monotonic()
        self._last = Report(Phase.QUEUED)
        self.transport = self._transport(self.check_stop)

    def check_stop(self) -> None:
        """The caller's stop-callback, noting what it raised, and whether the job is to be canceled."""
        try:
            self._should_stop()
        except BaseException as reason:
            self._stop, self._given_up = reason, not isinstance(reason, Leave)
            raise

    def clean(self, value: Any) -> Any:
        """Plain JSON data as it may be told: without secrets and what opens a link, and with labels for images."""
        value = unsigned(show(value, self.labels))
        for secrets in (self._secrets, self._host_secrets):
            value = redact_json(value, secrets)
        return value

    @contextmanager
    def redacted(self) -> Iterator[None]:
        """Every error of the pack that leaves is as it may be told, whatever a service echoed."""
        try:
            yield
        except InvalidRequest:
            raise
        except ControlStackError as error:
            error.args = (self.clean(str(error)),)
            raise error from None

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds inside to `seconds[name]`."""
        began = self.clock.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock.monotonic() - began

    def report(self, state: JobState | None = None, message: str = "", wait: float | None = None) -> None:
        """Tell the listener; without a state, the last one with another time and message."""
        self._reported = self.clock.monotonic()
        if state is not None:
            self._last = Report(state.phase, state.job_id, self.clean(state.message), state.progress)
        if self._on_state is not None:
            said = self.clean(message) or self._last.message
            self._on_state(replace(self._last, message=said, elapsed=self._reported - self._began, wait=wait))

    def submit(self, number: int, call: Call) -> JobState:
        """Send the paid call; the job that came of it. The journal knows the outcome, whatever it is."""
        pay = partial(
            self.transport.pay,
            call,
            patience=self._deadline,
            late=partial(self._settle_late, number),
            heartbeat=partial(self._beat, number),
            busy=self._busy,
        )
        self.report(JobState(Phase.QUEUED, message=f"sending to {self.endpoint.target}"))
        try:
            return self._settle(number, pay)
        except Abandoned as abandoned:
            with suppress(JournalUnusable):
                self.journal.renew(number, self.settings.limits.paid_read)
            then = "the job canceled" if self._given_up else "written down for the next run"
            self._say_stopped(f"The request was on its way; its answer is awaited in the background and {then}.")
            self._on_state = None  # what follows happens in the background
            raise abandoned.reason from None

    def wait_for_submission(self, entry: Entry) -> Entry | None:
        """What became of a job that another thread or process is submitting; None where it was not sent."""
        found: Entry | None = entry
        while found is not None and found.standing is Standing.SUBMITTING:
            if found.lease < self.clock.wall():
                cut_off = "An earlier run of this request was cut off while it was being sent: whether it was taken and"
                message = f"{cut_off} charged is not known."
                self.journal.record(found.number, Standing.UNKNOWN, message=message, only_after=Standing.SUBMITTING)
            else:
                self.report(message="waiting for an equal request that is being sent")
                pause(0.25, self.clock, self.check_stop)
            found = self.journal.get(found.number)
        return found

    def ask(self, number: int | None, job_id: str) -> JobState:
        """Where the job stands now.

        Raises JobUnfinished where the service could not be asked, ServiceError where it refused to tell. Neither ends
        the job: whoever is mistaken there asks again and does not pay again.
        """
        try:
            answer = self.transport.ask(
                self.endpoint.poll(job_id), patience=min(_POLL_PATIENCE, self._deadline), settled=self._is_final
            )
        except (ServiceUnreachable, ServiceError) as failure:  # a redirect, say: no word from the service itself
            raise JobUnfinished(f"{failure} {self._later(number, job_id)}") from None
        if worth_repeating(answer.status) and not self._is_final(answer):
            keeps = f"{self.transport.host} keeps answering HTTP {answer.status}."
            raise JobUnfinished(f"{keeps} {self._later(number, job_id)}")
        try:
            return self._read_poll(answer)
        except (OutcomeUnknown, RateLimited) as failure:
            raise JobUnfinished(f"{failure} {self._later(number, job_id)}") from None
        except ServiceError as error:
            told = f"That tells nothing of job {job_id}{' itself' if number is None else ', which is paid for'}."
            raise ServiceError(f"{error} {told} Once it is put right, {self._again(number, job_id)}") from None

    def follow(self, number: int | None, known: JobState, *, fresh: bool = False, cancel: bool = True) -> JobState:
        """Wait for the end of a job: done, with what was known merged in, or canceled.

        Raises ServiceError where it failed, JobUnfinished at the deadline. Stopped by the caller, it cancels the job.
        """
        pace = self.endpoint.pace
        end = self.clock.monotonic() + self._deadline
        interval = pace.shortest
        wait = (pace.first if known.wait is None else known.wait) if fresh else 0.0
        try:
            while not known.phase.final:
                self.report(known, wait=known.wait)
                pause(max(0.0, min(wait, end - self.clock.monotonic())), self.clock, self._tick, self._is_rung)
                state = self.ask(number, known.job_id)
                known = merged(known, state)
                if not known.phase.final and self.clock.monotonic() >= end:
                    said = f" ({known.message})" if known.message else ""
                    standing = f"is still {known.phase.value} after {self._deadline:.0f} s{said}"
                    later = self._later(number, known.job_id)
                    raise JobUnfinished(f"The job at {self.endpoint.target} {standing}. {later}")
                wait = max(interval, state.wait or 0.0)
                interval = min(interval * 1.5, pace.longest)
        except BaseException:
            if self._given_up and cancel:
                self.cancel(number, known.job_id)
            raise
        self.report(known)
        return self._concluded(number, known)

    def cancel(self, number: int | None, job_id: str) -> None:
        """Ask the service to cancel, in the background, and say so."""
        call = self.endpoint.cancel(job_id)
        if call is None:
            self._say_stopped(f"{self.endpoint.target} cannot cancel; job {job_id} goes on and can be fetched later.")
            return
        if number is not None:
            with suppress(JournalUnusable):
                self.journal.ask_cancel(number)

        def ask() -> None:
            with suppress(ControlStackError):
                self._transport(never).ask(call, patience=_CANCEL_PATIENCE)

        threading.Thread(target=ask, name="controlstack cancel", daemon=True).start()
        self._say_stopped(f"{self.endpoint.target} was asked to cancel job {job_id}; it may end all the same.")

    @property
    def _deadline(self) -> float:
        return self.endpoint.pace.deadline if self.settings.deadline is None else self.settings.deadline

    def _transport(self, should_stop: Stop) -> Transport:
        return Transport(
            self.base_url,
            lambda call: self.endpoint.authorize(call, self.credentials.secrets),
            told=self.clean,
            should_stop=should_stop,
            notify=lambda text: self.report(message=text),
            limits=self.settings.limits,
            clock=self.clock,
        )

    def _settle(self, number: int, outcome: Callable[[], Answer]) -> JobState:
        """What the answer to the paid call means, written down."""
        target = self.endpoint.target
        try:
            answer = outcome()
            if answer.status in _UNTOLD or (answer.json is None and answer.status not in range(400, 500)):
                said = " ".join(answer.text.split())[:200] or "nothing"
                what = f"{target} answered HTTP {answer.status} with nothing to read a job from ({said})"
                raise OutcomeUnknown(f"{what}. The request may have been taken and charged.")
            state = self._read_submit(answer)
            if not state.phase.final and not state.job_id:
                raise OutcomeUnknown(f"{target} took the request without naming a job.")
        except OutcomeUnknown as error:
            self.note(number, Standing.UNKNOWN, message=str(error), only_after=Standing.SUBMITTING)
            look = f"It was not sent again: look into the job list or the bill of {target}; force new sends it again."
            raise OutcomeUnknown(f"{error} {look}") from None
        except (ServiceUnreachable, RateLimited):
            self.journal.forget(number)
            raise
        except ServiceError as error:
            self.note(number, Standing.FAILED, message=str(error))
            raise
        except Abandoned:
            raise
        except BaseException as error:
            if error is self._stop:  # between two attempts that were refused; one under way is Abandoned
                self.journal.forget(number)
            else:
                what = f"The request was cut off by an error in this program ({type(error).__name__})."
                message = f"{what} It may have been taken and charged."
                self.note(number, Standing.UNKNOWN, message=message, only_after=Standing.SUBMITTING)
            raise
        if not state.phase.final:
            self.note(
                number, Standing.RUNNING, job_id=state.job_id, metadata=self._kept(state.metadata), cost=state.cost
            )
            return state
        return self._concluded(number, state)

    def _read_submit(self, answer: Answer) -> JobState:
        return self._read(self.endpoint.read_submit, answer)

    def _read_poll(self, answer: Answer) -> JobState:
        return self._read(self.endpoint.read_poll, answer)

    def _read(self, reader: Callable[[Answer], JobState], answer: Answer) -> JobState:
        """What the endpoint reads in an answer; OutcomeUnknown where the answer is stranger than it knows."""
        try:
            return reader(answer)
        except ControlStackError:
            raise
        except Exception as error:
            what = f"{self.endpoint.target} answered HTTP {answer.status} in a way that cannot be read"
            raise OutcomeUnknown(f"{what} ({type(error).__name__}).") from None

    def _settle_late(self, number: int, outcome: Callable[[], Answer]) -> None:
        """The same in the background, for a caller that has gone: nobody waits for the job, so it is canceled."""
        try:
            state = self._settle(number, outcome)
        except ControlStackError as error:
            logging.getLogger(__name__).info("%s", self.clean(str(error)))
            return
        except Exception as error:  # nobody waits for it: the journal knows, and here it is told
            said = self.clean(f"{type(error).__name__}: {error}")
            logging.getLogger(__name__).error("The answer to a paid request could not be read (%s).", said)
            return
        if not state.phase.final and self._given_up:
            self.cancel(number, state.job_id)

    def _concluded(self, number: int | None, state: JobState) -> JobState:
        # Links stay whole, for the next run fetches by them: signed ones, and such as have a user's choice of an image
        # host's key in them by chance. The service's own key is issued and long.
        kept = redact_json(state.outputs, self._secrets)
        self.note(
            number,
            _STANDINGS[state.phase],
            job_id=state.job_id,
            outputs=kept,
            metadata=self._kept(state.metadata),
            message=self.clean(state.message),
            cost=state.cost,
        )
        if state.phase is Phase.FAILED:
            said = self.clean(state.message).rstrip(".") or "no reason given"
            raise ServiceError(f"{self.endpoint.target} could not run job {state.job_id or '(without an id)'}: {said}.")
        return state

    def _is_final(self, answer: Answer) -> bool:
        """Whether a poll's answer ends the asking, whatever its HTTP status (a service may fail a job with a 500)."""
        try:
            return answer.json is not None and self._read_poll(answer).phase.final
        except ControlStackError as error:
            return isinstance(error, ServiceError) and not isinstance(error, RateLimited)

    def _busy(self, answer: Answer) -> RateLimited | None:
        try:
            self._read_submit(answer)
        except ControlStackError as error:
            return error if isinstance(error, RateLimited) else None
        return None

    def note(self, number: int | None, standing: Standing, **values: Any) -> None:
        """Write down what happened; once a job is paid for, a broken journal must not lose it."""
        if number is None:
            return
        if values.get("message"):
            values["message"] = self.clean(values["message"])
        try:
            self.journal.record(number, standing, **values)
        except JournalUnusable as error:
            logging.getLogger(__name__).warning("%s", error)
            self.notes.append(f"job {values.get('job_id', '')} is not in the journal: {error}")

    def _kept(self, metadata: Mapping[str, Any]) -> Any:
        return shortened(self.clean(metadata))

    def _beat(self, number: int) -> None:
        now = self.clock.monotonic()
        if now - self._beaten >= _HEARTBEAT_SECONDS:
            self._beaten = now
            with suppress(JournalUnusable):
                self.journal.renew(number)
            self.report()

    def _is_rung(self) -> bool:
        return self.bell is not None and self.bell.heard()

    def _tick(self) -> None:
        self.check_stop()
        if self.clock.monotonic() - self._reported >= _REPORT_SECONDS:
            self.report()

    def _later(self, number: int | None, job_id: str) -> str:
        lost = "It is paid for and not lost. " if number is not None else ""
        return f"{lost}To go on waiting, {self._again(number, job_id)}"

    def _again(self, number: int | None, job_id: str) -> str:
        """What asks again and costs nothing. The same request would, where no journal knows that it was paid for."""
        queue = "queue the same request again with force_new off, or " if number is not None else ""
        account = f"service {self.endpoint.target}, profile {self.credentials.profile}"
        return f"{queue}use Fetch Job with {account}, job id {job_id}."

    def _say_stopped(self, text: str) -> None:
        text = f"Interrupted. {text}"
        logging.getLogger(__name__).info("%s", self.clean(text))
        self.report(message=text)


def merged(known: JobState, state: JobState) -> JobState:
    """The later state with what only the earlier one told, such as the seed (docs/services/modelslab.md 4)."""
    return replace(
        state,
        job_id=known.job_id,
        metadata={**known.metadata, **state.metadata},
        cost=known.cost if state.cost is None else state.cost,
    )
