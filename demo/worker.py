"""One worker: takes jobs from the Redis queue one at a time, 20 ms of CPU and 480 ms of waiting each.

`python -m demo.worker --redis URL --slot N --start-up SECONDS`. A job is moved to the slot's own list while it is
worked on, so a worker that is killed loses none. It prints `ready` when its start-up is over and then, once a second,
that it still takes turns; on TERM it finishes its job and ends. It dies with its foreman and goes on trying while Redis
is away. A job that is marked as paid makes one paid call, if the ledger permits it.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import redis

from demo import settings
from demo.paid import Call, Payer, Permit, used_units

TAKE_SECONDS = 1  # how long one request for a job may block; a stop is noticed after it at the latest
GIVE_UP_SECONDS = 10.0  # how long a stopping worker tries to hand in its last result
BEAT_SECONDS = 1.0  # between two signs of progress
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0

# The counts change only if the job still was this worker's, so that a repeated request counts once.
_FINISH = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then
  if ARGV[4] == 'failed' then
    redis.call('INCR', KEYS[5])
    redis.call('LPUSH', KEYS[6], ARGV[1])
  else
    redis.call('INCR', KEYS[2])
    redis.call('INCRBYFLOAT', KEYS[3], ARGV[2])
  end
end
redis.call('RPUSH', KEYS[4], ARGV[3])
"""


class Worker:
    """Works on jobs until `stop` is set. `client` must neither retry nor wait longer than a few seconds by itself.

    say: is given `ready` once and then `turn`, at most once a second. payer: None makes no paid calls.
    """

    def __init__(
        self,
        client: redis.Redis,
        slot: int,
        stop: threading.Event,
        say: Callable[[str], None],
        payer: Payer | None = None,
    ) -> None:
        self.client = client
        self.slot = slot
        self.stop = stop
        self.say = say
        self.payer = payer
        self._said_at = 0.0
        self._unsure = False  # whether a request for a job failed, so that one may have been moved unseen

    def run(self, start_up_seconds: float) -> None:
        if self.stop.wait(start_up_seconds):
            return
        self._until_answered(self.client.ping, give_up_seconds=None)
        if not self.stop.is_set():
            self.say("ready")
        while not self.stop.is_set():
            payload = self._until_answered(self._take, give_up_seconds=None)
            if isinstance(payload, bytes):
                self._work(payload)

    def _turn(self) -> None:
        if time.monotonic() - self._said_at >= BEAT_SECONDS:
            self._said_at = time.monotonic()
            self.say("turn")

    def _take(self) -> object:
        if self._unsure:
            put_back(self.client, self.slot)
        self._unsure = True
        key = settings.active_key(self.slot)
        payload = self.client.blmove(settings.QUEUE, key, TAKE_SECONDS, src="RIGHT", dest="LEFT")
        self._unsure = False
        return payload

    def _work(self, payload: bytes) -> None:
        job = parsed(payload)
        started_at = time.time()
        compute()
        pause_ends = time.monotonic() + settings.PAUSE_SECONDS
        call = self._call(job)
        permit = self.payer.permit(call) if self.payer is not None and call is not None else None
        time.sleep(max(0.0, pause_ends - time.monotonic()))
        if self.payer is not None and call is not None and permit is Permit.GRANTED:
            self.payer.settle(call, used_units(job.number))
        finished_at = time.time()
        outcome = "failed" if job.fails else "done"
        record = json.dumps(result(job, self.slot, started_at, finished_at, permit))
        keys = (
            settings.active_key(self.slot),
            settings.COMPLETED_KEY,
            settings.PROCESS_SECONDS_KEY,
            settings.RESULTS_KEY,
            settings.FAILED_KEY,
            settings.FAILED_LIST,
        )
        arguments = (payload, f"{finished_at - started_at:.6f}", record, outcome)
        self._until_answered(lambda: self.client.eval(_FINISH, len(keys), *keys, *arguments), GIVE_UP_SECONDS)

    def _call(self, job: "Job") -> Call | None:
        """The paid call of this job and which attempt it is; None where it makes none, or Redis cannot count it."""
        if not job.paid or self.payer is None:
            return None
        try:
            return Call(job.id, int(self.client.hincrby(settings.ATTEMPTS_KEY, job.id, 1)))
        except redis.RedisError:
            return None

    def _until_answered(self, ask: Callable[[], object], give_up_seconds: float | None) -> object:
        """The answer, asking again while Redis is away. A stop ends it at once, or after give_up_seconds."""
        pause = FIRST_PAUSE_SECONDS
        first = time.monotonic()
        while True:
            self._turn()
            try:
                return ask()
            except redis.RedisError as error:
                if pause == FIRST_PAUSE_SECONDS:
                    print(
                        f"worker {self.slot}: Redis does not answer ({error}); trying again",
                        file=sys.stderr,
                        flush=True,
                    )
                if self.stop.is_set() and (give_up_seconds is None or time.monotonic() - first > give_up_seconds):
                    return None
                if give_up_seconds is None:
                    self.stop.wait(pause)
                else:
                    time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def put_back(client: redis.Redis, slot: int) -> int:
    """Give what the slot holds to the end of the queue that is taken from next; returns how many jobs.

    They are no new arrivals: the counter of those stays as it is.
    """
    jobs = 0
    while client.lmove(settings.active_key(slot), settings.QUEUE, "LEFT", "RIGHT") is not None:
        jobs += 1
    return jobs


@dataclass(frozen=True, slots=True)
class Job:
    """What a job's JSON says. enqueued_at: None for a job that is not ours (no JSON, no id); its text is its id."""

    id: str
    enqueued_at: object = None
    burst: bool = False
    paid: bool = False
    fails: bool = False

    @property
    def number(self) -> int:
        """Its place in the plan, as its id ends."""
        digits = self.id.rpartition("-")[2]
        return int(digits) if digits.isdecimal() else 0


def parsed(payload: bytes) -> Job:
    try:
        job = json.loads(payload)
        marks = (bool(job.get(mark)) for mark in ("burst", "paid", "fails"))
        return Job(str(job["id"]), job["enqueued_at"], *marks)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Job(payload.decode(errors="replace"))


def compute() -> None:
    """The CPU time that one job costs, as the machine accounts it."""
    enough = time.thread_time() + settings.CPU_SECONDS
    while time.thread_time() < enough:
        sum(range(1000))  # some work of our own between two looks at the clock, which the kernel works on


def result(
    job: Job, slot: int, started_at: float, finished_at: float, permit: Permit | None = None
) -> Mapping[str, object]:
    """The record of a finished job."""
    return {
        "id": job.id,
        "enqueued_at": job.enqueued_at,
        "burst": job.burst,
        "failed": job.fails,
        "permit": permit,
        "slot": slot,
        "started_at": round(started_at, 6),
        "finished_at": round(finished_at, 6),
    }


def _end_with(parent: int) -> None:
    """Let the kernel end us when the foreman dies, so that no worker outlives the demo (Linux only).

    KILL and not TERM: a worker that is stopped (SIGSTOP) hears no TERM. Its job stays in its list.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.worker", description="One worker of the demo's fleet.")
    parser.add_argument("--redis", required=True, metavar="URL", help="the queue's Redis")
    parser.add_argument("--slot", required=True, type=int, help="which of the fleet's places this worker fills")
    parser.add_argument("--start-up", type=float, default=0.0, metavar="SECONDS", help="time before its first job")
    parser.add_argument("--foreman", type=int, default=None, metavar="PID", help="end when this process ends")
    parser.add_argument("--budget", default=None, metavar="URL", help="the ledger; without it nothing is paid for")
    parser.add_argument("--token-file", type=Path, default=None, metavar="FILE", help="the ledger's bearer token")
    arguments = parser.parse_args(argv)
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if arguments.foreman is not None:
        _end_with(arguments.foreman)
    client = redis.Redis.from_url(
        arguments.redis, socket_timeout=TAKE_SECONDS + 2.0, socket_connect_timeout=1.0, retry=None, protocol=2
    )
    payer = Payer(arguments.budget, arguments.token_file) if arguments.budget and arguments.token_file else None
    Worker(client, arguments.slot, stop, lambda word: print(word, flush=True), payer).run(arguments.start_up)
    return 0


if __name__ == "__main__":
    sys.exit(main())
