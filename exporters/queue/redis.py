"""Queues that are plain Redis lists: `LPUSH queue job`, `BRPOP queue`, with counters and an active list if kept."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporters.collector import CollectFunction, PartialReadError
from exporters.queue.state import QueueState, queue_metrics
from exporters.runtime.config import ConfigError, Section

if TYPE_CHECKING:
    import redis

Key = Annotated[str, Field(min_length=1)]


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


class Queue(Section):
    """One queue. `ready` is its list (the name, if not given), `head` the end that is served next."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    ready: Key | None = None
    active: Annotated[list[Key], BeforeValidator(_one_or_many, json_schema_input_type=Key | list[Key])] = []  # lists
    delayed: Key | None = None  # sorted set
    failed: Key | None = None  # list or sorted set
    head: Literal["left", "right"] = "right"
    enqueued_at: Annotated[str, Field(min_length=1)] = "enqueued_at"  # field of the job's JSON
    counters: Counters = Counters()

    @property
    def ready_key(self) -> str:
        return self.ready or self.name


def _redis_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("redis", "rediss", "unix") and (parts.hostname or parts.path) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:  # the address may hold a password: it is not repeated
        raise ValueError("not a Redis address; write redis://HOST:PORT/DB, rediss:// for TLS, or unix:///path.sock")
    return text


class Server(Section):
    """One Redis server and its queues. `password_file` is read again at each connection."""

    url: Annotated[str, AfterValidator(_redis_url)]
    password_file: Path | None = None
    queues: Annotated[list[Queue], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password_file and urlsplit(self.url).password:
            raise ValueError("found a password in url and password_file; keep the file")
        return self

    @property
    def address(self) -> str:
        """HOST:PORT/DB or the socket's path, without credentials."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return parts.path
        return f"{parts.hostname}:{parts.port or 6379}/{parts.path.strip('/') or 0}"


def _distinct(servers: list[Server]) -> list[Server]:
    where: dict[str, str] = {}
    for number, server in enumerate(servers):
        for index, queue in enumerate(server.queues):
            here = f"{number}.queues.{index}"
            if queue.name in where:
                raise ValueError(f"the queue '{queue.name}' stands twice ({where[queue.name]}, {here}); rename one")
            where[queue.name] = here
    addresses = [server.address for server in servers]
    twice = next((address for address in addresses if addresses.count(address) > 1), None)
    if twice:
        raise ValueError(f"the server {twice} stands twice; write its queues in one place")
    return servers


Servers = Annotated[list[Server], AfterValidator(_distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    try:
        import redis  # noqa: F401 - only to say so at the start and not at each scrape
    except ImportError:
        raise ConfigError(["exporters.queue.redis: needs the package redis; install tidewise[redis]"]) from None
    return {server.address: RedisQueues(server).collect for server in servers}


class RedisQueues:
    """Reads all queues of one server in one round trip. Connects when needed, and anew after any error."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: redis.Redis | None = None
        self._failed_kinds: dict[str, str] = {}  # by key: "list" or "zset", as last seen

    def collect(self, deadline: float) -> Iterator[Metric]:
        states: dict[str, QueueState] = {}
        problems: list[str] = []
        for queue, replies in zip(self._server.queues, self._read(deadline), strict=True):
            try:
                states[queue.name] = queue_state(queue, replies, time.time())
            except ValueError as error:
                problems.append(f"queue '{queue.name}': {error}")
        yield from queue_metrics("redis", states)
        if problems:
            raise PartialReadError("; ".join(problems))

    def _read(self, deadline: float) -> list[list["Reply"]]:
        """The replies to each queue's commands."""
        client = self._client = self._client or self._connect(deadline)
        try:
            replies = self._round_trip(client)
            kinds = {reply.key: reply.value for each in replies for reply in each if reply.role == "kind"}
            known = {key: kind.decode() for key, kind in kinds.items() if kind in (b"list", b"zset")}
            if any(kind != self._failed_kinds.get(key, "list") for key, kind in known.items()):
                self._failed_kinds.update(known)
                replies = self._round_trip(client)
            return replies
        except Exception:
            # whatever it was (down, wrong password, time-out): the next scrape starts from a fresh connection
            self._client = None
            client.close()
            raise

    def _round_trip(self, client: "redis.Redis") -> list[list["Reply"]]:
        commands = [queue_commands(queue, self._failed_kinds) for queue in self._server.queues]
        pipeline = client.pipeline(transaction=False)
        for command in (command for each in commands for command in each):
            pipeline.execute_command(*command.words)  # type: ignore[no-untyped-call]  # redis left it untyped
        values = iter(pipeline.execute(raise_on_error=False))
        return [[Reply(command.role, command.words, next(values)) for command in each] for each in commands]

    def _connect(self, deadline: float) -> "redis.Redis":
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        seconds = min(2.0, max(0.1, (deadline - time.monotonic()) / 3))  # connecting and reading may both be slow
        options: dict[str, Any] = {}
        if self._server.password_file:
            options["password"] = self._server.password_file.read_text(encoding="utf-8").strip()
        return redis.Redis.from_url(
            self._server.url,
            protocol=2,  # understood by every server
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # the next scrape is the retry
            **options,
        )


@dataclass(frozen=True)
class Command:
    """One Redis command and what its answer is for."""

    role: str
    words: tuple[str | int, ...]


@dataclass(frozen=True)
class Reply:
    """The answer to a command: a number, bytes, None for a key that does not exist, or the error as an exception."""

    role: str
    words: tuple[str | int, ...]
    value: Any

    @property
    def key(self) -> str:
        return str(self.words[1])


def queue_commands(queue: Queue, failed_kinds: Mapping[str, str]) -> list[Command]:
    """What to ask about one queue. `failed_kinds`: by key "list" or "zset", where that is known."""
    commands = [
        Command("ready", ("LLEN", queue.ready_key)),
        Command("next", ("LINDEX", queue.ready_key, -1 if queue.head == "right" else 0)),
        *(Command("active", ("LLEN", key)) for key in queue.active),
    ]
    if queue.delayed:
        commands.append(Command("delayed", ("ZCARD", queue.delayed)))
    if queue.failed:
        length = "ZCARD" if failed_kinds.get(queue.failed) == "zset" else "LLEN"
        commands += [Command("kind", ("TYPE", queue.failed)), Command("failed", (length, queue.failed))]
    counters = ((role, key) for role, key in queue.counters.model_dump().items() if key)
    return commands + [Command(f"count {role}", ("GET", key)) for role, key in counters]


def queue_state(queue: Queue, replies: Sequence[Reply], now: float) -> QueueState:
    """One queue's numbers. Raises ValueError, as a sentence, where a key holds something else than expected."""
    messages: dict[str, int] = {}
    counters: dict[str, float] = {}
    oldest_age: float | None = None
    for reply in replies:
        if isinstance(reply.value, Exception):
            raise ValueError(f"{reply.words[0]} of the key '{reply.key}' failed ({reply.value}); check what it holds")
        if reply.role in ("ready", "active", "delayed", "failed"):
            messages[reply.role] = messages.get(reply.role, 0) + reply.value
        elif reply.role == "next":
            oldest_age = 0.0 if reply.value is None else age_seconds(reply.value, queue.enqueued_at, now)
        elif reply.role.startswith("count "):
            counters[reply.role.removeprefix("count ")] = _count(reply)
    return QueueState(messages, {} if oldest_age is None else {"ready": oldest_age}, counters=counters)


def _count(reply: Reply) -> float:
    try:
        number = 0.0 if reply.value is None else float(reply.value)  # no key: nothing was counted yet
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the counter '{reply.key}' holds no number; check what writes it")
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
    enqueued = _unix_seconds(fields.get(at_field)) if isinstance(fields, dict) else None
    if enqueued is None or not 0 < enqueued <= now + SKEW_SECONDS:
        return None
    return max(0.0, now - enqueued)


def _unix_seconds(value: object) -> float | None:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value < 1e15:
        return None
    return value / 1000 if value > 1e11 else float(value)
