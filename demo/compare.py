"""Our decide() beside a reactive rule: one simulator, the demand that was recorded, the burst left out.

Each job takes the time that it took, whoever serves it. The forecasts are those that were published at the time, taken
from the decision records, so nothing is known too early; those made after the burst began saw it, and are left out with
it. The fleet as it really was is simulated up to the burst, to be held against the waits that were measured until then.
The reactive rule is a HorizontalPodAutoscaler at the best of its targets of 50 to 90 %: of those that take no more
worker-minutes than ours, the one with the shortest p95 wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from controllers.domain import Forecast
from controllers.replay.policies import hpa, recorded, tidewise
from controllers.replay.simulate import Policy, Result, Setting, simulate
from controllers.scale.records import Record, RecordError, read
from controllers.scale.state import Rules
from demo.recording import ComparisonError, FleetChange, Job, Recording

TARGETS = [percent / 100 for percent in range(50, 91)]
FEWEST_JOBS = 100


def compare(recording: Recording) -> dict[str, Any]:
    """Wait and cost of each policy. Raises ComparisonError if the recording holds too little."""
    records = _records(recording)
    jobs = sorted({job.id: job for job in recording.jobs if _counts(job, recording)}.values(), key=_enqueued)
    undisturbed = [job for job in jobs if job.enqueued_at < recording.normal_end]
    arrivals, services = [job.enqueued_at for job in jobs], [job.service_seconds for job in jobs]
    service = recording.service_seconds
    if len(arrivals) < FEWEST_JOBS or service is None:
        raise ComparisonError(f"only {len(arrivals)} jobs arrived; a comparison needs {FEWEST_JOBS}")
    rules, forecasts = records[-1].rules, _forecasts(records, recording.normal_end)
    setting = Setting(
        start=recording.live_start,
        end=recording.live_end,
        interval_seconds=rules.interval_seconds,
        lead_time_seconds=recording.start_up_seconds,
        service_seconds=service,
        concurrency=rules.concurrency,
        replicas=_at(recording.fleet, recording.live_start).ready,
        before=_before(recording),
    )

    def run(policy: Policy, setting: Setting) -> Result:
        return simulate(arrivals, policy, setting, services)

    ours = run(tidewise(rules, service, forecasts), setting)
    target, theirs = _best_reactive(run, setting, rules, ours)
    fleet = simulate(
        [job.enqueued_at for job in undisturbed],
        _as_recorded(recording),
        replace(setting, end=recording.normal_end, interval_seconds=1.0, lead_time_seconds=0.0),
        [job.service_seconds for job in undisturbed],
    )
    return {
        "simulated": {
            "tidewise": _figures(ours),
            "reactive": {**_figures(theirs), "target": target},
            "measured_fleet": _figures(fleet),
        },
        "forecasts": len(forecasts),
    }


def _counts(job: Job, recording: Recording) -> bool:
    return not job.burst and recording.live_start <= job.enqueued_at < recording.live_end


def _enqueued(job: Job) -> float:
    return job.enqueued_at


def _best_reactive(
    run: Callable[[Policy, Setting], Result], setting: Setting, rules: Rules, ours: Result
) -> tuple[float, Result]:
    """The target with the shortest p95 wait within our worker-minutes; the cheapest where none is within."""
    least, most = rules.min_replicas, rules.max_replicas
    runs = [(target, run(hpa(target, setting.service_seconds, least, most), setting)) for target in TARGETS]
    within = [run for run in runs if run[1].replica_seconds <= ours.replica_seconds]
    if within:
        return min(within, key=lambda run: (run[1].wait_quantile(0.95) or 0.0, run[1].replica_seconds))
    return min(runs, key=lambda run: run[1].replica_seconds)


def _records(recording: Recording) -> list[Record]:
    try:
        records = list(read(Path(recording.decisions), since=recording.live_start - 60, until=recording.live_end))
    except RecordError as error:
        raise ComparisonError(str(error)) from None
    if not records:
        raise ComparisonError(f"{recording.decisions}: no decision was recorded")
    return records


def _forecasts(records: list[Record], until: float) -> list[Forecast]:
    made = {record.state.forecast.made_at: record.state.forecast for record in records if record.state.forecast}
    return [made[at] for at in sorted(made) if at <= until]


def _at(fleet: Sequence[FleetChange], at: float) -> FleetChange:
    if not fleet:
        raise ComparisonError("the fleet was never seen")
    before = [change for change in fleet if change.at <= at]
    return before[-1] if before else fleet[0]


def _before(recording: Recording) -> list[float]:
    """Arrivals of the minute before the start, as the trace has them: the first rate must not be zero."""
    rate = recording.intensity_values[0]
    return [recording.live_start - (i + 0.5) / rate for i in range(int(rate * 60))][::-1] if rate > 0 else []


def _as_recorded(recording: Recording) -> Policy:
    """The workers that worked: one that hung counted as ready until it was restarted, and did nothing."""
    ready_at = recorded([(change.at, change.ready) for change in recording.fleet])
    hung = [(one.at, one.restarted_at) for one in recording.failures if one.what == "hung"]

    def working(now: float) -> int:
        return ready_at(now) - sum(at <= now and (until is None or now < until) for at, until in hung)

    return lambda seen: max(0, working(seen.now))


def _figures(result: Result) -> dict[str, float | None]:
    wait = result.wait_quantile(0.95)
    return {
        "wait_p95_seconds": None if wait is None else round(wait, 3),
        "worker_minutes": round(result.replica_seconds / 60, 2),
    }
