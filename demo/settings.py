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
FAILED_KEY = f"{QUEUE}:failed_total"
FAILED_LIST = f"{QUEUE}:failed"  # the jobs that were given up
ATTEMPTS_KEY = f"{QUEUE}:paid_attempts"  # how often each paid job was begun: a redelivered one is billed again
PROCESS_SECONDS_KEY = f"{QUEUE}:process_seconds"
RESULTS_KEY = "demo:results"  # one JSON record a finished job; the demo takes them off as they come

CPU_SECONDS = 0.020  # of one job
PAUSE_SECONDS = 0.480  # of one job, waiting as for a disk or an API
MIN_WORKERS = 1
MAX_WORKERS = 20

PAID_EVERY = 10  # every tenth job makes a paid call
FAILS_EVERY, FAILS_AT = 100, 37  # job 37, 137, 237, … fails
PROVIDER, MODEL = "google", "gemini-2.5-flash"
INPUT_TOKENS, MOST_OUTPUT_TOKENS = 150, 12  # of one call; the answer is 1 to 11 tokens, by the job's number
WORKER_HOUR = "1 KRW"
TOTAL_BUDGET, USAGE_BUDGET, SERVER_COST = 24_900, 15_000, 9_900  # KRW a month
USD_IN_KRW = 1400  # the demo's assumption, so that its figures do not hang on the day
WARNED_AT = 0.75  # of the usage budget: the line that the live part passes
HOLD_SECONDS = 60.0  # until an unsettled call counts as spent
BUDGET_SECONDS = 5.0

SLO_WAIT_SECONDS = 5.0
SLO_OBJECTIVE = 0.95
SCRAPE_SECONDS = 5.0
DECISION_SECONDS = 5.0
FORECAST_SECONDS = 15.0

BURST_SECONDS_BEFORE_END = 65.0  # enough for: older than the SLO, scraped, ruled, fired, delivered, seen
RAW_HISTORY_SECONDS = 600.0
WARNED_SHARE = 0.35  # of the live part, until the line of the budget is passed

HUNG_SECONDS = 12.0  # a ready worker takes a turn every second and a half at the longest
RESTART_SHARE = 0.25  # of a start-up: what a worker is started from is there already, where it ran before
RECOVERY_SECONDS = 3.0
STABILITY_SECONDS = 10.0
NOTICED_SECONDS = 25.0  # at the longest: hung, scraped, ruled, fired, and seen by recovery
DEFAULT_SEED = 1


def active_key(slot: int) -> str:
    """The list that holds the job worker `slot` is working on. Slots count from 1 to MAX_WORKERS."""
    return f"{QUEUE}:active:{slot:02d}"


def worker_name(slot: int) -> str:
    """What the worker in this slot is called towards Prometheus and recovery."""
    return f"worker-{slot:02d}"


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
    failures: bool = True
    budget: bool = True
    long_term: bool = False
    redis_port: int | None = None
    prometheus_port: int | None = None
    alertmanager_port: int | None = None

    @property
    def restart_seconds(self) -> float:
        """From the restart of a worker to its first work."""
        return RESTART_SHARE * self.start_up_seconds

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

    @property
    def failures_planned(self) -> list[tuple[str, float]]:
        """(what happens to a worker, seconds from the live start): one is killed, and once it is mended one hangs.

        Both are mended before the end in every length that the command line allows, and before the rise in
        the full one.
        """
        if not self.failures:
            return []
        mended = NOTICED_SECONDS + self.restart_seconds + STABILITY_SECONDS
        kill = max(15.0, 0.08 * self.live_seconds)
        return [("killed", kill), ("hung", kill + mended)]


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
