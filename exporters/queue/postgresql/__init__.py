"""Queues in PostgreSQL: tables with SKIP LOCKED, pgmq, River, Graphile Worker, or a query of one's own.

Everything is one statement a queue, read-only and with a time-out. Where a system keeps the times of what it finished,
that is asked in a second one, only for what ended since the last scrape.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction, PartialReadError
from exporters.families import Observations
from exporters.postgresql import Client, needs_psycopg, said
from exporters.postgresql import Server as Address
from exporters.queue.postgresql.shapes import COUNTERS, MOST_ROWS, Plan, Queue, plan
from exporters.queue.state import SECONDS_BOUNDS, QueueState, queue_metrics
from exporters.runtime.config import repeated

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

# A job that is finished is seen only when its transaction commits; one that takes longer than this may be missed.
SETTLE = timedelta(seconds=2)
SHOWN_PROBLEMS = 5  # of one server in one message
Row = tuple[Any, ...]


class Server(Address):
    """One database and its queues."""

    queues: Annotated[list[Queue], Field(min_length=1)]


def _distinct(servers: list[Server]) -> list[Server]:
    where: dict[str, str] = {}
    for number, server in enumerate(servers):
        for index, queue in enumerate(server.queues):
            here = f"{number}.queues.{index}"
            if queue.name in where:
                raise ValueError(f"the queue '{queue.name}' stands twice ({where[queue.name]}, {here}); rename one")
            where[queue.name] = here
    addresses = [server.address for server in servers]
    twice = repeated(addresses)
    if twice:
        raise ValueError(f"the database {twice} stands twice; write its queues in one place")
    return servers


Servers = Annotated[list[Server], AfterValidator(_distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a database, by its address. Raises ConfigError where the package `psycopg` is not installed."""
    needs_psycopg("exporters.queue.postgresql")
    return {server.address: PostgresqlQueues(server).collect for server in servers}


class PostgresqlQueues:
    """Reads all queues of one database, one after another, over one connection that is kept between scrapes."""

    def __init__(self, server: Server) -> None:
        self._address = server.address
        self._client = Client(server)
        self._plans = {queue.name: plan(queue) for queue in server.queues}
        self._ended = {name: Ended.of(each) for name, each in self._plans.items() if each.finished}

    def collect(self, deadline: float) -> Iterator[Metric]:
        import psycopg

        states: dict[str, QueueState] = {}
        problems: list[str] = []
        # a statement that waits for a lock leaves time for the other queues
        seconds = max(0.5, (deadline - time.monotonic()) / 3)
        with self._client.session(deadline, seconds) as connection:
            ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
            for name, each in self._plans.items():
                try:
                    states[name] = self._read(connection, name, each, now)
                except ValueError as error:
                    problems.append(f"queue '{name}': {error}")
                except psycopg.Error as error:
                    if connection.closed:
                        raise
                    problems.append(f"queue '{name}': {said(error)}")
        yield from queue_metrics("postgresql", states)
        if problems:
            more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
            raise PartialReadError(f"{self._address}: " + "; ".join(problems[:SHOWN_PROBLEMS] + more))

    def _read(self, connection: "Connection", name: str, each: Plan, now: datetime) -> QueueState:
        cursor = connection.execute(each.counts)
        rows = cursor.fetchall()
        if isinstance(each.counts, bytes):
            return declared_state(each, [column.name for column in cursor.description or ()], rows, now)
        counters: dict[str, float] = {}
        if each.enqueued is not None:
            ((counters["enqueued"],),) = connection.execute(each.enqueued).fetchall()
        if each.finished is None:
            return queue_state(each, rows, counters)
        ended, until = self._ended[name], now - SETTLE
        if ended.until is not None and until > ended.until:  # else it is the first time, or its clock was set back
            ended.take(connection.execute(each.finished(ended.until, until)).fetchall())
        ended.until = until
        return queue_state(each, rows, counters | ended.counts, ended.wait, ended.work)


@dataclass
class Ended:
    """What was finished since the exporter started. `until`: up to when, by the server's clock, that is known."""

    counts: dict[str, int]
    wait: Observations | None
    work: Observations | None
    until: datetime | None = None

    @classmethod
    def of(cls, each: Plan) -> "Ended":
        """Nothing yet, of what the plan can tell."""
        counts = {"completed": 0, **({"failed": 0} if "failed" in each.states else {})}
        wait, work = (Observations(SECONDS_BOUNDS) if what in each.timed else None for what in ("wait", "work"))
        return cls(counts, wait, work)

    def take(self, rows: Sequence[Row]) -> None:
        """Of (outcome, number, sum of their waits, of their work), whose mean is in the same bucket as each of them."""
        for outcome, count, wait, work in rows:
            self.counts[outcome] += count
            if wait is not None and self.wait is not None:
                self.wait.observe(wait / count, count)
            if work is not None and self.work is not None:
                self.work.observe(work / count, count)


def queue_state(
    each: Plan,
    rows: Sequence[Row],
    counters: Mapping[str, float],
    wait: Observations | None = None,
    work: Observations | None = None,
) -> QueueState:
    """One queue's numbers, from rows of (state, count, age or None)."""
    messages = {**dict.fromkeys(each.states, 0), **{state: count for state, count, _ in rows}}
    ages = {state: 0.0 for state in each.ages if not messages[state]}
    ages |= {state: max(0.0, age) for state, _, age in rows if age is not None}
    return QueueState(messages, ages, counters=counters, wait=wait, process=work)


def declared_state(each: Plan, columns: Sequence[str], rows: Sequence[Row], now: datetime) -> QueueState:
    """One queue's numbers from what a declared query gave. Raises ValueError, as a sentence, for what it cannot use."""
    if not {"state", "count"} <= set(columns):
        raise ValueError(f"its query must give the columns state and count; it gives {', '.join(columns) or 'none'}")
    if len(rows) > MOST_ROWS:
        raise ValueError(f"its query gives more than {MOST_ROWS} rows; group them by state")
    messages: dict[str, int] = dict.fromkeys(each.states, 0)
    ages = dict.fromkeys(each.states, 0.0) if "oldest" in columns else {}
    counters: dict[str, float] = {}
    for row in rows:
        found = dict(zip(columns, row, strict=True))
        state, count = str(found["state"]), _number(found["count"])
        if state in COUNTERS:
            counters[COUNTERS[state]] = count
        elif state not in messages:
            known = ", ".join([*each.states, *COUNTERS])
            raise ValueError(f"its query gives the state '{state[:60]}'; known: {known}; name it in states")
        else:
            messages[state] += int(count)
            ages.pop(state, None)
            if (age := _age(found.get("oldest"), now)) is not None:
                ages[state] = age
            elif not count and "oldest" in columns:
                ages[state] = 0.0
    return QueueState(messages, ages, counters=counters)


def _number(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, Decimal)) else math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"its query gives the count '{str(value)[:60]}'; it must be a number, 0 or more")
    return number


def _age(value: object, now: datetime) -> float | None:
    """Seconds: of a number, an interval, or since a time; None where there is none."""
    if value is None:
        return None
    if isinstance(value, datetime):
        value = now - (value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, (int, float, Decimal)) and math.isfinite(value):
        return max(0.0, float(value))
    raise ValueError(f"its query gives '{str(value)[:60]}' as oldest; it must be seconds, an interval or a time")
