"""Policies to compare: ours, the reactive HPA rule, and a recorded fleet. One function each."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from controllers.domain import Forecast, Sample
from controllers.replay.simulate import Policy, Seen
from controllers.scale.decide import decide
from controllers.scale.memory import Memory, decided
from controllers.scale.state import Rules, State

HPA_TOLERANCE = 0.1
HPA_DOWN_WINDOW_SECONDS = 300.0
HPA_UP_PER_STEP = 4  # or doubling, whichever is more


def tidewise(rules: Rules, service_seconds: float | None, forecasts: Sequence[Forecast]) -> Policy:
    """The live decide() with the forecasts that were published at the time; `forecasts` ascending by `made_at`."""
    made = [forecast.made_at for forecast in forecasts]
    memory = Memory()

    def policy(seen: Seen) -> int:
        nonlocal memory
        index = bisect_right(made, seen.now)
        state = State(
            now=seen.now,
            demand=Sample(seen.demand, seen.now),
            backlog=Sample(float(seen.backlog), seen.now),
            service_seconds=service_seconds,
            replicas=seen.replicas,
            forecast=forecasts[index - 1] if index else None,
            recommendations=memory.recommendations,
            answers=memory.answers,
            wanted=memory.wanted,
            known_since=memory.known_since,
        )
        decision = decide(state, rules)
        number = seen.replicas.wanted if decision.desired is None else decision.desired
        memory = decided(memory, decision, number, rules.stabilization_window_seconds)
        return number

    return policy


def hpa(target: float, service_seconds: float, least: int, most: int, sync_seconds: float = 15.0) -> Policy:
    """The HorizontalPodAutoscaler on an external metric per pod: demand in replicas' worth over `target` (0 to 1).

    ceil(metric / target) where the ratio is off by more than 10 %; up by at most 100 % or 4 pods a sync, down to the
    highest recommendation of 300 s (Kubernetes documentation, "Algorithm details" and "Default behavior").
    """
    recommendations: list[tuple[float, int]] = []
    last_sync = -math.inf

    def policy(seen: Seen) -> int:
        nonlocal last_sync
        current = seen.replicas.wanted
        if seen.now - last_sync < sync_seconds - 1e-6:
            return current
        last_sync = seen.now
        load = seen.demand * service_seconds / target
        ratio = load / current if current else math.inf
        wanted = math.ceil(load - 1e-9) if abs(ratio - 1.0) > HPA_TOLERANCE else current
        wanted = min(max(wanted, least), most)
        recommendations.append((seen.now, wanted))
        if wanted > current:
            return min(wanted, max(2 * current, current + HPA_UP_PER_STEP))
        lately = [number for at, number in recommendations if seen.now - at <= HPA_DOWN_WINDOW_SECONDS]
        return min(current, max(lately))

    return policy


def recorded(timeline: Sequence[tuple[float, int]]) -> Callable[[float], int]:
    """The number of working replicas at a time, from a recording of (time, ready), ascending."""
    times = [at for at, _ in timeline]

    def ready_at(now: float) -> int:
        return timeline[max(0, bisect_right(times, now) - 1)][1]

    return ready_at
