"""The trace: read, stretched, its rise found, shifted so that it is seen live."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from demo import trace
from demo.trace import TraceError

LIVE = 1_800_000_000.0


@pytest.fixture(scope="module")
def azure() -> trace.Trace:
    return trace.read_azure()


@pytest.fixture(scope="module")
def demand(azure: trace.Trace) -> trace.Demand:
    return trace.prepared(azure, 210.0, LIVE)


def test_the_shipped_trace_has_thirty_days_of_five_minutes(azure: trace.Trace) -> None:
    assert len(azure.values) == 30 * 288
    assert azure.seconds[1] == 300.0


def test_p1_is_one_workers_capacity_and_p99_fifteens(azure: trace.Trace) -> None:
    minutes = trace.stretched(azure)
    assert len(minutes) == (30 * 288 - 1) * 5 + 1
    assert np.percentile(minutes, [1, 99]) == pytest.approx([2.0, 30.0], abs=1e-6)
    assert minutes.min() >= 0.0


def test_the_steep_rise_of_the_shipped_trace_is_found(demand: trace.Demand) -> None:
    assert demand.rise_time_of_day == "13:20"
    assert demand.rise.share_of_days == 1.0
    assert demand.rise.ratio > 0.3


def test_the_rise_begins_when_it_is_told_to_with_three_weeks_before_and_an_hour_after(demand: trace.Demand) -> None:
    assert demand.rise_at == LIVE + 210.0
    assert demand.minute_at(LIVE) >= 21 * 1440
    assert len(demand.minutes) - demand.minute_at(LIVE) > 60
    assert float(demand.intensity(demand.rise_at + 300.0)) / float(demand.intensity(demand.rise_at)) > 1.3


def test_the_live_part_stays_within_the_fleet(demand: trace.Demand) -> None:
    live = demand.intensity(np.arange(LIVE, LIVE + 420.0))
    assert math.ceil(live.max() / trace.JOBS_PER_SECOND) <= 15


def test_intensity_is_linear_between_minutes(demand: trace.Demand) -> None:
    left, right = demand.intensity(demand.rise_at), demand.intensity(demand.rise_at + 60.0)
    assert demand.intensity(demand.rise_at + 30.0) == pytest.approx((left + right) / 2)


def test_the_same_seed_draws_the_same_jobs_and_another_one_others(demand: trace.Demand) -> None:
    first, again = (demand.arrivals(LIVE, LIVE + 60.0, seed=7) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != demand.arrivals(LIVE, LIVE + 60.0, seed=8).tolist()
    assert demand.counts(100, 7).tolist() == demand.counts(100, 7).tolist()


def test_counts_and_single_arrivals_are_poisson_around_the_intensity(demand: trace.Demand) -> None:
    counts = demand.counts(30_000, seed=1)
    means = 60.0 * (demand.minutes[:30_000] + demand.minutes[1:30_001]) / 2
    away = (counts - means) / np.sqrt(np.maximum(means, 1.0))
    assert abs(away.mean()) < 0.05
    assert away.std() == pytest.approx(1.0, abs=0.05)
    arrivals = demand.arrivals(LIVE, LIVE + 3600.0, seed=1)
    expected = float(demand.intensity(np.arange(LIVE, LIVE + 3600.0)).sum())
    assert abs(len(arrivals) - expected) < 4 * math.sqrt(expected)
    assert (np.diff(arrivals) >= 0).all()


def daily(days: int, step_seconds: int = 600, *, unix: bool = False) -> str:
    """A CSV with a jump at 09:00 each day."""
    start = datetime(2026, 1, 5, tzinfo=UTC)
    lines = ["timestamp,value"]
    for index in range(days * 86400 // step_seconds):
        at = start + timedelta(seconds=index * step_seconds)
        value = 10.0 + index % 7 / 10 + (20.0 if at.hour >= 9 else 0.0)
        lines.append(f"{at.timestamp() if unix else at.isoformat()},{value}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("unix", [False, True], ids=["ISO times", "Unix seconds"])
def test_a_trace_of_ones_own_is_prepared_like_the_shipped_one(csv_file: Callable[[str], Path], unix: bool) -> None:
    mine = trace.prepared(trace.read_csv(csv_file(daily(24, unix=unix))), 120.0, LIVE)
    assert mine.rise_time_of_day in ("08:50", "08:55")  # the last sample before the jump is at 08:50
    assert mine.rise_at == LIVE + 120.0
    assert mine.minute_at(LIVE) >= 21 * 1440


def test_the_time_of_day_counts_from_the_files_first_time(csv_file: Callable[[str], Path]) -> None:
    lines = daily(25).splitlines()
    later = "\n".join([lines[0], *lines[1 + 36 :]])  # begins at 06:00
    mine = trace.prepared(trace.read_csv(csv_file(later)), 120.0, LIVE)
    assert mine.rise_time_of_day in ("08:50", "08:55")


def test_a_missing_value_is_bridged(csv_file: Callable[[str], Path]) -> None:
    read = trace.read_csv(csv_file("timestamp,value\n0,1\n60,\n120,3\n"))
    assert np.interp(60.0, read.seconds, read.values) == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("time,load\n0,1\n", "line 1: found the header 'time,load'; write timestamp,value", id="header"),
        pytest.param("timestamp,value\n0,1\nsoon,2\n", "line 3: 'soon' is not a time", id="no time"),
        pytest.param("timestamp,value\n0,1\n60,much\n", "line 3: 'much' is not a number", id="no number"),
        pytest.param("timestamp,value\n0,1\n60,inf\n", "line 3: 'inf' is not a number", id="infinite"),
        pytest.param("timestamp,value\n60,1\n0,2\n", "line 3: '0' is not later", id="not ascending"),
        pytest.param("timestamp,value\n0,1\n60,2,3\n", "line 3: found 3 columns", id="columns"),
        pytest.param("timestamp,value\n0,1\n90000,2\n", "line 3: 25.0 hours without a value", id="a gap too long"),
        pytest.param("timestamp,value\n", "found 0 values", id="no values"),
        pytest.param("", "found 0 values", id="an empty file"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(csv_file: Callable[[str], Path], text: str, said: str) -> None:
    path = csv_file(text)
    with pytest.raises(TraceError) as caught:
        trace.read_csv(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file; --trace wants a CSV file"):
        trace.read_csv(tmp_path / "none.csv")


def test_a_trace_of_five_days_is_too_short(csv_file: Callable[[str], Path]) -> None:
    with pytest.raises(TraceError, match=r"covers 5\.0 days; 22\.\d or more are needed"):
        trace.prepared(trace.read_csv(csv_file(daily(5))), 210.0, LIVE)


def test_a_constant_trace_is_refused(csv_file: Callable[[str], Path]) -> None:
    text = "timestamp,value\n" + "".join(f"{i * 3600},5\n" for i in range(24 * 24))
    with pytest.raises(TraceError, match="its values do not vary"):
        trace.prepared(trace.read_csv(csv_file(text)), 210.0, LIVE)
