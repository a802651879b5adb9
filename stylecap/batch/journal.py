"""What a batch remembers: the state of every job, in one SQLite file for each share of the work.

A rollback journal with ``synchronous=FULL``, since a write-ahead log needs memory that machines
sharing a folder do not share. Only the process that holds the share's lock writes.

A job goes ``queued -> running -> written -> done``, or to ``failed``, or to ``refused`` where a
file that is not ours has its name. ``written`` is stored before the picture gets its name, with
the picture's hash, so that a run killed in between is told from one killed before.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from stylecap.batch.jobs import STATE, Job
from stylecap.errors import OutputError
from stylecap.files import file_sha256

_BUSY_SECONDS = 30.0
_PATIENCE_SECONDS = 5.0  # for shares that look at the same old lock
_AT_ONCE = 500  # names in one question
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # no quota on Windows
_COLUMNS = ("output", "state", "asked", "inputs", "picture_sha256", "ending")
_CREATE = """
CREATE TABLE IF NOT EXISTS jobs (
    output TEXT PRIMARY KEY, state TEXT NOT NULL, asked TEXT NOT NULL, inputs TEXT NOT NULL,
    picture_sha256 TEXT NOT NULL, ending TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A job as the journal knows it.

    Attributes:
        output: name of the result, which identifies the job.
        state: see the module.
        asked: `asked_of` the job.
        inputs: role, path, size, times and sha256 of each, as they were when it was painted.
        picture_sha256: of the result's file.
        ending: seconds, steps, losses, captions, or ``error``.
    """

    output: str
    state: str
    asked: dict[str, Any]
    inputs: list[dict[str, Any]] = field(default_factory=list)
    picture_sha256: str = ""
    ending: dict[str, Any] = field(default_factory=dict)


def asked_of(job: Job) -> dict[str, Any]:
    """A job as plain values."""
    asked: dict[str, Any] = json.loads(json.dumps(asdict(job)))
    return asked


class Journal:
    """The journal of one share, held locked while it is open for writing.

    Raises:
        OutputError: another run holds it, or the folder cannot be written.
    """

    def __init__(self, output: Path, shard: tuple[int, int]) -> None:
        """Make or open it, and lock it.

        Args:
            output: folder of the results.
            shard: (i, n), from 1.
        """
        self.folder = output / STATE
        self.name = "{}of{}".format(*shard)
        path = self.folder / f"journal-{self.name}.sqlite"
        with _storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _Lock(self.folder, shard, path)
        try:
            with _storage_errors(path):
                self._database = _connect(path)
                self._database.executescript(_CREATE)
                self._others = [_connect(p) for p in _journals(self.folder) if p != path]
            self.set_fact("owner", f"process {os.getpid()} on {socket.gethostname()}")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for database in (self._database, *self._others):
            database.close()
        self._lock.release()

    @property
    def work(self) -> Path:
        """Folder of what is not finished, only this share's."""
        return self.folder / f"work-{self.name}"

    def is_others(self, work: Path) -> bool:
        """Whether a work folder belongs to another share that may be running now.

        No run of another number of shares can be: the lock sees to that.
        """
        return work != self.work and work.name.endswith("of" + self.name.partition("of")[2])

    def find(self, outputs: Sequence[str]) -> dict[str, Row]:
        """Jobs by name, from this journal or those of other shares; those of the pictures there."""
        found: dict[str, list[Row]] = {}
        with _storage_errors(self.folder):
            for database in (self._database, *self._others):
                own = database is self._database
                with suppress(*() if own else (sqlite3.OperationalError,)):  # it is just being made
                    for start in range(0, len(outputs), _AT_ONCE):
                        some = outputs[start : start + _AT_ONCE]
                        where = f"output IN ({', '.join('?' * len(some))})"
                        for row in _rows(database, where, *some):
                            found.setdefault(row.output, []).append(row)
        return {name: _current(rows, self.folder.parent / name) for name, rows in found.items()}

    def sees_other_jobs(self, outputs: Sequence[str]) -> bool:
        """Whether another share of the same number was given other jobs; this one's are noted."""
        listing = hashlib.sha256("\0".join(outputs).encode()).hexdigest()
        self.set_fact("listing", listing)
        theirs = []
        for path in self.folder.glob(f"journal-*of{self.name.partition('of')[2]}.sqlite"):
            with suppress(sqlite3.Error):  # it is just being made
                theirs.append(_fact_of(path, "listing"))
        return any(each not in (None, listing) for each in theirs)

    def written(self) -> list[Row]:
        """Jobs whose picture was complete but perhaps without its name when a run ended."""
        with _storage_errors(self.folder):
            return list(_rows(self._database, "state = 'written'"))

    def put(self, rows: Iterable[Row]) -> None:
        """Store jobs, in one transaction."""
        values = [
            (
                row.output,
                row.state,
                json.dumps(row.asked),
                json.dumps(row.inputs),
                row.picture_sha256,
                json.dumps(row.ending),
            )
            for row in rows
        ]
        holes = ", ".join("?" * len(_COLUMNS))
        with _storage_errors(self.folder), self._database:
            self._database.executemany(f"REPLACE INTO jobs VALUES ({holes})", values)

    def set_state(self, output: str, state: str) -> None:
        """Move a job on."""
        with _storage_errors(self.folder), self._database:
            self._database.execute("UPDATE jobs SET state = ? WHERE output = ?", (state, output))

    def fact(self, name: str) -> str | None:
        """Something that all runs of this share agree on."""
        with _storage_errors(self.folder):
            found = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,))
            row = found.fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, name: str, value: str) -> None:
        """Store a `fact`."""
        with _storage_errors(self.folder), self._database:
            self._database.execute("REPLACE INTO facts VALUES (?, ?)", (name, value))


def read_rows(output: Path) -> Iterator[Row]:
    """All jobs of all shares below an output folder, by name.

    Of a job that several shares know, the one that tells of the picture there.

    Raises:
        OutputError: there is no journal, or it cannot be read.
    """
    paths = _journals(output / STATE)
    if not paths:
        raise OutputError(f"{output}: holds no batch; give the folder of one")
    found: dict[str, list[Row]] = {}
    for path in paths:
        with _storage_errors(path):
            database = _connect(path)
            try:
                for row in _rows(database, "TRUE"):
                    found.setdefault(row.output, []).append(row)
            finally:
                database.close()
    yield from (_current(found[name], output / name) for name in sorted(found))


def _current(rows: Sequence[Row], picture: Path) -> Row:
    """Of rows of one job, the one that tells of the picture there.

    A finished one; of several, that of the file's hash, for a folder may have been painted with
    other options and another number of shares in between.
    """
    done = [row for row in rows if row.state == "done"]
    if len(done) > 1 and picture.is_file():
        sha256 = file_sha256(picture)
        done.sort(key=lambda row: row.picture_sha256 != sha256)
    return [*done, *rows][0]


class _Lock:
    """An exclusive transaction on an empty database: it ends with its process, on any system.

    The runs of one folder share one n: otherwise two of them would have jobs in common.
    """

    def __init__(self, folder: Path, shard: tuple[int, int], journal: Path) -> None:
        own = folder / "lock-{}of{}.sqlite".format(*shard)
        self._held = self._take(own, journal, 0)
        try:
            for other in folder.glob("lock-*.sqlite"):
                if not other.stem.endswith(f"of{shard[1]}"):
                    name = other.name.replace("lock", "journal")
                    self._take(other, folder / name, _PATIENCE_SECONDS).close()
        except BaseException:
            self.release()
            raise

    @staticmethod
    def _take(path: Path, journal: Path, patience_seconds: float) -> sqlite3.Connection:
        with _storage_errors(path):
            database = sqlite3.connect(path, timeout=patience_seconds, isolation_level=None)
        try:
            database.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            database.close()
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise OutputError(f"{path}: cannot be locked ({error})") from error
            share = re.sub(r"lock-(\d+)of(\d+)", r"\1/\2", path.stem)
            raise OutputError(
                f"{path.parent.parent}: {_owner(journal)} is working on share {share} of this "
                "folder; wait for it, or choose another folder"
            ) from error
        return database

    def release(self) -> None:
        """Let the next run in."""
        self._held.close()


def _owner(journal: Path) -> str:
    with suppress(sqlite3.Error):
        return _fact_of(journal, "owner") or "another run"
    return "another run"


def _fact_of(journal: Path, name: str) -> str | None:
    """A fact of a journal that may be another's."""
    database = sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)
    try:
        found = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    finally:
        database.close()
    return None if found is None else str(found[0])


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*of*.sqlite"))


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("PRAGMA synchronous = FULL")
    return database


def _rows(database: sqlite3.Connection, where: str, *values: str) -> Iterator[Row]:
    query = f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE {where}"
    for output, state, asked, inputs, sha256, ending in database.execute(query, values):
        yield Row(output, state, json.loads(asked), json.loads(inputs), sha256, json.loads(ending))


@contextmanager
def _storage_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise OutputError(
            f"{place}: cannot be written ({error}); check the folder and the space on the disk"
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that there is no space left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if isinstance(error, sqlite3.Error):
            return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        error = error.__cause__
    return False
