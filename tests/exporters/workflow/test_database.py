"""n8n's own tables, on real databases: what ended is counted once, whatever n8n does to its rows."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.workflow import executions
from exporters.workflow.database import PAGE
from tests.exporters.workflow.conftest import Page
from tests.exporters.workflow.tables import Tables, on_postgresql, on_sqlite, schedule

NOW = 0.0  # when this file's turn came: set below


@pytest.fixture(autouse=True, scope="module")
def _now() -> None:
    """Other files may take minutes between reading this one and running it."""
    global NOW
    NOW = float(int(time.time()))


def test_a_workflow_is_shown_with_its_counts_times_and_schedule(tables: Tables) -> None:
    tables.workflow("cap", "Captions", nodes=schedule(field="minutes", minutesInterval=10))
    tables.workflow("idle", "Idle", active=False, nodes=schedule(field="hours"))
    tables.count("cap", "production_success", NOW - 60, times=41)
    tables.count("cap", "production_error", NOW - 600, times=2)
    tables.count("cap", "manual_success", NOW - 3600)
    tables.count("cap", "data_loaded", NOW - 3600)
    found = Page(tables.source).look()
    assert found["workflow_info cap Captions true"] == 1
    assert found["workflow_info idle Idle false"] == 1
    assert found["workflow_executions_total cap production"] == 43
    assert found["workflow_execution_failures_total cap production"] == 2
    assert found["workflow_executions_total cap manual"] == 1
    assert found["workflow_executions_total idle production"] == 0
    assert found["workflow_last_success_timestamp_seconds cap"] == NOW - 60
    assert found["workflow_last_failure_timestamp_seconds cap"] == NOW - 600
    assert found["workflow_expected_interval_seconds cap"] == 600
    assert found["workflow_expected_since_timestamp_seconds cap"] == NOW - 60
    assert not [name for name in found if name.startswith("workflow_expected") and "idle" in name]
    assert "workflow_last_success_timestamp_seconds idle" not in found


def test_what_ends_is_counted_once_however_late_and_in_whatever_order(tables: Tables) -> None:
    tables.workflow("cap", "Captions")
    early = tables.start("cap", NOW - 500)
    page = Page(tables.source)
    assert page.look()["workflow_running_oldest_seconds cap"] == pytest.approx(500, abs=60)
    late, waiting = tables.start("cap", NOW - 100), tables.start("cap", NOW - 90)
    tables.end(waiting, NOW - 80, "waiting")  # n8n writes an end also where it waits
    crashed = tables.start("cap", NOW - 70)
    tables.end(crashed, NOW - 60, "crashed")
    found = page.look()
    assert (found["workflow_running cap"], found["workflow_waiting cap"]) == (2, 1)
    assert found["workflow_crashes_total cap"] == 1
    assert found["workflow_last_failure_timestamp_seconds cap"] == NOW - 60
    assert "workflow_duration_seconds_count cap" not in found  # nothing that ended by itself
    tables.end(late, NOW - 40, "error")
    tables.end(early, NOW - 10)  # a lower number than what was counted, and an earlier start
    found = page.look()
    assert (found["workflow_running cap"], found["workflow_waiting cap"]) == (0, 1)
    assert found["workflow_duration_seconds_count cap"] == 2
    assert found["workflow_duration_seconds_sum cap"] == 490 + 60
    assert found["workflow_last_success_timestamp_seconds cap"] == NOW - 10
    assert page.look() == found | {"workflow_running_oldest_seconds cap": 0}


def test_pruning_takes_nothing_back(tables: Tables) -> None:
    tables.workflow("cap", "Captions")
    tables.count("cap", "production_success", NOW - 60, times=5)
    page = Page(tables.source)
    page.look()
    tables.end(tables.start("cap", NOW - 20), NOW - 15)
    running = tables.start("cap", NOW - 5)
    before = page.look()
    if tables.shape == "new":
        tables.execute(f'UPDATE {tables.table("execution_entity")} SET "deletedAt" = "startedAt"')
        assert page.look()["workflow_duration_seconds_count cap"] == 1
    tables.execute(f"DELETE FROM {tables.table('execution_entity')}")
    after = page.look()
    assert after["workflow_running cap"] == 0, running
    for name in ("workflow_executions_total cap production", "workflow_duration_seconds_count cap"):
        assert after[name] == before[name]


def test_without_statistics_the_executions_are_counted_and_the_last_times_are_those_of_the_rows(tables: Tables) -> None:
    tables.workflow("cap", "Captions")
    tables.execute(f"DROP TABLE {tables.table('workflow_statistics')}")
    tables.end(tables.start("cap", NOW - 50), NOW - 40)
    tables.end(tables.start("cap", NOW - 30), NOW - 20, "error")
    page = Page(tables.source)
    found = page.look()
    assert found["workflow_executions_total cap production"] == 0
    assert found["workflow_last_success_timestamp_seconds cap"] == NOW - 40
    assert found["workflow_last_failure_timestamp_seconds cap"] == NOW - 20
    tables.end(tables.start("cap", NOW - 10), NOW - 9)
    tables.end(tables.start("cap", NOW - 8, mode="manual"), NOW - 7, "error")
    tables.end(tables.start("cap", NOW - 6, mode="chat"), NOW - 5)
    found = page.look()
    assert found["workflow_executions_total cap production"] == 1
    assert found["workflow_execution_failures_total cap manual"] == 1
    assert found["workflow_last_success_timestamp_seconds cap"] == NOW - 9


@pytest.mark.parametrize(
    "tables", [("sqlite", "old"), pytest.param(("postgresql", "old"), marks=pytest.mark.real)], indirect=True
)
def test_rows_that_are_older_than_the_column_status_say_it_otherwise(tables: Tables) -> None:
    tables.workflow("cap", "Captions")
    tables.execute(f"ALTER TABLE {tables.table('execution_entity')} DROP COLUMN status")
    page = Page(tables.source)
    page.look()
    execution = tables.table("execution_entity")
    at = tables.time(NOW - 10)
    sql = f'INSERT INTO {execution} ("workflowId", finished, mode, "startedAt", "stoppedAt", "waitTill") VALUES '
    marks = "(%s, %s, %s, %s, %s, %s)" if tables.kind == "postgresql" else "(?, ?, ?, ?, ?, ?)"
    for finished, stopped, waits in ((True, at, None), (False, at, None), (False, at, at), (False, None, None)):
        tables.execute(sql + marks, ("cap", finished, "trigger", at, stopped, waits))
    found = page.look()
    assert found["workflow_duration_seconds_count cap"] == 2
    assert (found["workflow_running cap"], found["workflow_waiting cap"]) == (1, 1)
    assert found["workflow_last_failure_timestamp_seconds cap"] == NOW - 10


@pytest.mark.real
def test_increments_that_n8n_has_not_summed_up_yet_are_counted(postgresql_dsn: str) -> None:
    tables = on_postgresql(postgresql_dsn, "new")
    tables.workflow("cap", "Captions")
    tables.count("cap", "production_success", NOW - 60, times=10)
    page = Page(tables.source)
    assert page.look()["workflow_executions_total cap production"] == 10
    for name in ("production_success", "production_error"):
        tables.execute(
            'INSERT INTO workflow_statistics_delta ("workflowId", name, "rootCountDelta", "createdAt") '
            "VALUES ('cap', %s, 1, %s)",
            (name, tables.time(NOW - 5)),
        )
    found = page.look()
    assert found["workflow_executions_total cap production"] == 12
    assert found["workflow_execution_failures_total cap production"] == 1
    assert found["workflow_last_success_timestamp_seconds cap"] == NOW - 5


@pytest.mark.real
def test_a_reader_with_the_rights_of_the_documentation_is_enough_and_one_less_is_told(postgresql_dsn: str) -> None:
    tables = on_postgresql(postgresql_dsn, "new")
    tables.workflow("cap", "Captions", nodes=schedule(field="hours"))
    with contextlib.suppress(Exception):
        tables.execute("CREATE ROLE n8n_reader LOGIN")
    names = ("workflow_entity", "execution_entity", "workflow_statistics", "workflow_statistics_delta")
    for name in names:
        tables.execute(f"GRANT SELECT ON {name} TO n8n_reader")
    host = postgresql_dsn.split("@", 1)[-1]
    reader = Page({"postgresql": {"url": f"postgresql://n8n_reader@{host}"}})
    found = reader.look()
    assert found["workflow_executions_total cap production"] == 0
    assert "permission denied" in (reader.problem or "")
    assert "workflow_expected_interval_seconds cap" not in found
    tables.execute("GRANT SELECT ON workflow_history TO n8n_reader")
    found = reader.look()
    assert reader.problem is None
    assert found["workflow_expected_interval_seconds cap"] == 3600
    tables.execute("REVOKE ALL ON workflow_statistics FROM n8n_reader")
    with pytest.raises(Exception, match="permission denied for table workflow_statistics"):
        reader.look()
    tables.execute("DROP OWNED BY n8n_reader")


def test_the_schedule_is_that_of_the_published_version(sqlite: Tables) -> None:
    sqlite.workflow("cap", "Captions", nodes=schedule(field="hours"))
    page = Page(sqlite.source)
    assert page.look()["workflow_expected_interval_seconds cap"] == 3600
    sqlite.execute(
        "INSERT INTO workflow_history VALUES ('v1', 'cap', 'me', ?, '{}')",
        ('[{"type": "n8n-nodes-base.scheduleTrigger", "parameters": {"rule": {"interval": [{}]}}}]',),
    )
    sqlite.execute("UPDATE workflow_entity SET \"activeVersionId\" = 'v1'")
    assert page.look()["workflow_expected_interval_seconds cap"] == 86_400


def test_a_workflow_that_never_ran_is_awaited_from_its_last_change_and_one_that_is_switched_on_from_then(
    sqlite: Tables, clock: Callable[[float], None]
) -> None:
    hourly = schedule(field="hours")
    sqlite.workflow("new", "New", nodes=hourly, changed=NOW - 1000)
    sqlite.workflow("old", "Old", active=False, nodes=hourly, changed=NOW - 9_000_000)
    sqlite.count("old", "production_success", NOW - 9_000_000)
    page = Page(sqlite.source)
    found = page.look()
    assert found["workflow_expected_since_timestamp_seconds new"] == NOW - 1000
    assert "workflow_expected_since_timestamp_seconds old" not in found
    clock(100)
    sqlite.execute("UPDATE workflow_entity SET active = 1, \"updatedAt\" = 'now' WHERE id = 'old'")
    assert page.look()["workflow_expected_since_timestamp_seconds old"] == pytest.approx(NOW + 100, abs=60)


def test_what_the_configuration_expects_holds_also_for_a_workflow_that_was_switched_off(sqlite: Tables) -> None:
    sqlite.workflow("rep", "Nightly report", active=False)
    sqlite.count("rep", "production_success", NOW - 60)
    page = Page(sqlite.source, expected=[{"workflow": "Nightly report", "seconds": 7200}])
    assert page.look()["workflow_expected_interval_seconds rep"] == 7200
    assert page.problem is None
    sqlite.execute("DELETE FROM workflow_entity")
    assert page.look() == {}
    assert page.problem == "expected: there is no workflow 'Nightly report'"


def test_a_database_that_was_replaced_is_followed_from_its_new_numbers(sqlite: Tables) -> None:
    sqlite.workflow("cap", "Captions")
    for _ in range(5):
        sqlite.end(sqlite.start("cap", NOW - 60), NOW - 50)
    page = Page(sqlite.source)
    page.look()
    sqlite.execute("DELETE FROM execution_entity")
    sqlite.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'execution_entity'")
    sqlite.end(sqlite.start("cap", NOW - 40), NOW - 30)
    page.look()
    sqlite.end(sqlite.start("cap", NOW - 20), NOW - 10)
    page.look()
    sqlite.end(sqlite.start("cap", NOW - 5), NOW - 4)
    assert page.look()["workflow_duration_seconds_count cap"] == 1


def test_rows_that_were_deleted_at_the_top_do_not_make_old_ones_new(sqlite: Tables) -> None:
    sqlite.workflow("cap", "Captions")
    for _ in range(5):
        sqlite.end(sqlite.start("cap", NOW - 60), NOW - 50)
    page = Page(sqlite.source)
    page.look()
    for number in (5, 4, 3):
        sqlite.execute("DELETE FROM execution_entity WHERE id = ?", (number,))
        assert "workflow_duration_seconds_count cap" not in page.look()
    sqlite.end(sqlite.start("cap", NOW - 5), NOW - 4)
    assert page.look()["workflow_duration_seconds_count cap"] == 1


def test_a_number_that_was_committed_later_than_a_higher_one_is_found(sqlite: Tables) -> None:
    sqlite.workflow("cap", "Captions")
    page = Page(sqlite.source)
    page.look()
    sqlite.end(sqlite.start("cap", NOW - 60), NOW - 50)
    page.look()
    insert = (
        'INSERT INTO execution_entity (id, "workflowId", finished, mode, status, "startedAt", "stoppedAt") '
        "VALUES (?, 'cap', 1, 'webhook', 'success', ?, ?)"
    )
    for number in (5, 3):
        sqlite.execute(insert, (number, sqlite.time(NOW - 9), sqlite.time(NOW - 8)))
        found = page.look()
    assert found["workflow_duration_seconds_count cap"] == 3


def test_more_than_one_look_can_take_is_said_and_taken_with_the_next(
    sqlite: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite.workflow("cap", "Captions")
    page = Page(sqlite.source)
    page.look()
    sqlite.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO execution_entity "
        '("workflowId", finished, mode, status, "startedAt", "stoppedAt") '
        "SELECT 'cap', 1, 'webhook', 'success', ?, ? FROM n",
        (2 * PAGE + 5, sqlite.time(NOW - 9), sqlite.time(NOW - 8)),
    )
    monkeypatch.setattr("exporters.workflow.database.PAGES", 2)
    found = page.look()
    assert found["workflow_duration_seconds_count cap"] == 2 * PAGE
    assert "workflow_running cap" not in found
    assert "more executions ended than can be read at once" in (page.problem or "")
    found = page.look()
    assert (page.problem, found["workflow_duration_seconds_count cap"]) == (None, 2 * PAGE + 5)


def test_too_many_open_executions_are_not_called_few(sqlite: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "OPEN_MOST", 4)
    sqlite.workflow("cap", "Captions")
    numbers = [sqlite.start("cap", NOW - 60) for _ in range(6)]
    page = Page(sqlite.source)
    assert "workflow_running cap" not in page.look()
    assert "executions are open" in (page.problem or "")
    for number in numbers[1:]:
        sqlite.end(number, NOW - 5)
    page.look()
    assert page.look()["workflow_running cap"] == 1
    assert page.problem is None


def test_of_a_hundred_thousand_workflows_so_many_are_shown_active_ones_first(sqlite: Tables) -> None:
    sqlite.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO workflow_entity "
        "(id, name, active, nodes, connections) SELECT 'w' || i, 'W', i > 99995, '[]', '{}' FROM n"
    )
    page = Page(sqlite.source, workflows_max=10)
    found = page.look()
    shown = [name for name in found if name.startswith("workflow_info")]
    assert len(shown) == 10
    assert sum(name.endswith("true") for name in shown) == 5
    assert page.problem == "99990 workflows more than workflows_max are not shown"


def test_a_name_of_ten_kilobytes_that_is_no_utf8_is_harmless(sqlite: Tables) -> None:
    sqlite.workflow("cap", "x")
    sqlite.execute("UPDATE workflow_entity SET name = CAST(? AS TEXT)", (b'\xff"\n' + b"y" * 10_000,))
    [name] = [name for name in Page(sqlite.source).look() if name.startswith("workflow_info")]
    assert name.startswith('workflow_info cap \\xff"\n')
    assert len(name) < 250


def test_a_locked_database_fails_in_time_and_comes_back(tmp_path: Path) -> None:
    tables = on_sqlite(tmp_path / "database.sqlite", "old")
    tables.execute("PRAGMA journal_mode = DELETE")
    tables.workflow("cap", "Captions")
    page = Page(tables.source)
    other = sqlite3.connect(tmp_path / "database.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(OSError, match="database is locked"):
        page.look(seconds=0.4)
    assert time.monotonic() - began < 2
    other.execute("ROLLBACK")
    assert "workflow_running cap" in page.look()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda path: None, "there is no such file", id="no file"),
        pytest.param(lambda path: path.write_text("no database" * 100), "not a database", id="another file"),
        pytest.param(lambda path: sqlite3.connect(path).execute("CREATE TABLE a (b)"), "no table", id="no table"),
    ],
)
def test_what_is_no_database_of_n8n_is_said(tmp_path: Path, prepare: Callable[[Path], object], message: str) -> None:
    prepare(tmp_path / "file")
    with pytest.raises((OSError, ValueError), match=message):
        Page({"sqlite": str(tmp_path / "file")}).look()
