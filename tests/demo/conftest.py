"""A recording as a run leaves it, made up: a rise at 210 s from a need of 10 to 15 workers, a burst at 355 s."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.configuration import Addresses
from demo.recording import Failure, FleetChange, Job, Money, Preparation, Recording, Repair, Series, Try

START = 1_800_000_000.0
RISE, BURST, END = START + 210.0, START + 355.0, START + 420.0
WORKLOAD = {"workload": "demo/video-analysis"}


def intensity(at: float) -> float:
    """20 jobs a second, and from the rise on up to 32 within five minutes."""
    return 20.0 + 12.0 * min(max(at - RISE, 0.0) / 300.0, 1.0)


def fleet(*told: tuple[float, int]) -> list[FleetChange]:
    """What the fleet was told at these seconds from the start; a worker is ready 60 s later."""
    changes = [FleetChange(START - 20.0, told[0][1], told[0][1], 0, 0)]
    ready = told[0][1]
    for second, wanted in told[1:]:
        changes.append(FleetChange(START + second, wanted, ready, wanted - ready, 0))
        changes.append(FleetChange(START + second + 60.0, wanted, wanted, 0, 0))
        ready = wanted
    return sorted(changes, key=lambda change: change.at)


def _jobs() -> list[Job]:
    random = np.random.default_rng(1)
    times = np.arange(START, END, 0.05)
    waits = random.exponential(0.2, len(times))
    return [
        Job(f"job-{i:06d}", float(at), float(at + wait), float(at + wait + 0.5), burst=False)
        for i, (at, wait) in enumerate(zip(times, waits, strict=True))
    ] + [Job(f"burst-{i:06d}", BURST, BURST + i / 28.0, BURST + i / 28.0 + 0.5, burst=True) for i in range(400)]


def _forecasts() -> list[Series]:
    times = np.arange(START + 10, END, 5.0)
    found = [
        Series("workload:demand:rate1m", WORKLOAD, times.tolist(), [intensity(t - 30) for t in times]),
        Series(
            "tidewise_scale_replicas_reactive", WORKLOAD, times.tolist(), [np.ceil(intensity(t) / 2) for t in times]
        ),
    ]
    for horizon in (120, 300, 900, 1800, 3600):
        labels = {**WORKLOAD, "horizon_seconds": str(horizon)}
        values = [intensity(t + horizon) * 1.02 for t in times]
        found.append(Series("workload:forecast_demand:value", labels, times.tolist(), values))
        found += [
            Series(
                "workload:forecast_demand:quantile", {**labels, "quantile": f"{quantile:g}"},
                times.tolist(), [value * factor for value in values],
            )
            for quantile, factor in ((0.1, 0.9), (0.9, 1.12))
        ]  # fmt: skip
    return found


def _spend() -> list[Series]:
    times = np.arange(START + 10, END, 5.0)
    posted = [11_210.0 + 0.25 * (t - START) for t in times]
    on = {"budget": "usage", "currency": "KRW"}
    return [
        Series("tidewise_budget_posted", on, times.tolist(), posted),
        Series("tidewise_budget_held", on, times.tolist(), [1.5] * len(times)),
    ]


STATE = {
    "limit": "15000", "posted": "11315", "held": "0.5", "committed": "90", "remaining": "3594.5",
    "projected": "12800.25", "level": "normal",
}  # fmt: skip
LINE = {
    "provider": "google", "service": "", "model": "gemini-2.5-flash", "workflow": "live",
    "workload": "demo/video-analysis", "posted": "105", "held": "0.5", "committed": "0", "entries": 2000,
}  # fmt: skip
REPAIRS = [
    Repair("worker-01", "WorkerDown", START + 44.0, [Try("restart", START + 44.1, START + 44.5, "done")],
           START + 110.0, START + 122.0, "recovered"),
    Repair("worker-02", "WorkerHung", START + 150.0, [Try("restart", START + 150.1, START + 150.5, "done")],
           None, None, None),
]  # fmt: skip


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One run that went well: the fleet was told 15 workers 90 s before demand needed them."""
    minutes = np.arange(START - 3600.0, END + 3600.0, 60.0)
    history = np.random.default_rng(2).poisson(900 + 300 * np.sin(np.arange(22 * 1440) / 1440 * 2 * np.pi))
    jobs = _jobs()
    return Recording(
        preparation=Preparation(
            trace="made up", seed=7, rise_time_of_day="13:20", rise_jobs_per_second=8.0, rise_ratio=0.4,
            rise_share_of_days=1.0, history_start=START - 22 * 86400.0, history_counts=history.tolist(),
        ),
        live_start=START, live_end=END, planned_end=END, rise_at=RISE, burst_at=BURST,
        start_up_seconds=60.0, capacity_jobs_per_second=2.0, slo_wait_seconds=5.0, slo_objective=0.95,
        min_workers=1, max_workers=20,
        arrivals=[job.enqueued_at for job in jobs if not job.burst], jobs=jobs,
        delivered=len(jobs), undelivered=0, left=0, driver_latest_seconds=0.004,
        intensity_times=minutes.tolist(), intensity_values=[intensity(at) for at in minutes],
        fleet=fleet((0, 11), (320, 15)), series=[*_forecasts(), *_spend()],
        notifications=[{"at": BURST + 33.0, "status": "firing", "alertname": "QueueAgeSLO", "labels": WORKLOAD,
                        "summary": "Work of demo/video-analysis waits 14s, longer than promised.", "link": None}],
        remarks=[], timings={"fetch_seconds": 0.1, "set_up_seconds": 8.0, "cpu_seconds": 90.0, "whole_seconds": 450.0},
        decisions=str(tmp_path_factory.mktemp("decisions")),
        failures=[Failure("killed", "worker-01", START + 34.0, START + 44.5),
                  Failure("hung", "worker-02", START + 129.0, START + 150.5)],
        repairs=REPAIRS,
        money=Money(assumed=11_210.0, limit=15_000.0, warned_ratio=0.75, time_zone="Asia/Seoul",
                    state={"budgets": {"usage": STATE}}, statement={"lines": [LINE]}),
    )  # fmt: skip


@pytest.fixture(scope="session")
def addresses() -> Addresses:
    """Where nothing listens: for configuration that is only written."""
    return Addresses(
        "redis://127.0.0.1:20001/0",
        prometheus_port=20002,
        alertmanager_port=20003,
        exporter_port=20004,
        forecast_port=20005,
        scale_port=20006,
        budget_port=20008,
        recovery_port=20009,
        fleet_port=20010,
        receiver_port=20007,
        long_term_port=20011,
    )


@pytest.fixture
def changed(recording: Recording) -> Callable[..., Recording]:
    """The recording with other values: `changed(burst_at=None)`."""

    def change(**values: Any) -> Recording:
        return replace(recording, **values)

    return change


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[[str], Path]:
    """A CSV file with this text."""

    def write(text: str) -> Path:
        path = tmp_path / "trace.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write
