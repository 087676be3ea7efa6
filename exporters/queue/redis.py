"""Queues that are plain Redis lists: `LPUSH queue job`, `BRPOP queue`, with counters and an active list if kept."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporters.collector import CollectFunction
from exporters.queue.redis_queues import Found, RedisQueues, System
from exporters.queue.state import QueueState
from exporters.redis_server import (
    Command,
    Key,
    Name,
    QueuesAt,
    Reading,
    Replies,
    distinct,
    failure,
    require_redis,
    shown,
)
from exporters.runtime.config import Section


class Counters(Section):
    """Keys that the application increments (INCR, INCRBYFLOAT). A key that does not exist yet counts as 0."""

    enqueued: Key | None = None
    completed: Key | None = None
    failed: Key | None = None
    process_seconds: Key | None = None  # sum over the completed jobs

    @model_validator(mode="after")
    def _has_count(self) -> Self:
        if self.process_seconds and not self.completed:
            raise ValueError("process_seconds is a sum over completed jobs; name the key that counts them: completed")
        return self


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ListQueue(Section):
    """One queue. `ready` is its list (the name, if not given), `head` the end that is served next."""

    name: Name
    ready: Key | None = None
    active: Annotated[list[Key], BeforeValidator(_one_or_many, json_schema_input_type=Key | list[Key])] = []  # lists
    delayed: Key | None = None  # sorted set
    failed: Key | None = None  # list or sorted set
    head: Literal["left", "right"] = "right"
    enqueued_at: Annotated[str, Field(min_length=1)] = "enqueued_at"  # field of the job's JSON
    counters: Counters = Counters()


class Server(QueuesAt):
    """One Redis server and its lists. `discover`: a glob of keys; each list that it finds is a queue as by default."""

    queues: list[ListQueue] = []

    @property
    def watched(self) -> Sequence[ListQueue]:
        return self.queues


Servers = Annotated[list[Server], AfterValidator(distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    require_redis("queue.redis")
    return {server.source: RedisQueues(server, system(server)).collect for server in servers}


def system(server: Server) -> System:
    """Plain lists of a server."""

    def of_key(key: bytes) -> Reading[Mapping[bytes, Lists]]:
        yield ()
        return {key: Lists(ListQueue(name="found"), key)}

    found = Found(server.discover, "list", of_key) if server.discover else None
    return System("redis", {queue.name: Lists(queue, queue.ready or queue.name) for queue in server.queues}, found)


class Lists:
    """One queue: a list, and what belongs to it."""

    def __init__(self, config: ListQueue, ready: str | bytes) -> None:
        self._enqueued_at = config.enqueued_at
        self._fixed = [
            ("ready", Command("LLEN", ready)),
            ("next", Command("LINDEX", ready, -1 if config.head == "right" else 0)),
            *(("active", Command("LLEN", key)) for key in config.active),
            *([("delayed", Command("ZCARD", config.delayed))] if config.delayed else []),
            *((role, Command("GET", key)) for role, key in config.counters.model_dump().items() if key),
        ]
        failed = config.failed
        self._kind = Command("TYPE", failed) if failed else None
        lengths = ((b"list", "LLEN"), (b"zset", "ZCARD"))
        self._failed = {kind: Command(word, failed, may_fail=True) for kind, word in lengths if failed}
        self._known_kind = b"list"
        self._commands = [command for _, command in self._fixed]

    def read(self, now: float) -> Reading[QueueState]:
        if self._kind is None:
            return self._state((yield self._commands), now)
        kind, failed, *replies = yield [self._kind, self._failed[self._known_kind], *self._commands]
        if kind in self._failed and kind != self._known_kind:  # only once: from now on the right one is asked
            self._known_kind = kind
            (failed,) = yield [self._failed[kind]]
        if isinstance(failed, Exception):
            raise ValueError(failure(self._failed[self._known_kind], failed))
        return self._state(replies, now, {"failed": failed})

    def _state(self, replies: Replies, now: float, more: Mapping[str, int] = MappingProxyType({})) -> QueueState:
        messages: dict[str, int] = {}
        counters: dict[str, float] = {}
        oldest_age: dict[str, float] = {}
        for (role, command), reply in zip(self._fixed, replies, strict=True):
            if command.words[0] == "GET":
                counters[role] = _count(command, reply)
            elif role != "next":
                messages[role] = messages.get(role, 0) + reply
            elif reply is None:
                oldest_age["ready"] = 0.0
            elif (age := age_seconds(reply, self._enqueued_at, now)) is not None:
                oldest_age["ready"] = age
        return QueueState({**messages, **more}, oldest_age, counters=counters)


def _count(command: Command, reply: bytes | None) -> float:
    try:
        number = 0.0 if reply is None else float(reply)  # no key: nothing was counted yet
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the counter '{shown(command.words[1])}' holds no number; check what writes it")
    return number


SKEW_SECONDS = 60.0  # clocks of producers may be ahead by this much; more is no timestamp of an enqueued job


def age_seconds(job: bytes, at_field: str, now: float) -> float | None:
    """How long the job has waited, by the time in `at_field` of its JSON: Unix seconds or milliseconds, or ISO 8601.

    None where that cannot be told. An ISO time without a zone is taken as UTC.
    """
    try:
        fields = json.loads(job)
    except (ValueError, RecursionError):
        return None
    return since(fields.get(at_field), now) if isinstance(fields, dict) else None


def since(moment: object, now: float) -> float | None:
    """Seconds since a moment; None where it is none, or lies in the future."""
    seconds = unix_seconds(moment)
    if seconds is None or not 0 < seconds <= now + SKEW_SECONDS:
        return None
    return max(0.0, now - seconds)


def unix_seconds(value: object) -> float | None:
    """Of Unix seconds or milliseconds, or ISO 8601; None for anything else."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        return None
    return value / 1000 if value > 1e11 else float(value)
