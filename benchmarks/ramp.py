"""The demo's ramp over several seeds, without its minutes: decide() on our forecasts beside the reactive rule.

`python -m benchmarks.ramp [--seeds 5]` prepares the demo's trace as the demo does, draws it anew for each seed,
forecasts each 15 seconds with what was known then, and runs both policies through the one simulator. It prints each
seed's p95 wait, worker-minutes and lead, and the medians as ratios. One run of the demo is one draw; this says how much
of it was luck.
"""

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.domain import Mode
from controllers.forecast.almanac import Calendar
from controllers.forecast.history import History, regular
from controllers.forecast.predict import forecast
from controllers.forecast.selection import select
from controllers.replay.policies import hpa, tidewise
from controllers.replay.simulate import Result, Setting, simulate
from controllers.scale.state import Rules
from demo import settings, trace
from demo.settings import Settings

HORIZONS = (120, 300, 900, 1800, 3600)
QUANTILES = (0.1, 0.9, 0.98)
TARGETS = [percent / 100 for percent in range(50, 91)]
LIVE_START = 1_800_000_030.0  # so that bins end on full minutes with the default of seven minutes
RULE_DELAY_SECONDS = 10.0  # a bin is read this long after its end


@dataclass(frozen=True)
class Outcome:
    ours: Result
    theirs: Result
    target: float
    lead_seconds: float | None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ramp", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--service", type=float, default=0.515, help="seconds a job takes (default: %(default)s)")
    options = parser.parse_args()
    chosen = Settings(folder=Path("."), minutes=options.minutes)
    demand = trace.prepared(trace.read_azure(), chosen.seconds_before_rise, LIVE_START)
    print("seed   p95 wait s: ours  reactive   worker-min: ours  reactive   target   lead s")
    outcomes = []
    for seed in range(1, options.seeds + 1):
        outcome = one(demand, chosen, seed, options.service)
        outcomes.append(outcome)
        ours, theirs = outcome.ours, outcome.theirs
        lead = "none" if outcome.lead_seconds is None else f"{outcome.lead_seconds:.0f}"
        print(
            f"{seed:4}{_p95(ours):18.3f}{_p95(theirs):10.3f}{ours.replica_seconds / 60:19.1f}"
            f"{theirs.replica_seconds / 60:10.1f}{outcome.target:9.2f}{lead:>9}"
        )
    waits = statistics.median(_p95(o.ours) / max(_p95(o.theirs), 1e-3) for o in outcomes)
    costs = statistics.median(o.ours.replica_seconds / o.theirs.replica_seconds for o in outcomes)
    leads = [o.lead_seconds for o in outcomes if o.lead_seconds is not None]
    print(f"medians: p95 wait x{waits:.2f} of the reactive rule's, worker-minutes x{costs:.2f}, ", end="")
    print(f"lead {statistics.median(leads):.0f} s in {len(leads)} of {len(outcomes)}" if leads else "no lead")
    return 0


def one(demand: trace.Demand, chosen: Settings, seed: int, service: float) -> Outcome:
    """One draw of the trace under both policies."""
    start, end = LIVE_START, LIVE_START + chosen.live_seconds
    arrivals = demand.arrivals(start - 86_400.0, end, seed)
    whole = minutes_of(demand, arrivals, start, seed)
    fitted = select(whole.until(start), Calendar(), HORIZONS)
    forecasts = [
        forecast(whole.until(at - RULE_DELAY_SECONDS), Calendar(), fitted, at, quantiles=QUANTILES, valid_seconds=900)
        for at in np.arange(start, end, 15.0).tolist()
    ]
    live = arrivals[arrivals >= start].tolist()
    need = math.ceil(float(demand.intensity(start)) * service)
    setting = Setting(
        start, end, settings.DECISION_SECONDS, chosen.start_up_seconds, service, 1, need + 1,
        before=arrivals[(arrivals >= start - 60) & (arrivals < start)].tolist(),
    )  # fmt: skip
    ours = simulate(live, tidewise(rules(chosen), service, forecasts), setting)
    runs = [(t, simulate(live, hpa(t, service, settings.MIN_WORKERS, settings.MAX_WORKERS), setting)) for t in TARGETS]
    within = [run for run in runs if run[1].replica_seconds <= ours.replica_seconds] or runs[-1:]
    target, theirs = min(within, key=lambda run: (_p95(run[1]), run[1].replica_seconds))
    return Outcome(ours, theirs, target, lead_seconds(demand, ours, start, end, service))


def minutes_of(demand: trace.Demand, arrivals: trace.Floats, start: float, seed: int) -> History:
    """Demand per second in bins of one minute to the end of the live part, as the reader of Prometheus has it."""
    first = demand.minute_at(start) - 1440
    counts = demand.counts(first, seed)
    ends = demand.starts_at + 60.0 * (np.arange(len(counts)) + 1)
    late_ends = np.arange(demand.starts_at + first * 60.0 + 60.0, float(arrivals[-1]), 60.0)
    late = np.histogram(arrivals, np.concatenate([[late_ends[0] - 60.0], late_ends]))[0]
    samples = [*zip(ends.tolist(), (counts / 60.0).tolist(), strict=True)]
    samples += zip(late_ends.tolist(), (late / 60.0).tolist(), strict=True)
    return regular(samples, now=float(arrivals[-1]) + 60.0, days=40.0)


def rules(chosen: Settings) -> Rules:
    return Rules(
        workload=settings.WORKLOAD,
        is_queue=True,
        min_replicas=settings.MIN_WORKERS,
        max_replicas=settings.MAX_WORKERS,
        wait_seconds=settings.SLO_WAIT_SECONDS,
        objective=settings.SLO_OBJECTIVE,
        concurrency=1,
        service_seconds=None,
        lead_time_seconds=chosen.start_up_seconds,
        minimum_run_seconds=60.0,
        stabilization_window_seconds=300.0,
        up_per_minute=None,
        down_per_minute=None,
        interval_seconds=settings.DECISION_SECONDS,
        data_age_limit_seconds=120.0,
        mode=Mode.ACT,
    )


def lead_seconds(demand: trace.Demand, ours: Result, start: float, end: float, service: float) -> float | None:
    """Demand first needs its highest level, less when ours first sufficed; None where it never did, or always."""
    times = np.arange(start, end, 1.0)
    need = np.ceil(np.asarray(demand.intensity(times)) * service - 1e-9)
    level = float(need.max())
    sufficed = [at for at, wanted, _ in ours.timeline if wanted >= level]
    if not sufficed or sufficed[0] <= start:
        return None
    return float(times[int(np.argmax(need))]) - sufficed[0]


def _p95(result: Result) -> float:
    return result.wait_quantile(0.95) or 0.0


if __name__ == "__main__":
    sys.exit(main())
