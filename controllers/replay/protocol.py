"""The protocol by which policies are compared: one demand, one fleet, one bill for all of them. Pure arithmetic.

    trace ─▶ scored() ─▶ Setting ─┬─▶ policy ─▶ desired, a number a tick ─▶ play() ─▶ Result ─▶ score()
                                  └─▶ oracle()

A tick is 15 s. Demand is constant within a step of the trace. One replica serves the 99.9th percentile of the scored
demand over 20, or what is given. The last quarter of the trace (10 days at most) is scored, all before is history.

A replica is paid from the tick that asks for it, and serves from the first tick that is a lead time later. Scale-in
takes effect at once, and takes the newest first: what still starts goes before what serves. At the first tick a policy
finds what it then wants already serving. There is no queue: what is not served in its tick is lost. Where demand is
unknown nothing is scored, neither capacity nor money.

At a tick a policy knows the history, every step of the scored demand that has ended, and the present step's value, from
its first tick on: demand is a rate that is measured live and without delay. It knows nothing of what comes after.

The queue protocol beside it keeps what was not served: work waits in order, as a fluid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TICK_SECONDS = 15.0
PEAK_PERCENTILE = 99.9
PEAK_REPLICAS = 20.0
SCORED_SHARE = 0.25
SCORED_DAYS = 10.0
DAY_SECONDS = 86_400.0
WAIT_SECONDS = 60.0  # of the queue protocol
LEVELS = (0.01, 0.02, 0.05)  # of under-provisioning, at which costs are compared
EPSILON = 1e-9  # relative: a demand of exactly n replicas is served by n


class Trace(Protocol):
    """Demand on a grid: `values[i]` within [begin + i * step_seconds, … + step_seconds); NaN: unknown."""

    @property
    def begin(self) -> float: ...
    @property
    def step_seconds(self) -> float: ...
    @property
    def values(self) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Demand:
    """The plainest Trace."""

    begin: float
    step_seconds: float
    values: Floats


class ProtocolError(Exception):
    """A trace that cannot be scored: what was found."""


@dataclass(frozen=True, slots=True, eq=False)  # known by itself, so that what is learned from it can be kept
class Setting:
    """What is the same for all policies.

    `history` (steps): demand before `begin`, the Unix seconds of the first tick. `steps` (steps): the scored demand.
    `step_of` (ticks): the place in `steps`. `demand` (ticks): in the trace's unit, NaN where unknown. `need` (ticks):
    whole replicas that serve it, 0 where unknown. `capacity`: of one replica, in the trace's unit.
    """

    begin: float
    step_seconds: float
    history: Floats
    steps: Floats
    step_of: Ints
    demand: Floats
    need: Ints
    capacity: float
    lead_seconds: float
    tick_seconds: float = TICK_SECONDS
    price_per_replica_hour: float = 1.0

    @property
    def ticks(self) -> int:
        return len(self.demand)

    @property
    def lead_ticks(self) -> int:
        """From the asking tick to the first that is served."""
        return ticks_in(self.lead_seconds, self.tick_seconds)

    @property
    def known(self) -> Bools:
        return np.isfinite(self.demand)

    def ticks_of(self, seconds: float) -> int:
        """How many ticks begin within so long."""
        return ticks_in(seconds, self.tick_seconds)

    def times(self) -> Floats:
        """Unix seconds of the ticks."""
        return self.begin + np.arange(self.ticks, dtype=np.float64) * self.tick_seconds

    def changes(self) -> Ints:
        """The ticks at which a step begins: between them a policy sees nothing new."""
        found: Ints = np.flatnonzero(np.diff(self.step_of, prepend=-1))
        return found


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a policy, a number a tick. `paid` holds what serves and what starts."""

    setting: Setting
    desired: Ints
    ready: Ints
    paid: Ints


Policy = Callable[[Setting], Ints]


def scored(
    trace: Trace,
    lead_seconds: float,
    *,
    capacity: float | None = None,
    share: float = SCORED_SHARE,
    days: float = SCORED_DAYS,
    tick_seconds: float = TICK_SECONDS,
    price_per_replica_hour: float = 1.0,
) -> Setting:
    """The part of a trace that is scored, and what one replica serves. Raises ProtocolError."""
    values, step = np.asarray(trace.values, dtype=np.float64), float(trace.step_seconds)
    count = min(int(share * len(values)), int(days * DAY_SECONDS / step))
    steps = values[len(values) - count :]
    if not np.isfinite(steps).any():
        raise ProtocolError(f"found no known demand in the {count} steps to be scored, of {len(values)}")
    if capacity is None:
        capacity = float(np.nanpercentile(steps, PEAK_PERCENTILE)) / PEAK_REPLICAS
    if not capacity > 0:
        raise ProtocolError(f"found a capacity of {capacity:g} a replica; without demand there is nothing to compare")
    ticks = int(count * step / tick_seconds + EPSILON)
    step_of = np.minimum((np.arange(ticks) * tick_seconds / step + EPSILON).astype(np.int64), count - 1)
    demand = steps[step_of]
    return Setting(
        trace.begin + (len(values) - count) * step,
        step,
        values[: len(values) - count],
        steps,
        step_of,
        demand,
        replicas_for(demand, capacity),
        capacity,
        lead_seconds,
        tick_seconds,
        price_per_replica_hour,
    )


def play(policy: Policy | Ints | Floats, setting: Setting) -> Result:
    """Carries out a policy, or what it wanted (ticks): a new replica serves after the lead time, the newest go first.

    So position i of the fleet serves where at least i were wanted without a break since a lead time ago: what serves is
    the lowest number that was wanted since then.
    """
    wanted = policy(setting) if callable(policy) else policy
    desired = np.maximum(np.asarray(wanted).astype(np.int64), 0)
    if desired.shape != (setting.ticks,):
        raise ValueError(f"a policy wants {desired.shape}, a number a tick is ({setting.ticks},)")
    return Result(setting, desired, lowest(desired, setting.lead_ticks), desired)


def oracle(setting: Setting) -> Ints:
    """The least that never falls short: at each tick what any tick from it to a lead time later needs."""
    return highest_ahead(setting.need, setting.lead_ticks)


def score(result: Result, oracle_hours: float | None = None) -> dict[str, float]:
    """All figures of one run: shares as ratios, times in the unit of their name. See `service_score`, `queue_score`."""
    setting = result.setting
    hours = replica_hours(oracle(setting), setting) if oracle_hours is None else oracle_hours
    return {**service_score(result, hours), **queue_score(result)}


def service_score(result: Result, oracle_hours: float) -> dict[str, float]:
    """Without a queue.

    `under`: the share of ticks with demand above what serves. `theta_u`, `theta_o`: mean of max(need - ready, 0) and of
    max(ready - need, 0) over the need, in whole replicas (over 1 where none is needed). `tau_u`, `tau_o`: the shares of
    time of both. `instability`: the share of the trace's steps from which need and supply move in opposite directions.
    Herbst, Kounev, Reussner, "Elasticity in cloud computing: what it is, and what it is not", ICAC 2013, and Bauer et
    al., "Chameleon", TPDS 2019. `reversals`: changes of direction of what is wanted.
    """
    setting, known = result.setting, result.setting.known
    need, ready, paid = setting.need[known], result.ready[known], result.paid[known]
    served = ready * setting.capacity
    demand = setting.demand[known]
    least = np.maximum(need, 1)
    missing = np.maximum(demand - served * (1 + EPSILON), 0.0)
    hours = replica_hours(result.paid, setting)
    moves = np.diff(result.desired)
    turns = np.sign(moves[moves != 0])
    at = setting.changes()
    drift = np.sign(np.diff(setting.need[at])) * np.sign(np.diff(result.ready[at]))
    total = float(demand.sum())
    return {
        "money": hours * setting.price_per_replica_hour,
        "replica_hours": hours,
        "cost_to_oracle": hours / oracle_hours if oracle_hours > 0 else float("nan"),
        "under": float((need > ready).mean()),
        "slo_minutes": float((need > ready).sum()) * setting.tick_seconds / 60.0,
        "unserved": float(missing.sum()) / total if total > 0 else 0.0,
        "theta_u": float((np.maximum(need - ready, 0) / least).mean()),
        "theta_o": float((np.maximum(ready - need, 0) / least).mean()),
        "tau_u": float((need > ready).mean()),
        "tau_o": float((ready > need).mean()),
        "instability": float((drift < 0).mean()) if len(drift) else 0.0,
        "actions": float((moves != 0).sum()),
        "reversals": float((np.diff(turns) != 0).sum()),
        "mean_paid": float(paid.mean()),
    }


def queue_score(result: Result, wait_seconds: float = WAIT_SECONDS) -> dict[str, float]:
    """With a queue: what is not served waits, and what comes waits for all that is there before it.

    `late`: the share of the work that waits longer than `wait_seconds`; `wait_p95`: in seconds, of the work;
    `left`: of the work, the share that waits at the end.
    """
    setting = result.setting
    arriving = np.nan_to_num(setting.demand)
    serving = result.ready.astype(np.float64) * setting.capacity
    waits, backlog = waiting(arriving, serving, setting.tick_seconds)
    total = float(arriving.sum())
    if total <= 0:
        return {"late": 0.0, "wait_p95": 0.0, "left": 0.0}
    order = np.argsort(waits, kind="stable")
    reached = np.cumsum(arriving[order]) / total
    return {
        "late": float(arriving[waits > wait_seconds * (1 + EPSILON)].sum()) / total,
        "wait_p95": float(waits[order[min(int(np.searchsorted(reached, 0.95)), len(order) - 1)]]),
        "left": float(backlog[-1]) / (total * setting.tick_seconds),
    }


def waiting(arriving: Floats, serving: Floats, tick_seconds: float) -> tuple[Floats, Floats]:
    """Seconds that the work of each tick waits, and what waits at its end (rate x seconds); a fluid, in order.

    Both rates are those of the tick. The wait is that of the tick's last work: what waits then over the present
    capacity; infinite where work waits and nothing serves.
    """
    moved = np.cumsum((arriving - serving) * tick_seconds)
    backlog = moved - np.minimum(np.minimum.accumulate(moved), 0.0)
    backlog[backlog < EPSILON * max(1.0, float(np.abs(moved).max(initial=0.0)))] = 0.0
    waits = np.divide(backlog, serving, out=np.full(len(backlog), np.inf), where=serving > 0)
    waits[backlog == 0.0] = 0.0
    return waits, backlog


def replica_hours(paid: Ints, setting: Setting) -> float:
    """Paid while demand is known."""
    return float(paid[setting.known].sum()) * setting.tick_seconds / 3600.0


def replicas_for(demand: Floats, capacity: float) -> Ints:
    """Whole replicas; 0 where unknown."""
    needed = np.ceil(np.nan_to_num(demand) / capacity * (1 - EPSILON))
    found: Ints = np.maximum(needed, 0).astype(np.int64)
    return found


def ticks_in(seconds: float, tick_seconds: float = TICK_SECONDS) -> int:
    return int(np.ceil(seconds / tick_seconds - EPSILON))


def lowest(values: Ints, behind: int) -> Ints:
    """At each place the lowest of it and the `behind` before it; what lay before the first was as the first."""
    return -highest(-values, behind)


def highest(values: Ints, behind: int) -> Ints:
    """At each place the highest of it and the `behind` before it. In log(behind) passes: a window is two halves."""
    if not len(values):
        return values.copy()
    found, width = values.copy(), 1
    while width < behind + 1:
        shift = min(width, behind + 1 - width)
        earlier = np.concatenate((np.full(min(shift, len(found)), found[0]), found[:-shift]))
        found = np.maximum(found, earlier)
        width += shift
    return found


def highest_ahead(values: Ints, ahead: int) -> Ints:
    """At each place the highest of it and the `ahead` after it."""
    return highest(np.concatenate((values, np.zeros(ahead, dtype=values.dtype)))[::-1], ahead)[::-1][: len(values)]


@dataclass(frozen=True, slots=True)
class Point:
    """One knob of one policy: what it cost and how often it fell short, in whichever measures."""

    knob: str
    cost: float
    violation: float


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both, by rising cost and falling violation."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, p.violation)):
        if not best or point.violation < best[-1].violation:
            best.append(point)
    return best


def cheapest(points: Sequence[Point], limit: float) -> Point | None:
    """The cheapest that falls short at most so often; None: none does."""
    return min((p for p in points if p.violation <= limit), key=lambda p: p.cost, default=None)


def cost_at(points: Sequence[Point], limit: float) -> float | None:
    """The front's cost at a violation of `limit`, linear between its points; None where no knob gets there."""
    ahead = front(points)
    for left, right in zip([None, *ahead], ahead, strict=False):
        if right.violation <= limit:
            if left is None:
                return right.cost
            part = (left.violation - limit) / (left.violation - right.violation)
            return left.cost + part * (right.cost - left.cost)
    return None


def compared(
    policies: Mapping[str, Sequence[Point]], limits: Sequence[float] = LEVELS
) -> dict[str, list[float | None]]:
    """Each policy's cost at each of the limits, by its cheapest knob."""
    found = {name: [cheapest(points, limit) for limit in limits] for name, points in policies.items()}
    return {name: [None if p is None else p.cost for p in each] for name, each in found.items()}
