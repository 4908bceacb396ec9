"""ControlStack: one control graph for ComfyUI, run on this machine or by a remote service.

This file is valid syntax for Python 3.8, so that an old Python gets a sentence instead of a traceback.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import ControlStackExtension

OLDEST_PYTHON = (3, 11)

WEB_DIRECTORY = "./web" if sys.version_info >= OLDEST_PYTHON else None


async def comfy_entrypoint() -> ControlStackExtension:
    """The extension, for ComfyUI, which calls this once when it loads the pack.

    Raises RuntimeError on a Python that is too old. ComfyUI logs what is raised here as one line.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise RuntimeError(
            "ControlStack needs Python {}.{} or later, but ComfyUI runs on Python {}.{}. "
            "Start ComfyUI with a newer Python.".format(*OLDEST_PYTHON, *sys.version_info[:2])
        )
    from .nodes.extension import ControlStackExtension

    return ControlStackExtension()
