"""How much capacity a load needs: the M/M/c waiting time and a fluid roll-forward of backlog. Pure arithmetic."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

NEVER = 1e-12  # a share so small is none, and spares a sum over all servers
GRID_POINTS = 24  # of a roll-forward; a window is short against the speed at which demand moves


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
        path = (rate,)
        return cls((0.0,), path, path)

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
    concurrency: float = 1

    @property
    def rate(self) -> float:
        """Work per second of one busy replica."""
        return self.concurrency / self.seconds

    def servers(self, replicas: int) -> int:
        return int(replicas * self.concurrency + 1e-9)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The service level: at least `objective` of the work waits at most `wait_seconds`; what is late already is drained
    over `drain_seconds`."""

    wait_seconds: float
    objective: float
    drain_seconds: float


def interpolate(t: float, times: Sequence[float], values: Sequence[float]) -> float:
    """Linear between the points, flat outside of them."""
    index = bisect_left(times, t)
    if index == 0:
        return values[0]
    if index == len(times):
        return values[-1]
    left, before = times[index - 1], values[index - 1]
    return before + (t - left) / (times[index] - left) * (values[index] - before)


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


def late_share(replicas: int, rate: float, service: Service, wait_seconds: float) -> float:
    """P(wait > wait_seconds) in an M/M/c queue at a constant rate; 1.0 where the load is not below the capacity.

    P(W > t) = C(c, a) exp(-(c - a) t / S) (Kleinrock, Queueing Systems I, 1975). Service times less random than
    exponential wait less, so the answer errs towards capacity.
    """
    if rate <= 0:
        return 0.0
    servers, offered = service.servers(replicas), rate * service.seconds
    if servers <= offered:
        return 1.0
    tail = math.exp(-(servers - offered) * wait_seconds / service.seconds)
    return probability_of_waiting(servers, offered) * tail if tail > NEVER else 0.0


def is_steady(replicas: int, rate: float, service: Service, wanted: Wanted) -> bool:
    """Whether P(wait > wait_seconds) <= 1 - objective in an M/M/c queue at a constant rate."""
    if rate <= 0:
        return True
    servers, offered = service.servers(replicas), rate * service.seconds
    if servers <= offered:
        return False
    tail = math.exp(-(servers - offered) * wanted.wait_seconds / service.seconds)
    allowed = 1.0 - wanted.objective
    return tail <= allowed or probability_of_waiting(servers, offered) * tail <= allowed


def backlog_after(backlog: float, until: float, load: Load, supply: Supply, service: Service) -> float:
    """Work waiting or in hand `until` seconds from now, if nothing is decided.

    Fluid: dB/dt = arrivals - capacity, B >= 0; exact, from one time at which either bends to the next.
    """
    if until <= 0:
        return backlog
    bends = [*load.times, *[due for due, _ in supply.arriving]]
    t, upper, rate = 0.0, load.upper_at(0.0), service.rate
    for then in [*sorted([bend for bend in bends if 0.0 < bend < until]), until]:
        capacity = (supply.at(t) if supply.arriving else supply.ready) * rate
        later = load.upper_at(then)
        first, last = upper - capacity, later - capacity
        if first < 0.0 < last:  # what is left falls, and from the middle on it grows
            share = first / (first - last)
            backlog = max(0.0, backlog + 0.5 * first * share * (then - t))
            backlog += 0.5 * last * (1.0 - share) * (then - t)
        else:  # it falls to the end, or grows first
            backlog = max(0.0, backlog + 0.5 * (first + last) * (then - t))
        t, upper = then, later
    return backlog


@dataclass(frozen=True, slots=True)
class Window:
    """What matters of a load over [start, end) for all numbers that are tried: the highest rates, the first one."""

    load: Load
    start: float
    end: float
    highest: float  # of the expected path
    highest_upper: float
    first_upper: float

    @classmethod
    def of(cls, load: Load, start: float, end: float) -> "Window":
        if len(load.times) == 1:
            return cls(load, start, end, load.middle[0], load.upper[0], load.upper[0])
        half = (end - start) / GRID_POINTS / 2.0
        begin, last = start + half, end - half  # the middle of the grid's first and last step
        inner = slice(bisect_right(load.times, begin), bisect_left(load.times, last))
        first_upper = load.upper_at(begin)
        highest_upper = max(first_upper, load.upper_at(last), *load.upper[inner])
        highest = max(load.middle_at(begin), load.middle_at(last), *load.middle[inner])
        return cls(load, start, end, highest, highest_upper, first_upper)


def is_enough(replicas: int, backlog: float, window: Window, service: Service, wanted: Wanted) -> bool:
    """Whether `replicas`, working from the window's start, keep the service level for everything that arrives in it.

    They serve the upper path's rate, for above it the wait grows until more replicas come, a lead time later; they are
    steady at the highest expected rate; what is late at the start is gone after drain_seconds; and on the way there
    less of it is left with every second, while no other arrival finds more work before it than they serve in time.
    """
    capacity = replicas * service.rate
    if capacity < window.highest_upper or not is_steady(replicas, window.highest, service, wanted):
        return False
    on_time = capacity * wanted.wait_seconds + replicas * service.concurrency  # work in hand is not waiting
    late = backlog - on_time
    if late <= 0:
        return True  # capacity is above the upper path, so the backlog only falls
    if late > (capacity - window.first_upper) * wanted.drain_seconds:
        return False
    still_late = late / max(wanted.drain_seconds, window.end - window.start)
    if capacity - window.highest_upper >= still_late:
        return True
    step = (window.end - window.start) / GRID_POINTS
    allowed = backlog
    for index in range(GRID_POINTS):
        backlog = max(0.0, backlog + (window.load.upper_at(window.start + (index + 0.5) * step) - capacity) * step)
        if backlog > allowed:
            return False
        allowed -= still_late * step
    return True


def smallest(most: int, backlog: float, start: float, end: float, load: Load, service: Service, wanted: Wanted) -> int:
    """The fewest replicas that are enough; `most + 1` where even `most` are not. More are never worse, so it looks
    around the number that the rate and the late work ask for."""
    window = Window.of(load, start, end)
    rate = service.rate
    on_time = rate * wanted.wait_seconds + service.concurrency  # of one replica
    drained = (backlog + window.first_upper * wanted.drain_seconds) / (on_time + rate * wanted.drain_seconds)
    guess = min(most + 1, math.ceil(max(window.highest_upper / rate, min(drained, backlog / on_time)) - 1e-9))

    def enough(replicas: int) -> bool:
        return replicas > most or is_enough(replicas, backlog, window, service, wanted)

    if enough(guess):
        while guess > 0 and enough(guess - 1):
            guess -= 1
        return guess
    low, stride = guess, 1  # not enough
    while not enough(low + stride):
        low, stride = low + stride, 2 * stride
    high = low + stride
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return min(high, most + 1)
