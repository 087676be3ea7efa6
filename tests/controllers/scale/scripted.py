"""Readings and targets for tests of the scaler's step, as a script says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from controllers.actuators import Actuator, ActuatorError
from controllers.domain import Replicas, Sample
from controllers.loop import Tick
from controllers.scale.scaler import Scaler
from controllers.sources.prometheus import Answer, Kind, Origin, Reading, Row, Series, SourceError

NAME = "default/video"
NOW = 1_800_000_000.0


class ScriptedSource:
    """Answers from a dict of record -> value (or quantile tables); None in `values` means Prometheus is gone."""

    def __init__(self) -> None:
        self.values: dict[str, Any] | None = {}
        self.past: dict[str, list[tuple[float, int]]] = {}
        self.lead: dict[str, float] = {}
        self.learned: dict[str, float] = {}  # record -> what an earlier process published
        self.warnings: tuple[str, ...] = ()
        self.now = NOW
        self.silent_about = ""
        self.asked: list[str] = []
        self.in_hand: dict[str, float] | SourceError = {}

    def contract_at(
        self, names: Sequence[str], fallbacks: Mapping[str, Mapping[str, str]], at: float, deadline_seconds: float
    ) -> dict[str, Reading]:
        self.asked += names
        if self.values is None or self.silent_about in names:
            raise SourceError(Kind.UNREACHABLE, "connection refused")
        return {name: self._reading(name, self.values.get(name)) for name in names}

    def _reading(self, name: str, value: Any) -> Reading:
        found: dict[str, tuple[Series, ...]] = {}
        for key, number in value.items() if isinstance(value, dict) else [((), value)] if value is not None else []:
            labels = {"workload": NAME, **dict(key)}
            of = labels["workload"]
            found[of] = (*found.get(of, ()), Series(labels, (Sample(number, self.now),)))
        return Reading(name, found, dict.fromkeys(found, Origin.RULE), warnings=self.warnings)

    def rows_at(self, names: Sequence[str], at: float, deadline_seconds: float) -> dict[str, list[Row]]:
        asked = self.contract_at(names, {}, at, deadline_seconds)
        if self.warnings:
            raise SourceError(Kind.PARTIAL, self.warnings[0])
        return {
            name: [(one.labels, one.samples[-1].value) for series in reading.series.values() for one in series]
            for name, reading in asked.items()
        }

    def instant(self, expr: str, at: float, deadline_seconds: float) -> Answer:
        if isinstance(self.in_hand, SourceError):
            raise self.in_hand
        return Answer([Series({"pod": pod}, (Sample(work, at),)) for pod, work in self.in_hand.items()])

    def contract_range(self, names: Sequence[str], *_: object, **__: object) -> dict[str, Reading]:
        return {name: self._history(name) for name in names}

    def _history(self, name: str) -> Reading:
        if name not in self.past:
            return Reading(name)
        return Reading(name, {NAME: (Series({"workload": NAME}, tuple(Sample(v, t) for t, v in self.past[name])),)})

    def by_workload(self, expr: str, *_: object) -> dict[str, Sample]:
        asked = [value for quantile, value in self.lead.items() if f'"{quantile}"' in expr]
        asked += [value for name, value in self.learned.items() if f"({name}[" in expr]
        return {NAME: Sample(asked[0], NOW)} if asked else {}


class Fleet:
    """A target that does what it is told at once, or fails."""

    def __init__(self, replicas: int) -> None:
        self.replicas = Replicas(replicas, replicas)
        self.told: list[int] = []
        self.asked = 0
        self.victims: list[tuple[str, ...]] = []
        self.in_hand: list[Mapping[str, float] | None] = []
        self.is_floor = False
        self.error: str | ActuatorError | None = None
        self.unreadable: str | None = None

    def actuator(self) -> Actuator:
        return Actuator(self._read, self._apply, is_floor=self.is_floor)

    def _read(self, seconds: float) -> Replicas:
        if self.unreadable:
            raise ActuatorError(self.unreadable)
        return self.replicas

    def _apply(
        self,
        replicas: int,
        seconds: float,
        victims: tuple[str, ...] = (),
        in_hand: Mapping[str, float] | None = None,
    ) -> None:
        self.asked += 1
        if self.error:
            raise self.error if isinstance(self.error, ActuatorError) else ActuatorError(self.error)
        self.told.append(replicas)
        self.victims.append(victims)
        self.in_hand.append(in_hand)
        self.replicas = replace(self.replicas, wanted=replicas, ready=replicas)


PRESENT = {
    "workload:demand:rate1m": 20.0,
    "workload:backlog:sum": 10.0,
    "workload:service_seconds:mean5m": 0.5,
    "workload:data_age_seconds:max": 3.0,
}


def foreseen(rate: float, *, gate: float = 1.0, valid: float = 900.0) -> dict[str, Any]:
    horizons = [(("horizon_seconds", str(s)),) for s in (120, 300, 900)]
    return {
        "workload:forecast_demand:value": dict.fromkeys(horizons, rate),
        "workload:forecast_demand:quantile": {(*h, ("quantile", "0.98")): rate * 1.1 for h in horizons},
        "workload:forecast_arrivals:quantile": {
            (*h, ("quantile", q)): rate * int(h[0][1]) * share
            for h in horizons
            for q, share in (("0.5", 1), ("0.98", 1.05))
        },
        "workload:forecast_made:timestamp": NOW - 10,
        "workload:forecast_valid_until:timestamp": NOW + valid,
        "workload:forecast_gate:bool": gate,
    }


def shown(scaler: Scaler, name: str, **labels: str) -> float | None:
    """The sample on /metrics; None where there is none."""
    registry = CollectorRegistry()
    registry.register(scaler.published)
    return registry.get_sample_value(f"tidewise_{name}", labels)


def reasons(scaler: Scaler) -> set[str]:
    registry = CollectorRegistry()
    registry.register(scaler.published)
    samples = [s for family in registry.collect() for s in family.samples]
    return {s.labels["reason"] for s in samples if s.name == "tidewise_scale_decision_reason"}


def tick(after: float = 0.0) -> Tick:
    return Tick(NOW + after, Tick.starting(30).until)
