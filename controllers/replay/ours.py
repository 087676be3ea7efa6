"""Tidewise in the comparison: the live decide(), with the forecasts of the time, and its own memory. Pure.

It is asked once a minute, as long as nobody's clock is finer: in between it wants what it last wanted.
"""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from controllers.domain import Forecast, Mode, Pending, Reason, Replicas, Sample
from controllers.replay.foresee import Foreseen, Teller
from controllers.replay.protocol import EPSILON, WAIT_SECONDS, Ints, Setting
from controllers.scale.decide import decide
from controllers.scale.memory import Memory, decided
from controllers.scale.state import Decision, LeadTime, Rules, State

EVERY_SECONDS = 60.0
OBJECTIVES = (0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999)
QUEUE_OBJECTIVES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
# What it costs to be short, in idle replicas for the same time: price.per_short_hour over price.per_replica_hour.
SHORTAGES = (
    5.0,
    10.0,
    15.0,
    22.0,
    30.0,
    40.0,
    52.0,
    67.0,
    85.0,
    110.0,
    140.0,
    180.0,
    240.0,
    320.0,
    450.0,
    700.0,
    1500.0,
)
MOST = 100_000


@dataclass(frozen=True, slots=True)
class Played:
    """What it wanted at each tick, and how often it gave which reason."""

    desired: Ints
    reasons: dict[Reason, int]


def rules(setting: Setting, objective: float, *, is_queue: bool = False, every_seconds: float = EVERY_SECONDS) -> Rules:
    """A workload of the protocol: nothing bounds it but what it promises. One replica serves `capacity` a second."""
    return Rules(
        workload="replay",
        is_queue=is_queue,
        min_replicas=0,
        max_replicas=MOST,
        wait_seconds=WAIT_SECONDS,
        objective=objective,
        concurrency=1,
        service_seconds=1.0 / setting.capacity,
        lead_time_seconds=setting.lead_seconds,
        minimum_run_seconds=0.0,
        stabilization_window_seconds=0.0,
        up_per_minute=None,
        down_per_minute=None,
        interval_seconds=every_seconds / 2.0,  # of which a decision covers two
        data_age_limit_seconds=120.0,
        mode=Mode.ACT,
        price_per_replica_hour=setting.price_per_replica_hour,
    )


def tidewise(setting: Setting, found: Foreseen | None, wanted: Rules, every_seconds: float = EVERY_SECONDS) -> Played:
    """`found` None: without forecasts. For a queue what was not served waits, and decide() sees it."""
    teller = Teller(found, setting, every_seconds) if found is not None else None
    wanted = replace(wanted, service_seconds=wanted.concurrency / setting.capacity)
    lead = LeadTime(setting.lead_seconds, setting.lead_seconds)
    desired = np.empty(setting.ticks, dtype=np.int64)
    demand, times, ticks = setting.demand.tolist(), setting.times().tolist(), setting.tick_seconds
    every, lead_ticks = max(1, round(every_seconds / ticks)), setting.lead_ticks
    fleet = _Fleet(lead_ticks, ticks)
    memory, reasons, backlog, number = Memory(), dict[Reason, int](), 0.0, 0
    seen: Sample | None = None
    for tick, rate in enumerate(demand):
        fleet.pass_to(tick)
        if tick % every == 0:
            now = times[tick]
            if rate == rate:
                seen = Sample(rate, now)
            decision = _asked(now, seen, backlog, fleet, memory, teller.at(tick) if teller else None, lead, wanted)
            number = fleet.wanted if decision.desired is None else decision.desired
            for reason in decision.reasons:
                reasons[reason] = reasons.get(reason, 0) + 1
            memory = decided(memory, decision, number, wanted.stabilization_window_seconds)
            if tick == 0:
                fleet.begin(number)
            fleet.tell(number, tick)
        desired[tick] = number
        if wanted.is_queue and rate == rate:
            backlog = max(0.0, backlog + (rate - fleet.ready * setting.capacity * (1 + EPSILON)) * ticks)
    return Played(desired, reasons)


def _asked(
    now: float,
    seen: Sample | None,
    backlog: float,
    fleet: "_Fleet",
    memory: Memory,
    forecast: Forecast | None,
    lead: LeadTime,
    wanted: Rules,
) -> Decision:
    state = State(
        now=now,
        demand=seen,
        backlog=Sample(backlog, now) if wanted.is_queue else None,
        lead_time=lead,
        replicas=fleet.seen(),
        forecast=forecast,
        recommendations=memory.recommendations,
        answers=memory.answers,
        wanted=memory.wanted,
        known_since=memory.known_since,
    )
    return decide(state, wanted)


class _Fleet:
    """What serves and what starts; the newest go first."""

    def __init__(self, lead_ticks: int, tick_seconds: float) -> None:
        self.wanted = self.ready = 0
        self._lead, self._tick_seconds, self._tick = lead_ticks, tick_seconds, 0
        self._starting: deque[tuple[int, int]] = deque()  # (tick of the ask, count), oldest first

    def begin(self, number: int) -> None:
        self.wanted = self.ready = number

    def pass_to(self, tick: int) -> None:
        self._tick = tick
        while self._starting and self._starting[0][0] + self._lead <= tick:
            self.ready += self._starting.popleft()[1]

    def tell(self, number: int, tick: int) -> None:
        less = self.wanted - number
        if less < 0:
            self._starting.append((tick, -less))
        while less > 0 and self._starting:
            asked, count = self._starting.pop()
            taken = min(count, less)
            less -= taken
            if count > taken:
                self._starting.append((asked, count - taken))
        self.ready -= max(0, less)
        self.wanted = number

    def seen(self) -> Replicas:
        pending = tuple(Pending(count, (self._tick - asked) * self._tick_seconds) for asked, count in self._starting)
        return Replicas(self.wanted, self.ready, pending)
