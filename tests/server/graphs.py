"""Small graphs to vary in tests."""

from __future__ import annotations

import copy
from typing import Any

from controlstack.tools.example_graphs import CANNY

Graph = dict[str, dict[str, Any]]


def canny_graph(seed: int, **request: Any) -> Graph:
    """The canny example with two steps and its own seed, so that nothing comes from the cache."""
    graph = copy.deepcopy(dict(CANNY.nodes))
    del graph["3"]  # with a second output that is fine, ComfyUI would run that one and answer 200
    graph["10"]["inputs"] |= {"seed": seed, "steps": 2, **request}
    return graph
