"""The network classes of the package controlnet_aux, without the side effects of importing it.

Importing the package loads all of its detectors, replaces five models of timm for the whole process, and fails with a
current mediapipe. Its modules import each other relatively, so that they also work in an empty package of another name.
Then only the requested module is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
import warnings
from typing import TYPE_CHECKING

from ...core.errors import DetectorUnavailable

if TYPE_CHECKING:
    from torch import nn

_ALIAS = "_controlstack_controlnet_aux"


def network_class(module: str, name: str) -> type[nn.Module]:
    """A class of a module of controlnet_aux, e.g. "hed" and "ControlNetHED_Apache2"."""
    return getattr(network_module(module), name)


def network_module(module: str) -> types.ModuleType:
    """A module of controlnet_aux. Raises DetectorUnavailable when the package is not installed."""
    if _ALIAS not in sys.modules:
        spec = importlib.util.find_spec("controlnet_aux")
        if spec is None or spec.submodule_search_locations is None:
            raise DetectorUnavailable(
                "This detector needs the package controlnet_aux, which is not installed. Install it with: "
                "pip install controlnet_aux"
            )
        alias = types.ModuleType(_ALIAS, "The modules of controlnet_aux under another name.")
        alias.__path__ = list(spec.submodule_search_locations)
        sys.modules.setdefault(_ALIAS, alias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the package, which a user cannot fix
        environment = dict(os.environ)
        try:
            return importlib.import_module(f"{_ALIAS}.{module}")
        finally:  # some of its modules set environment variables
            for added in os.environ.keys() - environment.keys():
                del os.environ[added]
            os.environ.update(environment)
