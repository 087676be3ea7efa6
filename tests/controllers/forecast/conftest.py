"""Demand that a test can reason about: seasonal Poisson counts per minute, and a Prometheus that is a dict."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.config import Config
from controllers.domain import Sample
from controllers.forecast.history import Floats, History
from controllers.sources.prometheus import Answer, Reading, Series

DAY = 1440
MIDNIGHT = 1_700_006_400.0  # 2023-11-15 00:00 UTC, a Wednesday


def daily(minutes: Floats) -> Floats:
    """A day like a web service's: 4 to 16 a second, with a step of 40 % within five minutes at 13:20."""
    of_day = minutes % DAY
    wave = 10 - 6 * np.cos(2 * np.pi * of_day / DAY)
    step = np.clip((of_day - 800) / 5, 0, 1) * np.clip((980 - of_day) / 5, 0, 1)
    shape: Floats = wave * (1 + 0.4 * step)
    return shape


def poisson(rates: Floats, seed: int = 1) -> Floats:
    """Counts of each minute as a rate per second."""
    counts: Floats = np.random.default_rng(seed).poisson(rates * 60) / 60
    return counts


def grid(values: Floats, step_seconds: float = 60.0) -> History:
    """`values` as a history whose first bin begins at midnight UTC."""
    return History(MIDNIGHT + step_seconds, step_seconds, values, np.zeros(len(values), dtype=np.bool_))


@dataclass
class FakeSource:
    """Prometheus as a function of time: `demand[workload](t)` is the rate at t, None where there is no sample."""

    demand: Mapping[str, Callable[[float], float | None]]
    censored: Mapping[str, Callable[[float], float | None]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fail: Callable[[float, float], None] = lambda start, end: None  # may raise SourceError
    sampled_at: float = 0.0  # seconds after the full minute
    unknown: tuple[str, ...] = ()  # series that it does not have
    asked: list[tuple[float, float]] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)  # of each question
    fallbacks: list[Mapping[str, Mapping[str, str]]] = field(default_factory=list)
    lead_times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # workload -> quantile -> seconds
    url: str = "http://fake"

    def instant(self, expr: str, at: float, deadline_seconds: float) -> Answer:
        assert expr == "timestamp(workload:demand:rate1m)"
        before = at - (at - self.sampled_at) % 60
        return Answer(Series({"workload": name}, (Sample(before, at),)) for name in self.demand)

    def contract_at(
        self, names: Sequence[str], fallbacks: Mapping[str, Mapping[str, str]], at: float, deadline_seconds: float
    ) -> dict[str, Reading]:
        return {
            name: Reading(
                name,
                {
                    workload: tuple(Series({"quantile": q}, (Sample(value, at),)) for q, value in learned.items())
                    for workload, learned in self.lead_times.items()
                },
            )
            for name in names
        }

    def contract_range(
        self,
        names: Sequence[str],
        fallbacks: Mapping[str, Mapping[str, str]],
        start: float,
        end: float,
        step_seconds: float,
        deadline_seconds: float,
    ) -> dict[str, Reading]:
        assert deadline_seconds > 0
        self.asked.append((start, end))
        self.names.append(list(names))
        self.fallbacks.append(fallbacks)
        self.fail(start, end)
        times = np.arange(start, end + 1e-6, step_seconds).tolist()
        return {
            name: Reading(
                name,
                {
                    workload: (Series({"workload": workload}, samples),)
                    for workload, rate in (self.demand if "censored" not in name else self.censored).items()
                    if name not in self.unknown
                    and (samples := tuple(Sample(value, t) for t in times if (value := rate(t)) is not None))
                },
                warnings=self.warnings,
            )
            for name in names
        }


def config(*names: str, **forecast: object) -> Config:
    """A configuration of these workloads; without a year, unless it is asked for."""
    return Config.model_validate(
        {
            "workloads": [
                {
                    "name": name,
                    "demand": {"promql": "vector(1)"},
                    "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
                    "replicas": {"max": 4},
                }
                for name in names
            ],
            "forecast": {"rollup_days": 0, **forecast},
        }
    )


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Everything above: test modules cannot import each other."""
    return SimpleNamespace(
        DAY=DAY, MIDNIGHT=MIDNIGHT, daily=daily, poisson=poisson, grid=grid, FakeSource=FakeSource, config=config
    )


@pytest.fixture(scope="session")
def fortnight() -> History:
    """15 days of the daily shape, in minutes."""
    return grid(poisson(daily(np.arange(15.0 * DAY))))
