"""The images of a job that is done, and the information about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...core.errors import ControlStackError, ResultGone, ResultRefused, ServiceError, ServiceUnreachable
from ..credentials.redaction import shorten
from ..http.download import Downloads
from ..http.images import batch_by_size, decode, is_inline, is_single_color
from ..http.messages import is_array, is_object
from ..services.endpoint import Phase
from .context import JobContext
from .job import Job, record
from .journal import Status

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class JobResult:
    """The images of a job, and information about it.

    `images` is one batch [n, h, w, 3], or one [1, h, w, 3] per image if sizes differ. It is empty for a job that was
    only started (`async_only`) and for an estimate. `info` is plain JSON data without secrets.
    """

    images: list[Tensor]
    info: dict[str, Any]
    job_id: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Fetched:
    """What a job's result references led to, by position from 1: images [1, h, w, 3], or the error instead of one."""

    images: dict[int, Tensor] = field(default_factory=dict)
    errors: dict[int, ControlStackError] = field(default_factory=dict)

    @property
    def needs_new_links(self) -> bool:
        """True if another link could bring more images."""
        return not (self.images or self.errors) or any(map(_is_gone, self.errors.values()))

    @property
    def lost(self) -> bool:
        """True if every result is gone for good."""
        return not self.images and all(map(_is_gone, self.errors.values()))


def fetch_images(context: JobContext, job: Job) -> Fetched:
    """Download every image of a done job. An image that cannot be fetched does not prevent the others."""
    fetched, settings, outputs = Fetched(), context.settings, job.state.outputs
    downloads = Downloads(
        context.base_url,
        max_bytes=settings.result_bytes,
        resolver=settings.resolver,
        connect=settings.limits.connect,
        read=settings.limits.read,
        clock=context.clock,
        should_stop=context.stop.check,
    )
    with context.timed("download"):
        context.report(job.state, message=f"fetching {len(outputs)} images")
        for position, output in enumerate(outputs, 1):
            try:
                fetched.images[position] = decode(_read_output(context, downloads, output), settings.result_pixels)
            except (ResultRefused, ServiceError) as error:
                fetched.errors[position] = error
            except ServiceUnreachable as error:
                fetched.errors[position] = error
                downloads = replace(downloads, patience=0)  # the network was given enough time: one attempt for each
    return fetched


def finish(context: JobContext, job: Job) -> JobResult:
    """The result of a job that has ended. Raises ServiceError if it ended without images, else like `make_result`."""
    target = context.endpoint.target
    if job.state.phase is not Phase.DONE:
        raise ServiceError(f"{target} canceled job {job.id}. Queue the request to send it again.")
    if not job.state.outputs:
        reason = f": {job.state.message}" if job.state.message else ", often because a filter removed it"
        record(context, job, Status.FAILED, job_id=job.id, message="finished without an image")
        raise ServiceError(f"{target} finished job {job.id} without an image{reason}.")
    return make_result(context, job, fetch_images(context, job))


def make_result(context: JobContext, job: Job, fetched: Fetched) -> JobResult:
    """The images that were fetched, with a note about each missing one.

    If there is none, raises why: ResultRefused, ServiceError or ServiceUnreachable.
    """
    if not fetched.images:
        error = min(fetched.errors.values(), key=_is_gone)  # prefer an error that may be temporary
        error.args = (
            f"{error} Job {job.id or '(without an id)'} is done and paid for. To fetch it again at no cost, queue "
            f"the same request with force_new off.",
        )
        raise error
    if remarks := [*_remarks(context, job, fetched)]:
        context.notes += remarks
        context.report(job.state, message=remarks[0])
    for position, image in fetched.images.items():
        if is_single_color(image):
            context.notes.append(
                f"image {position} has a single color: the safety filter of the service may have replaced it"
            )
    images = batch_by_size(list(fetched.images.values()))
    if len(images) > 1:
        sizes = ", ".join(f"{image.shape[2]}x{image.shape[1]}" for image in images)
        context.notes.append(f"the images have different sizes ({sizes}), so they are returned as a list")
    return JobResult(images, job_info(context, job), job.id)


def job_info(context: JobContext, job: Job) -> dict[str, Any]:
    """Information about a job as plain JSON data, without secrets and without empty values."""
    credentials = context.account.credentials
    info = {
        "target": context.endpoint.target,
        "service": credentials.service,
        "profile": credentials.profile,
        "address": context.base_url,
        "job_id": job.id,
        "resumed": job.resumed,
        "sent": job.body,
        "seeds": _seeds(job.state.metadata),
        "cost": job.state.cost,
        "metadata": shorten(context.redact(job.state.metadata)),
        "notes": context.notes,
        "seconds": {name: round(value, 3) for name, value in context.seconds.items()},
    }
    return context.redact({name: value for name, value in info.items() if value not in (None, "", [], {})})


def _read_output(context: JobContext, downloads: Downloads, output: str) -> bytes:
    """The data of a result reference: inline data as it is, a link downloaded.

    Raises ResultGone or ResultRefused for a result that cannot be fetched, ServiceError if the service does not say
    where it is, and ServiceUnreachable.
    """
    endpoint = context.endpoint
    if call := endpoint.locate(output):
        answer = context.transport.ask(call)
        if answer.status in (404, 410):
            raise ResultGone(f"{endpoint.target} no longer has the result (HTTP {answer.status}).")
        output = endpoint.read_location(answer)
    return output.encode() if is_inline(output) else downloads.fetch(output)


def _remarks(context: JobContext, job: Job, fetched: Fetched) -> Iterator[str]:
    """Why there are fewer images than were paid for.

    The message of the service is quoted only then: along with a full number of images it is advertising.
    """
    target, made, expected = context.endpoint.target, len(job.state.outputs), job.expected_images
    if expected is None or made < expected:
        if expected is not None:
            yield f"{target} made {made} of {expected} images"
        if job.state.message:
            yield f"{target} says: {job.state.message}"
    for position, error in fetched.errors.items():
        yield f"image {position} of {made} is missing: {error}"
    if fetched.errors and job.id:
        yield f"Fetch Job with job id {job.id} tries to fetch what is missing, at no cost"


def _is_gone(error: ControlStackError) -> bool:
    return isinstance(error, ResultGone)


def _seeds(metadata: Mapping[str, Any]) -> list[Any]:
    """The seeds that the service reports, at the top level of its metadata or one level below."""
    places = (metadata, *filter(is_object, metadata.values()))
    for place in places:
        found = place.get("seeds", place.get("seed"))
        if found is not None:
            return list(found) if is_array(found) else [found]
    return []
