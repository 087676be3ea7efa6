"""Whose turn it is to have its heavy models fitted, within the CPU seconds a day that the configuration grants."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

DAY_SECONDS = 86_400.0
REFIT_SECONDS = 20 * 3600.0  # a heavy model that is younger than this needs no new fit
GUESSED_SECONDS = 10.0  # what a workload's heavy models are taken to cost before any was measured
GUESSED_GAIN = 0.03  # and to gain
LEAST_GAIN = 0.002  # so that nobody is never asked again
UNFITTED_DAYS = 2.0  # how long ago it counts to be where nothing has been fitted yet


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known about one workload's heavy models. None: nothing was fitted or measured yet."""

    fitted_at: float | None = None  # Unix seconds
    cpu_seconds: float | None = None  # of fitting them all, their backtest included
    gain: float | None = None  # by how much less the error is with them, as a share; may be negative


@dataclass(frozen=True, slots=True)
class Spent:
    """Heavy CPU seconds that were spent at a time."""

    at: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Slices:
    """`chosen`: workloads whose turn it is, in order. All in CPU seconds: what they are expected to cost, ...

    ... what was spent within the last day, and what all workloads would take a day, had they all their turn.
    """

    chosen: tuple[str, ...]
    expected_seconds: float
    spent_seconds: float
    wanted_seconds: float
    budget_seconds: float


def slices(
    standings: Mapping[str, Standing], now: float, budget_seconds_per_day: float, spent: Iterable[Spent] = ()
) -> Slices:
    """Those first whose error shrinks most for a CPU second, weighed by how long they have waited.

    Never more than the budget within any 24 hours, by measured costs; 0: never anybody.
    """
    used = sum(each.cpu_seconds for each in spent if now - DAY_SECONDS < each.at <= now)
    measured = sorted(s.cpu_seconds for s in standings.values() if s.cpu_seconds is not None and s.cpu_seconds > 0)
    gained = sorted(s.gain for s in standings.values() if s.gain is not None)
    usual_cost = measured[len(measured) // 2] if measured else GUESSED_SECONDS
    usual_gain = gained[len(gained) // 2] if gained else GUESSED_GAIN

    def cost(one: Standing) -> float:
        return one.cpu_seconds if one.cpu_seconds is not None and one.cpu_seconds > 0 else usual_cost

    def worth(name: str) -> float:
        one = standings[name]
        days = UNFITTED_DAYS if one.fitted_at is None else (now - one.fitted_at) / DAY_SECONDS
        gain = usual_gain if one.gain is None else one.gain
        return max(gain, LEAST_GAIN) * days / cost(one)

    due = [name for name, one in standings.items() if one.fitted_at is None or now - one.fitted_at >= REFIT_SECONDS]
    chosen: list[str] = []
    expected = 0.0
    for name in sorted(due, key=lambda name: (-worth(name), name)):
        if used + expected + cost(standings[name]) <= budget_seconds_per_day:
            chosen.append(name)
            expected += cost(standings[name])
    wanted = sum(cost(one) for one in standings.values())
    return Slices(tuple(chosen), expected, used, wanted, budget_seconds_per_day)
