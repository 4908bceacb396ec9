"""What a user sees when something is wrong: the right kind of error, at the right node, as a sentence."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from controlstack.tests.comfy_server import ComfyServer, GraphRejectedError, RunResult
from controlstack.tests.server.graphs import Graph, canny_graph


def failure(result: RunResult, node: str) -> str:
    """The message of the run's error, which must come from `node`."""
    assert result.error is not None, "the run was expected to fail"
    assert result.error["node_id"] == node
    return result.error["exception_message"].strip()


def refusal(comfy: ComfyServer, graph: Graph, node: str) -> dict[str, Any]:
    """The one error that the server reports for `node` without running anything."""
    status, answer = comfy.post(graph)
    assert status == 400, answer
    (error,) = answer["node_errors"][node]["errors"]
    return error


def test_a_missing_image_is_refused_before_anything_runs(comfy: ComfyServer) -> None:
    graph = canny_graph(100)
    del graph["2"]["inputs"]["image"]
    error = refusal(comfy, graph, "2")
    assert error["type"] == "required_input_missing"
    assert error["extra_info"]["input_name"] == "image"


@pytest.mark.parametrize(
    ("node", "name", "value", "kind"),
    [
        ("10", "steps", 0, "value_smaller_than_min"),
        ("10", "width", 0, "value_smaller_than_min"),
        ("2", "strength", 9.0, "value_bigger_than_max"),
        ("2", "end_percent", 1.5, "value_bigger_than_max"),
    ],
)
def test_numbers_outside_their_range_are_refused_with_the_field(
    comfy: ComfyServer, node: str, name: str, value: float, kind: str
) -> None:
    graph = canny_graph(101)
    graph[node]["inputs"][name] = value
    error = refusal(comfy, graph, node)
    assert error["type"] == kind
    assert error["extra_info"]["input_name"] == name


@pytest.mark.parametrize(
    ("node", "changes", "sentence"),
    [
        ("21", {"10": {"width": 100}}, "accepts only multiples of 8 from 64 to 2048. Set it to 96."),
        ("21", {"2": {"start_percent": 0.6, "end_percent": 0.4}}, "control 1 (canny) window is 0.6 to 0.4:"),
        ("21", {"2": {"detect": "service"}}, "control 1 (canny) detect is service, but"),
        ("21", {"10": {"denoise": 0.5}}, "denoise is 0.5, but no init_image is connected."),
        ("21", {"10": {"mask": ["1", 1]}}, "mask is connected without an init_image."),
        ("2", {"2": {"detect": "guess"}}, "detect is 'guess'. It must be one of local, service, none."),
        ("2", {"2": {"resize": "bend"}}, "resize is 'bend'. It must be one of crop, fit, stretch."),
        ("20", {"20": {"precision": "fp99"}}, "precision is 'fp99'. It must be one of auto, fp32, fp16, bf16, fp8."),
        ("20", {"20": {"model_name": "gone"}}, "model_name is 'gone', but ComfyUI has no model of this name."),
    ],
)
def test_a_mistake_is_one_sentence_at_its_node(
    comfy: ComfyServer, node: str, changes: dict[str, dict[str, Any]], sentence: str
) -> None:
    graph = canny_graph(102)
    for key, inputs in changes.items():
        graph[key]["inputs"] |= inputs
    try:
        result = comfy.run(graph)
    except GraphRejectedError as rejected:  # ComfyUI 0.8 and later refuse unknown combo values themselves
        assert rejected.answer["node_errors"][node]["errors"][0]["type"] == "value_not_in_list"
        return
    assert sentence in failure(result, node)


def test_all_problems_are_told_at_once(comfy: ComfyServer) -> None:
    graph = canny_graph(104, width=100, height=20 * 8 + 4)
    graph["2"]["inputs"]["detect"] = "service"
    message = failure(comfy.run(graph), "21")
    assert "There are 3 problems" in message


def test_a_corrupt_model_is_a_sentence_with_its_path(comfy: ComfyServer) -> None:
    broken = comfy.base / "models" / "diffusers" / "broken"
    broken.mkdir(parents=True)
    (broken / "model_index.json").write_text("{", encoding="utf-8")
    assert "broken" in comfy.object_info("ControlStackLoadModel")["input"]["required"]["model_name"][1]["options"]
    graph = canny_graph(105)
    graph["20"]["inputs"]["model_name"] = "broken"
    message = failure(comfy.run(graph), "20")
    assert str(Path("broken") / "model_index.json") in message
    assert "Download the model again" in message


def test_a_model_in_the_models_folder_is_found_and_runs(comfy: ComfyServer, root: Path) -> None:
    link = comfy.base / "models" / "diffusers" / "mine" / "tiny"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(root / "assets" / "demo_model", target_is_directory=True)
    graph = canny_graph(106)
    graph["20"]["inputs"]["model_name"] = "mine/tiny"
    assert comfy.run(graph).succeeded


def test_switched_off_controls_pass_through(comfy: ComfyServer) -> None:
    graph = canny_graph(107)
    graph["2"]["inputs"]["enabled"] = False
    graph["30"] = {"class_type": "ControlStackExplain", "inputs": {"request": ["10", 0], "target": "Local SD 1.5"}}
    result = comfy.run(graph)
    assert result.succeeded
    text = "".join(result.outputs["30"]["text"])
    assert text.startswith("Local SD 1.5 can run this request")
    assert "controls" not in json.loads(text.partition("\n")[2])


def test_explain_lists_the_problems_without_running_anything(comfy: ComfyServer) -> None:
    graph = {key: node for key, node in canny_graph(108, width=100).items() if key in ("1", "2", "10")}
    graph["2"]["inputs"]["start_percent"] = 1.0
    graph["30"] = {"class_type": "ControlStackExplain", "inputs": {"request": ["10", 0], "target": "Local SD 1.5"}}
    lines = "".join(comfy.run(graph).outputs["30"]["text"]).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("width is 100, but")
    assert lines[1].startswith("control 1 (canny) window is 1 to 1:")


def test_the_scheduler_node_reaches_the_engine(comfy: ComfyServer) -> None:
    graph = canny_graph(109)
    choice = {"scheduler": "EulerDiscreteScheduler", "use_karras_sigmas": True, "algorithm_type": "default"}
    graph["5"] = {"class_type": "ControlStackScheduler", "inputs": choice}
    graph["10"]["inputs"]["scheduler"] = ["5", 0]
    graph["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["21", 1]}}
    result = comfy.run(graph)
    info = json.loads("".join(result.outputs["31"]["text"]))
    assert info["scheduler"] == "EulerDiscreteScheduler"
    assert info["seeds"] == [109]
    assert info["model"] == "demo (embedded)"
    assert info["nets"] == ["canny"]


def test_interrupt_stops_within_a_step_and_the_next_run_works(comfy: ComfyServer) -> None:
    def interrupt_at_first_step(kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data["node"] == "21" and not asked:
            asked.append(time.monotonic())
            threading.Thread(target=comfy.interrupt).start()

    asked: list[float] = []
    result = comfy.run(canny_graph(110, steps=500), on_event=interrupt_at_first_step)
    assert result.interrupted
    assert time.monotonic() - asked[0] < 10
    assert comfy.run(canny_graph(111)).succeeded
