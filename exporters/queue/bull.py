"""Bull and BullMQ, the job queues of Node.js: lists and sorted sets of job IDs, and a hash for each job.

Both keep the same keys. Bull repeats its prioritised jobs in the sorted set `priority`, which is not counted here;
BullMQ keeps them in `prioritized` only. A paused queue's jobs are in `paused`.
"""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator

from exporters.collector import CollectFunction
from exporters.queue.finished import Finished, Times
from exporters.queue.redis_queues import Found, RedisQueues, System, wanted
from exporters.queue.state import QueueState
from exporters.redis_server import Command, Key, Name, QueuesAt, Reading, distinct, require_redis
from exporters.runtime.config import Section

Consumers = dict[str, int] | None  # workers by queue; None: the server does not tell


class BullQueue(Section):
    """One queue, as the program calls it."""

    name: Name


class Server(QueuesAt):
    """A Redis server and its queues. `discover`: a glob of queue names; `prefix`: as in the program's options."""

    queues: list[BullQueue] = []
    prefix: Key = "bull"
    count_ids: bool = True  # the counter that numbers the jobs is the number of jobs that came
    count_finished: bool = False  # nothing counts those that were finished, but they are kept for a while
    consumers: bool = True  # ask for the clients of the server: workers give their connections a name

    @property
    def watched(self) -> Sequence[BullQueue]:
        return self.queues

    @property
    def source(self) -> str:
        """Programs that share a server are told apart by their prefix."""
        return self.address if self.prefix == "bull" else f"{self.address}#{self.prefix}"


Servers = Annotated[list[Server], AfterValidator(distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    return collectors_of("bull", servers)


def collectors_of(name: str, servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """The same for Bull and BullMQ."""
    require_redis(f"queue.{name}")
    return {server.source: RedisQueues(server, system(name, server)).collect for server in servers}


def system(name: str, server: Server) -> System:
    """`name`: bull or bullmq, which differ in the key by which a queue is found."""
    start = server.prefix.encode() + b":"
    meta = b":meta"  # only BullMQ has it; `id` numbers the jobs of both

    def of_key(key: bytes) -> Reading[Mapping[bytes, Jobs]]:
        queue = key[len(start) :].rpartition(b":")[0]
        if not server.discover or not wanted(queue, server.discover):
            return {}
        if name == "bull":
            (kind,) = yield [Command("TYPE", start + queue + meta)]
            if kind != b"none":
                return {}
        else:
            yield ()
        return {queue: Jobs(name, start + queue, server)}

    ending, kind = ("meta", "hash") if name == "bullmq" else ("id", "string")
    glob = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in server.prefix)
    return System(
        name,
        {queue.name: Jobs(name, start + queue.name.encode(), server) for queue in server.queues},
        Found(f"{glob}:*:{ending}", kind, of_key) if server.discover else None,
        shared=(lambda now: workers(server.prefix)) if server.consumers else None,
        finish=with_consumers,
    )


def workers(prefix: str) -> Reading[Consumers]:
    """How many workers each queue has, by the names of their connections; None where that is not allowed."""
    (clients,) = yield [Command("CLIENT", "LIST", may_fail=True)]
    return None if isinstance(clients, Exception) else workers_by_queue(clients, prefix)


def workers_by_queue(clients: bytes, prefix: str) -> dict[str, int]:
    """By `CLIENT LIST`. A worker's blocking connection is PREFIX:BASE64 of the queue, and `:w:NAME` if it has one."""
    found: Counter[str] = Counter()
    for line in clients.splitlines():
        name = next((part[5:] for part in line.split() if part.startswith(b"name=")), b"")
        if not name.startswith(prefix.encode() + b":"):
            continue
        coded, _, more = name[len(prefix) + 1 :].partition(b":")
        if more and not more.startswith(b"w:"):  # those who listen for events
            continue
        try:
            found[base64.b64decode(coded, validate=True).decode("utf-8", "backslashreplace")] += 1
        except binascii.Error:
            continue
    return dict(found)


def with_consumers(states: dict[str, QueueState], consumers: Consumers) -> dict[str, QueueState]:
    """A queue that no connection names has 0."""
    if consumers is None:
        return states
    return {name: replace(state, consumers=consumers.get(name, 0)) for name, state in states.items()}


STATES = (  # of Bull or BullMQ, the command that counts it, and what it is for the contract
    ("wait", "LLEN", "ready"),
    ("paused", "LLEN", "ready"),
    ("prioritized", "ZCARD", "ready"),
    ("active", "LLEN", "active"),
    ("delayed", "ZCARD", "delayed"),
    ("waiting-children", "ZCARD", "delayed"),
    ("failed", "ZCARD", "failed"),
)
HEADS = (  # the job that is served next, and the one that was taken first
    ("ready", ("LINDEX", "wait", -1)),
    ("ready", ("LINDEX", "paused", -1)),
    ("ready", ("ZRANGE", "prioritized", 0, 0)),
    ("active", ("LINDEX", "active", -1)),
)
MARK = b"0:"  # BullMQ 3 and 4 wake their workers by such an element of wait or paused, which is no job
JOB = ("timestamp", "opts", "processedOn", "finishedOn", "ats", "attemptsMade")


class Jobs:
    """One queue: its keys, and the times of the jobs that were finished since the exporter started."""

    def __init__(self, system: str, key: bytes, server: Server) -> None:
        self._key = key + b":"
        self._first_attempt = (0 if system == "bull" else 1, 1)  # what a job says that was done, or failed, at once
        self._marks = system == "bullmq"
        self._times = Times()
        self._completed, self._failed = Finished(self._at("completed")), Finished(self._at("failed"))
        self._count_ids, self._count_finished = server.count_ids, server.count_finished
        self._counts = [Command(command, self._at(state)) for state, command, _ in STATES]
        self._heads = [Command(command, self._at(key), *more) for _, (command, key, *more) in HEADS]
        self._totals = [
            Command("GET", self._at("id")),
            Command("HGET", self._at("metrics:completed"), "count"),
            Command("HGET", self._at("metrics:failed"), "count"),
        ]

    def _at(self, key: str) -> bytes:
        return self._key + key.encode()

    def read(self, now: float) -> Reading[QueueState]:
        sets = (self._completed, self._failed)
        newest = [command for each in sets for command in each.commands()]
        replies = iter((yield [*self._counts, *self._heads, *self._totals, *newest]))
        messages: dict[str, int] = {}
        for _, _, state in STATES:
            messages[state] = messages.get(state, 0) + next(replies)
        heads = [(state, one(next(replies))) for state, _ in HEADS]
        if self._marks:
            marks = sum(state == "ready" and job is not None and job.startswith(MARK) for state, job in heads)
            messages["ready"] = max(0, messages["ready"] - marks)
            heads = [(state, job) for state, job in heads if job is None or not job.startswith(MARK)]
        totals = [next(replies) for _ in self._totals]
        finished = [each.new(next(replies), next(replies)) for each in sets]

        served = [(state, job) for state, job in heads if job is not None]
        jobs = [job for _, job in served] + [job for each in finished for job in each]
        hashes = iter((yield [Command("HMGET", self._key + job, *JOB) for job in jobs]) if jobs else [])
        ages = {state: 0.0 for state in ("ready", "active") if not messages[state]}
        for state, _ in served:
            due, started, *_ = job_times(next(hashes))
            since = started if state == "active" else due
            if since is not None:
                ages[state] = max(ages.get(state, 0.0), now - since)
        for each, first_attempt in zip(finished, self._first_attempt, strict=True):
            for _ in each:
                due, started, ended, attempt = job_times(next(hashes))
                # since when one waited that was tried again is not kept
                self._times.observe(due if attempt <= first_attempt else None, started, ended)
        return QueueState(
            messages, ages, None, self._counters(*totals), wait=self._times.wait, process=self._times.process
        )

    def _counters(self, ids: bytes | None, completed: bytes | None, failed: bytes | None) -> dict[str, float]:
        counters: dict[str, float] = {}
        if self._count_ids:
            counters["enqueued"] = number(ids) or 0.0
        totals = (number(completed), number(failed))
        if self._count_finished:
            totals = (float(self._completed.counted), float(self._failed.counted))
        if totals != (None, None):  # whoever counts the ones counts the others: then none is 0
            counters["completed"], counters["failed"] = (total or 0.0 for total in totals)
        return counters


def one(reply: bytes | list[bytes] | None) -> bytes | None:
    """The only element of a range, or the reply itself."""
    return (reply[0] if reply else None) if isinstance(reply, list) else reply


def job_times(values: Sequence[bytes | None]) -> tuple[float | None, float | None, float | None, float]:
    """(due, started, ended) in Unix seconds, and the number of attempts, from the values of the fields JOB.

    None and 0 for a job that was deleted meanwhile.
    """
    enqueued, options, started, ended, starts, attempts = values
    due = number(enqueued)
    if due is not None:
        due += delay_milliseconds(options)
    seconds = [None if each is None else each / 1000 for each in (due, number(started), number(ended))]
    return seconds[0], seconds[1], seconds[2], max(number(starts) or 0.0, number(attempts) or 0.0)


def delay_milliseconds(options: bytes | None) -> float:
    """How long the job was put off when it was enqueued: the field `delay` is 0 again once it is due."""
    try:
        delay: Any = json.loads(options or b"{}").get("delay")
    except (ValueError, AttributeError, RecursionError):
        return 0.0
    return float(delay) if isinstance(delay, (int, float)) and abs(delay) < 1e15 else 0.0


def number(text: bytes | None) -> float | None:
    """None for what is not there or no number."""
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < 1e300 else None
