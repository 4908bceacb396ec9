"""Files in ComfyUI's model folders, and in folders that extra_model_paths.yaml adds, from the combo to the picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from controlstack.models.families import Family
from controlstack.tests.comfy_server import ComfyServer, comfy_server
from controlstack.tests.local.packed_files import FOLDERS, empty_library, write_parts
from controlstack.tests.local.tiny_models import components
from controlstack.tests.server.graphs import Graph, canny_graph
from controlstack.tests.server.probe import probe
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
DEMO_NET = ROOT / "assets" / "demo_model" / "controlnet" / "canny"
XL_NET = {
    "controlnet_cond_embedding.conv_in.weight": torch.zeros(16, 3, 3, 3),
    "controlnet_down_blocks.0.weight": torch.zeros(8, 8, 1, 1),
    "add_embedding.linear_1.weight": torch.zeros(8, 8),
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside ComfyUI, with one file for each place."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("nets", "checkpoints", "transformers", "vae", "encoders"):
        (folder / name).mkdir()
    save_file(load_file(DEMO_NET / "diffusion_pytorch_model.safetensors"), folder / "nets" / "my_net.safetensors")
    save_file(XL_NET, folder / "nets" / "xl_canny.safetensors")
    save_file({"joint_blocks.0.x.weight": torch.zeros(4, 4)}, folder / "checkpoints" / "sd3.safetensors")
    fill = {"double_blocks.0.img_attn.x": torch.zeros(4, 4), "img_in.weight": torch.zeros(4, 384)}
    save_file(fill, folder / "transformers" / "flux.safetensors")
    for place, name in (("vae", "ae"), ("encoders", "clip_l")):
        save_file({"x": torch.zeros(1)}, folder / place / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def comfy_elsewhere(elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A server that is told of that folder."""
    places = {
        "controlnet": "nets",
        "checkpoints": "checkpoints",
        "diffusion_models": "transformers",
        "vae": "vae",
        "clip": "encoders",
    }
    config = elsewhere / "extra_model_paths.yaml"
    lines = [f"    {name}: {place}" for name, place in places.items()]
    config.write_text("\n".join(["mine:", f"    base_path: {elsewhere.as_posix()}", *lines, ""]), encoding="utf-8")
    base = tmp_path_factory.mktemp("comfyui_elsewhere")
    with comfy_server(base, "--extra-model-paths-config", str(config)) as server:
        yield server


def options(comfy: ComfyServer, node: str, name: str) -> list[str]:
    inputs = comfy.object_info(node)["input"]
    return {**inputs.get("required", {}), **inputs.get("optional", {})}[name][1]["options"]


def with_net(seed: int, **nets: str) -> Graph:
    graph = canny_graph(seed)
    graph["19"] = {"class_type": "ControlStackControlNetModels", "inputs": nets}
    graph["20"]["inputs"]["nets"] = ["19", 0]
    graph["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["21", 1]}}
    return graph


def message(comfy: ComfyServer, graph: Graph, node: str) -> str:
    error: dict[str, Any] | None = comfy.run(graph).error
    assert error is not None and error["node_id"] == node, error
    return error["exception_message"].strip()


def test_files_of_all_folders_are_offered(comfy_elsewhere: ComfyServer) -> None:
    load = "ControlStackLoadModel"
    assert options(comfy_elsewhere, load, "model_name") == [
        "demo (embedded)",
        "sd3.safetensors",
        "flux.safetensors",
    ]
    assert options(comfy_elsewhere, load, "vae_name") == ["automatic", "ae.safetensors"]
    assert options(comfy_elsewhere, load, "text_encoder_2") == ["automatic", "clip_l.safetensors"]
    nets = ["automatic", "my_net.safetensors", "xl_canny.safetensors"]
    assert options(comfy_elsewhere, "ControlStackControlNetModels", "tile") == nets


def test_a_chosen_net_runs_and_is_named(comfy_elsewhere: ComfyServer) -> None:
    result = comfy_elsewhere.run(with_net(301, canny="my_net.safetensors"))
    assert result.succeeded, result.error
    info = json.loads("".join(result.outputs["31"]["text"]))
    assert info["nets"] == ["my_net.safetensors"]
    assert info["family"] == "SD 1.5"


def test_a_net_of_another_family_is_refused_where_the_model_is_loaded(comfy_elsewhere: ComfyServer) -> None:
    said = message(comfy_elsewhere, with_net(302, canny="xl_canny.safetensors"), "20")
    assert said == (
        "xl_canny.safetensors is a ControlNet for SDXL, but the model is SD 1.5. Choose another ControlNet for canny."
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sd3.safetensors", "sd3.safetensors is of the SD 3 family. The local engine runs SD 1.5, SDXL, FLUX.1 dev"),
        ("flux.safetensors", "flux.safetensors has 384 input channels, but a diffusion model"),
    ],
)
def test_a_file_that_cannot_be_run_is_a_sentence(comfy_elsewhere: ComfyServer, name: str, sentence: str) -> None:
    graph = canny_graph(303)
    graph["20"]["inputs"]["model_name"] = name
    assert message(comfy_elsewhere, graph, "20").startswith(sentence)


# ComfyUI calls a node's INPUT_TYPES for /object_info, and in every run to validate, to compare and to execute it.
LOOKS = """
import os
from pack.nodes import generate_local, load_model
walks = []
walk = os.walk
os.walk = lambda root, **more: walks.append(str(root)) or walk(root, **more)
for _ in range(10):
    for node in (
        load_model.ControlStackControlNetModels,
        load_model.ControlStackLoadModel,
        generate_local.ControlStackGenerateLocal,
    ):
        node.INPUT_TYPES()
os.walk = walk
found["walks"], found["folders"] = len(walks), len(set(walks))
"""
PARTS = """
import os
from pathlib import Path
from pack.models.library import Library
from pack.nodes import comfy, load_model
root = Path({root!r})
own = Library({{name: [root / name] for name in {folders!r}}}, Path({tokenizer!r}), root / "t5", root / "configs")
comfy.library = lambda: own
node = load_model.ControlStackLoadModel

def look():
    mark = node.fingerprint_inputs(model_name="alone.safetensors", precision="fp32")
    node.execute("alone.safetensors", "fp32")
    return mark

found["marks"] = [look(), look()]
os.utime(root / "vae" / "ae.safetensors", ns=(0, 0))
found["marks"].append(look())
found["loads"], found["hits"] = load_model.MODELS.loads, load_model.MODELS.hits
(root / "vae" / "ae.safetensors").unlink()
found["gone"] = str(node.fingerprint_inputs(model_name="alone.safetensors", precision="fp32"))
"""


def test_the_model_folders_are_walked_through_once_however_often_comfyui_looks_at_the_nodes() -> None:
    found = probe({"looks": LOOKS})["looks"]
    assert found["walks"] == found["folders"] > 0


def test_a_part_that_automatic_found_is_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    library = empty_library(tmp_path)
    write_parts(library, Family.SD15, components())
    tokenizer = str(library.clip_tokenizer)
    found = probe({"parts": PARTS.format(root=str(tmp_path), folders=FOLDERS, tokenizer=tokenizer)})["parts"]
    first, again, replaced = found["marks"]
    assert first == again != replaced
    assert (found["loads"], found["hits"]) == (2, 1)
    assert found["gone"] == "nan", "the node runs, and says what is missing"
