"""What saved graphs and users depend on: node ids, names and order of inputs, tooltips, derived pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tools.write_reference import reference_files

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden_inputs.json")
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def our_nodes(comfy: ComfyServer) -> dict:
    return {name: node for name, node in comfy.get("/object_info").items() if name.startswith("ControlStack")}


def signature(node: dict) -> dict[str, list[str]]:
    """Names of widgets in order (saved graphs hold their values by position), of links, and of outputs."""
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    return {
        "widgets": [name for name, spec in inputs.items() if spec[0] in WIDGETS],
        "links": [name for name, spec in inputs.items() if spec[0] not in WIDGETS],
        "outputs": node["output_name"],
    }


def test_saved_graphs_keep_working(comfy: ComfyServer) -> None:
    """Widgets and outputs may be added at the end and links anywhere; nothing may move or go."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    nodes = our_nodes(comfy)
    for name, expected in golden.items():
        now = signature(nodes[name])
        assert now["widgets"][: len(expected["widgets"])] == expected["widgets"], name
        assert now["outputs"][: len(expected["outputs"])] == expected["outputs"], name
        assert set(expected["links"]) <= set(now["links"]), name
    assert set(nodes) == set(golden), "a new node belongs into golden_inputs.json"


def test_every_input_and_output_has_a_tooltip(comfy: ComfyServer) -> None:
    for name, node in our_nodes(comfy).items():
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        for field, spec in inputs.items():
            assert spec[1].get("tooltip"), f"{name}.{field}"
        assert all(node["output_tooltips"]), name
        assert node["description"], name
        assert node["category"].startswith("ControlStack"), name


def test_help_pages_locale_and_support_matrix_are_up_to_date(comfy: ComfyServer) -> None:
    files = reference_files(comfy.get("/object_info"), (ROOT / "README.md").read_text(encoding="utf-8"))
    stale = [
        str(path) for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run python -m controlstack.tools.write_reference"
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == set(our_nodes(comfy))


@pytest.mark.parametrize("name", ["ControlStackCanny", "ControlStackRequest"])
def test_the_help_page_is_served(comfy: ComfyServer, name: str) -> None:
    answer = comfy.fetch(f"/extensions/controlstack/docs/{name}.md")
    assert answer.text.startswith("# ")
