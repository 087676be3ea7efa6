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
    """A job that was finished, well or not. Its wait is the time from enqueued_at to started_at.

    failed: it was given up. permit: what the ledger said to its paid call; None: it makes none.
    """

    id: str
    enqueued_at: float
    started_at: float
    finished_at: float
    burst: bool
    failed: bool = False
    permit: str | None = None

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
class Failure:
    """What was done to a worker at `at`: killed, hung. restarted_at: when it was started anew, None: it was not."""

    what: str
    worker: str
    at: float
    restarted_at: float | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt of recovery, from its reservation to its outcome; None: not known."""

    step: str
    at: float
    ended_at: float | None
    result: str | None


@dataclass(frozen=True, slots=True)
class Repair:
    """One operation of recovery. well_since: from when on the symptom was away; closed_at: that was verified."""

    worker: str
    symptom: str
    opened_at: float
    tries: Sequence[Try]
    well_since: float | None
    closed_at: float | None
    closed_for: str | None

    @property
    def mended(self) -> bool:
        return self.closed_for == "recovered"


@dataclass(frozen=True, slots=True)
class Money:
    """What the ledger said. assumed: posted before the live part, in KRW; state, statement: as its HTTP API has them.

    state and statement are those after the last job; None: it did not answer.
    """

    assumed: float
    limit: float
    warned_ratio: float
    time_zone: str
    state: Mapping[str, Any] | None
    statement: Mapping[str, Any] | None

    @property
    def posted(self) -> float | None:
        return None if self.state is None else float(self.state["budgets"]["usage"]["posted"])


@dataclass(frozen=True, slots=True)
class LongTerm:
    """What the second Prometheus held at the end: contract series, and names that are none (there should be none)."""

    contract_series: int | None
    others: int | None


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
    failures: what was done to workers on purpose; repairs: what recovery's journal says. money: None without a budget.
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
    failures: Sequence[Failure] = ()
    repairs: Sequence[Repair] = ()
    money: Money | None = None
    long_term: LongTerm | None = None

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
        data["failures"] = [Failure(**failure) for failure in data["failures"]]
        data["repairs"] = [Repair(**{**r, "tries": [Try(**one) for one in r["tries"]]}) for r in data["repairs"]]
        data["money"] = Money(**data["money"]) if data["money"] else None
        data["long_term"] = LongTerm(**data["long_term"]) if data["long_term"] else None
        return cls(**data)
