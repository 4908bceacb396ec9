"""What was bought where: every paid request is written down before it is sent, and its job's id before it is asked for.

So a process may be killed at any moment, and the same request afterwards goes on with the job it has already paid for.
One SQLite file serves any number of threads and processes; every method opens it anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..core.errors import JournalUnusable
from .messages import Json
from .waiting import Clock

VERSION = 1
LEASE_SECONDS = 15.0
DETAILS_SECONDS = 30 * 86400.0  # what was bought is known for ever; what was asked for and said about it, so long
_BUSY_SECONDS = 20.0
_LONGEST_OUTPUT = 8192

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


class Standing(StrEnum):
    """What is known about a bought job.

    `SUBMITTING`: written down, no answer yet. `UNKNOWN`: no usable answer came; it may have been bought. `RUNNING`: the
    service has it. The last three are final.
    """

    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True)
class Order:
    """What identifies a request: the same order is the same picture, bought once.

    `body` is what was sent as it may be shown, the query's fields among the body's: no secrets, images as labels; empty
    where its age has dropped it.
    """

    fingerprint: str
    service: str
    target: str
    base_url: str
    profile: str
    body: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One job. Times are seconds since 1970; `outputs` are result references, too long ones are not kept.

    `metadata` is empty where its age has dropped it.
    """

    number: int
    order: Order
    standing: Standing
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
    """Where the journal lies below ComfyUI's user folder."""
    return user_directory / "__controlstack" / "jobs.sqlite"


def fingerprint(endpoint: str, base_url: str, profile: str, payload: Json, seed: int) -> str:
    """A stable name for a request: SHA-256 of its canonical JSON. Images stand in `payload` by their digest.

    The seed counts even where the service has none: who changes it wants another picture.
    """
    text = json.dumps([endpoint, base_url, profile, payload, seed], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The journal in `file`, made when first written to. Every method raises JournalUnusable if the file fails."""

    def __init__(self, file: Path, clock: Clock | None = None) -> None:
        self.file = file
        self._clock = clock or Clock()

    def current(self, fingerprint: str) -> Entry | None:
        """What the same request finds: its newest job that something may have come of, else its newest."""
        with self._open() as database:
            return _first(database, "fingerprint = ? AND current", (fingerprint,))

    def get(self, number: int) -> Entry | None:
        """The job of that number in the journal."""
        with self._open() as database:
            return _first(database, "number = ?", (number,))

    def find(self, service: str, profile: str, job_id: str) -> Entry | None:
        """The newest job with that id at the service."""
        with self._open() as database:
            return _first(database, "service = ? AND profile = ? AND job_id = ?", (service, profile, job_id))

    def bought(self, fingerprint: str) -> Entry | None:
        """The request's newest job that the service surely has or had, and that can be asked for."""
        surely = Standing.RUNNING.value, Standing.DONE.value
        with self._open() as database:
            return _first(database, "fingerprint = ? AND job_id != '' AND standing IN (?, ?)", (fingerprint, *surely))

    def claim(self, order: Order, *, instead_of: int | None = None, force: bool = False) -> int | None:
        """Write down that the order is about to be sent, in one step for all threads and processes; its number.

        None, and nothing is written, where the current job of the same order is not `instead_of`: someone was faster.
        With `force` the current job, whatever it is, makes room until it is known that nothing came of the new one.
        """
        now = self._clock.wall()
        with self._open() as database, _transaction(database):
            current = _first(database, "fingerprint = ? AND current", (order.fingerprint,))
            if current and not force and current.number != instead_of:
                return None
            old = "updated < ? AND body || metadata != '{}{}'"
            database.execute(f"UPDATE jobs SET body = '{{}}', metadata = '{{}}' WHERE {old}", (now - DETAILS_SECONDS,))
            values = {
                "fingerprint": order.fingerprint,
                "current": 0,
                "service": order.service,
                "target": order.target,
                "base_url": order.base_url,
                "profile": order.profile,
                "body": json.dumps(order.body),
                "standing": Standing.SUBMITTING.value,
                "created": now,
                "updated": now,
                "lease": now + LEASE_SECONDS,
            }
            names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
            number = database.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", values).lastrowid
            _choose_current(database, order.fingerprint)
            return number

    def renew(self, number: int, seconds: float = LEASE_SECONDS) -> None:
        """Say that whoever submits the job is alive for so long."""
        with self._open() as database:
            database.execute("UPDATE jobs SET lease = ? WHERE number = ?", (self._clock.wall() + seconds, number))

    def record(
        self,
        number: int,
        standing: Standing,
        *,
        job_id: str | None = None,
        outputs: Sequence[str] | None = None,
        metadata: Json | None = None,
        message: str | None = None,
        cost: float | None = None,
        only_after: Standing | None = None,
    ) -> None:
        """Write down what became of a job; None leaves a value. With `only_after`, only if it still stands there."""
        kept = [] if outputs is None or max(map(len, outputs), default=0) > _LONGEST_OUTPUT else list(outputs)
        values: dict[str, Any] = {
            "standing": standing.value,
            "job_id": job_id,
            "outputs": None if outputs is None else json.dumps(kept),
            "metadata": None if metadata is None else json.dumps(metadata),
            "message": message,
            "cost": cost,
        }
        self._update(number, {name: value for name, value in values.items() if value is not None}, only_after)

    def ask_cancel(self, number: int) -> None:
        """Write down that the user wanted the job canceled."""
        self._update(number, {"cancel_asked": 1})

    def forget(self, number: int) -> None:
        """Remove a job that was never sent."""
        with self._changing(number) as database:
            database.execute("DELETE FROM jobs WHERE number = ?", (number,))

    def _update(self, number: int, values: Mapping[str, Any], only_after: Standing | None = None) -> None:
        condition = "number = :number" + (" AND standing = :before" if only_after else "")
        pairs = ", ".join(f"{name} = :{name}" for name in values)
        with self._changing(number) as database:
            database.execute(
                f"UPDATE jobs SET {pairs}, updated = :now WHERE {condition}",
                {**values, "now": self._clock.wall(), "number": number, "before": only_after and only_after.value},
            )

    @contextlib.contextmanager
    def _changing(self, number: int) -> Iterator[sqlite3.Connection]:
        """What happens inside may change which job of the same request is the current one."""
        with self._open() as database, _transaction(database):
            entry = _first(database, "number = ?", (number,))
            yield database
            if entry is not None:
                _choose_current(database, entry.order.fingerprint)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
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
                f"The journal of jobs, {self.file}, cannot be used: {error}. Without it a job could be paid twice. "
                f"If it is broken, move it away; a new one is made."
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise ValueError(f"it was written by a newer ControlStack (version {version} of the file)")
        if version == VERSION:
            return
        _write_ahead(database)
        with _transaction(database):
            if database.execute("PRAGMA user_version").fetchone()[0] == 0:  # else another process was faster
                database.execute(_TABLE)
                for index in _INDEXES:
                    database.execute(index)
                database.execute(f"PRAGMA user_version = {VERSION}")


def _choose_current(database: sqlite3.Connection, fingerprint: str) -> None:
    """A job that failed or was canceled hides none of those before it: what they cost is not paid again."""
    newest = "SELECT number FROM jobs WHERE fingerprint = ? ORDER BY standing IN (?, ?), number DESC LIMIT 1"
    came_to_nothing = Standing.FAILED.value, Standing.CANCELED.value
    database.execute("UPDATE jobs SET current = 0 WHERE fingerprint = ? AND current", (fingerprint,))
    database.execute(f"UPDATE jobs SET current = 1 WHERE number = ({newest})", (fingerprint, *came_to_nothing))


def _write_ahead(database: sqlite3.Connection) -> None:
    """Let readers go on beside a writer; the file remembers. SQLite refuses at once where another is just doing it."""
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
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
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
    order = Order(
        row["fingerprint"], row["service"], row["target"], row["base_url"], row["profile"], json.loads(row["body"])
    )
    return Entry(
        row["number"],
        order,
        Standing(row["standing"]),
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
