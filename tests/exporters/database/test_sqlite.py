"""SQLite files, whole and otherwise; and that looking at one leaves nothing behind."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.database.sqlite import Database, SqliteFile


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database whose name wants quoting, with ten rows, in the usual journal mode."""
    path = tmp_path / "a b?%23 ü.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 10)
    connection.close()
    return path


def listing(path: Path) -> dict[str, tuple[int, int]]:
    """Everything beside the file, with sizes and times of change."""
    return {each.name: (each.stat().st_size, each.stat().st_mtime_ns) for each in path.parent.iterdir()}


def test_a_file_with_free_pages(file: Path, watched: Callable[..., Any]) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM t WHERE rowid > 5")
    connection.close()
    before = listing(file)
    series = watched("sqlite", path=str(file)).series()
    assert 0 < series.pop("ping_seconds") < 5
    size = file.stat().st_size
    assert series == {
        "up": 1, "busy": 0, "size_bytes file": size, "size_bytes wal": 0, "pages used": 7, "pages free": 5,
    }  # fmt: skip
    assert size == 12 * 4096
    assert listing(file) == before


def test_a_write_ahead_log_in_use_and_after_its_owner_has_left(file: Path, watched: Callable[..., Any]) -> None:
    look = watched("sqlite", path=str(file))
    owner = sqlite3.connect(file)
    owner.execute("PRAGMA journal_mode = WAL")
    owner.execute("PRAGMA wal_autocheckpoint = 0")
    owner.execute("INSERT INTO t VALUES ('more')")
    owner.commit()
    before = listing(file)
    series = look.series()
    assert (series["up"], series["busy"]) == (1, 0)
    assert series["size_bytes wal"] > 4096
    assert listing(file).keys() == before.keys()
    owner.close()
    before = listing(file)
    assert list(before) == [file.name]
    assert look.series()["pages used"] == 12
    assert listing(file) == before, "neither a log nor its index was made"


def test_a_log_that_a_crash_left_behind_is_not_replayed_by_us(file: Path, watched: Callable[..., Any]) -> None:
    owner = sqlite3.connect(file)
    owner.execute("PRAGMA journal_mode = WAL")
    owner.execute("INSERT INTO t VALUES ('more')")
    owner.commit()
    wal = file.with_name(file.name + "-wal").read_bytes()
    owner.close()
    file.with_name(file.name + "-wal").write_bytes(wal)
    before = listing(file)
    series = watched("sqlite", path=str(file)).series()
    assert (series["up"], series["size_bytes wal"]) == (1, len(wal))
    assert listing(file) == before


def test_a_locked_file_is_busy_and_not_down(file: Path, watched: Callable[..., Any]) -> None:
    owner = sqlite3.connect(file, isolation_level=None)
    owner.execute("BEGIN EXCLUSIVE")
    look = watched("sqlite", path=str(file))
    assert look.series() == {"up": 1, "busy": 1, "size_bytes file": file.stat().st_size, "size_bytes wal": 0}
    owner.execute("COMMIT")
    owner.close()
    assert look.series()["busy"] == 0


def test_looking_at_a_file_leaves_others_in_this_process_their_locks(file: Path, watched: Callable[..., Any]) -> None:
    look = watched("sqlite", path=str(file))
    look.series()
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    assert look.series()["up"] == 1
    write = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('DELETE FROM t').connection.commit()"
    writer = subprocess.run([sys.executable, "-c", write, file], capture_output=True, text=True, check=False)
    reader.close()
    assert "database is locked" in writer.stderr


def test_a_file_that_gets_a_log_later_is_read_again_at_the_next_but_one_scrape(
    file: Path, watched: Callable[..., Any]
) -> None:
    look = watched("sqlite", path=str(file))
    look.series()
    with sqlite3.connect(file) as owner:
        owner.execute("PRAGMA journal_mode = WAL")
    owner.close()
    look.series()
    assert look.series()["pages used"] == 12


def test_an_empty_file_is_an_empty_database(tmp_path: Path, watched: Callable[..., Any]) -> None:
    (tmp_path / "new.db").touch()
    series = watched("sqlite", path=str(tmp_path / "new.db")).series()
    assert (series["up"], series["pages used"], series["size_bytes file"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("make", "reason", "told"),
    [
        pytest.param(lambda path: None, "no_database", "No such file or directory", id="absent"),
        pytest.param(lambda path: path.mkdir(), "unreadable", "Is a directory", id="a folder"),
        pytest.param(
            lambda path: path.write_bytes(b"no database at all" * 50), "not_a_database", "not a database", id="text"
        ),
        pytest.param(
            lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 2000),
            "not_a_database",
            "",
            id="a false head",
        ),
        pytest.param(lambda path: os.symlink(path, path), "unreadable", "symbolic links", id="a loop of links"),
    ],
)
def test_what_cannot_be_read_is_down_with_its_reason(
    tmp_path: Path,
    watched: Callable[..., Any],
    log_events: Callable[[], list[tuple[str, str]]],
    make: Callable[[Path], object],
    reason: str,
    told: str,
) -> None:
    path = tmp_path / "x.db"
    make(path)
    look = watched("sqlite", path=str(path))
    for _ in range(2):
        assert look.series() == {"up": 0, f"unreachable {reason}": 1}
    ((event, problem),) = log_events()
    assert event == "database_down"
    assert str(path) in problem
    assert told in problem
    assert path.exists() == (reason not in ("no_database",) and not path.is_symlink())


def test_a_torn_file_is_corrupt(file: Path, watched: Callable[..., Any]) -> None:
    data = bytearray(file.read_bytes())
    data[100:108] = b"\xee" * 8  # the root page of its schema
    file.write_bytes(data)
    assert watched("sqlite", path=str(file)).series() == {"up": 0, "unreachable corrupt": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(file: Path, watched: Callable[..., Any]) -> None:
    file.chmod(0)
    assert watched("sqlite", path=str(file)).series() == {"up": 0, "unreachable unreadable": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.dictionaries(st.integers(16, 4500), st.integers(0, 255), max_size=8), end=st.integers(0, 49152))
def test_a_file_with_any_damage_is_read_or_down_and_stays_as_it_is(
    file: Path, places: dict[int, int], end: int
) -> None:
    data = bytearray(file.read_bytes())
    for place, byte in places.items():
        data[place] = byte
    path = file.with_name("damaged.db")
    path.write_bytes(data[:end])
    (metric, *_) = SqliteFile(Database(path=path)).collect(0.0)
    assert metric.samples[0].value in (0, 1)
    assert path.read_bytes() == data[:end]
    assert [each.name for each in sorted(file.parent.iterdir())] == sorted([file.name, path.name])
