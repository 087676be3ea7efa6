"""The figures of one run, from its recording: pure, so that they can be computed again and tested."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from demo.recording import FleetChange, Job, Recording, Repair

AGE_ALERT = "QueueAgeSLO"
BUDGET_ALERT = "BudgetThreshold"
BUDGET_FIGURES = ("held", "committed", "remaining", "projected")
HEADROOM = 1.2  # a fleet that is larger than this x need has no lead, it is simply large
EARLY_SECONDS = 60.0  # earlier than this plus a start-up before the rise, nobody asks for workers because of it
FIDELITY_LIMIT = 0.15  # by how much the simulator's p95 wait may miss the measured one


def summary(recording: Recording, comparison: Mapping[str, Any] | None, why_not: str | None) -> dict[str, Any]:
    """What `summary.json` holds. comparison: what `demo.compare.compare` returned, None when it could not (why_not).

    Every figure that could not be had is null, with its reason beside it.
    """
    jobs = list({job.id: job for job in recording.jobs}.values())
    failed = sum(job.failed for job in jobs)
    normal = [job.wait_seconds for job in jobs if not job.burst and job.enqueued_at < recording.normal_end]
    lead, lead_reason = ramp_lead_seconds(recording)
    wait_p95 = percentile(normal, 95)
    simulated = dict(comparison["simulated"]) if comparison else {"tidewise": None, "reactive": None}
    return {
        "complete": recording.live_end >= recording.planned_end,
        "live_seconds": round(recording.live_end - recording.live_start, 1),
        "burst_at_seconds": None if recording.burst_at is None else round(recording.burst_at - recording.live_start, 1),
        "jobs_delivered": recording.delivered,
        "jobs_done": len(jobs) - failed,
        "jobs_failed": failed,
        "jobs_left": recording.left,
        "jobs_lost": max(0, recording.delivered - len(jobs) - recording.left),
        "jobs_undelivered": recording.undelivered,
        "wait_p50_seconds": _rounded(percentile(normal, 50)),
        "wait_p95_seconds": _rounded(wait_p95),
        "wait_p95_with_burst_seconds": _rounded(percentile([job.wait_seconds for job in jobs], 95)),
        "wait_within_slo_ratio": _rounded(_share(normal, recording.slo_wait_seconds)),
        "service_mean_seconds": _rounded(recording.service_seconds),
        "worker_minutes": _rounded(worker_minutes(recording.fleet, recording.live_start, recording.live_end)),
        "worker_minutes_before_burst": _rounded(
            worker_minutes(recording.fleet, recording.live_start, recording.normal_end)
        ),
        "ramp_lead_seconds": _rounded(lead),
        "ramp_lead_reason": lead_reason,
        "start_up_seconds": recording.start_up_seconds,
        "notifications": sum(n["status"] == "firing" for n in recording.notifications),
        "notification_seconds_after_burst": _rounded(notification_delay(recording)),
        "money": money(recording, jobs),
        "repairs": repairs(recording),
        "long_term": None if recording.long_term is None else asdict(recording.long_term),
        "simulated": simulated,
        "simulated_reason": why_not,
        "simulator": simulator_fidelity(wait_p95, simulated.get("measured_fleet")),
        "driver_latest_seconds": _rounded(recording.driver_latest_seconds),
        "cpu_cores": _rounded(cpu_cores(recording)),
        "timings": {name: round(seconds, 1) for name, seconds in recording.timings.items()},
        "remarks": list(recording.remarks),
    }


def percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None


def _share(waits: Sequence[float], limit: float) -> float | None:
    return sum(wait <= limit for wait in waits) / len(waits) if waits else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def worker_minutes(fleet: Sequence[FleetChange], start: float, end: float) -> float | None:
    """What the fleet cost in [start, end): every process counts, also while it starts or drains. None: unknown."""
    if not fleet or end <= start:
        return None
    total = 0.0
    for index, change in enumerate(fleet):
        until = fleet[index + 1].at if index + 1 < len(fleet) else end
        total += max(0.0, min(until, end) - max(change.at, start)) * change.processes
    return total / 60.0


def need(recording: Recording, times: Sequence[float]) -> list[int]:
    """Workers that the trace's demand needs at these times, noise left out: ceil(demand / capacity of one worker)."""
    demand = np.interp(times, recording.intensity_times, recording.intensity_values)
    service = recording.service_seconds
    capacity = 1.0 / service if service else recording.capacity_jobs_per_second
    return [math.ceil(jobs / capacity - 1e-9) for jobs in demand]


def wanted_at(fleet: Sequence[FleetChange], at: float) -> int | None:
    """What the fleet had last been told at this time, None before it was told anything."""
    told = [change.wanted for change in fleet if change.at <= at]
    return told[-1] if told else None


def ramp_lead_seconds(recording: Recording) -> tuple[float | None, str | None]:
    """How long before demand needed the higher level the fleet was told a number that suffices for it.

    The higher level is the most that the trace's demand needs in the live part. It counts only where the number told
    before was at most 1.2 x need, and where it can have been for the rise: told no earlier than a start-up and a
    minute before that began. (seconds, None), or (None, why it does not count).
    """
    times = np.arange(recording.live_start, recording.live_end, 1.0).tolist()
    if not times:
        return None, "nothing was recorded"
    needed = need(recording, times)
    level = max(needed)
    before_rise = need(recording, [min(recording.rise_at, recording.live_end)])[0]
    if recording.live_end <= recording.rise_at or level <= before_rise:
        return None, f"demand never needed more than the {before_rise} workers of before the rise"
    needed_at = times[needed.index(level)]
    told = [wanted_at(recording.fleet, at) for at in times]
    sufficing = [at for at, number in zip(times, told, strict=True) if number is not None and number >= level]
    if not sufficing:
        return None, f"the fleet was never told the {level} workers that demand came to need"
    first = sufficing[0]
    if first <= times[0]:
        return None, f"the fleet was told the {level} workers before the live part began: headroom, not foresight"
    if first < recording.rise_at - recording.start_up_seconds - EARLY_SECONDS:
        return None, (
            f"the fleet was told the {level} workers {recording.rise_at - first:.0f} s before the rise began: "
            "for work that waited, or as headroom, but not for the rise"
        )
    for at, number, required in zip(times, told, needed, strict=True):
        if at < first and number is not None and number > HEADROOM * max(required, 1):
            return None, (
                f"{at - recording.live_start:.0f} s after the start the fleet was told {number} workers "
                f"where {required} were needed: headroom, not foresight"
            )
    if recording.burst_at is not None and first >= recording.burst_at:
        return None, f"the {level} workers were only asked for under the burst"
    return needed_at - first, None


def notification_delay(recording: Recording) -> float | None:
    """Seconds from the burst to the notification that the queue's age is above its SLO, None without either."""
    if recording.burst_at is None:
        return None
    told = [float(n["at"]) for n in recording.notifications if n["status"] == "firing" and n["alertname"] == AGE_ALERT]
    return next((at - recording.burst_at for at in sorted(told) if at >= recording.burst_at), None)


def money(recording: Recording, jobs: Sequence[Job]) -> dict[str, Any] | None:
    """What was spent of the budget for paid calls, in KRW, and when people were warned; None without a budget.

    `posted_live`: by the ledger's last word less what was assumed of the month before. `warnings`: BudgetThreshold
    alerts that reached people; `warned_before_limit`: the first came while posted spend was below the limit.
    """
    told = recording.money
    if told is None:
        return None
    permits = Counter(job.permit for job in jobs if job.permit is not None)
    warnings = sorted(
        float(n["at"]) for n in recording.notifications if n["status"] == "firing" and n["alertname"] == BUDGET_ALERT
    )
    usage = told.state["budgets"]["usage"] if told.state is not None else {}
    figures = {name: float(usage[name]) if usage.get(name) is not None else None for name in BUDGET_FIGURES}
    spent = told.posted
    return {
        "limit": told.limit,
        "time_zone": told.time_zone,
        "posted_before": _rounded(told.assumed),
        "posted": _rounded(spent),
        "posted_live": _rounded(None if spent is None else spent - told.assumed),
        **{name: _rounded(value) for name, value in figures.items()},
        "level": usage.get("level"),
        "paid_calls": permits["granted"],
        "paid_calls_denied": permits["denied"],
        "paid_calls_unanswered": permits["unanswered"],
        "warnings": len(warnings),
        "warned_at_seconds": round(warnings[0] - recording.live_start, 1) if warnings else None,
        "warned_before_limit": None if not warnings or spent is None else spent < told.limit,
    }


def repairs(recording: Recording) -> list[dict[str, Any]]:
    """What became of each worker that was made to fail, and of each other that recovery took up; seconds from the
    failure (from the first sign, where nobody made it fail)."""
    taken = list(recording.repairs)
    found = []
    for failure in recording.failures:
        repair = next((r for r in taken if r.worker == failure.worker and r.opened_at >= failure.at), None)
        if repair is not None:
            taken.remove(repair)
        found.append(_repair(recording, failure.what, failure.worker, failure.at, repair))
    found += [_repair(recording, None, r.worker, r.opened_at, r) for r in taken]
    return sorted(found, key=lambda one: float(one["at_seconds"]))


def _repair(recording: Recording, what: str | None, worker: str, at: float, repair: Repair | None) -> dict[str, Any]:
    told = [
        float(n["at"])
        for n in recording.notifications
        if repair is not None
        and (n["status"], n["alertname"], n["labels"].get("worker")) == ("firing", repair.symptom, worker)
        and float(n["at"]) >= at
    ]

    def after(moment: float | None) -> float | None:
        return None if moment is None else round(moment - at, 1)

    tries = repair.tries if repair is not None else ()
    return {
        "what": what,
        "worker": worker,
        "at_seconds": round(at - recording.live_start, 1),
        "alert": repair.symptom if repair is not None else None,
        "confirmed_after": after(repair.opened_at if repair is not None else None),
        "people_told_after": after(min(told, default=None)),
        "restarted_after": after(tries[-1].ended_at if tries else None),
        "attempts": len(tries),
        "well_after": after(repair.well_since if repair is not None else None),
        "verified_after": after(repair.closed_at if repair is not None else None),
        "mended": repair is not None and repair.mended,
    }


def cpu_cores(recording: Recording) -> float | None:
    """CPU time of everything that the demo started, over how long it ran."""
    used, whole = recording.timings.get("cpu_seconds"), recording.timings.get("whole_seconds")
    return None if used is None or not whole else used / whole


def simulator_fidelity(measured: float | None, simulated: Mapping[str, Any] | None) -> dict[str, Any]:
    """How well the simulator, given the fleet as it was, reproduces the measured p95 wait."""
    wait = simulated.get("wait_p95_seconds") if simulated else None
    if measured is None or wait is None:
        return {"measured": _rounded(measured), "simulated": _rounded(wait), "error_ratio": None, "within_limit": None}
    error = abs(wait - measured) / max(measured, 1e-3)
    return {
        "measured": _rounded(measured),
        "simulated": _rounded(wait),
        "error_ratio": _rounded(error),
        "within_limit": error <= FIDELITY_LIMIT,
    }
