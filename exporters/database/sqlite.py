"""SQLite files: size, pages, and whether they can be read. Nothing is created, written or locked for long."""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction
from exporters.database.state import BUSY, PAGES, PING, SIZE, Fact, Health
from exporters.labels import clean
from exporters.runtime.config import Section, repeated

MAGIC = b"SQLite format 3\0"
WAL_PLACE = 18  # in the header: 2 where the file is written through a write-ahead log
_PATIENCE_SECONDS = 0.1  # for a lock
# By the beginning of SQLite's name for the error.
REASONS = {
    "SQLITE_NOTADB": "not_a_database",
    "SQLITE_CORRUPT": "corrupt",
    "SQLITE_CANTOPEN": "unreadable",
    "SQLITE_PERM": "unreadable",
    "SQLITE_READONLY": "unreadable",  # a crash left a journal that its owner has to roll back
    "SQLITE_IOERR": "unreadable",
}


class Database(Section):
    """One file. `name` is the label `database`; the path, if not given."""

    path: Path
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @property
    def label(self) -> str:
        return clean(self.name or os.fsencode(self.path))


def _distinct(databases: list[Database]) -> list[Database]:
    names = [database.label for database in databases]
    twice = repeated(names)
    if twice:
        raise ValueError(f"the database '{twice}' stands twice; remove one, or give it a name")
    return databases


Databases = Annotated[list[Database], AfterValidator(_distinct)]


def collectors(databases: Sequence[Database]) -> Mapping[str, CollectFunction]:
    """One a file, by its name."""
    return {database.label: SqliteFile(database).collect for database in databases}


class SqliteFile:
    """Opens the file anew at each scrape: nothing is held on to that its owner wants to move or delete."""

    def __init__(self, database: Database) -> None:
        self._path = database.path
        self._health = Health("sqlite", database.label)
        self._rollback: tuple[int, int] | None = None  # device and inode of a file that is known to have no log

    def collect(self, deadline: float) -> Iterator[Metric]:
        try:
            facts = self._read()
        except OSError as error:
            reason = "no_database" if isinstance(error, FileNotFoundError) else "unreadable"
            yield from self._health.down(reason, f"{self._path}: {error.strerror}; check the path and its permissions")
        except sqlite3.Error as error:
            reason = next((name for code, name in REASONS.items() if _code(error).startswith(code)), "other")
            yield from self._health.down(reason, f"{self._path}: {error}; is this the file that you mean?")
        else:
            yield from self._health.up(facts)

    def _read(self) -> list[Fact]:
        """A reader of a write-ahead log would make the -shm file where it is not.

        It is there while anybody has the database open; where it is not, nobody writes, and SQLite is told so and makes
        nothing. To look into the file for that is done once: whoever closes it drops the locks which others in this
        process have on it, such as the exporter of workflows.
        """
        state = self._path.stat()
        this = (state.st_dev, state.st_ino)
        in_use = self._path.with_name(self._path.name + "-shm").exists()
        asleep = not in_use and this != self._rollback and has_log(self._path)
        self._rollback = None if in_use or asleep else this
        try:
            return read_file(self._path, state.st_size, asleep=asleep)
        except sqlite3.Error:
            self._rollback = None
            raise


def has_log(path: Path) -> bool:
    """Whether it is written through a write-ahead log. Raises OSError and sqlite3.Error."""
    with path.open("rb") as file:
        header = file.read(100)
    if header and not header.startswith(MAGIC):
        error = sqlite3.DatabaseError("file is not a database")
        error.sqlite_errorname = "SQLITE_NOTADB"
        raise error
    return header[WAL_PLACE : WAL_PLACE + 1] == b"\2"


def read_file(path: Path, size: int, *, asleep: bool) -> list[Fact]:
    """What the file and SQLite say. Raises OSError and sqlite3.Error for what cannot be read or is no database."""
    facts: list[Fact] = [(SIZE, ("file",), size), (SIZE, ("wal",), _size(path, "-wal"))]
    how = "immutable=1" if asleep else "readonly_shm=1"
    address = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro&{how}"
    connection = sqlite3.connect(address, uri=True, timeout=_PATIENCE_SECONDS)
    try:
        began = time.monotonic()
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        seconds = time.monotonic() - began
        ((pages,),) = connection.execute("PRAGMA page_count")
        ((free,),) = connection.execute("PRAGMA freelist_count")
    except sqlite3.OperationalError as problem:
        if not _code(problem).startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise
        return [*facts, (BUSY, (), 1)]
    finally:
        connection.close()
    return [*facts, (BUSY, (), 0), (PING, (), seconds), (PAGES, ("used",), pages - free), (PAGES, ("free",), free)]


def _size(path: Path, ending: str) -> int:
    try:
        return path.with_name(path.name + ending).stat().st_size
    except FileNotFoundError:
        return 0


def _code(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "")
