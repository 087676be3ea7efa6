"""What others do about present demand: the HorizontalPodAutoscaler, KEDA, Knative. Pure.

Each takes the setting and its knobs, and returns what it wants at each tick. `target`: the utilisation aimed at.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from controllers.replay.protocol import Floats, Ints, Setting

MOST = 10_000_000
TOLERANCE = 0.1
DOWN_WINDOW_SECONDS = 300.0
UP_PODS, UP_RATIO = 4, 2.0  # a sync: 4 pods or 100 %, whichever is more
POLL_SECONDS, COOLDOWN_SECONDS = 30.0, 300.0
STABLE_SECONDS, PANIC_RATIO = 60.0, 2.0
UP_RATE, DOWN_RATE = 1000.0, 2.0
ZERO_GRACE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How an HPA moves. `zero_after`: to none when there was no demand for so many ticks (KEDA); None: never."""

    tolerance: float = TOLERANCE
    down_ticks: int = 20
    least: int = 1
    zero_after: int | None = None
    poll_ticks: int = 2  # between two looks whether there is anything to do, while there are no replicas


def hpa(setting: Setting, target: float, down_window_seconds: float = DOWN_WINDOW_SECONDS) -> Ints:
    """The HPA on an external metric per pod, synced every tick (15 s).

    ceil(metric / target) where the ratio to what there is is off by more than 10 %; up by at most 100 % or 4 pods a
    sync, down to the highest recommendation of the window. Without a metric it stays as it is. Kubernetes, "Horizontal
    Pod Autoscaling", "Algorithm details" and "Default behavior".
    """
    return follow(load(setting, target), Behaviour(down_ticks=setting.ticks_of(down_window_seconds)))


def keda(setting: Setting, target: float, cooldown_seconds: float = COOLDOWN_SECONDS) -> Ints:
    """KEDA's HPA, and none where there was no demand for the cooldown; from none to one at the next poll (30 s).

    KEDA, "ScaledObject specification": pollingInterval, cooldownPeriod, minReplicaCount 0.
    """
    behaviour = Behaviour(
        down_ticks=setting.ticks_of(DOWN_WINDOW_SECONDS),
        zero_after=setting.ticks_of(cooldown_seconds),
        poll_ticks=setting.ticks_of(POLL_SECONDS),
    )
    return follow(load(setting, target), behaviour)


def load(setting: Setting, target: float) -> Floats:
    """Demand in replicas at `target`, a number a tick; NaN: unknown."""
    found: Floats = setting.demand / (setting.capacity * target)
    return found


def follow(loads: Floats, behaviour: Behaviour, floor: Ints | None = None) -> Ints:
    """The HPA's steps on a load in replicas (ticks). `floor` (ticks): another metric's answer; the higher counts."""
    floors = floor.tolist() if floor is not None else [0] * len(loads)
    begin = loads[0] if len(loads) and math.isfinite(loads[0]) else 0.0
    current = max(math.ceil(begin - 1e-9), behaviour.least, floors[0] if floors else 0)
    if behaviour.zero_after is not None and begin == 0 and floors[0] == 0:
        current = 0
    wanted: list[int] = []
    highest: deque[tuple[int, int]] = deque()  # (tick, recommendation), falling
    low, high, window = 1.0 - behaviour.tolerance, 1.0 + behaviour.tolerance, behaviour.down_ticks
    least, active_at = behaviour.least, -1
    steady = None  # the inputs under which nothing moves any more
    for tick, (now, other) in enumerate(zip(loads.tolist(), floors, strict=True)):
        if (now, other) == steady:
            active_at = tick
            highest[-1] = (tick, current)
            wanted.append(current)
            continue
        steady = None
        if now > 0 or other > 0:
            active_at = tick
        if current == 0 and behaviour.zero_after is not None:  # asleep: only a poll wakes it
            if active_at == tick and tick % behaviour.poll_ticks == 0:
                current = max(least, 1)
                highest.clear()
            wanted.append(current)
            continue
        close = now != now or low - 1e-9 <= now / current <= high + 1e-9  # unknown: as it is
        recommended = max(current if close else math.ceil(now - 1e-9), least, other)
        while highest and highest[-1][1] <= recommended:
            highest.pop()
        highest.append((tick, recommended))
        while highest[0][0] < tick - window:
            highest.popleft()
        if recommended > current:
            current = min(recommended, max(math.floor(current * UP_RATIO), current + UP_PODS))
        elif recommended < current:
            current = min(current, highest[0][1])
        elif now > 0:
            steady = (now, other)
        if behaviour.zero_after is not None and now == now and tick - active_at >= behaviour.zero_after:
            current = 0
        wanted.append(current)
    return np.array(wanted, dtype=np.int64)


def knative(setting: Setting, target: float) -> Ints:
    """Knative's pod autoscaler: the mean of 60 s, and of 6 s (here the present tick) in a panic.

    A panic begins when the short mean needs twice what is ready, lasts until 60 s after the last such moment, and never
    scales in. Otherwise at most to half of what is ready in one step. To none 30 s after a minute without demand.
    Knative Serving, "Autoscaling" and pkg/autoscaler/scaling/autoscaler.go.
    """
    loads = load(setting, target)
    stable = setting.ticks_of(STABLE_SECONDS)
    grace = setting.ticks_of(ZERO_GRACE_SECONDS)
    means = _mean_behind(loads, stable)
    lead = setting.lead_ticks
    wanted: list[int] = []
    lowest: deque[tuple[int, int]] = deque()  # (tick, wanted), rising: the first is what is ready
    panic_at, idle, current = -1, 0, 0
    for tick, (now, mean) in enumerate(zip(loads.tolist(), means.tolist(), strict=True)):
        if now != now or mean != mean:
            wanted.append(current)
            continue
        ready = max(1, lowest[0][1] if lowest else current)
        quiet, short = math.ceil(mean - 1e-9), math.ceil(now - 1e-9)
        if tick == 0:
            current = quiet
        ceiling, bottom = math.ceil(UP_RATE * ready), math.floor(ready / DOWN_RATE)
        quiet, short = (min(max(each, bottom), ceiling) for each in (quiet, short))
        if short / ready >= PANIC_RATIO:
            panic_at = tick
        if panic_at >= 0 and tick - panic_at <= stable:
            current = max(current, short)
        else:
            panic_at = -1
            current = quiet
        idle = idle + 1 if mean <= 0 else 0
        if current == 0 and 0 < idle <= grace:
            current = 1
        while lowest and lowest[-1][1] >= current:
            lowest.pop()
        lowest.append((tick, current))
        while lowest[0][0] < tick - lead:
            lowest.popleft()
        wanted.append(current)
    return np.array(wanted, dtype=np.int64)


def _mean_behind(values: Floats, ticks: int) -> Floats:
    """Of each tick and those before it, `ticks` in all; NaN left out."""
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate(([0.0], np.where(known, values, 0.0))))
    counts = np.cumsum(np.concatenate(([0.0], known)))
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - ticks, 0)
    count = counts[end] - counts[begin]
    means: Floats = np.divide(sums[end] - sums[begin], count, out=np.full(len(values), np.nan), where=count > 0)
    return means
