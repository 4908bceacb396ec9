"""Trained files are found where they are, else fetched whole and verified, else missed within a second."""

from __future__ import annotations

import hashlib
import pickle
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from controlstack.core.errors import ModelNotFound, ModelUnreadable
from controlstack.core.memory import PlainMemory
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.weights import fetch
from controlstack.preprocessors.weights.declarations import Weights
from controlstack.preprocessors.weights.store import obtain
from controlstack.preprocessors.weights.tensors import read_state
from controlstack.tests.preprocessors.hub_double import HubDouble, hub_double

CONTENT = bytes(range(256)) * 8192  # 2 MB
REVISION = "0123456789abcdef0123456789abcdef01234567"
NET = Weights(
    "someone/nets", REVISION, "net.pth", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), ("lines/net.pth",)
)
CONFIG = Weights("someone/segmenter", REVISION, "config.json", 2)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubDouble]:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with hub_double() as double:
        monkeypatch.setenv("HF_ENDPOINT", double.url)
        double.put("someone/nets", REVISION, "net.pth", CONTENT)
        double.put("someone/segmenter", REVISION, "config.json", b"{}")
        yield double


@pytest.fixture
def host(tmp_path: Path) -> PlainHost:
    return PlainHost(PlainMemory(torch.device("cpu")), [tmp_path / "own", tmp_path / "theirs"])


def place(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- found


@pytest.mark.parametrize("where", ["own/someone/nets/net.pth", "theirs/someone/nets/net.pth", "theirs/lines/net.pth"])
def test_a_file_that_another_program_has_is_used_where_it_lies(
    hub: HubDouble, host: PlainHost, tmp_path: Path, where: str
) -> None:
    file = place(tmp_path / where)
    assert obtain(NET, host) == file
    assert not hub.requests


def test_a_file_in_the_hubs_own_cache_is_used(hub: HubDouble, host: PlainHost, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--someone--nets" / "snapshots" / REVISION
    file = place(snapshot / "net.pth")
    assert obtain(NET, host) == file
    assert not hub.requests


def test_a_file_of_another_size_is_another_file(hub: HubDouble, host: PlainHost, tmp_path: Path) -> None:
    place(tmp_path / "theirs" / "lines" / "net.pth", b"a git LFS pointer")
    assert obtain(NET, host) == tmp_path / "own" / "someone" / "nets" / "net.pth"


def test_a_users_own_file_is_never_overwritten(hub: HubDouble, host: PlainHost, tmp_path: Path) -> None:
    mine = place(tmp_path / "own" / "someone" / "nets" / "net.pth", b"my own training")
    with pytest.raises(ModelUnreadable, match=rf"net\.pth has 15 bytes instead of {len(CONTENT)}.*Move it elsewhere"):
        obtain(NET, host)
    assert mine.read_bytes() == b"my own training"


# --- fetched


def test_a_missing_file_is_fetched_into_the_first_folder_with_progress_in_bytes(
    hub: HubDouble, host: PlainHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(host, "progress", lambda done, total: seen.append((done, total)))
    file = obtain(NET, host)
    assert file == tmp_path / "own" / "someone" / "nets" / "net.pth"
    assert file.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in file.parent.iterdir()] == ["net.pth"]


def test_a_cut_connection_is_taken_up_where_it_broke(hub: HubDouble, host: PlainHost) -> None:
    hub.cut_after = [500_000, 700_000]
    assert obtain(NET, host).read_bytes() == CONTENT
    starts = [int(span[6:-1] or 0) for span in hub.transfers]
    assert len(starts) == 3
    assert starts[0] == 0 and 400_000 < starts[1] <= 500_000 and starts[1] + 600_000 < starts[2]


def test_a_later_run_goes_on_from_what_an_interrupted_one_kept(
    hub: HubDouble, host: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Interrupted

    monkeypatch.setattr(host, "progress", stop)
    with pytest.raises(Interrupted):
        obtain(NET, host)
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert obtain(NET, host).read_bytes() == CONTENT
    assert hub.transfers[0] == "" and hub.transfers[1].startswith("bytes=")


def test_a_hub_that_cannot_resume_sends_everything_again(hub: HubDouble, host: PlainHost) -> None:
    hub.cut_after, hub.resumes = [500_000], False
    assert obtain(NET, host).read_bytes() == CONTENT


def test_a_connection_that_breaks_again_and_again_is_given_up_and_what_arrived_is_kept(
    hub: HubDouble, host: PlainHost, tmp_path: Path
) -> None:
    hub.cut_after = [1_000_000, 0, 0, 0]
    with pytest.raises(
        ModelNotFound, match=r"the connection broke 3 times at [01]\.\d MB .*the next run continues from there"
    ):
        obtain(NET, host)
    (partial,) = (tmp_path / "own" / "someone" / "nets").iterdir()
    assert CONTENT.startswith(partial.read_bytes()) and partial.stat().st_size > 500_000


@pytest.mark.parametrize("weights", [NET, replace(NET, sha256=""), CONFIG], ids=["pinned", "stated", "small"])
def test_what_arrived_whole_before_is_taken_as_it_is(
    hub: HubDouble, host: PlainHost, monkeypatch: pytest.MonkeyPatch, weights: Weights
) -> None:
    """Stopped at the last report, or killed over the checksum; the hub's answer is a page, which is no part of it."""

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == total:
            raise Stopped

    monkeypatch.setattr(host, "progress", stop)
    with pytest.raises(Stopped):
        obtain(weights, host)
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (partial,) = (file for file in host.weight_folders[0].rglob("*") if file.is_file())
    whole = partial.read_bytes()
    served = {path.rpartition("/")[2]: content for path, content in hub.files.items()}
    assert partial.name.endswith(".partial") and whole == served[weights.file]
    assert obtain(weights, host).read_bytes() == whole


@pytest.mark.parametrize("weights", [NET, replace(NET, sha256=""), CONFIG], ids=["pinned", "stated", "small"])
def test_other_bytes_than_promised_are_refused_and_not_kept(hub: HubDouble, host: PlainHost, weights: Weights) -> None:
    hub.corrupt = True
    with pytest.raises(ModelUnreadable, match=r"its checksum is \w+ instead of \w+\. The file was deleted"):
        obtain(weights, host)
    assert not list(host.weight_folders[0].rglob("*.*"))
    hub.corrupt = False
    assert obtain(weights, host).is_file()


def test_a_full_disk_is_noticed_before_the_transfer(
    hub: HubDouble, host: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(ModelNotFound, match=r"the disk has 1\.0 MB free, but 2\.1 MB are needed"):
        obtain(NET, host)


# --- missed


def says_everything(message: str, weights: Weights, folder: Path) -> bool:
    return all(part in message for part in (Path(weights.file).name, "2.1 MB", weights.url, str(folder)))


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "does not have this file"), (403, "set HF_TOKEN"), (401, "set HF_TOKEN"), (503, "503")]
)
def test_a_refusal_says_why_and_what_to_do(hub: HubDouble, host: PlainHost, status: int, reason: str) -> None:
    hub.status = status
    with pytest.raises(ModelNotFound, match=reason) as caught:
        obtain(NET, host)
    assert says_everything(str(caught.value), NET, host.weight_folders[0] / "someone" / "nets")


def nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")


def names_are_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: object, **options: object) -> list:
        time.sleep(2)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)


def offline_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def the_proxy_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")


@pytest.mark.parametrize("cause", [nothing_listens, names_are_not_answered, offline_is_wished, the_proxy_is_dead])
def test_without_a_network_the_error_comes_within_a_second_and_says_what_to_put_where(
    hub: HubDouble, host: PlainHost, monkeypatch: pytest.MonkeyPatch, cause
) -> None:
    cause(monkeypatch)
    started = time.monotonic()
    with pytest.raises(ModelNotFound) as caught:
        obtain(NET, host)
    assert time.monotonic() - started < 1
    assert says_everything(str(caught.value), NET, host.weight_folders[0] / "someone" / "nets")
    assert not hub.requests


# --- read


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    file = tmp_path / "net.pth"
    torch.save({"weight": Harmful()}, file, pickle_module=pickle)
    with pytest.raises(ModelUnreadable, match=r"net\.pth cannot be read"):
        read_state(file)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_broken_file_is_a_sentence(tmp_path: Path, name: str) -> None:
    file = place(tmp_path / name, b"<html>blocked by your company</html>")
    with pytest.raises(ModelUnreadable, match=r"cannot be read .*Move it elsewhere"):
        read_state(file)
