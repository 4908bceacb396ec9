"""The parts of dev.py: environments, a ComfyUI, its server, and running a graph. Standard library only."""

from __future__ import annotations

import sys

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)


def refuse_python(version: tuple[int, int]) -> str:
    """The sentence that refuses Python `version`; empty if the version is supported."""
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return ""
    wanted = "{}.{} to {}.{}".format(*OLDEST_PYTHON, *NEWEST_PYTHON)
    return "ControlStack needs Python {}, but this is Python {}.{}. Start dev.py with a supported version.".format(
        wanted, *version
    )


_refusal = refuse_python(sys.version_info[:2])
if _refusal:  # before the other modules, which an old Python cannot import
    sys.exit("dev.py: " + _refusal)
