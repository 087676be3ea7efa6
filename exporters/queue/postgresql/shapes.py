"""Queues that are tables: what a configuration says of one, and what PostgreSQL is asked for it.

A shape becomes a `Plan`. Names are quoted as identifiers and values as literals by psycopg; only a declared query is
taken as it is, and it comes from the configuration's author.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from exporters.queue.state import SECONDS_BOUNDS
from exporters.runtime.config import Section

if TYPE_CHECKING:
    from psycopg.sql import Composable, Composed

Word = Annotated[str, Field(min_length=1, max_length=200)]
State = Literal["ready", "active", "delayed", "failed"]
Value = str | int | bool
# A declared query may also give counters, as rows whose state is one of these.
COUNTERS = {"enqueued_total": "enqueued", "completed_total": "completed", "failed_total": "failed"}


def _table_name(text: str) -> str:
    if not all(text.split(".")) or text.count(".") > 1:
        raise ValueError(f"'{text[:60]}' is not the name of a table; write TABLE or SCHEMA.TABLE")
    return text


class Table(Section):
    """A table from which workers take rows (FOR UPDATE SKIP LOCKED); all but its name are names of columns.

    state and states: which of its values are which state. Without: a row with `finished` is done, one with `started`
    active, one with `run_at` ahead delayed, any other ready. only: column: value, to watch a part of the table.
    """

    name: Annotated[str, AfterValidator(_table_name)]
    state: Word | None = None
    states: dict[State | Literal["completed"], Annotated[list[Value], Field(min_length=1)]] = {}
    created: Word | None = None
    run_at: Word | None = None
    started: Word | None = None
    finished: Word | None = None
    only: dict[Word, Value] = {}

    @model_validator(mode="after")
    def _states_have_a_column(self) -> Self:
        if bool(self.state) != bool(self.states):
            raise ValueError("state (the column) and states (which of its values mean what) go together; give both")
        if self.states and "ready" not in self.states:
            raise ValueError("states does not say what is ready; name the values, for example ready: [queued]")
        return self


class Pgmq(Section):
    """A queue of the extension pgmq. archive: its workers archive what is done, so that the archive counts it."""

    queue: Annotated[str, Field(min_length=1, max_length=48)]
    archive: bool = False


class River(Section):
    """A queue of River (Go), by its table river_job."""

    queue: Word = "default"
    schema_name: Annotated[str, Field(min_length=1, alias="schema")] = "public"


class GraphileWorker(Section):
    """The jobs of Graphile Worker, of one task or of all."""

    task: Word | None = None
    schema_name: Annotated[str, Field(min_length=1, alias="schema")] = "graphile_worker"


class Queue(Section):
    """One queue, in exactly one shape. `states`: those that `query` tells, shown as 0 where it gives no row."""

    name: Word
    query: Annotated[str, Field(min_length=1)] | None = None
    states: Annotated[list[State], Field(min_length=1)] = ["ready"]
    table: Table | None = None
    pgmq: Pgmq | None = None
    river: River | None = None
    graphile_worker: GraphileWorker | None = None

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        shapes = ("query", "table", "pgmq", "river", "graphile_worker")
        found = [shape for shape in shapes if getattr(self, shape) is not None]
        if len(found) != 1:
            raise ValueError(f"found {', '.join(found) or 'no shape'}; give exactly one of {', '.join(shapes)}")
        if self.states != ["ready"] and self.query is None:
            raise ValueError("states belongs to a query; the other shapes know their states")
        return self


@dataclass(frozen=True)
class Plan:
    """What to ask about one queue.

    counts: rows of (state, count, age of the oldest or None); of a declared query, by the names of its columns.
    states: those that are there, if only as 0. ages: those of them whose age the rows tell.
    enqueued: how many were ever put in, as (number,). finished: what ended between two times of the server's, as rows
    of (completed or failed, number, sum of their waits or None, of their work); each row's are in the same buckets.
    timed: which of "wait" and "work" these rows tell.
    """

    counts: "Composed | bytes"
    states: tuple[str, ...]
    ages: tuple[str, ...] = ()
    enqueued: "Composed | None" = None
    finished: "Callable[[datetime, datetime], Composed] | None" = None
    timed: tuple[str, ...] = ()


def plan(queue: Queue) -> Plan:
    """What to ask for a queue of that shape. Needs psycopg."""
    if queue.table is not None:
        return _table(queue.table)
    if queue.pgmq is not None:
        return _pgmq(queue.pgmq)
    if queue.river is not None:
        return _table(_river(queue.river), queue.river.schema_name)
    if queue.graphile_worker is not None:
        return _graphile_worker(queue.graphile_worker)
    return _declared(queue.query or "", tuple(queue.states))


MOST_ROWS = 100  # of a declared query


def _declared(query: str, states: tuple[str, ...]) -> Plan:
    inner = re.sub(r"[\s;]+$", "", query)
    # on a line of its own: the query may end with a comment
    return Plan(f"SELECT * FROM (\n{inner}\n) AS declared LIMIT {MOST_ROWS + 1}".encode(), states)  # noqa: S608


def _river(river: River) -> Table:
    """River's states; a job of which another attempt is due has not been given up. `pending` ones wait for others."""
    return Table(
        name="river_job",
        state="state",
        states={
            "ready": ["available"],
            "active": ["running"],
            "delayed": ["scheduled", "retryable"],
            "failed": ["discarded"],
            "completed": ["completed"],
        },
        created="created_at",
        run_at="scheduled_at",
        started="attempted_at",
        finished="finalized_at",
        only={"queue": river.queue},
    )


def _table(table: Table, schema: str = "") -> Plan:
    from psycopg import sql

    source = sql.Identifier(*([schema] if schema else []), *table.name.split("."))
    has: dict[str, Composable] = {
        role: sql.Identifier(column)
        for role in ("state", "created", "run_at", "started", "finished")
        if (column := getattr(table, role))
    }
    part = _all_of(
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Literal(value)) for column, value in table.only.items()
    )
    cases: list[Composable] = []
    states: tuple[str, ...] = ("ready",)
    unfinished = part
    if table.states:
        states = tuple(state for state in table.states if state != "completed")
        values = [value for state, each in table.states.items() if state != "completed" for value in each]
        unfinished = _all_of((part, _is_one_of(has["state"], values)))
        cases = [
            _when(_is_one_of(has["state"], values), state)
            for state, values in table.states.items()
            if state not in ("ready", "completed")
        ]
    else:
        if "finished" in has:
            unfinished = _all_of((part, sql.SQL("{} IS NULL").format(has["finished"])))
        if "started" in has:
            states += ("active",)
            cases.append(_when(sql.SQL("{} IS NOT NULL").format(has["started"]), "active"))
    if "run_at" in has:
        states = tuple(dict.fromkeys((*states, "delayed")))
        cases.append(_when(sql.SQL("{} > now()").format(has["run_at"]), "delayed"))
    waiting = _latest([has[role] for role in ("created", "run_at") if role in has])
    since: dict[str, Composable | None] = {
        "ready": waiting,
        "active": has.get("started"),
        "delayed": has.get("created"),
        "failed": has.get("finished"),
    }
    state: Composable = sql.Literal("ready")
    if cases:
        state = sql.SQL("CASE {} ELSE 'ready' END").format(sql.SQL(" ").join(cases))
    counted = "finished" in has and ("completed" in table.states or not table.states)
    return Plan(
        _counts(source, unfinished, state, since),
        states,
        tuple(name for name in states if since[name] is not None),
        finished=_finished(table, source, part, has, waiting) if counted else None,
        timed=(*(["wait"] if waiting and "started" in has else []), *(["work"] if "started" in has else [])),
    )


def _finished(
    table: Table, source: "Composable", part: "Composable", has: "dict[str, Composable]", due: "Composable | None"
) -> "Callable[[datetime, datetime], Composed]":
    from psycopg import sql

    outcome: Composable = sql.Literal("completed")
    if table.states:
        failed, completed = table.states.get("failed", []), table.states["completed"]
        part = _all_of((part, _is_one_of(has["state"], [*failed, *completed])))
        if failed:
            outcome = sql.SQL("CASE {} ELSE 'completed' END").format(_when(_is_one_of(has["state"], failed), "failed"))
    started = has.get("started")
    wait, work = _seconds(due, started), _seconds(started, has["finished"])

    def between(since: datetime, until: datetime) -> "Composed":
        return sql.SQL(
            "SELECT outcome, count(*), sum(wait), sum(work) "
            "FROM (SELECT {outcome} AS outcome, {wait}::float8 AS wait, {work}::float8 AS work FROM {source} "
            "WHERE {part} AND {finished} > {since} AND {finished} <= {until}) AS ended "
            "GROUP BY outcome, wait IS NULL, work IS NULL, width_bucket(wait, {bounds}), width_bucket(work, {bounds})"
        ).format(
            bounds=sql.Literal([float(bound) for bound in SECONDS_BOUNDS]),
            outcome=outcome, wait=wait, work=work, source=source, part=part, finished=has["finished"],
            since=sql.Literal(since), until=sql.Literal(until),
        )  # fmt: skip

    return between


def _seconds(start: "Composable | None", end: "Composable | None") -> "Composable":
    """From the one time to the other, at least 0: workers' clocks differ a little. NULL where one is not known."""
    from psycopg import sql

    if start is None or end is None:
        return sql.SQL("NULL")
    seconds = sql.SQL("extract(epoch FROM {} - {})").format(end, start)
    return sql.SQL("greatest({0}, 0 * {0})").format(seconds)  # greatest() would take 0 rather than NULL


def _pgmq(pgmq: Pgmq) -> Plan:
    from psycopg import sql

    name = pgmq.queue.lower()  # as pgmq makes its tables' names
    messages = sql.Identifier("pgmq", f"q_{name}")
    state: Composable = sql.SQL("CASE WHEN vt <= now() THEN 'ready' WHEN read_ct > 0 THEN 'active' ELSE 'delayed' END")
    # what was never read is ready since it became visible, what was read in vain since it was sent
    since: dict[str, Composable | None] = {
        "ready": sql.SQL("CASE WHEN read_ct = 0 THEN vt ELSE enqueued_at END"),
        "active": None,  # when it was taken is not kept
        "delayed": sql.SQL("enqueued_at"),
    }
    archive = sql.Identifier("pgmq", f"a_{name}")

    def archived(start: datetime, until: datetime) -> "Composed":
        return sql.SQL(
            "SELECT 'completed', count(*), NULL, NULL FROM {} WHERE archived_at > {} AND archived_at <= {}"
        ).format(archive, sql.Literal(start), sql.Literal(until))

    return Plan(
        _counts(messages, sql.SQL("true"), state, since),
        ("ready", "active", "delayed"),
        ("ready", "delayed"),
        enqueued=sql.SQL("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {}").format(
            sql.Identifier("pgmq", f"q_{name}_msg_id_seq")
        ),
        finished=archived if pgmq.archive else None,
    )


def _graphile_worker(worker: GraphileWorker) -> Plan:
    """By its public view; before 0.16 that was the table itself. A lock of four hours is taken for a dead worker's."""
    from psycopg import sql

    held = sql.SQL("locked_at IS NOT NULL AND locked_at > now() - interval '4 hours'")
    state = sql.SQL(
        "CASE WHEN {} THEN 'active' WHEN attempts >= max_attempts THEN 'failed' WHEN run_at > now() THEN 'delayed' "
        "ELSE 'ready' END"
    ).format(held)
    since: dict[str, Composable | None] = {
        "ready": sql.SQL("greatest(run_at, created_at)"),
        "active": sql.SQL("locked_at"),
        "delayed": sql.SQL("created_at"),
        "failed": sql.SQL("updated_at"),
    }
    part: Composable = sql.SQL("true")
    if worker.task:
        part = sql.SQL("task_identifier = {}").format(sql.Literal(worker.task))
    states = ("ready", "active", "delayed", "failed")
    return Plan(_counts(sql.Identifier(worker.schema_name, "jobs"), part, state, since), states, states)


def _counts(
    source: "Composable", part: "Composable", state: "Composable", since: "Mapping[str, Composable | None]"
) -> "Composed":
    """State, number, seconds since the earliest `since` of the state."""
    from psycopg import sql

    times = [sql.SQL("WHEN {} THEN {}").format(sql.Literal(name), at) for name, at in since.items() if at is not None]
    at: Composable = sql.SQL("NULL::timestamptz")
    if times:
        at = sql.SQL("CASE {} {} END").format(state, sql.SQL(" ").join(times))
    return sql.SQL(
        "SELECT told.state, count(*), extract(epoch FROM now() - min(told.at))::float8 "
        "FROM (SELECT {state} AS state, {at} AS at FROM {source} WHERE {part}) AS told GROUP BY told.state"
    ).format(state=state, at=at, source=source, part=part)


def _all_of(conditions: "Iterable[Composable]") -> "Composable":
    from psycopg import sql

    return sql.SQL(" AND ").join([sql.SQL("true"), *conditions])


def _latest(columns: "list[Composable]") -> "Composable | None":
    from psycopg import sql

    return sql.SQL("greatest({})").format(sql.SQL(", ").join(columns)) if columns else None


def _is_one_of(column: "Composable", values: "list[Value]") -> "Composable":
    """Compares with plain literals, which take the column's own type: an index can be used, an enum as well."""
    from psycopg import sql

    return sql.SQL("{} IN ({})").format(column, sql.SQL(", ").join(map(sql.Literal, values)))


def _when(condition: "Composable", state: str) -> "Composable":
    from psycopg import sql

    return sql.SQL("WHEN {} THEN {}").format(condition, sql.Literal(state))
