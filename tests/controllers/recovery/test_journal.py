"""The journal: what was written is there, what was damaged stops, and only the newest process writes."""

import resource
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controllers.recovery.book import Entry, Kind, opened_body
from controllers.recovery.journal import (
    ALERTS_WAITING,
    Alert,
    Journal,
    JournalError,
    Trouble,
    open_journal,
    read_journal,
)
from controllers.recovery.operation import Limits, Operation, Reason, Result, Step

NOW = 1_800_000_000.0
OPERATION = Operation("abc", "workers", "w1", "Hung", "Hung", NOW, (Step.RESTART, Step.PAGE), Limits(verify_seconds=7))


def entry(kind: Kind, at: float = NOW, **body: Any) -> Entry:
    return Entry(kind, at, "workers", "w1", "abc", body)


def attempt_made(journal: Journal) -> None:
    journal.write(entry(Kind.OPENED, **opened_body(OPERATION)))
    journal.write(entry(Kind.RESERVED, step="restart", number=1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    journal = open_journal(path, NOW)
    attempt_made(journal)
    journal.write(entry(Kind.OUTCOME, NOW + 1.25, result="done", detail="exited 0"))
    journal.write(entry(Kind.JUDGED, NOW + 70, failed="symptom_remains", relapsed=True))
    journal.close()
    again = open_journal(path, NOW + 80)
    assert again.epoch == 2
    found = again.book.operations["abc"]
    assert found.limits.verify_seconds == 7
    assert (found.attempts[0].result, found.attempts[0].ended_at) == (Result.DONE, NOW + 1.25)
    assert found.attempts[0].failed is Reason.SYMPTOM_REMAINS
    assert found.relapses == (NOW + 70,)
    assert found.in_action
    again.close()


def test_every_commit_is_in_the_file_itself(path: Path) -> None:
    """A lost write-ahead log must not lose attempts unseen."""
    journal = open_journal(path, NOW)
    attempt_made(journal)
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    assert read_journal(copy)[1].operations["abc"].pending is not None
    journal.close()


def test_entries_can_neither_be_changed_nor_removed(path: Path) -> None:
    journal = open_journal(path, NOW)
    attempt_made(journal)
    journal.close()
    other = sqlite3.connect(path)
    for statement in ("DELETE FROM entries", "UPDATE entries SET at = 0"):
        with pytest.raises(sqlite3.IntegrityError, match="entries are only added"):
            other.execute(statement)
    other.close()


def test_an_older_process_writes_nothing_more(path: Path) -> None:
    old = open_journal(path, NOW)
    attempt_made(old)
    new = open_journal(path, NOW + 1)
    for act in (
        lambda: old.write(entry(Kind.OUTCOME, result="done", detail="")),
        lambda: old.deliver([Alert("f", "s", "firing", "workers", "Hung", "w1")], NOW),
        old.check,
    ):
        with pytest.raises(JournalError, match="another recovery took over") as found:
            act()
        assert found.value.trouble is Trouble.SUPERSEDED
    new.write(entry(Kind.OUTCOME, result="unknown", detail=""))
    assert new.book.operations["abc"].pending is None
    old.close()
    new.close()


def truncated(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return damage


def overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b'"number":1')
    data[at : at + 10] = b'"number":7'
    path.write_bytes(data)


def entry_removed(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("DROP TRIGGER entries_stay")
    other.execute("DELETE FROM entries WHERE kind = 'reserved'")
    other.commit()
    other.close()


def meaningless(path: Path) -> None:
    """An entry that is whole, and about an operation that never began."""
    journal = open_journal(path, NOW)
    journal._connection.execute("BEGIN")
    journal._connection.execute("ROLLBACK")
    journal.book.add = lambda entry: None  # type: ignore[method-assign]
    journal.write(Entry(Kind.RESERVED, NOW, "workers", "w9", "never-began", {"step": "restart", "number": 1}))
    journal.close()


def replaced_by_another_database(path: Path) -> None:
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE entries (number INTEGER)")
    other.commit()
    other.close()


def log_without_file(path: Path) -> None:
    path.rename(path.with_name(path.name + "-wal"))


@pytest.mark.parametrize(
    "damage",
    [
        truncated(0.0),
        truncated(0.02),
        truncated(0.4),
        truncated(0.9),
        overwritten,
        entry_removed,
        meaningless,
        replaced_by_another_database,
        log_without_file,
    ],
    ids=["emptied", "torn in its header", "cut at 40 %", "cut at 90 %", "a byte changed", "an entry removed",
         "an entry without sense", "another database", "only the log left"],
)  # fmt: skip
def test_a_damaged_journal_stops_and_stays_damaged(path: Path, damage: Callable[[Path], None]) -> None:
    journal = open_journal(path, NOW)
    attempt_made(journal)
    for number in range(60):  # more than one page
        journal.write(
            Entry(
                Kind.DECIDED, NOW + number, "workers", "w1", "abc", {"next": "wait", "reasons": [], "text": "x" * 200}
            )
        )
    journal.close()
    damage(path)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"journal\.db: damaged: ") as found:
            open_journal(path, NOW + 99)
        assert found.value.trouble is Trouble.CORRUPT


def test_a_kill_while_it_was_made_leaves_no_half_file(path: Path) -> None:
    path.parent.mkdir()
    (path.parent / f"{path.name}.1.new").write_bytes(b"half")
    open_journal(path, NOW).close()
    assert read_journal(path)[0][0].kind is Kind.EPOCH


def test_a_full_disk_is_said_and_passes(path: Path) -> None:
    journal = open_journal(path, NOW)
    attempt_made(journal)
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = entry(Kind.OUTCOME, result="done", detail="x" * 100_000)
    with pytest.raises(JournalError, match="the disk is full; make room") as found:
        journal.write(big)
    assert found.value.trouble is Trouble.FULL
    assert journal.book.operations["abc"].pending is not None
    journal._connection.execute("PRAGMA max_page_count = 100000")
    journal.write(big)
    assert journal.book.operations["abc"].pending is None
    journal.close()
    assert read_journal(path)[1].operations["abc"].pending is None


def test_a_disk_that_fails_to_sync_ends_the_writing(path: Path) -> None:
    """RLIMIT_FSIZE makes the next write fail with EFBIG, which SQLite reports as it does EIO."""
    journal = open_journal(path, NOW)
    attempt_made(journal)
    before = path.read_bytes()
    journal.close()
    script = textwrap.dedent(f"""
        import resource
        from pathlib import Path
        from controllers.recovery.book import Entry, Kind
        from controllers.recovery.journal import JournalError, open_journal
        journal = open_journal(Path({str(path)!r}), {NOW})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        for _ in range(2):
            try:
                journal.write(Entry(Kind.OUTCOME, {NOW}, "workers", "w1", "abc", {{"result": "done", "detail": ""}}))
            except JournalError as error:
                print(error.trouble)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["io", "io"]  # the second although there is room again: it stepped down
    assert len(before) > 4096
    assert read_journal(path)[1].operations["abc"].pending is not None
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_journal_that_vanishes_is_not_written_into_the_void(path: Path) -> None:
    journal = open_journal(path, NOW)
    attempt_made(journal)
    path.unlink()
    with pytest.raises(JournalError, match="or it is gone"):
        journal.write(entry(Kind.OUTCOME, result="done", detail=""))
    journal.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be created"):
        open_journal(tmp_path / "file" / "journal.db", NOW)


def alert(fingerprint: str = "f1", status: str = "firing", starts_at: str = "t1", instance: str = "w1") -> Alert:
    return Alert(fingerprint, starts_at, status, "workers", "Hung", instance)


@pytest.mark.parametrize(
    ("sentence", "deliveries", "new", "firing"),
    [
        ("delivered once", [[alert()]], [1], True),
        ("delivered twice, as from a pair of Alertmanagers", [[alert()], [alert()]], [1, 0], True),
        ("resolved", [[alert()], [alert(status="resolved")]], [1, 1], False),
        ("resolved first, and the firing comes late", [[alert(status="resolved")], [alert()]], [1, 1], False),
        (
            "resolved, and fires anew later",
            [[alert(), alert(status="resolved")], [alert(starts_at="t2")]],
            [2, 1],
            True,
        ),
        ("resolved alone", [[alert(status="resolved")]], [1], False),
    ],
)
def test_deliveries(path: Path, sentence: str, deliveries: list[list[Alert]], new: list[int], firing: bool) -> None:
    journal = open_journal(path, NOW)
    assert [journal.deliver(one, NOW) for one in deliveries] == new, sentence
    assert journal.firing(NOW + 1) == ({("workers", "w1")} if firing else set()), sentence
    assert journal.firing(NOW + 90_000) == set()  # nobody is believed for more than a day
    journal.close()


def test_more_than_can_wait_is_refused_whole_until_it_was_looked_at(path: Path) -> None:
    journal = open_journal(path, NOW)
    journal.deliver([alert(f"{n:x}") for n in range(ALERTS_WAITING)], NOW)
    with pytest.raises(JournalError, match="wait to be looked at"):
        journal.deliver([alert("ffff"), alert("fffe")], NOW)
    journal.firing(NOW)
    assert journal.deliver([alert("ffff"), alert("fffe")], NOW) == 2
    journal.close()


def test_what_was_never_made_cannot_be_read(path: Path) -> None:
    with pytest.raises(JournalError, match="no such file"):
        read_journal(path)
