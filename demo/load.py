"""The load driver: delivers the planned jobs to the Redis queue at their times, whatever the workers do (open loop).

`python -m demo.load PLAN`. A job and the count of it go in together (MULTI). While Redis is away, jobs that fall due
are not delivered; the driver counts them, says so, and goes on with the schedule when Redis is back.
"""

import argparse
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

import redis

from demo import settings
from demo.fleet import read_state

BURST_AGE_SECONDS = 15.0  # how old the queue's head becomes under the burst: three times the SLO


@dataclass(slots=True)
class Progress:
    """What the driver did so far; written to `load.json` every second."""

    due: int = 0
    delivered: int = 0
    undelivered: int = 0
    latest_seconds: float = 0.0  # the latest that any delivery came after its time
    burst_at: float | None = None
    burst_jobs: int = 0
    finished: bool = False


class Driver:
    """Delivers one plan. `wait(seconds)` pauses and answers whether it is to stop."""

    def __init__(self, plan: settings.LoadPlan, folder: Path, wait: Callable[[float], bool]) -> None:
        self.plan = plan
        self.folder = folder
        self.wait = wait
        self.progress = Progress()
        self.client = redis.Redis.from_url(
            plan.redis_url, socket_timeout=5.0, socket_connect_timeout=1.0, retry=None, protocol=2
        )
        self._written = 0.0
        self._away_since: float | None = None

    def run(self) -> None:
        """Deliver everything due until the plan's end, then note that it is finished."""
        burst_at = self.plan.burst_at
        with (self.folder / "delivered.jsonl").open("a", encoding="utf-8") as log:
            for number, due in enumerate(self.plan.arrivals):
                if burst_at is not None and due >= burst_at:
                    if self._pause_until(burst_at, log):
                        break
                    self._burst(log)
                    burst_at = None
                if self._pause_until(due, log):
                    break
                self._deliver(number, due, log)
            else:
                if burst_at is not None and not self._pause_until(burst_at, log):
                    self._burst(log)
                self.progress.finished = not self._pause_until(self.plan.end, log)
            self._note(log)

    def _pause_until(self, due: float, log: TextIO) -> bool:
        now = time.time()
        if now - self._written >= 1.0:
            self._note(log)
        return self.wait(max(0.0, due - now))

    def _deliver(self, number: int, due: float, log: TextIO, *, burst: bool = False) -> None:
        self.progress.due += 1
        now = time.time()
        if self._away_since is not None and now - self._away_since < 0.5:
            self.progress.undelivered += 1  # one try in half a second is enough while nobody answers
            return
        job = job_of(number, now, burst=burst)
        try:
            with self.client.pipeline(transaction=True) as together:
                together.lpush(settings.QUEUE, json.dumps(job))
                together.incr(settings.ENQUEUED_KEY)
                together.execute()
        except redis.RedisError as error:
            self.progress.undelivered += 1
            if self._away_since is None:
                print(f"load: Redis is away ({error}); jobs that fall due now are not delivered", flush=True)
            self._away_since = now
            return
        if self._away_since is not None:
            print(f"load: Redis is back; {self.progress.undelivered} jobs were not delivered", flush=True)
            self._away_since = None
        self.progress.delivered += 1
        self.progress.latest_seconds = max(self.progress.latest_seconds, now - due)
        log.write(json.dumps({**job, "due": due}) + "\n")

    def _burst(self, log: TextIO) -> None:
        jobs = self._burst_size()
        self.progress.burst_at, self.progress.burst_jobs = time.time(), jobs
        print(f"load: a burst of {jobs} jobs", flush=True)
        for number in range(jobs):
            self._deliver(number, time.time(), log, burst=True)

    def _burst_size(self) -> int:
        """As many jobs as the workers that are ready now serve in BURST_AGE_SECONDS."""
        state = read_state(self.folder)
        ready = state.ready if state is not None else settings.MAX_WORKERS
        per_worker = 1.0 / (settings.CPU_SECONDS + settings.PAUSE_SECONDS)
        return round(max(1, ready) * per_worker * BURST_AGE_SECONDS)

    def _note(self, log: TextIO) -> None:
        self._written = time.time()
        log.flush()
        fresh = self.folder / "load.json.new"
        fresh.write_text(json.dumps(asdict(self.progress)), encoding="utf-8")
        fresh.replace(self.folder / "load.json")


def job_of(number: int, now: float, *, burst: bool) -> dict[str, object]:
    """A job as it is put on the queue. Which ones make a paid call and which fail follows from their number."""
    if burst:
        return {"id": f"burst-{number:06d}", "enqueued_at": round(now, 6), "burst": True}
    job: dict[str, object] = {"id": f"job-{number:06d}", "enqueued_at": round(now, 6)}
    if number % settings.PAID_EVERY == 0:
        job["paid"] = True
    if number % settings.FAILS_EVERY == settings.FAILS_AT:
        job["fails"] = True
    return job


def read_progress(folder: Path) -> Progress | None:
    """What the driver noted last, None before its first note."""
    with contextlib.suppress(FileNotFoundError):
        return Progress(**json.loads((folder / "load.json").read_text(encoding="utf-8")))
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.load", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("plan", type=Path, help="the plan that `python -m demo` wrote")
    arguments = parser.parse_args(argv)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    Driver(settings.LoadPlan.read(arguments.plan), arguments.plan.parent, stop.wait).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
