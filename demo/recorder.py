"""Gathers what one run leaves behind: finished jobs from Redis while it runs, everything else at its end."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import redis

from demo import prom, settings
from demo.history import History
from demo.load import Progress, read_progress
from demo.recording import Failure, FleetChange, Job, LongTerm, Money, Preparation, Recording, Repair, Series
from demo.trace import JOBS_PER_SECOND, Demand

BATCH = 1000
AFTER_END_SECONDS = 3600.0  # of the trace, so that the page can show what the last forecasts were about


class Results:
    """Takes the workers' records off Redis and keeps them in `results.jsonl`, so that they outlive it."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.jobs: list[Job] = []
        self._path = folder / "results.jsonl"
        self._client = redis.Redis.from_url(
            redis_url, socket_timeout=2.0, socket_connect_timeout=0.5, retry=None, protocol=2, decode_responses=True
        )

    def collect(self) -> bool:
        """Take what is there; False while Redis is away. Records of jobs that are not the demo's are left out."""
        while True:
            try:
                lines = self._client.lpop(settings.RESULTS_KEY, BATCH)
            except redis.RedisError:
                return False
            if not isinstance(lines, list):
                return True
            with self._path.open("a", encoding="utf-8") as log:
                log.writelines(str(line) + "\n" for line in lines)
            records = [json.loads(line) for line in lines]
            self.jobs += [_job(record) for record in records if record["enqueued_at"] is not None]

    def left(self) -> int | None:
        """Jobs that wait or are worked on, None while Redis is away."""
        try:
            with self._client.pipeline(transaction=True) as together:
                for key in (settings.QUEUE, *settings.ACTIVE_KEYS):
                    together.llen(key)
                return sum(int(length) for length in together.execute())
        except redis.RedisError:
            return None


def _job(record: Mapping[str, Any]) -> Job:
    return Job(
        str(record["id"]),
        float(record["enqueued_at"]),
        float(record["started_at"]),
        float(record["finished_at"]),
        bool(record["burst"]),
        bool(record["failed"]),
        record["permit"],
    )


def read_fleet(folder: Path) -> list[FleetChange]:
    """The fleet's timeline as the foreman wrote it."""
    return [
        FleetChange(line["at"], line["replicas"], line["ready"], line["starting"], line["draining"])
        for line in _lines(folder / "fleet.jsonl")
    ]


def read_arrivals(folder: Path) -> list[float]:
    """When each delivered job, the burst's left out, was put on the queue."""
    return [line["enqueued_at"] for line in _lines(folder / "delivered.jsonl") if not line.get("burst")]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # a line cut short by a kill is left out
    return [json.loads(line) for line in whole.splitlines()]


def read_series(prometheus_url: str, start: float, end: float) -> tuple[list[Series], str | None]:
    """What Prometheus recorded of the live part, or nothing and why."""
    try:
        return prom.span(prometheus_url, prom.SHOWN, start, end, settings.SCRAPE_SECONDS), None
    except prom.PrometheusError as error:
        return [], f"Prometheus did not answer at the end, its series are missing on the page ({error})"


def recorded(
    chosen: settings.Settings,
    demand: Demand,
    history: History,
    live: tuple[float, float, float],
    results: Results,
    left: int | None,
    series: list[Series],
    notifications: list[dict[str, Any]],
    remarks: list[str],
    timings: dict[str, float],
    *,
    failures: list[Failure],
    repairs: list[Repair],
    money: Money | None,
    long_term: LongTerm | None,
) -> Recording:
    """The recording of a run. live: its start, its end, and its planned end."""
    start, end, planned_end = live
    progress = read_progress(chosen.folder) or Progress()
    minutes = demand.starts_at + 60.0 * np.arange(len(demand.minutes))
    kept = (minutes >= start - 3600.0) & (minutes <= planned_end + AFTER_END_SECONDS)
    rise = asdict(demand.rise)
    if left is None:
        remarks = [*remarks, "Redis was away at the end: what waited in it counts as lost"]
    return Recording(
        preparation=Preparation(
            trace=demand.source,
            seed=chosen.seed,
            rise_time_of_day=demand.rise_time_of_day,
            rise_jobs_per_second=rise["jobs_per_second"],
            rise_ratio=rise["ratio"],
            rise_share_of_days=rise["share_of_days"],
            history_start=history.starts_at,
            history_counts=history.counts.tolist(),
        ),
        live_start=start,
        live_end=end,
        planned_end=planned_end,
        rise_at=demand.rise_at,
        burst_at=progress.burst_at,
        start_up_seconds=chosen.start_up_seconds,
        capacity_jobs_per_second=JOBS_PER_SECOND,
        slo_wait_seconds=settings.SLO_WAIT_SECONDS,
        slo_objective=settings.SLO_OBJECTIVE,
        min_workers=settings.MIN_WORKERS,
        max_workers=settings.MAX_WORKERS,
        arrivals=read_arrivals(chosen.folder),
        jobs=results.jobs,
        delivered=progress.delivered,
        undelivered=progress.undelivered,
        left=left or 0,
        driver_latest_seconds=progress.latest_seconds,
        intensity_times=minutes[kept].tolist(),
        intensity_values=demand.minutes[kept].tolist(),
        fleet=read_fleet(chosen.folder),
        series=series,
        notifications=notifications,
        remarks=remarks,
        timings=timings,
        decisions=str(chosen.folder / "decisions"),
        failures=failures,
        repairs=repairs,
        money=money,
        long_term=long_term,
    )
