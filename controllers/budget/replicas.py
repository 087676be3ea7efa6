"""Time holds: the money of running instances.

An admitted instance holds price x (lead time + minimum run + TTL + grace). Each renewal, once in a TTL, posts the time
since the last one and holds the next. If renewals stop coming, the hold is what the instance costs until somebody
notices; it then expires, which posts it in full. A refused renewal leaves the hold as it is: it pays for draining.
An admission is taken back only on proof that nothing was started by it.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from sqlite3 import Connection

from controllers.budget import rows
from controllers.budget.transitions import (
    GRANTED,
    ConflictError,
    UnknownHoldError,
    bounded,
    close,
    expire,
    following,
    opened,
)
from controllers.budget.words import Answer, Cost, Entry, Scope, Standing, State, Verdict


@dataclass(frozen=True, slots=True)
class TimePrice:
    """What an instance costs, and for how long that is held. `hourly` is the cost of one hour."""

    hourly: Cost
    lead_seconds: float
    minimum_seconds: float  # billed even if it is stopped earlier
    ttl_seconds: float
    grace_seconds: float
    floor_replicas: int = 0  # of its workload, committed for the whole month

    @property
    def again_seconds(self) -> float:
        """What a renewal holds for."""
        return self.ttl_seconds + self.grace_seconds

    @property
    def first_seconds(self) -> float:
        """What an admission holds for."""
        return self.lead_seconds + self.minimum_seconds + self.again_seconds

    def cost(self, seconds: float) -> Cost:
        """Of so much time, rounded up."""
        return replace(
            self.hourly,
            amount=bounded(math.ceil(self.hourly.amount * seconds / 3600.0)),
            native=math.ceil(self.hourly.native * seconds / 3600.0),
            units=_seconds(seconds),
        )


@dataclass(frozen=True, slots=True)
class Extra:
    """What a time hold adds to posted + held. `floor_amount`: what it adds to the holds of committed replicas."""

    amount: int
    floor: bool
    floor_amount: int
    renewal: bool


Admit = Callable[[Standing, Extra], Verdict]


def hold_time(
    db: Connection, at: Standing, scope: Scope, instance: str, price: TimePrice, running: bool, admit: Admit
) -> Answer:
    """Admits an instance, or renews its hold; within one TTL the same answer again.

    `running`: it is known to have run until now, so the time since its last hold ended is billed. Of an answer that
    is no, `entry` is the hold that pays for draining, None if there is none.
    """
    last = rows.last_of_instance(db, scope.workload, instance)
    if last is not None and last.state is State.HELD:
        if at.at < _end(last):
            return _renewed(db, at, last, price, admit)
        last = expire(db, last, at.at)
    if not running:
        return _admitted(db, at, Hold(scope, instance, price, price.first_seconds, at.at), admit)
    # its minimum is behind it, whenever it began; and it began before this hold, so that nobody can withdraw it
    hold = Hold(scope, instance, price, price.again_seconds, at.at - max(price.minimum_seconds, 1.0))
    if last is not None and last.until is not None and last.until < at.at:
        gap = _gap(db, at, last, price)
        at = replace(at, posted=at.posted + gap.posted)
    return _admitted(db, at, hold, admit)


def release(db: Connection, at: Standing, workload: str, instance: str, minimum_seconds: float) -> Entry | None:
    """Ends an instance: its time, at least the minimum, is posted. None: it has no open hold."""
    last = rows.last_of_instance(db, workload, instance)
    if last is None or last.state is not State.HELD:
        return None
    if at.at >= _end(last):
        return expire(db, last, at.at)
    return _bill(db, last, at.at, max(at.at, (last.started or last.at) + minimum_seconds))


def withdraw(db: Connection, at: Standing, workload: str, instance: str, hold_id: str | None) -> Answer | None:
    """Gives back the admission of an instance that was provably never started; an expired one is trued to nothing.

    None: it has no hold. Raises UnknownHoldError for a `hold_id` that is not this instance's, ConflictError where it
    was renewed, taken over while it ran, or settled.
    """
    if hold_id is None:
        last = rows.last_of_instance(db, workload, instance)
        first = rows.chain(db, last.hold_id)[0] if last is not None else None
        if first is None or first.state is not State.HELD:
            return None
    else:
        first = opened(db, hold_id)[0]
        if (first.scope.workload, first.instance) != (workload, instance):
            raise UnknownHoldError(f"{hold_id}: this is no hold of {workload}/{instance}")
    ended, after = rows.event(db, f"{first.hold_id}#closed"), rows.next_of_instance(db, first)
    if ended is None and (_ran(first) or (after is not None and _ran(after))):
        raise ConflictError(
            f"{first.hold_id}: {workload}/{instance} ran before this hold or beyond it; settle it when it has stopped"
        )
    return close(db, first.hold_id, "nothing started", Cost(0), at.at, State.VOIDED)


def _ran(row: Entry) -> bool:
    """Whether this row says that its instance was running when it was written."""
    return row.started is None or row.started < row.at


@dataclass(frozen=True, slots=True)
class Hold:
    """A time hold that is about to be taken."""

    scope: Scope
    instance: str
    price: TimePrice
    seconds: float
    started: float


def _renewed(db: Connection, at: Standing, last: Entry, price: TimePrice, admit: Admit) -> Answer:
    if at.at - last.at < price.ttl_seconds:
        return Answer(GRANTED, last, repeated=True)
    started = last.started or last.at
    rest = max(0.0, started + price.minimum_seconds - at.at)
    hold = Hold(last.scope, last.instance, price, rest + price.again_seconds, started)
    amount = price.cost(hold.seconds).amount
    floor = last.floor or rows.open_floors(db, last.scope.workload) < price.floor_replicas
    # a hold of last month is settled there; only the new one is this month's
    before, billed = (last.held, _share(last, at.at).amount) if last.period == at.period else (0, 0)
    extra = Extra(
        amount=billed + amount - before,
        floor=floor,
        floor_amount=(amount if floor else 0) - (before if last.floor else 0),
        renewal=True,
    )
    verdict = admit(at, extra)
    if not verdict.allowed:
        return Answer(verdict, last)
    _bill(db, last, at.at, at.at)
    return Answer(verdict, _take(db, at, hold, floor))


def _admitted(db: Connection, at: Standing, hold: Hold, admit: Admit) -> Answer:
    amount = hold.price.cost(hold.seconds).amount
    floor = rows.open_floors(db, hold.scope.workload) < hold.price.floor_replicas
    verdict = admit(at, Extra(amount, floor, amount if floor else 0, renewal=False))
    return Answer(verdict, _take(db, at, hold, floor) if verdict.allowed else None)


def _take(db: Connection, at: Standing, hold: Hold, floor: bool) -> Entry:
    event_id = _event_id(db, hold.scope.workload, hold.instance)
    cost = hold.price.cost(hold.seconds)
    return rows.add(
        db,
        Entry(
            event_id=event_id,
            hold_id=event_id,
            state=State.HELD,
            at=at.at,
            period=at.period,
            scope=hold.scope,
            cost=cost,
            held=cost.amount,
            until=at.at + hold.seconds,
            started=hold.started,
            instance=hold.instance,
            floor=floor,
        ),
    )


def _bill(db: Connection, held: Entry, at: float, end: float) -> Entry:
    """Posts the hold's time until `end`, and gives back the rest."""
    cost = _share(held, end)
    return rows.add(
        db,
        following(
            held, f"{held.hold_id}#closed", State.POSTED, at, cost, held_change=-held.held, posted=cost.amount
        ),
    )  # fmt: skip


def _gap(db: Connection, at: Standing, last: Entry, price: TimePrice) -> Entry:
    """Posts the time between the end of the last hold and now: it was run, whatever the limit says."""
    cost = price.cost(at.at - (last.until or at.at))
    event_id = _event_id(db, last.scope.workload, last.instance)
    return rows.add(
        db,
        Entry(
            event_id=event_id,
            hold_id=event_id,
            state=State.POSTED,
            at=at.at,
            period=at.period,
            scope=last.scope,
            cost=cost,
            posted=cost.amount,
            until=at.at,
            instance=last.instance,
        ),
    )


def _share(held: Entry, end: float) -> Cost:
    """The part of a time hold until `end`, at the price it was taken at; never more than the whole."""
    whole = _end(held) - held.at
    seconds = min(max(0.0, end - held.at), whole)
    part = seconds / whole if whole > 0 else 1.0
    return replace(
        held.cost,
        amount=min(held.held, math.ceil(held.held * part)),
        native=min(held.cost.native, math.ceil(held.cost.native * part)),
        units=_seconds(seconds),
    )


def _end(held: Entry) -> float:
    return held.until if held.until is not None else held.at


def _seconds(seconds: float) -> str:
    return json.dumps({"replica_seconds": round(seconds, 3)})


def _event_id(db: Connection, workload: str, instance: str) -> str:
    """An id nobody else gives: clients' ids hold no '#'."""
    return f"replica#{workload}/{instance}/{rows.next_id(db)}"
