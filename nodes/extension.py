"""The list of nodes that ComfyUI gets."""

from __future__ import annotations

from pathlib import Path

from .comfy import ComfyExtension, io, offer_detector_folder, offer_samples
from .controls import CONTROL_NODES
from .explain import ControlStackExplain
from .generate_local import ControlStackGenerateLocal
from .load_model import ControlStackControlNetModels, ControlStackLoadModel
from .presets import ControlStackPreset
from .remote import REMOTE_NODES
from .request import ControlStackLora, ControlStackReference, ControlStackRequest, ControlStackScheduler
from .routes import add_routes


class ControlStackExtension(ComfyExtension):
    """All nodes of the pack."""

    def __init__(self) -> None:
        offer_detector_folder()
        offer_samples(Path(__file__).resolve().parent.parent / "assets" / "samples")
        add_routes()  # here and not in on_load, which ComfyUI before 0.14 never calls

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            *CONTROL_NODES,
            ControlStackPreset,
            ControlStackReference,
            ControlStackLora,
            ControlStackScheduler,
            ControlStackRequest,
            ControlStackLoadModel,
            ControlStackControlNetModels,
            ControlStackGenerateLocal,
            *REMOTE_NODES,
            ControlStackExplain,
        ]
