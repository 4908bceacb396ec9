"""What every test may ask for: the real server, the browser's path, the places of the clone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from controlstack.tests.comfy_server import ComfyServer, comfy_server
from controlstack.tools.fake_services.running import Services, running_services
from controlstack.workshop.browser import find_chromium

ROOT = Path(__file__).resolve().parent.parent
API_WORKFLOWS = ROOT / "workflows" / "api"
ARTIFACTS = ROOT / ".artifacts"


# The fixtures that start a ComfyUI server or a browser: a test that asks for one is marked by itself.
SERVER_FIXTURES, BROWSER_FIXTURES = {"comfy", "remote_comfy"}, {"chromium"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `dev.py test --fast` leaves out, except the slow ones, which carry their own marker.

    A test belongs to the server or the browser if it stands in that folder or uses such a fixture.
    """
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        fixtures = set(getattr(item, "fixturenames", ()))
        if folder == "server" or fixtures & SERVER_FIXTURES:
            item.add_marker(pytest.mark.server)
        if folder == "browser" or fixtures & BROWSER_FIXTURES:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def root() -> Path:
    """The clone."""
    return ROOT


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots and the like are kept after a run; ignored by git."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The session's one real ComfyUI server with the pack, and its client. It fetches nothing from the hub."""
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_HUB_OFFLINE", "1")
            server = stack.enter_context(comfy_server(tmp_path_factory.mktemp("comfyui")))
        yield server


@pytest.fixture(scope="session")
def all_services() -> Iterator[Services]:
    """The session's doubles of the remote services; tests ask for `services`."""
    with running_services() as running:
        yield running


@pytest.fixture
def services(all_services: Services) -> Services:
    """The doubles, as if just started."""
    all_services.reset()
    return all_services


@pytest.fixture(scope="session")
def remote_comfy(all_services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The session's real ComfyUI server whose remote nodes reach the doubles, with their fake keys."""
    environment = {**all_services.environment, "CONTROLSTACK_WEBHOOK_URL": "https://comfy.example"}
    with comfy_server(tmp_path_factory.mktemp("comfyui_remote"), environment=environment) as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser to drive. Without one the test is skipped, and under CI=true it fails."""
    found = find_chromium()
    if found is None:
        reason = "no Chromium, Chrome or Edge found; CHROMIUM_PATH may name one"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found
