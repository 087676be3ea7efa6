"""The walk through somebody's own demand: only what was known then, scores that add up, and the command around it."""

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.domain import Sample
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest_command import EXAMPLES, main, read_query, told
from controllers.forecast.history import History
from controllers.forecast.traces import TraceError
from controllers.forecast.walk import (
    Walk,
    coverage,
    error_by_hour,
    error_by_lead,
    naives,
    pinball,
    rows_of,
    score,
    walk,
)
from controllers.sources.prometheus import Answer, Series

QUANTILES = (0.1, 0.9)


@pytest.fixture(scope="module")
def days(make: SimpleNamespace) -> History:
    """Four days in ten-minute bins."""
    return make.grid(make.poisson(make.daily(np.arange(4.0 * 144) * 10)), 600.0)


def walked(history: History, days: float = 1.0) -> Walk:
    return walk(history, Calendar(), horizon_seconds=3600, days=days, quantiles=QUANTILES, heavy=False)


@pytest.fixture(scope="module")
def found(days: History) -> Walk:
    return walked(days)


def test_every_full_hour_of_the_last_day_is_walked_through(found: Walk, days: History) -> None:
    assert (found.times % 3600 == 0).all()
    assert len(found.times) in (23, 24)
    assert found.times[-1] <= days.end - 3600
    assert found.path_said.shape == (len(found.times), 6)
    np.testing.assert_allclose(found.came, [days.values[int((at + 3600 - days.start) / 600)] for at in found.times])
    assert np.isfinite(found.said).all()


def test_what_comes_later_changes_nothing_that_was_said_before(found: Walk, days: History) -> None:
    noon = len(days.values) - 72
    other = days.values.copy()
    other[noon:] = 1000.0
    changed = walked(History(days.start, 600.0, other, days.censored))
    before = found.times < days.start + noon * 600 - 1
    assert 5 < before.sum() < len(before)
    np.testing.assert_array_equal(changed.said[before], found.said[before])
    for q in QUANTILES:
        np.testing.assert_array_equal(changed.peak[q][before], found.peak[q][before])


def test_a_hole_is_refused_and_the_walk_goes_on(days: History) -> None:
    holed = days.values.copy()
    holed[-100:-60] = np.nan
    found = walked(History(days.start, 600.0, holed, days.censored))
    assert found.refused > 3
    assert np.isnan(found.said).sum() == found.refused
    assert np.isfinite(found.said[-3:]).all()
    json.dumps(told(found, days), allow_nan=False)


def test_half_of_a_short_history_is_kept_to_learn_from(make: SimpleNamespace) -> None:
    places = rows_of(make.grid(np.ones(48), 3600.0), 3600, 7.0)
    assert places[0] == 24
    assert places[-1] == 46


def test_naive_forecasts_say_what_was(make: SimpleNamespace) -> None:
    history = make.grid(np.arange(8.0 * 24), 3600.0)
    points, means = naives(history, [180], 2, "UTC")
    assert points[:, 0].tolist() == [180, 182 - 24, 182 - 168]
    assert means[:, 0].tolist() == [180, 181.5 - 24, 181.5 - 168]


def test_scores_add_up() -> None:
    said, came = np.array([1.0, 3.0, 5.0, np.nan]), np.array([2.0, 2.0, 6.0, 9.0])
    found = score(said, came, np.array([came + 2, came + 6, np.full(4, np.nan)]))
    assert (found.rows, found.wape, found.accuracy) == (3, 0.3, 0.7)
    assert found.bias == pytest.approx(-0.1)
    assert found.skill == {"last value": 0.5, "yesterday": pytest.approx(3 / 18)}
    assert found.best == ("last value", 0.5)
    assert coverage(said, came) == pytest.approx(1 / 3)
    assert pinball(0.9, np.array([1.0]), np.array([2.0])) == pytest.approx(0.45)
    assert pinball(0.9, np.array([3.0]), np.array([2.0])) == pytest.approx(0.05)


def test_nothing_came_is_no_error_and_no_zero() -> None:
    nothing = np.zeros(3)
    found = score(nothing + 1, nothing, np.zeros((3, 3)))
    assert (found.wape, found.accuracy, found.bias, found.best) == (None, None, None, None)
    assert pinball(0.9, nothing, nothing) is None
    assert coverage(np.full(3, np.nan), nothing) is None


def test_error_by_lead_and_by_local_hour(found: Walk) -> None:
    by_lead = error_by_lead(found)
    assert by_lead[-1] == pytest.approx(score(found.said, found.came, found.naive).wape, rel=0.01)
    assert len(by_lead) == 6
    assert np.isfinite(error_by_hour(found)).sum() >= 23


@pytest.fixture(scope="module")
def trace(days: History, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "demand.csv"
    with path.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("timestamp", "value"))
        rows.writerows((days.start - 600 + place * 600, value) for place, value in enumerate(days.values))
    return path


def test_the_command_prints_a_table_and_draws(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "report.png"
    assert main(["--trace", str(trace), "--days", "0.6", "--quick", "--out", str(picture)]) == 0
    shown = capsys.readouterr()
    for expected in (
        "forecasts of the next 1 h over",
        "accuracy, goal 80 %",
        "last value",
        "peak below",
        "models: ",
        "gate",
    ):
        assert expected in shown.out
    assert shown.err == f"{picture}: written\n"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_as_json_and_without_matplotlib(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "controllers.forecast.picture", None)
    asked = ["--trace", str(trace), "--days", "0.6", "--quick", "--format", "json", "--out", str(tmp_path / "x.png")]
    assert main(asked) == 1
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["value"]["accuracy"] > 0.8
    assert report["forecasts"] == 15
    assert [row["quantile"] for row in report["quantiles"]] == [0.1, 0.9, 0.98]
    assert "needs matplotlib, which is not installed: pip install matplotlib" in shown.err


MISTAKES = [
    ("too little", ["--trace", "short.csv"], 1, "at least 12 are needed"),
    ("no such file", ["--trace", "gone.csv"], 1, "there is no such file"),
    ("neither", [], 2, "one of the arguments --trace --promql is required"),
    ("no days", ["--trace", "short.csv", "--days", "0"], 2, "found 0; write a number of days"),
    ("a horizon of a second", ["--trace", "short.csv", "--horizon", "1"], 2, "found 1; write 60 to 86400 seconds"),
    ("no zone", ["--trace", "short.csv", "--time-zone", "Mars"], 2, "found Mars; write a name such as Europe/Berlin"),
    ("nobody there", ["--promql", "up", "--url", "http://127.0.0.1:1"], 1, "127.0.0.1"),
]


@pytest.mark.parametrize(("asked", "status", "expected"), [row[1:] for row in MISTAKES], ids=[r[0] for r in MISTAKES])
def test_a_mistake(
    asked: list[str],
    status: int,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.csv").write_text("".join(f"{minute * 60},1\n" for minute in range(120)))
    if status == 2:
        with pytest.raises(SystemExit, match="2"):
            main(asked)
    else:
        assert main(asked) == status
    assert expected in capsys.readouterr().err


def test_a_query_gives_one_series_or_is_told_how_to() -> None:
    def answers(count: int) -> SimpleNamespace:
        samples = tuple(Sample(1.0, 1e9 + 60 * minute) for minute in range(30))
        found = [Series({"pod": str(number)}, samples) for number in range(count)]
        return SimpleNamespace(url="http://x", range=lambda *asked: Answer(found))

    assert read_query(answers(1), "up", 1.0, 1e9 + 1740).values.tolist() == [1.0] * 30
    with pytest.raises(TraceError, match=r"up gives 2 series .* write sum\(up\)"):
        read_query(answers(2), "up", 1.0, 1e9)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.endswith(EXAMPLES)
