"""The pictures of a job that has ended, and what is told about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import ControlStackError, ResultGone, ResultRefused, ServiceError, ServiceUnreachable
from .download import Downloads, fetch_result
from .endpoint import JobState, Phase
from .images import decode, gather, is_flat
from .job import Pursuit
from .journal import Standing
from .upload import shortened

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class JobResult:
    """Pictures and what is known about them.

    `images` is one batch [n, h, w, 3], or one [1, h, w, 3] per picture where sizes differ; empty for a job that is only
    started (`async_only`) and for an estimate. `info` is plain JSON data without secrets.
    """

    images: list[Tensor]
    info: dict[str, Any]
    job_id: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Haul:
    """What stood behind a job's result references, by place from 1: pictures [1, h, w, 3], or why there is none."""

    pictures: dict[int, Tensor] = field(default_factory=dict)
    missing: dict[int, ControlStackError] = field(default_factory=dict)

    @property
    def gone(self) -> bool:
        """Whether another link may bring more."""
        return not (self.pictures or self.missing) or any(map(_is_gone, self.missing.values()))

    @property
    def lost(self) -> bool:
        """Whether no link brought, or may still bring, anything."""
        return not self.pictures and all(map(_is_gone, self.missing.values()))


def haul(pursuit: Pursuit, state: JobState) -> Haul:
    """Fetch every picture of a done job; one that cannot be had keeps none of the others back."""
    found, settings = Haul(), pursuit.settings
    downloads = Downloads(
        pursuit.base_url,
        max_bytes=settings.result_bytes,
        resolver=settings.resolver,
        connect=settings.limits.connect,
        read=settings.limits.read,
        clock=pursuit.clock,
        should_stop=pursuit.check_stop,
    )
    with pursuit.timed("download"):
        pursuit.report(state, message=f"fetching {len(state.outputs)} pictures")
        for place, output in enumerate(state.outputs, 1):
            try:
                data = fetch_result(pursuit.endpoint, pursuit.transport, downloads, output)
                found.pictures[place] = decode(data, settings.result_pixels)
            except (ResultRefused, ServiceError) as error:
                found.missing[place] = error
            except ServiceUnreachable as error:
                found.missing[place] = error
                downloads = replace(downloads, patience=0)  # the network has had its time: one try for each other
    return found


def finished(pursuit: Pursuit, number: int | None, state: JobState, body: Any, resumed: bool = False) -> JobResult:
    """The result of a job that has ended. Raises ServiceError where it ended without pictures, else as `presented`."""
    target = pursuit.endpoint.target
    if state.phase is not Phase.DONE:
        raise ServiceError(f"{target} canceled job {state.job_id}. Queue the request to send it anew.")
    if not state.outputs:
        said = f": {state.message}" if state.message else ", often because a filter removed it"
        pursuit.note(number, Standing.FAILED, job_id=state.job_id, message="finished without a picture")
        raise ServiceError(f"{target} finished job {state.job_id} without a picture{said}.")
    return presented(pursuit, state, haul(pursuit, state), body, resumed)


def presented(pursuit: Pursuit, state: JobState, found: Haul, body: Any, resumed: bool = False) -> JobResult:
    """The pictures that came, with a note about each other one.

    Where none came, raises why: ResultRefused, ServiceError or ServiceUnreachable.
    """
    if not found.pictures:
        error = min(found.missing.values(), key=_is_gone)  # what may pass before what will not
        advice = "with force_new off, the same request fetches it and costs nothing."
        error.args = (f"{error} Job {state.job_id or '(without an id)'} is done and paid for: {advice}",)
        raise error
    if remarks := [*_remarks(pursuit, state, found)]:
        pursuit.notes += remarks
        pursuit.report(state, message=remarks[0])
    for place, image in found.pictures.items():
        if is_flat(image):
            pursuit.notes.append(f"picture {place} has a single colour: the service may have replaced it by a filter")
    gathered = gather(list(found.pictures.values()))
    if len(gathered) > 1:
        sizes = ", ".join(f"{image.shape[2]}x{image.shape[1]}" for image in gathered)
        pursuit.notes.append(f"the pictures have different sizes ({sizes}) and come as a list")
    return JobResult(gathered, info_of(pursuit, state, body, resumed), state.job_id)


def info_of(pursuit: Pursuit, state: JobState, body: Any, resumed: bool = False) -> dict[str, Any]:
    """What is told about a job, as plain JSON data without secrets; nothing that is empty."""
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
        "metadata": shortened(pursuit.clean(state.metadata)),
        "notes": pursuit.notes,
        "seconds": {name: round(value, 3) for name, value in pursuit.seconds.items()},
    }
    return pursuit.clean({name: value for name, value in info.items() if value not in (None, "", [], {})})


def _remarks(pursuit: Pursuit, state: JobState, found: Haul) -> Iterator[str]:
    """Why there are fewer pictures than were paid for. What a service says of a full number is advertising."""
    target, made = pursuit.endpoint.target, len(state.outputs)
    if pursuit.asked is None or made < pursuit.asked:
        if pursuit.asked is not None:
            yield f"{target} made {made} of {pursuit.asked} pictures"
        if state.message:
            yield f"{target} says: {state.message}"
    for place, error in found.missing.items():
        yield f"picture {place} of {made} is missing: {error}"
    if found.missing and state.job_id:
        yield f"Fetch Job with job id {state.job_id} tries to fetch what is missing; it costs nothing"


def _is_gone(error: ControlStackError) -> bool:
    return isinstance(error, ResultGone)


def _seeds(metadata: Mapping[str, Any]) -> list[Any]:
    """The seeds that a service tells, at the top of its metadata or one level below."""
    for place in (metadata, *(item for item in metadata.values() if isinstance(item, Mapping))):
        found = place.get("seeds", place.get("seed"))
        if found is not None:
            return list(found) if isinstance(found, list | tuple) else [found]
    return []
