"""Rows of the ledger in and out of SQLite: every statement on `entry` is here."""

import sqlite3
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any
from zoneinfo import ZoneInfo

from controllers.budget.periods import bounds, period_of
from controllers.budget.schema import has_units
from controllers.budget.words import Cost, Entry, Level, Scope, Standing, State

_COLUMNS = (
    "event_id, hold_id, state, at, period, provider, service, model, workflow, workload, "
    "amount, units, native, currency, price, fx, factor, held, posted, committed, "
    "until, started, instance, floor, digest"
)
_INSERT = f"INSERT INTO entry ({_COLUMNS}) VALUES ({', '.join('?' * 25)})"  # noqa: S608 - constants only
_SELECT = f"SELECT {_COLUMNS} FROM entry "  # noqa: S608 - constants only


def add(db: sqlite3.Connection, entry: Entry) -> Entry:
    """Appends the row; the totals follow. Raises sqlite3.IntegrityError for an event that is there already."""
    db.execute(
        _INSERT,
        (
            entry.event_id,
            entry.hold_id,
            entry.state.value,
            entry.at,
            entry.period,
            *astuple(entry.scope),
            *astuple(entry.cost),
            entry.held,
            entry.posted,
            entry.committed,
            entry.until,
            entry.started,
            entry.instance,
            entry.floor,
            entry.digest,
        ),
    )
    return entry


def event(db: sqlite3.Connection, event_id: str) -> Entry | None:
    """The row of an event."""
    row = db.execute(_SELECT + "WHERE event_id = ?", (event_id,)).fetchone()
    return _entry(row) if row else None


def chain(db: sqlite3.Connection, hold_id: str) -> list[Entry]:
    """The rows of a hold, oldest first."""
    return [_entry(row) for row in db.execute(_SELECT + "WHERE hold_id = ? ORDER BY id", (hold_id,))]


def last_of_instance(db: sqlite3.Connection, workload: str, instance: str) -> Entry | None:
    """The newest row of a running instance."""
    row = db.execute(
        _SELECT + "WHERE workload = ? AND instance = ? AND instance <> '' ORDER BY id DESC LIMIT 1",
        (workload, instance),
    ).fetchone()
    return _entry(row) if row else None


def next_of_instance(db: sqlite3.Connection, hold: Entry) -> Entry | None:
    """The first row of the same instance that came after this hold was taken and is not of it."""
    row = db.execute(
        _SELECT + "WHERE workload = ? AND instance = ? AND instance <> '' AND hold_id <> ? "  # noqa: S608 - constants
        "AND id > (SELECT id FROM entry WHERE event_id = ?) ORDER BY id LIMIT 1",
        (hold.scope.workload, hold.instance, hold.hold_id, hold.event_id),
    ).fetchone()
    return _entry(row) if row else None


def overdue(db: sqlite3.Connection, at: float, most: int) -> list[Entry]:
    """Open holds whose time is over, the oldest first."""
    ids = db.execute("SELECT hold_id FROM open_hold WHERE until <= ? ORDER BY until LIMIT ?", (at, most)).fetchall()
    return [entry for (hold_id,) in ids for entry in chain(db, hold_id)[:1]]


def open_floors(db: sqlite3.Connection, workload: str) -> int:
    """How many of a workload's committed replicas have an open hold."""
    sql = "SELECT COUNT(*) FROM open_hold WHERE workload = ? AND instance <> '' AND floor = 1"
    return int(db.execute(sql, (workload,)).fetchone()[0])


def newest(db: sqlite3.Connection) -> float | None:
    """When the newest row was written."""
    found = db.execute("SELECT MAX(at) FROM entry").fetchone()[0]
    return None if found is None else float(found)


def next_id(db: sqlite3.Connection) -> int:
    """The number that the next row gets."""
    return int(db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM entry").fetchone()[0])


def oldest(db: sqlite3.Connection) -> float | None:
    """When the ledger began."""
    found = db.execute("SELECT MIN(at) FROM entry").fetchone()[0]
    return None if found is None else float(found)


def standing(db: sqlite3.Connection, now: float, zone: ZoneInfo) -> Standing:
    """The totals of the month of `now`; never of an earlier month than the newest row's."""
    last = newest(db)
    at = now if last is None else max(now, last)
    period = period_of(at, zone)
    start, end = bounds(period, zone)
    row = db.execute("SELECT posted, held, committed FROM period_total WHERE period = ?", (period,)).fetchone()
    posted, held, fixed = row or (0, 0, 0)
    floors: Mapping[str, int] = dict(
        db.execute(
            "SELECT workload, SUM(held) FROM scope_total WHERE period = ? AND floor = 1 GROUP BY workload", (period,)
        )
    )
    return Standing(at, period, start, end, posted, held, fixed, floors, at - now)


def posted_since(db: sqlite3.Connection, at: float) -> int:
    """Posted since a moment, to the minute."""
    sql = "SELECT COALESCE(SUM(posted), 0) FROM minute_total WHERE minute >= ?"
    return int(db.execute(sql, (int(at) // 60,)).fetchone()[0])


def posted_by_hour(db: sqlite3.Connection, since: float, until: float) -> list[tuple[float, float]]:
    """(start of the hour, posted) of every whole hour in between, silent ones included."""
    first, last = -(-int(since) // 3600), int(until) // 3600
    found = dict(
        db.execute(
            "SELECT minute / 60, SUM(posted) FROM minute_total WHERE minute >= ? AND minute < ? GROUP BY minute / 60",
            (first * 60, last * 60),
        )
    )
    return [(hour * 3600.0, float(found.get(hour, 0))) for hour in range(first, last)]


def by_scope(db: sqlite3.Connection, period: str) -> list[tuple[Scope, int, int, int, int]]:
    """(scope, held, posted, committed, rows) of a month, the dearest first."""
    return [
        (Scope(*row[:5]), *row[5:])
        for row in db.execute(
            "SELECT provider, service, model, workflow, workload, SUM(held), SUM(posted), SUM(committed), SUM(entries) "
            "FROM scope_total WHERE period = ? GROUP BY 1, 2, 3, 4, 5 "
            "ORDER BY SUM(posted) + SUM(committed) DESC, 1, 2, 3, 4, 5",
            (period,),
        )
    ]


def units_by_scope(db: sqlite3.Connection, period: str) -> dict[Scope, dict[str, float]]:
    """Scope -> unit -> how many of it were used in a month; empty where the ledger does not sum them up yet."""
    found: dict[Scope, dict[str, float]] = {}
    if has_units(db):
        sql = "SELECT provider, service, model, workflow, workload, unit, quantity FROM unit_total WHERE period = ?"
        for *scope, unit, quantity in db.execute(sql, (period,)):
            found.setdefault(Scope(*scope), {})[unit] = quantity
    return found


def counts(db: sqlite3.Connection) -> dict[State, int]:
    """Rows by state since the ledger began."""
    return {State(state): count for state, count in db.execute("SELECT state, entries FROM state_total")}


def open_count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT COUNT(*) FROM open_hold").fetchone()[0])


def open_by_workload(db: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Workload -> (instances with an open hold, how many of them are committed replicas)."""
    sql = "SELECT workload, COUNT(*), SUM(floor) FROM open_hold WHERE instance <> '' GROUP BY workload"
    return {workload: (count, floors) for workload, count, floors in db.execute(sql)}


def levels(db: sqlite3.Connection, period: str) -> dict[str, Level]:
    """The last recorded level of each budget in a month."""
    sql = "SELECT budget, level FROM level_change WHERE period = ? ORDER BY id"
    return {budget: Level(level) for budget, level in db.execute(sql, (period,))}


def _entry(row: tuple[Any, ...]) -> Entry:
    """A row of _COLUMNS."""
    event_id, hold_id, state, at, period, *rest = row
    held, posted, committed, until, started, instance, floor, digest = rest[12:]
    return Entry(
        event_id,
        hold_id,
        State(state),
        at,
        period,
        Scope(*rest[:5]),
        Cost(*rest[5:12]),
        held,
        posted,
        committed,
        until,
        started,
        instance,
        bool(floor),
        digest,
    )
