"""The real editor in a real browser: examples open from the template browser, run, and show their result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlstack.tests.browser.conftest import open_editor
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tools.example_graphs import CANNY, EXAMPLE_GRAPHS, ExampleGraph
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=[False, True], ids=["classic nodes", "vue nodes"])
def editor(browser: Browser, comfy: ComfyServer, request: pytest.FixtureRequest) -> Iterator[Page]:
    with open_editor(browser, comfy.url, request.param) as page:
        yield page


def open_example(page: Page, graph: ExampleGraph) -> None:
    """As a user does: templates, this pack, the image of the example."""
    page.evaluate("() => app.graph.clear()")  # or the example might seem open that a test before has opened
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("controlstack", exact=True).first.click()
    page.get_by_test_id(f"template-workflow-{graph.title}").click()
    wanted = sorted(node["class_type"] for node in graph.nodes.values())
    # By type: the editor's own first graph may have as many nodes and come late.
    page.wait_for_function("types => app.graph.nodes.map(n => n.type).sort().join() === types", arg=",".join(wanted))


@pytest.mark.parametrize("graph", EXAMPLE_GRAPHS, ids=lambda graph: graph.name)
def test_an_example_opens_from_the_template_browser_and_is_its_api_twin(editor: Page, graph: ExampleGraph) -> None:
    open_example(editor, graph)
    missing = editor.evaluate(
        "() => app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n => n.type)"
    )
    assert missing == []
    exported = editor.evaluate("async () => (await app.graphToPrompt()).output")
    exported = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in exported.items()}
    twin = (ROOT / "workflows" / "api" / f"{graph.name}.json").read_text(encoding="utf-8")
    assert exported == json.loads(twin)


def test_an_example_runs_in_the_editor_and_shows_its_result(
    editor: Page, artifacts: Path, request: pytest.FixtureRequest
) -> None:
    open_example(editor, CANNY)
    # A seed of its own: a graph that was run before comes from the cache and sends no events.
    seed = 1000 + len(request.node.name)
    editor.evaluate("seed => { app.graph.getNodeById(10).widgets.find(w => w.name === 'seed').value = seed }", seed)
    editor.evaluate("() => app.queuePrompt(0, 1)")
    editor.wait_for_function("() => app.nodeOutputs?.['22']?.images?.length === 1", timeout=120_000)
    assert editor.evaluate("() => app.lastNodeErrors") in (None, {})
    assert editor.evaluate("() => app.lastExecutionError") is None
    # Classic nodes draw pictures of their own on the canvas; Vue nodes have them as elements.
    editor.wait_for_function(
        """() => {
            const picture = app.graph.getNodeById(22).imgs?.[0] ?? document.querySelector('[data-node-id="22"] img');
            return picture?.complete && picture.naturalWidth === 128;
        }"""
    )
    editor.wait_for_timeout(1500)
    name = request.node.name.replace("[", "-").replace("]", "").replace(" ", "-")
    editor.screenshot(path=artifacts / f"{name}.png")


def test_the_help_page_opens_from_the_node(editor: Page) -> None:
    open_example(editor, CANNY)
    editor.evaluate("() => { const node = app.graph.getNodeById(2); app.canvas.selectNode(node) }")
    editor.get_by_test_id("info-button").evaluate("button => button.click()")
    page = editor.locator(".node-help-content")
    page.get_by_text("Thin white lines on black").wait_for()
    page.get_by_text("Drop edges weaker than this.").wait_for()


def test_the_english_texts_are_served(editor: Page) -> None:
    locale = editor.evaluate("async () => (await fetch('/i18n')).json()")
    assert locale["en"]["nodeDefs"]["ControlStackCanny"]["display_name"] == "Canny Control"
