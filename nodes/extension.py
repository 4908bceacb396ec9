"""The list of nodes that ComfyUI gets."""

from __future__ import annotations

from pathlib import Path

from .comfy import ComfyExtension, io, offer_samples
from .controls import CONTROL_NODES
from .explain import ControlStackExplain
from .local import ControlStackControlNetModels, ControlStackGenerateLocal, ControlStackLoadModel
from .request import ControlStackReference, ControlStackRequest, ControlStackScheduler


class ControlStackExtension(ComfyExtension):
    """All nodes of the pack."""

    def __init__(self) -> None:
        offer_samples(Path(__file__).resolve().parent.parent / "assets" / "samples")

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            *CONTROL_NODES,
            ControlStackReference,
            ControlStackScheduler,
            ControlStackRequest,
            ControlStackLoadModel,
            ControlStackControlNetModels,
            ControlStackGenerateLocal,
            ControlStackExplain,
        ]
