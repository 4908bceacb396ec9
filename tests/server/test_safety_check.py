"""The safety check in a real ComfyUI: found in its folders, said on the node, and never skipped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.local.tiny_checker import FLAGS_ALL, tiny_checker, write_checker
from controlstack.tests.server.graphs import Graph, canny_graph

CHECKER = "stable-diffusion-safety-checker"


@pytest.fixture
def folder(comfy: ComfyServer) -> Iterator[Path]:
    """ComfyUI's folder for diffusers models; what a test puts there is gone afterwards."""
    folder = comfy.base / "models" / "diffusers"
    yield folder
    shutil.rmtree(folder / CHECKER, ignore_errors=True)


def graph(seed: int) -> Graph:
    graph = canny_graph(seed, batch_size=2)
    graph["21"]["inputs"]["safety_check"] = True
    graph["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["21", 1]}}
    return graph


def test_what_is_flagged_is_squares_and_the_node_says_which(comfy: ComfyServer, folder: Path) -> None:
    write_checker(folder / CHECKER, tiny_checker(FLAGS_ALL))
    result = comfy.run(graph(401))
    assert result.succeeded, result.error
    sentence = (
        "Images 1, 2 of 2 were flagged by the safety check and pixelated. Change the prompt or the seed, "
        "or switch safety_check off."
    )
    assert [text for node, text in result.texts if node == "21"][-1] == sentence
    info = json.loads("".join(result.outputs["31"]["text"]))
    assert info["flagged"] == [0, 1]
    assert info["notes"] == [sentence]
    for picture in comfy.images(result, "22"):
        assert len(np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0)) <= 64


def test_the_checker_is_not_offered_as_a_model(comfy: ComfyServer, folder: Path) -> None:
    write_checker(folder / CHECKER, tiny_checker(FLAGS_ALL))
    inputs = comfy.object_info("ControlStackLoadModel")["input"]
    assert CHECKER not in inputs["required"]["model_name"][1]["options"]


def test_without_the_checker_nothing_runs_and_the_error_says_where_it_belongs(comfy: ComfyServer, folder: Path) -> None:
    result = comfy.run(graph(402))
    assert result.error is not None and result.error["node_id"] == "21"
    said = result.error["exception_message"]
    assert f"{folder} does not contain the diffusers folder {CHECKER}. Download CompVis/{CHECKER} from" in said
    assert not [step for node, step, _ in result.progress if node == "21"]
