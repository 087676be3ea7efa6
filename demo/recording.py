"""What one run of the demo left behind: `.demo/recording.json`, from which summary, comparison and page are computed.

Times are Unix seconds. The burst at the end is marked, so that whoever compares can leave it out.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

FILE_NAME = "recording.json"


class ComparisonError(Exception):
    """The recording holds too little for a comparison. `str()` says what is missing."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was done. Its wait is the time from enqueued_at to started_at."""

    id: str
    enqueued_at: float
    started_at: float
    finished_at: float
    burst: bool

    @property
    def wait_seconds(self) -> float:
        return self.started_at - self.enqueued_at

    @property
    def service_seconds(self) -> float:
        return self.finished_at - self.started_at


@dataclass(frozen=True, slots=True)
class FleetChange:
    """The fleet from `at` on: what it was told (wanted), and the processes that are there."""

    at: float
    wanted: int
    ready: int
    starting: int
    draining: int

    @property
    def processes(self) -> int:
        return self.ready + self.starting + self.draining


@dataclass(frozen=True, slots=True)
class Series:
    """One series of Prometheus over the live part; `times` ascending, as long as `values`."""

    name: str
    labels: Mapping[str, str]
    times: Sequence[float]
    values: Sequence[float]

    def at(self, at: float, lookback_seconds: float = 30.0) -> float | None:
        """The newest value at most `lookback_seconds` old, None where there is none."""
        index = bisect_right(self.times, at) - 1
        return self.values[index] if index >= 0 and at - self.times[index] <= lookback_seconds else None


@dataclass(frozen=True, slots=True)
class Preparation:
    """How the trace became demand. history_counts: jobs in each minute from history_start on, as backfilled."""

    trace: str
    seed: int
    rise_time_of_day: str
    rise_jobs_per_second: float
    rise_ratio: float
    rise_share_of_days: float
    history_start: float
    history_counts: Sequence[int]

    @property
    def history_days(self) -> float:
        return len(self.history_counts) / 1440


@dataclass(frozen=True, slots=True)
class Recording:
    """One run. live_end is when it ended, planned_end when it should have; burst_at None: no burst was delivered.

    arrivals: when each delivered job, the burst's left out, was put on the queue; jobs: those done, burst included.
    intensity_times, intensity_values: the trace's jobs per second without noise, linear between, an hour past the end.
    capacity_jobs_per_second: of one worker, by design. decisions: the folder of the decision records.
    """

    preparation: Preparation
    live_start: float
    live_end: float
    planned_end: float
    rise_at: float
    burst_at: float | None
    start_up_seconds: float
    capacity_jobs_per_second: float
    slo_wait_seconds: float
    slo_objective: float
    min_workers: int
    max_workers: int
    arrivals: Sequence[float]
    jobs: Sequence[Job]
    delivered: int
    undelivered: int
    left: int
    driver_latest_seconds: float
    intensity_times: Sequence[float]
    intensity_values: Sequence[float]
    fleet: Sequence[FleetChange]
    series: Sequence[Series]
    notifications: Sequence[Mapping[str, Any]]
    remarks: Sequence[str]
    timings: Mapping[str, float]
    decisions: str

    @property
    def normal_end(self) -> float:
        """Until when the run was without the burst."""
        return self.live_end if self.burst_at is None else min(self.burst_at, self.live_end)

    @property
    def service_seconds(self) -> float | None:
        """The measured mean time of a job, None when none was done."""
        return sum(job.service_seconds for job in self.jobs) / len(self.jobs) if self.jobs else None

    def named(self, name: str, **labels: str) -> list[Series]:
        """The recorded series of this name that carry these labels."""
        return [s for s in self.series if s.name == name and labels.items() <= dict(s.labels).items()]

    def write(self, folder: Path) -> None:
        """As `recording.json` in the folder."""
        (folder / FILE_NAME).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises FileNotFoundError, and ValueError or TypeError for a file of another version."""
        data = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        data["preparation"] = Preparation(**data["preparation"])
        data["jobs"] = [Job(**job) for job in data["jobs"]]
        data["fleet"] = [FleetChange(**change) for change in data["fleet"]]
        data["series"] = [Series(**series) for series in data["series"]]
        return cls(**data)
