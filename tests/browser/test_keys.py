"""The settings page in a real browser: which keys are set, and storing one from a password field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlstack.api_clients.registry import SPECS
from controlstack.tests.browser.conftest import open_editor
from controlstack.tests.comfy_server import ComfyServer
from playwright.sync_api import Browser, Page

KEY = "fake-typed-key-4Gd7Qs"
SECRET = "fake-typed-secret-9Wn2"


@pytest.fixture
def settings_page(browser: Browser, remote_comfy: ComfyServer) -> Iterator[Page]:
    """The pack's own settings, open."""
    with open_editor(browser, remote_comfy.url) as page:
        page.evaluate("() => app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
        page.locator(".settings-container").get_by_text("ControlStack", exact=True).click()
        yield page


def test_a_key_is_typed_stored_and_seen_nowhere(
    settings_page: Page, remote_comfy: ComfyServer, artifacts: Path
) -> None:
    panel = settings_page.locator(".controlstack-keys")
    panel.locator("[data-profile='modelslab_enterprise.default']").first.wait_for()
    assert panel.get_by_text("set (environment)").count() == len(SPECS)
    in_file = panel.get_by_text("set (file)").count()
    file = remote_comfy.base / "user" / "__controlstack" / "credentials.toml"
    settings_page.screenshot(path=artifacts / "keys.png")
    panel.locator("[data-profile='scenario.default']").get_by_role("button", name="Add...").click()
    form = settings_page.locator(".controlstack-key-form")
    form.get_by_label("profile").fill("studio")
    for label, value in (("api_key", KEY), ("api_secret", SECRET)):
        field = form.get_by_label(label)
        assert field.get_attribute("type") == "password"
        field.fill(value)
    settings_page.screenshot(path=artifacts / "key-form.png")
    form.get_by_role("button", name="Store").click()
    try:
        panel.get_by_text("studio").wait_for()
        assert panel.get_by_text("set (file)").count() == in_file + 1
        assert KEY in file.read_text(encoding="utf-8")
        stores = "() => JSON.stringify([{...localStorage}, {...sessionStorage}]) + document.documentElement.outerHTML"
        seen = settings_page.evaluate(stores) + json.dumps(remote_comfy.get("/settings")) + remote_comfy.log
        assert KEY not in seen and SECRET not in seen
        panel.locator("[data-profile='scenario.studio']").get_by_role("button", name="Remove").click()
        panel.get_by_text("studio").wait_for(state="detached")
        assert KEY not in file.read_text(encoding="utf-8")
    finally:
        file.unlink(missing_ok=True)


def test_a_form_says_what_is_wrong_and_stays_open(settings_page: Page) -> None:
    panel = settings_page.locator(".controlstack-keys")
    panel.locator("[data-profile='modelslab_enterprise.default']").first.wait_for()
    panel.locator("[data-profile='qolaba.default']").get_by_role("button", name="Add...").click()
    form = settings_page.locator(".controlstack-key-form")
    form.get_by_label("profile").fill("studio")
    form.get_by_label("api_key").fill("fake key")
    form.get_by_role("button", name="Store").click()
    form.get_by_text("contains spaces").wait_for()
    form.get_by_role("button", name="Cancel").click()
    form.wait_for(state="detached")
