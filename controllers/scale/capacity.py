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
SETTLE_SECONDS = 75.0  # after a change of replicas: throughput is a rate over a minute
SAMPLES = 40  # of capacity, the newest
FEWEST, FEWEST_DOWN = 5, 40  # before more, or less, than was configured is believed
WAITING = 2.0  # times what replicas have in hand: from then on work waits for sure

WINDOW_SECONDS = 300.0  # of throughput at one number of replicas
LEVEL_SECONDS = 120.0  # of it that are needed
LEVELS = 12
LEVEL_KEPT_SECONDS = 1800.0
GROWTH = 0.2  # of what as many more replicas should bring: with less they bring nothing
LIFTED = 1.2  # times the throughput when it was found to be bound
HOLD_SECONDS, MOST_HOLD_SECONDS = 600.0, 7200.0  # until more replicas are tried again: doubling


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
class Level:
    """Throughput while so many replicas worked: (time, items/s, whether work waited), oldest first."""

    replicas: int
    samples: tuple[tuple[float, float, bool], ...]

    @property
    def seconds(self) -> float:
        return self.samples[-1][0] - self.samples[0][0]

    @property
    def throughput(self) -> float:
        return statistics.median([rate for _, rate, _ in self.samples])


@dataclass(frozen=True, slots=True)
class Bound:
    """More than `replicas` bring no more than `throughput`. None: it is not known (after a restart). Until `until`."""

    replicas: int
    throughput: float | None
    until: float


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
    levels: tuple[Level, ...] = ()
    hold_seconds: float = HOLD_SECONDS  # of the next bound
    ready: int | None = None
    steady_since: float = -math.inf


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
        known = replace(known, ready=seen.ready, steady_since=seen.at)
    if seen.shared or seen.throughput is None or seen.backlog is None or seen.ready < 1:
        return known
    settled = seen.at - known.steady_since >= SETTLE_SECONDS
    in_hand = seen.ready * max(concurrency, known.concurrency or 0.0)
    waits = seen.backlog >= WAITING * in_hand
    if settled:
        known = replace(known, levels=_levels(known.levels, seen.ready, seen.at, seen.throughput, waits))
    known = _bound(known, seen.at, seen.ready, clear=seen.backlog <= in_hand)
    if not settled or known.bound is not None:
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
    if throughput <= 0:
        return known
    if seen.service_seconds is not None:
        if not waits:
            return known
        found = _last((*known.concurrencies, throughput * (known.service_seconds or seen.service_seconds) / ready))
        high = sorted(found)[int(0.75 * (len(found) - 1))]
        believed = len(found) >= (FEWEST if high > concurrency else FEWEST_DOWN)
        if not believed or abs(high - concurrency) <= 0.1 * concurrency:
            return replace(known, concurrencies=found)
        return replace(known, concurrencies=found, concurrency=_still(known.concurrency, high))
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


def _served_by(known: Learned, seconds: float) -> Learned:
    return replace(known, service_seconds=_still(known.service_seconds, seconds))


def _still(before: float | None, value: float) -> float:
    return before if before is not None and abs(value - before) <= STILL * before else value


def _last(samples: Sequence[float]) -> tuple[float, ...]:
    return tuple(samples[-SAMPLES:])


def _levels(levels: Sequence[Level], ready: int, at: float, throughput: float, waits: bool) -> tuple[Level, ...]:
    """With one more sample of the present number of replicas, which comes last."""
    before = next((level.samples for level in levels if level.replicas == ready), ())
    samples = tuple(one for one in before if 0 <= at - one[0] <= WINDOW_SECONDS)
    others = [
        level for level in levels if level.replicas != ready and 0 <= at - level.samples[-1][0] <= LEVEL_KEPT_SECONDS
    ]
    return (*others[-LEVELS + 1 :], Level(ready, (*samples, (at, throughput, waits))))


def _bound(known: Learned, now: float, ready: int, *, clear: bool) -> Learned:
    """The bound after one more look: found, held, lifted, or to be tried again."""
    if clear:
        return replace(known, bound=None, hold_seconds=HOLD_SECONDS)
    bound = known.bound
    present = known.levels[-1] if known.levels and known.levels[-1].replicas == ready else None
    if bound is not None:
        rose = (
            present is not None
            and bound.throughput is not None
            and len(present.samples) >= FEWEST
            and statistics.median([rate for _, rate, _ in present.samples[-FEWEST:]]) > LIFTED * bound.throughput
        )
        if rose:
            return replace(known, bound=None, hold_seconds=HOLD_SECONDS)
        return replace(known, bound=None) if now >= bound.until else known
    if present is None or present.samples[-1][0] != now:
        return known
    found = bound_of(known.levels[:-1], present)
    if found is None:
        return known
    return replace(
        known,
        bound=Bound(found, present.throughput, now + known.hold_seconds),
        hold_seconds=min(2 * known.hold_seconds, MOST_HOLD_SECONDS),
        # what was counted while it was bound tells nothing of a replica
        capacities=(),
        concurrencies=(),
    )


def bound_of(before: Sequence[Level], present: Level) -> int | None:
    """The fewest replicas that give the present throughput, where fewer gave nearly as much; None: more bring more.

    Work waited all the time at the present number. At a smaller one it need not: that it did so much is enough.
    """
    if present.seconds < LEVEL_SECONDS or not all(waits for _, _, waits in present.samples):
        return None
    now = present.throughput
    found = []
    for level in before:
        if level.replicas >= present.replicas or level.seconds < LEVEL_SECONDS / 2 or level.throughput <= 0:
            continue
        if now / level.throughput - 1 < GROWTH * (present.replicas / level.replicas - 1):
            # as many as would have done, had each gone on to bring as much
            enough = math.ceil(level.replicas * now / level.throughput - 1e-9)
            found.append(max(level.replicas, enough))
    fewest = min(found, default=present.replicas)
    return fewest if fewest < present.replicas else None
