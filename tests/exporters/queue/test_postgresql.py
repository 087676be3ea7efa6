"""Queues in PostgreSQL, in each of their shapes, on a real server."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import exporters.queue.postgresql as module
from exporters.collector import CollectFunction, PartialReadError
from exporters.config import exporters_model
from exporters.queue import collectors
from exporters.queue.postgresql import declared_state
from exporters.queue.postgresql.shapes import Plan
from exporters.runtime.config import ConfigError, validate
from testbed.parts import free_port
from testbed.services import PostgreSQL

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
AT = "postgresql://u@h/d"


def configured(*servers: Mapping[str, Any]) -> Mapping[str, CollectFunction]:
    section = {"queue": {"postgresql": list(servers)}}
    config: Any = validate(exporters_model(["queue"]), section, Path("t.yaml"), prefix=("exporters",))
    return collectors(config.queue)


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        pytest.param(
            {"url": AT, "queues": [{"name": "a"}]},
            "0.queues.0: found no shape; give exactly one of query, table, pgmq, river, graphile_worker",
            id="no shape",
        ),
        pytest.param(
            {"url": AT, "queues": [{"name": "a", "river": {}, "pgmq": {"queue": "a"}}]},
            "0.queues.0: found pgmq, river; give exactly one of query, table, pgmq, river, graphile_worker",
            id="two shapes",
        ),
        pytest.param(
            {"url": AT, "queues": [{"name": "a", "table": {"name": "x.y.z"}}]},
            "0.queues.0.table.name: 'x.y.z' is not the name of a table; write TABLE or SCHEMA.TABLE",
            id="a name in three parts",
        ),
        pytest.param(
            {"url": AT, "queues": [{"name": "a", "table": {"name": "t", "state": "status"}}]},
            "0.queues.0.table: state (the column) and states (which of its values mean what) go together; give both",
            id="a column of states without its values",
        ),
        pytest.param(
            {"url": AT, "queues": [{"name": "a", "table": {"name": "t", "state": "s", "states": {"active": ["x"]}}}]},
            "0.queues.0.table: states does not say what is ready; name the values, for example ready: [queued]",
            id="nothing is ready",
        ),
        pytest.param(
            {"url": AT, "queues": [{"name": "a", "river": {}, "states": ["active"]}]},
            "0.queues.0: states belongs to a query; the other shapes know their states",
            id="states beside a shape that knows its own",
        ),
        pytest.param(
            {"url": "mysql://u:secret@h", "queues": [{"name": "a", "river": {}}]},
            "0.url: not the address of one PostgreSQL server; write postgresql://USER@HOST:PORT/DB "
            "(postgresql://watcher@db.example.com:5432/shop)",
            id="an address of something else, whose password is not repeated",
        ),
        pytest.param(
            {"url": f"{AT}?password=secret", "queues": [{"name": "a", "river": {}}]},
            "0.url: found a password after the question mark; put it into a file and name it: password_file",
            id="a password among the parameters",
        ),
        pytest.param(
            {"url": f"{AT}?options=-cfsync=off", "queues": [{"name": "a", "river": {}}]},
            "0.url: the parameter 'options' is not taken here; known: host, sslmode, sslrootcert, sslcert, sslkey, "
            "channel_binding, target_session_attrs",
            id="a parameter that would undo ours",
        ),
        pytest.param(
            {"url": "postgresql://u:x@h/d", "password_file": "/p", "queues": [{"name": "a", "river": {}}]},
            "0: found a password in url and password_file; keep the file",
            id="two passwords",
        ),
        pytest.param(
            {"url": f"{AT}?sslmode=require", "sslmode": "disable", "queues": [{"name": "a", "river": {}}]},
            "0: found sslmode in url and beside it; keep one",
            id="sslmode twice",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_a_sentence(server: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configured(server)
    assert str(refused.value) == f"t.yaml: exporters.queue.postgresql.{sentence}"


def test_neither_a_queue_nor_a_database_stands_twice() -> None:
    queues = {"queues": [{"name": "a", "river": {}}]}
    with pytest.raises(ConfigError, match=r"the queue 'a' stands twice \(0\.queues\.0, 1\.queues\.0\); rename one"):
        configured({"url": AT, **queues}, {"url": "postgresql://h/e", **queues})
    with pytest.raises(ConfigError, match="the database h:5432/d stands twice; write its queues in one place"):
        configured({"url": AT, **queues}, {"url": "postgresql://v@h/d", "queues": [{"name": "b", "river": {}}]})


ASKED = Plan(b"", ("ready", "active"))


@pytest.mark.parametrize(
    ("columns", "rows", "messages", "ages", "counters"),
    [
        pytest.param(["state", "count"], [], {"ready": 0, "active": 0}, {}, {}, id="no row is nothing there"),
        pytest.param(
            ["count", "oldest", "state"],
            [(3, Decimal("1.5"), "ready")],
            {"ready": 3, "active": 0},
            {"ready": 1.5, "active": 0},
            {},
            id="seconds",
        ),
        pytest.param(
            ["state", "count", "oldest"],
            [("ready", 1, timedelta(minutes=1)), ("active", 2, NOW - timedelta(seconds=9))],
            {"ready": 1, "active": 2},
            {"ready": 60, "active": 9},
            {},
            id="an interval and a time",
        ),
        pytest.param(
            ["state", "count", "oldest"],
            [("ready", 1, datetime(2027, 1, 15, 7, 59)), ("active", 1, NOW + timedelta(1))],  # noqa: DTZ001
            {"ready": 1, "active": 1},
            {"ready": 60, "active": 0},
            {},
            id="a time without a zone is UTC, one ahead is no age",
        ),
        pytest.param(
            ["state", "count", "oldest"],
            [("ready", 1, None), ("active", 0, None)],
            {"ready": 1, "active": 0},
            {"active": 0},
            {},
            id="an age that is not told is unknown, unless nothing is there",
        ),
        pytest.param(
            ["state", "count"],
            [("ready", 1), ("enqueued_total", 10), ("completed_total", Decimal(7)), ("failed_total", 0)],
            {"ready": 1, "active": 0},
            {},
            {"enqueued": 10, "completed": 7, "failed": 0},
            id="counters",
        ),
    ],
)
def test_what_a_declared_query_gives(
    columns: list[str],
    rows: list[tuple[Any, ...]],
    messages: Mapping[str, int],
    ages: Mapping[str, float],
    counters: Mapping[str, float],
) -> None:
    state = declared_state(ASKED, columns, rows, NOW)
    assert (state.messages, state.oldest_age, state.counters) == (messages, ages, counters)


@pytest.mark.parametrize(
    ("columns", "rows", "sentence"),
    [
        (["n"], [], "its query must give the columns state and count; it gives n"),
        (["state", "count"], [("ready", "3")], "its query gives the count '3'; it must be a number, 0 or more"),
        (["state", "count"], [("ready", -1)], "its query gives the count '-1'; it must be a number, 0 or more"),
        (["state", "count"], [("ready", None)], "its query gives the count 'None'; it must be a number, 0 or more"),
        (
            ["state", "count"],
            [("done", 3)],
            "its query gives the state 'done'; known: .*; name it in states",
        ),
        (["state", "count"], [("ready", 1)] * 101, "its query gives more than 100 rows; group them by state"),
        (
            ["state", "count", "oldest"],
            [("ready", 1, "old")],
            "its query gives 'old' as oldest; it must be seconds, an interval or a time",
        ),
    ],
)
def test_a_declared_query_that_gives_something_else(
    columns: list[str], rows: list[tuple[Any, ...]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$".replace("(", r"\(")):
        declared_state(ASKED, columns, rows, NOW)


# From here on against a real PostgreSQL.


class Queues:
    """The page of some queues of one database, which is written to as an application would."""

    def __init__(self, dsn: str, *queues: Mapping[str, Any], **server: object) -> None:
        functions = configured({"url": dsn, "queues": list(queues), **server})
        (self.function,) = functions.values()
        self.problem = ""

    def series(self, seconds: float = 5) -> dict[str, float]:
        """NAME{queue,state} -> value of one scrape; without state where there is none."""
        found: dict[str, float] = {}
        self.problem = ""
        try:
            for metric in self.function(time.monotonic() + seconds):
                for sample in metric.samples:
                    labels = [
                        sample.labels["queue"],
                        *(sample.labels[k] for k in ("state", "le") if k in sample.labels),
                    ]
                    found[f"{sample.name} {' '.join(labels)}"] = sample.value
        except PartialReadError as error:
            self.problem = str(error)
        return found


@pytest.fixture
def application(postgresql_dsn: str) -> Iterator["psycopg.Connection[Any]"]:
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is finished is seen at the next scrape."""
    monkeypatch.setattr(module, "SETTLE", timedelta(0))


def messages(series: Mapping[str, float], queue: str) -> dict[str, float]:
    start = f"queue_messages {queue} "
    return {name.removeprefix(start): value for name, value in series.items() if name.startswith(start)}


def ages(series: Mapping[str, float], queue: str) -> dict[str, int]:
    """In seconds, rounded to tens."""
    start = f"queue_oldest_message_age_seconds {queue} "
    return {name.removeprefix(start): round(value, -1) for name, value in series.items() if name.startswith(start)}


JOBS = """
CREATE TYPE job_status AS ENUM ('queued', 'running', 'done', 'dead');
CREATE TABLE jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL DEFAULT 'mail', status job_status NOT NULL
    DEFAULT 'queued', created_at timestamptz NOT NULL DEFAULT now(), run_at timestamptz, started_at timestamptz,
    finished_at timestamptz)
"""
MAILS = {
    "name": "mails",
    "table": {
        "name": "public.jobs",
        "state": "status",
        "states": {"ready": ["queued"], "active": ["running"], "failed": ["dead"], "completed": ["done"]},
        "created": "created_at",
        "run_at": "run_at",
        "started": "started_at",
        "finished": "finished_at",
        "only": {"kind": "mail"},
    },
}


@pytest.mark.real
@pytest.mark.usefixtures("at_once")
def test_a_table_with_a_column_of_states(postgresql_dsn: str, application: "psycopg.Connection[Any]") -> None:
    application.execute(JOBS.encode())
    queues = Queues(postgresql_dsn, MAILS)
    empty = queues.series()
    assert messages(empty, "mails") == {"ready": 0, "active": 0, "failed": 0, "delayed": 0}
    assert ages(empty, "mails") == {"ready": 0, "active": 0, "failed": 0, "delayed": 0}
    assert empty["queue_completed_total mails"] == 0
    assert "queue_enqueued_total mails" not in empty, "nobody counts these"
    application.execute(
        """INSERT INTO jobs (status, created_at, run_at, started_at, finished_at, kind) VALUES
        ('queued', now() - interval '100 s', NULL, NULL, NULL, 'mail'),
        ('queued', now() - interval '300 s', now() - interval '50 s', NULL, NULL, 'mail'),
        ('queued', now() - interval '200 s', now() + interval '1 h', NULL, NULL, 'mail'),
        ('running', now() - interval '900 s', NULL, now() - interval '70 s', NULL, 'mail'),
        ('done', now() - interval '50 s', NULL, now() - interval '43 s', clock_timestamp(), 'mail'),
        ('done', now() - interval '5 d', NULL, now() - interval '5 d', now() - interval '5 d', 'mail'),
        ('dead', now() - interval '50 s', now() - interval '44.9 s', now() - interval '44.7 s', clock_timestamp(),
         'mail'),
        ('queued', now(), NULL, NULL, NULL, 'other')"""
    )
    full = queues.series()
    assert messages(full, "mails") == {"ready": 2, "active": 1, "failed": 1, "delayed": 1}
    assert ages(full, "mails") == {"ready": 100, "active": 70, "failed": 0, "delayed": 200}
    assert full["queue_completed_total mails"] == 1, "what was done before the exporter came is not counted"
    assert full["queue_failed_total mails"] == 1
    assert full["queue_wait_seconds_count mails"] == 2
    assert full["queue_wait_seconds_sum mails"] == pytest.approx(7.2, abs=0.01)
    assert full["queue_wait_seconds_bucket mails 0.25"] == 1
    assert full["queue_wait_seconds_bucket mails 5.0"] == 1
    assert full["queue_wait_seconds_bucket mails 10.0"] == 2
    assert full["queue_process_seconds_sum mails"] == pytest.approx(87.7, abs=1)
    again = queues.series()
    assert {name: value for name, value in again.items() if "age" not in name} == {
        name: value for name, value in full.items() if "age" not in name
    }, "nothing is counted twice"


@pytest.mark.real
@pytest.mark.usefixtures("at_once")
def test_a_table_without_states_tells_them_by_its_times(
    postgresql_dsn: str, application: "psycopg.Connection[Any]"
) -> None:
    application.execute("CREATE TABLE plain (locked_at timestamptz, created_at timestamp, done_at timestamptz)")
    shapes = {
        "bare": {"name": "plain"},
        "timed": {"name": "plain", "created": "created_at", "started": "locked_at", "finished": "done_at"},
    }
    queues = Queues(postgresql_dsn, *({"name": name, "table": table} for name, table in shapes.items()))
    queues.series()
    application.execute(
        """INSERT INTO plain (created_at, locked_at, done_at) VALUES
        (now() AT TIME ZONE 'GMT' - interval '40 s', NULL, NULL),
        (now() AT TIME ZONE 'GMT' - interval '90 s', now() - interval '30 s', NULL),
        (now() AT TIME ZONE 'GMT' - interval '90 s', now() - interval '30 s', clock_timestamp())"""
    )
    series = queues.series()
    assert messages(series, "bare") == {"ready": 3}
    assert ages(series, "bare") == {}
    assert messages(series, "timed") == {"ready": 1, "active": 1}
    assert ages(series, "timed") == {"ready": 40, "active": 30}
    assert series["queue_completed_total timed"] == 1
    assert series["queue_process_seconds_sum timed"] == pytest.approx(30, abs=1)
    assert "queue_failed_total timed" not in series


PGMQ = """
CREATE SCHEMA pgmq;
CREATE TABLE pgmq.q_mails (
    msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, read_ct int DEFAULT 0 NOT NULL,
    enqueued_at timestamptz DEFAULT now() NOT NULL, vt timestamptz NOT NULL, message jsonb, headers jsonb);
CREATE TABLE pgmq.a_mails (
    msg_id bigint PRIMARY KEY, read_ct int DEFAULT 0 NOT NULL, enqueued_at timestamptz DEFAULT now() NOT NULL,
    archived_at timestamptz DEFAULT now() NOT NULL, vt timestamptz NOT NULL, message jsonb, headers jsonb)
"""


@pytest.mark.real
@pytest.mark.usefixtures("at_once")
def test_pgmq(postgresql_dsn: str, application: "psycopg.Connection[Any]") -> None:
    application.execute(PGMQ.encode())
    archiving, deleting = ({"name": name, "pgmq": {"queue": "Mails", "archive": name == "a"}} for name in "ad")
    queues = Queues(postgresql_dsn, archiving, deleting)
    empty = queues.series()
    assert messages(empty, "a") == {"ready": 0, "active": 0, "delayed": 0}
    assert (empty["queue_enqueued_total a"], empty["queue_completed_total a"]) == (0, 0)
    application.execute(
        """INSERT INTO pgmq.q_mails (read_ct, enqueued_at, vt) VALUES
        (0, now() - interval '30 s', now() - interval '20 s'),
        (1, now() - interval '60 s', now() - interval '10 s'),
        (1, now() - interval '60 s', now() + interval '10 s'),
        (0, now() - interval '10 s', now() + interval '10 s')"""
    )
    application.execute("INSERT INTO pgmq.a_mails (msg_id, vt, archived_at) VALUES (9, now(), clock_timestamp())")
    series = queues.series()
    assert messages(series, "a") == {"ready": 2, "active": 1, "delayed": 1}
    assert ages(series, "a") == {"ready": 60, "delayed": 10}, "when a message was taken is not kept"
    assert series["queue_enqueued_total a"] == 4
    assert series["queue_completed_total a"] == 1
    assert "queue_completed_total d" not in series, "what is deleted is counted by nobody"


RIVER = """
CREATE TYPE river_job_state AS ENUM (
    'available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
CREATE TABLE river_job (
    id bigserial PRIMARY KEY, state river_job_state NOT NULL DEFAULT 'available', attempt smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 25, attempted_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
    finalized_at timestamptz, scheduled_at timestamptz NOT NULL DEFAULT now(), priority smallint NOT NULL DEFAULT 1,
    args jsonb NOT NULL DEFAULT '{}', attempted_by text[], errors jsonb[], kind text NOT NULL DEFAULT 'sort',
    metadata jsonb NOT NULL DEFAULT '{}', queue text NOT NULL DEFAULT 'default',
    tags varchar(255)[] NOT NULL DEFAULT '{}')
"""


@pytest.mark.real
@pytest.mark.usefixtures("at_once")
def test_river(postgresql_dsn: str, application: "psycopg.Connection[Any]") -> None:
    application.execute(RIVER.encode())
    queues = Queues(postgresql_dsn, {"name": "go", "river": {}}, {"name": "slow", "river": {"queue": "slow"}})
    queues.series()
    ended = "now() - interval '10 s', now() - interval '8 s', clock_timestamp()"
    application.execute(
        f"""INSERT INTO river_job (state, scheduled_at, attempted_at, finalized_at, queue) VALUES
        ('available', now() - interval '20 s', NULL, NULL, 'default'), ('available', now(), NULL, NULL, 'slow'),
        ('running', now() - interval '99 s', now() - interval '40 s', NULL, 'default'),
        ('scheduled', now() + interval '1 h', NULL, NULL, 'default'),
        ('retryable', now() + interval '1 h', now() - interval '1 h', NULL, 'default'),
        ('completed', {ended}, 'default'), ('cancelled', {ended}, 'default'),
        ('discarded', {ended}, 'default')""".encode()
    )
    application.execute("UPDATE river_job SET created_at = now() - interval '1 d'")
    series = queues.series()
    assert messages(series, "go") == {"ready": 1, "active": 1, "delayed": 2, "failed": 1}
    assert {state: age for state, age in ages(series, "go").items() if state != "delayed"} == {
        "ready": 20, "active": 40, "failed": 0,
    }  # fmt: skip
    assert messages(series, "slow") == {"ready": 1, "active": 0, "delayed": 0, "failed": 0}
    assert (series["queue_completed_total go"], series["queue_failed_total go"]) == (1, 1)
    assert series["queue_wait_seconds_sum go"] == pytest.approx(4, abs=0.1)
    assert series["queue_process_seconds_sum go"] == pytest.approx(16, abs=1)


GRAPHILE = """
CREATE SCHEMA graphile_worker;
CREATE TABLE graphile_worker._private_tasks (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, identifier text UNIQUE);
CREATE TABLE graphile_worker._private_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_queue_id int, task_id int NOT NULL, payload json NOT NULL
    DEFAULT '{}', priority smallint NOT NULL DEFAULT 0, max_attempts smallint NOT NULL DEFAULT 25, attempts smallint NOT
    NULL DEFAULT 0, run_at timestamptz NOT NULL DEFAULT now(), last_error text, created_at timestamptz NOT NULL DEFAULT
    now(), updated_at timestamptz NOT NULL DEFAULT now(), key text, locked_at timestamptz, locked_by text, revision int
    NOT NULL DEFAULT 0, flags jsonb,
    is_available boolean GENERATED ALWAYS AS (locked_at IS NULL AND attempts < max_attempts) STORED NOT NULL);
CREATE VIEW graphile_worker.jobs AS
    SELECT jobs.id, NULL::text AS queue_name, tasks.identifier AS task_identifier, jobs.priority, jobs.run_at,
           jobs.attempts, jobs.max_attempts, jobs.last_error, jobs.created_at, jobs.updated_at, jobs.key,
           jobs.locked_at, jobs.locked_by, jobs.revision, jobs.flags
    FROM graphile_worker._private_jobs AS jobs JOIN graphile_worker._private_tasks AS tasks ON tasks.id = jobs.task_id;
INSERT INTO graphile_worker._private_tasks (identifier) VALUES ('mail'), ('it''s "odd"')
"""


@pytest.mark.real
def test_graphile_worker(postgresql_dsn: str, application: "psycopg.Connection[Any]") -> None:
    application.execute(GRAPHILE.encode())
    application.execute(
        """INSERT INTO graphile_worker._private_jobs (task_id, created_at, run_at, attempts, locked_at) VALUES
        (1, now() - interval '80 s', now() - interval '30 s', 0, NULL),
        (1, now() - interval '80 s', now() - interval '60 s', 1, now() - interval '20 s'),
        (1, now() - interval '1 d', now() - interval '50 s', 1, now() - interval '5 h'),
        (1, now() - interval '40 s', now() + interval '1 h', 3, NULL),
        (1, now() - interval '80 s', now() - interval '60 s', 25, NULL),
        (2, now(), now(), 0, NULL)"""
    )
    tasks = {"all": {}, "mail": {"task": "mail"}, "odd": {"task": 'it\'s "odd"'}, "none": {"task": "%s"}}
    queues = Queues(postgresql_dsn, *({"name": name, "graphile_worker": shape} for name, shape in tasks.items()))
    series = queues.series()
    assert queues.problem == ""
    assert messages(series, "mail") == {"ready": 2, "active": 1, "delayed": 1, "failed": 1}
    assert ages(series, "mail") == {"ready": 50, "active": 20, "delayed": 40, "failed": 0}
    assert messages(series, "all")["ready"] == 3
    assert messages(series, "odd") == {"ready": 1, "active": 0, "delayed": 0, "failed": 0}
    assert messages(series, "none")["ready"] == 0
    assert "queue_completed_total mail" not in series, "what is done is deleted, and counted by nobody"


@pytest.mark.real
def test_a_declared_query_and_what_can_be_wrong_with_one(
    postgresql_dsn: str, application: "psycopg.Connection[Any]"
) -> None:
    application.execute("CREATE TABLE work (at timestamptz, taken boolean, note text)")
    application.execute("INSERT INTO work VALUES (now() - interval '30 s', false, '100%'), (now(), true, '100%')")
    good = {
        "query": """SELECT CASE WHEN taken THEN 'active' ELSE 'ready' END AS state, count(*), min(at) AS oldest
                    FROM work WHERE note LIKE '%0%' AND note <> '{}' GROUP BY 1 -- the rest is done ; """,
        "states": ["ready", "active", "delayed"],
    }
    queries = {
        "misspelt": {"query": "SELECT 'ready' AS state, cuont(*) FROM work"},
        "empty": {"query": ";"},
        "writes": {"query": "DELETE FROM work RETURNING 'ready' AS state, 1 AS count"},
        "hidden": {"query": "SELECT 'ready' AS state, setval('s', 9) AS count"},
        "endless": {"query": "SELECT 'ready' AS state, count(*) FROM generate_series(1, 10000000000)"},
        "many": {"query": "SELECT 'ready' AS state, 1 AS count FROM generate_series(1, 1000000000)"},
        "after": good,
    }
    application.execute("CREATE SEQUENCE s")
    queues = Queues(postgresql_dsn, {"name": "good", **good}, *({"name": n, **q} for n, q in queries.items()))
    series = queues.series(seconds=2)
    for queue in ("good", "after"):
        assert messages(series, queue) == {"ready": 1, "active": 1, "delayed": 0}
        assert ages(series, queue) == {"ready": 30, "active": 0, "delayed": 0}
    assert not [name for name in series if name.split()[1] not in ("good", "after")]
    for told in (
        "queue 'misspelt': function cuont() does not exist",
        "queue 'empty': syntax error at or near \")\"",
        "queue 'writes': syntax error",
        "queue 'hidden': cannot execute setval() in a read-only transaction",
        "queue 'endless': canceling statement due to statement timeout",
        "and 1 more",
    ):
        assert told in queues.problem
    assert application.execute("SELECT count(*) FROM work").fetchall() == [(2,)]


@pytest.mark.real
def test_names_are_names_whatever_they_hold(postgresql_dsn: str, application: "psycopg.Connection[Any]") -> None:
    application.execute('CREATE TABLE "a""b; DROP TABLE x; --%s" ("k%s""" text, "state" int)')
    application.execute("""INSERT INTO "a""b; DROP TABLE x; --%s" VALUES ('it''s %', 3)""")
    table = {
        "name": 'a"b; DROP TABLE x; --%s',
        "only": {'k%s"': "it's %"},
        "state": "state",
        "states": {"ready": [3]},
    }
    queues = Queues(postgresql_dsn, {"name": "odd", "table": table})
    assert messages(queues.series(), "odd") == {"ready": 1}


@pytest.mark.real
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=60), value=st.one_of(st.text(max_size=60), st.integers(), st.booleans()))
def test_no_name_and_no_value_makes_another_statement(postgresql: PostgreSQL, name: str, value: str | int) -> None:
    """Only what PostgreSQL says of a table that is not there, or psycopg of text that none can have."""
    queues = Queues(postgresql.dsn(), {"name": "odd", "table": {"name": name.replace(".", "_"), "only": {name: value}}})
    assert queues.series() == {}
    assert "queue 'odd': " in queues.problem
    assert "syntax" not in queues.problem


@pytest.mark.real
def test_a_lock_on_a_table_takes_only_its_own_queue_and_not_the_scrape(
    postgresql_dsn: str, application: "psycopg.Connection[Any]"
) -> None:
    application.execute("CREATE TABLE locked (a int); CREATE TABLE free (a int)")
    queues = Queues(postgresql_dsn, *({"name": name, "table": {"name": name}} for name in ("locked", "free")))
    with application.transaction():
        application.execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        assert messages(queues.series(seconds=1.5), "free") == {"ready": 0}
        assert time.monotonic() - began < 1.5
        assert "queue 'locked': canceling statement due to statement timeout" in queues.problem
    assert messages(queues.series(), "locked") == {"ready": 0}


@pytest.mark.real
def test_the_user_needs_to_read_the_tables_and_nothing_else(
    postgresql: PostgreSQL, postgresql_dsn: str, application: "psycopg.Connection[Any]"
) -> None:
    application.execute(PGMQ.encode())
    application.execute("DROP ROLE IF EXISTS queue_watcher")
    application.execute("CREATE ROLE queue_watcher LOGIN")
    dsn = postgresql.dsn(application.info.dbname, user="queue_watcher")
    queues = Queues(dsn, {"name": "mails", "pgmq": {"queue": "mails", "archive": True}})
    assert queues.series() == {}
    address = f"127.0.0.1:{postgresql.port}/{application.info.dbname}"
    assert queues.problem == f"{address}: queue 'mails': permission denied for schema pgmq"
    application.execute("GRANT USAGE ON SCHEMA pgmq TO queue_watcher")  # these lines are in the docs
    application.execute("GRANT SELECT ON ALL TABLES IN SCHEMA pgmq TO queue_watcher")
    application.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA pgmq TO queue_watcher")
    assert "queue_completed_total mails" in queues.series()
    application.execute("DROP OWNED BY queue_watcher")
    application.execute("DROP ROLE queue_watcher")


@pytest.mark.real
def test_a_clock_that_is_set_back_counts_nothing_twice(
    postgresql_dsn: str, application: "psycopg.Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    application.execute(JOBS.encode())
    queues = Queues(postgresql_dsn, MAILS)
    monkeypatch.setattr(module, "SETTLE", timedelta(0))
    queues.series()
    insert = "INSERT INTO jobs (status, started_at, finished_at) VALUES ('done', now(), clock_timestamp())"
    application.execute(insert.encode())
    assert queues.series()["queue_completed_total mails"] == 1
    monkeypatch.setattr(module, "SETTLE", timedelta(hours=1))  # as if the server's clock were back by that
    assert queues.series()["queue_completed_total mails"] == 1


def test_without_a_server_the_collector_fails_and_says_why() -> None:
    port = free_port()
    queues = Queues(f"postgresql://u:secret@127.0.0.1:{port}/d", {"name": "a", "river": {}})
    with pytest.raises(Exception, match=f"cannot connect to 127.0.0.1:{port}/d: .*refused") as failed:
        queues.series()
    assert "secret" not in str(failed.value)
