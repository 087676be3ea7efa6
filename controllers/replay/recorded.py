"""A workload's own past from Prometheus: its demand, what one replica serves, how long one takes to start, what ran."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers.config import Config, Workload
from controllers.forecast.almanac import Calendar
from controllers.forecast.calendars import Calendars
from controllers.forecast.history import Floats
from controllers.forecast.observe import Observer
from controllers.replay.protocol import Demand, Setting
from controllers.rules import expressions
from controllers.scale.configured import rules_of
from controllers.scale.observe import LEAD_TIME, SERVICE_SECONDS
from controllers.scale.state import Rules
from controllers.sources.prometheus import Source

CURRENT = "workload:replicas:current"
LEARNED_SERVICE = "workload:service_seconds:learned"
HIGH = "0.9"
READ_SECONDS = 300.0
MINUTE = 60.0
MIN_RECORDED = 0.9  # of the scored minutes, for what ran to be compared


class NothingRecordedError(Exception):
    """What is missing for a replay: where, what was found, what to do."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """`demand` per second, stamped with when it was seen. `replicas` on the same grid; None: not recorded."""

    demand: Demand
    capacity: float
    lead_seconds: float
    rules: Rules
    calendar: Calendar
    currency: str | None
    price_per_replica_hour: float
    replicas: Floats | None
    notes: tuple[str, ...]


def read(config: Config, workload: Workload, source: Source, days: float, now: float) -> Recorded:
    """Raises SourceError, NothingRecordedError."""
    name = workload.identity
    demand = _demand(config, workload, source, days, now)
    notes: list[str] = []
    capacity = _capacity(config, workload, source, now, notes)
    learned = source.contract_at(
        [LEAD_TIME], {LEAD_TIME: expressions(config).get(LEAD_TIME, {})}, now, config.prometheus.timeout_seconds
    )[LEAD_TIME]
    starts = [s.samples[-1].value for s in learned.series.get(name, ()) if s.labels.get("quantile", HIGH) == HIGH]
    lead = max(starts, default=workload.lead_time_seconds)
    if not starts:
        notes.append(f"No start of a replica was measured yet: lead_time_seconds ({lead:g} s) of the file counts.")
    return Recorded(
        demand,
        capacity,
        lead,
        rules_of(workload, config),
        Calendars(config).of(name, now),
        workload.price.per_replica_hour.currency if workload.price else None,
        float(workload.price.per_replica_hour.amount) if workload.price else 1.0,
        _replicas(source, name, demand),
        tuple(notes),
    )


def _demand(config: Config, workload: Workload, source: Source, days: float, now: float) -> Demand:
    forecast = config.forecast.model_copy(update={"history_days": days, "rollup_days": 0})
    observer = Observer(source, config.model_copy(update={"forecast": forecast, "workloads": [workload]}))
    observer.read(now, lambda: READ_SECONDS)
    error = observer.errors.get(workload.identity)
    if error is not None:
        raise error
    history = observer.history(workload.identity)
    if not np.isfinite(history.values).any():
        raise NothingRecordedError(
            f"{workload.identity}: Prometheus has no demand of the last {days:g} days; "
            "does 'tidewise check' find workload:demand:rate1m?"
        )
    return Demand(history.start, history.step_seconds, history.values)


def _capacity(config: Config, workload: Workload, source: Source, now: float, notes: list[str]) -> float:
    """Work a second of one replica, of what is learned, measured now, or configured."""
    name = workload.identity
    readings = source.contract_at(
        [LEARNED_SERVICE, SERVICE_SECONDS],
        {SERVICE_SECONDS: expressions(config).get(SERVICE_SECONDS, {})},
        now,
        config.prometheus.timeout_seconds,
    )
    seconds = workload.capacity.service_seconds
    where = "capacity.service_seconds of the file"
    for record in (SERVICE_SECONDS, LEARNED_SERVICE):  # the later one counts more
        sample = readings[record].sample(name)
        if sample is not None and sample.value > 0:
            seconds, where = sample.value, record
    if seconds is None:
        raise NothingRecordedError(
            f"{name}: nothing says how long one piece of work takes; write capacity.service_seconds, or give --capacity"
        )
    notes.append(f"One piece of work takes {seconds:.3g} s by {where}, {workload.capacity.concurrency} at once.")
    return workload.capacity.concurrency / seconds


def _replicas(source: Source, name: str, demand: Demand) -> Floats | None:
    count = len(demand.values)
    end = demand.begin + (count - 1) * demand.step_seconds
    found = source.range(f'{CURRENT}{{workload="{name}"}}', demand.begin, end, demand.step_seconds, READ_SECONDS)
    series: Any = next(iter(found), None)
    if series is None:
        return None
    values = np.full(count, np.nan)
    for sample in series.samples:
        place = round((sample.at - demand.begin) / demand.step_seconds)
        if 0 <= place < count:
            values[place] = sample.value
    return values


def as_it_was(recorded: Recorded, setting: Setting) -> Floats | None:
    """What ran at each tick; None where too little of it is recorded."""
    if recorded.replicas is None:
        return None
    steps = recorded.replicas[len(setting.history) :]
    known = np.isfinite(steps)
    if known.mean() < MIN_RECORDED:
        return None
    place = np.maximum.accumulate(np.where(known, np.arange(len(steps)), -1))
    held: Floats = np.where(place >= 0, steps[np.maximum(place, 0)], steps[known][0])
    return held[setting.step_of]
