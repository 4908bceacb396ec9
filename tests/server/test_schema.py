"""What saved graphs and users depend on: node ids, names and order of inputs, tooltips, derived pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tools.golden_inputs import GOLDEN, with_additions
from controlstack.tools.write_docs import derived_texts, orphans, stale_files

ROOT = Path(__file__).resolve().parents[2]


def our_nodes(comfy: ComfyServer) -> dict:
    return {name: node for name, node in comfy.get("/object_info").items() if name.startswith("ControlStack")}


def test_saved_graphs_keep_working(comfy: ComfyServer) -> None:
    """Widgets and outputs may be added at the end and links anywhere; nothing may move or go."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    now = with_additions(golden, our_nodes(comfy))
    assert now == golden, "run python dev.py docs --accept-inputs to guard what was added"


def test_every_input_and_output_has_a_tooltip(comfy: ComfyServer) -> None:
    for name, node in our_nodes(comfy).items():
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        for field, spec in inputs.items():
            assert spec[1].get("tooltip"), f"{name}.{field}"
        assert all(node["output_tooltips"]), name
        assert node["description"], name
        assert node["category"].startswith("ControlStack"), name


def test_every_derived_text_is_up_to_date(comfy: ComfyServer) -> None:
    """Help pages, locale, the tables of the README and docs/local.md, example graphs, the index of decisions."""
    texts = derived_texts(comfy.get("/object_info"))
    assert not stale_files(texts) and not orphans(texts), "run python dev.py docs"
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == set(our_nodes(comfy))


@pytest.mark.parametrize("name", ["ControlStackCanny", "ControlStackRequest"])
def test_the_help_page_is_served(comfy: ComfyServer, name: str) -> None:
    answer = comfy.fetch(f"/extensions/controlstack/docs/{name}.md")
    assert answer.text.startswith("# ")
