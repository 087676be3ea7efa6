"""RQ: a list of job IDs a queue, a registry (sorted set) for each state, and a hash for each job."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator

from exporters.collector import CollectFunction
from exporters.queue.finished import Finished, Times
from exporters.queue.redis import unix_seconds
from exporters.queue.redis_queues import RedisQueues, System, wanted
from exporters.queue.state import QueueState
from exporters.redis_server import Command, Key, Name, QueuesAt, Reading, distinct, require_redis
from exporters.runtime.config import Section


class RqQueue(Section):
    """One queue, as the program calls it."""

    name: Name


class Server(QueuesAt):
    """A Redis server and its queues. `discover`: a glob of queue names; `prefix`: RQ_KEY_PREFIX of the program."""

    queues: list[RqQueue] = []
    prefix: Key = "rq"
    count_finished: bool = False  # nothing counts jobs that were finished, but they are kept for a while

    @property
    def watched(self) -> Sequence[RqQueue]:
        return self.queues

    @property
    def source(self) -> str:
        """Programs that share a server are told apart by their prefix."""
        return self.address if self.prefix == "rq" else f"{self.address}#{self.prefix}"


Servers = Annotated[list[Server], AfterValidator(distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    require_redis("queue.rq")
    return {server.source: RedisQueues(server, system(server)).collect for server in servers}


def system(server: Server) -> System:
    """RQ keeps a list of the queues that were ever used."""
    start = f"{server.prefix}:queue:".encode()

    def listed() -> Reading[Mapping[bytes, Jobs]]:
        (keys,) = yield [Command("SMEMBERS", f"{server.prefix}:queues")]
        names = (key.removeprefix(start) for key in keys)
        return {name: Jobs(name, server) for name in names if server.discover and wanted(name, server.discover)}

    queues = {queue.name: Jobs(queue.name.encode(), server) for queue in server.queues}
    return System("rq", queues, listed=listed if server.discover else None)


COUNTS = (  # registry, the command that counts it, and what it is for the contract
    ("queue:%s", "LLEN", "ready"),
    ("queue:%s:intermediate", "LLEN", "active"),  # between the queue and the worker's hands
    ("wip:%s", "ZCARD", "active"),
    ("scheduled:%s", "ZCARD", "delayed"),
    ("deferred:%s", "ZCARD", "delayed"),
    ("failed:%s", "ZCARD", "failed"),
)
JOB = ("enqueued_at", "started_at", "ended_at")


class Jobs:
    """One queue: its keys, and the times of the jobs that were finished since the exporter started."""

    def __init__(self, name: bytes, server: Server) -> None:
        self._prefix = server.prefix.encode()
        self._times = Times()
        self._completed, self._failed = Finished(self._at("finished:%s", name)), Finished(self._at("failed:%s", name))
        registries = ("finished:%s", "failed:%s") if server.count_finished else ()
        self._for_ever = [Command("ZCOUNT", self._at(key, name), "+inf", "+inf") for key in registries]
        self._fixed = [
            *(Command(command, self._at(key, name)) for key, command, _ in COUNTS),
            Command("LINDEX", self._at("queue:%s", name), 0),
            Command("SMEMBERS", self._at("workers:%s", name)),
        ]

    def _at(self, key: str, name: bytes) -> bytes:
        return self._prefix + b":" + key.encode().replace(b"%s", name)

    def read(self, now: float) -> Reading[QueueState]:
        sets = (self._completed, self._failed)
        replies = iter(
            (yield [*self._for_ever, *self._fixed, *(command for each in sets for command in each.commands())])
        )
        for_ever = [next(replies) for _ in self._for_ever]
        messages: dict[str, int] = {}
        for _, _, state in COUNTS:
            messages[state] = messages.get(state, 0) + next(replies)
        head, workers = next(replies), next(replies)
        finished = [job for each in sets for job in each.new(next(replies), next(replies))]

        jobs = [*([head] if head is not None else []), *finished]
        # a worker that died stays in the set until somebody cleans up; its own key expires
        alive = [Command("EXISTS", *workers)] if workers else []
        asked = [*alive, *(Command("HMGET", self._at("job:%s", job), *JOB) for job in jobs)]
        answers = iter((yield asked) if asked else [])
        consumers = next(answers) if workers else 0
        ages = {} if messages["ready"] else {"ready": 0.0}
        if head is not None and (enqueued := job_times(next(answers))[0]) is not None:
            ages["ready"] = max(0.0, now - enqueued)
        for _ in finished:
            self._times.observe(*job_times(next(answers)))
        # what is kept for ever (a TTL of -1) has no time by which it could be told to be new: then nobody can count
        counted = zip(("completed", "failed"), (self._completed, self._failed), for_ever, strict=False)
        counters = {what: float(each.counted) for what, each, kept in counted if not kept}
        return QueueState(
            messages,
            ages,
            consumers,
            counters,
            wait=self._times.wait,
            process=self._times.process,
        )


def job_times(values: Sequence[bytes | None]) -> tuple[float | None, float | None, float | None]:
    """(enqueued, started, ended) in Unix seconds from the values of the fields JOB; None for what is not there."""
    enqueued, started, ended = (unix_seconds(value.decode("ascii", "replace")) if value else None for value in values)
    return enqueued, started, ended
