"""The journal: what recovery did and is about to do, on disk before it is done.

One SQLite file (write-ahead log, every commit synced), entries only ever added. Each carries the epoch of the process
that wrote it and a sum over itself and all before it. A process that starts takes the next epoch; whoever held an
older one can write nothing more. What cannot be read, or does not add up, stops recovery: a forgotten attempt would be
made again.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from controllers.recovery.book import Book, Entry, Kind
from controllers.recovery.killpoint import pass_by
from exporters.runtime.durable import sync_folder

APPLICATION_ID = 0x54574A31  # "TWJ1"
ALERTS_KEPT = 5000
ALERTS_WAITING = 2000  # delivered and not yet looked at; more are refused with 503
ALERT_SECONDS = 86_400.0  # how long an alert is believed to fire without being repeated

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE entries (
  number INTEGER PRIMARY KEY, at REAL NOT NULL, epoch INTEGER NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL,
  instance TEXT NOT NULL, operation TEXT NOT NULL, body TEXT NOT NULL, sum TEXT NOT NULL
) STRICT;
CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT raise(ABORT, 'entries are only added'); END;
CREATE TRIGGER entries_keep BEFORE UPDATE ON entries BEGIN SELECT raise(ABORT, 'entries are only added'); END;
CREATE TABLE alerts (
  identity TEXT PRIMARY KEY, episode TEXT NOT NULL, status TEXT NOT NULL, target TEXT NOT NULL, symptom TEXT NOT NULL,
  instance TEXT NOT NULL, received_at REAL NOT NULL, waiting INTEGER NOT NULL
) STRICT;
"""
_COLUMNS = "number, at, epoch, kind, target, instance, operation, body, sum"


class Trouble(StrEnum):
    """What is wrong with the journal. The first two may pass; the others end this process's writing."""

    FULL = "full"
    LOCKED = "locked"
    INPUT_OUTPUT = "io"
    CORRUPT = "corrupt"
    SUPERSEDED = "superseded"


_PASSING = frozenset({Trouble.FULL, Trouble.LOCKED})


class JournalError(Exception):
    """The journal cannot be used: act on nothing. `str()` says where, what was found and what to do."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        self.trouble = trouble
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as Alertmanager delivered it, about a declared symptom. Its identity is told once."""

    fingerprint: str
    starts_at: str
    status: str  # firing | resolved
    target: str
    symptom: str
    instance: str

    @property
    def identity(self) -> str:
        return f"{self.fingerprint} {self.starts_at} {self.status}"


class Journal:
    """An opened journal. `write` and `deliver` return when their rows are on the disk, and raise JournalError."""

    def __init__(self, path: Path, connection: sqlite3.Connection, book: Book, last: tuple[int, str]) -> None:
        self.path = path
        self.book = book
        self.epoch = 0
        self.trouble: JournalError | None = None  # of the kind that does not pass
        self._connection = connection
        self._number, self._sum = last
        self._lock = threading.RLock()

    def write(self, entry: Entry) -> None:
        """Adds the entry, and takes it into `book` when it is on the disk."""
        with self._writing(entry.kind):
            number = self._number + 1
            row = (number, float(entry.at), self.epoch, entry.kind.value, entry.target, entry.instance, entry.operation)
            body = json.dumps(entry.body or {}, sort_keys=True, separators=(",", ":"))
            total = _sum(self._sum, (*row, body))
            self._connection.execute(
                f"INSERT INTO entries ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608 - a constant
                (*row, body, total),
            )
            self._connection.execute("COMMIT")
            self._number, self._sum = number, total
            self.book.add(entry)

    def deliver(self, alerts: Iterable[Alert], now: float) -> int:
        """Stores what was not delivered before; returns how many were new. Raises JournalError(full) past the limit."""
        with self._writing("alerts"):
            new = 0
            for alert in alerts:
                new += self._connection.execute(
                    "INSERT OR IGNORE INTO alerts VALUES (?,?,?,?,?,?,?,1)",
                    (
                        alert.identity,
                        f"{alert.fingerprint} {alert.starts_at}",
                        alert.status,
                        alert.target,
                        alert.symptom,
                        alert.instance,
                        now,
                    ),
                ).rowcount
            (waiting,) = self._connection.execute("SELECT count(*) FROM alerts WHERE waiting").fetchone()
            if waiting > ALERTS_WAITING:
                raise JournalError(Trouble.FULL, f"{waiting:,} alerts wait to be looked at, {ALERTS_WAITING:,} may")
            self._connection.execute("COMMIT")
            return new

    def firing(self, now: float) -> set[tuple[str, str]]:
        """(target, instance) of alerts that fire by what was delivered, whatever the order of delivery.

        All delivered ones count as looked at afterwards; old ones are forgotten.
        """
        with self._lock:
            try:
                found, waiting = self._delivered(now)
            except sqlite3.Error as error:
                self._give_up(_trouble(self.path, error))
            if waiting:
                self._looked_at(now)
            return found

    def check(self) -> None:
        """Raises JournalError if another process has taken over, or the file cannot be written."""
        with self._writing("check"):
            self._connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _delivered(self, now: float) -> tuple[set[tuple[str, str]], bool]:
        found = self._connection.execute(
            "SELECT DISTINCT target, instance FROM alerts AS a WHERE status = 'firing' AND received_at > ? AND NOT "
            "EXISTS (SELECT 1 FROM alerts AS r WHERE r.episode = a.episode AND r.status = 'resolved')",
            (now - ALERT_SECONDS,),
        ).fetchall()
        waiting = self._connection.execute("SELECT 1 FROM alerts WHERE waiting LIMIT 1").fetchone() is not None
        return {(target, instance) for target, instance in found}, waiting

    def _looked_at(self, now: float) -> None:
        with self._writing("looked_at"):
            self._connection.execute("UPDATE alerts SET waiting = 0 WHERE waiting")
            self._connection.execute("DELETE FROM alerts WHERE received_at < ?", (now - 2 * ALERT_SECONDS,))
            self._connection.execute(
                "DELETE FROM alerts WHERE identity IN "
                "(SELECT identity FROM alerts ORDER BY received_at DESC LIMIT -1 OFFSET ?)",
                (ALERTS_KEPT,),
            )
            self._connection.execute("COMMIT")

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """A transaction of this epoch; the body commits. Whatever fails leaves the file as it was."""
        with self._lock:
            if self.trouble is not None:
                raise self.trouble
            pass_by(f"{what}:before")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._check_epoch()
                yield
                # Everything into the file itself at once: a lost or torn log must not lose attempts unseen.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                self._give_up(_trouble(self.path, error))
            except JournalError as error:
                self._give_up(error)
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            pass_by(f"{what}:after")

    def _check_epoch(self) -> None:
        newest = self._connection.execute("SELECT number, epoch, sum FROM entries ORDER BY number DESC LIMIT 1")
        row = newest.fetchone() or (0, 0, "")
        ours = (row[0], row[2]) == (self._number, self._sum)
        if row[1] > self.epoch or (row[1] == self.epoch and not ours):
            raise JournalError(
                Trouble.SUPERSEDED,
                f"{self.path}: another recovery took over (epoch {row[1]}, this one has {self.epoch}); "
                "stop one of the two",
            )
        if not ours or not self.path.exists():
            raise JournalError(
                Trouble.CORRUPT,
                f"{self.path}: its last entry is not the one written last, or it is gone; something else changes it",
            )

    def _give_up(self, error: JournalError) -> NoReturn:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:  # the failed commit has rolled back already, or the disk is gone
                error = JournalError(Trouble.INPUT_OUTPUT, f"{error}; rolling back failed as well")
        if error.trouble not in _PASSING:
            self.trouble = error
        raise error from None


def open_journal(path: Path, now: float) -> Journal:
    """Takes over the journal with a new epoch; makes an empty one where there is none. Raises JournalError."""
    _create_unless_there(path)
    try:
        connection = _connect(path, "rw")
    except sqlite3.Error as error:
        raise _trouble(path, error) from None
    try:
        entries, total = _read(path, connection)
        last = entries[-1] if entries else None
        journal = Journal(path, connection, _book(path, entries), (last.number if last else 0, total))
        journal.epoch = (last.epoch if last else 0) + 1
        journal.write(Entry(Kind.EPOCH, now, body={"pid": os.getpid()}))
        return journal
    except sqlite3.Error as error:
        connection.close()
        raise _trouble(path, error) from None
    except JournalError:
        connection.close()
        raise


def read_journal(path: Path) -> tuple[list[Entry], Book]:
    """All entries, oldest first, and what they add up to; takes nothing over. Raises JournalError."""
    if not path.exists():
        raise JournalError(
            Trouble.CORRUPT, f"{path}: no such file; has `tidewise recovery` run with this configuration?"
        )
    try:
        with closing(_connect(path, "ro")) as connection:
            entries, _ = _read(path, connection)
    except sqlite3.Error as error:
        raise _trouble(path, error) from None
    return entries, _book(path, entries)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
    )
    if mode == "rw":
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


def _create_unless_there(path: Path) -> None:
    """A new file appears whole or not at all, so that an empty one is always damage and never a beginning."""
    if path.exists():
        return
    if path.with_name(path.name + "-wal").exists():
        raise _corrupt(path, "its write-ahead log is there and the file itself is not")
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        with closing(sqlite3.connect(fresh)) as connection:
            connection.executescript(_SCHEMA)
        with suppress(FileExistsError):  # another process was quicker, and its file is as good
            os.link(fresh, path)
        fresh.unlink()
        sync_folder(path.parent)
    except sqlite3.Error as error:
        raise _trouble(path, error) from None
    except OSError as error:
        raise JournalError(
            Trouble.INPUT_OUTPUT, f"{path}: cannot be created ({error.strerror}); check the folder's permissions"
        ) from None


def _read(path: Path, connection: sqlite3.Connection) -> tuple[list[Entry], str]:
    """All entries and the last sum, each checked against the one before."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise _corrupt(path, "it is no journal of recovery, or its beginning is lost")
    problems = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problems != ("ok",):
        raise _corrupt(path, str(problems[0]))
    entries: list[Entry] = []
    total = ""
    for row in connection.execute(f"SELECT {_COLUMNS} FROM entries ORDER BY number"):  # noqa: S608 - a constant
        number, at, epoch, kind, target, instance, operation, body, found = row
        total = _sum(total, row[:-1])
        if number != len(entries) + 1 or found != total:
            raise _corrupt(path, f"entry {len(entries) + 1} is missing or was altered")
        try:
            entries.append(Entry(Kind(kind), at, target, instance, operation, json.loads(body), epoch, number))
        except ValueError as error:
            raise _corrupt(path, f"entry {number} cannot be read ({error})") from None
    return entries, total


def _book(path: Path, entries: list[Entry]) -> Book:
    book = Book()
    for entry in entries:
        try:
            book.add(entry)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise _corrupt(path, f"entry {entry.number} does not fit those before it ({error!r})") from None
    return book


def _sum(before: str, row: tuple[object, ...]) -> str:
    return hashlib.sha256(f"{before}\n{json.dumps(row)}".encode()).hexdigest()


def _corrupt(path: Path, found: str) -> JournalError:
    return JournalError(
        Trouble.CORRUPT,
        f"{path}: damaged: {found}. Restore it from a copy, or look at what is being mended by hand and then move it "
        "aside; with it the attempts of the last hour are forgotten",
    )


def _trouble(path: Path, error: sqlite3.Error) -> JournalError:
    if isinstance(error, sqlite3.ProgrammingError):
        return JournalError(Trouble.LOCKED, f"{path}: is closed, this process is ending")
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return JournalError(Trouble.FULL, f"{path}: the disk is full; make room")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return JournalError(Trouble.LOCKED, f"{path}: locked by another process for more than five seconds")
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return JournalError(
            Trouble.INPUT_OUTPUT,
            f"{path}: cannot be written ({name}: {error}); check disk and permissions, then restart",
        )
    return _corrupt(path, f"{name or type(error).__name__}: {error}")
