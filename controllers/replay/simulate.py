"""One simulator for every policy: jobs in a first-come-first-served queue, replicas that take a while to start. Pure.

Events in order of time: an arrival, a job done, a replica ready, a policy's turn. A replica asked for at t works from
t + lead; one taken away while starting never works; one taken away at work finishes its jobs first.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from controllers.domain import Pending, Replicas


@dataclass(frozen=True, slots=True)
class Seen:
    """What a policy is shown at its turn: the clock, work per second over the last minute, work waiting or in hand."""

    now: float
    demand: float
    backlog: int
    replicas: Replicas


Policy = Callable[[Seen], int]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all policies. Times in seconds; `start` and `end` bound the turns of the policies."""

    start: float
    end: float
    interval_seconds: float
    lead_time_seconds: float
    service_seconds: float
    concurrency: int
    replicas: int  # working at the start
    before: Sequence[float] = ()  # arrivals before the start, for the first minute's rate


@dataclass(frozen=True, slots=True)
class Result:
    """`waits`: seconds from arrival to first work, one a job in order of arrival. `replica_seconds`: paid from the ask
    until the last job. `timeline`: (time, wanted, ready) at each turn."""

    waits: tuple[float, ...]
    replica_seconds: float
    timeline: tuple[tuple[float, int, int], ...]

    def wait_quantile(self, q: float) -> float | None:
        """None when no job arrived."""
        if not self.waits:
            return None
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


class _Kind(IntEnum):  # at equal times: capacity first, then work, then the policy's look
    DONE = 0
    READY = 1
    ARRIVAL = 2
    TURN = 3


def simulate(
    arrivals: Sequence[float], policy: Policy, setting: Setting, services: Sequence[float] | None = None
) -> Result:
    """Runs `arrivals` (Unix seconds, ascending) under `policy`. Jobs left at the end are still served.

    `services`: how long each job takes, where that is known; None: `setting.service_seconds` each.
    """
    fleet = _Fleet(setting)
    waits: list[float] = [0.0] * len(arrivals)
    waiting: deque[int] = deque()
    events: list[tuple[float, int, int]] = [(setting.start, _Kind.TURN, 0)]
    recent = deque(t for t in setting.before if t < setting.start)
    timeline: list[tuple[float, int, int]] = []
    following = 0
    while events or following < len(arrivals):
        if following < len(arrivals) and (not events or (arrivals[following], _Kind.ARRIVAL) < events[0][:2]):
            now, kind, item = arrivals[following], _Kind.ARRIVAL, following
            following += 1
        else:
            now, number, item = heapq.heappop(events)
            kind = _Kind(number)
        if kind is _Kind.ARRIVAL:
            waiting.append(item)
            recent.append(now)
        elif kind is _Kind.DONE:
            fleet.busy -= 1
        elif kind is _Kind.READY:
            fleet.ready(item)
        elif now < setting.end:
            while recent and recent[0] <= now - 60.0:
                recent.popleft()
            seen = Seen(now, len(recent) / 60.0, len(waiting) + fleet.busy, fleet.seen(now))
            for due, start_id in fleet.tell(policy(seen), now):
                heapq.heappush(events, (due, _Kind.READY, start_id))
            timeline.append((now, fleet.wanted, fleet.working))
            heapq.heappush(events, (now + setting.interval_seconds, _Kind.TURN, 0))
        while waiting and fleet.busy < fleet.working * setting.concurrency:
            job = waiting.popleft()
            waits[job] = now - arrivals[job]
            fleet.busy += 1
            heapq.heappush(events, (now + (services[job] if services else setting.service_seconds), _Kind.DONE, job))
        if waiting and not events:
            break  # nobody will ever work again: what waits has waited until the end
    for job in waiting:
        waits[job] = max(0.0, setting.end - arrivals[job])
    return Result(tuple(waits), fleet.paid(setting.end), tuple(timeline))


class _Fleet:
    """The replicas: working ones, starting ones by id, and what they cost so far."""

    def __init__(self, setting: Setting) -> None:
        self.wanted = setting.replicas
        self.working = setting.replicas
        self.busy = 0
        self._setting = setting
        self._starting: dict[int, float] = {}  # id -> asked at
        self._ids = 0
        self._bill: list[tuple[float, int]] = [(setting.start, setting.replicas)]

    def seen(self, now: float) -> Replicas:
        return Replicas(self.wanted, self.working, tuple(Pending(1, now - at) for at in self._starting.values()))

    def tell(self, number: int, now: float) -> list[tuple[float, int]]:
        """An absolute number. Returns when which new replicas will be ready."""
        added: list[tuple[float, int]] = []
        for _ in range(number - self.wanted):
            self._ids += 1
            self._starting[self._ids] = now
            added.append((now + self._setting.lead_time_seconds, self._ids))
        for _ in range(self.wanted - number):
            if self._starting:
                self._starting.popitem()  # the newest that is not working yet
            else:
                self.working -= 1  # finishes its jobs; takes no new ones
        if number != self.wanted:
            self._bill.append((now, number))
        self.wanted = number
        return added

    def ready(self, start_id: int) -> None:
        if self._starting.pop(start_id, None) is not None:
            self.working += 1

    def paid(self, end: float) -> float:
        """Replica-seconds from the start to `end`."""
        spans = zip(self._bill, [*self._bill[1:], (end, 0)], strict=True)
        return sum(max(0.0, min(until, end) - since) * count for (since, count), (until, _) in spans)
