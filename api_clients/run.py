"""From a request to its pictures: validate, carry, pay once, wait, fetch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..core.errors import (
    InvalidRequest,
    JobUnfinished,
    OutcomeUnknown,
    Problem,
    ResultGone,
    ServiceError,
)
from ..core.request import GenerationRequest
from .concurrency import MOST_JOBS, one_of
from .endpoint import Endpoint, JobState, Phase
from .image_host import ImageHost
from .job import Pursuit, Report, Settings, merged
from .journal import Entry, Journal, Order, Standing, fingerprint
from .messages import Call
from .results import JobResult, finished, haul, info_of, presented
from .store import Credentials
from .upload import Carried, Parcel, carriage_problems, carry, pack
from .waiting import Stop, never
from .webhook import SHOWN, hang

_STALE_SECONDS = 4 * 3600.0  # Qolaba calls a lost job pending without end (docs/services/qolaba.md 4)


def request_problems(
    endpoint: Endpoint[Any], request: GenerationRequest, options: Any, *, host_is_set: bool
) -> list[Problem]:
    """Everything that keeps the request from being sent. Needs neither key nor network."""
    problems = endpoint.check(request, options)
    if problems:  # an endpoint names its images for a valid request only
        return problems
    return carriage_problems(endpoint, endpoint.image_slots(request, options), host_is_set)


def run_job(
    endpoint: Endpoint[Any],
    request: GenerationRequest,
    options: Any,
    *,
    credentials: Credentials,
    journal: Journal,
    host: ImageHost | None = None,
    force_new: bool = False,
    async_only: bool = False,
    on_state: Callable[[Report], None] | None = None,
    should_stop: Stop = never,
    most_jobs: int = MOST_JOBS,
    settings: Settings | None = None,
) -> JobResult:
    """Run a request at a service. Blocks: call it in a worker thread.

    The same request finds the job it has already paid for, unless `force_new`. `async_only` returns when the service
    has the job. `on_state` is told how it goes, in this thread. What `should_stop` raises comes out within a second,
    and the job is canceled where the service can. `most_jobs` is how many of this account run at once.

    Raises InvalidRequest, ServiceUnreachable (nothing was charged), OutcomeUnknown, ServiceError, JobUnfinished,
    ResultRefused (ResultGone where a paid result is not there any more) and JournalUnusable. No message has secrets in
    it.
    """
    if problems := request_problems(endpoint, request, options, host_is_set=host is not None):
        raise InvalidRequest(endpoint.target, problems)
    endpoint = endpoint.bound(options)
    hidden = host.secrets if host else ()
    pursuit = Pursuit(endpoint, credentials, journal, on_state, should_stop, settings, hidden)
    pursuit.asked = request.batch_size
    parcels = pack(endpoint, request, options)
    with (
        pursuit.redacted(),
        hang(pursuit.settings.environ) as pursuit.bell,
        one_of(credentials.service, credentials.profile, most_jobs, pursuit.check_stop),
    ):
        order, is_paid = _order(pursuit, parcels, request, options)
        found: Entry | None = None
        carried: Carried | None = None
        while True:
            pursuit.check_stop()
            if is_paid and not force_new:
                found = journal.current(order.fingerprint)
                if found is not None and (result := _resume(pursuit, found, async_only)) is not None:
                    return result
            if carried is None:
                carried = _carried(pursuit, parcels, request, options, host)
            payload = endpoint.build_payload(request, options, carried.texts)
            if pursuit.bell is not None and not async_only:
                payload = endpoint.with_webhook(payload, pursuit.bell.address)
            call = endpoint.submit(payload, options)
            body = pursuit.clean({**payload, **call.query})
            if not is_paid:
                return _estimate(pursuit, call, body)
            before = found.number if found else None
            number = journal.claim(replace(order, body=body), instead_of=before, force=force_new)
            if number is not None:  # else an equal request came first: go on with that one
                return _buy(pursuit, number, call, body, async_only)


def fetch_job(
    endpoint: Endpoint[Any],
    job_id: str,
    *,
    credentials: Credentials,
    journal: Journal,
    on_state: Callable[[Report], None] | None = None,
    should_stop: Stop = never,
    settings: Settings | None = None,
) -> JobResult:
    """The pictures of a job by its id, waiting for it like `run_job`; it need not stand in this journal. Costs nothing.

    Raises the same errors. An interrupt does not cancel the job.
    """
    job_id = job_id.strip()
    if not job_id:
        raise InvalidRequest(endpoint.target, [Problem("job_id", "empty", "it names the job", "Copy it from info.")])
    entry = journal.find(credentials.service, credentials.profile, job_id)
    if entry:
        endpoint = endpoint.bound_again(entry.order.body)
    pursuit = Pursuit(endpoint, credentials, journal, on_state, should_stop, settings)
    with pursuit.redacted():
        if entry and entry.standing is Standing.DONE:
            return _fetch_again(pursuit, entry)
        number, body = (entry.number, entry.order.body) if entry else (None, None)
        known = _known(entry) if entry else JobState(Phase.QUEUED, job_id)
        with pursuit.timed("wait"):
            state = pursuit.follow(number, replace(known, phase=Phase.QUEUED, outputs=()), cancel=False)
        return finished(pursuit, number, state, body, resumed=True)


def _order(pursuit: Pursuit, parcels: Sequence[Parcel], request: GenerationRequest, options: Any) -> tuple[Order, bool]:
    """What the journal knows the request by, and whether it costs anything; nothing is encoded or sent for it."""
    endpoint, account = pursuit.endpoint, pursuit.credentials
    payload = endpoint.build_payload(request, options, {parcel.slot.key: parcel.stand_in for parcel in parcels})
    call = endpoint.submit(payload, options)
    sent = {"path": call.path, "query": dict(call.query), "body": payload}
    name = fingerprint(endpoint.target, pursuit.base_url, account.profile, sent, request.seed)
    return Order(name, account.service, endpoint.target, pursuit.base_url, account.profile), call.paid


def _carried(
    pursuit: Pursuit, parcels: Sequence[Parcel], request: GenerationRequest, options: Any, host: ImageHost | None
) -> Carried:
    with pursuit.timed("upload"):
        carried = carry(pursuit.endpoint, parcels, pursuit.transport, host, pursuit.check_stop)
    bell = {pursuit.bell.address: SHOWN} if pursuit.bell else {}
    pursuit.labels = {**carried.labels, **bell}
    pursuit.notes += [*pursuit.endpoint.notes(request, options), *carried.notes]
    return carried


def _buy(pursuit: Pursuit, number: int, call: Call, body: Any, async_only: bool) -> JobResult:
    with pursuit.timed("submit"):
        state = pursuit.submit(number, call)
    if async_only and state.job_id and state.phase is not Phase.CANCELED:
        return JobResult([], info_of(pursuit, state, body), state.job_id)
    if not state.phase.final:
        with pursuit.timed("wait"):
            state = pursuit.follow(number, state, fresh=True)
    return finished(pursuit, number, state, body)


def _estimate(pursuit: Pursuit, call: Call, body: Any) -> JobResult:
    """A submission that costs nothing, such as a dry run: its answer is the result."""
    with pursuit.timed("submit"):
        state = pursuit.endpoint.read_estimate(pursuit.transport.ask(call))
    if state.job_id:
        pursuit.notes.append(f"instead of estimating, the service started job {state.job_id}: fetch it with Fetch Job")
    return JobResult([], {**info_of(pursuit, state, body), "estimate": not state.job_id}, state.job_id)


def _resume(pursuit: Pursuit, found: Entry, async_only: bool) -> JobResult | None:
    """What an earlier run of the same request comes to, or None where the request is to be sent (again)."""
    entry = pursuit.wait_for_submission(found)
    if entry is None or entry.standing in (Standing.FAILED, Standing.CANCELED):
        return None
    if entry.standing is Standing.UNKNOWN:
        raise OutcomeUnknown(f"{entry.message} That was earlier; {_buy_again(pursuit)}{_bought(pursuit, entry)}")
    if entry.standing is Standing.DONE:
        return _fetch_again(pursuit, entry)
    known, body = _known(entry), entry.order.body
    if async_only:
        return JobResult([], info_of(pursuit, known, body, resumed=True), entry.job_id)
    if pursuit.clock.wall() - entry.created > _STALE_SECONDS:
        state = _asked_late(pursuit, entry)
        if not state.phase.final:
            hours = (pursuit.clock.wall() - entry.created) / 3600
            raise JobUnfinished(
                f"Job {entry.job_id} of this request is still {state.phase.value} at {pursuit.endpoint.target} after "
                f"{hours:.0f} hours: it seems lost, but {_buy_again(pursuit)}"
            )
    with pursuit.timed("wait"):
        state = pursuit.follow(entry.number, known)
    if state.phase is Phase.CANCELED and entry.cancel_asked:
        pursuit.notes.append(f"job {entry.job_id} of the same request was canceled on request: this is another one")
        return None
    return finished(pursuit, entry.number, state, body, resumed=True)


def _fetch_again(pursuit: Pursuit, entry: Entry) -> JobResult:
    """The pictures of a job that was done before, by the known links, or new ones where some of these have expired.

    Raises ResultGone where there are none any more, and what a service raises that does not tell: in no case is the
    job bought again.
    """
    known, body = _known(entry), entry.order.body
    found, said = haul(pursuit, known), ""
    if found.gone and known.job_id:
        try:
            state = merged(known, _asked_again(pursuit, known.job_id))
        except (JobUnfinished, ServiceError):
            if not found.pictures:
                raise
        else:
            said = f" ({state.message})" if state.message else ""
            if state.phase is Phase.DONE and state.outputs not in ((), known.outputs):
                fresh = haul(pursuit, state)
                if len(fresh.pictures) >= len(found.pictures):
                    known, found = state, fresh
    if not found.lost:
        return presented(pursuit, known, found, body, resumed=True)
    raise ResultGone(
        f"Job {known.job_id or '(without an id)'} of this request was done and paid for, but its results are gone: "
        f"{pursuit.endpoint.target} names no address that has them{said}; {_buy_again(pursuit)}"
    )


def _asked_again(pursuit: Pursuit, job_id: str) -> JobState:
    """Where a job stands that was done before; the journal keeps that, whatever the service says now."""
    try:
        return pursuit.ask(None, job_id)
    except ServiceError as error:
        raise ServiceError(
            f"{error} Its results are not where they were, and no new address was told; {_buy_again(pursuit)}"
        ) from None


def _asked_late(pursuit: Pursuit, entry: Entry) -> JobState:
    """Where a job stands that should have ended long ago; a refusal to tell may be all that is left of it."""
    try:
        return pursuit.ask(entry.number, entry.job_id)
    except ServiceError as error:
        raise ServiceError(f"{error} After that long it may be lost; {_buy_again(pursuit)}") from None


def _buy_again(pursuit: Pursuit) -> str:
    look = f"Look into the job list or the bill of {pursuit.endpoint.target}"
    return f"nothing was sent now. {look}; to send and pay for the request again, switch on force new."


def _bought(pursuit: Pursuit, unknown: Entry) -> str:
    """Where the pictures are that a forced run, of which nobody knows what came, would else hide."""
    before = pursuit.journal.bought(unknown.order.fingerprint)
    if before is None:
        return ""
    return (
        f" An earlier job of this request is paid for and not lost: Fetch Job brings it at no cost, with service "
        f"{pursuit.endpoint.target}, profile {pursuit.credentials.profile}, job id {before.job_id}."
    )


def _known(entry: Entry) -> JobState:
    phase = Phase.DONE if entry.standing is Standing.DONE else Phase.RUNNING
    return JobState(phase, entry.job_id, entry.outputs, entry.message, metadata=entry.metadata, cost=entry.cost)
