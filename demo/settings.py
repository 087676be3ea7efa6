"""The demo's constants and what the command line chose: one place that every piece of it reads."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

QUEUE = "video-jobs"
SYSTEM = "redis"
WORKLOAD_NAME = "video-analysis"
WORKLOAD_NAMESPACE = "demo"
WORKLOAD = f"{WORKLOAD_NAMESPACE}/{WORKLOAD_NAME}"

ENQUEUED_KEY = f"{QUEUE}:enqueued"
COMPLETED_KEY = f"{QUEUE}:completed"
PROCESS_SECONDS_KEY = f"{QUEUE}:process_seconds"
RESULTS_KEY = "demo:results"  # one JSON record a finished job; the demo takes them off as they come

CPU_SECONDS = 0.020  # of one job
PAUSE_SECONDS = 0.480  # of one job, waiting as for a disk or an API
MIN_WORKERS = 1
MAX_WORKERS = 20

SLO_WAIT_SECONDS = 5.0
SLO_OBJECTIVE = 0.95
SCRAPE_SECONDS = 5.0
DECISION_SECONDS = 5.0
FORECAST_SECONDS = 15.0

BURST_SECONDS_BEFORE_END = 65.0  # enough for: older than the SLO, scraped, ruled, fired, delivered, seen
RAW_HISTORY_SECONDS = 600.0
DEFAULT_SEED = 1


def active_key(slot: int) -> str:
    """The list that holds the job worker `slot` is working on. Slots count from 1 to MAX_WORKERS."""
    return f"{QUEUE}:active:{slot:02d}"


ACTIVE_KEYS = tuple(active_key(slot) for slot in range(1, MAX_WORKERS + 1))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line chose. Ports: None takes a free one."""

    folder: Path
    minutes: float = 7.0
    start_up_seconds: float = 60.0
    seed: int = DEFAULT_SEED
    trace: Path | None = None
    burst: bool = True
    redis_port: int | None = None
    prometheus_port: int | None = None
    alertmanager_port: int | None = None

    @property
    def live_seconds(self) -> float:
        return self.minutes * 60.0

    @property
    def seconds_before_rise(self) -> float:
        """From the live start to the rise: time for one start-up and a minute, or half of the show."""
        return max(self.start_up_seconds + 60.0, self.live_seconds / 2)

    @property
    def burst_offset_seconds(self) -> float | None:
        return self.live_seconds - BURST_SECONDS_BEFORE_END if self.burst else None


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What the load driver delivers: Unix times of single jobs, and one burst on top (None: none)."""

    redis_url: str
    arrivals: list[float]
    end: float
    burst_at: float | None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text(encoding="utf-8")))
