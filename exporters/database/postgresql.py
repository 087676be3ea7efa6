"""PostgreSQL 13 to 18: connections, transactions, locks, replication, sizes, and the statements that take the time.

The user needs the role pg_monitor. Without it PostgreSQL shows only its own sessions; what would then be wrong is left
out and named.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction, PartialReadError
from exporters.database import queries
from exporters.database.state import (
    BLOCKS,
    CONNECTIONS,
    CONNECTIONS_MAX,
    DEADLOCKS,
    INFO,
    LAG,
    LAG_BYTES,
    LINK,
    LOCKS,
    OLDEST,
    PING,
    REPLICA,
    REPLICAS,
    SIZE,
    STATEMENT_CALLS,
    STATEMENT_ROWS,
    STATEMENT_SECONDS,
    TEMP,
    TRANSACTIONS,
    TUPLES,
    WRAPAROUND,
    Fact,
    Health,
    each_once,
)
from exporters.labels import OTHER, Cap, clean
from exporters.postgresql import Client, Server, UnreachableError, needs_psycopg, said

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

MOST_NAMES, MOST_REPLICAS = 100, 50
SIZES_SECONDS = 60.0  # measuring them looks at every file of every database
SHARE = 0.3  # of a scrape's time that one statement may take, so that a slow one costs only what it would have told
STATES = ("active", "idle", "idle in transaction", "idle in transaction (aborted)")  # always shown, if only as 0
IDS = 2**31

Row = tuple[Any, ...]


class Database(Server):
    """One PostgreSQL. `name` is the label `database`; `statements`: how many of the costliest to show, 0 for none."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    statements: Annotated[int, Field(ge=0, le=200)] = 20

    @property
    def label(self) -> str:
        return self.name or self.address


Databases = Annotated[list[Database], AfterValidator(each_once)]


def collectors(databases: Sequence[Database]) -> Mapping[str, CollectFunction]:
    """One a database, by its address. Raises ConfigError where the package `psycopg` is not installed."""
    needs_psycopg("exporters.database.postgresql")
    return {database.address: PostgresqlServer(database).collect for database in databases}


@dataclass(frozen=True)
class Basics:
    """What the server says of itself before anything else is asked."""

    ping_seconds: float
    version: str
    user: str
    sees_all: bool  # sessions of others, that is
    in_recovery: bool
    connections_max: int


class PostgresqlServer:
    """Reads one server over one connection that is kept between scrapes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._client = Client(database)
        self._health = Health("postgresql", database.label)
        caps = {"name": MOST_NAMES, "replica": MOST_REPLICAS, "queryid": 10 * database.statements}
        self._caps = {
            label: Cap(f"database.postgresql.{database.address}", label, most) for label, most in caps.items()
        }
        self._sizes: list[Row] | psycopg.Error = []
        self._sizes_read = float("-inf")

    def collect(self, deadline: float) -> Iterator[Metric]:
        facts: list[Fact] = []
        problems: list[str] = []
        share = SHARE * (deadline - time.monotonic())
        try:
            with self._client.session(deadline, share) as connection:
                basics = read_basics(connection)
                facts += basic_facts(basics)
                for what, read in self._readings(basics).items():
                    if deadline - time.monotonic() < 1.1 * share:  # it might be cut off, and all that was read with it
                        problems.append(f"{what}: others took too long")
                        continue
                    try:
                        facts += read(connection)
                    except _psycopg_error() as error:
                        if connection.closed:
                            raise
                        problems.append(f"{what}: {said(error)}")
        except UnreachableError as error:
            yield from self._health.down(error.reason, str(error))
            return
        yield from self._health.up(facts)
        if not basics.sees_all:
            problems.append(
                f"the user '{basics.user}' does not see other users' sessions; states of connections, oldest "
                f"transaction, replication and statements are left out: GRANT pg_monitor TO {basics.user}"
            )
        if problems:
            raise PartialReadError(f"{self._database.address}: " + "; ".join(problems))

    def _readings(self, basics: Basics) -> "dict[str, Callable[[Connection], Iterable[Fact]]]":
        """What else to read, by what it is."""
        name = self._caps["name"]
        readings: dict[str, Callable[[Connection], Iterable[Fact]]] = {
            "connections": lambda on: activity_facts(on.execute(queries.ACTIVITY).fetchall(), basics.sees_all),
            "locks": lambda on: [(LOCKS, (), on.execute(queries.LOCKS).fetchall()[0][0])],
            "databases": lambda on: database_facts(on.execute(queries.DATABASES).fetchall(), name),
            "sizes": lambda on: size_facts(self._read_sizes(on), name),
            "tuples": lambda on: tuple_facts(on.execute(queries.TUPLES).fetchall(), name),
        }
        if basics.sees_all:
            readings["replication"] = lambda on: replication_facts(
                on.execute(queries.REPLICATION).fetchall(), self._caps["replica"]
            )
            if basics.in_recovery:
                readings["replica"] = lambda on: replica_facts(*on.execute(queries.REPLICA).fetchall()[0])
            if self._database.statements:
                readings["statements"] = self._read_statements
        return readings

    def _read_sizes(self, connection: "Connection") -> list[Row]:
        """Where it fails, it is not tried sooner again either: it may have failed for being too much."""
        now = time.monotonic()
        if now - self._sizes_read >= SIZES_SECONDS:
            self._sizes_read = now
            try:
                self._sizes = connection.execute(queries.SIZES).fetchall()
            except _psycopg_error() as error:
                self._sizes = error
        if isinstance(self._sizes, Exception):
            raise self._sizes.with_traceback(None)
        return self._sizes

    def _read_statements(self, connection: "Connection") -> Iterable[Fact]:
        installed = connection.execute(queries.STATEMENTS_EXTENSION).fetchall()
        if not installed:
            return []
        schema, version = installed[0]
        query = queries.statements(schema, version, self._database.statements)
        return statement_facts(connection.execute(query).fetchall(), self._caps["queryid"])


def read_basics(connection: "Connection") -> Basics:
    began = time.monotonic()
    connection.execute("SELECT 1").fetchall()
    seconds = time.monotonic() - began
    ((version, user, sees_all, in_recovery, most),) = connection.execute(queries.BASICS).fetchall()
    return Basics(seconds, version, user, sees_all, in_recovery, most)


def basic_facts(basics: Basics) -> list[Fact]:
    return [
        (PING, (), basics.ping_seconds),
        (INFO, (clean(basics.version.split(" ")[0]),), 1),
        (REPLICA, (), basics.in_recovery),
        (CONNECTIONS_MAX, (), basics.connections_max),
    ]


def activity_facts(rows: Sequence[Row], sees_all: bool) -> list[Fact]:
    """Of (state, sessions, seconds of the oldest transaction or None) by state; None: the state is not shown to us."""
    counts = {state or "hidden": count for state, count, _ in rows}
    if not sees_all:
        return [(CONNECTIONS, ("hidden",), sum(counts.values()))]
    states = {**dict.fromkeys(STATES, 0), **counts}
    oldest = max((seconds for _, _, seconds in rows if seconds is not None), default=0.0)
    return [*((CONNECTIONS, (state,), count) for state, count in states.items()), (OLDEST, (), max(0.0, oldest))]


def database_facts(rows: Sequence[Row], cap: Cap) -> Iterator[Fact]:
    """Of what is beyond the cap only the age: a sum of counters falls when one of their databases is dropped."""
    for name, commits, rollbacks, hit, read, temp_bytes, deadlocks, age in rows:
        label = cap(name)
        yield WRAPAROUND, (label,), age / IDS
        if label == OTHER:
            continue
        yield TRANSACTIONS, (label, "commit"), commits
        yield TRANSACTIONS, (label, "rollback"), rollbacks
        yield BLOCKS, (label, "hit"), hit
        yield BLOCKS, (label, "read"), read
        yield TEMP, (label,), temp_bytes
        yield DEADLOCKS, (label,), deadlocks


def size_facts(rows: Sequence[Row], cap: Cap) -> list[Fact]:
    """None: the user may neither connect to it nor see all; then its size is not known."""
    return [(SIZE, (cap(name),), size) for name, size in rows if size is not None]


def tuple_facts(rows: Sequence[Row], cap: Cap) -> Iterator[Fact]:
    for name, live, dead in rows:
        yield TUPLES, (cap(name), "live"), live
        yield TUPLES, (cap(name), "dead"), dead


def replication_facts(rows: Sequence[Row], cap: Cap) -> Iterator[Fact]:
    """Of (name, seconds or None, bytes) by follower. None while nothing was written lately: 0 if all is applied."""
    yield REPLICAS, (), len(rows)
    for name, seconds, behind in rows:
        label = cap(name)
        if behind is not None:
            yield LAG_BYTES, (label,), max(0, behind)
        if seconds is not None or behind == 0:
            yield LAG, (label,), max(0.0, seconds or 0.0)


def replica_facts(streamed: bool, caught_up: bool, streaming: bool, behind: int, seconds: float | None) -> list[Fact]:
    """Of a replica, about itself.

    streamed: it ever received from a primary, else it is fed from an archive; caught_up: all it received is applied;
    behind: bytes of that which are not; seconds: since what it applied last was committed.
    """
    if not streamed:
        return [] if seconds is None else [(LAG, ("self",), max(0.0, seconds))]
    facts: list[Fact] = [(LINK, (), streaming), (LAG_BYTES, ("self",), max(0, behind))]
    if streaming and caught_up:
        facts.append((LAG, ("self",), 0.0))
    elif not caught_up and seconds is not None:
        facts.append((LAG, ("self",), max(0.0, seconds)))
    return facts  # all is applied, but nobody sends: how far the primary is, nobody knows


def statement_facts(rows: Sequence[Row], cap: Cap) -> Iterator[Fact]:
    """Of (queryid, calls, seconds, rows). What is beyond the cap is left out: a sum of changing ones is no counter."""
    for queryid, calls, seconds, count in rows:
        label = cap(queryid)
        if label != OTHER:
            yield STATEMENT_CALLS, (label,), calls
            yield STATEMENT_SECONDS, (label,), seconds
            yield STATEMENT_ROWS, (label,), count


def _psycopg_error() -> "type[psycopg.Error]":
    import psycopg

    return psycopg.Error
