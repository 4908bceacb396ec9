"""Graphs that end at a service, to vary in tests."""

from __future__ import annotations

import json
from typing import Any

from controlstack.api_clients.registry import ENDPOINTS, node_id
from controlstack.tests.comfy_server import RunResult
from controlstack.tests.server.graphs import Graph
from controlstack.tools.example_graphs import Link, node

NODES = {node_id(endpoint): endpoint.service for endpoint in ENDPOINTS}
SIZE = 256


def request_graph(seed: int, **request: Any) -> Graph:
    """Picture (1), canny control (2) and request (10); a seed of its own keeps every request apart from the others."""
    shared = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "resize": "crop", "enabled": True}
    values = {
        "prompt": "a lighthouse at dawn",
        "negative_prompt": "",
        "width": SIZE,
        "height": SIZE,
        "steps": 21,
        "guidance_scale": 7.5,
        "seed": seed,
        "batch_size": 1,
        "clip_skip": 0,
        "denoise": 1.0,
        "controls": ["2", 0],
    }
    return {
        "1": node("LoadImage", image="controlstack_scene.png"),
        "2": node("ControlStackCanny", image=["1", 0], detect="none", low_threshold=100, high_threshold=200, **shared),
        "10": node("ControlStackRequest", **(values | request)),
    }


def remote_graph(kind: str, seed: int, request: dict[str, Any] | None = None, **fields: Any) -> Graph:
    """The request at one service (20), its pictures (21), info (22) and job id (23) shown."""
    return {**request_graph(seed, **(request or {})), **remote_nodes(kind, ["10", 0], 20, **fields)}


def remote_nodes(kind: str, request: Link, first: int, **fields: Any) -> Graph:
    """A remote node and what shows its outputs, with ids from `first` on."""
    name = str(first)
    return {
        name: node(kind, request=request, **({"profile": "default"} | fields)),
        str(first + 1): node("PreviewImage", images=[name, 0]),
        str(first + 2): node("PreviewAny", source=[name, 1]),
        str(first + 3): node("PreviewAny", source=[name, 2]),
    }


def shown(result: RunResult, node_id: str) -> str:
    """The text that a PreviewAny shows."""
    return "".join(result.outputs[node_id]["text"])


def info(result: RunResult, node_id: str = "22") -> dict[str, Any]:
    """The info of the remote node before it."""
    return json.loads(shown(result, node_id))
