"""The policies of others, by name: one function and one line each. A knob's settings are what is swept.

Sources are in the functions' docstrings; `tidewise` is in ours.py, for it needs forecasts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from controllers.replay.protocol import Ints, Policy, oracle
from controllers.replay.rivals.foresighted import (
    autopilot,
    aws,
    crane,
    google,
    phpa,
    phpa_linear,
    schedule,
    seasonal_max,
    static,
)
from controllers.replay.rivals.reactive import hpa, keda, knative

TARGETS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
# above 1 a table is cut below the history's peaks
TABLES = (3.0, 2.5, 2.0, 1.75, 1.5, 1.35, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
ALL_TARGETS = (*TABLES[:8], *TARGETS)
DEFAULT_TARGET = 0.7


@dataclass(frozen=True, slots=True)
class Rival:
    """`play`: a policy that takes its knobs by name; `usual`: what it comes with; `sweep`: what is tried."""

    play: Callable[..., Ints]
    usual: Mapping[str, float]
    sweep: Mapping[str, Sequence[float]]

    def policy(self, knobs: Mapping[str, float]) -> Policy:
        return partial(self.play, **knobs)

    def knobs(self) -> list[Mapping[str, float]]:
        """Every combination that is tried, the usual one first."""
        every = [dict(zip(self.sweep, each, strict=True)) for each in product(*self.sweep.values())]
        return [dict(self.usual), *(each for each in every if each != dict(self.usual))]


def _by_target(play: Callable[..., Ints], targets: Sequence[float] = TARGETS, **more: Sequence[float]) -> Rival:
    return Rival(play, {"target": DEFAULT_TARGET, **{k: v[0] for k, v in more.items()}}, {"target": targets, **more})


POLICIES: dict[str, Rival] = {
    "hpa": _by_target(hpa, down_window_seconds=(300.0, 60.0, 1200.0, 3600.0)),
    "keda": _by_target(keda, cooldown_seconds=(300.0, 1800.0)),
    "knative": _by_target(knative),
    "phpa-as-coded": _by_target(partial(phpa, newest_first=True), ALL_TARGETS),
    "phpa-as-documented": _by_target(partial(phpa, newest_first=False), ALL_TARGETS),
    "phpa-linear": _by_target(phpa_linear, ALL_TARGETS),
    "crane": _by_target(crane, ALL_TARGETS, days=(7.0, 15.0)),
    "autopilot": Rival(
        autopilot, {"target": DEFAULT_TARGET, "percentile": 100.0}, {"target": TABLES, "percentile": (100.0, 95.0)}
    ),
    "aws-predictive": _by_target(aws, ALL_TARGETS),
    "google-predictive": _by_target(google, ALL_TARGETS),
    "seasonal-max": _by_target(seasonal_max, ALL_TARGETS),
    "schedule": Rival(schedule, {"target": 1.0}, {"target": TABLES}),
    "static": Rival(static, {"target": 1.0}, {"target": TABLES}),
    "oracle": Rival(oracle, {}, {}),
}


def named(knobs: Mapping[str, float]) -> str:
    """`target=0.7 down_window_seconds=300`"""
    return " ".join(f"{name}={value:g}" for name, value in knobs.items())
