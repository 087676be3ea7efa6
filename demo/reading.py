"""One moment of the run as Prometheus knows it: the contract series of the demo's workload, None where unknown."""

from collections.abc import Sequence
from dataclasses import dataclass

from controllers.domain import Reason
from demo import settings
from demo.prom import Value

LEVELS = ("normal", "economy", "essential", "exhausted")


@dataclass(frozen=True, slots=True)
class Ahead:
    """The forecast for one horizon, jobs per second; low and high bound its band, None: not published."""

    seconds: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Purse:
    """The budget for paid calls at one moment, in KRW; None: unknown. level: as a word."""

    limit: float | None = None
    posted: float | None = None
    held: float | None = None
    projected: float | None = None
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The contract series at one moment; None: unknown. mending: what recovery does now, by step and state."""

    demand: float | None = None
    backlog: float | None = None
    oldest_seconds: float | None = None
    ready: float | None = None
    wanted: float | None = None
    desired: float | None = None
    reactive: float | None = None
    lead_seconds: float | None = None
    gate_open: bool | None = None
    model: str | None = None
    reasons: tuple[str, ...] = ()
    ahead: tuple[Ahead, ...] = ()
    firing: tuple[str, ...] = ()
    usage: Purse = Purse()
    mending: tuple[str, ...] = ()


def reading(values: Sequence[Value]) -> Reading:
    """The reading in what `prom.instant(url, prom.SHOWN)` gave."""
    ours = [value for value in values if value.labels.get("workload") == settings.WORKLOAD]
    single = {value.name: value.value for value in ours}
    gate = single.get("workload:forecast_gate:bool")
    leads = {v.labels.get("quantile"): v.value for v in ours if v.name == "workload:lead_time_seconds:quantile"}
    return Reading(
        demand=single.get("workload:demand:rate1m"),
        backlog=single.get("workload:backlog:sum"),
        oldest_seconds=single.get("workload:oldest_age_seconds:max"),
        ready=single.get("workload:replicas:current"),
        wanted=single.get("workload:replicas:wanted"),
        desired=single.get("workload:replicas:desired"),
        reactive=single.get("tidewise_scale_replicas_reactive"),
        lead_seconds=leads.get("0.9", leads.get("0.5")),
        gate_open=None if gate is None else gate > 0,
        model=next((v.labels.get("model") for v in ours if v.name == "tidewise_forecast_model_info"), None),
        reasons=tuple(sorted((v.labels["reason"] for v in ours if _is_reason(v)), key=_order)),
        ahead=_ahead(ours),
        firing=tuple(dict.fromkeys(v.labels["alertname"] for v in values if _is_firing(v))),
        usage=_purse(values),
        mending=tuple(
            f"{v.labels['step']} {v.labels['state']}"
            for v in values
            if v.name == "target:recovery_operations:sum" and v.value > 0
        ),
    )


def _purse(values: Sequence[Value]) -> Purse:
    """Of the budget `usage`."""
    ours = {value.name: value.value for value in values if value.labels.get("budget") == "usage"}
    level = ours.get("budget:level:value")
    return Purse(
        limit=ours.get("tidewise_budget_limit"),
        posted=ours.get("tidewise_budget_posted"),
        held=ours.get("tidewise_budget_held"),
        projected=ours.get("tidewise_budget_projected"),
        level=None if level is None else LEVELS[int(level)],
    )


def _is_reason(value: Value) -> bool:
    return value.name == "tidewise_scale_decision_reason" and value.value > 0


def _order(reason: str) -> int:
    """As the vocabulary has it: what a decision rests on first, how it was carried out last."""
    return list(Reason).index(Reason(reason)) if reason in set(Reason) else len(Reason)


def _is_firing(value: Value) -> bool:
    """An alert that someone is to hear of; the Watchdog, which always fires, has no severity."""
    labels = value.labels
    return value.name == "ALERTS" and labels.get("alertstate") == "firing" and labels.get("severity") != "none"


def _ahead(ours: Sequence[Value]) -> tuple[Ahead, ...]:
    middle = {int(v.labels["horizon_seconds"]): v.value for v in ours if v.name == "workload:forecast_demand:value"}
    band = {
        (int(v.labels["horizon_seconds"]), float(v.labels["quantile"])): v.value
        for v in ours
        if v.name == "workload:forecast_demand:quantile"
    }
    return tuple(
        Ahead(seconds, value, band.get((seconds, 0.1)), band.get((seconds, 0.9)))
        for seconds, value in sorted(middle.items())
    )


def forecast_shown(now: Reading) -> Ahead | None:
    """The forecast for the first horizon that is not shorter than the lead time; the longest where all are."""
    if not now.ahead:
        return None
    lead = now.lead_seconds or 0.0
    return next((ahead for ahead in now.ahead if ahead.seconds >= lead), now.ahead[-1])
