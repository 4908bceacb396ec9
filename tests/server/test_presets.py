"""The preset node in a real ComfyUI, with networks that were not trained: what it adds, not how well it sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controlstack.preprocessors.detectors.depth import DepthAnything
from controlstack.preprocessors.detectors.softedge import PiDiNet
from controlstack.preprocessors.weights.folders import OWN_FOLDER
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.preprocessors.line_networks import LINE_NETWORKS
from controlstack.tests.server.graphs import Graph


def preset(kind: str, **inputs: Any) -> Graph:
    chosen = {"image": ["1", 0], "preset": kind, "strength": 1.0, **inputs}
    ask = {"target": "Local SD 1.5", "request": ["ask", 0]}
    settings = {"prompt": "", "negative_prompt": "", "width": 128, "height": 128, "steps": 20, "guidance_scale": 7.0}
    request = {**settings, "seed": 0, "batch_size": 1, "clip_skip": 0, "denoise": 1.0, "controls": ["preset", 0]}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "controlstack_scene.png"}},
        "preset": {"class_type": "ControlStackPreset", "inputs": chosen},
        "ask": {"class_type": "ControlStackRequest", "inputs": request},
        "said": {"class_type": "ControlStackExplain", "inputs": ask},
    }


@pytest.fixture
def untrained_files(comfy: ComfyServer) -> Iterator[None]:
    """Files for soft edges and depth with random numbers in them, as large as the published ones."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    folder = comfy.base / "models" / OWN_FOLDER
    backbone = {
        "model_type": "dinov2",
        "hidden_size": 384,
        "num_attention_heads": 6,
        "image_size": 518,
        "patch_size": 14,
        "out_features": ["stage3", "stage6", "stage9", "stage12"],
        "reshape_hidden_states": False,
    }
    config = {"backbone_config": backbone, "fusion_hidden_size": 64, "neck_hidden_sizes": [48, 96, 192, 384]}
    config |= {"model_type": "depth_anything", "reassemble_hidden_size": 384}
    files = [folder / weights.path for weights in (*DepthAnything.weights, *PiDiNet.weights)]
    DepthAnythingForDepthEstimation(DepthAnythingConfig.from_dict(config)).save_pretrained(files[0].parent)
    files[0].write_text(json.dumps(config), encoding="utf-8")
    LINE_NETWORKS["pidinet"].save(folder)
    for file, weights in zip(files, (*DepthAnything.weights, *PiDiNet.weights), strict=True):
        _pad(file, weights.size)
    yield
    for file in files:
        file.unlink()


def _pad(file: Path, size: int) -> None:
    """Spaces behind JSON and zeros behind an archive change nothing."""
    content = file.read_bytes()
    assert len(content) <= size, f"{file} has {len(content)} bytes, the published one {size}"
    file.write_bytes(content.ljust(size, b" " if file.suffix == ".json" else b"\0"))


def test_a_preset_adds_its_controls_and_says_which(comfy: ComfyServer, untrained_files: None) -> None:
    result = comfy.run(preset("landscape", strength=0.5))
    assert result.succeeded, result.error
    assert "".join(result.outputs["preset"]["text"]).splitlines() == [
        "Depth: strength 0.5, for 100% of the steps",
        "Soft Edge: strength 0.2, for 50% of the steps",
    ]
    said = "".join(result.outputs["said"]["text"])
    assert all(modality in said for modality in ("depth", "softedge")), "they have reached the request"


def test_a_preset_whose_files_are_missing_names_the_first(comfy: ComfyServer) -> None:
    error = comfy.run(preset("city")).error
    assert error is not None and error["node_id"] == "preset"
    assert error["exception_message"].startswith("mlsd_large_512_fp32.pth (6.3 MB) is needed and cannot be downloaded")


def test_a_preset_of_strength_0_is_left_out(comfy: ComfyServer) -> None:
    result = comfy.run(preset("city", strength=0.0))
    assert result.succeeded, result.error
    assert "".join(result.outputs["said"]["text"]).startswith("Local SD 1.5 can run this request")
