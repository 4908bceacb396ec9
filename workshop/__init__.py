"""What dev.py is made of: environments, a ComfyUI, its server, a graph run. Standard library only."""

from __future__ import annotations

import sys

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 14)


def refuse_python(version: tuple[int, int]) -> str:
    """Why `version` will not do, as a sentence; empty when it will."""
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return ""
    wanted = "{}.{} to {}.{}".format(*OLDEST_PYTHON, *NEWEST_PYTHON)
    return "ControlStack needs Python {}, and this is {}.{}: start dev.py with one of those.".format(wanted, *version)


_refusal = refuse_python(sys.version_info[:2])
if _refusal:  # said here, before anything that an old Python could not even import
    sys.exit("dev.py: " + _refusal)
