"""The nodes that run a request at a service: one for each endpoint, with inputs from its declared options."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ..api_clients.endpoint import Endpoint
from ..api_clients.image_host import image_host_for
from ..api_clients.journal import Journal, journal_file
from ..api_clients.options import Option, declared
from ..api_clients.registry import ENDPOINTS, node_id
from ..api_clients.run import JobResult, fetch_job, run_job
from ..api_clients.specs import DEFAULT_PROFILE
from ..api_clients.store import credentials_file, find_credentials
from ..core.errors import UnknownChoice
from ..core.request import GenerationRequest
from .comfy import ExecutionBlocker, io, user_folder
from .sockets import Request
from .worker import Work

_CATEGORY = "ControlStack/remote"
_ENDPOINT_OF = {endpoint.target: endpoint for endpoint in ENDPOINTS}


def option_input(name: str, default: Any, limits: Option) -> io.WidgetInput:
    """The widget of a service's own field. It may be left out of an API graph: then its default holds."""
    shared: dict[str, Any] = {"default": default, "optional": True, "tooltip": limits.tooltip}
    bounds: dict[str, Any] = {"min": limits.minimum, "max": limits.maximum, "step": limits.step}
    if limits.choices:
        return io.Combo.Input(name, options=list(limits.choices), **shared)
    if isinstance(default, bool):
        return io.Boolean.Input(name, **shared)
    if isinstance(default, int):
        return io.Int.Input(name, **bounds, **shared)
    if isinstance(default, float):
        return io.Float.Input(name, **bounds, **shared)
    return io.String.Input(name, **shared)


def profile_input() -> io.WidgetInput:
    """Which of the user's keys to use."""
    return io.String.Input(
        "profile",
        default=DEFAULT_PROFILE,
        tooltip="Name of the key to use, as in Settings, ControlStack. Never the key itself: graphs are shared.",
    )


def picture_outputs() -> list[Any]:
    """What every node with results of a service has."""
    return [
        io.Image.Output(
            "images",
            display_name="images",
            is_output_list=True,
            tooltip="The pictures as one batch; one by one where their sizes differ. Nothing before the job has ended.",
        ),
        io.String.Output(
            "info", display_name="info", tooltip="JSON: job id, seeds, what was sent, what the service said, cost."
        ),
    ]


def picture_values(result: JobResult) -> tuple[Any, str]:
    """The values of `picture_outputs`. Where there are no pictures, the nodes that need them are skipped."""
    return result.images or ExecutionBlocker(None), json.dumps(result.info)


class RemoteNode(io.ComfyNode):
    """What all remote nodes share; a subclass names its endpoint."""

    endpoint: ClassVar[Endpoint[Any]]

    @classmethod
    def define_schema(cls) -> io.Schema:
        target = cls.endpoint.target
        fields = declared(cls.endpoint.options_type)
        return io.Schema(
            node_id=cls.__name__,
            display_name=f"Generate with {target}",
            category=_CATEGORY,
            description=f"Runs a request at {target}, which may cost money there. Everything it cannot do is said "
            "before anything is sent, and the same request is not paid for twice.",
            inputs=[
                Request.Input("request", tooltip="From Generation Request."),
                profile_input(),
                *(option_input(name, default, limits) for name, (default, limits) in fields.items()),
                io.Boolean.Input(
                    "force_new",
                    default=False,
                    optional=True,
                    tooltip="Makes and pays for a new picture at every run, even if this request was paid for before.",
                ),
                io.Boolean.Input(
                    "async_only",
                    default=False,
                    optional=True,
                    tooltip="Starts the job and does not wait: take job_id to Fetch Job, now or later.",
                ),
            ],
            outputs=[
                *picture_outputs(),
                io.String.Output(
                    "job_id", display_name="job_id", tooltip="The job's id at the service, for Fetch Job."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, force_new: bool | None = False, **_: Any) -> float:
        """A number that never equals itself keeps ComfyUI from serving a forced run from its cache."""
        return float("nan") if force_new else 0.0

    @classmethod
    async def execute(
        cls,
        request: GenerationRequest,
        profile: str,
        force_new: bool = False,
        async_only: bool = False,
        **fields: Any,
    ) -> io.NodeOutput:
        endpoint, options = cls.endpoint, cls.endpoint.options_type(**fields)
        work, keys = Work(cls.hidden.unique_id), credentials_file(user_folder())
        result = await work.run(
            lambda: run_job(
                endpoint,
                request,
                options,
                credentials=find_credentials(endpoint.service, profile.strip(), keys),
                journal=Journal(journal_file(user_folder())),
                host=image_host_for(endpoint, options, keys),
                force_new=force_new,
                async_only=async_only,
                on_state=work.show,
                should_stop=work.check_stop,
            )
        )
        if not result.images:
            work.say(f"started, job {result.job_id}" if result.job_id else f"price: {result.info.get('cost')}")
        return io.NodeOutput(*picture_values(result), result.job_id)


class ControlStackFetchJob(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        targets = list(_ENDPOINT_OF)
        return io.Schema(
            node_id="ControlStackFetchJob",
            display_name="Fetch Job",
            category=_CATEGORY,
            description="Brings the pictures of a job that was started before, waiting for it if need be. "
            "Costs nothing, and an interrupt does not cancel the job.",
            inputs=[
                io.Combo.Input("service", options=targets, default=targets[0], tooltip="Where the job runs."),
                profile_input(),
                io.String.Input("job_id", default="", tooltip="The job's id: from a job_id output, info, or an error."),
            ],
            outputs=picture_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """A number that never equals itself: what was still missing a moment ago may be there now, at no cost."""
        return float("nan")

    @classmethod
    async def execute(cls, service: str, profile: str, job_id: str) -> io.NodeOutput:
        endpoint, work = _ENDPOINT_OF.get(service), Work(cls.hidden.unique_id)
        if endpoint is None:
            raise UnknownChoice("service", service, list(_ENDPOINT_OF))
        result = await work.run(
            lambda: fetch_job(
                endpoint,
                job_id,
                credentials=find_credentials(endpoint.service, profile.strip(), credentials_file(user_folder())),
                journal=Journal(journal_file(user_folder())),
                on_state=work.show,
                should_stop=work.check_stop,
            )
        )
        return io.NodeOutput(*picture_values(result))


def _remote_node(endpoint: Endpoint[Any]) -> type[RemoteNode]:
    """The node of an endpoint; the name of its class is the node's id."""
    return type(node_id(endpoint), (RemoteNode,), {"endpoint": endpoint, "__module__": __name__})


REMOTE_NODES: tuple[type[io.ComfyNode], ...] = (*map(_remote_node, ENDPOINTS), ControlStackFetchJob)
