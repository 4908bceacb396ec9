"""The nodes that run a request at a service: one for each endpoint, with inputs from its declared options."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ..api_clients.credentials.specs import DEFAULT_PROFILE
from ..api_clients.credentials.store import credentials_file, find_credentials
from ..api_clients.jobs.context import Account, Caller
from ..api_clients.jobs.journal import Journal, journal_file
from ..api_clients.jobs.results import JobResult
from ..api_clients.jobs.run import RemoteRequest, RunMode, fetch_job, image_host_for, run_job
from ..api_clients.registry import ENDPOINTS, node_id
from ..api_clients.services.endpoint import Endpoint
from ..api_clients.services.options import Option, declared
from ..core.errors import UnknownChoice
from ..core.request import GenerationRequest
from .comfy import ExecutionBlocker, io, user_folder
from .sockets import Request
from .worker import Work

_CATEGORY = "ControlStack/remote"
_ENDPOINT_OF = {endpoint.target: endpoint for endpoint in ENDPOINTS}


def option_input(name: str, default: Any, limits: Option) -> io.WidgetInput:
    """The input for a service's own field. An API graph may omit it, and then its default applies."""
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
    """The input that selects one of the user's keys."""
    return io.String.Input(
        "profile",
        default=DEFAULT_PROFILE,
        tooltip="Name of the key to use, as shown in Settings, ControlStack. Never enter the key itself: graphs are "
        "shared.",
    )


def image_outputs() -> list[Any]:
    """The outputs of every node that returns results of a service."""
    return [
        io.Image.Output(
            "images",
            display_name="images",
            is_output_list=True,
            tooltip="The images as one batch, or as a list if their sizes differ. Empty until the job has ended.",
        ),
        io.String.Output(
            "info",
            display_name="info",
            tooltip="JSON: job id, seeds, the request that was sent, the service's metadata, cost.",
        ),
    ]


def image_values(result: JobResult) -> tuple[Any, str]:
    """The values of `image_outputs`. If there are no images, the nodes that need them are skipped."""
    return result.images or ExecutionBlocker(None), json.dumps(result.info)


class RemoteNode(io.ComfyNode):
    """The base of all remote nodes. A subclass names its endpoint."""

    endpoint: ClassVar[Endpoint[Any]]

    @classmethod
    def define_schema(cls) -> io.Schema:
        target = cls.endpoint.target
        fields = declared(cls.endpoint.options_type)
        return io.Schema(
            node_id=cls.__name__,
            display_name=f"Generate with {target}",
            category=_CATEGORY,
            description=f"Runs a request at {target}, which may charge for it. Problems are reported before anything "
            "is sent, and the same request is not paid for twice.",
            inputs=[
                Request.Input("request", tooltip="The request from a Generation Request node."),
                profile_input(),
                *(option_input(name, default, limits) for name, (default, limits) in fields.items()),
                io.Boolean.Input(
                    "force_new",
                    default=False,
                    optional=True,
                    tooltip="Start and pay for a new job on every run, even if the same request was paid for before.",
                ),
                io.Boolean.Input(
                    "async_only",
                    default=False,
                    optional=True,
                    tooltip="Start the job without waiting for it. Connect job_id to Fetch Job, or use it there later.",
                ),
            ],
            outputs=[
                *image_outputs(),
                io.String.Output(
                    "job_id", display_name="job_id", tooltip="The id of the job at the service, for Fetch Job."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, force_new: bool | None = False, **_: Any) -> float:
        """NaN, which never equals itself, keeps ComfyUI from serving a forced run from its cache."""
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
                RemoteRequest(endpoint, request, options),
                Account(
                    find_credentials(endpoint.credential_spec, profile.strip(), keys),
                    Journal(journal_file(user_folder())),
                    image_host_for(endpoint, options, keys),
                ),
                RunMode(force_new, async_only),
                Caller(work.show, work.check_stop),
            )
        )
        if not result.images:
            work.show_result(f"started, job {result.job_id}" if result.job_id else f"price: {result.info.get('cost')}")
        return io.NodeOutput(*image_values(result), result.job_id)


class ControlStackFetchJob(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        targets = list(_ENDPOINT_OF)
        return io.Schema(
            node_id="ControlStackFetchJob",
            display_name="Fetch Job",
            category=_CATEGORY,
            description="Fetches the images of a job that was started before, and waits for it if necessary. "
            "Costs nothing. An interrupt does not cancel the job.",
            inputs=[
                io.Combo.Input(
                    "service", options=targets, default=targets[0], tooltip="The service that runs the job."
                ),
                profile_input(),
                io.String.Input(
                    "job_id",
                    default="",
                    tooltip="The id of the job, from a job_id output, an info output or an error message.",
                ),
            ],
            outputs=image_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """NaN, which never equals itself, makes ComfyUI ask again each time: the job may have ended since."""
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
                Account(
                    find_credentials(endpoint.credential_spec, profile.strip(), credentials_file(user_folder())),
                    Journal(journal_file(user_folder())),
                ),
                Caller(work.show, work.check_stop),
            )
        )
        return io.NodeOutput(*image_values(result))


def _remote_node(endpoint: Endpoint[Any]) -> type[RemoteNode]:
    """The node of an endpoint; the name of its class is the node's id."""
    return type(node_id(endpoint), (RemoteNode,), {"endpoint": endpoint, "__module__": __name__})


REMOTE_NODES: tuple[type[io.ComfyNode], ...] = (*map(_remote_node, ENDPOINTS), ControlStackFetchJob)
