"""The money of running replicas: a time hold in the ledger for each, under the number of its slot.

Replicas of a workload are alike, so the ledger knows them as slots "0", "1", …, "n-1" for n that run. A hold is taken
before a replica is asked for, renewed while it runs, and given up once as many have stopped. Only the count matters,
not which one stopped, and another process can go on where this one ended.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.budget.client import Allowance, Client, RefusedError, UnreachableError
from controllers.domain import Money, Replicas
from controllers.loop import StepError, Tick

MOST_SECONDS = 3.0  # of a step for looking, and again for taking: a slow ledger must not keep the scaler from its work
SHARE = 0.3  # of what is left of a step
LEAST_SECONDS = 0.2  # for one request; with less it is not begun
LOOK_SECONDS = 2 * LEAST_SECONDS  # kept back from renewals, for asking what the money allows
# The reasons of a ledger that says that the money is gone. Its others (no price, no rate, a clock set back) say that it
# cannot tell, and are no reason to end what runs.
GONE = ("over_limit", "budget_zero")


@dataclass(slots=True)
class _Slots:
    """What this process knows of one workload's holds. `taken_at`: slot -> when its hold was taken or renewed."""

    taken_at: dict[int, float] = field(default_factory=dict)
    refused: dict[int, float] = field(default_factory=dict)  # slot -> when the ledger first would not pay on
    unstarted: dict[int, str] = field(default_factory=dict)  # slot -> its hold, while the target was not told of it
    refused_at: float = -math.inf  # when the ledger last would not pay on for one
    known: bool = False  # what an earlier process had held beyond the running ones was given up

    def follow(self, now: float) -> None:
        """A clock that was set back: what was renewed is due at once, what was refused counts from now."""
        self.taken_at = {slot: at if at <= now else -math.inf for slot, at in self.taken_at.items()}
        self.refused = {slot: min(since, now) for slot, since in self.refused.items()}
        self.refused_at = min(self.refused_at, now)


@dataclass(frozen=True, slots=True)
class Taken:
    """Of the replicas that were asked for, how many have money now; `said`: the sentence where it is not all."""

    granted: int
    said: str | None = None
    silent: bool = False  # the ledger did not answer, which is neither yes nor no


class _NotNowError(Exception):
    """This step's time for the ledger is used up by requests that it answered; the rest is asked in the next."""


class Purse:
    """The ledger as the scaler needs it. Of one thread.

    `ttl_seconds`: a hold is renewed after so long. `grace_seconds`: how long the ledger may be silent.
    """

    def __init__(self, client: Client, ttl_seconds: float, grace_seconds: float) -> None:
        self._client = client
        self._ttl = ttl_seconds
        self._grace = grace_seconds
        self._answered_at: float | None = None  # the first look counts from itself
        self._slots: dict[str, _Slots] = {}
        self.silent_seconds = 0.0
        self.problem: str | None = None  # why the ledger did not answer the last time
        self.refusals: dict[str, str] = {}  # by workload: why it would not pay on, or could not tell

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def look(self, running: Mapping[str, int | None], tick: Tick, *, acting: bool) -> dict[str, Money]:
        """Renews what is due and gives up what has stopped, then says what the money allows each workload.

        `running`: by priced workload, its replicas that exist, draining ones included; None: unknown, then its holds
        are left alone. `acting`: False where another process acts; then nothing is written.
        """
        self._answered_at = tick.now if self._answered_at is None else min(self._answered_at, tick.now)
        for slots in self._slots.values():
            slots.follow(tick.now)
        self.refusals.clear()
        try:
            until = _until(tick)
            if acting:
                self._keep_all(running, tick.now, until - LOOK_SECONDS)
            allowances = self._client.allowances(_left(until))
        except (UnreachableError, StepError, _NotNowError) as error:
            self.problem, allowances = str(error), None
            self.silent_seconds = max(0.0, tick.now - self._answered_at)
        else:
            self.problem, self._answered_at, self.silent_seconds = None, tick.now, 0.0
        return {workload: self._money(workload, count, allowances, tick.now) for workload, count in running.items()}

    def take(self, workload: str, running: int, more: int, lead_seconds: float, tick: Tick) -> Taken:
        """Holds money for `more` replicas beyond those that run, one after the other until the first no."""
        slots, until = self._of(workload), _until(tick)
        for number, slot in enumerate(range(running, running + more)):
            try:
                held = self._client.hold(workload, str(slot), _left(until), lead_seconds)
            except RefusedError as error:
                return Taken(number, str(error))
            except (UnreachableError, _NotNowError) as error:
                return Taken(number, str(error), silent=True)
            slots.taken_at[slot] = tick.now
            slots.unstarted[slot] = held.hold
        return Taken(more)

    def started(self, workload: str) -> None:
        """The target was told: what was taken is run, and due."""
        self._of(workload).unstarted.clear()

    def _keep_all(self, running: Mapping[str, int | None], now: float, until: float) -> None:
        """As many as there is time for: what was renewed is not due in the next step, which goes on with the rest."""
        known = {workload: count for workload, count in running.items() if count is not None}
        try:
            strange = any(not self._of(workload).known for workload in known)
            held = self._client.allowances(_left(until)) if strange else {}
            for workload, count in known.items():
                self._keep(workload, count, held, now, until)
        except _NotNowError:
            return

    def _keep(self, workload: str, running: int, held: Mapping[str, Allowance], now: float, until: float) -> None:
        """First what has stopped, so that its money is there for the rest. Raises UnreachableError.

        `held`: what an earlier process may have left, asked for while this one does not know the workload yet.
        """
        slots = self._of(workload)
        for slot in [slot for slot in slots.taken_at if slot >= running]:
            self._give_up(workload, slots, slot, _left(until))
        if not slots.known:
            for slot in range(running, running + (held[workload].replicas if workload in held else 0)):
                self._client.release(workload, str(slot), _left(until))
            slots.known = True
        slots.unstarted = {slot: hold for slot, hold in slots.unstarted.items() if slot >= running}
        slots.refused = {slot: since for slot, since in slots.refused.items() if slot < running}
        for slot in range(running):
            if slot in slots.refused or now - slots.taken_at.get(slot, -self._ttl) >= self._ttl:
                self._renew(workload, slots, slot, now, _left(until))

    def _renew(self, workload: str, slots: _Slots, slot: int, now: float, seconds: float) -> None:
        try:
            self._client.renew(workload, str(slot), seconds)
        except RefusedError as error:
            self.refusals[workload] = str(error)
            if error.reason in GONE:
                slots.refused.setdefault(slot, now)
                slots.refused_at = now
                slots.taken_at.setdefault(slot, now)  # a hold of an earlier process may be there, to be given up later
        else:
            slots.refused.pop(slot, None)
            slots.taken_at[slot] = now

    def _give_up(self, workload: str, slots: _Slots, slot: int, seconds: float) -> None:
        """Of a replica that the target was never told of, nothing is due: telling it failed, and it was read since."""
        if slot in slots.unstarted:
            self._client.void(workload, str(slot), slots.unstarted[slot], seconds)
        else:
            self._client.release(workload, str(slot), seconds)
        slots.taken_at.pop(slot, None)
        slots.unstarted.pop(slot, None)

    def _money(
        self, workload: str, running: int | None, allowances: Mapping[str, Allowance] | None, now: float
    ) -> Money:
        slots = self._of(workload)
        allowance = None if allowances is None else allowances.get(workload)
        more = allowance.max_new if allowance else 0
        # what a drained replica gives back would let it grow again at once, to be refused at the next renewal
        lately = now - slots.refused_at < self._ttl
        return Money(
            paid=max(0, (running or 0) - to_drain(list(slots.refused.values()), now, self._grace)),
            refused=len(slots.refused),
            max_new=None if allowances is None else 0 if lately else more,
            silent_seconds=self.silent_seconds,
            grace_seconds=self._grace,
        )

    def _of(self, workload: str) -> _Slots:
        return self._slots.setdefault(workload, _Slots())


def to_drain(refused_since: list[float], now: float, grace_seconds: float) -> int:
    """How many of the refused ones go now: half of them, for what they give back may pay for the rest.

    All that were refused for half of the grace go, for then the hold that pays for draining is running out.
    """
    late = sum(now - since > grace_seconds / 2 for since in refused_since)
    return max(late, -(-len(refused_since) // 2))


def exists(replicas: Replicas | None, surge: int) -> int | None:
    """How many replicas cost money: told and draining ones; a replacement has its victim's slot."""
    return None if replicas is None else max(0, replicas.wanted - surge) + replicas.draining


def _until(tick: Tick) -> float:
    return time.monotonic() + min(MOST_SECONDS, SHARE * tick.remaining())


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left < LEAST_SECONDS:
        raise _NotNowError("no time was left to ask the ledger in this step")
    return left
