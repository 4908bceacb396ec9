"""What may be sent again is, as the service asks; what may not never is; and a stop acts at once."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from controlstack.api_clients.http.messages import Answer, Call
from controlstack.api_clients.http.transport import Limits, Transport, requested_wait, service_url
from controlstack.api_clients.http.waiting import interruptible, never_stop
from controlstack.core.errors import OutcomeUnknown, ServiceError, ServiceUnreachable
from controlstack.tests.api_clients.scripted_service import (
    QUICK,
    QuickClock,
    Service,
    Toy,
    loopback_only,
    service,
)
from controlstack.tools.fake_services.loopback_server import Fault, Reply

GET = Call("GET", "/x")
PAY = Call("POST", "/generate", body={"a": 1}, paid=True)


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    with loopback_only():
        yield


@pytest.fixture
def toy() -> Iterator[Service]:
    with service() as running:
        yield running


def transport(url: str, **options: Any) -> Transport:
    options.setdefault("clock", QuickClock())
    options.setdefault("limits", QUICK)
    return Transport(url, lambda call: call, **options)


def pay(way: Transport, **options: Any) -> Answer:
    options.setdefault("on_late", lambda outcome: None)
    return way.pay(PAY, patience=60, **options)


def test_an_answer_carries_json_status_text_and_headers(toy: Service) -> None:
    toy.on("/x", Reply({"a": [1]}, 269, {"X-Rate": "3"}))
    answer = transport(toy.url).ask(Call("GET", "/x", {"q": "1 &"}, headers={"X-Own": "y"}))
    assert (answer.status, answer.json, answer.headers["x-rate"]) == (269, {"a": [1]}, "3")
    assert toy.seen[0].path == "/x?q=1+%26" and toy.seen[0].headers["X-Own"] == "y"


@pytest.mark.parametrize("body", [b"<html>502</html>", b"[1]", b'{"a": ', b"\xff\xfe", b"[" * 100_000, b""])
def test_what_is_no_json_object_survives_as_text(toy: Service, body: bytes) -> None:
    toy.on("/x", Reply(body, 404))
    answer = transport(toy.url).ask(GET)
    assert answer.json is None and answer.text == body.decode(errors="replace")[:20_000]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_an_unpaid_call_is_repeated(toy: Service, status: int) -> None:
    toy.on("/x", Reply({}, status), Reply(b"", fault=Fault.RESET), Reply(b"12", fault=Fault.HALF), Reply({"ok": 1}))
    assert transport(toy.url).ask(GET).json == {"ok": 1}
    assert toy.count("/x") == 4


@pytest.mark.parametrize("status", [200, 400, 401, 404, 409, 422])
def test_a_final_answer_is_not_asked_for_again(toy: Service, status: int) -> None:
    toy.on("/x", Reply({}, status))
    assert transport(toy.url).ask(GET).status == status
    assert toy.count("/x") == 1


def test_patience_ends_with_the_last_answer_or_with_an_error(toy: Service) -> None:
    toy.on("/x", Reply({"error": "down"}, 503))
    assert transport(toy.url).ask(GET).json == {"error": "down"}
    assert 3 < toy.count("/x") < 10
    toy.on("/x", Reply(b"", fault=Fault.RESET))
    with pytest.raises(ServiceUnreachable, match="trying again is safe"):
        transport(toy.url).ask(GET)


def test_waits_are_reported_and_as_long_as_requested(toy: Service) -> None:
    toy.on("/x", Reply({}, 429, {"Retry-After": "17"}), Reply({}))
    said: list[str] = []
    clock = QuickClock()
    transport(toy.url, clock=clock, notify=said.append).ask(GET)
    assert clock.slept == pytest.approx(17, abs=0.5) and "asking again in 17 s" in said[0]


@pytest.mark.parametrize(
    ("headers", "json", "seconds"),
    [
        ({"Retry-After": "5"}, None, 5),
        ({"retry-after": "2.5"}, {"retry_after": 4}, 4),
        ({"Retry-After": email.utils.formatdate(1_000_030, usegmt=True)}, None, 30),
        ({}, {"remainingSeconds": 12}, 12),
        ({}, {"retry_after": "7"}, 7),
        ({}, {"retry_after": True}, None),
        ({}, {"retry_after": "soon"}, None),
        ({}, {"retry_after": "inf"}, None),
        ({"Retry-After": "-3"}, None, 0),
        ({}, None, None),
    ],
)
def test_the_wait_is_read_from_header_and_body(headers: Any, json: Any, seconds: float | None) -> None:
    assert requested_wait(Answer(429, json, headers=headers), wall=1_000_000.0) == seconds


def test_a_paid_call_is_sent_once_whatever_happens(toy: Service) -> None:
    for reply in (Reply({}, 500), Reply({}, 408), Reply(b"<html>", 502)):
        toy.on("/generate", reply)
        pay(transport(toy.url))
    for fault in (Fault.RESET, Fault.RESET_UNREAD, Fault.HALF):
        toy.on("/generate", Reply({"id": 1}, fault=fault))
        with pytest.raises(OutcomeUnknown, match="may have been accepted"):
            pay(transport(toy.url))
    assert toy.paid == 6


def test_refused_and_unknown_hosts_are_distinguished_from_broken_connections() -> None:
    with service() as gone:
        pass
    with pytest.raises(ServiceUnreachable, match="refused"):
        pay(transport(gone.url))


def test_a_failed_tls_handshake_sends_nothing(toy: Service) -> None:
    with pytest.raises(ServiceUnreachable, match="Nothing was sent"):
        pay(transport(toy.url.replace("http:", "https:")))
    assert toy.paid == 0


def test_an_early_refusal_of_a_large_body_is_heard(toy: Service) -> None:
    toy.on("/generate", Reply({"error": "too large"}, 413))
    call = Call("POST", "/generate", body={"image": "x" * 2**22}, paid=True)
    assert transport(toy.url).pay(call, patience=1, on_late=lambda _: None).status == 413


def test_redirects_are_not_followed(toy: Service) -> None:
    toy.on("/x", Reply(b"", 302, {"Location": "http://10.1.2.3/"}))
    with pytest.raises(ServiceError, match="redirect"):
        transport(toy.url).ask(GET)


def test_an_endless_answer_is_cut_off(toy: Service) -> None:
    toy.on("/x", Reply(b"x" * 3_000_000))
    with pytest.raises(ServiceUnreachable, match="larger than 1 MiB"):
        transport(toy.url, limits=Limits(patience=0, answer_bytes=2**20)).ask(GET)


def test_a_login_in_netrc_does_not_replace_the_key(
    toy: Service, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine toy.localhost login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    toy.on("/x", Reply({}))
    monkeypatch.setattr("controlstack.api_clients.http.transport.is_loopback_name", lambda _: False)
    monkeypatch.setenv("NO_PROXY", "*")
    netrc.write_text("default login a password b\n")
    transport(toy.url).ask(Call("GET", "/x", headers={"Authorization": "Bearer k"}))
    assert toy.seen[0].headers["Authorization"] == "Bearer k"


def test_a_stop_is_felt_within_a_second_while_a_request_blocks(toy: Service) -> None:
    toy.on("/x", Reply({}, fault=Fault.SILENT))
    asked = threading.Event()

    def stop() -> None:
        if toy.count("/x"):
            asked.set()
            raise KeyError("stop")

    began = time.monotonic()
    with pytest.raises(KeyError):
        transport(toy.url, should_stop=stop).ask(GET)
    assert asked.is_set() and time.monotonic() - began < 1


def test_late_work_hands_its_outcome_over_exactly_once() -> None:
    for delay in (0.0, 0.05, 0.3):
        handed: list[Callable[[], str]] = []
        seen = threading.Event()

        def late(outcome: Callable[[], str], handed: Any = handed, seen: Any = seen) -> None:
            handed.append(outcome)
            seen.set()

        def work(delay: float = delay) -> str:
            time.sleep(delay + 0.12)
            return "done"

        began = time.monotonic()

        def stop(began: float = began, delay: float = delay) -> None:
            if time.monotonic() - began > 0.12 - min(delay, 0.05):
                raise KeyError

        try:
            assert interruptible(work, stop, 5, late) == "done"
        except KeyError:
            assert seen.wait(2)
            assert [outcome() for outcome in handed] == ["done"]


def test_work_that_fails_raises_its_own_error() -> None:
    def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interruptible(work, never_stop, 5)


@pytest.mark.parametrize(
    "value",
    [
        "127.0.0.1:9001",
        "ftp://x",
        "http://",
        "http://a:b@host",
        "https://host/?key=1",
        "https://ho st",
        "http://h:99999",
    ],
)
def test_an_override_that_is_no_address_is_refused(value: str) -> None:
    with pytest.raises(ServiceUnreachable, match="CONTROLSTACK_TOY_URL is not a valid address"):
        service_url(Toy.base_url, Toy.url_variable, {"CONTROLSTACK_TOY_URL": value})


def test_an_override_replaces_scheme_host_and_prefix() -> None:
    assert service_url(Toy.base_url, Toy.url_variable, {}) == "https://toy.invalid"
    assert (
        service_url(Toy.base_url, Toy.url_variable, {"CONTROLSTACK_TOY_URL": "http://127.0.0.1:9001/v1/"})
        == "http://127.0.0.1:9001/v1"
    )
