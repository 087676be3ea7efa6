"""The ledger's file: SQLite in WAL mode, synchronous=FULL. Rows are only ever added; totals follow them by trigger.

The totals are in the same transaction as the row that changes them, so a permit reads a handful of rows however long
the history is, and several writers could not disagree about them. `check` compares them with the rows at start.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

VERSION = "1"
BUSY_SECONDS = 2.0

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE entry (
  id INTEGER PRIMARY KEY,
  event_id TEXT NOT NULL UNIQUE,
  hold_id TEXT NOT NULL,
  state TEXT NOT NULL,
  at REAL NOT NULL,
  period TEXT NOT NULL,
  provider TEXT NOT NULL, service TEXT NOT NULL, model TEXT NOT NULL,
  workflow TEXT NOT NULL, workload TEXT NOT NULL,
  amount INTEGER NOT NULL, units TEXT NOT NULL, native INTEGER NOT NULL, currency TEXT NOT NULL,
  price TEXT NOT NULL, fx TEXT NOT NULL, factor TEXT NOT NULL,
  held INTEGER NOT NULL, posted INTEGER NOT NULL, committed INTEGER NOT NULL,
  until REAL, started REAL, instance TEXT NOT NULL, floor INTEGER NOT NULL, digest TEXT NOT NULL
);
CREATE INDEX entry_by_hold ON entry (hold_id);
CREATE INDEX entry_by_time ON entry (at);
CREATE INDEX entry_by_instance ON entry (workload, instance, id) WHERE instance <> '';

CREATE TRIGGER entry_never_changes BEFORE UPDATE ON entry
  BEGIN SELECT RAISE(ABORT, 'rows of the ledger are never changed'); END;
CREATE TRIGGER entry_never_goes BEFORE DELETE ON entry
  BEGIN SELECT RAISE(ABORT, 'rows of the ledger are never removed'); END;

-- What follows from the rows. typeof() refuses a sum that no longer fits an integer.
CREATE TABLE period_total (
  period TEXT PRIMARY KEY,
  held INTEGER NOT NULL CHECK (typeof(held) = 'integer'),
  posted INTEGER NOT NULL CHECK (typeof(posted) = 'integer'),
  committed INTEGER NOT NULL CHECK (typeof(committed) = 'integer')
) WITHOUT ROWID;
CREATE TABLE scope_total (
  period TEXT NOT NULL, provider TEXT NOT NULL, service TEXT NOT NULL, model TEXT NOT NULL,
  workflow TEXT NOT NULL, workload TEXT NOT NULL, floor INTEGER NOT NULL,
  held INTEGER NOT NULL, posted INTEGER NOT NULL, committed INTEGER NOT NULL, entries INTEGER NOT NULL,
  PRIMARY KEY (period, provider, service, model, workflow, workload, floor)
) WITHOUT ROWID;
CREATE INDEX scope_total_of_floors ON scope_total (period, workload, held) WHERE floor = 1;
CREATE TABLE minute_total (minute INTEGER PRIMARY KEY, posted INTEGER NOT NULL);
CREATE TABLE state_total (state TEXT PRIMARY KEY, entries INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE open_hold (
  hold_id TEXT PRIMARY KEY, until REAL NOT NULL, workload TEXT NOT NULL, instance TEXT NOT NULL, floor INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX open_hold_by_end ON open_hold (until);
CREATE UNIQUE INDEX open_hold_by_instance ON open_hold (workload, instance) WHERE instance <> '';

CREATE TRIGGER totals_follow AFTER INSERT ON entry BEGIN
  INSERT INTO period_total VALUES (NEW.period, NEW.held, NEW.posted, NEW.committed)
    ON CONFLICT DO UPDATE SET held = held + excluded.held, posted = posted + excluded.posted,
      committed = committed + excluded.committed;
  INSERT INTO scope_total VALUES (NEW.period, NEW.provider, NEW.service, NEW.model, NEW.workflow, NEW.workload,
      NEW.floor, NEW.held, NEW.posted, NEW.committed, 1)
    ON CONFLICT DO UPDATE SET held = held + excluded.held, posted = posted + excluded.posted,
      committed = committed + excluded.committed, entries = entries + 1;
  INSERT INTO minute_total SELECT CAST(NEW.at AS INTEGER) / 60, NEW.posted WHERE NEW.posted <> 0
    ON CONFLICT DO UPDATE SET posted = posted + excluded.posted;
  INSERT INTO state_total VALUES (NEW.state, 1) ON CONFLICT DO UPDATE SET entries = entries + 1;
  INSERT INTO open_hold SELECT NEW.hold_id, NEW.until, NEW.workload, NEW.instance, NEW.floor
    WHERE NEW.state = 'held';
  DELETE FROM open_hold WHERE hold_id = NEW.hold_id AND NEW.state IN ('posted', 'voided', 'expired_posted');
END;

-- Every change of a level, and from what: the audit that outlives the process.
CREATE TABLE level_change (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, period TEXT NOT NULL, budget TEXT NOT NULL, level INTEGER NOT NULL,
  detail TEXT NOT NULL
);
"""

# How much of each unit was used, by scope: the raw units as they were reported, of what was posted. What was taken back
# counts against it. Newer than the other tables: made, and filled from the rows, where a ledger has none yet.
UNITS = """
CREATE TABLE unit_total (
  period TEXT NOT NULL, provider TEXT NOT NULL, service TEXT NOT NULL, model TEXT NOT NULL,
  workflow TEXT NOT NULL, workload TEXT NOT NULL, unit TEXT NOT NULL, quantity NUMERIC NOT NULL,
  PRIMARY KEY (period, provider, service, model, workflow, workload, unit)
) WITHOUT ROWID;
INSERT INTO unit_total SELECT period, provider, service, model, workflow, workload, unit.key,
    SUM(unit.value * IIF(state = 'reversed', -1, 1))
  FROM entry, json_each(entry.units) AS unit
  WHERE state IN ('posted', 'expired_posted', 'reversed', 'trued') AND unit.type <> 'object'
  GROUP BY 1, 2, 3, 4, 5, 6, 7;
CREATE TRIGGER units_follow AFTER INSERT ON entry
  WHEN NEW.state IN ('posted', 'expired_posted', 'reversed', 'trued') BEGIN
  INSERT INTO unit_total SELECT NEW.period, NEW.provider, NEW.service, NEW.model, NEW.workflow, NEW.workload, unit.key,
      unit.value * IIF(NEW.state = 'reversed', -1, 1)
    FROM json_each(NEW.units) AS unit WHERE unit.type <> 'object'
    ON CONFLICT DO UPDATE SET quantity = quantity + excluded.quantity;
END;
"""

# The totals that must equal the sums of the rows: (what, from the totals, from the rows).
EQUATIONS = (
    (
        "the totals of a period",
        "SELECT period, held, posted, committed FROM period_total ORDER BY period",
        "SELECT period, SUM(held), SUM(posted), SUM(committed) FROM entry GROUP BY period ORDER BY period",
    ),
    (
        "the totals by scope",
        "SELECT SUM(held), SUM(posted), SUM(committed), TOTAL(entries) FROM scope_total",
        "SELECT SUM(held), SUM(posted), SUM(committed), TOTAL(1) FROM entry",
    ),
    (
        "the totals by minute",
        "SELECT COALESCE(SUM(posted), 0) FROM minute_total",
        "SELECT COALESCE(SUM(posted), 0) FROM entry",
    ),
    (
        "the open holds",
        "SELECT hold_id FROM open_hold ORDER BY hold_id",
        "SELECT hold_id FROM entry GROUP BY hold_id HAVING COUNT(*) = 1 AND MAX(state) = 'held' ORDER BY hold_id",
    ),
)


class LedgerError(Exception):
    """The ledger cannot answer. `kind` is the metric's label; `str()` says where, what and what to do."""

    kind = "failed"


class LedgerLockedError(LedgerError):
    kind = "locked"


class LedgerFullError(LedgerError):
    kind = "full"


class LedgerCorruptError(LedgerError):
    kind = "corrupt"


class LedgerUnavailableError(LedgerError):
    kind = "unavailable"


class LedgerOverloadedError(LedgerError):
    kind = "overloaded"


def connect(path: Path, currency: str, time_zone: str) -> sqlite3.Connection:
    """A connection that writes; makes the file if there is none. Raises LedgerError."""
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        with told(path):
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _prepare(db, path, currency, time_zone)
    except LedgerError:
        db.close()
        raise
    return db


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, closed afterwards. Raises LedgerError, also for what goes wrong meanwhile."""
    if not path.is_file():
        raise LedgerUnavailableError(f"{path}: there is no ledger; is budget.ledger right, has `tidewise budget` run?")
    with told(path):
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            version = dict(db.execute("SELECT key, value FROM meta")).get("version")
            if version != VERSION:
                raise LedgerUnavailableError(f"{path}: its version is {version}, this Tidewise reads {VERSION}")
            yield db
        finally:
            db.close()


def _prepare(db: sqlite3.Connection, path: Path, currency: str, time_zone: str) -> None:
    wanted = {"version": VERSION, "currency": currency, "time_zone": time_zone}
    db.execute("BEGIN IMMEDIATE")
    try:
        if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            for statement in _statements(TABLES):
                db.execute(statement)
            db.executemany("INSERT INTO meta VALUES (?, ?)", wanted.items())
        if not has_units(db):
            for statement in _statements(UNITS):
                db.execute(statement)
        found = dict(db.execute("SELECT key, value FROM meta"))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    for key, value in wanted.items():
        if found.get(key) != value:
            raise LedgerUnavailableError(
                f"{path}: its {key} is {found.get(key)}, the configuration says {value}; amounts and months of a "
                "ledger never change: put that back, or start another file (budget.ledger)"
            )


def has_units(db: sqlite3.Connection) -> bool:
    """Whether the ledger sums up units yet; one that is only read may be older."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'unit_total'").fetchone() is not None


def _statements(script: str) -> Iterator[str]:
    """The script's statements; executescript() would commit between them."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def check(db: sqlite3.Connection, path: Path) -> None:
    """Is the file whole, and do its totals equal its rows? Raises LedgerCorruptError."""
    with told(path):
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise LedgerCorruptError(f"{path}: the ledger is damaged ({problem}); restore it from a copy")
        for what, totals, rows in EQUATIONS:
            if db.execute(totals).fetchall() != db.execute(rows).fetchall():
                raise LedgerCorruptError(
                    f"{path}: {what} differ from the sum of the rows; nothing is permitted on it: "
                    "restore it from a copy"
                )


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns SQLite's and the file system's errors into LedgerErrors that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(path, error) from error
    except OSError as error:
        raise LedgerUnavailableError(f"{path}: {error.strerror}; check budget.ledger and its folder") from error


def translated(path: Path, error: sqlite3.Error) -> LedgerError:
    """SQLite's error as one of ours."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerLockedError(
            f"{path}: another process has locked the ledger for more than {BUSY_SECONDS:g} s; nothing was written"
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return LedgerFullError(f"{path}: the ledger cannot be written ({error}); make room on the disk")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LedgerCorruptError(f"{path}: the ledger is damaged ({error}); restore it from a copy")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return LedgerUnavailableError(f"{path}: cannot be opened for writing ({error}); check the path and its owner")
    return LedgerError(f"{path}: the ledger failed ({error})")
