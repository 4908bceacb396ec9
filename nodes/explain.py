"""The node that explains what a target would do with a request, without doing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from ..api_clients.credentials.redaction import REDACTED, Secret
from ..api_clients.credentials.store import credentials_file
from ..api_clients.http.transport import service_url
from ..api_clients.jobs.run import RemoteRequest, image_host_for, preview_body
from ..api_clients.jobs.webhook import ADDRESS_LABEL, public_address
from ..api_clients.registry import ENDPOINTS
from ..api_clients.services.endpoint import Endpoint
from ..api_clients.services.options import declared
from ..core.capabilities import Capabilities
from ..core.errors import CredentialsMissing, InvalidRequest, UnknownChoice
from ..core.problems import Problem, ProblemKind
from ..core.request import GenerationRequest, describe
from ..core.validate import validate
from ..local.engine.check import problems
from ..local.engine.inventory import inventory_of
from ..local.model.capabilities import SD15, TABLES
from ..local.model.local_model import LocalModel
from .comfy import io, ui, user_folder
from .sockets import Model, Request

LOCAL: dict[str, Capabilities] = {table.target: table for table in TABLES.values()}
REMOTE: dict[str, Endpoint[Any]] = {endpoint.target: endpoint for endpoint in ENDPOINTS}

FIELDS_INVALID = ProblemKind(
    "explain_fields_invalid",
    "{field} is '{value}'. It must be a JSON object with only these fields of {target}: {known}. Correct or clear it.",
)


class ControlStackExplain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackExplain",
            display_name="Explain Request",
            category="ControlStack",
            description="Shows what a target would do with a request: all problems and how to solve them, or what "
            "would run. For a service, this is the exact request body. Sends nothing and needs no key.",
            inputs=[
                Request.Input("request", tooltip="The request from a Generation Request node."),
                io.Combo.Input(
                    "target",
                    options=[*LOCAL, *REMOTE],
                    default=SD15.target,
                    tooltip="The local model family or the service to check against.",
                ),
                Model.Input("model", optional=True, tooltip="Check against this local model instead of target."),
                io.String.Input(
                    "fields",
                    default="",
                    optional=True,
                    tooltip="For a service: non-default field values of its node, as JSON. Example: "
                    '{"modelId": "model_abc"}.',
                ),
            ],
            outputs=[
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="The problems, one per line, or the request as the target would receive it.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """NaN, which never equals itself: the answer also depends on files and on the image host, which may change."""
        return float("nan")

    @classmethod
    def execute(
        cls, request: GenerationRequest, target: str, model: LocalModel | None = None, fields: str = ""
    ) -> io.NodeOutput:
        if target not in LOCAL and target not in REMOTE:
            raise UnknownChoice("target", target, [*LOCAL, *REMOTE])
        if model:
            text = _local(request, model.name, problems(model, request, inventory_of(model)))
        elif target in LOCAL:
            text = _local(request, target, validate(request, LOCAL[target]))
        else:
            text = explain_remote(request, REMOTE[target], fields, credentials_file(user_folder()))
        return io.NodeOutput(text, ui=ui.PreviewText(text))


def _local(request: GenerationRequest, target: str, problems: list[Problem]) -> str:
    if problems:
        return _lines(problems)
    return f"{target} can run this request:\n{json.dumps(describe(request), indent=2)}"


def explain_remote(request: GenerationRequest, endpoint: Endpoint[Any], fields: str, keys: Path) -> str:
    """All problems, one per line. If there is none: the address, notes, and the body, which begins at the first `{`.

    `keys` is the credentials file, which may configure an image host. Raises InvalidRequest for `fields` that are not
    JSON or not fields of the endpoint.
    """
    options = endpoint.options_type(**_parse(fields, endpoint))
    try:
        host = image_host_for(endpoint, options, keys)
    except CredentialsMissing as incomplete:
        return str(incomplete)
    remote = RemoteRequest(endpoint, request, options)
    if problems := remote.problems(has_image_host=host is not None):
        return _lines(problems)
    body = preview_body(remote)
    call = endpoint.submit(endpoint.with_webhook(body, ADDRESS_LABEL) if public_address() else body, options)
    query = "&".join(f"{name}={value}" for name, value in call.query.items())
    address = service_url(endpoint.base_url, endpoint.url_variable) + call.path + (f"?{query}" if query else "")
    shown = endpoint.authorize(call, dict.fromkeys(endpoint.credential_spec.fields, Secret(REDACTED))).body
    lines = [
        f"{endpoint.target} can run this request. It would be sent with {call.method} to {address}:",
        *(f"Note: {note}" for note in endpoint.notes(request, options)),
        json.dumps(shown, indent=2),
    ]
    return "\n".join(lines)


def _parse(fields: str, endpoint: Endpoint[Any]) -> dict[str, Any]:
    known = list(declared(endpoint.options_type))
    try:
        values = json.loads(fields) if fields.strip() else {}
    except ValueError:
        values = None
    if not isinstance(values, dict) or not values.keys() <= set(known):
        problem = FIELDS_INVALID("fields", fields[:80], target=endpoint.target, known=known)
        raise InvalidRequest("Explain Request", [problem])
    return cast("dict[str, Any]", values)


def _lines(problems: list[Problem]) -> str:
    return "\n".join(str(problem) for problem in problems)
