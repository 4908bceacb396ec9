"""The list of nodes that ComfyUI gets."""

from __future__ import annotations

from .comfy import ComfyExtension, io
from .controls import CONTROL_NODES
from .explain import ControlStackExplain
from .local import ControlStackGenerateLocal, ControlStackLoadModel
from .request import ControlStackReference, ControlStackRequest, ControlStackScheduler


class ControlStackExtension(ComfyExtension):
    """All nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            *CONTROL_NODES,
            ControlStackReference,
            ControlStackScheduler,
            ControlStackRequest,
            ControlStackLoadModel,
            ControlStackGenerateLocal,
            ControlStackExplain,
        ]
