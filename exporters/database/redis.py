"""Redis as a database: memory, keys, persistence, replication. Two commands a scrape: PING and INFO."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator

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
    each_once,
)
from exporters.families import Counter, Gauge
from exporters.labels import Cap, clean
from exporters.redis_server import Command, Connection, Name, RedisAddress, require_redis

_PING, _INFO = Command("PING"), Command("INFO")

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


class Database(RedisAddress):
    """One Redis server. `name` is the label `database`; the address, if not given."""

    name: Name | None = None

    @property
    def label(self) -> str:
        return self.name or self.address


Databases = Annotated[list[Database], AfterValidator(each_once)]


def collectors(databases: Sequence[Database]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    require_redis("database.redis")
    return {database.address: RedisServer(database).collect for database in databases}


class RedisServer:
    """Keeps one connection between scrapes."""

    def __init__(self, database: Database) -> None:
        self._address = database.address
        self._connection = Connection(database)
        self._health = Health("redis", database.label)
        self._replica = Cap(f"database.redis.{database.address}", "replica", MOST_REPLICAS)

    def collect(self, deadline: float) -> Iterator[Metric]:
        import redis

        try:
            self._connection.ask([_PING], deadline)  # connects, perhaps; that is not what is timed
            began = time.monotonic()
            (pong,) = self._connection.ask([_PING], deadline)
            seconds = time.monotonic() - began
            (info,) = self._connection.ask([_INFO], deadline)
            for answer in (pong, info):
                if isinstance(answer, Exception):
                    raise answer
        except redis.exceptions.NoPermissionError as error:
            raise PermissionError(f"{self._address}: {error}; the user needs the commands PING and INFO") from None
        except (redis.RedisError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            yield from self._health.down(reason(text), f"cannot read {self._address}: {text}")
        else:
            yield from self._health.up([(PING, (), seconds), *redis_facts(info_fields(info), self._replica)])


def info_fields(text: bytes) -> dict[str, str]:
    """The lines of INFO that are `field:value`."""
    lines = text.decode("utf-8", "backslashreplace").splitlines()
    return {field: value for field, colon, value in (line.partition(":") for line in lines) if colon}


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


def redis_facts(info: Mapping[str, str], replica: Cap) -> Iterator[Fact]:
    """What INFO says. A field that this server does not have, or whose value is no number, is no fact."""
    for field, (family, labels) in PLAIN.items():
        if (number := _number(info.get(field))) is not None:
            yield family, labels, number
    if "redis_version" in info:
        yield INFO, (clean(info["redis_version"]),), 1
    if limit := _number(info.get("maxmemory")):
        yield MEMORY_MAX, (), limit
    if (clients := _number(info.get("connected_clients"))) is not None:
        blocked = _number(info.get("blocked_clients")) or 0.0
        yield CONNECTIONS, ("blocked",), blocked
        yield CONNECTIONS, ("unblocked",), max(0.0, clients - blocked)
    if "rdb_last_bgsave_status" in info:
        yield PERSISTENCE, ("rdb",), info["rdb_last_bgsave_status"] == "ok"
    if info.get("aof_enabled") == "1":
        written = info.get("aof_last_write_status"), info.get("aof_last_bgrewrite_status", "ok")
        yield PERSISTENCE, ("aof",), written == ("ok", "ok")
    for field, value in {"db0": "keys=0", **info}.items():  # a database without keys is not told of
        keys = _number(_parts(value).get("keys")) if _numbered(field, "db") else None
        if keys is not None:
            yield KEYS, (field,), keys
    yield from _replication(info, replica)


def _replication(info: Mapping[str, str], replica: Cap) -> Iterator[Fact]:
    if "role" not in info:
        return
    follows = info["role"] == "slave"
    yield REPLICA, (), follows
    if follows:
        linked = info.get("master_link_status") == "up"
        yield LINK, (), linked
        if linked:
            yield from _behind("self", _number(info.get("slave_read_repl_offset")), info.get("slave_repl_offset"))
    for field, value in info.items():
        if _numbered(field, "slave") and "state=online" in value:
            about = _parts(value)
            name = replica(f"{about.get('ip')}:{about.get('port')}")
            if (seconds := _number(about.get("lag"))) is not None:
                yield LAG, (name,), max(0.0, seconds)
            yield from _behind(name, _number(info.get("master_repl_offset")), about.get("offset"))


def _behind(name: str, written: float | None, applied: str | None) -> Iterator[Fact]:
    offset = _number(applied)
    if written is not None and offset is not None:
        yield LAG_BYTES, (name,), max(0.0, written - offset)


def _numbered(field: str, word: str) -> bool:
    """Whether the field is db0, slave3 or the like."""
    number = field.removeprefix(word)
    return number != field and number.isascii() and number.isdigit() and len(number) < 8


def _parts(value: str) -> dict[str, str]:
    """keys=3,expires=0 as a dict."""
    return {field: rest for field, equals, rest in (part.partition("=") for part in value.split(",")) if equals}


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
