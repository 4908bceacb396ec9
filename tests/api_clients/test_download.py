"""Results are fetched from where they may lie, from the address that was judged, and never for longer than allowed."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controlstack.api_clients.http.download import Downloads
from controlstack.core.errors import ResultGone, ResultRefused, ServiceUnreachable
from controlstack.tests.api_clients.scripted_service import (
    QuickClock,
    Service,
    image_file,
    loopback_only,
    no_resolver,
    resolver,
    service,
)
from controlstack.tests.api_clients.socks_proxy import SocksProxy
from controlstack.tools.fake_services.loopback_server import Fault, Reply

PUBLIC = "https://api.example/v1"


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with loopback_only():
        yield


@pytest.fixture
def store() -> Iterator[Service]:
    with service() as running:
        running.on("/a.png", Reply(image_file()))
        yield running


def downloads(base_url: str, **changes: Any) -> Downloads:
    changes = {"resolver": no_resolver, "clock": QuickClock(), "connect": 2.0, "read": 1.0, **changes}
    return Downloads(base_url, **changes)


def test_a_result_is_fetched_without_credentials(store: Service) -> None:
    assert downloads(store.url).fetch(f"{store.url}/a.png?x=1") == image_file()
    (seen,) = store.seen
    assert seen.path == "/a.png?x=1" and not {"Authorization", "Cookie", "Referer"} & set(seen.headers)


def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked(store: Service) -> None:
    asked: list[str] = []

    def changing(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    port = store.server.server_port
    assert downloads(store.url, resolver=changing).fetch(f"http://cdn.example:{port}/a.png") == image_file()
    assert asked == ["cdn.example"] and store.seen[0].headers["Host"] == f"cdn.example:{port}"


def test_the_second_address_is_tried_where_the_first_is_closed(store: Service) -> None:
    port = store.server.server_port
    two = resolver(cdn_example=["127.0.0.2", "127.0.0.1"])
    assert downloads(store.url, resolver=two).fetch(f"http://cdn.example:{port}/a.png") == image_file()


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.5.5",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "2002:a00:1::",
        "2001:db8::1",
    ],
)
def test_a_public_service_leads_to_public_addresses_only(address: str) -> None:
    way = downloads(PUBLIC, resolver=resolver(cdn_example=["93.184.216.34", address], api_example=["93.184.216.34"]))
    with pytest.raises(ResultRefused, match="not on the public internet"):
        way.fetch("https://cdn.example/a.png")
    if "%" not in address:
        literal = f"[{address}]" if ":" in address else address
        with pytest.raises(ResultRefused, match="not on the public internet"):
            way.fetch(f"https://{literal}/a.png")


def test_a_service_on_this_machine_does_not_open_the_rest_of_the_house(store: Service) -> None:
    for address in ("10.0.0.1", "169.254.169.254", "192.168.0.1"):
        with pytest.raises(ResultRefused, match="not on the public internet"):
            downloads(store.url).fetch(f"http://{address}/a.png")


def test_a_service_on_a_private_network_may_serve_from_its_own_address() -> None:
    way = downloads("https://10.0.0.7:8443", resolver=resolver(files_intern=["10.0.0.7"], other_intern=["10.0.0.8"]))
    assert way._checked_addresses("files.intern", 443) == ["10.0.0.7"]
    with pytest.raises(ResultRefused):
        way._checked_addresses("other.intern", 443)


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.example/a.png",
        "ftp://cdn.example/a.png",
        "file:///etc/passwd",
        "https://user:word@cdn.example/a.png",
        "https:///a.png",
        "https://cdn.example:99999/a.png",
        "https://cdn.example/a b",
        "https://cdn.example/a\r\nX: y",
        "https://[::1/a.png",
        "",
    ],
)
def test_addresses_that_are_not_https_or_not_clean_are_refused(url: str) -> None:
    with pytest.raises(ResultRefused):
        downloads(PUBLIC).fetch(url)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://intern.example/x", "10.9.8.7"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("http://[fe80::1]/x", "fe80::1"),
        ("file:///etc/passwd", "not a plain http or https URL"),
        ("//intern.example/x", "10.9.8.7"),
    ],
)
def test_a_redirect_is_checked_before_anything_is_connected(store: Service, location: str, words: str) -> None:
    store.on("/r", Reply(b"", 302, {"Location": location}))
    way = downloads(store.url, resolver=resolver(intern_example=["10.9.8.7"]))
    with pytest.raises(ResultRefused, match=words):
        way.fetch(f"{store.url}/r")
    assert len(store.seen) == 1


def test_redirects_are_followed_five_times(store: Service) -> None:
    for hop in range(5):
        store.on(f"/{hop}", Reply(b"", 302, {"Location": f"/{hop + 1}" if hop < 4 else "a.png"}))
    assert downloads(store.url).fetch(f"{store.url}/0") == image_file()
    store.on("/loop", Reply(b"", 301, {"Location": "/loop"}))
    with pytest.raises(ResultRefused, match="more than 5 times"):
        downloads(store.url).fetch(f"{store.url}/loop")
    assert store.count("/loop") == 6


def test_one_gigabyte_promised_is_refused_unread(store: Service) -> None:
    store.on("/a.png", Reply(b"x", fault=Fault.PROMISE))
    with pytest.raises(ResultRefused, match="has 1024 MiB; the limit is 64 MiB"):
        downloads(store.url).fetch(f"{store.url}/a.png")


def test_more_than_promised_and_packed_bombs_stop_at_the_limit(store: Service) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    store.on("/a.png", Reply(bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ResultRefused, match="the limit is 2 MiB"):
        downloads(store.url, max_bytes=2**21).fetch(f"{store.url}/a.png")


def test_passing_failures_are_repeated(store: Service) -> None:
    bad = [
        Reply(b"", fault=Fault.RESET),
        Reply(image_file(), fault=Fault.HALF),
        Reply(b"", 503),
        Reply(b"", 429),
        Reply(b"", 404),
    ]
    store.on("/a.png", *bad, Reply(image_file()))
    assert downloads(store.url, patience=300).fetch(f"{store.url}/a.png") == image_file()


def test_a_half_sent_image_that_stays_half_is_not_an_image(store: Service) -> None:
    store.on("/a.png", Reply(image_file(), fault=Fault.HALF))
    with pytest.raises(ServiceUnreachable, match="costs nothing"):
        downloads(store.url).fetch(f"{store.url}/a.png")


@pytest.mark.parametrize(("status", "asked"), [(401, 1), (403, 1), (410, 1), (404, 3)])
def test_expired_links_are_told_from_failures(store: Service, status: int, asked: int) -> None:
    store.on("/a.png", Reply(b"expired", status))
    with pytest.raises(ResultGone, match=f"HTTP {status}") as caught:
        downloads(store.url).fetch(f"{store.url}/a.png?Signature=sig-0123")
    assert store.count("/a.png") == asked and "sig-0123" not in str(caught.value)


def test_a_silent_or_endless_server_is_given_up(store: Service) -> None:
    store.on("/a.png", Reply(b"x", fault=Fault.SILENT))
    began = time.monotonic()
    with pytest.raises(ServiceUnreachable):
        downloads(store.url, read=0.2, patience=0).fetch(f"{store.url}/a.png")
    assert time.monotonic() - began < 2


def test_a_stop_is_felt_while_a_download_hangs(store: Service) -> None:
    store.on("/a.png", Reply(b"x", fault=Fault.SILENT))
    pressed = threading.Event()

    def stop() -> None:
        if store.seen:
            pressed.set()
            raise KeyError

    began = time.monotonic()
    with pytest.raises(KeyError):
        downloads(store.url, read=10, should_stop=stop).fetch(f"{store.url}/a.png")
    assert pressed.is_set() and time.monotonic() - began < 1


@pytest.fixture
def tls_store(store: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The same over TLS, with a certificate for cdn.example that this test trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=cdn.example", "-addext", "subjectAltName=DNS:cdn.example"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    try:
        subprocess.run([*made, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _, name, __: store.asked_names.append(name)
    store.server.socket = context.wrap_socket(store.server.socket, server_side=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    return store


def test_tls_is_checked_for_the_hosts_own_name_though_the_address_is_fixed(tls_store: Service) -> None:
    port = tls_store.server.server_port
    way = downloads(
        tls_store.url, resolver=resolver(cdn_example=["127.0.0.1"], other_example=["127.0.0.1"]), patience=0
    )
    assert way.fetch(f"https://cdn.example:{port}/a.png") == image_file()
    with pytest.raises(ServiceUnreachable, match=r"(?i)hostname|match"):
        way.fetch(f"https://other.example:{port}/a.png")
    assert tls_store.count("/a.png") == 1
    assert tls_store.asked_names == ["cdn.example", "other.example"]


def test_results_come_through_a_socks_proxy_as_the_paid_request_went(
    tls_store: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("socks", reason="an optional extra")

    def unknown(host: str, port: int) -> list[str]:
        raise OSError("unknown here")

    port = tls_store.server.server_port
    with contextlib.closing(SocksProxy(port)) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        way = downloads("https://api.example", resolver=unknown, patience=0)
        assert way.fetch("https://cdn.example/a.png") == image_file()
        assert proxy.asked == [("cdn.example", 443)] and tls_store.asked_names == ["cdn.example"]
        with pytest.raises(ServiceUnreachable, match=r"(?i)hostname|match"):
            way.fetch("https://other.example/a.png")


@pytest.mark.skipif(importlib.util.find_spec("socks") is not None, reason="this machine has PySocks")
def test_a_proxy_whose_package_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://user:word@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    clock = QuickClock()
    way = downloads(PUBLIC, resolver=resolver(cdn_example=["93.184.216.34"]), clock=clock)
    with pytest.raises(ServiceUnreachable, match="pip install PySocks") as caught:
        way.fetch("https://cdn.example/a.png")
    assert clock.slept == 0 and "word" not in str(caught.value)


def test_behind_a_proxy_the_proxy_is_asked_and_private_names_are_not(
    store: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", store.url.replace("http://", "http://user:word@"))
    monkeypatch.setenv("no_proxy", "")
    store.on("http://cdn.example/a.png", Reply(image_file()))

    def local(host: str, port: int) -> list[str]:
        if host == "intern.example":
            return ["10.0.0.1"]
        raise OSError("unknown here")

    way = downloads("http://api.example", resolver=local)
    assert way.fetch("http://cdn.example/a.png") == image_file()
    headers = {name.lower(): value for name, value in store.seen[0].headers.items()}
    assert headers["proxy-authorization"].startswith("Basic ") and headers["host"] == "cdn.example"
    with pytest.raises(ResultRefused, match=r"10\.0\.0\.1"):
        way.fetch("http://intern.example/a.png")
    assert len(store.seen) == 1
