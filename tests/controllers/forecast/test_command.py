"""What `tidewise forecast` answers on the terminal."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from controllers.forecast import backtest_command, command
from controllers.forecast.observe import Observer
from controllers.forecast.once import explained, once
from controllers.forecast.predict import DECISION_QUANTILES
from controllers.sources.prometheus import Kind, SourceError

NAME = "default/a"


@pytest.fixture
def source(make: SimpleNamespace) -> SimpleNamespace:
    return make.FakeSource({NAME: lambda t: 10 + 4 * math.sin(2 * math.pi * t / 86_400)})


def test_once_prints_a_table_or_json(
    make: SimpleNamespace, source: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make.config("a", "b", history_days=2)
    assert once(config, source, "table") == 1  # b has no samples
    shown = capsys.readouterr()
    assert f"{NAME}: " in shown.out
    assert "3600s" in shown.out
    assert "a decision made now covers 60 s to 90 s from now, whose peak is q0.1 " in shown.out
    assert "default/b: no forecast (no_samples)" in shown.err
    assert once(make.config("a", history_days=2), source, "json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [horizon["seconds"] for horizon in told["horizons"]] == [120, 300, 900, 1800, 3600]
    assert told["window"]["begin_seconds"] == 60
    assert told["window"]["peak"].keys() == {"0.1", *(f"{q:g}" for q in DECISION_QUANTILES)}


def test_a_workload_is_explained_as_text_and_as_json(
    make: SimpleNamespace, source: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make.config("a", history_days=2)
    assert explained(config, source, "a", "table", heavy=False) == 0
    shown = capsys.readouterr().out
    for expected in (f"{NAME}: ", "gate ", "demand per second by hour (UTC)", "Mon  ", "* ", "last_value"):
        assert expected in shown
    assert explained(config, source, NAME, "json", heavy=False) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["workload"] == NAME
    assert told["models"]


def test_what_cannot_be_explained_is_said(
    make: SimpleNamespace, source: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make.config("a", "b", history_days=2)
    assert explained(config, source, "c", "table") == 2
    assert "found no workload 'c'; the configuration has: default/a, default/b" in capsys.readouterr().err
    assert explained(config, source, "b", "json", heavy=False) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "default/b: no forecast (no_samples)" in shown.err


@pytest.mark.parametrize("ask", [lambda c, s: once(c, s, "table"), lambda c, s: explained(c, s, "a", "table")])
def test_prometheus_away_is_one_sentence(
    ask: Callable[..., int], make: SimpleNamespace, source: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(start: float, end: float) -> None:
        raise SourceError(Kind.UNREACHABLE, "connection refused")

    source.fail = fail
    assert ask(make.config("a", history_days=1), source) == 1
    assert capsys.readouterr().err == "http://fake: unreachable: connection refused\n"


def test_help_shows_examples_and_the_backtest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert shown.endswith(command.EXAMPLES)
    for option in ("--once", "--explain [WORKLOAD]", "--scheduler", "backtest --trace"):
        assert option in shown


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(["--once", "--explain", "a"], "not allowed with argument --once", id="two questions at once"),
        pytest.param(["--format", "yaml"], "invalid choice: 'yaml'", id="an unknown format"),
        pytest.param(["--scheduler", "nowhere"], "argument --scheduler", id="no address"),
    ],
)
def test_a_mistake_is_told(asked: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(asked)
    assert expected in capsys.readouterr().err


BACKTEST_MISTAKES = [
    (["--days", "x"], "found x; write a number of days, up to 366"),
    (["--days", "nan"], "found nan; write a number of days, up to 366"),
    (["--horizon", "90.5"], "found 90.5; write 60 to 86400 seconds"),
    (["--horizon", "soon"], "found soon; write 60 to 86400 seconds"),
    (["--url", "shop"], "found shop; write http://HOST:PORT or https://HOST:PORT"),
    (["--time-zone", "../etc"], "found ../etc; write a name such as Europe/Berlin"),
]


@pytest.mark.parametrize(("asked", "expected"), BACKTEST_MISTAKES, ids=[" ".join(row[0]) for row in BACKTEST_MISTAKES])
def test_a_mistake_in_a_backtest_is_told(asked: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        backtest_command.main(["--promql", "up", *asked])
    assert capsys.readouterr().err.endswith(f"argument {asked[0]}: {expected}\n")


def test_only_one_workload_needs_no_name(
    make: SimpleNamespace, source: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(make.config("a", "b", history_days=1), source, "", "table") == 2
    assert capsys.readouterr().err == "which workload?; the configuration has: default/a, default/b\n"
    assert explained(make.config("b", history_days=1), source, "", "json", heavy=False) == 1
    assert "default/b: no forecast" in capsys.readouterr().err


def test_no_workload_is_said(
    make: SimpleNamespace, source: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert once(make.config(), source, "json") == 1
    assert "no workload" in capsys.readouterr().err
    nothing = make.config(rollup_days=365)
    Observer(source, nothing).read(1e9, lambda: 10.0)  # nor does the process fall over it


def test_warnings_are_no_part_of_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text("prometheus: {url: 'http://127.0.0.1:1', timeout_seconds: 1}\n")
    try:
        assert command.main(["--config", str(path), "--once", "--format", "json"]) == 1
        structlog.get_logger().warning("calendar_unreadable")
    finally:
        structlog.reset_defaults()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "calendar_unreadable" in shown.err


def test_the_backtest_is_a_word_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(backtest_command, "main", lambda argv: given.append(argv) or 0)
    assert command.main(["backtest", "--trace", "x.csv"]) == 0
    assert given == [["--trace", "x.csv"]]


def test_the_configuration_decides_which_prometheus_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tidewise.yaml"
    workload = {
        "name": "a",
        "demand": {"queue": "jobs"},
        "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
        "replicas": {"max": 2},
    }
    written = {"prometheus": {"url": "http://127.0.0.1:1", "timeout_seconds": 1}, "workloads": [workload]}
    path.write_text(json.dumps(written))
    try:
        assert command.main(["--config", str(path), "--once"]) == 1
    finally:
        structlog.reset_defaults()
    assert "http://127.0.0.1:1" in capsys.readouterr().err
