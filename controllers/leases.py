"""One leader among the replicas of a controller, by a Kubernetes Lease.

The Lease object is changed by compare-and-swap, so of two that want it one gets it. No clock is compared with another
machine's: a follower counts from when it last *saw* the lease change, and a leader from before it asked to renew it.
A leader stops acting after two thirds of the lease's duration without a renewal, and others wait for all of it; the
third between them is for a write that is under way.

`observed`, `move` and `record_after` are pure; `Leader` reads, asks them, and writes.
"""

import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

import structlog

from controllers.config import Lease
from controllers.kubernetes_api import Api, ApiError, Json, Place

ACT_SHARE = 2 / 3  # of the duration, from the last renewal: how long a leader acts without another
RENEWALS = 3  # in the time a leader may act
NEVER = float("-inf")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says. `holder` is empty when it was released; `transitions` counts the changes of holder."""

    holder: str
    duration_seconds: float
    transitions: int
    renewed: str  # the holder's own clock: only ever compared with itself


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease (None: there is none) and since when it has said this, on our own monotonic clock."""

    record: Record | None
    since: float


class Move(Enum):
    """What to do about the Lease now."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    RELEASE = "release"
    WAIT = "wait"


def observed(before: Seen | None, record: Record | None, now: float) -> Seen:
    """What is known after reading `record` at `now`: the clock of an unchanged record goes on."""
    return before if before is not None and before.record == record else Seen(record, now)


def move(seen: Seen, me: str, now: float, *, willing: bool, may_act_until: float) -> Move:
    """The next move of `me`, who is `willing` while its worker lives and it is not stopping.

    An unwilling leader lets its time to act run out before it releases: a last write may be under way.
    """
    record = seen.record
    if record is not None and record.holder == me:
        if willing:
            return Move.RENEW
        return Move.RELEASE if now >= may_act_until else Move.WAIT
    if not willing:
        return Move.WAIT
    if record is None:
        return Move.CREATE
    expired = now - seen.since > record.duration_seconds
    return Move.TAKE if expired or not record.holder else Move.WAIT


def record_after(seen: Seen, chosen: Move, me: str, duration_seconds: float, renewed: str) -> Record:
    """What the Lease says once `chosen` was done. Each change of holder is a new epoch, a renewal is not."""
    before = seen.record or Record("", duration_seconds, -1, "")
    if chosen is Move.RELEASE:
        return replace(before, holder="", duration_seconds=1.0, renewed=renewed)
    epoch = before.transitions if chosen is Move.RENEW else before.transitions + 1
    return Record(me, duration_seconds, epoch, renewed)


@dataclass(frozen=True, slots=True)
class Tenure:
    """Who leads, as far as this process knows."""

    holder: str | None  # None: unknown, or nobody
    epoch: int | None  # of the present holder: larger than that of all before
    may_act_until: float  # on the leader's clock; in the past where we do not lead
    problem: str | None  # why the lease could not be read or written the last time


def boot_clock() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Leader:
    """Keeps or seeks one Lease in a thread of its own; the controller asks `may_act` before every effect.

    The worker says `worked()` after each step that succeeded. One that has not done so for `silence_seconds` is taken
    for dead: its lease is released and not sought again until it works.

        leader = Leader(config.scale.lease, silence_seconds=120)
        leader.start()
        …each step: if leader.may_act(): apply(…, min(tick.remaining(), leader.remaining_seconds()))
        …at its end: leader.worked()
        leader.stop()
    """

    def __init__(
        self,
        lease: Lease,
        *,
        silence_seconds: float,
        identity: str | None = None,
        api: Api | None = None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.identity = identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._lease = lease
        self._silence_seconds = silence_seconds
        self._api = api or Api(lease)
        self._clock = clock
        self._place = Place("coordination.k8s.io/v1", lease.namespace, "leases", lease.name)
        self._interval = lease.duration_seconds * ACT_SHARE / RENEWALS
        self._seen: Seen | None = None
        self._tenure = Tenure(None, None, NEVER, "the lease was not read yet")
        self._worked_at = clock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to seek the lease."""
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Act no more, and release the lease so that another need not wait for its end. No write may be under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2 * self._interval)

    def may_act(self, now: float | None = None) -> bool:
        """Whether this process leads at `now` (on its clock; None: at present). False where that is not certain."""
        return self.remaining_seconds(now) > 0

    def remaining_seconds(self, now: float | None = None) -> float:
        """How long it may act without another renewal; the deadline of every write. Zero where it does not lead."""
        if self._stopping.is_set():
            return 0.0
        return max(0.0, self._tenure.may_act_until - (self._clock() if now is None else now))

    def worked(self) -> None:
        """A step of the worker has succeeded."""
        self._worked_at = self._clock()

    @property
    def tenure(self) -> Tenure:
        """Who leads, for logs and metrics."""
        return self._tenure

    def turn(self) -> Move:
        """Reads the lease and makes one move, within the time between two renewals. What fails is left to the next."""
        asked_at = self._clock()
        until = time.monotonic() + self._interval
        stopping = self._stopping.is_set()
        try:
            body = self._read(until)
            now = self._clock()
            self._seen = seen = observed(self._seen, record_of(body), now)
            willing = not stopping and now - self._worked_at <= self._silence_seconds
            may_act_until = NEVER if stopping else self._tenure.may_act_until
            chosen = move(seen, self.identity, now, willing=willing, may_act_until=may_act_until)
            if chosen is not Move.WAIT:
                self._write(chosen, seen, body, until)
        except ApiError as error:
            # A lease that we hold runs on; but where somebody else was faster, it may not be ours any more.
            may_act_until = NEVER if error.status == 409 else self._tenure.may_act_until
            self._know(replace(self._tenure, may_act_until=may_act_until, problem=str(error)))
            return Move.WAIT
        self._conclude(chosen, asked_at)
        return chosen

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.turn()
            self._stopping.wait(self._interval)
        self.turn()  # unwilling by now: releases what it holds

    def _read(self, until: float) -> Json | None:
        try:
            return self._api.read(self._place, until)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _write(self, chosen: Move, seen: Seen, body: Json | None, until: float) -> None:
        """Carries out the move; 409 (ApiError) where somebody else was faster."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = record_after(seen, chosen, self.identity, self._lease.duration_seconds, stamp)
        spec: Json = {
            **((body or {}).get("spec") or {}),
            "holderIdentity": record.holder,
            "leaseDurationSeconds": round(record.duration_seconds),
            "leaseTransitions": record.transitions,
            "renewTime": stamp,
        }
        if chosen in (Move.CREATE, Move.TAKE):
            spec["acquireTime"] = stamp
        if body is None:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._lease.name}}
            answer = self._api.create(replace(self._place, name=None), {**body, "spec": spec}, until)
        else:
            answer = self._api.replace(self._place, {**body, "spec": spec}, until)
        self._seen = Seen(record_of(answer), self._clock())

    def _conclude(self, chosen: Move, asked_at: float) -> None:
        record = self._seen.record if self._seen else None
        holder = record.holder if record else ""
        if chosen in (Move.CREATE, Move.TAKE, Move.RENEW):
            may_act_until = asked_at + self._lease.duration_seconds * ACT_SHARE
        else:
            may_act_until = self._tenure.may_act_until if holder == self.identity else NEVER
        self._know(Tenure(holder or None, record.transitions if record else None, may_act_until, None))

    def _know(self, tenure: Tenure) -> None:
        before, self._tenure = self._tenure, tenure
        if (before.holder, before.epoch) != (tenure.holder, tenure.epoch):
            log.info("leader_changed", holder=tenure.holder, epoch=tenure.epoch, me=self.identity)
        if tenure.problem and before.problem != tenure.problem:
            log.warning("lease_problem", problem=tenure.problem)


def record_of(body: Json | None) -> Record | None:
    """A Lease object as a record; what somebody left out counts as nobody's. None where there is no object."""
    if body is None:
        return None
    spec = body.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        duration_seconds=float(spec.get("leaseDurationSeconds") or 1),
        transitions=int(spec.get("leaseTransitions") or 0),
        renewed=spec.get("renewTime") or "",
    )
