"""What may follow what: the transitions of a hold, inside a transaction that somebody else opened."""

from sqlite3 import Connection

from controllers.budget import rows
from controllers.budget.words import LARGEST, Answer, BudgetReason, Cost, Entry, State, Verdict, shown

GRANTED = Verdict(True, BudgetReason.GRANTED)


class ConflictError(Exception):
    """A request that contradicts what the ledger already has; nothing was written."""


class UnknownHoldError(Exception):
    """There is no such hold; nothing was written."""


def first_answer(db: Connection, event_id: str, digest: str) -> Entry | None:
    """The row of an event that came before. Raises ConflictError when it came with another body."""
    found = rows.event(db, event_id)
    if found is not None and found.digest != digest:
        raise ConflictError(
            f"{event_id}: this event is in the ledger already, with other contents; an event has one body: give a new "
            "attempt an id of its own"
        )
    return found


def opened(db: Connection, hold_id: str) -> list[Entry]:
    """The rows of a hold, the opening one first. Raises UnknownHoldError."""
    found = rows.chain(db, hold_id)
    if not found or found[0].state is not State.HELD:
        raise UnknownHoldError(
            f"{hold_id}: there is no such hold; report what was spent without one to /usage, with an id of its own"
        )
    return found


def close(db: Connection, hold_id: str, digest: str, cost: Cost, at: float, state: State) -> Answer:
    """Ends a hold as POSTED or VOIDED; one that has expired is taken back and TRUED.

    Raises UnknownHoldError, and ConflictError when it was ended in another way before.
    """
    history = opened(db, hold_id)
    event_id = f"{hold_id}#closed"
    first = rows.event(db, event_id)
    if first is not None:
        if first.digest == digest:
            return Answer(GRANTED, first, repeated=True)
        raise ConflictError(
            f"{hold_id}: it is {first.state.value} with {shown(first.posted)} already and stays so; report what was "
            "spent beyond that to /usage, with an id of its own"
        )
    held, last = history[0], history[-1]
    posted = 0 if state is State.VOIDED else bounded(cost.amount)
    if last.state is State.EXPIRED_POSTED:
        rows.add(db, following(held, f"{hold_id}#reversed", State.REVERSED, at, held.cost, posted=-last.posted))
        return Answer(
            GRANTED, rows.add(db, following(held, event_id, State.TRUED, at, cost, posted=posted, digest=digest))
        )
    return Answer(
        GRANTED,
        rows.add(db, following(held, event_id, state, at, cost, held_change=-held.held, posted=posted, digest=digest)),
    )


def expire(db: Connection, held: Entry, at: float) -> Entry:
    """Posts an open hold in full."""
    return rows.add(
        db,
        following(
            held, f"{held.hold_id}#expired", State.EXPIRED_POSTED, at, held.cost,
            held_change=-held.held, posted=held.held, until=held.until,
        ),
    )  # fmt: skip


def following(
    held: Entry,
    event_id: str,
    state: State,
    at: float,
    cost: Cost,
    *,
    held_change: int = 0,
    posted: int = 0,
    until: float | None = None,
    digest: str = "",
) -> Entry:
    """A later row of the same hold: its month, scope and instance stay."""
    return Entry(
        event_id=event_id,
        hold_id=held.hold_id,
        state=state,
        at=at,
        period=held.period,
        scope=held.scope,
        cost=cost,
        held=held_change,
        posted=posted,
        until=until,
        started=held.started,
        instance=held.instance,
        floor=held.floor,
        digest=digest,
    )


def bounded(amount: int) -> int:
    """The amount, if a row can hold it. Raises ConflictError."""
    if not 0 <= amount <= LARGEST:
        raise ConflictError(f"{shown(amount)} is no amount for one row; it must be 0 to {shown(LARGEST)}")
    return amount
