"""n8n from its own tables, read-only: PostgreSQL or SQLite, of any version that keeps `execution_entity`.

Executions are looked up by their number only, the primary key. What a version does not have is left out.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from exporters.postgresql import Client
from exporters.workflow.config import N8n
from exporters.workflow.executions import OPEN_MOST, Execution, Follower, Tally
from exporters.workflow.reading import Counts, Reading, moment
from exporters.workflow.schedule import TYPES, expected_seconds
from exporters.workflow.state import Count, Workflow

Rows = list[tuple[Any, ...]]
PAGE = 2000  # executions in one statement
PAGES = 10  # of them in one look
NODES = 20  # workflows whose nodes are read in one statement; they may be megabytes
NODES_LONGEST = 2_000_000  # characters; longer ones are not looked through


class Session(Protocol):
    """One open database. Statements are written with ? for parameters."""

    def ask(self, sql: str, *parameters: object) -> Rows: ...

    def among(self, column: str, values: Sequence[int | str]) -> tuple[str, object]:
        """A condition that `column` is one of `values`, and its parameter."""

    def columns(self, table: str) -> set[str]:
        """Of a table by its name without schema; empty where there is none."""


class DatabaseReader:
    """Reads one n8n's database."""

    def __init__(self, config: N8n) -> None:
        self._most = config.workflows_max
        self._prefix = config.table_prefix
        self._open: Callable[[float], contextlib.AbstractContextManager[Session]]
        if config.postgresql:
            client, schema = Client(config.postgresql), config.db_schema
            self._schema = f'"{schema}".'
            self._open = lambda deadline: _postgresql(client, schema, deadline)
        else:
            path = config.sqlite or Path()
            self._schema = ""
            self._open = lambda deadline: _sqlite(path, deadline)
        self._follower: Follower | None = None
        self._newest: int | None = None
        self._schedules: dict[str, tuple[object, float | None]] = {}  # workflow -> (its version, seconds)

    def read(self, deadline: float, tally: Tally) -> Reading:
        problems: list[str] = []
        with self._open(deadline) as session:
            columns = {name: session.columns(self._prefix + name) for name in _TABLES}
            for name in ("workflow_entity", "execution_entity"):
                if not columns[name]:
                    raise ValueError(
                        f"there is no table {self._table(name)}; check the database, schema and table_prefix"
                    )
            listed, beyond = self._workflows(session, columns)
            counts = self._counts(session, columns) if columns["workflow_statistics"] else None
            all_read = self._executions(session, columns, tally, deadline, counts is None)
            if not all_read:
                problems.append("more executions ended than can be read at once; the rest follows with the next scrape")
            try:
                workflows = self._scheduled(session, columns, listed, deadline)
            except Exception as error:  # the nodes alone: no right to read a table, an answer that is too long
                workflows = [workflow for workflow, _ in listed]
                problems.append(f"the schedules cannot be read: {_said(error)}")
        follower = self._follower
        still_open = None
        if follower is not None and not follower.complete:
            problems.append(f"more than {OPEN_MOST} executions are open; running and waiting are not shown")
        elif follower is not None and all_read:
            still_open = follower.still_open()
        return Reading(workflows, beyond, counts, still_open, problems)

    def _table(self, name: str) -> str:
        return f'{self._schema}"{self._prefix}{name}"'

    def _workflows(self, session: Session, columns: dict[str, set[str]]) -> tuple[list[tuple[Workflow, object]], int]:
        """The workflows, active ones first, each with what its schedule depends on; how many more there are."""
        version = '"activeVersionId"' if "activeVersionId" in columns["workflow_entity"] else "NULL"
        rows = session.ask(
            f'SELECT id, substr(name, 1, 400), active, "updatedAt", {version} '  # noqa: S608
            f"FROM {self._kept(columns)} ORDER BY active DESC, id LIMIT {self._most + 1}"
        )
        beyond = 0
        if len(rows) > self._most:
            [(total,)] = session.ask(f"SELECT count(*) FROM {self._kept(columns)}")  # noqa: S608
            beyond = int(total) - self._most
        listed: list[tuple[Workflow, object]] = []
        for number, name, active, changed, version in rows[: self._most]:
            workflow = Workflow(str(number), str(name), bool(active), moment(changed))
            listed.append((workflow, (str(changed), version)))
        return listed, beyond

    def _kept(self, columns: dict[str, set[str]]) -> str:
        """The workflows that are not put away."""
        archived = "isArchived" in columns["workflow_entity"]
        return self._table("workflow_entity") + (' WHERE NOT "isArchived"' if archived else "")

    def _counts(self, session: Session, columns: dict[str, set[str]]) -> Counts:
        """n8n's own totals. Newer ones on PostgreSQL keep increments beside them: one statement sees both at once."""
        statistics = self._table("workflow_statistics")
        parts = f'SELECT "workflowId", name, count AS n, "latestEvent" AS at FROM {statistics}'  # noqa: S608
        if columns["workflow_statistics_delta"]:
            delta = self._table("workflow_statistics_delta")
            parts += f' UNION ALL SELECT "workflowId", name, 1, "createdAt" FROM {delta}'  # noqa: S608
        found: dict[str, dict[str, Count]] = {}
        for number, name, total, at in session.ask(
            f'SELECT p."workflowId", p.name, sum(p.n), max(p.at) FROM ({parts}) p '  # noqa: S608
            f"JOIN (SELECT id FROM {self._kept(columns)} ORDER BY active DESC, id LIMIT {self._most}) w "
            'ON w.id = p."workflowId" GROUP BY p."workflowId", p.name'
        ):
            mode, _, outcome = str(name).partition("_")
            if mode not in ("production", "manual") or outcome not in ("success", "error"):
                continue  # data_loaded, and whatever comes
            modes = found.setdefault(str(number), {})
            before = modes.get(mode, Count())
            modes[mode] = (
                Count(int(total), before.failures, moment(at), before.last_failure)
                if outcome == "success"
                else Count(before.successes, int(total), before.last_success, moment(at))
            )
        return found

    def _executions(
        self, session: Session, columns: dict[str, set[str]], tally: Tally, deadline: float, remember: bool
    ) -> bool:
        """Counts what has ended. False: there is more to read. `remember`: nothing else tells of last times."""
        table, there = self._table("execution_entity"), columns["execution_entity"]
        fields = ", ".join(f'"{name}"' if name in there else "NULL" for name in _FIELDS)
        select = f"SELECT {fields} FROM {table}"  # noqa: S608
        alive = "\"status\" IN ('running', 'new', 'waiting')" if "status" in there else '"stoppedAt" IS NULL'
        kept = 'AND "deletedAt" IS NULL' if "deletedAt" in there else ""
        search = f"{select} WHERE {alive} {kept} AND id <= ? ORDER BY id DESC LIMIT {OPEN_MOST + 1}"
        [(newest,)] = session.ask(f"SELECT max(id) FROM {table}")  # noqa: S608
        if self._follower is None or self._started_again(newest):
            if remember:
                self._last_times(session, there, table, tally)
            last = int(newest or 0)
            self._follower = Follower(last, map(_execution, session.ask(search, last)))
        follower = self._follower
        if follower.has_room:
            follower.look_again(map(_execution, session.ask(search, follower.last)))
        asked = follower.asks
        if asked:
            condition, values = session.among("id", asked)
            found = [_execution(row) for row in session.ask(f"{select} WHERE {condition}", values)]
            for execution in follower.absorb(found, asked, time.monotonic()):
                tally.add(execution)
        for _ in range(PAGES):
            rows = session.ask(f"{select} WHERE id > ? ORDER BY id LIMIT {PAGE}", follower.last)
            for execution in follower.absorb(map(_execution, rows), (), time.monotonic()):
                tally.add(execution)
            if len(rows) < PAGE:
                self._newest = newest
                return True
            if time.monotonic() > deadline - 1:
                break
        return False

    def _started_again(self, newest: int | None) -> bool:
        """Whether the numbers began anew: another database stands there now.

        A newest number that falls says nothing, rows are deleted; one that rises below what was seen does.
        """
        follower = self._follower
        if follower is None or newest is None or self._newest is None:
            return False
        rises = self._newest < newest < follower.last and not follower.missed(newest)
        if newest < follower.last:
            self._newest = newest
        return rises

    def _last_times(self, session: Session, there: set[str], table: str, tally: Tally) -> None:
        """When each workflow last succeeded and failed, by the rows that are still there."""
        status = '"status"' if "status" in there else "NULL"
        for workflow, said, finished, stopped in session.ask(
            f'SELECT "workflowId", {status}, finished, max("stoppedAt") FROM {table} '  # noqa: S608
            "WHERE mode <> 'manual' AND \"stoppedAt\" IS NOT NULL GROUP BY 1, 2, 3"
        ):
            execution = Execution(0, str(workflow), "trigger", said, bool(finished), None, moment(stopped))
            if execution.ended:
                tally.remember(execution)

    def _scheduled(
        self,
        session: Session,
        columns: dict[str, set[str]],
        listed: Sequence[tuple[Workflow, object]],
        deadline: float,
    ) -> list[Workflow]:
        """The workflows with their schedules: nodes are read only of active ones that have changed."""
        stale = [
            workflow.workflow_id
            for workflow, version in listed
            if workflow.active and self._schedules.get(workflow.workflow_id, ("", None))[0] != version
        ]
        versions = {workflow.workflow_id: version for workflow, version in listed}
        for gone in self._schedules.keys() - versions.keys():
            del self._schedules[gone]
        nodes, joined = "w.nodes", ""
        if "activeVersionId" in columns["workflow_entity"] and "nodes" in columns["workflow_history"]:
            nodes = "COALESCE(h.nodes, w.nodes)"  # what was published, not what is being drawn
            joined = f'LEFT JOIN {self._table("workflow_history")} h ON h."versionId" = w."activeVersionId"'
        text = f"CAST({nodes} AS TEXT)"
        fits = " OR ".join(f"{text} LIKE '%{kind}%'" for kind in TYPES)
        for start in range(0, len(stale), NODES):
            if time.monotonic() > deadline - 1:
                break  # the others' turn comes with the next scrapes
            some = stale[start : start + NODES]
            condition, values = session.among("CAST(w.id AS TEXT)", some)
            rows = session.ask(
                f"SELECT w.id, {text} FROM {self._table('workflow_entity')} w {joined} "  # noqa: S608
                f"WHERE {condition} AND length({text}) <= {NODES_LONGEST} AND ({fits})",
                values,
            )
            found = {str(number): expected_seconds(str(stored)) for number, stored in rows}
            for workflow_id in some:
                self._schedules[workflow_id] = (versions[workflow_id], found.get(workflow_id))
        return [
            Workflow(
                workflow.workflow_id,
                workflow.name,
                workflow.active,
                workflow.changed,
                self._schedules.get(workflow.workflow_id, ("", None))[1] if workflow.active else None,
            )
            for workflow, _ in listed
        ]


_TABLES = (
    "workflow_entity",
    "execution_entity",
    "workflow_statistics",
    "workflow_statistics_delta",
    "workflow_history",
)
_FIELDS = ("id", "workflowId", "mode", "status", "finished", "startedAt", "stoppedAt", "waitTill", "createdAt")


def _execution(row: tuple[Any, ...]) -> Execution:
    number, workflow, mode, status, finished, started, stopped, wait_till, created = row
    return Execution(
        int(number),
        str(workflow),
        str(mode),
        None if status is None else str(status),
        None if finished is None else bool(finished),
        moment(created) if started is None else moment(started),
        moment(stopped),
        wait_till is not None,
    )


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class _Postgresql:
    def __init__(self, connection: Any, schema: str) -> None:
        self._connection, self._schema = connection, schema

    def ask(self, sql: str, *parameters: object) -> Rows:
        marked = sql.replace("%", "%%").replace("?", "%s") if parameters else sql
        return list(self._connection.execute(marked, parameters or None).fetchall())

    def among(self, column: str, values: Sequence[int | str]) -> tuple[str, object]:
        return f"{column} = ANY(?)", list(values)

    def columns(self, table: str) -> set[str]:
        rows = self.ask(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped",
            f'"{self._schema}"."{table}"',
        )
        return {str(name) for (name,) in rows}


@contextlib.contextmanager
def _postgresql(client: Client, schema: str, deadline: float) -> Iterator[Session]:
    with client.session(deadline) as connection:
        yield _Postgresql(connection, schema)


class _Sqlite:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def ask(self, sql: str, *parameters: object) -> Rows:
        return self._db.execute(sql, parameters).fetchall()

    def among(self, column: str, values: Sequence[int | str]) -> tuple[str, object]:
        return f"{column} IN (SELECT value FROM json_each(?))", json.dumps(list(values))  # noqa: S608 - constants

    def columns(self, table: str) -> set[str]:
        return {str(name) for (name,) in self.ask("SELECT name FROM pragma_table_info(?)", table)}


@contextlib.contextmanager
def _sqlite(path: Path, deadline: float) -> Iterator[Session]:
    """The file, opened anew at each look: nothing keeps n8n from replacing it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; check exporters.workflow.n8n.sqlite")
    seconds = max(0.1, (deadline - time.monotonic()) / 2)
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=seconds, isolation_level=None)
        with contextlib.closing(db):
            db.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
            db.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            yield _Sqlite(db)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {_said(error)}; is it n8n's database, and readable?") from None
