"""What one replica does, learned from what is seen: seconds a piece of work, pieces at once, and whether more help.

One replica serves concurrency / service seconds a second. All three come from one law (Little's: work in hand = rate x
time), used in the direction that is safe at the moment:

- measured service time: total busy time over total work of the last hundred pieces, so a rare big job weighs what it
  weighs, and neither one odd value nor a quiet minute moves it far;
- concurrency: throughput x service time / replicas, while work waits. It can never come out above the true one, so more
  than was configured is believed soon, and less only after ten minutes;
- nothing measures service time: throughput / replicas while work waits is the capacity itself; while nothing waits,
  work in hand / throughput is the service time.

Bound by a dependency: work waits, there are more replicas than before, and throughput is as before.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

JOBS = 100.0  # pieces of work that a service time is taken from, the newest
KEPT_SECONDS = 3600.0  # … and how old they may be
SPACING_SECONDS = 60.0  # between two service times that are kept: each is a mean of five minutes
MOST_CHANGE = 4.0  # of one service time, relative to the one in force
STILL = 0.05  # a smaller difference changes nothing: the number of replicas must not follow noise
SETTLE_SECONDS = 180.0  # after a change of replicas: throughput is a rate over a minute, and is judged every two
SAMPLES = 40  # of capacity, the newest
FEWEST, FEWEST_DOWN = 5, 40  # before more, or less, than was configured is believed
WAITING = 2.0  # times what replicas have in hand: from then on work waits for sure

PERIOD_SECONDS = 120.0  # of which replicas and throughput are compared with those of earlier ones
PERIODS = 6  # not longer ago, for work changes
MORE = 1.25  # times the replicas: fewer more would drown in noise
GROWTH = 0.2  # of what as many more replicas should bring: with less they bring nothing
CHANCE = 3.0  # standard deviations of a minute's count: what is missing by less may be chance
LONG_SECONDS = 60.0  # what takes longer is not finished within the period in which a replica came
FELL = 0.8  # times the throughput of before: with less the work is another, and nothing can be compared
LIFTED = 1.2  # times the throughput when it was found to be bound
HOLD_SECONDS, MOST_HOLD_SECONDS = 600.0, 7200.0  # until more replicas are tried again: doubling
TRY = 1.5  # times the replicas
TRY_SECONDS = 600.0  # for them to start and to be judged
RENEWALS = 2  # without a try, while more than the bound are there: if the work has changed, only a try tells


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. None is unknown. `shared`: replicas do other work too, so throughput does not tell what they can."""

    at: float
    ready: int | None
    throughput: float | None = None  # items/s
    service_seconds: float | None = None  # measured mean
    backlog: float | None = None  # waiting or in hand; None for a service
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """A measured service time and the work it stands for."""

    at: float
    seconds: float
    jobs: float


@dataclass(frozen=True, slots=True)
class Period:
    """Two minutes: the least and the most replicas that worked, throughput, and whether work waited all the time.

    Throughput is the median of the second minute: a rate over a minute tells of the one before as well.
    """

    least: int
    most: int
    throughput: float
    waits: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """More than `replicas` bring no more than `throughput`. None: it is not known (after a restart). Until `until`.

    `tried`: half as many more are let go ahead, to see whether that still holds. `renewed`: how often it was not, since
    more than it were there anyway.
    """

    replicas: int
    throughput: float | None
    until: float
    tried: bool = False
    renewed: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """Of one demand. `service_seconds`, `concurrency`: in force; None: nothing learned, the configured ones count."""

    service_seconds: float | None = None
    concurrency: float | None = None
    bound: Bound | None = None
    served: tuple[Served, ...] = ()
    capacities: tuple[float, ...] = ()  # items/s a replica while work waited
    in_hand: tuple[tuple[float, float], ...] = ()  # (items, items/s) while none waited
    concurrencies: tuple[float, ...] = ()
    samples: tuple[tuple[float, int, float, bool], ...] = ()  # of the period under way: time, ready, items/s, waits
    periods: tuple[Period, ...] = ()  # oldest first
    hold_seconds: float = HOLD_SECONDS  # of the next bound
    ready: int | None = None
    steady_since: float = -math.inf
    fewer_since: float = -math.inf


def recalled(service_seconds: float | None, concurrency: float | None, bound: int | None, now: float) -> Learned:
    """What an earlier process had learned, as far as it was published; it counts until there is as much new."""
    return Learned(
        service_seconds,
        concurrency,
        None if bound is None else Bound(bound, None, now + HOLD_SECONDS),
        served=() if service_seconds is None else (Served(now, service_seconds, JOBS),),
    )


def learn(known: Learned, seen: Seen, concurrency: int) -> Learned:
    """`known` after one more look. `concurrency`: configured."""
    known = _timed(known, seen)
    if seen.ready is None:
        return known
    if seen.ready != known.ready:
        fewer_since = seen.at if known.ready is not None and seen.ready < known.ready else known.fewer_since
        known = replace(known, ready=seen.ready, steady_since=seen.at, fewer_since=fewer_since)
    if seen.shared or seen.throughput is None or seen.backlog is None or seen.ready < 1:
        return known
    in_hand = seen.ready * max(concurrency, known.concurrency or 0.0)
    waits = seen.backlog >= WAITING * in_hand
    known = _bound(_sampled(known, (seen.at, seen.ready, seen.throughput, waits)), seen.at)
    if seen.backlog <= in_hand:
        known = replace(known, bound=None, hold_seconds=HOLD_SECONDS)
    if known.bound is not None or seen.throughput <= 0:
        return known
    return _counted(known, seen, seen.ready, seen.throughput, seen.backlog, waits, concurrency)


def _timed(known: Learned, seen: Seen) -> Learned:
    """A measured service time counts by the work it stands for."""
    if seen.service_seconds is None:
        return known
    served = known.served
    if served and 0 <= seen.at - served[-1].at < SPACING_SECONDS:
        return known
    seconds = seen.service_seconds
    if known.service_seconds is not None:
        seconds = min(max(seconds, known.service_seconds / MOST_CHANGE), known.service_seconds * MOST_CHANGE)
    jobs = max(1.0, (seen.throughput or 0.0) * SPACING_SECONDS)
    # a clock that was set back leaves nothing of the future behind
    kept = [one for one in served if 0 <= seen.at - one.at <= KEPT_SECONDS]
    whole: list[Served] = []
    total = 0.0
    for one in [Served(seen.at, seconds, jobs), *reversed(kept)]:
        if total >= JOBS:
            break
        whole.append(one)
        total += one.jobs
    mean = sum(one.seconds * one.jobs for one in whole) / total
    return replace(known, served=tuple(reversed(whole)), service_seconds=_still(known.service_seconds, mean))


def _counted(
    known: Learned, seen: Seen, ready: int, throughput: float, backlog: float, waits: bool, concurrency: int
) -> Learned:
    """What throughput tells of capacity: all of it while work waits, the service time while none does."""
    # until it could be judged whether this many are bound, what they do may be what something behind them lets through
    settled = seen.at - known.steady_since >= SETTLE_SECONDS
    if seen.service_seconds is not None:
        at_once = throughput * seen.service_seconds / ready
        # it never comes out too high while replicas grow; while they shrink it would
        counts = settled or (at_once > concurrency and seen.at - known.fewer_since >= SETTLE_SECONDS)
        return _at_once(known, at_once, concurrency) if waits and counts else known
    if not settled:
        return known
    if waits:
        capacities = _last((*known.capacities, throughput / ready))
        known = replace(known, capacities=capacities)
        if len(capacities) < FEWEST:
            return known
        return _served_by(known, concurrency / statistics.median(capacities))
    if known.capacities or backlog > ready * concurrency:
        return known
    in_hand = (*known.in_hand, (backlog, throughput))[-SAMPLES:]
    known = replace(known, in_hand=in_hand)
    work = sum(items for items, _ in in_hand)
    if len(in_hand) < 2 * FEWEST or work <= 0:
        return known
    return _served_by(known, work / sum(rate for _, rate in in_hand))


def _at_once(known: Learned, at_once: float, concurrency: int) -> Learned:
    """Concurrency after one more sample of it."""
    found = _last((*known.concurrencies, at_once))
    known = replace(known, concurrencies=found)
    # a replica that works has a whole number of pieces in hand; less than one comes of something that keeps it waiting
    whole = max(1, round(statistics.median(found)))
    if len(found) < (FEWEST if whole > concurrency else FEWEST_DOWN):
        return known
    if abs(whole - concurrency) <= 0.1 * concurrency:
        return replace(known, concurrency=None) if known.concurrency is not None else known
    return replace(known, concurrency=_still(known.concurrency, float(whole)))


def _served_by(known: Learned, seconds: float) -> Learned:
    return replace(known, service_seconds=_still(known.service_seconds, seconds))


def _still(before: float | None, value: float) -> float:
    return before if before is not None and abs(value - before) <= STILL * before else value


def _last(samples: Sequence[float]) -> tuple[float, ...]:
    return tuple(samples[-SAMPLES:])


def _sampled(known: Learned, sample: tuple[float, int, float, bool]) -> Learned:
    """With one more sample, and one more period where it is whole. A gap, or a clock set back, begins anew."""
    at = sample[0]
    samples = known.samples
    if samples and not 0 <= at - samples[-1][0] <= PERIOD_SECONDS:
        return replace(known, samples=(sample,), periods=())
    if not samples or at - samples[0][0] < PERIOD_SECONDS:
        return replace(known, samples=(*samples, sample))
    period = Period(
        min(ready for _, ready, _, _ in samples),
        max(ready for _, ready, _, _ in samples),
        statistics.median(
            [rate for when, _, rate, _ in samples if when - samples[0][0] >= PERIOD_SECONDS / 2] or [0.0]
        ),
        all(waits for _, _, _, waits in samples),
    )
    return replace(known, samples=(sample,), periods=(*known.periods, period)[-PERIODS:])


def _bound(known: Learned, now: float) -> Learned:
    """The bound after one more look: found, held, lifted, or to be tried again."""
    bound, present = known.bound, known.periods[-1] if known.periods else None
    if bound is not None:
        if present and bound.throughput is not None and present.throughput > LIFTED * bound.throughput:
            return replace(known, bound=None, hold_seconds=HOLD_SECONDS)
        if not 0 < bound.until - now <= MOST_HOLD_SECONDS:  # it is over, or the clock was set back
            extra = present is not None and present.waits and present.least >= MORE * bound.replicas
            if extra and not bound.tried and bound.renewed < RENEWALS:
                # more than it are there all the time and bring nothing: they are the try
                return replace(
                    known,
                    bound=replace(bound, until=now + known.hold_seconds, renewed=bound.renewed + 1),
                    hold_seconds=min(2 * known.hold_seconds, MOST_HOLD_SECONDS),
                )
            again = None if bound.tried else _tried(bound, known.ready or 0, now)
            # what comes is compared with the present, not with what was known before
            return replace(known, bound=again, periods=known.periods[-1:])
        if not bound.tried:
            return known
    is_long = known.service_seconds is not None and known.service_seconds > LONG_SECONDS
    found = bound_of(known.periods[:-1], present) if present and not is_long else None
    if found is None or present is None:
        return known
    return replace(
        known,
        bound=Bound(found, present.throughput, now + known.hold_seconds),
        hold_seconds=min(2 * known.hold_seconds, MOST_HOLD_SECONDS),
        # what was counted while it was bound tells nothing of a replica
        capacities=(),
        concurrencies=(),
    )


def _tried(bound: Bound, ready: int, now: float) -> Bound:
    return replace(bound, replicas=math.ceil(TRY * max(bound.replicas, ready)), until=now + TRY_SECONDS, tried=True)


def bound_of(before: Sequence[Period], present: Period) -> int | None:
    """The fewest replicas that give the present throughput, where fewer gave nearly as much; None: more bring more.

    Work waits all the time at present. Before, it need not have: that fewer did so much is enough.
    """
    if not present.waits:
        return None
    found = []
    for one in before:
        if one.throughput <= 0 or one.most <= 0 or present.least < MORE * one.most:
            continue
        if present.throughput < FELL * one.throughput:
            continue
        hoped = 60.0 * one.throughput * present.least / one.most  # pieces in a minute
        if hoped - 60.0 * present.throughput < CHANCE * math.sqrt(hoped):
            continue
        if present.throughput / one.throughput - 1 < GROWTH * (present.least / one.most - 1):
            # as many as would have done, had each gone on to bring as much
            found.append(max(float(one.most), one.most * present.throughput / one.throughput))
    return math.ceil(min(found) - 1e-9) if found else None
