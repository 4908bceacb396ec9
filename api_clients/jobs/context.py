"""What a job needs to run: who pays, whom to tell, the connection to the service, and what may be shown."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ...core.errors import ControlStackError, InvalidRequest
from ..credentials.redaction import label_images, redact_json, remove_signatures
from ..credentials.store import Credentials
from ..http.download import Resolver, resolve
from ..http.image_host import ImageHost
from ..http.images import MAX_PIXELS
from ..http.transport import Limits, Transport, service_url
from ..http.waiting import Clock, Detached, StopCheck, never_stop
from ..services.endpoint import Endpoint, JobState, Phase
from .concurrency import MAX_JOBS
from .journal import Journal
from .webhook import Webhook


@dataclass(frozen=True)
class Report:
    """The progress of a job, for its caller.

    `progress` is 0..1, None if the service does not report it. `elapsed` is in seconds. `wait` is the number of seconds
    that the service expects the job to take, None if it does not say.
    """

    phase: Phase
    job_id: str = ""
    message: str = ""
    progress: float | None = None
    elapsed: float = 0.0
    wait: float | None = None


@dataclass(frozen=True)
class Account:
    """Who pays for a job, and where the purchase is recorded. At most `max_jobs` jobs of an account run at once."""

    credentials: Credentials
    journal: Journal
    image_host: ImageHost | None = None
    max_jobs: int = MAX_JOBS


@dataclass(frozen=True)
class Caller:
    """Who waits for a job.

    `on_report` is called in the thread that runs the job. `should_stop` is called several times a second; what it
    raises ends the run within a second and cancels the job, except Detached, which leaves the job running.
    """

    on_report: Callable[[Report], None] | None = None
    should_stop: StopCheck = never_stop


@dataclass(frozen=True)
class Settings:
    """Limits and surroundings, which tests change.

    `result_bytes` and `result_pixels` limit one result. `deadline`, in seconds, replaces the endpoint's own, and
    `environ` the environment of the process.
    """

    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=Clock)
    resolver: Resolver = resolve
    result_bytes: int = 64 * 2**20
    result_pixels: int = MAX_PIXELS
    deadline: float | None = None
    environ: Mapping[str, str] | None = None


class Redactor:
    """Removes from texts and JSON data what must not be shown: secrets, link signatures and images."""

    def __init__(self, account: Account) -> None:
        host = account.image_host
        self._service = account.credentials.reveal()
        self._host = tuple(secret.reveal() for secret in host.secrets) if host else ()
        self._labels: dict[str, str] = {}

    def add_labels(self, labels: Mapping[str, str]) -> None:
        """Show these labels instead of the texts they stand for, from now on."""
        self._labels |= labels

    def __call__(self, value: Any) -> Any:
        """The text or JSON data as it may be shown."""
        value = remove_signatures(label_images(value, self._labels))
        for secrets in (self._service, self._host):
            value = redact_json(value, secrets)
        return value

    def links(self, outputs: Sequence[str]) -> list[str]:
        """Links to results as they may be stored.

        They keep their signatures, because a later run downloads by them, and text that merely equals a key of the
        image host, which a user may have chosen short and common. A service's own key is issued and long.
        """
        return redact_json(outputs, self._service)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Redact the message of every error of the pack that leaves the block."""
        try:
            yield
        except InvalidRequest:
            raise
        except ControlStackError as error:
            error.args = (self(str(error)),)
            raise error from None


class StopSignal:
    """Asks the caller whether to stop, and remembers the answer."""

    def __init__(self, should_stop: StopCheck) -> None:
        self._should_stop = should_stop
        self.reason: BaseException | None = None

    def check(self) -> None:
        """Raise what the caller's stop check raises."""
        try:
            self._should_stop()
        except BaseException as reason:
            self.reason = reason
            raise

    @property
    def cancels(self) -> bool:
        """Whether the caller stopped and no longer wants the job."""
        return self.reason is not None and not isinstance(self.reason, Detached)


class Reporter:
    """Tells the caller how the job goes."""

    def __init__(self, on_report: Callable[[Report], None] | None, clock: Clock, redact: Redactor) -> None:
        self._on_report, self._clock, self._redact = on_report, clock, redact
        self._began = self._reported = clock.monotonic()
        self._last = Report(Phase.QUEUED)

    def __call__(self, state: JobState | None = None, message: str = "", wait: float | None = None) -> None:
        """Report a state. Without one, repeat the last report with the time that has passed and another message."""
        self._reported = self._clock.monotonic()
        if state is not None:
            self._last = Report(state.phase, state.job_id, self._redact(state.message), state.progress)
        if self._on_report is not None:
            text = self._redact(message) or self._last.message
            self._on_report(replace(self._last, message=text, elapsed=self._reported - self._began, wait=wait))

    def repeat_after(self, seconds: float) -> None:
        """Repeat the last report if it is older than this."""
        if self._clock.monotonic() - self._reported >= seconds:
            self()

    def close(self) -> None:
        """Report nothing more, because the caller has gone."""
        self._on_report = None


class JobContext:
    """Everything that the steps of one run share. `seconds` and `notes` collect what the result's info says."""

    def __init__(
        self,
        endpoint: Endpoint[Any],
        account: Account,
        caller: Caller,
        settings: Settings,
        redact: Redactor,
        webhook: Webhook | None = None,
    ) -> None:
        self.endpoint, self.account, self.settings = endpoint, account, settings
        self.redact, self.webhook = redact, webhook
        self.journal, self.clock = account.journal, settings.clock
        self.base_url = service_url(endpoint.base_url, endpoint.url_variable, settings.environ)
        self.deadline = endpoint.pace.deadline if settings.deadline is None else settings.deadline
        self.stop = StopSignal(caller.should_stop)
        self.report = Reporter(caller.on_report, self.clock, redact)
        self.transport = self.new_transport(self.stop.check)
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    def new_transport(self, should_stop: StopCheck) -> Transport:
        """A connection to the service with the account's credentials, for one thread."""
        secrets = self.account.credentials.secrets
        return Transport(
            self.base_url,
            lambda call: self.endpoint.authorize(call, secrets),
            redact=self.redact,
            should_stop=should_stop,
            notify=lambda text: self.report(message=text),
            limits=self.settings.limits,
            clock=self.clock,
        )

    @contextmanager
    def timed(self, name: str) -> Generator[None]:
        """Add the duration of the block to `seconds[name]`."""
        began = self.clock.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock.monotonic() - began
