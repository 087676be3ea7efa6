"""The history: the same draw as the live part, written with the live labels, without a reset of the counter."""

import re
from itertools import pairwise

import numpy as np
import pytest

from demo import history, trace

LIVE, SEED = 1_800_000_000.0, 7
LABELS = {"system": "redis", "queue": "video-jobs", "instance": "127.0.0.1:9811", "job": "tidewise-exporter"}


@pytest.fixture(scope="module")
def drawn() -> tuple[history.History, trace.Floats]:
    demand = trace.prepared(trace.read_azure(), 210.0, LIVE)
    return history.history_until(demand, LIVE, LIVE + 420.0, SEED)


@pytest.fixture(scope="module")
def samples(drawn: tuple[history.History, trace.Floats]) -> dict[str, list[tuple[float, float]]]:
    """series -> (time, value)s of the text."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in history.openmetrics(drawn[0], LABELS):
        if not line.startswith("#"):
            series, value, at = line.rsplit(maxsplit=2)
            found.setdefault(series, []).append((float(at), float(value)))
    return found


def test_it_holds_three_weeks_at_one_minute_with_the_live_labels(samples: dict[str, list[tuple[float, float]]]) -> None:
    queue, workload = '{system="redis",queue="video-jobs"}', '{workload="demo/video-analysis"}'
    for name in (
        f"queue:arrivals:rate1m{queue}",
        f"queue:completions:rate1m{queue}",
        f"workload:demand:rate1m{workload}",
        f"workload:demand_censored:bool{workload}",
    ):
        times = np.array([at for at, _ in samples[name]])
        assert len(times) >= 21 * 1440
        assert set(np.round(np.diff(times), 3)) == {60.0}
        assert 0 <= LIVE - times[-1] < 60.0


def test_demand_is_jobs_a_minute_per_second(
    drawn: tuple[history.History, trace.Floats], samples: dict[str, list[tuple[float, float]]]
) -> None:
    values = [value for _, value in samples['workload:demand:rate1m{workload="demo/video-analysis"}']]
    assert values == pytest.approx((drawn[0].counts / 60.0).tolist())
    five = [value for _, value in samples['workload:demand:rate5m{workload="demo/video-analysis"}']]
    assert five[-1] == pytest.approx(drawn[0].counts[-5:].sum() / 300.0)


@pytest.mark.parametrize("name", ["queue_enqueued_total", "queue_completed_total"])
def test_a_counter_covers_ten_minutes_and_ends_where_the_live_one_begins(
    drawn: tuple[history.History, trace.Floats], samples: dict[str, list[tuple[float, float]]], name: str
) -> None:
    (series,) = [series for series in samples if series.startswith(name)]
    assert re.findall(r'(\w+)="', series) == list(LABELS)
    raw = samples[series]
    assert (raw[0][0], raw[-1][0]) == (LIVE - 600.0, LIVE)
    assert {round(b[0] - a[0], 3) for a, b in pairwise(raw)} == {5.0}
    values = [value for _, value in raw]
    assert values == sorted(values)
    assert values[-1] == (drawn[0].counter if name == "queue_enqueued_total" else drawn[0].completed)


def test_what_is_not_completed_yet_came_within_the_time_of_a_job(drawn: tuple[history.History, trace.Floats]) -> None:
    told, _ = drawn
    in_hand = told.counter - told.completed
    assert in_hand == np.count_nonzero(told.recent > LIVE - 0.5)
    assert 0 < in_hand < 30


def test_the_counter_rises_by_the_jobs_of_each_minute(
    drawn: tuple[history.History, trace.Floats], samples: dict[str, list[tuple[float, float]]]
) -> None:
    told, _ = drawn
    whole = told.starts_at + 60.0 * len(told.counts)
    inside = np.count_nonzero((told.recent >= whole - 60.0) & (told.recent < whole))
    assert inside == told.counts[-1]
    assert told.counter == told.counts.sum() + np.count_nonzero(told.recent >= whole)


def test_the_live_arrivals_go_on_where_history_ends(drawn: tuple[history.History, trace.Floats]) -> None:
    told, live = drawn
    assert told.recent.max() < LIVE <= live.min()
    assert live.max() < LIVE + 420.0
