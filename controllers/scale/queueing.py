"""How much capacity a load needs: the M/M/c waiting time and a fluid roll-forward of backlog. Pure arithmetic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

GRID_POINTS = 24  # of a roll-forward; a window is short against the speed at which demand moves
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Load:
    """Work arriving from now on, per second, as two piecewise linear paths over `times` (seconds from now, ascending).

    `middle` is what is expected; `upper` is the rate whose integral is the wanted quantile of the cumulative arrivals.
    Before the first and after the last time the path is flat.
    """

    times: tuple[float, ...]
    middle: tuple[float, ...]
    upper: tuple[float, ...]

    @classmethod
    def steady(cls, rate: float) -> "Load":
        return cls((0.0,), (rate,), (rate,))

    def middle_at(self, t: float) -> float:
        return interpolate(t, self.times, self.middle)

    def upper_at(self, t: float) -> float:
        return interpolate(t, self.times, self.upper)


@dataclass(frozen=True, slots=True)
class Supply:
    """Replicas that will be there if nothing is decided: `ready` now, and (seconds from now, count) still starting."""

    ready: int
    arriving: tuple[tuple[float, int], ...] = ()

    def at(self, t: float) -> int:
        return self.ready + sum(count for due, count in self.arriving if due <= t)


@dataclass(frozen=True, slots=True)
class Service:
    """What one replica does: `concurrency` pieces of work at once, each of `seconds` on average."""

    seconds: float
    concurrency: int = 1

    @property
    def rate(self) -> float:
        """Work per second of one busy replica."""
        return self.concurrency / self.seconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """The service level: at least `objective` of the work waits at most `wait_seconds`; what is late already is drained
    over `drain_seconds`."""

    wait_seconds: float
    objective: float
    drain_seconds: float


def interpolate(t: float, times: Sequence[float], values: Sequence[float]) -> float:
    """Linear between the points, flat outside of them."""
    if t <= times[0]:
        return values[0]
    for index in range(1, len(times)):
        if t <= times[index]:
            left, right = times[index - 1], times[index]
            share = (t - left) / (right - left) if right > left else 1.0
            return values[index - 1] + share * (values[index] - values[index - 1])
    return values[-1]


def at_quantile(table: Mapping[float, float], q: float) -> float | None:
    """The table's value at quantile `q`: linear in the normal deviate between its entries, never beyond the outer ones.

    None for an empty table.
    """
    if not table:
        return None
    if q in table:
        return table[q]
    known = sorted(table)
    if q <= known[0]:
        return table[known[0]]
    if q >= known[-1]:
        return table[known[-1]]
    return interpolate(_NORMAL.inv_cdf(q), [_NORMAL.inv_cdf(k) for k in known], [table[k] for k in known])


def probability_of_waiting(servers: int, offered: float) -> float:
    """Erlang C: the share of arrivals that find all `servers` busy, at a load in erlangs (rate x service time).

    1.0 where the load is not below the servers. By the stable recursion of Erlang B,
    1/B(n) = 1 + n/a x 1/B(n-1), and C = B / (1 - rho (1 - B)).
    """
    if offered <= 0:
        return 0.0
    if servers <= offered:
        return 1.0
    inverse = 1.0
    for n in range(1, servers + 1):
        inverse = 1.0 + inverse * n / offered
        if inverse > 1e300:
            return 0.0
    blocked = 1.0 / inverse
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


def is_steady(replicas: int, rate: float, service: Service, wanted: Wanted) -> bool:
    """Whether P(wait > wait_seconds) <= 1 - objective in an M/M/c queue at a constant rate.

    P(W > t) = C(c, a) exp(-(c - a) t / S) (Kleinrock, Queueing Systems I, 1975). Service times less random than
    exponential wait less, so the answer errs towards capacity.
    """
    if rate <= 0:
        return True
    servers, offered = replicas * service.concurrency, rate * service.seconds
    if servers <= offered:
        return False
    tail = math.exp(-(servers - offered) * wanted.wait_seconds / service.seconds)
    allowed = 1.0 - wanted.objective
    return tail <= allowed or probability_of_waiting(servers, offered) * tail <= allowed


def backlog_after(backlog: float, until: float, load: Load, supply: Supply, service: Service) -> float:
    """Work waiting or in hand `until` seconds from now, if nothing is decided.

    Fluid: dB/dt = arrivals - capacity, B >= 0.
    """
    if until <= 0:
        return backlog
    step = until / GRID_POINTS
    for index in range(GRID_POINTS):
        t = (index + 0.5) * step
        backlog = max(0.0, backlog + (load.upper_at(t) - supply.at(t) * service.rate) * step)
    return backlog


@dataclass(frozen=True, slots=True)
class Window:
    """A load over [start, end), sampled once for all numbers that are tried: `uppers` in the middle of each step."""

    step: float
    highest: float  # of the expected rate
    uppers: tuple[float, ...]

    @classmethod
    def of(cls, load: Load, start: float, end: float) -> "Window":
        step = (end - start) / GRID_POINTS
        times = [start + (index + 0.5) * step for index in range(GRID_POINTS)]
        return cls(step, max(load.middle_at(t) for t in times), tuple(load.upper_at(t) for t in times))


def is_enough(replicas: int, backlog: float, window: Window, service: Service, wanted: Wanted) -> bool:
    """Whether `replicas`, working from the window's start, keep the service level for everything that arrives in it.

    They are steady at the highest expected rate; they serve the upper path's rate, for above it the wait grows until
    more replicas come, a lead time later; at the upper path no arrival finds more work before it than they serve within
    wait_seconds; and what is late at the start is gone after drain_seconds.
    """
    if not is_steady(replicas, window.highest, service, wanted):
        return False
    capacity = replicas * service.rate
    if capacity < max(window.uppers):
        return False
    on_time = capacity * wanted.wait_seconds + replicas * service.concurrency  # work in hand is not waiting
    late = max(0.0, backlog - on_time)
    if late > 0 and late > (capacity - window.uppers[0]) * wanted.drain_seconds:
        return False
    still_late = late / max(wanted.drain_seconds, window.step * len(window.uppers))  # less of it with every second
    allowed = on_time + late
    for upper in window.uppers:
        backlog = max(0.0, backlog + (upper - capacity) * window.step)
        if backlog > allowed:
            return False
        allowed -= still_late * window.step
    return True


def smallest(most: int, backlog: float, start: float, end: float, load: Load, service: Service, wanted: Wanted) -> int:
    """The fewest replicas that are enough; `most + 1` where even `most` are not. More are never worse: it bisects."""
    window = Window.of(load, start, end)
    low, high = 0, most + 1
    while low < high:
        middle = (low + high) // 2
        if is_enough(middle, backlog, window, service, wanted):
            high = middle
        else:
            low = middle + 1
    return low
