"""Every example graph runs in a real ComfyUI, through /prompt."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tools.example_graphs import (
    EXAMPLE_GRAPHS,
    LOCAL_GRAPHS,
    MAP_GRAPHS,
    REMOTE_GRAPHS,
    SIDE,
    ExampleGraph,
)
from controlstack.tools.fake_services.running import Services

ROOT = Path(__file__).resolve().parents[2]


def parametrised(graphs: tuple[ExampleGraph, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("graph", graphs, ids=lambda graph: graph.name)


def nodes_of(graph: ExampleGraph, class_type: str) -> list[str]:
    return [key for key, node in graph.nodes.items() if node["class_type"] == class_type]


def as_sent(saved: dict) -> dict:
    """The graph out of a picture, without the checksum that ComfyUI adds to LoadImage."""
    return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in saved.items()}


@parametrised(LOCAL_GRAPHS)
def test_an_example_runs_with_progress_and_previews_and_saves_its_graph(
    comfy: ComfyServer, graph: ExampleGraph
) -> None:
    result = comfy.run(graph.nodes)
    assert result.succeeded, result.error
    (picture,) = comfy.images(result, "22")
    request = graph.nodes["10"]["inputs"]
    assert picture.size == (request["width"], request["height"])
    assert as_sent(json.loads(picture.info["prompt"])) == graph.nodes
    wanted = int(request["steps"] * request["denoise"])
    steps = [step for node, step, total in result.progress if node == "21" and total == wanted]
    assert steps[-1] == wanted
    assert steps == sorted(steps)
    assert result.previews >= 1


@parametrised(MAP_GRAPHS)
def test_an_example_of_maps_runs_and_shows_every_map(comfy: ComfyServer, graph: ExampleGraph) -> None:
    """One that would fetch trained files runs with its controls switched off, and shows the picture itself."""
    nodes = copy.deepcopy(dict(graph.nodes))
    for node in nodes.values() if graph.fetches else ():
        off = {"enabled": False, "strength": 0.0}
        node["inputs"] |= {name: value for name, value in off.items() if name in node["inputs"]}
    result = comfy.run(nodes)
    assert result.succeeded, result.error
    assert not result.node_errors
    maps = [comfy.images(result, key)[0] for key in nodes_of(graph, "PreviewImage")]
    assert maps and {picture.size for picture in maps} == {(512, 512)}
    assert graph.fetches or len({picture.tobytes() for picture in maps}) == len(maps)
    assert graph.fetches or not result.texts, "an example has nothing to warn of"


@parametrised(REMOTE_GRAPHS)
def test_an_example_runs_at_its_service(remote_comfy: ComfyServer, services: Services, graph: ExampleGraph) -> None:
    result = remote_comfy.run(graph.nodes)
    assert result.succeeded, result.error
    (picture,) = remote_comfy.images(result, "22")
    assert picture.size == (SIDE, SIDE)
    assert as_sent(json.loads(picture.info["prompt"])) == graph.nodes
    assert sum(double.charged for double in services.doubles) == 1


@parametrised(EXAMPLE_GRAPHS)
def test_the_files_are_those_of_the_graph(graph: ExampleGraph) -> None:
    folder = ROOT / "workflows"
    assert json.loads((folder / "api" / f"{graph.name}.json").read_text(encoding="utf-8")) == graph.nodes
    assert (folder / f"{graph.title}.jpg").stat().st_size > 1000
    workflow = json.loads((folder / f"{graph.title}.json").read_text(encoding="utf-8"))
    assert {node["type"] for node in workflow["nodes"]} == {node["class_type"] for node in graph.nodes.values()}


def test_every_workflow_file_has_its_graph() -> None:
    files, twins = (ROOT / "workflows").glob("*.json"), (ROOT / "workflows" / "api").glob("*.json")
    assert {path.stem for path in files} == {graph.title for graph in EXAMPLE_GRAPHS}
    assert {path.stem for path in twins} == {graph.name for graph in EXAMPLE_GRAPHS}


def test_every_node_stands_in_an_example(comfy: ComfyServer) -> None:
    used = {node["class_type"] for graph in EXAMPLE_GRAPHS for node in graph.nodes.values()}
    ours = {name for name in comfy.get("/object_info") if name.startswith("ControlStack")}
    assert ours <= used


def test_the_same_graph_again_is_served_from_the_cache(comfy: ComfyServer) -> None:
    graph = EXAMPLE_GRAPHS[0].nodes
    first, again = comfy.run(graph), comfy.run(graph)
    assert first.succeeded and again.succeeded
    assert "21" in again.cached
