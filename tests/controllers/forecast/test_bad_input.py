"""Whatever the past looks like: a forecast within bounds, or a refusal with a reason. Never anything else."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controllers.forecast.almanac import Calendar, Event, Floor
from controllers.forecast.history import Floats, History, Refusal, Why, regular, usable
from controllers.forecast.predict import MAX_RISE, Outlook, outlook
from controllers.forecast.selection import select

NOW = 1_700_006_400.0
STEP = 600.0
DAY = 144
HORIZONS = [900, 3600]
QUANTILES = [0.1, 0.9, 0.98]
RISE = MAX_RISE * (1 + 1e-9)  # of the largest demand that was seen
NAN = math.nan


def of(values: Floats, end: float = NOW) -> History:
    values = np.asarray(values, dtype=np.float64)
    return History(end - STEP * (len(values) - 1), STEP, values, np.zeros(len(values), dtype=np.bool_))


def made(history: History, calendar: Calendar, now: float = NOW, heavy: bool = False) -> Outlook:
    """As the process does it. Raises Refusal."""
    fitted = select(history.until(now), calendar, HORIZONS, heavy=heavy)
    return outlook(history, calendar, fitted, now, quantiles=QUANTILES, valid_seconds=900)


def numbers(said: Outlook) -> tuple[list[float], list[float]]:
    """Demands per second, and items by horizon divided by its length."""
    rates, items = [value for _, value, _ in said.path], []
    rates += [value for _, _, band in said.path for value in band.values()]
    for horizon in said.forecast.horizons:
        rates += [horizon.value, *horizon.quantiles.values(), *horizon.peak.values()]
        items += [count / horizon.seconds for count in horizon.arrivals.values()]
    return rates, items


def assert_within_bounds(said: Outlook, history: History, lowest: float = 0.0) -> None:
    """Finite, not negative, at most MAX_RISE times what was seen (or a floor that is configured)."""
    rates, items = numbers(said)
    known = usable(history.values)
    limit = RISE * max(float(np.nanmax(known)), lowest)
    for found in (rates, items):
        assert np.isfinite(found).all(), found
        assert min(found) >= 0
        assert max(found) <= limit
    assert said.forecast.valid_until > said.forecast.made_at


def wave(days: float = 3.0) -> Floats:
    shape: Floats = 10 - 6 * np.cos(2 * np.pi * np.arange(round(days * DAY)) / DAY)
    return shape


def spoilt(change: Callable[[Floats], None], days: float = 3.0) -> Floats:
    values = wave(days)
    change(values)
    return values


def put(place: object, value: float) -> Callable[[Floats], None]:
    def change(values: Floats) -> None:
        values[place] = value  # type: ignore[index]

    return change


GOOD = {
    "one point": np.array([5.0]),
    "two points": np.array([5.0, 6.0]),
    "constant": np.full(3 * DAY, 7.0),
    "all zero": np.zeros(3 * DAY),
    "zero until just now": np.append(np.zeros(3 * DAY), 4.0),
    "one known bin in three days of gap": spoilt(put(slice(0, -1), NAN)),
    "every other bin missing": spoilt(put(slice(None, None, 2), NAN)),
    "a day missing": spoilt(put(slice(DAY, 2 * DAY), NAN)),
    "not a number and infinite": spoilt(lambda v: (put(50, math.inf)(v), put(60, -math.inf)(v), put(70, NAN)(v))[0]),
    "negative": spoilt(put(slice(0, 40), -3.0)),
    "1e300": spoilt(put(200, 1e300)),
    "the smallest number there is": spoilt(put(slice(0, 300), 5e-324)),
    "all of it tiny": 1e-8 * wave(),
    "all of it huge": 1e10 * wave(),
    "a spike of a million times": spoilt(put(300, 1e7)),
    "a spike of a million times just now": spoilt(put(-1, 1e7)),
    "ten spikes": spoilt(put(slice(10, 310, 30), 1e7)),
    "from nothing to a thousand": np.append(np.zeros(2 * DAY), np.full(DAY, 1000.0)),
    "from a thousand to nothing": np.append(np.full(2 * DAY, 1000.0), np.zeros(DAY)),
    "growth that doubles every hour": np.minimum(2.0 ** (np.arange(3 * DAY) / 6), 1e11),
    "two values in turn": np.tile([0.0, 100.0], 200),
}


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_a_forecast_within_bounds(values: Floats) -> None:
    history = of(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        said = made(history, Calendar("Asia/Seoul"))
    assert_within_bounds(said, history)


def test_one_wild_sample_does_not_move_the_forecast() -> None:
    plain = numbers(made(of(wave()), Calendar()))[0]
    for place in (100, 300, -1):
        spiked = numbers(made(of(spoilt(put(place, 1e7))), Calendar()))[0]
        assert max(spiked) < 20 * max(plain)


REFUSED = {
    "nothing": (np.empty(0), NOW, Why.NO_SAMPLES),
    "all missing": (np.full(DAY, NAN), NOW, Why.NO_SAMPLES),
    "all unusable": (np.array([-1.0, math.inf, 1e300]), NOW, Why.NO_SAMPLES),
    "a history from the future": (wave(), NOW - 40 * 86_400, Why.FROM_THE_FUTURE),
    "now far ahead": (wave(), NOW + 400 * 86_400, Why.STALE),
    "now without end": (wave(), math.inf, Why.STALE),
    "now is not a number": (wave(), NAN, Why.FROM_THE_FUTURE),
}


@pytest.mark.parametrize(("values", "now", "why"), REFUSED.values(), ids=REFUSED)
def test_a_refusal(values: Floats, now: float, why: Why) -> None:
    with pytest.raises(Refusal) as refused:
        made(of(values), Calendar(), now)
    assert refused.value.why is why


def test_duplicates_and_disorder_change_nothing() -> None:
    values = wave()
    times = NOW - STEP * np.arange(len(values) - 1, -1, -1)
    order = np.random.default_rng(1).permutation(len(values))
    pairs = list(zip(times, values, strict=True))
    tidy = regular(pairs, step_seconds=STEP, now=NOW)
    wild = regular([pairs[i] for i in [*order, *order[:100]]], step_seconds=STEP, now=NOW)
    assert numbers(made(wild, Calendar())) == numbers(made(tidy, Calendar()))


CALENDAR = Calendar(
    "Europe/Berlin",
    holidays={int(NOW // 86_400) - 1: "yesterday", int(NOW // 86_400): "today"},
    events=tuple(Event("x", NOW + hours * 3600, NOW + hours * 3600 + 5400) for hours in (-50, -30, -3, 0.25, 20)),
    floors=(Floor(NOW, NOW + 3600, 2.0),),
)
ANYTHING = st.one_of(
    st.floats(0, 1e3),
    st.sampled_from([0.0, NAN, math.inf, -math.inf, -1.0, 1e300, 1e12, 1e-300, 1e7]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    base=st.sampled_from([wave(0.1), wave(1.2), wave(3.0), np.zeros(DAY), np.full(2 * DAY, 3.0)]),
    changes=st.lists(st.tuples(st.integers(0, 3 * DAY), st.integers(1, 60), ANYTHING), max_size=8),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    known=st.booleans(),
    late=st.floats(-3600, 7200),
)
def test_any_past_gives_a_forecast_within_bounds_or_a_refusal(
    base: Floats, changes: list[tuple[int, int, float]], scale: float, known: bool, late: float
) -> None:
    values = scale * base
    for begin, length, value in changes:
        values[begin : begin + length] = value
    history = of(values)
    try:
        said = made(history, CALENDAR if known else Calendar(), NOW + late)
    except Refusal:
        return
    assert_within_bounds(said, history.until(NOW + late), 2.0 if known else 0.0)


def test_heavy_models_keep_within_bounds_too() -> None:
    history = of(spoilt(lambda values: (put(slice(DAY, 2 * DAY), NAN)(values), put(-1, 1e7)(values))[0]))
    assert_within_bounds(made(history, Calendar(), heavy=True), history)
