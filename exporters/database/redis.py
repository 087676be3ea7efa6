"""Redis as a database: memory, keys, persistence, replication. Two commands a scrape: PING and INFO."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import urlsplit

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, Field, model_validator

from exporters.collector import CollectFunction
from exporters.database.state import (
    COMMANDS,
    CONNECTIONS,
    CONNECTIONS_MAX,
    EVICTED,
    EXPIRED,
    INFO,
    KEYS,
    LAG,
    LAG_BYTES,
    LAST_SAVE,
    LINK,
    LOOKUPS,
    MEMORY_MAX,
    MEMORY_USED,
    PERSISTENCE,
    PING,
    REJECTED,
    REPLICA,
    REPLICAS,
    UNSAVED,
    Fact,
    Health,
)
from exporters.families import Counter, Gauge
from exporters.labels import Cap, clean
from exporters.runtime.config import ConfigError, Section

if TYPE_CHECKING:
    import redis

MOST_REPLICAS = 50
# Why a server could not be reached, and by what its answer is known.
REASONS = {
    "connections_exhausted": ("max number of clients",),
    "starting": ("loading the dataset",),
    "credentials": ("noauth", "wrongpass", "invalid password", "invalid username", "authentication"),
    "tls": ("ssl", "certificate"),
    "timeout": ("timeout", "timed out", "unreachable", "no route"),
    "refused": ("refused", "no such file", "name or service", "name resolution", "closed by server", "reset by peer"),
}


def _redis_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("redis", "rediss", "unix") and (parts.hostname or parts.path) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:  # the address may hold a password: it is not repeated
        raise ValueError("not a Redis address; write redis://HOST:PORT, rediss:// for TLS, or unix:///path.sock")
    return text


class Database(Section):
    """One Redis server. `name` is the label `database`; `password_file` is read again at each connection."""

    url: Annotated[str, AfterValidator(_redis_url)]
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password_file and urlsplit(self.url).password:
            raise ValueError("found a password in url and password_file; keep the file")
        return self

    @property
    def address(self) -> str:
        """HOST:PORT or the socket's path, without credentials."""
        parts = urlsplit(self.url)
        return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"

    @property
    def label(self) -> str:
        return self.name or self.address


def _distinct(databases: list[Database]) -> list[Database]:
    for what in ("label", "address"):
        values = [getattr(database, what) for database in databases]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice:
            raise ValueError(f"'{twice}' stands twice; each server is watched once, under a name of its own")
    return databases


Databases = Annotated[list[Database], AfterValidator(_distinct)]


def collectors(databases: Sequence[Database]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    try:
        import redis  # noqa: F401 - only to say so at the start and not at each scrape
    except ImportError:
        raise ConfigError(["exporters.database.redis: needs the package redis; install tidewise[redis]"]) from None
    return {database.address: RedisServer(database).collect for database in databases}


class RedisServer:
    """Keeps one connection between scrapes, and makes a new one after any error."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._client: redis.Redis | None = None
        self._health = Health("redis", database.label)
        self._replica = Cap(f"database.redis.{database.address}", "replica", MOST_REPLICAS)

    def collect(self, deadline: float) -> Iterator[Metric]:
        import redis

        again = self._client is not None
        try:
            try:
                seconds, info = self._read(deadline)
            except redis.ConnectionError:
                if not again:
                    raise
                seconds, info = self._read(deadline)  # started anew since the last scrape
        except redis.exceptions.NoPermissionError as error:
            raise PermissionError(f"{error}; the user needs the commands PING and INFO") from None
        except redis.RedisError as error:
            text = str(error) or type(error).__name__
            yield from self._health.down(reason(text), f"cannot read {self._database.address}: {text}")
        else:
            yield from self._health.up([(PING, (), seconds), *redis_facts(info, self._replica)])

    def _read(self, deadline: float) -> tuple[float, Mapping[str, Any]]:
        """How long a PING took, and INFO as a dict."""
        client = self._client = self._client or self._connect(deadline)
        try:
            client.ping()  # connects, perhaps
            began = time.monotonic()
            client.ping()
            seconds = time.monotonic() - began
            return seconds, client.info()
        except Exception:
            self._client = None
            client.close()
            raise

    def _connect(self, deadline: float) -> "redis.Redis":
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        seconds = min(2.0, max(0.1, (deadline - time.monotonic()) / 4))  # connecting and two answers may be slow
        options: dict[str, Any] = {}
        if self._database.password_file:
            options["password"] = self._database.password_file.read_text(encoding="utf-8").strip()
        return redis.Redis.from_url(
            self._database.url,
            protocol=2,  # understood by every server
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # the next scrape is the retry
            **options,
        )


def reason(text: str) -> str:
    """Why there was no answer, by what the server or the library said."""
    text = text.lower()
    return next((name for name, marks in REASONS.items() if any(mark in text for mark in marks)), "other")


# INFO's field -> family and labels, for what is one number.
PLAIN: dict[str, tuple[Gauge | Counter, tuple[str, ...]]] = {
    "used_memory": (MEMORY_USED, ()),
    "maxclients": (CONNECTIONS_MAX, ()),
    "evicted_keys": (EVICTED, ()),
    "expired_keys": (EXPIRED, ()),
    "keyspace_hits": (LOOKUPS, ("hit",)),
    "keyspace_misses": (LOOKUPS, ("miss",)),
    "total_commands_processed": (COMMANDS, ()),
    "rejected_connections": (REJECTED, ()),
    "rdb_last_save_time": (LAST_SAVE, ()),
    "rdb_changes_since_last_save": (UNSAVED, ()),
    "connected_slaves": (REPLICAS, ()),
}


def redis_facts(info: Mapping[str, Any], replica: Cap) -> Iterator[Fact]:
    """What INFO says. A field that this server does not have is no fact."""
    for field, (family, labels) in PLAIN.items():
        if field in info:
            yield family, labels, info[field]
    if "redis_version" in info:
        yield INFO, (clean(str(info["redis_version"])),), 1
    if info.get("maxmemory"):
        yield MEMORY_MAX, (), info["maxmemory"]
    if "connected_clients" in info:
        blocked = info.get("blocked_clients", 0)
        yield CONNECTIONS, ("blocked",), blocked
        yield CONNECTIONS, ("unblocked",), max(0, info["connected_clients"] - blocked)
    if "rdb_last_bgsave_status" in info:
        yield PERSISTENCE, ("rdb",), info["rdb_last_bgsave_status"] == "ok"
    if info.get("aof_enabled"):
        written = info.get("aof_last_write_status"), info.get("aof_last_bgrewrite_status", "ok")
        yield PERSISTENCE, ("aof",), written == ("ok", "ok")
    for field, value in info.items():
        if field.startswith("db") and field[2:].isdigit() and isinstance(value, dict):
            yield KEYS, (field,), value.get("keys", 0)
    yield from _replication(info, replica)


def _replication(info: Mapping[str, Any], replica: Cap) -> Iterator[Fact]:
    if "role" not in info:
        return
    follows = info["role"] == "slave"
    yield REPLICA, (), follows
    if follows:
        linked = info.get("master_link_status") == "up"
        yield LINK, (), linked
        if linked and "slave_read_repl_offset" in info:
            yield LAG_BYTES, ("self",), max(0, info["slave_read_repl_offset"] - info["slave_repl_offset"])
    for field, value in info.items():
        if field.startswith("slave") and field[5:].isdigit() and isinstance(value, dict):
            if value.get("state") != "online":
                continue
            name = replica(f"{value.get('ip')}:{value.get('port')}")
            yield LAG, (name,), max(0, value.get("lag", 0))
            yield LAG_BYTES, (name,), max(0, info.get("master_repl_offset", 0) - value.get("offset", 0))
