"""ControlStack: one control graph for ComfyUI, run on this machine or by a remote service."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import ControlStackExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> ControlStackExtension:
    """Called by ComfyUI once, when it loads the pack."""
    from .nodes.extension import ControlStackExtension

    return ControlStackExtension()
