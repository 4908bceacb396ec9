"""A request is paid once, never lost, and every way to fail says what is known."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from controlstack.api_clients.credentials.redaction import Secret
from controlstack.api_clients.http import transport
from controlstack.api_clients.http.image_host import S3Host
from controlstack.api_clients.http.messages import Carrier
from controlstack.api_clients.http.transport import Limits
from controlstack.api_clients.http.waiting import Clock, Detached
from controlstack.api_clients.jobs.context import Account, Caller, Report
from controlstack.api_clients.jobs.journal import Journal, Status
from controlstack.api_clients.jobs.results import JobResult
from controlstack.api_clients.jobs.run import RemoteRequest, RunMode, fetch_job, preview_body, run_job
from controlstack.api_clients.services.endpoint import Phase
from controlstack.core.errors import (
    ControlStackError,
    InvalidRequest,
    JobUnfinished,
    OutcomeUnknown,
    ResultGone,
    ResultRefused,
    ServiceError,
    ServiceUnreachable,
)
from controlstack.core.request import ControlUnit
from controlstack.tests.api_clients.scripted_service import (
    CREDENTIALS,
    KEY,
    REQUEST,
    QuickClock,
    Service,
    Toy,
    ToyOptions,
    entries,
    image_file,
    journal_in,
    loopback_only,
    resolver,
    service,
    settings,
)
from controlstack.tools.fake_services.loopback_server import Fault, Reply

QUEUED = Reply({"id": 7, "state": "queued", "meta": {"seed": 42}})
RUNNING = Reply({"state": "running", "progress": 0.5})


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with loopback_only():
        yield


@pytest.fixture
def toy() -> Iterator[Service]:
    """Queues, runs, then has one picture."""
    with service() as running:
        running.on("/generate", QUEUED)
        running.on("/jobs/7", RUNNING, done(running, "/a.png"))
        running.on("/jobs/7/cancel", Reply({}))
        running.on("/a.png", Reply(image_file()))
        yield running


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return journal_in(tmp_path)


def done(running: Service, *paths: str) -> Reply:
    return Reply({"state": "done", "outputs": [running.url + path for path in paths], "cost": 1.5})


def go(toy: Service, journal: Journal, options: ToyOptions | None = None, **arguments: Any) -> Any:
    """Run REQUEST; `arguments` are fields of the values that run_job takes."""

    def taken(*names: str) -> dict[str, Any]:
        return {name: arguments.pop(name) for name in names if name in arguments}

    account = Account(CREDENTIALS, journal, **taken("image_host", "max_jobs"))
    mode, caller = RunMode(**taken("force_new", "async_only")), Caller(**taken("on_report", "should_stop"))
    chosen = arguments.pop("settings", None) or settings(toy)
    remote = RemoteRequest(Toy(), arguments.pop("request", REQUEST), options or ToyOptions())
    assert not arguments
    return run_job(remote, account, mode, caller, chosen)


def fetch(toy: Service, journal: Journal, job_id: str = "7") -> JobResult:
    return fetch_job(Toy(), job_id, Account(CREDENTIALS, journal), settings=settings(toy))


def fails(error: type[ControlStackError], toy: Service, journal: Journal, **arguments: Any) -> str:
    with pytest.raises(error) as caught:
        go(toy, journal, **arguments)
    assert KEY not in str(caught.value)
    return str(caught.value)


# what goes well


def test_a_request_becomes_its_pictures_and_says_everything_about_them(toy: Service, journal: Journal) -> None:
    reports: list[Report] = []
    result = go(toy, journal, on_report=reports.append)
    assert [image.shape for image in result.images] == [(1, 8, 16, 3)]
    assert result.job_id == "7"
    info = result.info
    assert info["target"] == "Toy" and info["job_id"] == "7" and not info["resumed"]
    assert info["sent"] == {"prompt": "a cat", "image": "<png 32x24>"}
    assert info["seeds"] == [42] and info["cost"] == 1.5
    assert set(info["seconds"]) == {"upload", "submit", "wait", "download"}
    json.dumps(info)
    sent = json.loads(next(seen.body for seen in toy.seen if seen.path == "/generate"))
    assert base64.b64decode(sent["image"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert Phase.RUNNING in {report.phase for report in reports} and 0.5 in {report.progress for report in reports}
    (entry,) = entries(journal)
    assert entry.status is Status.DONE and entry.job_id == "7" and entry.outputs == (f"{toy.url}/a.png",)


def test_the_key_goes_to_the_service_only(toy: Service, journal: Journal, tmp_path: Path) -> None:
    toy.on("/jobs/7", replace(done(toy, "/a.png"), headers={"X-Echo": KEY}))
    toy.on("/generate", Reply({"id": 7, "state": "queued", "meta": {"echo": f"Bearer {KEY}", "seed": 1}}))
    result = go(toy, journal)
    assert toy.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    download = next(seen for seen in toy.seen if seen.path == "/a.png")
    assert "Authorization" not in download.headers and "Cookie" not in download.headers
    assert KEY not in json.dumps(result.info)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_a_key_where_a_long_text_is_shortened_is_not_told_by_half(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply({"id": 7, "state": "queued", "meta": {"echo": "x" * 20 + KEY + "x" * 9000}}))
    told = json.dumps(go(toy, journal).info)
    assert "characters)" in told and KEY[:8] not in told


def test_what_opens_a_signed_link_and_echoed_pictures_are_not_told(toy: Service, journal: Journal) -> None:
    signed = "https://host.example/p.png?X-Amz-Date=1&X-Amz-Signature=0123456789abcdef&x=2"
    toy.on("/generate", Reply({"id": 7, "state": "queued", "meta": {"input": {"image": signed, "mask": "x" * 9000}}}))
    told = go(toy, journal).info["metadata"]["input"]
    assert told == {
        "image": "https://host.example/p.png?X-Amz-Date=1&X-Amz-Signature=...&x=2",
        "mask": "x" * 40 + "... (9000 characters)",
    }
    assert "0123456789abcdef" not in str(entries(journal)[0].metadata)


def test_every_service_has_its_place_for_a_key() -> None:
    from controlstack.api_clients.registry import ENDPOINTS, SPECS

    assert {endpoint.service for endpoint in ENDPOINTS} <= set(SPECS)


def test_pictures_of_different_sizes_come_as_a_list_and_equal_ones_as_a_batch(toy: Service, journal: Journal) -> None:
    toy.on("/b.jpg", Reply(image_file(kind="JPEG")))
    toy.on("/c.webp", Reply(image_file(20, 20, "WEBP")))
    toy.on("/jobs/7", done(toy, "/a.png", "/b.jpg"))
    assert [image.shape for image in go(toy, journal).images] == [(2, 8, 16, 3)]
    toy.on("/jobs/7", done(toy, "/a.png", "/c.webp"))
    result = go(toy, journal, force_new=True)
    assert [image.shape for image in result.images] == [(1, 8, 16, 3), (1, 20, 20, 3)]
    assert "16x8, 20x20" in result.info["notes"][0]


def test_results_come_inline_as_base64_text_or_through_a_second_question(toy: Service, journal: Journal) -> None:
    text = base64.b64encode(image_file()).decode()
    toy.on("/a.base64", Reply(text.encode(), headers={"Content-Type": "text/plain"}))
    toy.on("/assets/asset-1", Reply({"url": f"{toy.url}/a.png"}))
    outputs = [text, f"data:image/png;base64,{text}", f"{toy.url}/a.base64", "asset-1"]
    toy.on("/jobs/7", Reply({"state": "done", "outputs": outputs}))
    assert go(toy, journal).images[0].shape == (4, 8, 16, 3)


def test_an_upload_is_repeated_and_the_body_names_it(toy: Service, journal: Journal) -> None:
    toy.on("/upload", Reply(b"<html>bad gateway</html>", 502), Reply({"asset": "asset-0123456789"}))
    result = go(toy, journal, ToyOptions(Carrier.UPLOAD))
    sent = next(json.loads(seen.body) for seen in toy.seen if seen.path == "/generate")
    assert sent["image"] == "asset-0123456789"
    assert result.info["sent"]["image"] == "<png 32x24>"
    assert toy.count("/upload") == 2 and toy.paid == 1


def test_a_dry_run_is_not_written_down_and_brings_the_price(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply({"state": "done", "cost": 3}, 269))
    result = go(toy, journal, ToyOptions(estimate_only=True))
    assert result.images == [] and result.info["estimate"] and result.info["cost"] == 3
    assert entries(journal) == []


def test_the_preview_is_the_body_without_key_or_network() -> None:
    assert preview_body(RemoteRequest(Toy(), REQUEST, ToyOptions())) == {"prompt": "a cat", "image": "<png 32x24>"}


# what is refused before anything is sent


def test_problems_are_said_together_and_nothing_is_sent(toy: Service, journal: Journal) -> None:
    message = fails(InvalidRequest, toy, journal, request=replace(REQUEST, prompt=" ", upscale=True))
    assert "prompt" in message and "upscale" in message
    message = fails(InvalidRequest, toy, journal, options=ToyOptions(Carrier.URL))
    assert "image_url" in message and "image host" in message
    assert "http" in fails(InvalidRequest, toy, journal, options=ToyOptions(Carrier.URL, image_url="ftp://x/y"))
    two = REQUEST.controls[0].image.repeat(2, 1, 1, 1)
    control = ControlUnit(REQUEST.controls[0].modality, two)
    batch = replace(REQUEST, batch_size=2, controls=(control,))
    assert "a batch of 2" in fails(InvalidRequest, toy, journal, request=batch)
    assert toy.seen == [] and entries(journal) == []


# paid once


def test_the_same_request_fetches_what_was_paid_for(toy: Service, journal: Journal) -> None:
    first = go(toy, journal)
    second = go(toy, journal)
    assert second.info["resumed"] and torch.equal(first.images[0], second.images[0])
    assert second.info["sent"] == first.info["sent"] and second.info["seeds"] == [42]
    assert toy.paid == 1


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a dog"},
        {"seed": 1},
        {"controls": (ControlUnit(REQUEST.controls[0].modality, torch.rand(1, 8, 8, 3)),)},
    ],
    ids=["prompt", "seed", "picture"],
)
def test_another_request_is_another_job(toy: Service, journal: Journal, change: dict[str, Any]) -> None:
    go(toy, journal)
    go(toy, journal, request=replace(REQUEST, **change))
    assert toy.paid == 2


def test_the_same_request_fetches_what_was_paid_for_months_ago(toy: Service, tmp_path: Path) -> None:
    clock = QuickClock()
    journal, chosen = journal_in(tmp_path, clock), settings(toy, clock=clock)
    go(toy, journal, settings=chosen)
    clock.slept += 100 * 86400
    go(toy, journal, settings=chosen, request=replace(REQUEST, seed=1))
    result = go(toy, journal, settings=chosen)
    assert result.images and result.info["resumed"] and toy.paid == 2


def test_an_image_host_s_key_that_stands_in_a_result_s_link_does_not_lose_the_result(
    toy: Service, journal: Journal
) -> None:
    """Who runs a bucket at home chooses its keys."""
    toy.on("/jobs/7", done(toy, "/gallery/a.png"))
    toy.on("/gallery/a.png", Reply(image_file()))
    host = S3Host("pictures", access_key=Secret("gallery"), secret_key=Secret("a-secret-0123456789"))
    for resumed in (False, True):
        assert go(toy, journal, image_host=host).info["resumed"] is resumed
    assert entries(journal)[0].outputs == (f"{toy.url}/gallery/a.png",)
    assert (toy.paid, toy.count("/jobs/7")) == (1, 1)


def test_force_new_pays_again(toy: Service, journal: Journal) -> None:
    go(toy, journal)
    assert not go(toy, journal, force_new=True).info["resumed"]
    assert toy.paid == 2


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"error": "slow down", "retry_after": 1800}, 429),
        Reply({"error": "no credits"}, 402),
        Reply({"state": "failed", "message": "no"}),
    ],
    ids=["429", "402", "failed"],
)
def test_force_new_that_buys_nothing_leaves_what_was_bought_before(
    toy: Service, journal: Journal, reply: Reply
) -> None:
    go(toy, journal)
    toy.on("/generate", reply, QUEUED)
    fails(ServiceError, toy, journal, force_new=True)
    assert go(toy, journal).info["resumed"] and toy.paid == 2


def test_an_interrupt_of_force_new_between_two_429_leaves_what_was_bought_before(
    toy: Service, journal: Journal
) -> None:
    go(toy, journal)
    toy.on("/generate", Reply({}, 429))
    with pytest.raises(Stopped):
        go(toy, journal, force_new=True, should_stop=stop_when(lambda: toy.paid > 2))
    paid = toy.paid
    assert go(toy, journal).info["resumed"] and toy.paid == paid


def test_force_new_that_is_not_taken_still_warns_of_an_earlier_unknown_outcome(toy: Service, journal: Journal) -> None:
    toy.on("/generate", replace(QUEUED, fault=Fault.RESET), Reply({"error": "no credits"}, 402))
    fails(OutcomeUnknown, toy, journal)
    fails(ServiceError, toy, journal, force_new=True)
    assert "This happened in an earlier run. Nothing was sent this time" in fails(OutcomeUnknown, toy, journal)
    assert toy.paid == 2


@pytest.mark.parametrize("async_only", [False, True], ids=["done", "running"])
def test_force_new_that_is_lost_on_its_way_does_not_hide_what_was_bought_before(
    toy: Service, journal: Journal, async_only: bool
) -> None:
    go(toy, journal, async_only=async_only)
    toy.on("/generate", replace(QUEUED, fault=Fault.RESET))
    fails(OutcomeUnknown, toy, journal, force_new=True)
    message = fails(OutcomeUnknown, toy, journal)
    assert "turn on force_new. An earlier job" in message and message.endswith("profile default, job id 7.")
    assert fetch(toy, journal).images
    assert toy.paid == 2


def test_a_request_of_which_nothing_is_surely_bought_names_no_job(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply({"id": 7, "state": "failed"}), replace(QUEUED, fault=Fault.RESET))
    fails(ServiceError, toy, journal)
    fails(OutcomeUnknown, toy, journal)
    assert "job id" not in fails(OutcomeUnknown, toy, journal)


def test_an_expired_link_is_asked_for_anew_before_anything_is_bought(toy: Service, journal: Journal) -> None:
    go(toy, journal)
    toy.on("/a.png", Reply(b"expired", 403))
    toy.on("/jobs/7", done(toy, "/again.png"))
    toy.on("/again.png", Reply(image_file()))
    assert go(toy, journal).info["resumed"]
    assert toy.paid == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_results_that_cannot_be_fetched_are_never_bought_again_unasked(
    toy: Service, journal: Journal, status: int
) -> None:
    toy.on("/a.png", Reply(b"<Error>no", status))
    assert "is done and paid for" in fails(ResultGone, toy, journal)
    for _ in range(2):
        message = fails(ResultGone, toy, journal)
        assert "results are gone" in message and "Nothing was sent this time" in message and "force_new" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.DONE
    toy.on("/a.png", Reply(image_file()))
    assert go(toy, journal).info["resumed"] and toy.paid == 1
    assert not go(toy, journal, force_new=True).info["resumed"] and toy.paid == 2


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_done_job_that_the_service_does_not_tell_of_stays_done_and_is_not_bought_again(
    toy: Service, journal: Journal, status: int
) -> None:
    go(toy, journal)
    toy.on("/a.png", Reply(b"expired", 410))
    toy.on("/jobs/7", Reply({"error": "no"}, status))
    message = fails(ServiceError, toy, journal)
    assert "does not mean that job 7 failed" in message and "gave no new one" in message and "force_new" in message
    with pytest.raises(ServiceError):
        fetch(toy, journal)
    fails(ServiceError, toy, journal)
    assert toy.paid == 1 and entries(journal)[0].status is Status.DONE


def test_a_done_job_that_the_service_now_calls_failed_is_not_bought_again(toy: Service, journal: Journal) -> None:
    go(toy, journal)
    toy.on("/a.png", Reply(b"expired", 410))
    toy.on("/jobs/7", Reply({"state": "failed", "message": "no such job"}))
    with pytest.raises(ResultGone, match="no such job"):
        fetch(toy, journal)
    assert "results are gone" in fails(ResultGone, toy, journal)
    assert toy.paid == 1 and entries(journal)[0].status is Status.DONE


def test_a_fresh_link_that_has_expired_is_an_error_with_the_job(toy: Service, journal: Journal) -> None:
    toy.on("/a.png", Reply(b"expired", 403))
    message = fails(ResultRefused, toy, journal)
    assert "HTTP 403" in message and "Job 7 is done and paid for" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.DONE


@pytest.mark.parametrize(
    "bad",
    [Reply(b"", 410), Reply(b"<!doctype html><p>log in"), Reply(image_file(), fault=Fault.HALF)],
    ids=["gone", "web page", "half sent"],
)
def test_a_picture_that_cannot_be_had_keeps_no_other_back(toy: Service, journal: Journal, bad: Reply) -> None:
    toy.on("/b.png", bad)
    toy.on("/c.png", Reply(image_file()))
    toy.on("/jobs/7", done(toy, "/a.png", "/b.png", "/c.png"))
    for _ in range(2):
        result = go(toy, journal)
        assert result.images[0].shape[0] == 2
        notes = " ".join(result.info["notes"])
        assert "image 2 of 3 is missing: " in notes and "Fetch Job with job id 7" in notes
    toy.on("/b.png", Reply(image_file()))
    whole = fetch(toy, journal)
    assert whole.images[0].shape[0] == 3 and "notes" not in whole.info
    assert go(toy, journal).images[0].shape[0] == 3 and toy.paid == 1


def test_where_one_link_of_several_has_expired_new_ones_are_asked_for(toy: Service, journal: Journal) -> None:
    toy.on("/b.png", Reply(b"", 410))
    toy.on("/jobs/7", done(toy, "/a.png", "/b.png"))
    assert go(toy, journal).images[0].shape[0] == 1
    toy.on("/jobs/7", Reply({"error": "no"}, 404))
    assert go(toy, journal).images[0].shape[0] == 1
    toy.on("/jobs/7", done(toy, "/a.png", "/a.png"))
    assert go(toy, journal).images[0].shape[0] == 2 and toy.paid == 1


def test_a_network_that_stays_away_costs_its_patience_once_for_all_pictures(toy: Service, journal: Journal) -> None:
    toy.on("/a.png", Reply(b"", 503))
    toy.on("/jobs/7", done(toy, *["/a.png"] * 8))
    chosen = settings(toy)
    fails(ServiceUnreachable, toy, journal, settings=chosen)
    assert isinstance(chosen.clock, QuickClock) and chosen.clock.slept < 70


def test_fewer_pictures_than_paid_for_are_remarked_on_in_the_services_words(toy: Service, journal: Journal) -> None:
    def told(count: int) -> Reply:
        words = {"message": "a filter dropped two"}
        return Reply({"state": "done", "outputs": [f"{toy.url}/a.png"] * count, **words})

    def run(**arguments: Any) -> str:
        return " ".join(go(toy, journal, request=replace(REQUEST, batch_size=3), **arguments).info.get("notes", ""))

    reports: list[Report] = []
    toy.on("/jobs/7", told(1))
    for notes in (run(on_report=reports.append), run()):
        assert "Toy made 1 of 3 images" in notes and "Toy says: a filter dropped two" in notes
    assert reports[-1].message == "Toy made 1 of 3 images"
    fetched = fetch(toy, journal)
    assert fetched.info["notes"] == ["Toy says: a filter dropped two"]
    toy.on("/jobs/7", told(3))
    assert run(force_new=True) == ""


def test_equal_requests_at_the_same_time_share_one_job(toy: Service, journal: Journal) -> None:
    results: list[Any] = []
    quick = replace(settings(toy), clock=Clock())
    toy.on("/generate", replace(QUEUED, fault=Fault.SILENT))
    toy.on("/jobs/7", done(toy, "/a.png"))
    threads = [threading.Thread(target=lambda: results.append(go(toy, journal, settings=quick))) for _ in range(3)]
    for thread in threads:
        thread.start()
    toy.wait_for("/generate")
    time.sleep(0.3)
    toy.released.set()
    for thread in threads:
        thread.join(20)
    assert len(results) == 3 and toy.paid == 1


def test_an_account_has_no_more_jobs_under_way_than_allowed(toy: Service, journal: Journal) -> None:
    toy.on("/generate", replace(QUEUED, fault=Fault.SILENT))
    toy.on("/jobs/7", done(toy, "/a.png"))

    def run(seed: int) -> None:
        go(toy, journal, request=replace(REQUEST, seed=seed), max_jobs=2)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    toy.wait_for("/generate", 2)
    time.sleep(0.3)
    assert toy.paid == 2
    toy.released.set()
    for thread in threads:
        thread.join(20)
    assert toy.paid == 4


def test_async_only_returns_the_id_and_the_job_is_fetched_later(toy: Service, journal: Journal) -> None:
    started = go(toy, journal, async_only=True)
    assert started.job_id == "7" and started.images == [] and toy.count("/jobs/7") == 0
    assert go(toy, journal, async_only=True).job_id == "7"
    fetched = fetch(toy, journal)
    assert fetched.images[0].shape == (1, 8, 16, 3) and fetched.info["seeds"] == [42]
    assert fetched.info["sent"]["prompt"] == "a cat"
    assert toy.paid == 1 and entries(journal)[0].status is Status.DONE


def test_a_job_of_elsewhere_is_fetched_by_its_id(toy: Service, journal: Journal) -> None:
    result = fetch(toy, journal, " 7 ")
    assert result.images[0].shape == (1, 8, 16, 3) and toy.paid == 0
    with pytest.raises(ServiceError, match="job 8"):
        fetch(toy, journal, "8")


# what goes wrong while it is sent


def test_refused_connection_charges_nothing_and_leaves_no_trace(journal: Journal) -> None:
    with service() as gone:
        pass
    assert "Nothing was sent" in fails(ServiceUnreachable, gone, journal)
    assert entries(journal) == []


@pytest.mark.skipif(importlib.util.find_spec("socks") is not None, reason="this machine has PySocks")
def test_a_proxy_by_which_no_result_could_be_fetched_is_not_paid_through(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with service() as toy:
        message = fails(ServiceUnreachable, toy, journal, settings=settings("http://toy.example"))
    assert "SOCKS" in message and "nothing charged" in message and entries(journal) == []


BAD_PROXIES = ["socks://user:word@127.0.0.1:9", "http://user:word@127.0.0.1:nine"]  # the first is what GNOME writes


@pytest.mark.parametrize("proxy", BAD_PROXIES)
def test_a_proxy_that_cannot_be_connected_to_charges_nothing_and_keeps_its_login(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("no_proxy", "")
    with service() as toy:
        message = fails(ServiceUnreachable, toy, journal, settings=settings("http://toy.example"))
    assert "nothing charged" in message and "word" not in message and entries(journal) == []


@pytest.mark.parametrize("proxy", BAD_PROXIES)
def test_a_proxy_that_hides_one_picture_of_two_keeps_its_login_and_not_the_other(
    toy: Service, journal: Journal, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("no_proxy", "")
    outputs = ["http://cdn.example/a.png", f"{toy.url}/a.png"]
    toy.on("/jobs/7", Reply({"state": "done", "outputs": outputs}))
    result = go(toy, journal, settings=settings(toy, resolver=resolver(cdn_example=["93.184.216.34"])))
    assert result.images[0].shape[0] == 1
    (missing,) = (note for note in result.info["notes"] if "image 1 of 2 is missing" in note)
    assert "proxy" in missing and "word" not in missing


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.RESET_UNREAD, Fault.HALF])
def test_a_broken_connection_is_not_repeated_then_or_later(toy: Service, journal: Journal, fault: Fault) -> None:
    toy.on("/generate", replace(QUEUED, fault=fault), QUEUED)
    message = fails(OutcomeUnknown, toy, journal)
    assert "may have been accepted and charged" in message and "bill at Toy" in message and "force_new" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.UNKNOWN
    assert "This happened in an earlier run. Nothing was sent this time" in fails(OutcomeUnknown, toy, journal)
    assert toy.paid == 1
    assert go(toy, journal, force_new=True).images and toy.paid == 2


def test_a_slow_answer_is_an_unknown_outcome_until_it_comes_after_all(toy: Service, journal: Journal) -> None:
    toy.on("/generate", replace(QUEUED, fault=Fault.SILENT))
    limits = Limits(connect=0.1, read=1, paid_read=0.4)
    assert "no answer within" in fails(OutcomeUnknown, toy, journal, settings=settings(toy, limits=limits))
    assert toy.paid == 1 and entries(journal)[0].status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(b"<html><h1>502 Bad Gateway</h1></html>", 502), "HTTP 502"),
        (Reply({"error": "timed out"}, 504), "HTTP 504"),
        (Reply({"error": "timed out"}, 408), "HTTP 408"),
        (Reply(b'{"id": 7, "sta', 200), "no job can be read"),
        (Reply(b"OK", 200, {"Content-Type": "text/plain"}), "(OK)"),
        (Reply({"state": "queued"}), "without naming a job"),
        (Reply({"state": "sleeping", "id": 1}), "cannot be read"),
    ],
    ids=["HTML 502", "JSON 504", "JSON 408", "truncated JSON", "wrong type", "no id", "unknown state"],
)
def test_an_unreadable_answer_is_an_unknown_outcome(toy: Service, journal: Journal, reply: Reply, words: str) -> None:
    toy.on("/generate", reply)
    message = fails(OutcomeUnknown, toy, journal)
    assert words in message and "not sent again" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.UNKNOWN


@pytest.mark.parametrize("status", [400, 401, 402, 403, 422, 500, 503])
def test_a_refusal_says_why_and_may_be_tried_again(toy: Service, journal: Journal, status: int) -> None:
    toy.on("/generate", Reply({"error": f"no such model, {KEY}"}, status), QUEUED)
    message = fails(ServiceError, toy, journal)
    assert "no such model, <redacted>" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.FAILED
    assert go(toy, journal).images and toy.paid == 2


def test_an_error_inside_a_200_is_an_error(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply({"state": "failed", "message": "not enough credits"}))
    assert "not enough credits" in fails(ServiceError, toy, journal)
    assert toy.paid == 1 and entries(journal)[0].status is Status.FAILED


@pytest.mark.parametrize(
    ("reply", "waited"),
    [
        (Reply({"error": "slow down"}, 429, {"Retry-After": "20"}), 20),
        (Reply({"error": "slow down", "retry_after": 30}, 429), 30),
        (Reply({"error": "slow down", "remainingSeconds": 12.5}, 429), 12.5),
    ],
    ids=["header", "retry_after", "remainingSeconds"],
)
def test_429_waits_as_told_and_is_the_only_repeat(toy: Service, journal: Journal, reply: Reply, waited: float) -> None:
    toy.on("/generate", reply, QUEUED)
    toy.on("/jobs/7", done(toy, "/a.png"))
    chosen = settings(toy)
    assert go(toy, journal, settings=chosen).images
    assert toy.paid == 2
    assert isinstance(chosen.clock, QuickClock) and chosen.clock.slept == pytest.approx(waited + 1, abs=0.5)


def test_429_that_asks_for_longer_than_the_deadline_is_an_error(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply({"error": "half an hour", "retry_after": 1800}, 429))
    assert "half an hour" in fails(ServiceError, toy, journal)
    assert toy.paid == 1


def test_a_redirect_of_the_paid_call_is_not_followed(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply(b"", 307, {"Location": f"{toy.url}/elsewhere"}))
    assert "redirect" in fails(ServiceError, toy, journal)
    assert toy.count("/elsewhere") == 0 and toy.paid == 1


# what goes wrong while waiting


def test_network_trouble_while_waiting_does_not_lose_the_job(toy: Service, journal: Journal) -> None:
    bad = [Reply(b"", fault=Fault.RESET), Reply(b"<html>bad gateway", 502), Reply(b'{"stat', 200), Reply({}, 429)]
    toy.on("/jobs/7", *bad, RUNNING, done(toy, "/a.png"))
    assert go(toy, journal).images and toy.paid == 1


def test_a_service_that_stays_away_is_a_job_to_fetch_later(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", Reply(b"<html>bad gateway", 502))
    message = fails(JobUnfinished, toy, journal)
    assert "HTTP 502" in message and "job id 7" in message and "paid for and not lost" in message
    toy.on("/jobs/7", done(toy, "/a.png"))
    assert go(toy, journal).info["resumed"] and toy.paid == 1


def test_a_redirect_while_waiting_does_not_lose_the_job(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", Reply(b"", 302, {"Location": "/log-in"}))
    message = fails(JobUnfinished, toy, journal)
    assert "redirect" in message and "paid for and not lost" in message and "job id 7" in message
    assert toy.count("/log-in") == 0 and entries(journal)[0].status is Status.RUNNING
    toy.on("/jobs/7", done(toy, "/a.png"))
    assert go(toy, journal).info["resumed"] and toy.paid == 1


def test_what_an_unfinished_forced_run_advises_costs_nothing(toy: Service, journal: Journal) -> None:
    go(toy, journal)
    toy.on("/jobs/7", RUNNING)
    assert "queue the same request again with force_new off" in fails(JobUnfinished, toy, journal, force_new=True)
    toy.on("/jobs/7", done(toy, "/a.png"))
    toy.on("/a.png", Reply(image_file(), fault=Fault.HALF))
    assert "with force_new off" in fails(ServiceUnreachable, toy, journal)
    toy.on("/a.png", Reply(image_file()))
    assert go(toy, journal).info["resumed"] and toy.paid == 2


def test_pending_forever_ends_at_the_deadline_with_the_way_to_fetch_it(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", RUNNING)
    message = fails(JobUnfinished, toy, journal)
    assert "still running after 60 s" in message
    assert "service Toy, profile default, job id 7" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.RUNNING


def test_a_job_that_is_pending_after_four_hours_is_said_to_be_lost_and_not_bought_again(
    toy: Service, journal: Journal
) -> None:
    toy.on("/jobs/7", RUNNING)
    fails(JobUnfinished, toy, journal)
    late = QuickClock()
    late.slept = 5 * 3600
    for _ in range(2):
        message = fails(JobUnfinished, toy, journal, settings=settings(toy, clock=late))
        assert "after 5 hours, so it may be lost" in message and "force_new" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.RUNNING
    toy.on("/jobs/7", done(toy, "/a.png"))
    assert go(toy, journal, settings=settings(toy, clock=late)).info["resumed"] and toy.paid == 1


def test_a_poll_that_cannot_be_read_does_not_lose_the_job(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", Reply({"state": "no such state"}))
    assert "cannot be read" in fails(JobUnfinished, toy, journal)
    assert entries(journal)[0].status is Status.RUNNING


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 451])
def test_a_job_is_kept_where_only_the_question_is_refused(toy: Service, journal: Journal, status: int) -> None:
    toy.on("/jobs/7", Reply({"error": "no"}, status))
    message = fails(ServiceError, toy, journal)
    assert "job itself (7, already paid for)" in message
    assert "continue waiting" not in message and "turn on force_new" not in message
    assert entries(journal)[0].status is Status.RUNNING
    late = QuickClock()
    late.slept = 5 * 3600
    assert "turn on force_new" in fails(ServiceError, toy, journal, settings=settings(toy, clock=late))
    toy.on("/jobs/7", done(toy, "/a.png"))
    assert go(toy, journal).info["resumed"] and toy.paid == 1


@pytest.mark.parametrize(
    ("reply", "error"), [(Reply({"error": "no"}, 404), ServiceError), (RUNNING, JobUnfinished)], ids=["404", "endless"]
)
def test_a_job_that_no_journal_knows_is_not_said_to_be_paid_for(
    toy: Service, journal: Journal, reply: Reply, error: type[ControlStackError]
) -> None:
    """It may be a mistyped id, and here the same request would be bought anew."""
    toy.on("/jobs/8", reply)
    with pytest.raises(error) as caught:
        fetch(toy, journal, "8")
    message = str(caught.value)
    assert "paid for" not in message and "same request" not in message
    assert "use Fetch Job with service Toy, profile default, job id 8" in message


def test_a_failed_job_says_the_services_words(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", RUNNING, Reply({"state": "failed", "message": "the model broke"}))
    assert "the model broke" in fails(ServiceError, toy, journal)
    assert toy.paid == 1 and entries(journal)[0].status is Status.FAILED


def test_a_failed_job_inside_a_500_is_not_asked_for_again(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", Reply({"state": "failed", "message": "worker crashed"}, 500))
    assert "worker crashed" in fails(ServiceError, toy, journal)
    assert toy.count("/jobs/7") == 1


def test_success_without_a_picture_is_an_error(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", Reply({"state": "done", "outputs": []}))
    assert "without an image" in fails(ServiceError, toy, journal)
    assert toy.paid == 1 and entries(journal)[0].status is Status.FAILED


def test_a_wait_that_the_service_asks_for_is_honored(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply({"id": 7, "state": "queued", "wait": 25}))
    toy.on("/jobs/7", done(toy, "/a.png"))
    chosen = settings(toy)
    go(toy, journal, settings=chosen)
    assert isinstance(chosen.clock, QuickClock) and chosen.clock.slept == pytest.approx(25, abs=0.5)


def test_a_picture_of_one_color_is_remarked_on(toy: Service, journal: Journal) -> None:
    from PIL import Image

    path = journal.file.with_name("black.png")
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path)
    toy.on("/a.png", Reply(path.read_bytes()))
    assert "single color" in go(toy, journal).info["notes"][0]


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (Reply(b"<!doctype html><p>log in", 200), ResultRefused, "web page"),
        (Reply(b"", 302, {"Location": "http://intern.example/x"}), ResultRefused, "10.0.0.5"),
        (Reply(b"", 302, {"Location": "http://169.254.169.254/latest"}), ResultRefused, "169.254.169.254"),
        (Reply(image_file(), fault=Fault.HALF), ServiceUnreachable, "costs nothing"),
        (Reply(b"x", fault=Fault.PROMISE), ResultRefused, "1024 MiB"),
        (Reply(image_file()[:-20]), ResultRefused, "truncated"),
    ],
    ids=["web page", "redirect inside", "redirect to link-local", "half sent", "1 GB", "truncated"],
)
def test_a_bad_result_is_refused_and_stays_paid(
    toy: Service, journal: Journal, reply: Reply, error: type[ControlStackError], words: str
) -> None:
    toy.on("/a.png", reply)
    chosen = settings(toy, resolver=resolver(intern_example=["10.0.0.5"]))
    message = fails(error, toy, journal, settings=chosen)
    assert words in message and "Job 7 is done and paid for" in message
    assert toy.paid == 1 and entries(journal)[0].status is Status.DONE
    toy.on("/a.png", Reply(image_file()))
    assert go(toy, journal).images and toy.paid == 1


# stopping


class Stopped(Exception):
    pass


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def stop_when(condition: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if condition():
            raise Stopped

    return check


def test_an_interrupt_while_waiting_cancels_the_job_and_says_so(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", RUNNING)
    reports: list[Report] = []
    with pytest.raises(Stopped):
        go(toy, journal, should_stop=stop_when(lambda: toy.count("/jobs/7") > 2), on_report=reports.append)
    toy.wait_for("/jobs/7/cancel")
    assert "asked to cancel job 7" in reports[-1].message
    assert entries(journal)[0].cancel_asked
    toy.on("/jobs/7", Reply({"state": "canceled"}), done(toy, "/a.png"))
    result = go(toy, journal)
    assert "canceled on request" in result.info["notes"][0] and toy.paid == 2


def test_an_interrupt_acts_at_once_though_a_request_blocks(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", replace(RUNNING, fault=Fault.SILENT))
    pressed: list[float] = []

    def check() -> None:
        if toy.count("/jobs/7"):
            pressed.append(time.monotonic())
            raise Stopped

    with pytest.raises(Stopped):
        go(toy, journal, should_stop=check)
    assert time.monotonic() - pressed[0] < 1


def test_an_interrupt_of_the_paid_call_keeps_its_job_and_cancels_it(toy: Service, journal: Journal) -> None:
    toy.on("/generate", replace(QUEUED, fault=Fault.SILENT))
    reports: list[Report] = []
    with pytest.raises(Stopped):
        go(toy, journal, should_stop=stop_when(lambda: toy.paid > 0), on_report=reports.append)
    assert "on its way" in reports[-1].message
    assert entries(journal)[0].status is Status.SUBMITTING
    toy.released.set()
    toy.wait_for("/jobs/7/cancel")
    entry = entries(journal)[0]
    assert entry.status is Status.RUNNING and entry.job_id == "7" and entry.cancel_asked
    assert go(toy, journal).images and toy.paid == 1


@pytest.mark.parametrize("reason", [Stopped, Detached])
def test_an_error_in_the_background_after_an_interrupt_does_not_forget_what_was_sent(
    toy: Service, journal: Journal, monkeypatch: pytest.MonkeyPatch, reason: type[BaseException]
) -> None:
    def break_down(*_: Any) -> NoReturn:
        raise MemoryError("while reading the answer")

    def stop() -> None:
        if toy.paid:
            raise reason

    toy.on("/generate", replace(QUEUED, fault=Fault.SILENT))
    monkeypatch.setattr(transport, "_answer", break_down)
    with pytest.raises(reason):
        go(toy, journal, should_stop=stop)
    toy.released.set()
    wait_until(lambda: [entry.status for entry in entries(journal)] != [Status.SUBMITTING])
    (entry,) = entries(journal)
    assert entry.status is Status.UNKNOWN and "MemoryError" in entry.message
    monkeypatch.undo()
    message = fails(OutcomeUnknown, toy, journal)
    assert "error in this program" in message and "Nothing was sent this time" in message and toy.paid == 1


def test_an_interrupt_between_two_429_leaves_nothing_behind(toy: Service, journal: Journal) -> None:
    toy.on("/generate", Reply({}, 429))
    with pytest.raises(Stopped):
        go(toy, journal, should_stop=stop_when(lambda: toy.paid > 1))
    assert entries(journal) == []


def detach_when(condition: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if condition():
            raise Detached

    return check


def test_who_only_leaves_cancels_nothing_and_finds_the_job_later(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", RUNNING)
    with pytest.raises(Detached):
        go(toy, journal, should_stop=detach_when(lambda: toy.count("/jobs/7") > 1))
    time.sleep(0.3)
    assert not toy.count("/jobs/7/cancel") and not entries(journal)[0].cancel_asked
    toy.on("/jobs/7", done(toy, "/a.png"))
    assert go(toy, journal).info["resumed"] and toy.paid == 1


def test_who_leaves_while_the_request_is_on_its_way_finds_the_job_later(toy: Service, journal: Journal) -> None:
    toy.on("/generate", replace(QUEUED, fault=Fault.SILENT))
    with pytest.raises(Detached):
        go(toy, journal, should_stop=detach_when(lambda: toy.paid > 0))
    toy.released.set()
    assert go(toy, journal).info["resumed"] and toy.paid == 1
    assert not toy.count("/jobs/7/cancel")


# being killed

SCRIPT = """
import sys
from pathlib import Path
from controlstack.api_clients.jobs.context import Account
from controlstack.api_clients.jobs.run import RemoteRequest, run_job
from controlstack.api_clients.jobs.journal import Journal
from controlstack.tests.api_clients.scripted_service import CREDENTIALS, REQUEST, Toy, ToyOptions, settings
from controlstack.api_clients.http.waiting import Clock
result = run_job(RemoteRequest(Toy(), REQUEST, ToyOptions()), Account(CREDENTIALS, Journal(Path(sys.argv[1]))),
                 settings=settings(sys.argv[2]))
print(result.images[0].shape[1], result.info["resumed"])
"""


def spawn(toy: Service, journal: Journal) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-c", SCRIPT, str(journal.file), toy.url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_process_killed_while_waiting_has_its_job_resumed_by_the_next(toy: Service, journal: Journal) -> None:
    toy.on("/jobs/7", replace(RUNNING, fault=Fault.SILENT))
    first = spawn(toy, journal)
    toy.wait_for("/jobs/7")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    toy.on("/jobs/7", done(toy, "/a.png"))
    second = spawn(toy, journal)
    out, problems = second.communicate(timeout=60)
    assert out.split() == ["8", "True"], problems
    assert toy.paid == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_process_killed_while_sending_is_an_unknown_outcome_for_the_next(toy: Service, journal: Journal) -> None:
    toy.on("/generate", replace(QUEUED, fault=Fault.SILENT))
    first = spawn(toy, journal)
    toy.wait_for("/generate")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert entries(journal)[0].status is Status.SUBMITTING
    message = fails(OutcomeUnknown, toy, journal)
    assert "cut off while it was being sent" in message and "force_new" in message
    assert toy.paid == 1
