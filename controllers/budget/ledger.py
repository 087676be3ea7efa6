"""The ledger: what is held, spent, given back. Every answer is on the disk before it is given.

    HELD -> POSTED | VOIDED | EXPIRED_POSTED -> (REVERSED +) TRUED

Rows are only added. The month of a hold is fixed when it is taken; what settles it later goes to that month. A hold
that nobody settles counts as spent in full. The same event twice is answered twice and counted once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar
from zoneinfo import ZoneInfo

from controllers.budget import rows, transitions
from controllers.budget.periods import period_of
from controllers.budget.schema import LedgerError, check, connect
from controllers.budget.transitions import GRANTED
from controllers.budget.words import Answer, Cost, Entry, Level, Scope, Standing, State, Verdict
from controllers.budget.writer import Writer

T = TypeVar("T")
Admit = Callable[[Standing], Verdict]

SWEEP = 500  # expired holds in one transaction


class Ledger:
    """One file. May be used from several threads; `now` is the caller's clock, in Unix seconds."""

    def __init__(self, path: Path, currency: str, zone: ZoneInfo, fixed: Sequence[tuple[str, int]] = ()) -> None:
        """Opens the file, or makes it, and checks that it is whole.

        `fixed`: (name, micro-units a month), owed from each month's first day. Raises LedgerError.
        """
        self.path, self.currency, self.zone = path, currency, zone
        self._fixed = {name: amount for name, amount in fixed if amount}
        db = connect(path, currency, zone.key)
        try:
            check(db, path)
        except LedgerError:
            db.close()
            raise
        self._writer = Writer(db, path)

    def close(self) -> None:
        """Finishes what waits and closes the file."""
        self._writer.close()

    def waiting(self) -> int:
        """Requests that are not begun yet."""
        return self._writer.waiting()

    def standing(self, now: float) -> Standing:
        """The totals of the present month, its fixed costs in them."""
        return self._writer.run(lambda db: self._standing(db, now))

    def read(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question (see rows.py)."""
        return self._writer.run(question)

    def write(self, work: Callable[[Connection, Standing], T], now: float) -> T:
        """Runs `work` in one transaction, with the totals of this very moment (see replicas.py)."""
        return self._writer.run(lambda db: work(db, self._standing(db, now)))

    def hold(
        self, event_id: str, digest: str, scope: Scope, cost: Cost, seconds: float, now: float, admit: Admit
    ) -> Answer:
        """Holds the cost if `admit` allows it. Raises ConflictError, LedgerError."""

        def work(db: Connection, at: Standing) -> Answer:
            first = transitions.first_answer(db, event_id, digest)
            if first is not None:
                return Answer(GRANTED, first, repeated=True)
            amount = transitions.bounded(cost.amount)
            verdict = admit(at)
            if not verdict.allowed:
                return Answer(verdict)
            until = at.at + seconds
            entry = Entry(
                event_id, event_id, State.HELD, at.at, at.period, scope, cost, amount, until=until, digest=digest
            )
            return Answer(verdict, rows.add(db, entry))

        return self.write(work, now)

    def usage(
        self, event_id: str, digest: str, scope: Scope, cost: Cost, now: float, occurred: float | None = None
    ) -> Answer:
        """Records what was spent without a hold: a fact, whatever the limit. `occurred` decides its month.

        Raises ConflictError, LedgerError.
        """

        def work(db: Connection, at: Standing) -> Answer:
            first = transitions.first_answer(db, event_id, digest)
            if first is not None:
                return Answer(GRANTED, first, repeated=True)
            period = at.period if occurred is None or occurred >= at.start else period_of(occurred, self.zone)
            entry = Entry(
                event_id,
                event_id,
                State.POSTED,
                at.at,
                period,
                scope,
                cost,
                posted=transitions.bounded(cost.amount),
                digest=digest,
            )
            return Answer(GRANTED, rows.add(db, entry))

        return self.write(work, now)

    def find(self, hold_id: str) -> Entry:
        """The row that opened a hold. Raises UnknownHoldError, LedgerError."""
        return self._writer.run(lambda db: transitions.opened(db, hold_id)[0])

    def settle(self, hold_id: str, digest: str, cost: Cost, now: float) -> Answer:
        """What a hold really cost; an expired one is taken back and trued.

        Raises UnknownHoldError, ConflictError, LedgerError.
        """
        return self.write(lambda db, at: transitions.close(db, hold_id, digest, cost, at.at, State.POSTED), now)

    def void(self, hold_id: str, digest: str, now: float) -> Answer:
        """Gives a hold back: the caller has proof that nothing was sent.

        Raises UnknownHoldError, ConflictError, LedgerError.
        """
        return self.write(lambda db, at: transitions.close(db, hold_id, digest, Cost(0), at.at, State.VOIDED), now)

    def expire(self, now: float) -> int:
        """Posts overdue holds in full. Returns how many; SWEEP means that there may be more."""

        def work(db: Connection, at: Standing) -> int:
            overdue = rows.overdue(db, at.at, SWEEP)
            for held in overdue:
                transitions.expire(db, held, at.at)
            return len(overdue)

        return self.write(work, now)

    def level_changed(self, standing: Standing, budget: str, level: Level, detail: str) -> None:
        """Puts a change of level on the record."""
        sql = "INSERT INTO level_change (at, period, budget, level, detail) VALUES (?, ?, ?, ?, ?)"
        self._writer.run(lambda db: db.execute(sql, (standing.at, standing.period, budget, int(level), detail)))

    def _standing(self, db: Connection, now: float) -> Standing:
        found = rows.standing(db, now, self.zone)
        if found.fixed == sum(self._fixed.values()):
            return found
        self._commit_fixed(db, found)
        return rows.standing(db, now, self.zone)

    def _commit_fixed(self, db: Connection, at: Standing) -> None:
        """Appends what is missing between the month's committed rows and the configuration."""
        sql = "SELECT service, SUM(committed) FROM scope_total WHERE period = ? GROUP BY service"
        there: dict[str, int] = dict(db.execute(sql, (at.period,)))
        for name in sorted({*there, *self._fixed}):
            difference = self._fixed.get(name, 0) - there.get(name, 0)
            if difference:
                event_id = f"fixed#{at.period}/{name}/{rows.next_id(db)}"
                scope, cost = Scope(service=name), Cost(abs(difference))
                rows.add(
                    db,
                    Entry(event_id, event_id, State.COMMITTED, at.at, at.period, scope, cost, committed=difference),
                )
