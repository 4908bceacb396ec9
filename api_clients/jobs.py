"""From a request to its pictures: validate, carry, pay once, wait, fetch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import (
    InvalidRequest,
    JobUnfinished,
    OutcomeUnknown,
    Problem,
    ResultGone,
    ResultRefused,
    ServiceError,
    ServiceUnreachable,
)
from ..core.request import GenerationRequest
from .carriage import Carried, Parcel, carriage_problems, carry, pack, tidy
from .credentials import Credentials
from .doorbell import SHOWN, hang
from .download import Downloads, fetch_results
from .endpoint import Call, Endpoint, JobState, Phase
from .image_host import ImageHost
from .images import decode, gather, is_flat
from .in_flight import MOST_JOBS, one_of
from .journal import Entry, Journal, Order, Standing, fingerprint
from .pursuit import Pursuit, Report, Settings, merged
from .waiting import Stop, never

if TYPE_CHECKING:
    from torch import Tensor

_STALE_SECONDS = 4 * 3600.0  # no job takes that long; Qolaba calls a lost one pending forever (qolaba.md 4)


@dataclass(frozen=True, eq=False, repr=False)
class JobResult:
    """Pictures and what is known about them.

    `images` is one batch [n, h, w, 3], or one [1, h, w, 3] per picture where sizes differ; empty for a job that is only
    started (`async_only`) and for an estimate. `info` is plain JSON data without secrets.
    """

    images: list[Tensor]
    info: dict[str, Any]
    job_id: str = ""


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
    pursuit = Pursuit(endpoint, credentials, journal, on_state, should_stop, settings)
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
            call, body = endpoint.submit(payload, options), pursuit.clean(payload)
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
    pursuit = Pursuit(endpoint, credentials, journal, on_state, should_stop, settings)
    with pursuit.redacted():
        entry = journal.find(credentials.service, credentials.profile, job_id)
        # What was done stays done: a service that knows it no longer must not make the next run buy it again.
        number = entry.number if entry and entry.standing is not Standing.DONE else None
        body = entry.order.body if entry else None
        known = _known(entry) if entry else JobState(Phase.QUEUED, job_id)
        if known.outputs:
            try:
                return _result(pursuit, number, known, body, resumed=True)
            except ResultGone:
                pass  # the service may give a new link
        with pursuit.timed("wait"):
            state = pursuit.follow(number, replace(known, phase=Phase.QUEUED, outputs=()), cancel=False)
        return _result(pursuit, number, state, body, resumed=True)


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
        return JobResult([], _info(pursuit, state, body), state.job_id)
    if not state.phase.final:
        with pursuit.timed("wait"):
            state = pursuit.follow(number, state, fresh=True)
    return _result(pursuit, number, state, body)


def _estimate(pursuit: Pursuit, call: Call, body: Any) -> JobResult:
    """A submission that costs nothing, such as a dry run: its answer is the result."""
    with pursuit.timed("submit"):
        state = pursuit.endpoint.read_estimate(pursuit.transport.ask(call))
    if state.job_id:
        pursuit.notes.append(f"instead of estimating, the service started job {state.job_id}: fetch it with Fetch Job")
    return JobResult([], {**_info(pursuit, state, body), "estimate": not state.job_id}, state.job_id)


def _resume(pursuit: Pursuit, found: Entry, async_only: bool) -> JobResult | None:
    """What an earlier run of the same request comes to, or None where the request is to be sent (again)."""
    entry = pursuit.wait_for_submission(found)
    if entry is None or entry.standing in (Standing.FAILED, Standing.CANCELED):
        return None
    if entry.standing is Standing.UNKNOWN:
        raise OutcomeUnknown(f"{entry.message} That was earlier; {_buy_again(pursuit)}")
    known, body = _known(entry), entry.order.body
    if entry.standing is Standing.DONE:
        return _fetch_again(pursuit, entry, known)
    if async_only:
        return JobResult([], _info(pursuit, known, body, resumed=True), entry.job_id)
    if pursuit.clock.wall() - entry.created > _STALE_SECONDS:
        state = pursuit.ask(entry.number, entry.job_id)
        if not state.phase.final:
            hours = (pursuit.clock.wall() - entry.created) / 3600
            raise JobUnfinished(
                f"Job {entry.job_id} of this request is still {state.phase.value} at {pursuit.endpoint.target} after "
                f"{hours:.0f} hours: it seems lost, but {_buy_again(pursuit)}"
            )
    with pursuit.timed("wait"):
        state = pursuit.follow(entry.number, known)
    if state.phase is Phase.CANCELED and entry.cancel_asked:
        note = f"job {entry.job_id} of the same request was canceled on request; the request was sent anew"
        pursuit.notes.append(note)
        return None
    return _result(pursuit, entry.number, state, body, resumed=True)


def _fetch_again(pursuit: Pursuit, entry: Entry, known: JobState) -> JobResult:
    """The pictures of a job that was done before, by the known links or new ones.

    Raises ResultGone where there are none any more, and what a service raises that does not tell: in no case is the
    job bought again.
    """
    if known.outputs:
        with suppress(ResultGone):
            return _result(pursuit, entry.number, known, entry.order.body, resumed=True)
    if entry.job_id:
        state = merged(known, _asked_again(pursuit, entry.job_id))
        if state.phase is Phase.DONE and state.outputs and state.outputs != known.outputs:
            with suppress(ResultGone):
                return _result(pursuit, entry.number, state, entry.order.body, resumed=True)
    raise ResultGone(
        f"Job {entry.job_id or '(without an id)'} of this request was done and paid for, but its results are gone: "
        f"{pursuit.endpoint.target} names no address that has them; {_buy_again(pursuit)}"
    )


def _asked_again(pursuit: Pursuit, job_id: str) -> JobState:
    """Where a job stands that was done before; the journal keeps that, whatever the service says now."""
    try:
        return pursuit.ask(None, job_id)
    except ServiceError as error:
        raise ServiceError(
            f"{error} Its results are not where they were, and no new address was told; {_buy_again(pursuit)}"
        ) from None


def _buy_again(pursuit: Pursuit) -> str:
    look = f"Look into the job list or the bill of {pursuit.endpoint.target}"
    return f"nothing was sent now. {look}; to send and pay for the request again, switch on force new."


def _result(pursuit: Pursuit, number: int | None, state: JobState, body: Any, resumed: bool = False) -> JobResult:
    """Fetch the pictures of a job that has ended. Raises ServiceError where it ended without any."""
    if state.phase is not Phase.DONE:
        raise ServiceError(f"{pursuit.endpoint.target} canceled job {state.job_id}. Queue the request to send it anew.")
    images = _collect(pursuit, number, state)
    for index, image in enumerate(images, 1):
        if is_flat(image):
            pursuit.notes.append(f"picture {index} has a single colour: the service may have replaced it by a filter")
    gathered = gather(images)
    if len(gathered) > 1:
        sizes = ", ".join(f"{image.shape[2]}x{image.shape[1]}" for image in gathered)
        pursuit.notes.append(f"the pictures have different sizes ({sizes}) and come as a list")
    return JobResult(gathered, _info(pursuit, state, body, resumed), state.job_id)


def _collect(pursuit: Pursuit, number: int | None, state: JobState) -> list[Tensor]:
    """Every picture of a done job, each [1, h, w, 3]."""
    if not state.outputs:
        said = f": {state.message}" if state.message else ", often because a filter removed it"
        pursuit.note(number, Standing.FAILED, job_id=state.job_id, message="finished without a picture")
        raise ServiceError(f"{pursuit.endpoint.target} finished job {state.job_id} without a picture{said}.")
    settings = pursuit.settings
    downloads = Downloads(
        pursuit.base_url,
        max_bytes=settings.result_bytes,
        resolver=settings.resolver,
        connect=settings.limits.connect,
        read=settings.limits.read,
        clock=pursuit.clock,
        should_stop=pursuit.check_stop,
    )
    try:
        with pursuit.timed("download"):
            pursuit.report(state, message=f"fetching {len(state.outputs)} pictures")
            fetched = fetch_results(pursuit.endpoint, pursuit.transport, downloads, state.outputs)
            return [decode(data, settings.result_pixels) for data in fetched]
    except (ResultRefused, ServiceError, ServiceUnreachable) as error:
        error.args = (f"{error} Job {state.job_id or '(without an id)'} is done and paid for.",)
        raise


def _known(entry: Entry) -> JobState:
    phase = Phase.DONE if entry.standing is Standing.DONE else Phase.RUNNING
    return JobState(phase, entry.job_id, entry.outputs, entry.message, metadata=entry.metadata, cost=entry.cost)


def _info(pursuit: Pursuit, state: JobState, body: Any, resumed: bool = False) -> dict[str, Any]:
    info = {
        "target": pursuit.endpoint.target,
        "service": pursuit.credentials.service,
        "profile": pursuit.credentials.profile,
        "address": pursuit.base_url,
        "job_id": state.job_id,
        "resumed": resumed,
        "sent": body,
        "seeds": _seeds(state.metadata),
        "cost": state.cost,
        "metadata": tidy(dict(state.metadata)),
        "notes": pursuit.notes,
        "seconds": {name: round(value, 3) for name, value in pursuit.seconds.items()},
    }
    return pursuit.clean({name: value for name, value in info.items() if value not in (None, "", [], {})})


def _seeds(metadata: Mapping[str, Any]) -> list[Any]:
    """The seeds that a service tells, at the top of its metadata or one level below."""
    for place in (metadata, *(item for item in metadata.values() if isinstance(item, Mapping))):
        found = place.get("seeds", place.get("seed"))
        if found is not None:
            return list(found) if isinstance(found, list | tuple) else [found]
    return []
