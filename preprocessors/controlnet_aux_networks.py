"""The network classes of the package controlnet_aux, without what its own import does.

Importing that package loads everything it has, replaces five models of timm for the whole process, and fails beside
a current mediapipe. Its modules import each other relatively, so they work just as well below an empty package of
another name; then only what is asked for is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
import warnings
from typing import TYPE_CHECKING

from ..core.errors import DetectorUnavailable

if TYPE_CHECKING:
    from torch import nn

_ALIAS = "_controlstack_controlnet_aux"


def network_class(module: str, name: str) -> type[nn.Module]:
    """A network class by its module below controlnet_aux and its name, e.g. "hed" and "ControlNetHED_Apache2"."""
    return getattr(network_module(module), name)


def network_module(module: str) -> types.ModuleType:
    """A module of controlnet_aux; raises DetectorUnavailable where the package is not installed."""
    if _ALIAS not in sys.modules:
        spec = importlib.util.find_spec("controlnet_aux")
        if spec is None or spec.submodule_search_locations is None:
            raise DetectorUnavailable(
                "This detector's network comes from the package controlnet_aux, which is not installed. Install it "
                "with: pip install controlnet_aux"
            )
        alias = types.ModuleType(_ALIAS, "controlnet_aux under a name of our own; see controlnet_aux_networks.py")
        alias.__path__ = list(spec.submodule_search_locations)
        sys.modules.setdefault(_ALIAS, alias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the package, which its user cannot act upon
        environment = dict(os.environ)
        try:
            return importlib.import_module(f"{_ALIAS}.{module}")
        finally:  # some of its modules set variables for the whole process
            for added in os.environ.keys() - environment.keys():
                del os.environ[added]
            os.environ.update(environment)
