"""Everything that can go wrong between here and a service, for each endpoint, over real sockets.

For each: what the user reads, how often the service was asked to do something that costs money (as rarely as can be),
and what the journal knows, so that queueing the same request again does the right thing.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from controlstack.api_clients.jobs.journal import Status
from controlstack.core.errors import (
    ControlStackError,
    CredentialsMissing,
    InvalidRequest,
    JobUnfinished,
    OutcomeUnknown,
    RateLimited,
    ResultGone,
    ResultRefused,
    ServiceError,
    ServiceUnreachable,
)
from controlstack.tests.api_clients.scripted_service import QUICK, resolver
from controlstack.tests.services import cases
from controlstack.tests.services.cases import CASES, Account, Case
from controlstack.tools.fake_services.double import Double, Step
from controlstack.tools.fake_services.drawing import one_color
from controlstack.tools.fake_services.loopback_server import AS_USUAL, Fault, Reply
from controlstack.tools.fake_services.running import Services, double_class

pytestmark = pytest.mark.slow

EVERY = pytest.mark.parametrize("case", CASES, ids=str)
ONE_OF_EACH_SERVICE = pytest.mark.parametrize("case", cases.ONE_OF_EACH_SERVICE, ids=str)
HTML = {"Content-Type": "text/html"}
BAD_GATEWAY = Reply(b"<html><head><title>502</title></head><h1>502 Bad Gateway</h1></html>", 502, HTML)


@pytest.fixture
def account(services: Services, tmp_path: Path) -> Account:
    return Account(services.environment, tmp_path)


def double_of(services: Services, case: Case) -> Double:
    return services.of(case.endpoint.service)


def fails(account: Account, services: Services, case: Case, error: type[ControlStackError], **arguments: Any) -> str:
    """The message of the error, in which no key may be."""
    with pytest.raises(error) as caught:
        account.run(case, **arguments)
    message = str(caught.value)
    assert not [key for key in services.keys if key in message]
    return message


def needs_image_host(case: Case) -> bool:
    return case.endpoint.needs_image_host(case.endpoint.options_type(**case.options))


def statuses(account: Account) -> list[Status]:
    return [entry.status for entry in account.entries]


def bomb(side: int = 60_000) -> bytes:
    """A small PNG that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(20_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# the paid call


@dataclass(frozen=True)
class Lost:
    """An answer to the paid call after which nobody knows: `charged` is what only the service knows."""

    name: str
    reply: Reply
    says: str
    charged: int = 0

    def __str__(self) -> str:
        return self.name


LOST = (
    Lost("reset after reading", Reply(AS_USUAL, fault=Fault.RESET), "broke after the request was sent", 1),
    Lost("reset before reading", Reply(AS_USUAL, fault=Fault.RESET_UNREAD), "broke after the request was sent"),
    Lost("half an answer", Reply(AS_USUAL, fault=Fault.HALF), "broke after the request was sent", 1),
    Lost("silence", Reply(AS_USUAL, fault=Fault.SILENT), "no answer within", 1),
    Lost("1 GB promised", Reply(b"{", fault=Fault.PROMISE), "broke after the request was sent"),
    Lost("HTML 502", BAD_GATEWAY, "HTTP 502"),
    Lost("JSON 504", Reply({"message": "Endpoint request timed out"}, 504), "HTTP 504"),
    Lost("JSON 408", Reply({"status": "error", "message": "Request timed out"}, 408), "HTTP 408"),
    Lost("HTML 408", Reply(b"<html><h1>408 Request Time-out</h1></html>", 408, HTML), "HTTP 408"),
    Lost("truncated JSON", Reply(b'{"id": 120539115, "task_id": "x", "job": {"jobI'), "no job can be read"),
    Lost("wrong content type", Reply(b"OK", headers={"Content-Type": "text/plain"}), "(OK)"),
    Lost("an empty answer", Reply({}), "charged"),
)


@EVERY
@pytest.mark.parametrize("lost", LOST, ids=str)
def test_a_paid_call_without_a_clear_answer_is_sent_once_and_never_repeated(
    account: Account, services: Services, case: Case, lost: Lost
) -> None:
    double = double_of(services, case)
    double.plan(Step.SUBMIT, lost.reply)
    limits = replace(QUICK, paid_read=0.5) if lost.reply.fault is Fault.SILENT else QUICK
    message = fails(account, services, case, OutcomeUnknown, settings=account.settings(limits=limits))
    assert lost.says in message and "charged" in message and "force_new" in message
    assert case.endpoint.target in message
    assert (double.paid, double.charged) == (1, lost.charged)
    assert statuses(account) == [Status.UNKNOWN]
    assert "This happened in an earlier run. Nothing was sent this time" in fails(
        account, services, case, OutcomeUnknown
    )
    assert double.paid == 1
    assert account.run(case, force_new=True).images and double.paid == 2


@pytest.mark.parametrize("status", [200, 269])
def test_a_price_in_place_of_a_paid_job_does_not_buy_it_again(
    account: Account, services: Services, status: int
) -> None:
    """The job's id may stand under a name that is not known here."""
    odd = {"job": {"job_id": "job_0001", "status": "queued"}, "creativeUnitsCost": 3}
    services.scenario.plan(Step.SUBMIT, Reply(odd, status))
    message = fails(account, services, CASES[2], OutcomeUnknown)
    assert "without a job id" in message and "force_new" in message
    assert statuses(account) == [Status.UNKNOWN]
    fails(account, services, CASES[2], OutcomeUnknown)
    assert services.scenario.paid == 1


@EVERY
def test_a_refused_connection_charges_nothing_and_leaves_no_trace(
    account: Account, services: Services, case: Case
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    account.environ[case.endpoint.url_variable] = f"http://127.0.0.1:{port}"
    message = fails(account, services, case, ServiceUnreachable)
    assert "cannot be reached" in message and ("nothing charged" in message or "costs nothing" in message)
    assert account.entries == [] and double_of(services, case).paid == 0


@EVERY
def test_a_slow_answer_is_waited_for(account: Account, services: Services, case: Case) -> None:
    double = double_of(services, case)
    double.plan(Step.SUBMIT, Reply(AS_USUAL, delay=0.4))
    assert account.run(case).images and double.paid == 1


@EVERY
@pytest.mark.parametrize(
    ("headers", "body", "waited"),
    [
        ({"Retry-After": "20"}, {"message": "slow down"}, 20),
        ({}, {"message": "slow down", "retry_after": 30}, 30),
        ({}, {"message": "slow down", "remainingSeconds": 12.5}, 12.5),
        ({"Retry-After": "3"}, {"message": "slow down", "retry_after": 9}, 9),
    ],
    ids=["header", "retry_after", "remainingSeconds", "both"],
)
def test_429_waits_as_told_and_is_the_only_repeat(
    account: Account, services: Services, case: Case, headers: Mapping[str, str], body: Any, waited: float
) -> None:
    double = double_of(services, case)
    double.plan(Step.SUBMIT, Reply(body, 429, headers))
    assert account.run(case).images
    assert (double.paid, double.charged) == (2, 1)
    assert waited <= account.clock.slept < waited + 2 * case.endpoint.pace.shortest + case.endpoint.pace.first
    assert statuses(account) == [Status.DONE]


@EVERY
def test_429_for_longer_than_the_deadline_is_said_and_nothing_is_kept(
    account: Account, services: Services, case: Case
) -> None:
    double = double_of(services, case)
    double.plan(Step.SUBMIT, Reply({"message": "come back in an hour", "retry_after": 3600}, 429))
    assert "come back in an hour" in fails(account, services, case, RateLimited)
    assert double.paid == 1 and account.entries == []


@EVERY
def test_a_redirect_of_the_paid_call_is_not_followed(account: Account, services: Services, case: Case) -> None:
    double = double_of(services, case)
    double.plan(Step.SUBMIT, Reply(b"", 307, {"Location": f"{double.base_url}/elsewhere"}))
    assert "redirect" in fails(account, services, case, ServiceError)
    assert (double.paid, double.count(Step.UNKNOWN)) == (1, 0)
    assert statuses(account) == [Status.FAILED]


# every error shape of the contracts


def shapes(step: Step) -> list[Any]:
    """(case, name) of every error that a double knows for this step."""
    return [
        pytest.param(case, name, id=f"{case}: {name}")
        for case in CASES
        for name, shape in double_class(case.endpoint).errors.items()
        if shape.step is step
    ]


@pytest.mark.parametrize(("case", "name"), shapes(Step.SUBMIT))
def test_a_refusal_is_told_in_the_services_words(account: Account, services: Services, case: Case, name: str) -> None:
    double = double_of(services, case)
    shape = double.errors[name]
    double.plan(Step.SUBMIT, shape.reply)
    if shape.reply.status == 429 or name.startswith("rate limit"):
        assert account.run(case).images
        assert (double.paid, double.charged) == (2, 1) and account.clock.slept > 2
        return
    assert shape.says in fails(account, services, case, ServiceError)
    assert (double.paid, double.charged) == (1, 0) and statuses(account) == [Status.FAILED]
    assert account.run(case).images and (double.paid, double.charged) == (2, 1)


@pytest.mark.parametrize(("case", "name"), shapes(Step.POLL))
def test_a_failed_job_is_told_in_the_services_words(
    account: Account, services: Services, case: Case, name: str
) -> None:
    double = double_of(services, case)
    double.plan(Step.POLL, double.errors[name].reply)
    message = fails(account, services, case, ServiceError)
    assert double.errors[name].says in message and next(iter(double.jobs)) in message
    assert double.paid == 1 and double.count(Step.POLL) == 1 and statuses(account) == [Status.FAILED]


@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(case, name, id=f"{case}: {name}")
        for case in CASES
        for name in double_class(case.endpoint).account_errors
    ],
)
def test_a_refused_key_while_waiting_leaves_the_paid_job_to_be_fetched(
    account: Account, services: Services, case: Case, name: str
) -> None:
    double = double_of(services, case)
    shape = double.errors[name]
    double.plan(Step.POLL, shape.reply)
    message = fails(account, services, case, ServiceError)
    (job_id,) = double.jobs
    assert shape.says in message and "already paid for" in message and f"job id {job_id}" in message
    assert re.search(r"(?i)check .*\bkey\b|add credits", message)
    assert (double.paid, double.count(Step.POLL)) == (1, 1) and statuses(account) == [Status.RUNNING]
    assert account.run(case).info["resumed"] and double.paid == 1


@pytest.mark.parametrize("case", cases.QOLABA, ids=str)
@pytest.mark.parametrize("said", ["Exhausted balance", "Rate limit exceeded, upgrade your plan"])
def test_a_job_that_failed_for_the_account_of_who_makes_the_pictures_has_failed(
    account: Account, services: Services, case: Case, said: str
) -> None:
    services.qolaba.plan(Step.POLL, Reply({"status": "FAILED", "error": "Internal Error", "error_data": said}))
    message = fails(account, services, case, ServiceError)
    assert said in message and "not lost" not in message and "paid for" not in message
    assert statuses(account) == [Status.FAILED]


# waiting


@EVERY
@pytest.mark.parametrize("asynchronous", [False, True], ids=["waited for", "fetched later"])
def test_network_trouble_while_waiting_does_not_lose_a_job(
    account: Account, services: Services, case: Case, asynchronous: bool
) -> None:
    double = double_of(services, case)
    trouble = [
        Reply(AS_USUAL, fault=Fault.RESET),
        Reply(AS_USUAL, fault=Fault.HALF),
        BAD_GATEWAY,
        Reply(b'{"stat'),
        Reply({"message": "slow down", "retry_after": 5}, 429),
        Reply({"message": "down"}, 503),
    ]
    double.plan(Step.POLL, *trouble)
    if asynchronous:
        started = account.run(case, async_only=True)
        assert started.images == [] and double.count(Step.POLL) == 0
        result = account.fetch(case, started.job_id)
    else:
        result = account.run(case)
    assert result.images[0].shape == (1, 256, 256, 3)
    assert double.paid == 1 and statuses(account) == [Status.DONE]


def edge(status: int, text: str) -> Reply:
    """What stands before a service says of itself, in words that a service could use of a job."""
    return Reply({"status": "error", "code": status, "message": text}, status)


@EVERY
@pytest.mark.parametrize(
    "reply",
    [
        edge(502, "Application failed to respond"),
        edge(503, "Application failed to respond"),
        edge(404, "Application not found"),
        edge(408, "Request timed out"),
        *(Reply(b"<html><h1>Blocked</h1></html>", status, HTML) for status in (400, 404, 451)),
    ],
    ids=["JSON 502", "JSON 503", "JSON 404", "JSON 408", "HTML 400", "HTML 404", "HTML 451"],
)
def test_trouble_at_the_edge_of_a_service_while_waiting_does_not_end_a_paid_job(
    account: Account, services: Services, case: Case, reply: Reply
) -> None:
    double = double_of(services, case)
    double.plan(Step.POLL, reply)
    with contextlib.suppress(ServiceError):
        assert account.run(case).images
    assert statuses(account)[0] in (Status.RUNNING, Status.DONE)
    assert account.run(case).info["resumed"] and double.paid == 1


@pytest.mark.parametrize("case", cases.QOLABA, ids=str)
@pytest.mark.parametrize("reply", [edge(502, "no respond"), edge(404, "Application not found")], ids=["502", "404"])
def test_a_new_version_that_starts_behind_the_edge_is_waited_for(
    account: Account, services: Services, case: Case, reply: Reply
) -> None:
    double = double_of(services, case)
    double.plan(Step.POLL, reply, reply)
    assert account.run(case).images and double.paid == 1


@ONE_OF_EACH_SERVICE
@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (BAD_GATEWAY, "HTTP 502"),
        (Reply(b"", 302, {"Location": "/log-in"}), "redirect"),
        (Reply(AS_USUAL, fault=Fault.RESET), "cannot be reached"),
        (Reply(AS_USUAL, fault=Fault.SILENT), "cannot be reached"),
        (Reply({"message": "slow down", "retry_after": 500}, 429), "HTTP 429"),
    ],
    ids=["HTML 502", "redirect", "reset", "silence", "429"],
)
def test_a_service_that_stays_away_leaves_a_job_to_fetch_later(
    account: Account, services: Services, case: Case, reply: Reply, says: str
) -> None:
    double = double_of(services, case)
    double.plan(Step.POLL, reply, forever=True)
    chosen = account.settings(limits=replace(QUICK, read=0.25))
    message = fails(account, services, case, JobUnfinished, settings=chosen)
    (job_id,) = double.jobs
    assert says in message and "paid for and not lost" in message and f"job id {job_id}" in message
    assert double.paid == 1 and statuses(account) == [Status.RUNNING]
    double.plans.clear()
    assert account.run(case).info["resumed"] and double.paid == 1


@EVERY
def test_a_job_that_is_pending_forever_ends_at_the_deadline_and_can_be_fetched(
    account: Account, services: Services, case: Case
) -> None:
    double = double_of(services, case)
    double.latency = 1e9
    message = fails(account, services, case, JobUnfinished)
    (job_id,) = double.jobs
    assert f"after {case.endpoint.pace.deadline:.0f} s" in message and f"job id {job_id}" in message
    assert double.paid == 1 and statuses(account) == [Status.RUNNING]
    double.latency = 0.0
    assert account.fetch(case, job_id).images[0].shape == (1, 256, 256, 3)
    assert double.paid == 1 and statuses(account) == [Status.DONE]


PROJECT = replace(CASES[2], options={"projectId": "proj_1", "image_transfer": "upload"})


def test_every_call_for_a_job_in_a_project_says_so(account: Account, services: Services) -> None:
    double = services.scenario
    double.latency = 1e9

    def stop() -> None:
        if double.count(Step.POLL) > 1:
            raise Stopped

    with pytest.raises(Stopped):
        account.run(PROJECT, should_stop=stop)
    double.wait_for(Step.CANCEL)
    double.latency = 0.0
    assert account.run(PROJECT).images
    calls = [seen for seen in double.seen if seen.kind is not Step.RESULT]
    assert {seen.kind for seen in calls} == {Step.UPLOAD, Step.SUBMIT, Step.POLL, Step.CANCEL, Step.LOCATE}
    assert all("projectId=proj_1" in seen.path for seen in calls)


def test_fetch_job_asks_in_the_project_that_the_journal_knows(account: Account, services: Services) -> None:
    started = account.run(PROJECT, async_only=True)
    assert started.info["sent"]["projectId"] == "proj_1"
    for _ in range(2):  # while it runs, and when it is known to be done
        assert account.fetch(PROJECT, started.job_id).images
    assert statuses(account) == [Status.DONE] and services.scenario.paid == 1


def test_a_job_that_is_asked_for_in_another_project_is_not_bought_again(
    account: Account, services: Services, tmp_path: Path
) -> None:
    """The project is not known on another computer, nor where its age has dropped what was sent."""
    started = account.run(PROJECT, async_only=True)
    with pytest.raises(
        ServiceError, match=r"another key or project\. For another project, queue its request again with that projectId"
    ):
        Account(services.environment, tmp_path / "elsewhere").fetch(PROJECT, started.job_id)
    with contextlib.closing(sqlite3.connect(account.journal.file)) as database, database:
        database.execute("UPDATE jobs SET body = '{}', metadata = '{}'")
    with pytest.raises(ServiceError, match=r"another key or project"):
        account.fetch(PROJECT, started.job_id)
    services.scenario.plan(Step.POLL, Reply({"reason": "Job not found"}, 404))
    assert "another project than proj_1." in fails(account, services, PROJECT, ServiceError)
    assert statuses(account) == [Status.RUNNING]
    assert account.run(PROJECT).info["resumed"] and services.scenario.paid == 1


# results


@dataclass(frozen=True)
class BadResult:
    """What the file store sends instead of a picture, and what becomes of it."""

    name: str
    reply: Reply
    error: type[ControlStackError]
    says: str
    names: Mapping[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


BAD_RESULTS = (
    BadResult("half sent", Reply(AS_USUAL, fault=Fault.HALF), ServiceUnreachable, "could not be downloaded"),
    BadResult("reset", Reply(AS_USUAL, fault=Fault.RESET), ServiceUnreachable, "could not be downloaded"),
    BadResult("silence", Reply(AS_USUAL, fault=Fault.SILENT), ServiceUnreachable, "could not be downloaded"),
    BadResult("cut off", Reply(one_color(64, 64)[:-20]), ResultRefused, "truncated"),
    BadResult("a web page", Reply(b"<!doctype html><p>log in", headers=HTML), ResultRefused, "web page"),
    BadResult("nonsense", Reply(b"\x00\x01\x02" * 50), ResultRefused, "not a PNG, JPEG or WebP"),
    BadResult("1 GB promised", Reply(b"x", fault=Fault.PROMISE), ResultRefused, "1024 MiB"),
    BadResult("zip bomb", Reply(bomb()), ResultRefused, "declares"),
    BadResult("expired link", Reply(b"<Error><Code>ExpiredToken</Code></Error>", 403), ResultRefused, "HTTP 403"),
    BadResult("gone", Reply(b"", 404), ResultRefused, "HTTP 404"),
    BadResult(
        "redirect to a private address",
        Reply(b"", 302, {"Location": "http://intern.example/x.png"}),
        ResultRefused,
        "10.0.0.5",
        {"intern_example": ["10.0.0.5"]},
    ),
    BadResult(
        "redirect to link-local",
        Reply(b"", 302, {"Location": "http://169.254.169.254/latest/meta-data"}),
        ResultRefused,
        "169.254.169.254",
    ),
    BadResult(
        "redirect to a name of both kinds",
        Reply(b"", 307, {"Location": "http://cdn.example/x.png"}),
        ResultRefused,
        "fe80::1",
        {"cdn_example": ["8.8.8.8", "fe80::1"]},
    ),
)


@ONE_OF_EACH_SERVICE
@pytest.mark.parametrize("bad", BAD_RESULTS, ids=str)
def test_a_bad_result_is_refused_and_stays_paid_for(
    account: Account, services: Services, case: Case, bad: BadResult
) -> None:
    double = double_of(services, case)
    double.plan(Step.RESULT, bad.reply, forever=True)
    chosen = account.settings(limits=replace(QUICK, read=0.25), resolver=resolver(**bad.names))
    message = fails(account, services, case, bad.error, settings=chosen)
    (job_id,) = double.jobs
    assert bad.says in message and f"Job {job_id} is done and paid for" in message
    assert double.paid == 1 and statuses(account) == [Status.DONE]
    assert "Signature" not in message
    double.plans.clear()
    assert account.run(case).info["resumed"] and double.paid == 1


@EVERY
def test_a_download_that_fails_for_a_while_is_repeated(account: Account, services: Services, case: Case) -> None:
    double = double_of(services, case)
    trouble = (Fault.RESET, Fault.HALF)
    double.plan(Step.RESULT, *(Reply(AS_USUAL, fault=fault) for fault in trouble), Reply(b"", 503), Reply(b"", 404))
    assert account.run(case).images and (double.paid, double.count(Step.RESULT)) == (1, 5)


@EVERY
def test_results_are_asked_for_without_credentials(account: Account, services: Services, case: Case) -> None:
    account.run(case)
    asked = [seen for seen in double_of(services, case).seen if seen.kind is Step.RESULT]
    assert asked
    for seen in asked:
        assert not {"authorization", "cookie", "referer"} & {name.lower() for name in seen.headers}
        assert not [key for key in services.keys if key in seen.path]


@EVERY
def test_results_that_are_gone_for_good_are_never_bought_again_unasked(
    account: Account, services: Services, case: Case
) -> None:
    double = double_of(services, case)
    account.run(case)
    double.plan(Step.RESULT, Reply(b"expired", 410), forever=True)
    for _ in range(2):
        message = fails(account, services, case, ResultGone)
        assert "results are gone" in message and "force_new" in message
    assert double.paid == 1 and statuses(account) == [Status.DONE]
    double.plans.clear()
    assert account.run(case).info["resumed"] and double.paid == 1


@EVERY
def test_a_picture_that_a_filter_replaced_is_remarked_on(account: Account, services: Services, case: Case) -> None:
    double_of(services, case).plan(Step.RESULT, Reply(one_color(256, 256)))
    assert any("single color" in note for note in account.run(case).info["notes"])


# pictures on their way in


def uploads(case: Case) -> bool:
    return case.endpoint.upload(b"", "image/png", "picture.png") is not None


UPLOAD_OPTIONS = {"Scenario": {"image_transfer": "upload"}}
UPLOADING = [replace(case, options=UPLOAD_OPTIONS.get(str(case), {})) for case in CASES if uploads(case)]


@pytest.mark.parametrize("case", UPLOADING, ids=str)
def test_an_upload_is_repeated_and_its_failure_costs_nothing(account: Account, services: Services, case: Case) -> None:
    double = double_of(services, case)
    double.plan(Step.UPLOAD, Reply(AS_USUAL, fault=Fault.RESET), BAD_GATEWAY, Reply({"retry_after": 4}, 429))
    assert account.run(case).images and (double.paid, double.count(Step.UPLOAD)) == (1, 4)
    double.plan(Step.UPLOAD, BAD_GATEWAY, forever=True)
    fails(account, services, case, ServiceError, request=replace(case.request, seed=8))
    assert double.paid == 1 and statuses(account) == [Status.DONE]


@pytest.mark.parametrize("case", list(filter(needs_image_host, CASES)), ids=str)
def test_an_image_host_that_refuses_costs_nothing(account: Account, services: Services, case: Case) -> None:
    account.environ["CONTROLSTACK_IMAGE_HOST_SECRET_KEY"] = "another-secret-0123456789"
    assert "SignatureDoesNotMatch" in fails(account, services, case, ServiceError)
    assert double_of(services, case).paid == 0 and account.entries == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_half_set_image_host_stops_only_the_services_that_need_one(
    account: Account, services: Services, case: Case
) -> None:
    del account.environ["CONTROLSTACK_IMAGE_HOST_SECRET_KEY"]
    if not needs_image_host(case):
        assert account.run(case).images
        return
    assert "Set both or neither" in fails(account, services, case, CredentialsMissing)
    if case.endpoint.service == "qolaba":
        with pytest.raises(InvalidRequest, match="must be an address"):
            account.run(case, options={"image_url": "C:/picture.png"})


# stopping


class Stopped(Exception):
    pass


@EVERY
@pytest.mark.parametrize("cancels", [True, False], ids=["cancels", "cannot cancel"])
def test_an_interrupt_cancels_where_the_service_can_and_the_rest_is_resumed(
    account: Account, services: Services, case: Case, cancels: bool
) -> None:
    double = double_of(services, case)
    double.latency, double.cancels = 1e9, cancels

    def stop() -> None:
        if double.count(Step.POLL) > 1:
            raise Stopped

    with pytest.raises(Stopped):
        account.run(case, should_stop=stop)
    (entry,) = account.entries
    can = case.endpoint.cancel(entry.job_id) is not None
    if can:
        double.wait_for(Step.CANCEL)
    assert (double.count(Step.CANCEL), entry.cancel_asked) == (int(can), can)
    double.latency = 0.0
    result = account.run(case)
    bought_anew = can and cancels
    assert (double.paid, result.info["resumed"]) == (1 + bought_anew, not bought_anew)


@EVERY
def test_an_interrupt_while_the_paid_call_hangs_keeps_its_job(account: Account, services: Services, case: Case) -> None:
    double = double_of(services, case)
    double.cancels = False
    double.plan(Step.SUBMIT, Reply(AS_USUAL, fault=Fault.SILENT))

    def stop() -> None:
        if double.paid:
            raise Stopped

    with pytest.raises(Stopped):
        account.run(case, should_stop=stop)
    assert statuses(account) == [Status.SUBMITTING]
    double.released.set()
    assert account.run(case).images and double.paid == 1
