"""The browser, and the editor in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, sync_playwright

# Without these the browser talks to its maker at every start.
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
READY = "() => window.app?.extensionManager && window.LiteGraph?.registered_node_types?.ControlStackCanny"


@pytest.fixture(scope="session")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=str(chromium), args=FLAGS.split())
        yield instance
        instance.close()


@contextlib.contextmanager
def open_editor(browser: Browser, url: str, vue_nodes: bool = False) -> Iterator[Page]:
    """The editor, ready, with nothing but its server reachable."""
    # Before the tutorial is done, the template browser covers everything.
    for key, value in {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": vue_nodes}.items():
        requests.post(f"{url}/settings/{key}", json=value, timeout=10).raise_for_status()
    page = browser.new_page(viewport={"width": 1700, "height": 1100})
    page.set_default_timeout(90_000)  # of a machine with other things to do
    page.route(lambda asked: asked.startswith("http") and not asked.startswith(url), lambda route: route.abort())
    page.goto(url)
    page.wait_for_function(READY)
    yield page
    page.close()
