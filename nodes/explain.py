"""What would happen, without doing it."""

from __future__ import annotations

import json

from ..core.capabilities import Capabilities
from ..core.errors import UnknownChoice
from ..core.request import GenerationRequest, describe
from ..core.validate import validate
from ..local.capabilities import SD15, TABLES
from ..local.model import LocalModel
from .comfy import io, ui
from .sockets import Model, Request

TARGETS: dict[str, Capabilities] = {table.target: table for table in TABLES.values()}


class ControlStackExplain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlStackExplain",
            display_name="Explain Request",
            category="ControlStack",
            description="Says what a target would do with a request: every problem with its remedy, or what it runs.",
            inputs=[
                Request.Input("request", tooltip="From Generation Request."),
                io.Combo.Input(
                    "target",
                    options=list(TARGETS),
                    default=SD15.target,
                    tooltip="The local model family or the service to check against.",
                ),
                Model.Input("model", optional=True, tooltip="Checks against this local model instead of target."),
            ],
            outputs=[
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="The problems, one a line, or the request as the target gets it.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, request: GenerationRequest, target: str, model: LocalModel | None = None) -> io.NodeOutput:
        if target not in TARGETS:
            raise UnknownChoice("target", target, list(TARGETS))
        table = model.capabilities() if model else TARGETS[target]
        problems = validate(request, table)
        if problems:
            text = "\n".join(str(problem) for problem in problems)
        else:
            text = f"{table.target} can run this request:\n{json.dumps(describe(request), indent=2)}"
        return io.NodeOutput(text, ui=ui.PreviewText(text))
