"""Running a request at a service: check, upload, pay once, wait, download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import InvalidRequest, JobUnfinished, OutcomeUnknown, ResultGone, ServiceError
from ...core.problems import Problem, ProblemKind
from ...core.request import GenerationRequest
from ..credentials.redaction import label_images
from ..http.image_host import ImageHost, find_image_host
from ..http.messages import Call, Json
from ..http.upload import ImagePart, UploadedImages, image_parts, upload_images, upload_problems
from ..services.endpoint import Endpoint, JobState, Phase
from .concurrency import job_slot
from .context import Account, Caller, JobContext, Redactor, Settings
from .job import Job, how_to_buy_again
from .journal import Entry, RequestKey, Status, fingerprint
from .polling import follow, poll
from .results import JobResult, fetch_images, finish, job_info, make_result
from .submission import submit, wait_for_submission
from .webhook import ADDRESS_LABEL, listen

_STALE_SECONDS = 4 * 3600.0  # Qolaba reports a lost job as pending forever (docs/services/qolaba.md 4)

JOB_ID_MISSING = ProblemKind("job_id_missing", "job_id is empty. Copy the id of the job from a job_id or info output.")


@dataclass(frozen=True)
class RemoteRequest:
    """What to run: a request, at an endpoint, with the endpoint's own options."""

    endpoint: Endpoint[Any]
    request: GenerationRequest
    options: Any

    def problems(self, *, has_image_host: bool) -> list[Problem]:
        """Everything that prevents the request from being sent. Needs neither a key nor a network."""
        problems = self.endpoint.check(self.request, self.options)
        if problems:  # an endpoint can name its images only for a valid request
            return problems
        slots = self.endpoint.image_slots(self.request, self.options)
        return upload_problems(slots, self.endpoint.target, has_image_host=has_image_host)

    def image_parts(self) -> list[ImagePart]:
        """The images of a valid request. Raises InvalidRequest for a batch where the service accepts one image."""
        return image_parts(self.endpoint.image_slots(self.request, self.options), self.endpoint.target)

    def body(self, images: Mapping[str, str]) -> dict[str, Any]:
        """The request body, without credentials. `images` are the texts that stand for the images, by slot."""
        return self.endpoint.build_payload(self.request, self.options, images)


@dataclass(frozen=True)
class RunMode:
    """How to run a request.

    `force_new` pays for a new job even if the same request was paid for before. `async_only` returns as soon as the
    service has accepted the job.
    """

    force_new: bool = False
    async_only: bool = False


def image_host_for(
    endpoint: Endpoint[Any], options: Any, file: Path, environ: Mapping[str, str] | None = None
) -> ImageHost | None:
    """The user's image host if the endpoint needs one, else None. Settings that are not needed cause no error.

    Raises CredentialsMissing like `find_image_host`.
    """
    return find_image_host(file, environ) if endpoint.needs_image_host(options) else None


def preview_body(remote: RemoteRequest) -> dict[str, Any]:
    """The exact body that a valid request would send, without credentials and with labels for images. Sends nothing.

    An image with a limited size may be sent as JPEG. That shows only when it is encoded.
    """
    parts = remote.image_parts()
    body = remote.body({part.slot.key: part.stand_in for part in parts})
    return label_images(body, {part.stand_in: part.label for part in parts if part.pixels is not None})


def run_job(
    remote: RemoteRequest,
    account: Account,
    mode: RunMode | None = None,
    caller: Caller | None = None,
    settings: Settings | None = None,
) -> JobResult:
    """Run a request at a service. Blocks, so call it in a worker thread.

    A request that was paid for before continues its job, unless `mode.force_new`.

    Raises InvalidRequest, ServiceUnreachable (nothing was charged), OutcomeUnknown, ServiceError, JobUnfinished,
    ResultRefused (ResultGone if a paid result no longer exists), JournalUnusable, and what the caller's stop check
    raises. Messages contain no secrets.
    """
    mode, caller, settings = mode or RunMode(), caller or Caller(), settings or Settings()
    if problems := remote.problems(has_image_host=account.image_host is not None):
        raise InvalidRequest(remote.endpoint.target, problems)
    remote = replace(remote, endpoint=remote.endpoint.bound(remote.options))
    redact, credentials = Redactor(account), account.credentials
    parts = remote.image_parts()
    with redact.errors(), listen(settings.environ) as webhook:
        context = JobContext(remote.endpoint, account, caller, settings, redact, webhook)
        with job_slot(credentials.service, credentials.profile, account.max_jobs, context.stop.check):
            return _run(context, remote, parts, mode)


def fetch_job(
    endpoint: Endpoint[Any],
    job_id: str,
    account: Account,
    caller: Caller | None = None,
    settings: Settings | None = None,
) -> JobResult:
    """The images of a job, by its id. Waits for the job like `run_job`. The journal need not know it. Costs nothing.

    Raises the same errors. The job is not canceled if the caller stops.
    """
    job_id, credentials = job_id.strip(), account.credentials
    if not job_id:
        raise InvalidRequest(endpoint.target, [JOB_ID_MISSING("job_id", job_id)])
    entry = account.journal.find(credentials.service, credentials.profile, job_id)
    if entry:
        endpoint = endpoint.bound_again(entry.body)
    redact = Redactor(account)
    context = JobContext(endpoint, account, caller or Caller(), settings or Settings(), redact)
    with redact.errors():
        job = Job.from_entry(entry) if entry else Job(None, JobState(Phase.QUEUED, job_id), resumed=True)
        if entry and entry.status is Status.DONE:
            return _fetch_again(context, job)
        waiting = replace(job, state=replace(job.state, phase=Phase.QUEUED, outputs=()))
        with context.timed("wait"):
            job = follow(context, waiting, cancelable=False)
        return finish(context, job)


def _run(context: JobContext, remote: RemoteRequest, parts: Sequence[ImagePart], mode: RunMode) -> JobResult:
    """Continue the job of an equal request, or buy one."""
    journal, expected = context.journal, remote.request.batch_size
    key, is_paid = _request_key(context, remote, parts)
    found: Entry | None = None
    uploaded: UploadedImages | None = None
    while True:
        context.stop.check()
        if is_paid and not mode.force_new:
            found = journal.current(key.fingerprint)
            if found is not None and (result := _resume(context, found, expected, mode)) is not None:
                return result
        if uploaded is None:
            uploaded = _upload(context, remote, parts)
        payload = remote.body(uploaded.texts)
        if context.webhook is not None and not mode.async_only:
            payload = remote.endpoint.with_webhook(payload, context.webhook.address)
        call = remote.endpoint.submit(payload, remote.options)
        body = context.redact({**payload, **call.query})
        if not is_paid:
            return _estimate(context, call, body)
        instead_of = found.number if found else None
        number = journal.claim(key, body, instead_of=instead_of, force=mode.force_new)
        if number is not None:  # otherwise an equal request was faster: continue its job
            return _buy(context, Job(number, JobState(Phase.QUEUED), body, expected), call, mode)


def _request_key(context: JobContext, remote: RemoteRequest, parts: Sequence[ImagePart]) -> tuple[RequestKey, bool]:
    """The key of the request in the journal, and whether the request costs anything. Encodes and sends nothing."""
    endpoint, credentials = context.endpoint, context.account.credentials
    payload = remote.body({part.slot.key: part.stand_in for part in parts})
    call = endpoint.submit(payload, remote.options)
    sent = {"path": call.path, "query": dict(call.query), "body": payload}
    name = fingerprint(endpoint.target, context.base_url, credentials.profile, sent, remote.request.seed)
    key = RequestKey(name, credentials.service, endpoint.target, context.base_url, credentials.profile)
    return key, call.paid


def _upload(context: JobContext, remote: RemoteRequest, parts: Sequence[ImagePart]) -> UploadedImages:
    with context.timed("upload"):
        host = context.account.image_host
        uploaded = upload_images(context.endpoint, parts, context.transport, host, context.stop.check)
    context.redact.add_labels(uploaded.labels)
    if context.webhook:
        context.redact.add_labels({context.webhook.address: ADDRESS_LABEL})
    context.notes += [*context.endpoint.notes(remote.request, remote.options), *uploaded.notes]
    return uploaded


def _buy(context: JobContext, job: Job, call: Call, mode: RunMode) -> JobResult:
    with context.timed("submit"):
        job = submit(context, job, call)
    if mode.async_only and job.id and job.state.phase is not Phase.CANCELED:
        return JobResult([], job_info(context, job), job.id)
    if not job.ended:
        with context.timed("wait"):
            job = follow(context, job, fresh=True)
    return finish(context, job)


def _estimate(context: JobContext, call: Call, body: Json) -> JobResult:
    """The result of a submission that costs nothing, such as a dry run."""
    with context.timed("submit"):
        state = context.endpoint.read_estimate(context.transport.ask(call))
    if state.job_id:
        context.notes.append(
            f"the service started job {state.job_id} instead of estimating its cost; Fetch Job can fetch it"
        )
    info = job_info(context, Job(None, state, body))
    return JobResult([], {**info, "estimate": not state.job_id}, state.job_id)


def _resume(context: JobContext, found: Entry, expected_images: int, mode: RunMode) -> JobResult | None:
    """The result of the job that an earlier run of the same request bought. None if the request is to be sent again."""
    entry = wait_for_submission(context, found)
    if entry is None or entry.status in (Status.FAILED, Status.CANCELED):
        return None
    if entry.status is Status.UNKNOWN:
        raise OutcomeUnknown(
            f"{entry.message} This happened in an earlier run. {how_to_buy_again(context)}{_hidden_job(context, entry)}"
        )
    job = Job.from_entry(entry, expected_images)
    if entry.status is Status.DONE:
        return _fetch_again(context, job)
    if mode.async_only:
        return JobResult([], job_info(context, job), job.id)
    if context.clock.wall() - entry.created > _STALE_SECONDS:
        _check_stale(context, job, (context.clock.wall() - entry.created) / 3600)
    with context.timed("wait"):
        job = follow(context, job)
    if job.state.phase is Phase.CANCELED and entry.cancel_asked:
        context.notes.append(f"job {job.id} of the same request was canceled on request, so this is a new job")
        return None
    return finish(context, job)


def _check_stale(context: JobContext, job: Job, hours: float) -> None:
    """Poll a job that should have ended long ago. Raises JobUnfinished or ServiceError if it has not."""
    try:
        state = poll(context, job)
    except ServiceError as error:
        raise ServiceError(f"{error} The job may be lost after such a long time. {how_to_buy_again(context)}") from None
    if not state.phase.final:
        raise JobUnfinished(
            f"Job {job.id} of this request is still {state.phase.value} at {context.endpoint.target} after "
            f"{hours:.0f} hours, so it may be lost. {how_to_buy_again(context)}"
        )


def _fetch_again(context: JobContext, job: Job) -> JobResult:
    """The images of a job that was done before, by the known links, or by new ones if some have expired.

    The job is never bought again. Raises ResultGone if all images are gone, and ServiceError or JobUnfinished if the
    service does not give new links.
    """
    fetched, reason = fetch_images(context, job), ""
    if fetched.needs_new_links and job.id:
        try:
            renewed = job.updated(_poll_for_links(context, job))
        except (JobUnfinished, ServiceError):
            if not fetched.images:
                raise
        else:
            reason = f" ({renewed.state.message})" if renewed.state.message else ""
            if renewed.state.phase is Phase.DONE and renewed.state.outputs not in ((), job.state.outputs):
                again = fetch_images(context, renewed)
                if len(again.images) >= len(fetched.images):
                    job, fetched = renewed, again
    if not fetched.lost:
        return make_result(context, job, fetched)
    raise ResultGone(
        f"Job {job.id or '(without an id)'} of this request was done and paid for, but its results are gone: "
        f"{context.endpoint.target} gives no link that works{reason}. {how_to_buy_again(context)}"
    )


def _poll_for_links(context: JobContext, job: Job) -> JobState:
    """Poll a job that is done. Its status in the journal does not change, whatever the service says now."""
    try:
        return poll(context, replace(job, number=None))
    except ServiceError as error:
        raise ServiceError(
            f"{error} No link to its results works any more, and the service gave no new one. "
            f"{how_to_buy_again(context)}"
        ) from None


def _hidden_job(context: JobContext, unknown: Entry) -> str:
    """Point to the earlier paid job that a forced run with an unknown outcome would otherwise hide."""
    earlier = context.journal.bought(unknown.key.fingerprint)
    if earlier is None:
        return ""
    return (
        f" An earlier job of this request is paid for and not lost. To fetch it at no cost, use Fetch Job with service "
        f"{context.endpoint.target}, profile {context.account.credentials.profile}, job id {earlier.job_id}."
    )
