"""Reads what a decision needs: one query a contract series for all workloads, and each target's replicas."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from controllers.actuators import Actuator, ActuatorError
from controllers.domain import Forecast, Horizon, Recommendation, Replicas, Sample
from controllers.loop import StepError, Tick
from controllers.scale.state import LeadTime
from controllers.sources.prometheus import Reading, Source, SourceError

DEMAND = "workload:demand:rate1m"
BACKLOG = "workload:backlog:sum"
SERVICE_SECONDS = "workload:service_seconds:mean5m"
DATA_AGE = "workload:data_age_seconds:max"
PRESENT = (DEMAND, BACKLOG, SERVICE_SECONDS, DATA_AGE)

VALUE = "workload:forecast_demand:value"
QUANTILE = "workload:forecast_demand:quantile"
PEAK = "workload:forecast_peak:quantile"
ARRIVALS = "workload:forecast_arrivals:quantile"
MADE = "workload:forecast_made:timestamp"
VALID_UNTIL = "workload:forecast_valid_until:timestamp"
GATE = "workload:forecast_gate:bool"
AHEAD = (VALUE, QUANTILE, PEAK, ARRIVALS, MADE, VALID_UNTIL, GATE)

RECOMMENDED = "workload:replicas:recommended"
WANTED = "workload:replicas:wanted"
LEAD_TIME = "workload:lead_time_seconds:quantile"

Fallbacks = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Present:
    """What is known of the present, by workload. A workload that is absent is unknown."""

    demand: dict[str, Sample] = field(default_factory=dict)
    backlog: dict[str, Sample] = field(default_factory=dict)
    service_seconds: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)  # by workload: why something is unknown


def read_present(source: Source, fallbacks: Fallbacks, workloads: Sequence[str], tick: Tick) -> Present:
    """Raises SourceError when Prometheus told nothing at all."""
    readings = source.contract_at(PRESENT, fallbacks, at=tick.now, deadline_seconds=tick.remaining())
    present = Present()
    for workload in workloads:
        try:
            age = _sample(readings[DATA_AGE], workload)
            demand = _measured(_sample(readings[DEMAND], workload), age)
            backlog = _measured(_sample(readings[BACKLOG], workload), age)
            service = _sample(readings[SERVICE_SECONDS], workload)
        except SourceError as error:
            present.problems[workload] = str(error)
            continue
        if demand is not None and demand.value >= 0:
            present.demand[workload] = demand
        if backlog is not None and backlog.value >= 0:
            present.backlog[workload] = backlog
        if service is not None and service.value > 0:
            present.service_seconds[workload] = service.value
    return present


def _sample(reading: Reading, workload: str) -> Sample | None:
    """None while the server warns of missing parts: a part of a sum is not the sum."""
    return None if reading.warnings else reading.sample(workload)


def _measured(sample: Sample | None, age: Sample | None) -> Sample | None:
    """The rule's sample, dated back to when its source was measured."""
    if sample is None or age is None:
        return sample
    return Sample(sample.value, sample.at - max(0.0, age.value))


def read_forecasts(source: Source, workloads: Sequence[str], tick: Tick) -> dict[str, Forecast]:
    """The published forecasts; a workload without a whole one is absent. Raises SourceError."""
    readings = source.contract_at(AHEAD, {}, at=tick.now, deadline_seconds=tick.remaining())
    found = {workload: _forecast(readings, workload) for workload in workloads}
    return {workload: forecast for workload, forecast in found.items() if forecast is not None}


def _forecast(readings: Mapping[str, Reading], workload: str) -> Forecast | None:
    try:
        made, until, gate = (readings[name].sample(workload) for name in (MADE, VALID_UNTIL, GATE))
    except SourceError:
        return None
    if made is None or until is None or gate is None:
        return None
    values = {int(s.labels["horizon_seconds"]): s.samples[-1].value for s in readings[VALUE].series.get(workload, ())}
    if not values:
        return None
    horizons = tuple(
        Horizon(
            seconds,
            value,
            _quantiles(readings[QUANTILE], workload, seconds),
            _quantiles(readings[PEAK], workload, seconds),
            _quantiles(readings[ARRIVALS], workload, seconds),
        )
        for seconds, value in sorted(values.items())
    )
    return Forecast(made.value, until.value, "", gate.value >= 0.5, horizons)


def _quantiles(reading: Reading, workload: str, seconds: int) -> dict[float, float]:
    return {
        float(series.labels["quantile"]): series.samples[-1].value
        for series in reading.series.get(workload, ())
        if series.labels.get("horizon_seconds") == str(seconds)
    }


def read_targets(actuators: Mapping[str, Actuator], tick: Tick) -> dict[str, Replicas | str]:
    """By workload: its replicas, or the sentence why they are unknown. Several at a time."""

    def read(actuator: Actuator) -> Replicas | str:
        try:
            return actuator.read_replicas(tick.remaining())
        except (ActuatorError, StepError) as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(actuators, pool.map(read, actuators.values()), strict=True))


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier run of this controller published about one workload."""

    recommendations: tuple[Recommendation, ...] = ()
    wanted: tuple[Recommendation, ...] = ()
    lead_time: LeadTime | None = None
    service_seconds: float | None = None


def read_past(source: Source, window_seconds: float, step_seconds: float, tick: Tick) -> dict[str, Past]:
    """Our own history of the last `window_seconds`, so that a restart forgets no stabilisation. Raises SourceError."""
    start = tick.now - window_seconds
    readings = source.contract_range(
        (RECOMMENDED, WANTED), {}, start, tick.now, step_seconds, deadline_seconds=tick.remaining()
    )
    lead = {
        quantile: source.by_workload(
            f'last_over_time({LEAD_TIME}{{quantile="{quantile}"}}[1d])', tick.now, tick.remaining()
        )
        for quantile in ("0.5", "0.9")
    }
    service = source.by_workload(f"last_over_time({SERVICE_SECONDS}[1d])", tick.now, tick.remaining())
    workloads = {*readings[RECOMMENDED].series, *readings[WANTED].series, *lead["0.9"], *service}
    return {
        workload: Past(
            _numbers(readings[RECOMMENDED], workload),
            _numbers(readings[WANTED], workload),
            LeadTime(lead["0.5"][workload].value, lead["0.9"][workload].value)
            if workload in lead["0.5"] and workload in lead["0.9"]
            else None,
            service[workload].value if workload in service else None,
        )
        for workload in workloads
    }


def _numbers(reading: Reading, workload: str) -> tuple[Recommendation, ...]:
    return tuple(Recommendation(sample.at, round(sample.value)) for sample in reading.samples(workload))
