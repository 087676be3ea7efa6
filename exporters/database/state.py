"""What the database exporter says, whatever the system: the families, and how facts become series.

Reading gives facts: (family, the values of its labels after system and database, number). What is not known is no
fact. A database that could not be reached has `database_up` 0 with the reason beside it, and nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import structlog
from prometheus_client.metrics_core import Metric

from exporters.families import Counter, Family, Gauge
from exporters.runtime.config import repeated

_WHICH = ("system", "database")
PG, REDIS, SQLITE = "PostgreSQL", "Redis INFO", "the SQLite file"


def _gauge(name: str, meaning: str, source: str, *labels: str) -> Gauge:
    return Gauge(f"database_{name}", meaning, (*_WHICH, *labels), source)


def _counter(name: str, meaning: str, source: str, *labels: str) -> Counter:
    return Counter(f"database_{name}", meaning, (*_WHICH, *labels), source)


UP = _gauge("up", "1: it answers. 0: it was tried and could not be reached or read.", "a connection, a question")
UNREACHABLE = _gauge(
    "unreachable",
    "1 while database_up is 0, with the reason: connections_exhausted starting refused timeout tls no_database "
    "credentials unreadable not_a_database corrupt other.",
    "the failed attempt",
    "reason",
)
INFO = _gauge("info", "1, with the version of the server.", "the server", "version")
PING = _gauge("ping_seconds", "How long the smallest question took.", "SELECT 1, PING, or reading a SQLite schema")
CONNECTIONS = _gauge(
    "connections",
    "Connections of clients by state: as PostgreSQL names them; hidden: the user may not see it. Redis: blocked (waits "
    "in a command such as BRPOP) and unblocked.",
    "pg_stat_activity, Redis INFO",
    "state",
)
CONNECTIONS_MAX = _gauge(
    "connections_max",
    "Connections that ordinary users can have at once: without those kept back for superusers.",
    "max_connections less the reserved ones; Redis maxclients",
)
REPLICA = _gauge("replica", "1: it follows another server. 0: it is written to.", "pg_is_in_recovery, Redis role")
REPLICAS = _gauge("replicas", "Servers that follow it.", "pg_stat_replication, Redis connected_slaves")
LINK = _gauge(
    "replication_link_up", "Of a replica: 1 while it receives from its primary.", "pg_stat_wal_receiver, Redis"
)
LAG = _gauge(
    "replication_lag_seconds",
    "How far a replica is behind. replica: its name or address as its primary sees it, `self` on the replica.",
    "pg_stat_replication, pg_last_xact_replay_timestamp; Redis: since the replica last acknowledged",
    "replica",
)
LAG_BYTES = _gauge(
    "replication_lag_bytes", "The same, in bytes that it has not applied.", "pg_stat_replication, Redis", "replica"
)
OLDEST = _gauge(
    "oldest_transaction_seconds",
    "Since the oldest open transaction began, those that are idle included; 0 while none is open.",
    "pg_stat_activity",
)
LOCKS = _gauge("locks_waiting", "Locks that a session waits for.", "pg_locks")
SIZE = _gauge(
    "size_bytes",
    "Bytes on disk. name: the database in the server; of SQLite `file` and `wal`.",
    "pg_database_size, once a minute; the SQLite file",
    "name",
)
TRANSACTIONS = _counter("transactions", "Transactions that ended: commit or rollback.", PG, "name", "result")
BLOCKS = _counter("blocks", "Blocks that were wanted: hit (in memory) or read (from outside).", PG, "name", "from")
TEMP = _counter("temp_bytes", "Written to temporary files by queries that did not fit into memory.", PG, "name")
DEADLOCKS = _counter("deadlocks", "Deadlocks that were broken up.", PG, "name")
WRAPAROUND = _gauge(
    "wraparound_ratio",
    "Share of the 2^31 transaction ids that passed since the oldest was frozen; near 1 it stops taking writes.",
    "age(datfrozenxid)",
    "name",
)
TUPLES = _gauge("tuples", "Rows of the connected database: live, and dead ones to be vacuumed.", PG, "name", "state")
_STATEMENT = "pg_stat_statements: those with the most time"
STATEMENT_CALLS = _counter("statement_calls", "Calls of a statement.", _STATEMENT, "queryid")
STATEMENT_SECONDS = _counter("statement_seconds", "Time that a statement took.", _STATEMENT, "queryid")
STATEMENT_ROWS = _counter("statement_rows", "Rows that a statement gave or changed.", _STATEMENT, "queryid")
MEMORY_USED = _gauge("memory_used_bytes", "Memory that the data and its upkeep take.", "Redis used_memory")
MEMORY_MAX = _gauge("memory_max_bytes", "The limit of that; missing where there is none.", "Redis maxmemory")
KEYS = _gauge("keys", "Keys, by numbered database.", REDIS, "name")
EVICTED = _counter("evicted_keys", "Keys thrown away for want of memory.", REDIS)
EXPIRED = _counter("expired_keys", "Keys whose time was over.", REDIS)
LOOKUPS = _counter("lookups", "Keys looked up: hit or miss.", REDIS, "result")
COMMANDS = _counter("commands", "Commands that were processed.", REDIS)
REJECTED = _counter("rejected_connections", "Connections refused because there were too many.", REDIS)
PERSISTENCE = _gauge(
    "persistence_ok", "1: its last writing to disk went well. kind: rdb, and aof where it is on.", REDIS, "kind"
)
LAST_SAVE = _gauge("last_save_timestamp_seconds", "Unix time of the last snapshot that went well.", REDIS)
UNSAVED = _gauge("unsaved_changes", "Changes since then.", REDIS)
PAGES = _gauge("pages", "Pages of the file: used, and free ones that VACUUM would give back.", SQLITE, "state")
BUSY = _gauge("busy", "1: somebody holds the file's lock, and it could not be read now.", SQLITE)

FAMILIES: tuple[Family, ...] = (
    UP, UNREACHABLE, INFO, PING, CONNECTIONS, CONNECTIONS_MAX, REPLICA, REPLICAS, LINK, LAG, LAG_BYTES, OLDEST, LOCKS,
    SIZE, TRANSACTIONS, BLOCKS, TEMP, DEADLOCKS, WRAPAROUND, TUPLES, STATEMENT_CALLS, STATEMENT_SECONDS,
    STATEMENT_ROWS, MEMORY_USED, MEMORY_MAX, KEYS, EVICTED, EXPIRED, LOOKUPS, COMMANDS, REJECTED, PERSISTENCE,
    LAST_SAVE, UNSAVED, PAGES, BUSY,
)  # fmt: skip
# Where several things share a label value (`other`), they are the worst of them; everything else is their sum.
WORST = (LAG, LAG_BYTES, WRAPAROUND)

Fact = tuple[Gauge | Counter, tuple[str, ...], float]
Which = tuple[str, str]  # system, database

_log = structlog.get_logger()


def database_metrics(facts: Mapping[Which, Iterable[Fact]]) -> Iterator[Metric]:
    """The facts of some databases as metrics, each family once."""
    series: dict[Gauge | Counter, dict[tuple[str, ...], float]] = {}
    for which, each in facts.items():
        for family, labels, value in each:
            values = series.setdefault(family, {})
            key = (*which, *labels)
            before = values.get(key)
            if before is not None:
                value = max(before, value) if family in WORST else before + value
            values[key] = float(value)
    for family, values in series.items():
        metric = family.metric()
        for key, value in values.items():
            metric.add_metric(key, value)
        yield metric


D = TypeVar("D")


def each_once(databases: list[D]) -> list[D]:
    """The databases of one system, each with a label and an address that no other has. Raises ValueError."""
    for what in ("label", "address"):
        twice = repeated(getattr(database, what) for database in databases)
        if twice:
            raise ValueError(f"'{twice}' stands twice; each database is watched once, under a name of its own")
    return databases


class Health:
    """Says whether one database is up, and tells the log when that changes."""

    def __init__(self, system: str, database: str) -> None:
        self.which: Which = (system, database)
        self._reason = ""

    def down(self, reason: str, problem: str) -> Iterator[Metric]:
        """It was tried in vain: up is 0, and nothing else is known."""
        if reason != self._reason:
            _log.warning("database_down", system=self.which[0], database=self.which[1], reason=reason, problem=problem)
        self._reason = reason
        yield from database_metrics({self.which: [(UP, (), 0), (UNREACHABLE, (reason,), 1)]})

    def up(self, facts: Iterable[Fact]) -> Iterator[Metric]:
        if self._reason:
            _log.info("database_up", system=self.which[0], database=self.which[1])
        self._reason = ""
        yield from database_metrics({self.which: [(UP, (), 1), *facts]})
