"""PostgreSQL as a database, on real servers: alone, with a replica, for users who may not see all, and on bad days."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exporters.database import queries
from exporters.database.postgresql import activity_facts, database_facts, replica_facts, replication_facts
from exporters.database.queries import statements
from exporters.database.state import Fact, database_metrics
from exporters.labels import Cap
from exporters.postgresql import Client, Server, StatementError, UnreachableError, reason
from testbed import fetch
from testbed.parts import free_port
from testbed.services import PostgreSQL, as_ordinary_user
from tests.exporters.authority import Authority

Watch = Callable[..., Any]


def plain(facts: "list[Fact] | Iterator[Fact]") -> dict[str, float]:
    """NAME labels -> value."""
    return {
        " ".join([sample.name.removeprefix("database_"), *list(sample.labels.values())[2:]]): sample.value
        for metric in database_metrics({("postgresql", "d"): list(facts)})
        for sample in metric.samples
    }


@pytest.mark.parametrize(
    ("streamed", "caught_up", "streaming", "behind", "seconds", "expected"),
    [
        pytest.param(True, True, True, 0, 900.0,
                     {"replication_link_up": 1, "replication_lag_bytes self": 0, "replication_lag_seconds self": 0},
                     id="all is applied and its primary has nothing new: no lag, however long that is"),
        pytest.param(True, False, True, 4096, 3.0,
                     {"replication_link_up": 1, "replication_lag_bytes self": 4096, "replication_lag_seconds self": 3},
                     id="something received is not applied yet"),
        pytest.param(True, True, False, 0, 900.0,
                     {"replication_link_up": 0, "replication_lag_bytes self": 0},
                     id="its primary is gone: how far that is, nobody knows"),
        pytest.param(True, False, True, 4096, None,
                     {"replication_link_up": 1, "replication_lag_bytes self": 4096},
                     id="nothing was ever applied"),
        pytest.param(False, False, False, 0, 40.0, {"replication_lag_seconds self": 40},
                     id="one that is fed from an archive"),
        pytest.param(False, False, False, 0, None, {}, id="one that is fed from an archive and has got nothing"),
    ],
)  # fmt: skip
def test_how_far_a_replica_is_behind(
    streamed: bool, caught_up: bool, streaming: bool, behind: int, seconds: float | None, expected: dict[str, float]
) -> None:
    assert plain(replica_facts(streamed, caught_up, streaming, behind, seconds)) == expected


def test_followers_as_their_primary_sees_them() -> None:
    rows = [("a", 1.5, 100), ("b", None, 0), ("c", None, 10), ("d", 7.0, 5), ("e", None, None)]
    assert plain(replication_facts(rows, Cap("test", "replica", 3))) == {
        "replicas": 5,
        "replication_lag_seconds a": 1.5,
        "replication_lag_bytes a": 100,
        "replication_lag_seconds b": 0,
        "replication_lag_bytes b": 0,
        "replication_lag_bytes c": 10,  # nothing was written lately, and this is not applied: how old it is, is unknown
        "replication_lag_seconds other": 7,
        "replication_lag_bytes other": 5,
    }


def test_sessions_by_state() -> None:
    rows = [("active", 3, 0.5), ("idle in transaction", 1, 40.0), ("idle", 2, None), (None, 1, None)]
    assert plain(activity_facts(rows, sees_all=True)) == {
        "connections active": 3, "connections idle": 2, "connections idle in transaction": 1,
        "connections idle in transaction (aborted)": 0, "connections hidden": 1, "oldest_transaction_seconds": 40,
    }  # fmt: skip
    assert plain(activity_facts([], sees_all=True))["oldest_transaction_seconds"] == 0
    assert plain(activity_facts(rows, sees_all=False)) == {"connections hidden": 7}


def test_of_a_thousand_databases_a_few_are_counted_and_of_the_others_the_oldest_is_shown() -> None:
    rows = [(f"tenant-{number}", 1, 0, 0, 0, 0, 0, number) for number in range(1000)]
    cap = Cap("test", "name", 2)
    found = plain(database_facts(rows, cap))
    assert found["transactions_total tenant-0 commit"] == 1
    assert [series for series in found if " other" in series] == ["wraparound_ratio other"]
    assert found["wraparound_ratio other"] == 999 / 2**31
    assert len(found) == 2 * 7 + 1
    assert cap.refused == 998
    dropped = plain(database_facts([rows[0], *rows[2:]], cap))
    assert {series for series in dropped if "tenant-1" not in series} <= found.keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('port 1 failed: FATAL:  sorry, too many clients already', "connections_exhausted"),
        ("FATAL:  remaining connection slots are reserved for non-replication superuser", "connections_exhausted"),
        ('FATAL:  too many connections for role "x"', "connections_exhausted"),
        ("FATAL:  the database system is starting up", "starting"),
        ("connection timeout expired", "timeout"),
        ('FATAL:  password authentication failed for user "x"', "credentials"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "x", database "y", no encryption', "credentials"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "x", database "y", SSL encryption', "credentials"),
        ('FATAL:  role "database" does not exist', "credentials"),
        ('FATAL:  permission denied for database "x"', "credentials"),
        ('FATAL:  database "x" does not exist', "no_database"),
        ("server does not support SSL, but SSL was required", "tls"),
        ("failed to resolve host 'x': [Errno -2] Name or service not known", "refused"),
        ("FATAL:  переполнение", "other"),
    ],
)  # fmt: skip
def test_reasons(text: str, expected: str) -> None:
    assert reason(text) == expected


# From here on against real servers.


@pytest.fixture
def application(postgresql_dsn: str) -> Iterator["psycopg.Connection[Any]"]:
    with psycopg.connect(postgresql_dsn, autocommit=True) as connection:
        yield connection


@pytest.mark.real
def test_the_page_of_a_server(postgresql_dsn: str, application: "psycopg.Connection[Any]", watched: Watch) -> None:
    name = application.info.dbname
    application.execute(
        "CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 100); DELETE FROM t WHERE a < 41"
    )
    application.execute("SELECT pg_stat_force_next_flush()")
    application.execute("SELECT 1")
    series = watched("postgresql", url=postgresql_dsn, name="shop").series()
    assert series["up"] == 1
    assert "info 15." in " ".join(series)
    assert 0 < series["ping_seconds"] < 5
    assert series["connections active"] >= 1
    assert series["connections idle"] >= 1
    assert series["connections idle in transaction (aborted)"] == 0
    assert (series["connections_max"], series["replica"], series["replicas"]) == (97, 0, 0)
    assert series["locks_waiting"] >= 0
    assert series[f"size_bytes {name}"] > 1_000_000
    assert series[f"transactions_total {name} commit"] > 0
    assert series[f"blocks_total {name} hit"] > 0
    assert (series[f"temp_bytes_total {name}"], series[f"deadlocks_total {name}"]) == (0, 0)
    assert 0 <= series[f"wraparound_ratio {name}"] < 0.1
    assert (series[f"tuples {name} live"], series[f"tuples {name} dead"]) == (60, 40)
    assert not [text for text in series if "template" in text or "statement" in text or "lag" in text]


@pytest.mark.real
def test_who_sits_in_a_transaction_and_who_waits_for_a_lock(
    postgresql_dsn: str, application: "psycopg.Connection[Any]", watched: Watch
) -> None:
    application.execute("CREATE TABLE t (a int)")
    look = watched("postgresql", url=postgresql_dsn)
    before = look.series()["locks_waiting"]
    with psycopg.connect(postgresql_dsn, autocommit=True) as waiting:
        application.execute("BEGIN; LOCK TABLE t")
        waiting.pgconn.send_query(b"BEGIN; LOCK TABLE t")  # no answer is waited for
        ends = time.monotonic() + 10
        while (series := look.series())["locks_waiting"] <= before and time.monotonic() < ends:
            waiting.pgconn.consume_input()
        assert series["locks_waiting"] == before + 1
        assert series["connections idle in transaction"] >= 1
        assert series["oldest_transaction_seconds"] > 0
        application.execute("ROLLBACK")
        waiting.close()


@pytest.mark.real
def test_a_user_who_may_not_see_all_gets_the_rest_and_is_told(
    postgresql: PostgreSQL, postgresql_dsn: str, application: "psycopg.Connection[Any]", watched: Watch
) -> None:
    application.execute("DROP ROLE IF EXISTS database_watcher")
    application.execute("CREATE ROLE database_watcher LOGIN")
    look = watched("postgresql", url=postgresql.dsn(application.info.dbname, user="database_watcher"))
    series = look.series()
    assert look.problem.endswith(
        "the user 'database_watcher' does not see other users' sessions; states of connections, oldest transaction, "
        "replication and statements are left out: GRANT pg_monitor TO database_watcher"
    )
    assert series["up"] == 1
    assert series["connections hidden"] >= 2
    assert not [text for text in series if text.startswith(("connections idle", "oldest", "replicas"))]
    application.execute("GRANT pg_monitor TO database_watcher")
    series = look.series()
    assert look.problem == ""
    assert series["connections idle"] >= 1
    assert (series["oldest_transaction_seconds"], series["replicas"]) == (0, 0)
    application.execute("DROP ROLE database_watcher")


@pytest.mark.real
@pytest.mark.parametrize("version", ["1.7", "1.10"])
def test_the_statements_that_take_the_most_time(
    postgresql_dsn: str, application: "psycopg.Connection[Any]", watched: Watch, version: str
) -> None:
    application.execute("""CREATE SCHEMA "odd %s" """)
    application.execute(f"""CREATE EXTENSION pg_stat_statements SCHEMA "odd %s" VERSION '{version}'""".encode())
    application.execute("""SELECT "odd %s".pg_stat_statements_reset()""")
    for _ in range(3):
        application.execute("SELECT pg_sleep(0.01), generate_series(1, 5)")
    look = watched("postgresql", url=postgresql_dsn, statements=1)
    found = {text.split()[0]: value for text, value in look.series().items() if text.startswith("statement")}
    assert look.problem == ""
    assert (found["statement_calls_total"], found["statement_rows_total"]) == (3, 15)
    assert 0.03 <= found["statement_seconds_total"] < 3
    none = watched("postgresql", url=postgresql_dsn, statements=0).series()
    assert not [text for text in none if text.startswith("statement")]


def test_the_statements_time_is_asked_for_by_the_extensions_version() -> None:
    asked = {
        version: "total_time" in statements("public", version, 5).as_string() for version in ("1.7", "1.8", "1.12")
    }
    assert asked == {"1.7": True, "1.8": False, "1.12": False}


@pytest.mark.real
def test_a_statement_that_is_too_slow_costs_only_what_it_would_have_told(
    postgresql_dsn: str, watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = watched("postgresql", url=postgresql_dsn)
    with monkeypatch.context() as patched:
        patched.setattr(queries, "SIZES", "SELECT datname, pg_sleep(60) FROM pg_database")
        patched.setattr(queries, "LOCKS", "SELECT pg_sleep(60)")
        series = look.series(1)
    assert "locks: canceling statement due to statement timeout" in look.problem
    assert "sizes: canceling statement due to statement timeout" in look.problem
    assert {"up", "connections idle", "replicas"} <= series.keys()
    assert not [name for name in series if name.startswith(("size", "locks"))]
    assert "locks_waiting" in look.series()
    assert "sizes: canceling" in look.problem, "it is tried once a minute, and unknown meanwhile"


@pytest.mark.real
def test_a_database_whose_name_is_no_utf8(postgresql: PostgreSQL, postgresql_dsn: str, watched: Watch) -> None:
    postgresql.execute("CREATE DATABASE raw TEMPLATE template0 ENCODING 'SQL_ASCII'")
    with psycopg.connect(postgresql.dsn("raw"), autocommit=True, client_encoding="SQL_ASCII") as raw:
        odd = b'"caf\xe9\n""x"'
        raw.pgconn.exec_(b"CREATE DATABASE " + odd + b" TEMPLATE template0 ENCODING 'SQL_ASCII'")
        try:
            assert 'size_bytes caf\\xe9\n"x' in watched("postgresql", url=postgresql.dsn("raw")).series()
        finally:
            raw.pgconn.exec_(b"DROP DATABASE " + odd)
    postgresql.drop_database("raw")


@pytest.fixture(scope="module")
def standby(
    postgresql: PostgreSQL, services_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgreSQL]:
    """A replica of the run's server."""
    folder = tmp_path_factory.mktemp("standby")
    server = PostgreSQL(folder, root=services_root)
    folder.chmod(0o777)
    (program,) = services_root.glob("usr/lib/postgresql/*/bin/pg_basebackup")
    subprocess.run(
        [*as_ordinary_user(), str(program), "-d", postgresql.dsn() + "?application_name=standby", "-R", "-c", "fast",
         "-D", str(server.data_folder)],
        env=fetch.environment(services_root) | {"TZ": "GMT"}, check=True, capture_output=True,
    )  # fmt: skip
    with server:
        yield server


@pytest.mark.real
def test_a_replica_and_its_primary(
    postgresql: PostgreSQL,
    postgresql_dsn: str,
    application: "psycopg.Connection[Any]",
    standby: PostgreSQL,
    watched: Watch,
) -> None:
    primary, replica = watched("postgresql", url=postgresql_dsn), watched("postgresql", url=standby.dsn())
    ends = time.monotonic() + 20
    while (seen := primary.series()).get("replication_lag_bytes standby") != 0 and time.monotonic() < ends:
        application.execute("SELECT pg_sleep(0.02)")
    assert (seen["replica"], seen["replicas"]) == (0, 1)
    assert seen["replication_lag_bytes standby"] == 0
    assert seen["replication_lag_seconds standby"] < 5
    itself = replica.series()
    assert replica.problem == ""
    assert (itself["replica"], itself["replicas"], itself["replication_link_up"]) == (1, 0, 1)
    assert itself["replication_lag_seconds self"] == 0, "nothing new is no lag"
    with psycopg.connect(standby.dsn(), autocommit=True) as admin:
        admin.execute("SELECT pg_wal_replay_pause()")
        application.execute("CREATE TABLE t (a int)")
        ends = time.monotonic() + 20
        while replica.series()["replication_lag_bytes self"] == 0 and time.monotonic() < ends:
            application.execute("SELECT pg_sleep(0.02)")
        assert replica.series()["replication_lag_seconds self"] > 0
        behind = primary.series()
        assert behind["replication_lag_bytes standby"] > 0
        admin.execute("SELECT pg_wal_replay_resume()")


@pytest.fixture(scope="module")
def small(services_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A server with six connections, none of them kept back for superusers, that wants passwords."""
    settings = {"max_connections": "6", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    with PostgreSQL(tmp_path_factory.mktemp("small"), settings=settings, root=services_root) as server:
        server.execute("CREATE ROLE watcher LOGIN PASSWORD 'first' IN ROLE pg_monitor")
        server.stop()
        rules = server.data_folder / "pg_hba.conf"
        rules.write_text("host all watcher 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
        server.start()
        yield server


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text("first\n")
    return tmp_path / "password"


@pytest.mark.real
def test_connections_that_are_used_up(
    small: PostgreSQL, secret: Path, watched: Watch, log_events: Callable[[], list[tuple[str, str]]]
) -> None:
    """Fault 39: who comes late is told so; who was there sees that it is full."""
    early = watched("postgresql", url=small.dsn(user="watcher"), password_file=str(secret))
    late = watched("postgresql", url=small.dsn(user="watcher"), password_file=str(secret))
    assert early.series()["connections_max"] == 6
    with ExitStack() as others:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            _ = [others.enter_context(psycopg.connect(small.dsn())) for _ in range(7)]
        assert late.series() == {"up": 0, "unreachable connections_exhausted": 1}
        full = early.series()
        assert sum(value for text, value in full.items() if text.startswith("connections ")) == 6
    ends = time.monotonic() + 10
    while late.series()["up"] == 0 and time.monotonic() < ends:
        pass  # the server takes a moment to see that the other has gone
    assert late.series()["up"] == 1
    assert [event for event, _ in log_events()] == ["database_down", "database_up"]


@pytest.mark.real
def test_a_server_that_goes_and_comes_back_and_a_password_that_is_changed(
    small: PostgreSQL, secret: Path, watched: Watch, log_events: Callable[[], list[tuple[str, str]]]
) -> None:
    look = watched("postgresql", url=small.dsn(user="watcher"), password_file=str(secret))
    small.stop()
    small.start()
    assert look.series()["up"] == 1
    small.stop()
    assert look.series() == {"up": 0, "unreachable refused": 1}, "down is not empty"
    small.start()
    assert look.series()["up"] == 1, "the next scrape connects anew"
    small.stop()
    small.start()
    assert look.series()["up"] == 1, "a restart between two scrapes is not even noticed"
    small.execute("ALTER ROLE watcher PASSWORD 'second'")
    small.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'watcher'")
    assert look.series() == {"up": 0, "unreachable credentials": 1}
    secret.write_text("second")
    assert look.series()["up"] == 1
    small.execute("ALTER ROLE watcher PASSWORD 'first'")
    events = log_events()
    assert [event for event, _ in events] == ["database_down", "database_up"] * 2
    assert not [text for _, text in events if "second" in text or "first" in text]
    secret.unlink()
    small.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'watcher'")
    with pytest.raises(OSError, match=f"the password_file {secret} cannot be read"):
        look.series()


@pytest.mark.real
def test_who_answers_is_proved_by_a_certificate(
    small: PostgreSQL, secret: Path, tmp_path: Path, watched: Watch
) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    cert, key = ours.issue("server")
    key.chmod(0o600)
    for name, text in (("ssl_cert_file", cert), ("ssl_key_file", key), ("ssl", "on")):
        small.execute(f"ALTER SYSTEM SET {name} = '{text}'")
    small.execute("SELECT pg_reload_conf()")
    try:
        on = {"url": small.dsn(user="watcher"), "password_file": str(secret), "sslmode": "verify-full"}
        right = watched("postgresql", **on, sslrootcert=str(ours.ca_file))
        ends = time.monotonic() + 10
        while (series := right.series()) == {"up": 0, "unreachable tls": 1} and time.monotonic() < ends:
            pass  # it takes a moment to read its configuration
        assert series["up"] == 1
        wrong = watched("postgresql", **on, sslrootcert=str(other.ca_file))
        assert wrong.series() == {"up": 0, "unreachable tls": 1}
    finally:
        small.execute("ALTER SYSTEM RESET ALL")
        small.execute("SELECT pg_reload_conf()")


@pytest.mark.real
def test_a_wrong_address_is_down_with_its_reason(postgresql: PostgreSQL, watched: Watch) -> None:
    looks = {
        "no_database": watched("postgresql", url=postgresql.dsn("nowhere")),
        "credentials": watched("postgresql", url=postgresql.dsn(user="nobody_we_know")),
        "tls": watched("postgresql", url=postgresql.dsn(), sslmode="require"),
        "refused": watched("postgresql", url=f"postgresql://127.0.0.1:{free_port()}/d"),
    }
    for expected, look in looks.items():
        assert look.series() == {"up": 0, f"unreachable {expected}": 1}


@pytest.mark.real
def test_a_session_that_hangs_is_replaced_within_the_scrape(postgresql_dsn: str) -> None:
    client = Client(Server(url=postgresql_dsn))
    with client.session(time.monotonic() + 5) as connection:
        hanging = connection.info.backend_pid
    os.kill(hanging, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with client.session(began + 1) as connection:
            assert connection.info.backend_pid != hanging
        assert time.monotonic() - began < 1
    finally:
        os.kill(hanging, signal.SIGCONT)


@pytest.mark.real
def test_a_statement_that_gets_no_answer_ends_with_the_scrape(postgresql_dsn: str) -> None:
    client = Client(Server(url=postgresql_dsn))
    began = time.monotonic()
    hanging = 0
    try:
        with client.session(began + 5) as connection:
            hanging = connection.info.backend_pid
        began = time.monotonic()
        with pytest.raises(StatementError, match="no answer in time"), client.session(began + 0.5) as connection:
            connection.execute(f"SELECT {os.kill(hanging, signal.SIGSTOP)}".replace("None", "1").encode())
        assert 0.4 < time.monotonic() - began < 2
    finally:
        os.kill(hanging, signal.SIGCONT)


@pytest.mark.real
def test_nothing_can_be_written_and_what_is_slow_is_ended(postgresql_dsn: str) -> None:
    client = Client(Server(url=postgresql_dsn))
    for statement, told in (
        ("CREATE TABLE t (a int)", "cannot execute CREATE TABLE in a read-only transaction"),
        ("SELECT pg_sleep(60)", "canceling statement due to statement timeout"),
    ):
        with pytest.raises(StatementError, match=told), client.session(time.monotonic() + 5, 0.2) as connection:
            connection.execute(statement.encode())
    with client.session(time.monotonic() + 5) as connection:
        assert connection.execute("SELECT current_setting('application_name')").fetchall() == [("tidewise-exporter",)]


def test_a_server_that_takes_the_call_and_says_nothing_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(Server(url=f"postgresql://u:secret@127.0.0.1:{silent.getsockname()[1]}/d"))
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="timeout") as failed, client.session(began + 1):
            pass
    assert failed.value.reason == "timeout"
    assert time.monotonic() - began < 5, "libpq knows no less than two seconds"
