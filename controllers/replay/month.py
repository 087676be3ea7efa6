"""A month lived at speed: jobs ask a ledger for their calls, the live decide() scales replicas within its money.

    job ─▶ POST /permit ─▶ queue ─▶ replica ─▶ POST /settle      as a workflow does it
            402: asks again later, as long as it is worth it
    turn ─▶ the ledger's step ─▶ the scaler's look at its money ─▶ decide() ─▶ holds for what grows

Pure but for the till it is given: events in order of time, no clock. A replica works one job at a time, what is
critical first. One that is to go finishes its job and is paid for until then.
"""

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any, Protocol

from controllers.budget.words import Priority
from controllers.domain import Money, Pending, Replicas, Sample
from controllers.replay.usage import Job
from controllers.scale.decide import decide
from controllers.scale.memory import Memory, decided
from controllers.scale.state import Decision, Rules, State

CALL_SECONDS = 20.0  # of a call that needs no replica
HOLD_SECONDS = 7200.0  # from the permit at the door to the settlement: waiting for a replica is in it
RATE_SECONDS = 1800.0  # jobs come by the hour, not by the second: their rate is a mean over so long
SERVICES_KEPT = 50
RANK = {Priority.CRITICAL: 0, Priority.NORMAL: 1, Priority.DEFERRABLE: 2}


class Till(Protocol):
    """The ledger, as workflows and as the scaler ask it. `now` is its clock."""

    def ask(self, method: str, path: str, body: Mapping[str, Any], now: float) -> tuple[int, Mapping[str, Any]]:
        """Status and JSON of a request."""

    def step(self, now: float) -> None:
        """One turn of `tidewise budget`."""

    def look(self, running: Mapping[str, int], now: float) -> Mapping[str, Money]:
        """What the money allows each workload; holds of what runs are renewed, of what stopped given up."""

    def take(self, workload: str, running: int, more: int, lead_seconds: float, now: float) -> int:
        """Of `more` replicas beyond those that run, how many have money now."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the month is lived. `patience`: seconds after which a job that is not done is of no use any more;
    `again`: seconds after which a job that got no permit asks again."""

    start: float
    end: float
    turn_seconds: float
    patience: Mapping[Priority, float]
    again: Mapping[Priority, float]
    alike: bool = False  # every job asks as a critical one, so that nothing but the cap is left


@dataclass
class Lived:
    """What came of it. `refused`: (priority, reason) -> permits refused; `waits`: seconds from wish to done."""

    asked: Counter[Priority] = field(default_factory=Counter)
    served: Counter[Priority] = field(default_factory=Counter)
    refused: Counter[tuple[Priority, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)  # of the decisions, and of growth that was not paid
    replica_seconds: Counter[str] = field(default_factory=Counter)
    most_replicas: Counter[str] = field(default_factory=Counter)
    waits: dict[Priority, list[float]] = field(default_factory=dict)

    def served_ratio(self, priority: Priority) -> float | None:
        """None where nobody asked."""
        return self.served[priority] / self.asked[priority] if self.asked[priority] else None


def live(jobs: Iterable[Job], till: Till, workloads: Sequence[Rules], plan: Plan) -> Lived:
    """Lives the month. `workloads`: the rules of those that jobs name; all priced, by the till's configuration."""
    return _Month(till, workloads, plan).run(jobs)


class _Rank(IntEnum):  # at equal times: what ends first, then what begins, then the look at it
    DONE = 0
    READY = 1
    ASK = 2
    TURN = 3


@dataclass(eq=False)
class _Replica:
    asked_at: float
    ready: bool = False
    draining: bool = False
    job: Job | None = None


class _Fleet:
    """One workload: its queue, its replicas, and what decide() is to remember."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.replicas: list[_Replica] = []
        self.queue: list[tuple[int, float, int, Job]] = []
        self.arrived: deque[float] = deque()
        self.services: deque[float] = deque(maxlen=SERVICES_KEPT)
        self.memory = Memory()

    def active(self) -> list[_Replica]:
        return [replica for replica in self.replicas if not replica.draining]

    def decide(self, now: float, money: Money | None) -> Decision:
        """The live decision on what there is now."""
        while self.arrived and self.arrived[0] <= now - RATE_SECONDS:
            self.arrived.popleft()
        active = self.active()
        busy = sum(replica.job is not None for replica in self.replicas)
        state = State(
            now=now,
            demand=Sample(len(self.arrived) / RATE_SECONDS, now),
            backlog=Sample(float(len(self.queue) + busy), now),
            service_seconds=sum(self.services) / len(self.services) if self.services else None,
            replicas=Replicas(
                len(active),
                sum(replica.ready for replica in active),
                tuple(Pending(1, now - replica.asked_at) for replica in active if not replica.ready),
                len(self.replicas) - len(active),
            ),
            recommendations=self.memory.recommendations,
            wanted=self.memory.wanted,
            known_since=self.memory.known_since,
            money=money,
        )
        return decide(state, self.rules)


class _Month:
    def __init__(self, till: Till, workloads: Sequence[Rules], plan: Plan) -> None:
        self._till, self._plan = till, plan
        self._fleets = {rules.workload: _Fleet(rules) for rules in workloads}
        self._events: list[tuple[float, _Rank, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._lived = Lived(waits={priority: [] for priority in Priority})

    def run(self, jobs: Iterable[Job]) -> Lived:
        for job in jobs:
            self._lived.asked[job.priority] += 1
            self._at(job.at, _Rank.ASK, partial(self._ask, job))
        self._at(self._plan.start, _Rank.TURN, self._turn)
        while self._events and self._events[0][0] < self._plan.end:
            now, _, _, happen = heapq.heappop(self._events)
            happen(now)
        for name, fleet in self._fleets.items():
            self._lived.replica_seconds[name] += sum(round(self._plan.end - r.asked_at) for r in fleet.replicas)
        return self._lived

    def _at(self, when: float, rank: _Rank, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, rank, next(self._order), happen))

    def _ask(self, job: Job, now: float) -> None:
        """At the door: without a permit it is not even queued."""
        priority = Priority.CRITICAL if self._plan.alike else job.priority
        body = {
            "event_id": job.id,
            "provider": job.kind.provider,
            "model": job.kind.model,
            "units": dict(job.most),
            "workflow": job.kind.workflow,
            "workload": job.kind.workload,
            "priority": priority.value,
            "hold_seconds": HOLD_SECONDS,
        }
        status, answer = self._till.ask("POST", "/permit", body, now)
        if status == 200:
            self._granted(job, now)
        elif status == 402:
            self._lived.refused[job.priority, str(answer["reason"])] += 1
            later = now + self._plan.again[job.priority]
            if later < job.at + self._plan.patience[job.priority]:
                self._at(later, _Rank.ASK, partial(self._ask, job))
        else:
            raise RuntimeError(f"{job.id}: the till answered {status}: {answer}")

    def _granted(self, job: Job, now: float) -> None:
        if not job.kind.workload:
            self._at(now + CALL_SECONDS, _Rank.DONE, partial(self._done, job))
            return
        fleet = self._fleets[job.kind.workload]
        fleet.arrived.append(now)
        heapq.heappush(fleet.queue, (RANK[job.priority], now, next(self._order), job))
        self._work(fleet, now)

    def _work(self, fleet: _Fleet, now: float) -> None:
        """Free replicas take what waits."""
        for replica in fleet.active():
            if fleet.queue and replica.ready and replica.job is None:
                replica.job = heapq.heappop(fleet.queue)[-1]
                self._at(now + replica.job.work_seconds, _Rank.DONE, partial(self._worked, fleet, replica))

    def _worked(self, fleet: _Fleet, replica: _Replica, now: float) -> None:
        job, replica.job = replica.job, None
        if job is None:
            raise RuntimeError("a replica ended a job that it had not begun")
        fleet.services.append(job.work_seconds)
        self._done(job, now)
        if replica.draining:
            self._stopped(fleet, replica, now)
        self._work(fleet, now)

    def _done(self, job: Job, now: float) -> None:
        if not job.is_lost:
            status, answer = self._till.ask("POST", "/settle", {"hold": job.id, "units": dict(job.actual)}, now)
            if status != 200:
                raise RuntimeError(f"{job.id}: the till answered {status}: {answer}")
        if now <= job.at + self._plan.patience[job.priority]:
            self._lived.served[job.priority] += 1
            self._lived.waits[job.priority].append(now - job.at)

    def _turn(self, now: float) -> None:
        self._till.step(now)
        money = self._look(now)
        for name, fleet in self._fleets.items():
            decision = fleet.decide(now, money.get(name))
            self._lived.reasons.update(reason.value for reason in decision.reasons)
            told = self._tell(fleet, decision, now)
            fleet.memory = decided(fleet.memory, decision, told, fleet.rules.stabilization_window_seconds)
            self._lived.most_replicas[name] = max(self._lived.most_replicas[name], len(fleet.replicas))
        self._at(now + self._plan.turn_seconds, _Rank.TURN, self._turn)

    def _look(self, now: float) -> Mapping[str, Money]:
        return self._till.look({name: len(fleet.replicas) for name, fleet in self._fleets.items()}, now)

    def _tell(self, fleet: _Fleet, decision: Decision, now: float) -> int | None:
        """Carries it out. What grows is paid for first, and may be less than was decided. The number told, if any."""
        current, desired = decision.current or 0, decision.desired
        if desired is None or desired == current:
            return None
        if desired < current:
            for replica in fleet.active()[desired:]:  # the newest go first
                replica.draining = True
                if replica.job is None:
                    self._stopped(fleet, replica, now)
            return desired
        lead = fleet.rules.lead_time_seconds
        granted = self._till.take(fleet.rules.workload, len(fleet.replicas), desired - current, lead, now)
        if granted < desired - current:
            self._lived.reasons["permit_refused"] += 1
        for _ in range(granted):
            replica = _Replica(now)
            fleet.replicas.append(replica)
            self._at(now + lead, _Rank.READY, partial(self._ready, fleet, replica))
        return current + granted

    def _ready(self, fleet: _Fleet, replica: _Replica, now: float) -> None:
        replica.ready = True
        self._work(fleet, now)

    def _stopped(self, fleet: _Fleet, replica: _Replica, now: float) -> None:
        fleet.replicas.remove(replica)
        self._lived.replica_seconds[fleet.rules.workload] += round(now - replica.asked_at)
        self._look(now)  # the live scaler's turns are seconds apart, and no hold is paid for longer than that
