"""From samples to a grid: what counts, what is missing, what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.forecast.history import ABSURD_PER_SECOND, History, Refusal, Why, regular, utc_offsets

NOW = 1_000_020.0  # a whole minute
NAN = math.nan

GRIDS = {
    "samples on the minute are bins of their own": ([(NOW - 60, 1), (NOW, 2)], [1, 2]),
    "the order does not matter": ([(NOW, 2), (NOW - 60, 1)], [1, 2]),
    "a gap is unknown, not zero": ([(NOW - 120, 1), (NOW, 2)], [1, NAN, 2]),
    "a sample belongs to the bin it falls into": ([(NOW - 61, 1), (NOW - 1, 2)], [1, 2]),
    "several in one bin are averaged": ([(NOW - 30, 1), (NOW, 3)], [2]),
    "the same time twice counts as two": ([(NOW, 1), (NOW, 3)], [2]),
    "a negative demand is no demand": ([(NOW - 60, 1), (NOW, -1)], [1]),
    "NaN and infinities are missing": ([(NOW - 120, 1), (NOW - 60, NAN), (NOW, math.inf)], [1]),
    "1e300 items a second are a broken sensor": ([(NOW - 60, 1), (NOW, 1e300)], [1]),
    "a sample from the future is left out": ([(NOW, 1), (NOW + 3600, 9)], [1]),
    "half a second of clock skew is forgiven": ([(NOW, 1), (NOW + 0.5, 9)], [1, 9]),
    "older than the days asked for is left out": ([(NOW - 3 * 86_400, 9), (NOW, 1)], [1]),
    "zero is a value": ([(NOW - 60, 0), (NOW, 0)], [0, 0]),
    "an item in a million years is none": ([(NOW - 60, 1e-300), (NOW, 1)], [0, 1]),
    "a time that is none": ([(NAN, 5), (math.inf, 6), (NOW, 1)], [1]),
    "one point": ([(NOW, 7)], [7]),
}


@pytest.mark.parametrize(("samples", "values"), GRIDS.values(), ids=GRIDS)
def test_grid(samples: list[tuple[float, float]], values: list[float]) -> None:
    found = regular(samples, now=NOW, days=2)
    np.testing.assert_array_equal(found.values, values)
    assert found.end <= NOW + 60


REFUSALS = {
    "no sample": ([], Why.NO_SAMPLES),
    "only unusable ones": ([(NOW, NAN), (NOW - 60, -5), (NAN, 1)], Why.NO_SAMPLES),
    "all from the future": ([(NOW + 600, 1), (NOW + 660, 2)], Why.FROM_THE_FUTURE),
    "all too old": ([(NOW - 40 * 86_400, 1)], Why.STALE),
}


@pytest.mark.parametrize(("samples", "why"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(samples: list[tuple[float, float]], why: Why) -> None:
    with pytest.raises(Refusal) as refused:
        regular(samples, now=NOW)
    assert refused.value.why is why


def test_censored_bins_are_marked() -> None:
    found = regular([(NOW - 120, 1), (NOW - 60, 2), (NOW, 3)], censored_at=[NOW - 70, NOW + 9000], now=NOW)
    assert found.censored.tolist() == [False, True, False]


def test_until_now_leaves_out_what_had_not_ended() -> None:
    found = regular([(NOW - 120, 1), (NOW - 60, 2), (NOW, 3)], now=NOW)
    assert found.until(NOW - 30).values.tolist() == [1, 2]
    with pytest.raises(Refusal) as refused:
        found.until(NOW - 9000)
    assert refused.value.why is Why.FROM_THE_FUTURE


UNTIL = {
    "as it is": ([1.0, 2.0, 3.0], NOW, [1, 2, 3]),
    "gaps at the end are left out, others stay": ([1.0, NAN, 3.0, NAN], NOW, [1, NAN, 3]),
    "what no sensor measures is unknown": ([1.0, -1.0, math.inf, -math.inf, 1e300, 2.0], NOW, [1, *[NAN] * 4, 2]),
    "now is far ahead": ([1.0, 2.0], 1e300, [1, 2]),
    "now has no end": ([1.0, 2.0], math.inf, [1, 2]),
}


@pytest.mark.parametrize(("values", "now", "kept"), UNTIL.values(), ids=UNTIL)
def test_until(values: list[float], now: float, kept: list[float]) -> None:
    history = History(NOW - 60 * (len(values) - 1), 60.0, np.array(values), np.zeros(len(values), dtype=np.bool_))
    np.testing.assert_array_equal(history.until(now).values, kept)


UNTIL_REFUSALS = {
    "no bin": ([], NOW, Why.NO_SAMPLES),
    "all missing": ([NAN, NAN], NOW, Why.NO_SAMPLES),
    "nothing usable": ([-1.0, math.inf], NOW, Why.NO_SAMPLES),
    "all from the future": ([1.0, 2.0], NOW - 9000, Why.FROM_THE_FUTURE),
    "no time at all": ([1.0, 2.0], NAN, Why.FROM_THE_FUTURE),
}


@pytest.mark.parametrize(("values", "now", "why"), UNTIL_REFUSALS.values(), ids=UNTIL_REFUSALS)
def test_until_refuses(values: list[float], now: float, why: Why) -> None:
    history = History(NOW, 60.0, np.array(values), np.zeros(len(values), dtype=np.bool_))
    with pytest.raises(Refusal) as refused:
        history.until(now)
    assert refused.value.why is why


def test_a_history_without_faults_is_not_copied() -> None:
    history = History(NOW, 60.0, np.array([1.0, NAN, 0.0, 3.0]), np.zeros(4, dtype=np.bool_))
    assert np.shares_memory(history.until(NOW + 9000).values, history.values)


def test_a_clock_change_moves_local_time_by_an_hour() -> None:
    # Berlin left summer time on 2025-10-26 at 01:00 UTC
    start = 1_761_436_800.0  # 2025-10-26 00:00 UTC
    offsets = utc_offsets(start, 60.0, 180, "Europe/Berlin")
    assert (offsets[:60] == 120).all()
    assert (offsets[60:] == 60).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(NOW - 5000, NOW + 5000) | st.just(math.nan),
            st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=30,
    )
)
def test_any_samples_give_a_sane_grid_or_a_refusal(samples: list[tuple[float, float]]) -> None:
    try:
        found = regular(samples, now=NOW)
    except Refusal:
        return
    known = found.values[np.isfinite(found.values)]
    assert isinstance(found, History)
    assert len(known) > 0
    assert known.min() >= 0
    assert known.max() <= ABSURD_PER_SECOND
    assert found.end <= NOW + 60
