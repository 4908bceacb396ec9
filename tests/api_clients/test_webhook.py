"""A service that calls back ends a wait early, and can do nothing else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from controlstack.api_clients.http.waiting import Clock, pause
from controlstack.api_clients.jobs.context import Account
from controlstack.api_clients.jobs.run import RemoteRequest, run_job
from controlstack.api_clients.jobs.webhook import ROUTE, VARIABLE, listen, notify
from controlstack.api_clients.services.endpoint import Pace
from controlstack.core.errors import ServiceUnreachable
from controlstack.tests.api_clients.scripted_service import (
    CREDENTIALS,
    REQUEST,
    Service,
    Toy,
    ToyOptions,
    entries,
    image_file,
    journal_in,
    loopback_only,
    service,
    settings,
)
from controlstack.tools.fake_services.loopback_server import Reply

HERE = {VARIABLE: "https://comfy.example/editor/"}


class Calling(Toy):
    """Calls back, and is to be asked after a quarter of an hour."""

    pace = Pace(first=900, shortest=900, longest=900, deadline=3600)

    def with_webhook(self, payload: dict[str, Any], address: str) -> dict[str, Any]:
        return {**payload, "webhook": address}


@pytest.fixture
def toy() -> Iterator[Service]:
    with service() as running, loopback_only():
        running.on("/generate", Reply({"id": 7, "state": "queued"}))
        running.on("/jobs/7", Reply({"state": "done", "outputs": [f"{running.url}/a.png"]}))
        running.on("/a.png", Reply(image_file()))
        yield running


def run(toy: Service, tmp_path: Path, **environ: str) -> Any:
    chosen = settings(toy, clock=Clock(), environ={"CONTROLSTACK_TOY_URL": toy.url, **environ})
    account = Account(CREDENTIALS, journal_in(tmp_path))
    return run_job(RemoteRequest(Calling(), REQUEST, ToyOptions()), account, settings=chosen)


def token_of(address: str) -> str:
    return address.rpartition("/")[2]


def test_the_wait_ends_when_the_service_calls(toy: Service, tmp_path: Path) -> None:
    def call_back() -> None:
        toy.wait_for("/generate")
        time.sleep(0.3)
        sent = next(seen for seen in toy.seen if seen.path == "/generate")
        notify(token_of(json.loads(sent.body)["webhook"]))

    threading.Thread(target=call_back).start()
    began = time.monotonic()
    result = run(toy, tmp_path, **HERE)
    assert time.monotonic() - began < 10 and result.images
    assert result.info["sent"]["webhook"] == "<the address of this ComfyUI>"


def test_the_address_is_no_part_of_the_request_key(toy: Service, tmp_path: Path) -> None:
    for _ in range(2):
        toy.on("/generate", Reply({"id": 7, "state": "done", "outputs": [f"{toy.url}/a.png"]}))
        run(toy, tmp_path, **HERE)
    run(toy, tmp_path)
    assert toy.paid == 1
    assert "webhook/" not in str(entries(journal_in(tmp_path))[0].body)


def test_an_address_cannot_be_guessed_lasts_as_long_as_the_job_and_notifies_once() -> None:
    with listen(HERE) as webhook, listen(HERE) as other:
        assert webhook is not None and other is not None and webhook.address != other.address
        parts = urlsplit(webhook.address)
        assert (parts.scheme, parts.hostname) == ("https", "comfy.example")
        assert parts.path.startswith(f"/editor{ROUTE}/") and len(token_of(webhook.address)) >= 43
        notify(token_of(webhook.address))
        notify(token_of(webhook.address))
        assert [webhook.notified(), webhook.notified(), other.notified()] == [True, False, False]
    notify(token_of(webhook.address))
    notify("guessed")
    assert not webhook.notified()


def test_there_is_no_webhook_unless_the_user_wants_one_and_its_address_must_be_public() -> None:
    with listen({}) as webhook:
        assert webhook is None
    for wrong in ("http://comfy.example", "comfy.example", "https://", "https://comfy.example/?a=b"):
        with pytest.raises(ServiceUnreachable, match="must be the https:// address"), listen({VARIABLE: wrong}):
            pass


def test_a_pause_ends_when_it_is_woken() -> None:
    began = time.monotonic()
    pause(60, Clock(), lambda: None, lambda: time.monotonic() - began > 0.2)
    assert time.monotonic() - began < 2
