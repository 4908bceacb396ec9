"""The journal is written before money is spent, by any number of threads and processes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from controlstack.api_clients.credentials.redaction import Secret
from controlstack.api_clients.credentials.store import Credentials
from controlstack.api_clients.http.image_host import S3Host
from controlstack.api_clients.jobs.context import Account, Settings
from controlstack.api_clients.jobs.journal import DETAILS_SECONDS, Entry, Journal, RequestKey, Status, fingerprint
from controlstack.api_clients.jobs.run import RemoteRequest, RunMode, run_job
from controlstack.api_clients.registry import ENDPOINTS
from controlstack.api_clients.services.endpoint import Endpoint
from controlstack.core.errors import JournalUnusable
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.tests.api_clients.scripted_service import QuickClock, entries, journal_in, loopback_only

JOURNAL_OF_VERSION_0_1 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint TEXT NOT NULL,
    current INTEGER NOT NULL DEFAULT 1,
    service TEXT NOT NULL,
    target TEXT NOT NULL,
    base_url TEXT NOT NULL,
    profile TEXT NOT NULL,
    standing TEXT NOT NULL,
    job_id TEXT NOT NULL DEFAULT '',
    outputs TEXT NOT NULL DEFAULT '[]',
    body TEXT NOT NULL DEFAULT '{}',
    metadata TEXT NOT NULL DEFAULT '{}',
    message TEXT NOT NULL DEFAULT '',
    cost REAL,
    cancel_asked INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    lease REAL NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_current ON jobs(fingerprint) WHERE current;
CREATE INDEX by_job_id ON jobs(service, profile, job_id);
PRAGMA user_version = 1;
"""
KEY = RequestKey("print-1", "toy", "Toy", "https://toy.invalid", "default")
BODY = {"prompt": "a cat"}
KEYS_OF_VERSION_0_1 = {
    "ModelsLab": "9235ffcbb96a2b550bcd9146959db59199da3bf827e2a6472353ceed46a55461",
    "ModelsLab Enterprise": "f896b6fc1e70c346aa475258ef591c9ed0cd20afac8b9fa30f614db51ebadab7",
    "Scenario": "1e3ffcfb6e013c605a03f52098c670b3ffa0f85d719731854fb7dc57f6ab1d75",
    "Qolaba ControlNet": "04f7cc5bf17fd872a93eeb3797661b913e5b670e14550c378d4e42accb1e5c71",
    "Qolaba Image to Image": "47ded8e4dd7799ec96ed5ca9fd0cb7f8a1e6c69dc4625f12ad75ed90c2d847d9",
}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return journal_in(tmp_path)


def claimed(journal: Journal, key: RequestKey = KEY, **options: bool) -> int:
    number = journal.claim(key, BODY, **options)  # pyright: ignore[reportArgumentType]
    assert number is not None
    return number


def test_a_claimed_job_is_found_by_its_request_and_by_its_id(journal: Journal) -> None:
    assert journal.current("print-1") is None
    number = claimed(journal)
    entry = journal.current("print-1")
    assert (
        entry
        and entry.number == number
        and entry.status is Status.SUBMITTING
        and entry.key == KEY
        and entry.body == BODY
    )
    assert journal.claim(KEY, BODY) is None
    journal.record(number, Status.RUNNING, job_id="7", metadata={"seed": 3}, cost=1.5)
    journal.record(number, Status.DONE, outputs=["https://a/b.png"])
    found = Journal(journal.file).find("toy", "default", "7")
    assert found and (found.outputs, found.metadata, found.cost) == (("https://a/b.png",), {"seed": 3}, 1.5)
    assert journal.find("toy", "other", "7") is None


def test_only_who_saw_the_current_job_may_replace_it_unless_forced(journal: Journal) -> None:
    first = claimed(journal)
    journal.record(first, Status.FAILED)
    second = journal.claim(KEY, BODY, instead_of=first)
    assert second and journal.claim(KEY, BODY, instead_of=first) is None
    third = claimed(journal, force=True)
    current = journal.current("print-1")
    assert current and current.number == third and len(entries(journal)) == 3


def test_a_later_word_is_not_overwritten_by_an_earlier_doubt(journal: Journal) -> None:
    number = claimed(journal)
    journal.record(number, Status.RUNNING, job_id="7")
    journal.record(number, Status.UNKNOWN, only_after=Status.SUBMITTING)
    assert entries(journal)[0].status is Status.RUNNING


def test_a_forgotten_job_was_never_there(journal: Journal) -> None:
    journal.forget(claimed(journal))
    assert journal.current("print-1") is None and journal.claim(KEY, BODY) is not None


@pytest.mark.parametrize("before", [Status.UNKNOWN, Status.RUNNING, Status.DONE])
def test_a_forced_job_that_came_to_nothing_hides_no_earlier_one(journal: Journal, before: Status) -> None:
    def found() -> int:
        current = journal.current("print-1")
        assert current
        return current.number

    first = claimed(journal)
    journal.record(first, before)
    journal.forget(claimed(journal, force=True))
    assert found() == first
    for end in (Status.FAILED, Status.CANCELED):
        second = claimed(journal, force=True)
        assert found() == second
        journal.record(second, end)
        assert found() == first and journal.claim(KEY, BODY, instead_of=second) is None
    journal.record(second, Status.DONE)  # so it turned out later
    assert found() == second


def test_endless_inline_results_are_not_kept(journal: Journal) -> None:
    number = claimed(journal)
    journal.record(number, Status.DONE, outputs=["x" * 100_000])
    assert entries(journal)[0].outputs == () and journal.file.stat().st_size < 100_000


def test_what_was_bought_is_known_for_ever_and_what_was_said_about_it_for_a_month(tmp_path: Path) -> None:
    clock = QuickClock()
    journal = journal_in(tmp_path, clock)
    number = claimed(journal)
    journal.record(number, Status.DONE, job_id="7", outputs=["https://a/b.png"], metadata={"seed": 3}, cost=1.5)
    clock.slept += DETAILS_SECONDS + 1
    claimed(journal, replace(KEY, fingerprint="print-2"))
    entry = journal.current("print-1")
    assert entry and journal.claim(KEY, BODY) is None
    assert (entry.status, entry.job_id, entry.cost) == (Status.DONE, "7", 1.5)
    assert entry.outputs == ("https://a/b.png",) and not entry.body and not entry.metadata
    kept = journal.current("print-2")
    assert kept and kept.body == BODY


def test_threads_that_begin_at_once_get_one_claim(tmp_path: Path) -> None:
    def claim(journal: Journal, start: threading.Barrier) -> int | None:
        start.wait()
        return journal.claim(KEY, BODY)

    with ThreadPoolExecutor(8) as threads:
        for attempt in range(60):  # they meet where the file is made, and not every time
            journal, start = journal_in(tmp_path / str(attempt)), threading.Barrier(8)
            claims = [threads.submit(claim, journal, start) for _ in range(8)]
            assert [number for number in (one.result() for one in claims) if number is not None] == [1]


def test_processes_that_begin_at_once_get_one_claim(journal: Journal) -> None:
    code = (
        "import sys; from pathlib import Path; from controlstack.api_clients.jobs.journal import Journal, RequestKey\n"
        "sys.stdin.readline()\n"
        "print(Journal(Path(sys.argv[1])).claim(RequestKey('p', 's', 't', 'u', 'd'), {}))"
    )
    command = [sys.executable, "-I", "-c", code, str(journal.file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    said = []
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        said.append(process.communicate(timeout=60)[0].strip())
    assert sorted(said) == ["1", "None", "None"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_journal_is_private_and_survives_a_crash_of_the_machine(journal: Journal) -> None:
    claimed(journal)
    assert stat.S_IMODE(journal.file.stat().st_mode) == 0o600
    with sqlite3.connect(journal.file) as database:
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert database.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_newer_or_broken_file_is_left_alone(journal: Journal) -> None:
    claimed(journal)
    with sqlite3.connect(journal.file) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalUnusable, match="newer ControlStack"):
        journal.claim(KEY, BODY)
    broken = Journal(journal.file.with_name("broken.sqlite"))
    broken.file.write_bytes(b"no database at all, certainly not" * 100)
    with pytest.raises(JournalUnusable, match="move it away"):
        broken.current("x")
    assert broken.file.read_bytes().startswith(b"no database")


@pytest.mark.parametrize("standing", ["submitting", "unknown", "running", "done", "failed", "canceled"])
def test_a_journal_of_version_0_1_is_read_and_its_jobs_are_not_bought_again(tmp_path: Path, standing: str) -> None:
    file = tmp_path / "jobs.sqlite"
    values = {
        "fingerprint": "print-1", "service": "toy", "target": "Toy", "base_url": "https://toy.invalid",
        "profile": "default", "standing": standing, "job_id": "7", "outputs": '["https://a/b.png"]',
        "body": '{"prompt": "a cat"}', "metadata": '{"seed": 3}', "message": "words", "cost": 1.5, "cancel_asked": 1,
        "created": 1e9, "updated": 1e9 + 1, "lease": 1e9 + 2,
    }  # fmt: skip
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.executescript(JOURNAL_OF_VERSION_0_1)
        names = ", ".join(values)
        database.execute(f"INSERT INTO jobs ({names}) VALUES ({', '.join(f':{name}' for name in values)})", values)
    journal = Journal(file)
    entry = journal.current("print-1")
    assert entry == Entry(
        1,
        KEY,
        BODY,
        Status(standing),
        "7",
        ("https://a/b.png",),
        {"seed": 3},
        "words",
        1.5,
        True,
        1e9,
        1e9 + 1,
        1e9 + 2,
    )
    assert journal.find("toy", "default", "7") == entry
    assert journal.claim(KEY, BODY) is None


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.target)
def test_a_request_has_the_key_that_version_0_1_gave_it(tmp_path: Path, endpoint: Endpoint[Any]) -> None:
    """With another key, a request that was paid for before an upgrade would be paid for again."""
    image = (torch.arange(8 * 8 * 3) / 191).reshape(1, 8, 8, 3).repeat_interleave(64, 1).repeat_interleave(64, 2)
    controls = (ControlUnit(Modality.CANNY, image),)
    request = GenerationRequest(prompt="a lighthouse", width=512, height=512, seed=7, controls=controls)
    spec = endpoint.credential_spec
    credentials = Credentials(spec.service, "default", {name: Secret("key-0123456789") for name in spec.fields})
    journal = journal_in(tmp_path)
    key = RequestKey(KEYS_OF_VERSION_0_1[endpoint.target], spec.service, endpoint.target, endpoint.base_url, "default")
    number = claimed(journal, key)
    journal.record(number, Status.RUNNING, job_id="7")
    remote = RemoteRequest(endpoint, request, endpoint.options_type())
    account = Account(credentials, journal, S3Host("bucket"))
    with loopback_only():  # nothing is uploaded or sent
        result = run_job(remote, account, RunMode(async_only=True), settings=Settings(environ={}))
    assert result.info["resumed"] and result.job_id == "7" and len(entries(journal)) == 1


def test_the_fingerprint_depends_on_everything_and_on_no_order() -> None:
    base = fingerprint("Toy", "https://a", "default", {"a": 1, "b": 2}, 0)
    assert base == fingerprint("Toy", "https://a", "default", {"b": 2, "a": 1}, 0)
    others = [
        fingerprint("Toy2", "https://a", "default", {"a": 1, "b": 2}, 0),
        fingerprint("Toy", "https://b", "default", {"a": 1, "b": 2}, 0),
        fingerprint("Toy", "https://a", "studio", {"a": 1, "b": 2}, 0),
        fingerprint("Toy", "https://a", "default", {"a": 1, "b": 3}, 0),
        fingerprint("Toy", "https://a", "default", {"a": 1, "b": 2}, 1),
    ]
    assert len({base, *others}) == 6
