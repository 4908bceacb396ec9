"""The journal is written before money is spent, by any number of threads and processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from controlstack.api_clients.jobs.journal import DETAILS_SECONDS, Journal, RequestKey, Status, fingerprint
from controlstack.core.errors import JournalUnusable
from controlstack.tests.api_clients.scripted_service import QuickClock, entries, journal_in

KEY = RequestKey("print-1", "toy", "Toy", "https://toy.invalid", "default")
BODY = {"prompt": "a cat"}


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
