"""Keys through the browser: they go in, are used, and never come out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from controlstack.api_clients.registry import SPECS
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.server.remote_graphs import info, remote_graph
from controlstack.tests.server.test_errors import failure
from controlstack.tools.fake_services.double import Step
from controlstack.tools.fake_services.running import Services
from controlstack.tools.fake_services.scenario import KEY, SECRET

ROUTE = "/controlstack/credentials"
WRONG = {"api_key": "fake-wrong-key-2Jx6Lm9", "api_secret": "fake-wrong-secret-7Yt3"}


@pytest.fixture
def keys_file(remote_comfy: ComfyServer) -> Iterator[Path]:
    """Where the server keeps stored keys; none before and after."""
    file = remote_comfy.base / "user" / "__controlstack" / "credentials.toml"
    assert not file.exists()
    yield file
    file.unlink(missing_ok=True)


def store(comfy: ComfyServer, body: Any, headers: dict[str, str] | None = None, path: str = ROUTE) -> requests.Response:
    sent = {"Content-Type": "application/json", **(headers or {})}
    data = body if isinstance(body, bytes) else json.dumps(body)
    return requests.post(comfy.url + path, data=data, headers=sent, timeout=30)


def profiles(comfy: ComfyServer) -> dict[tuple[str, str], dict[str, Any]]:
    services = comfy.get(ROUTE)["services"]
    return {(told["service"], profile["profile"]): profile for told in services for profile in told["profiles"]}


def test_every_service_is_told_with_what_is_set_and_from_where(remote_comfy: ComfyServer, services: Services) -> None:
    answer = remote_comfy.get(ROUTE)
    assert [told["service"] for told in answer["services"]] == list(SPECS)
    assert profiles(remote_comfy)["scenario", "default"] == {
        "profile": "default",
        "set": True,
        "from": "environment",
        "problem": "",
    }
    assert not [key for key in services.keys if key in json.dumps(answer)]


def test_a_stored_key_is_used_by_its_profile_and_never_told(
    remote_comfy: ComfyServer, services: Services, keys_file: Path
) -> None:
    values = {"api_key": KEY, "api_secret": SECRET}
    answer = store(remote_comfy, {"service": "scenario", "profile": "studio", "values": values})
    assert answer.status_code == 200, answer.text
    assert profiles(remote_comfy)["scenario", "studio"]["from"] == "file"
    if os.name == "posix":
        assert keys_file.stat().st_mode & 0o777 == 0o600
    result = remote_comfy.run(remote_graph("ControlStackScenario", 200, profile="studio"))
    assert result.succeeded and info(result)["profile"] == "studio"
    assert services.scenario.paid == 1
    told = answer.text + json.dumps(remote_comfy.get(ROUTE)) + json.dumps(remote_comfy.get("/settings"))
    assert KEY not in told and SECRET not in told


def test_a_wrong_key_is_refused_by_the_service_and_told_without_it(
    remote_comfy: ComfyServer, services: Services, keys_file: Path
) -> None:
    store(remote_comfy, {"service": "scenario", "profile": "old", "values": WRONG}).raise_for_status()
    message = failure(remote_comfy.run(remote_graph("ControlStackScenario", 201, profile="old")), "20")
    assert "Unauthorized" in message
    assert services.scenario.count(Step.SUBMIT) == 1 and services.scenario.charged == 0
    assert not [value for value in WRONG.values() if value in message or value in remote_comfy.log]


def test_storing_nothing_removes_a_profile(remote_comfy: ComfyServer, keys_file: Path) -> None:
    store(remote_comfy, {"service": "scenario", "profile": "old", "values": WRONG}).raise_for_status()
    assert ("scenario", "old") in profiles(remote_comfy)
    store(remote_comfy, {"service": "scenario", "profile": "old"}).raise_for_status()
    assert ("scenario", "old") not in profiles(remote_comfy)


GOOD = {"service": "scenario", "profile": "evil", "values": WRONG}


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"Origin": "https://evil.example"}, ROUTE),
        ({"Origin": "https://evil.example"}, "/api" + ROUTE),
        ({"Origin": "null"}, ROUTE),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, ROUTE),
        ({"Host": "192.0.2.7:8188"}, ROUTE),
        ({"Sec-Fetch-Site": "cross-site"}, ROUTE),
        ({"Sec-Fetch-Site": "same-site"}, ROUTE),
        ({"Content-Type": "text/plain"}, ROUTE),
        ({"Content-Type": "application/x-www-form-urlencoded"}, ROUTE),
    ],
)
def test_pages_of_other_places_cannot_store_a_key(
    remote_comfy: ComfyServer, keys_file: Path, headers: dict[str, str], path: str
) -> None:
    answer = store(remote_comfy, GOOD, headers, path)
    assert answer.status_code == 403
    assert not keys_file.exists()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{fake-wrong", "The request is not JSON."),
        ([], "Send"),
        (
            {"service": "scenario", "profile": "x", "values": {"api_key": 5}},
            "fields of scenario are api_key, api_secret",
        ),
        (
            {"service": "scenario", "profile": "x", "values": {"token": "y"}},
            "fields of scenario are api_key, api_secret",
        ),
        ({"service": "midjourney", "profile": "x", "values": {}}, "no service with that name"),
        ({"service": "scenario", "profile": "../x", "values": WRONG}, "letters, digits"),
        ({"service": "scenario", "profile": "x", "values": {"api_key": "fake-wrong key"}}, "contains spaces"),
        ({"service": "scenario", "profile": "x", "values": {"api_key": "fake-wrong" * 2000}}, "too long"),
    ],
    ids=range(8),
)
def test_what_cannot_be_a_key_is_refused_without_repeating_it(
    remote_comfy: ComfyServer, keys_file: Path, body: Any, text: str
) -> None:
    answer = store(remote_comfy, body)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert "fake-wrong" not in answer.text and "fake-wrong" not in remote_comfy.log
    assert not keys_file.exists()


def test_the_editor_s_own_page_may_store(remote_comfy: ComfyServer, keys_file: Path) -> None:
    port = remote_comfy.url.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        same = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert store(remote_comfy, GOOD, same, "/api" + ROUTE).status_code == 200
