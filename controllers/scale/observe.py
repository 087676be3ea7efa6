"""Reads what a decision needs: one query a contract series for all workloads, and each target's replicas."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog

from controllers.actuators import Actuator, ActuatorError
from controllers.domain import DecisionWindow, Forecast, Horizon, Reason, Recommendation, Replicas, Sample
from controllers.loop import StepError, Tick
from controllers.scale.state import LeadTime
from controllers.sources.prometheus import Reading, Row, Source, SourceError

log = structlog.get_logger()

DEMAND = "workload:demand:rate1m"
BACKLOG = "workload:backlog:sum"
THROUGHPUT = "workload:throughput:rate1m"
OLDEST_AGE = "workload:oldest_age_seconds:max"
SERVICE_SECONDS = "workload:service_seconds:mean5m"
DATA_AGE = "workload:data_age_seconds:max"
PRESENT = (DEMAND, BACKLOG, THROUGHPUT, OLDEST_AGE, SERVICE_SECONDS, DATA_AGE)
SILENT_SECONDS = 60.0  # since the newest raw sample: then no scrape of any usual interval has seen it

VALUE = "workload:forecast_demand:value"
QUANTILE = "workload:forecast_demand:quantile"
PEAK = "workload:forecast_peak:quantile"
ARRIVALS = "workload:forecast_arrivals:quantile"
WINDOW_PEAK = "workload:forecast_window_peak:quantile"
WINDOW_BEGIN = "workload:forecast_window_begin_seconds:min"
WINDOW_END = "workload:forecast_window_end_seconds:max"
MADE = "workload:forecast_made:timestamp"
VALID_UNTIL = "workload:forecast_valid_until:timestamp"
GATE = "workload:forecast_gate:bool"
# When it was made is recorded after all that it says, so who sees a new time sees the rest as well.
STANDING = (MADE, VALID_UNTIL, GATE)
SAID = (VALUE, QUANTILE, PEAK, ARRIVALS, WINDOW_PEAK, WINDOW_BEGIN, WINDOW_END)

RECOMMENDED = "workload:replicas:recommended"
NEEDED = "workload:replicas:needed"
WANTED = "workload:replicas:wanted"
LEAD_TIME = "workload:lead_time_seconds:quantile"
LEARNED_SERVICE = "workload:service_seconds:learned"
LEARNED_CONCURRENCY = "workload:concurrency:learned"
BOUND = "workload:replicas:bound"

Fallbacks = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Present:
    """What is known of the present, by workload or further demand. What is absent is unknown."""

    demand: dict[str, Sample] = field(default_factory=dict)
    backlog: dict[str, Sample] = field(default_factory=dict)
    throughput: dict[str, float] = field(default_factory=dict)
    oldest_age_seconds: dict[str, float] = field(default_factory=dict)
    service_seconds: dict[str, float] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)  # it was measured a while ago, and what measures it tells no more
    problems: dict[str, str] = field(default_factory=dict)  # why something is unknown
    source_down: bool = False  # Prometheus told nothing


def read_present(source: Source, fallbacks: Fallbacks, workloads: Sequence[str], tick: Tick) -> Present:
    """Raises SourceError when Prometheus told nothing at all."""
    readings = source.contract_at(PRESENT, fallbacks, at=tick.now, deadline_seconds=tick.remaining())
    present = Present()
    for workload in workloads:
        try:
            age, demand, backlog, throughput, oldest, service = (
                _sample(readings[name], workload)
                for name in (DATA_AGE, DEMAND, BACKLOG, THROUGHPUT, OLDEST_AGE, SERVICE_SECONDS)
            )
        except SourceError as error:
            present.problems[workload] = str(error)
            continue
        if demand is not None and demand.value >= 0:
            present.demand[workload] = _measured(demand, age)
        elif demand is None and age is not None and age.value > SILENT_SECONDS:
            present.silent.add(workload)
        if backlog is not None and backlog.value >= 0:
            present.backlog[workload] = _measured(backlog, age)
        if throughput is not None and throughput.value >= 0:
            present.throughput[workload] = throughput.value
        if oldest is not None and oldest.value >= 0:
            present.oldest_age_seconds[workload] = oldest.value
        if service is not None and service.value > 0:
            present.service_seconds[workload] = service.value
    return present


def doubt(present: Present, name: str, before: Reason | None) -> Reason | None:
    """Why its demand is missing, where that is known. `before`: what it was in the last step.

    The age of the data outlives its source by ten minutes and grows: that tells a source that fell silent from one
    that never was. After those ten minutes nothing tells, so what was known to be down stays down.
    """
    if present.source_down:
        return Reason.SOURCE_DOWN
    if name in present.demand or name in present.problems:
        return None
    if name in present.silent or before is Reason.DEMAND_DOWN:
        return Reason.DEMAND_DOWN
    return None


def _sample(reading: Reading, workload: str) -> Sample | None:
    """None while the server warns of missing parts: a part of a sum is not the sum."""
    return None if reading.warnings else reading.sample(workload)


def _measured(sample: Sample, age: Sample | None) -> Sample:
    """The rule's sample, dated back to when its source was measured."""
    return sample if age is None else Sample(sample.value, sample.at - max(0.0, age.value))


def read_forecasts(
    source: Source, workloads: Sequence[str], tick: Tick, before: Mapping[str, Forecast] | None = None
) -> dict[str, Forecast]:
    """The published forecasts; a workload without a whole one is absent. Raises SourceError.

    `before`: those of the last step. A forecast is read again only when a new one was made, a few bytes tell that.
    """
    known = before or {}
    standing = source.rows_at(STANDING, tick.now, tick.remaining())
    stands = {name: _by_workload(standing[name]) for name in STANDING}
    found: dict[str, tuple[float, float, bool]] = {}
    for workload in workloads:
        made, until, gate = (_only(stands[name].get(workload, ())) for name in STANDING)
        if made is not None and until is not None and gate is not None:
            found[workload] = (made, until, gate >= 0.5)
    new = {w for w, (made, _, _) in found.items() if w not in known or known[w].made_at != made}
    said = _said(source, new, tick) if new else {}
    forecasts: dict[str, Forecast] = {}
    for workload, (made, until, is_open) in found.items():
        of_it = said.get(workload) if workload in new else (known[workload].horizons, known[workload].window)
        if of_it is not None:
            forecasts[workload] = Forecast(made, until, "", is_open, *of_it)
    return forecasts


def _said(
    source: Source, workloads: Collection[str], tick: Tick
) -> dict[str, tuple[tuple[Horizon, ...], DecisionWindow | None]]:
    """What the forecasts of `workloads` say; one that says nothing, or the same thing twice, is left out."""
    rows = source.rows_at(SAID, tick.now, tick.remaining())
    twice: set[str] = set()
    values, quantiles, peaks, arrivals, within = (
        _by_label(rows[name], workloads, twice) for name in (VALUE, QUANTILE, PEAK, ARRIVALS, WINDOW_PEAK)
    )
    begins, ends = _by_workload(rows[WINDOW_BEGIN]), _by_workload(rows[WINDOW_END])
    said = {}
    for workload in values.keys() - twice:
        begin, end = _only(begins.get(workload, ())), _only(ends.get(workload, ()))
        window = None
        try:
            horizons = tuple(
                Horizon(
                    int(seconds),
                    value[""],
                    *(_quantiles(found.get(workload, {}).get(seconds, {})) for found in (quantiles, peaks, arrivals)),
                )
                for seconds, value in sorted(values[workload].items(), key=lambda item: int(item[0]))
            )
            if begin is not None and end is not None and workload in within:
                window = DecisionWindow(begin, end, _quantiles(within[workload][""]))
        except (KeyError, ValueError):  # labels of another shape: somebody else's series under these names
            continue
        said[workload] = (horizons, window)
    return said


def _by_label(
    rows: Sequence[Row], workloads: Collection[str], twice: set[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """By workload, horizon and quantile, as text; workloads of which one stands twice are added to `twice`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for labels, value in rows:
        workload = labels["workload"]
        if workload not in workloads:
            continue
        quantiles = found.setdefault(workload, {}).setdefault(labels.get("horizon_seconds", ""), {})
        quantile = labels.get("quantile", "")
        if quantile in quantiles:
            twice.add(workload)
        quantiles[quantile] = value
    return found


def _quantiles(found: Mapping[str, float]) -> dict[float, float]:
    return {float(quantile): value for quantile, value in found.items()}


def _by_workload(rows: Sequence[Row]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for labels, value in rows:
        found.setdefault(labels["workload"], []).append(value)
    return found


def _only(values: Sequence[float]) -> float | None:
    """Of one series; of two none: picking one would be a guess."""
    return values[0] if len(values) == 1 else None


def read_in_hand(source: Source, expr: str, tick: Tick) -> dict[str, float]:
    """Work in hand by `pod`, else by `instance`; what has neither is left out. Raises SourceError, StepError."""
    found: dict[str, float] = {}
    for series in source.instant(expr, tick.now, tick.remaining()).complete():
        name = series.labels.get("pod") or series.labels.get("instance")
        if name:
            found[name] = found.get(name, 0.0) + series.samples[-1].value
    return found


def read_targets(actuators: Mapping[str, Actuator], tick: Tick) -> dict[str, Replicas | str]:
    """By workload: its replicas, or the sentence why they are unknown. Several at a time.

    What an actuator did not expect costs its own workload only, and is logged with its traceback.
    """

    def read(workload: str) -> Replicas | str:
        try:
            return actuators[workload].read_replicas(tick.remaining())
        except (ActuatorError, StepError) as error:
            return str(error)
        except Exception as error:  # of a library, or of somebody's own actuator
            log.exception("target_not_read", workload=workload)
            return unexpected(error)

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(actuators, pool.map(read, actuators), strict=True))


def unexpected(error: Exception) -> str:
    """The sentence about what no actuator should raise."""
    return f"the actuator failed unexpectedly ({type(error).__name__}: {error}); its traceback is in the log"


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier run of this controller published about one workload, or one further demand."""

    recommendations: tuple[Recommendation, ...] = ()
    wanted: tuple[Recommendation, ...] = ()
    answers: tuple[Recommendation, ...] = ()
    lead_time: LeadTime | None = None
    service_seconds: float | None = None
    concurrency: float | None = None
    bound: int | None = None


def read_past(source: Source, window_seconds: float, step_seconds: float, tick: Tick) -> dict[str, Past]:
    """Our own history of the last `window_seconds`, so that a restart forgets no stabilisation. Raises SourceError."""
    start = tick.now - window_seconds
    readings = source.contract_range(
        (RECOMMENDED, WANTED, NEEDED), {}, start, tick.now, step_seconds, deadline_seconds=tick.remaining()
    )

    def last(name: str, age: str) -> dict[str, Sample]:
        return source.by_workload(f"last_over_time({name}[{age}])", tick.now, tick.remaining())

    median, high = (last(f'{LEAD_TIME}{{quantile="{quantile}"}}', "1d") for quantile in ("0.5", "0.9"))
    service = {**last(SERVICE_SECONDS, "1d"), **last(LEARNED_SERVICE, "1d")}
    concurrency, bound = last(LEARNED_CONCURRENCY, "1d"), last(BOUND, "5m")
    workloads = {*readings[RECOMMENDED].series, *readings[WANTED].series, *high, *service, *concurrency, *bound}
    return {
        workload: Past(
            _numbers(readings[RECOMMENDED], workload),
            # each decision publishes the number that the target had before it: what the one before had told
            _numbers(readings[WANTED], workload, -step_seconds),
            _numbers(readings[NEEDED], workload),
            LeadTime(median[workload].value, high[workload].value) if workload in median and workload in high else None,
            service[workload].value if workload in service else None,
            concurrency[workload].value if workload in concurrency else None,
            round(bound[workload].value) if workload in bound else None,
        )
        for workload in workloads
    }


def _numbers(reading: Reading, workload: str, later_seconds: float = 0.0) -> tuple[Recommendation, ...]:
    return tuple(Recommendation(sample.at + later_seconds, round(sample.value)) for sample in reading.samples(workload))
