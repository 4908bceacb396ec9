"""What `dev.py docs` derives: the index of decisions, and the guard of saved graphs that it may only add to."""

from __future__ import annotations

from pathlib import Path

import pytest
from controlstack.tools import write_docs
from controlstack.tools.decision_index import index_page
from controlstack.tools.golden_inputs import with_additions

GOLDEN = {"ControlStackA": {"widgets": ["x", "y"], "links": ["image"], "outputs": ["map"]}}


def node(widgets: str, links: str = "image", outputs: str = "map") -> dict:
    """A node of /object_info with these inputs and outputs, each a space-separated list of names."""
    required = {name: ["INT", {}] for name in widgets.split()} | {name: ["IMAGE", {}] for name in links.split()}
    return {"input": {"required": required}, "output_name": outputs.split()}


def test_the_index_lists_every_decision_in_order(tmp_path: Path) -> None:
    (tmp_path / "0002-b.md").write_text("# Second\n\nDate: 2026-02-01\n\ntext\n")
    (tmp_path / "0001-a.md").write_text("# First\n\nDate: 2026-01-31\n")
    (tmp_path / "README.md").write_text("not a decision\n")
    rows = index_page(tmp_path).splitlines()[-2:]
    assert rows == ["| [0001](0001-a.md) | First | 2026-01-31 |", "| [0002](0002-b.md) | Second | 2026-02-01 |"]


@pytest.mark.parametrize("text", ["First\n\nDate: 2026-01-31\n", "# First\n\nDate: January\n"])
def test_a_decision_without_title_or_date_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "0001-a.md").write_text(text)
    with pytest.raises(ValueError, match=r"0001-a\.md needs"):
        index_page(tmp_path)


def test_what_is_appended_is_recorded() -> None:
    nodes = {"ControlStackA": node("x y z", "image mask", "map more"), "ControlStackB": node("n"), "Other": node("m")}
    golden = with_additions(GOLDEN, nodes)
    appended = {"widgets": ["x", "y", "z"], "links": ["image", "mask"], "outputs": ["map", "more"]}
    assert golden["ControlStackA"] == appended
    assert list(golden) == ["ControlStackA", "ControlStackB"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ({"ControlStackA": node("y x")}, "widgets were"),
        ({"ControlStackA": node("z x y")}, "widgets were"),
        ({"ControlStackA": node("x")}, "widgets were"),
        ({"ControlStackA": node("x y", outputs="more map")}, "outputs were"),
        ({"ControlStackA": node("x y", links="mask")}, "links"),
        ({}, "gone"),
    ],
    ids=["moved", "put before", "removed", "output moved", "link removed", "node removed"],
)
def test_what_would_break_saved_graphs_is_never_recorded(nodes: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        with_additions(GOLDEN, nodes)


def test_a_stale_a_missing_and_a_left_over_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_docs, "DERIVED_ONLY", ((tmp_path, ".md"),))
    for name in ("same.md", "stale.md", "left.md"):
        (tmp_path / name).write_text("text")
    texts = {tmp_path / "same.md": "text", tmp_path / "stale.md": "other", tmp_path / "missing.md": "text"}
    assert write_docs.stale_files(texts) == [tmp_path / "stale.md", tmp_path / "missing.md"]
    assert write_docs.orphans(texts) == [tmp_path / "left.md"]
