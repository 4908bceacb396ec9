"""The journal of paid jobs. A request is recorded before it is sent, and the id of its job before the first poll.

So the process may be killed at any moment: the same request then continues the job that is already paid for. One SQLite
file serves any number of threads and processes. Every method opens it anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ...core.errors import JournalUnusable
from ..http.messages import Json
from ..http.waiting import Clock

VERSION = 1
LEASE_SECONDS = 15.0
DETAILS_SECONDS = 30 * 86400.0  # then the request body and the metadata are deleted; the purchase record is kept
_BUSY_SECONDS = 20.0
_MAX_OUTPUT_CHARACTERS = 8192

_TABLE = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint TEXT NOT NULL,
    current INTEGER NOT NULL DEFAULT 1,   -- of all jobs with this fingerprint, the one that the next request finds
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
    created REAL NOT NULL,                -- seconds since 1970
    updated REAL NOT NULL,
    lease REAL NOT NULL DEFAULT 0         -- until then, whoever submits the job is alive
)
"""
_INDEXES = (
    "CREATE UNIQUE INDEX one_current ON jobs(fingerprint) WHERE current",
    "CREATE INDEX by_job_id ON jobs(service, profile, job_id)",
)


class Status(StrEnum):
    """What is known about a job. `job.Job` shows what leads from one to another.

    `SUBMITTING`: recorded, no answer yet. `UNKNOWN`: no usable answer came, so the job may or may not have been
    accepted. `RUNNING`: the service has accepted it. `DONE`, `FAILED`, `CANCELED`: the service has reported its end.
    """

    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True)
class RequestKey:
    """What identifies a request and its account. Equal keys mean the same images, which are bought once."""

    fingerprint: str
    service: str
    target: str
    base_url: str
    profile: str


@dataclass(frozen=True)
class Entry:
    """One job in the journal.

    `body` is what was sent, as it may be shown: without secrets, with labels for images, and with the fields of the
    query. `outputs` are result references; very long ones are not stored. `body` and `metadata` are empty once they are
    older than `DETAILS_SECONDS`. Times are seconds since 1970. Until `lease`, the process that submits the job is
    considered alive.
    """

    number: int
    key: RequestKey
    body: Json
    status: Status
    job_id: str
    outputs: tuple[str, ...]
    metadata: Json
    message: str
    cost: float | None
    cancel_asked: bool
    created: float
    updated: float
    lease: float


def journal_file(user_directory: Path) -> Path:
    """The journal's file in ComfyUI's user folder."""
    return user_directory / "__controlstack" / "jobs.sqlite"


def fingerprint(endpoint: str, base_url: str, profile: str, payload: Json, seed: int) -> str:
    """A stable name for a request: SHA-256 of its canonical JSON. In `payload`, digests stand for images.

    The seed counts even if the service does not use it: a user who changes it wants another image.
    """
    text = json.dumps([endpoint, base_url, profile, payload, seed], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The journal in `file`, which is created when needed. Every method raises JournalUnusable if the file fails."""

    def __init__(self, file: Path, clock: Clock | None = None) -> None:
        self.file = file
        self._clock = clock or Clock()

    def current(self, fingerprint: str) -> Entry | None:
        """The job that an equal request continues: the newest that has not failed or been canceled, else the newest."""
        with self._open() as database:
            return _first(database, "fingerprint = ? AND current", (fingerprint,))

    def get(self, number: int) -> Entry | None:
        """The job with this number in the journal."""
        with self._open() as database:
            return _first(database, "number = ?", (number,))

    def find(self, service: str, profile: str, job_id: str) -> Entry | None:
        """The newest job with this id at the service."""
        with self._open() as database:
            return _first(database, "service = ? AND profile = ? AND job_id = ?", (service, profile, job_id))

    def bought(self, fingerprint: str) -> Entry | None:
        """The request's newest job that the service is known to have accepted, and that can be fetched by its id."""
        accepted = Status.RUNNING.value, Status.DONE.value
        with self._open() as database:
            return _first(database, "fingerprint = ? AND job_id != '' AND standing IN (?, ?)", (fingerprint, *accepted))

    def claim(self, key: RequestKey, body: Json, *, instead_of: int | None = None, force: bool = False) -> int | None:
        """Record that the request is about to be sent, atomically for all threads and processes.

        Returns the number of the new job, or None, without recording anything, if the current job of an equal request
        is not `instead_of`: then somebody else was faster. With `force`, the new job becomes the current one in any
        case, until it is known to have failed or to have been canceled.
        """
        now = self._clock.wall()
        with self._open() as database, _transaction(database):
            current = _first(database, "fingerprint = ? AND current", (key.fingerprint,))
            if current and not force and current.number != instead_of:
                return None
            old = "updated < ? AND body || metadata != '{}{}'"
            database.execute(f"UPDATE jobs SET body = '{{}}', metadata = '{{}}' WHERE {old}", (now - DETAILS_SECONDS,))
            values = {
                "fingerprint": key.fingerprint,
                "current": 0,
                "service": key.service,
                "target": key.target,
                "base_url": key.base_url,
                "profile": key.profile,
                "body": json.dumps(body),
                "standing": Status.SUBMITTING.value,
                "created": now,
                "updated": now,
                "lease": now + LEASE_SECONDS,
            }
            names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
            number = database.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", values).lastrowid
            _choose_current(database, key.fingerprint)
            return number

    def renew(self, number: int, seconds: float = LEASE_SECONDS) -> None:
        """Extend the lease: the process that submits the job is considered alive for this long."""
        with self._open() as database:
            database.execute("UPDATE jobs SET lease = ? WHERE number = ?", (self._clock.wall() + seconds, number))

    def record(
        self,
        number: int,
        status: Status,
        *,
        job_id: str | None = None,
        outputs: Sequence[str] | None = None,
        metadata: Json | None = None,
        message: str | None = None,
        cost: float | None = None,
        only_after: Status | None = None,
    ) -> None:
        """Record the status of a job. None leaves a value unchanged. `only_after`: only if that is its status now."""
        kept = [] if outputs is None or max(map(len, outputs), default=0) > _MAX_OUTPUT_CHARACTERS else list(outputs)
        values: dict[str, Any] = {
            "standing": status.value,
            "job_id": job_id,
            "outputs": None if outputs is None else json.dumps(kept),
            "metadata": None if metadata is None else json.dumps(metadata),
            "message": message,
            "cost": cost,
        }
        self._update(number, {name: value for name, value in values.items() if value is not None}, only_after)

    def ask_cancel(self, number: int) -> None:
        """Record that the user wants the job canceled."""
        self._update(number, {"cancel_asked": 1})

    def forget(self, number: int) -> None:
        """Remove a job that was never sent."""
        with self._changing(number) as database:
            database.execute("DELETE FROM jobs WHERE number = ?", (number,))

    def _update(self, number: int, values: Mapping[str, Any], only_after: Status | None = None) -> None:
        condition = "number = :number" + (" AND standing = :before" if only_after else "")
        pairs = ", ".join(f"{name} = :{name}" for name in values)
        with self._changing(number) as database:
            database.execute(
                f"UPDATE jobs SET {pairs}, updated = :now WHERE {condition}",
                {**values, "now": self._clock.wall(), "number": number, "before": only_after and only_after.value},
            )

    @contextlib.contextmanager
    def _changing(self, number: int) -> Generator[sqlite3.Connection]:
        """A transaction that may change which job of the request is the current one."""
        with self._open() as database, _transaction(database):
            entry = _first(database, "number = ?", (number,))
            yield database
            if entry is not None:
                _choose_current(database, entry.key.fingerprint)

    @contextlib.contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # prompts are private
            with contextlib.closing(
                sqlite3.connect(self.file, timeout=_BUSY_SECONDS, isolation_level=None)
            ) as database:
                database.row_factory = sqlite3.Row
                self._prepare(database)
                yield database
        except (sqlite3.Error, OSError, ValueError) as error:
            raise JournalUnusable(
                f"The journal of paid jobs, {self.file}, cannot be used: {error}. Without it, a job could be paid "
                f"for twice. If the file is broken, move it away; a new one is created."
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise ValueError(f"it was written by a newer ControlStack (file version {version})")
        if version == VERSION:
            return
        _write_ahead(database)
        with _transaction(database):
            if database.execute("PRAGMA user_version").fetchone()[0] == 0:  # otherwise another process was faster
                database.execute(_TABLE)
                for index in _INDEXES:
                    database.execute(index)
                database.execute(f"PRAGMA user_version = {VERSION}")


def _choose_current(database: sqlite3.Connection, fingerprint: str) -> None:
    """Make the newest job current that has not failed or been canceled, so that what it cost is not paid again."""
    newest = "SELECT number FROM jobs WHERE fingerprint = ? ORDER BY standing IN (?, ?), number DESC LIMIT 1"
    without_result = Status.FAILED.value, Status.CANCELED.value
    database.execute("UPDATE jobs SET current = 0 WHERE fingerprint = ? AND current", (fingerprint,))
    database.execute(f"UPDATE jobs SET current = 1 WHERE number = ({newest})", (fingerprint, *without_result))


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch the file to write-ahead logging, so that readers do not wait for a writer.

    Retried, because SQLite refuses at once while another process does the same.
    """
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Generator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _first(database: sqlite3.Connection, condition: str, values: Sequence[Any]) -> Entry | None:
    row = database.execute(f"SELECT * FROM jobs WHERE {condition} ORDER BY number DESC LIMIT 1", values).fetchone()
    if row is None:
        return None
    key = RequestKey(row["fingerprint"], row["service"], row["target"], row["base_url"], row["profile"])
    return Entry(
        row["number"],
        key,
        json.loads(row["body"]),
        Status(row["standing"]),
        row["job_id"],
        tuple(json.loads(row["outputs"])),
        json.loads(row["metadata"]),
        row["message"],
        row["cost"],
        bool(row["cancel_asked"]),
        row["created"],
        row["updated"],
        row["lease"],
    )
