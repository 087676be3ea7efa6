"""The hour ahead: where the jump comes, bands that hold, a gate that closes, and nothing wild for any input."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.domain import Forecast
from controllers.forecast.almanac import Calendar
from controllers.forecast.history import Floats, History, Ints, Refusal, Why
from controllers.forecast.models import MODELS, Model, last_value
from controllers.forecast.predict import Gate, Outlook, forecast, outlook
from controllers.forecast.selection import Fitted, Stage, select

HORIZONS = (120, 300, 900, 1800, 3600)
QUANTILES = (0.1, 0.9, 0.98)
DAY = 1440


def at(history: History, fitted: Fitted, count: int, seconds: float = 20.0) -> Forecast:
    """The forecast made `seconds` after the bin number `count` had ended."""
    known = history.first(count)
    return forecast(known, Calendar(), fitted, known.end + seconds, quantiles=QUANTILES, valid_seconds=900.0)


@pytest.fixture(scope="module")
def fitted(fortnight: History) -> Fitted:
    """Learned from 14 of the 15 days."""
    return select(fortnight.first(14 * DAY), Calendar(), HORIZONS, heavy=False)


def test_the_model_is_chosen_by_backtest(fitted: Fitted) -> None:
    assert fitted.model == "cheap_ensemble"
    assert fitted.stage is Stage.CHEAP  # the heavy ones had no turn
    assert fitted.wape["cheap_ensemble"] < min(fitted.wape[name] for name in ("last_value", "day_naive", "week_naive"))


def test_a_toy_model_is_one_line_and_is_chosen_when_it_is_best(fortnight: History, make: SimpleNamespace) -> None:
    def told(learned: None, history: History, origins: Ints, steps: int) -> Floats:
        rates: Floats = make.daily((origins[:, None] + 1 + np.arange(1, steps + 1)).astype(float))
        return rates

    toy = Model(last_value.fit, told, 0.0)
    found = select(fortnight.first(4 * DAY), Calendar(), (300,), {**MODELS, "oracle": toy}, heavy=False)
    assert found.model == "oracle"


def test_value_is_the_level_at_made_at_plus_horizon(fortnight: History, fitted: Fitted, make: SimpleNamespace) -> None:
    for count in (14 * DAY + 300, 14 * DAY + 500):
        made = at(fortnight, fitted, count)
        for horizon in made.horizons:
            # the bin that ends at made_at + horizon has its middle half a minute earlier
            due = make.daily(np.array([(made.made_at + horizon.seconds - make.MIDNIGHT) / 60 - 0.5]))[0]
            assert horizon.value == pytest.approx(due, rel=0.06)


@pytest.mark.parametrize("minutes_before", [1, 2, 3, 5, 8, 10])
def test_the_daily_jump_is_foreseen_to_the_minute(
    minutes_before: int, fortnight: History, fitted: Fitted, make: SimpleNamespace
) -> None:
    made = outlook(
        fortnight.first(14 * DAY + 800 - minutes_before),
        Calendar(),
        fitted,
        fortnight.first(14 * DAY + 800 - minutes_before).end + 5,
        quantiles=QUANTILES,
        valid_seconds=900,
    )
    path = np.array([value for _, value, _ in made.path])[: minutes_before + 8]
    minutes = np.array([(when - make.MIDNIGHT) / 60 for when, _, _ in made.path])[: minutes_before + 8]
    truth = (make.daily(minutes) + make.daily(minutes - 1)) / 2
    np.testing.assert_allclose(path, truth, rtol=0.12)  # members that smooth over minutes have a say, too
    before, after = path[minutes <= 14 * DAY + 800], path[minutes >= 14 * DAY + 806]
    assert after.mean() > 1.2 * before.mean()
    assert made.gate is Gate.OPEN


def test_bands_hold_on_a_day_that_was_not_learned_from(fortnight: History, fitted: Fitted) -> None:
    below: dict[tuple[str, float], list[bool]] = {}
    for count in range(14 * DAY + 3, 15 * DAY - 62, 11):
        for horizon in at(fortnight, fitted, count, seconds=0.0).horizons:
            due = count + horizon.seconds // 60
            window = fortnight.values[count:due]
            for kind, band, came in (
                ("value", horizon.quantiles, fortnight.values[due - 1]),
                ("peak", horizon.peak, window.max()),
                ("arrivals", horizon.arrivals, 60 * window.sum()),
            ):
                for q, value in band.items():
                    below.setdefault((kind, q), []).append(came <= value)
    for (kind, q), hits in below.items():
        assert np.mean(hits) == pytest.approx(q, abs=0.03 if q == 0.98 else 0.12 if q == 0.5 else 0.07), (kind, q)


def test_forecasts_are_pure(fortnight: History, fitted: Fitted) -> None:
    assert at(fortnight, fitted, 14 * DAY + 700) == at(fortnight, fitted, 14 * DAY + 700)


def test_numbers_are_ordered(fortnight: History, fitted: Fitted) -> None:
    made = at(fortnight, fitted, 14 * DAY + 790)
    assert [horizon.seconds for horizon in made.horizons] == list(HORIZONS)
    for horizon in made.horizons:
        for band in (horizon.quantiles, horizon.peak, horizon.arrivals):
            assert list(band.values()) == sorted(band.values())
        assert set(horizon.arrivals) == {*QUANTILES, 0.5}
    for q in QUANTILES:
        assert [h.peak[q] for h in made.horizons] == sorted(h.peak[q] for h in made.horizons)
        assert [h.arrivals[q] for h in made.horizons] == sorted(h.arrivals[q] for h in made.horizons)


REGIMES: dict[str, Callable[[Floats], Floats]] = {
    "demand is three times what it was": lambda rates: 3 * rates,
    "the daily shape is gone": lambda rates: np.full_like(rates, 10.0),
    "the day comes six hours later": lambda rates: np.roll(rates, 360),
    "it comes in bursts of 37 minutes": lambda rates: 10 + 15 * (np.arange(len(rates)) // 37 % 2).astype(float),
}


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_the_gate_closes_within_half_an_hour_of_a_change(
    regime: Callable[[Floats], Floats], fortnight: History, fitted: Fitted, make: SimpleNamespace
) -> None:
    rates = make.daily(np.arange(15.0 * DAY))
    change = 14 * DAY + 600
    values = fortnight.values.copy()
    values[change:] = make.poisson(regime(rates)[change:], seed=9)
    changed = replace(fortnight, values=values)
    gates = {}
    was: bool | None = None
    for minutes in range(-60, 31, 5):
        known = changed.first(change + minutes)
        made = outlook(known, Calendar(), fitted, known.end, quantiles=QUANTILES, valid_seconds=900, gate_was_open=was)
        gates[minutes], was = made.gate, made.forecast.gate_open
    assert all(gate is Gate.OPEN for minutes, gate in gates.items() if minutes <= 0)
    assert gates[30] is Gate.DEGRADED


def test_the_gate_opens_again_once_a_change_has_been_learned(make: SimpleNamespace) -> None:
    rates = make.daily(np.arange(16.0 * DAY))
    rates[8 * DAY :] = 3 * rates[8 * DAY :]
    history = make.grid(make.poisson(rates))
    fitted = select(history, Calendar(), HORIZONS, heavy=False)
    made = outlook(
        history, Calendar(), fitted, history.end, quantiles=QUANTILES, valid_seconds=900, gate_was_open=False
    )
    assert made.gate is Gate.OPEN


STAGES = {
    "ten minutes": (10 / DAY, Stage.LAST_VALUE, "last_value"),
    "five hours": (5 / 24, Stage.LAST_VALUE, "last_value"),
    "three quarters of a day": (0.75, Stage.CHEAP, None),
    "a day and a half": (1.5, Stage.CHEAP, None),
    "three days": (3.0, Stage.CHEAP, None),
}


@pytest.mark.parametrize(("days", "stage", "model"), STAGES.values(), ids=STAGES)
def test_cold_start(days: float, stage: Stage, model: str | None, fortnight: History) -> None:
    young = fortnight.first(round(days * DAY))
    found = select(young, Calendar(), HORIZONS, heavy=False)
    assert found.stage is stage
    assert model in (found.model, None)
    made = outlook(young, Calendar(), found, young.end, quantiles=QUANTILES, valid_seconds=900)
    assert made.forecast.gate_open is (stage is Stage.CHEAP)
    value = made.forecast.horizons[0].value
    assert value == pytest.approx(young.values[-1], rel=0.5)
    assert made.forecast.horizons[0].quantiles[0.98] > value


def _spike(values: Floats) -> Floats:
    spiked = values.copy()
    spiked[-40] = spiked[-3] = 1e6 * values.max()
    return spiked


BAD: dict[str, Callable[[Floats], Floats]] = {
    "a constant": lambda v: np.full_like(v, 7.0),
    "all zero": np.zeros_like,
    "one point": lambda v: np.where(np.arange(len(v)) == len(v) - 1, 5.0, np.nan),
    "zero but for one day": lambda v: np.where(np.arange(len(v)) // DAY == 1, v, 0.0),
    "every second sample missing": lambda v: np.where(np.arange(len(v)) % 2, v, np.nan),
    "spikes of a million times, one of them just now": _spike,
    "a jump from zero to demand a minute ago": lambda v: np.where(np.arange(len(v)) >= len(v) - 1, 5.0, 0.0),
    "enormous": lambda v: 1e5 * v,
    "tiny": lambda v: 1e-9 * v,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("days", [0.1, 3.0])
def test_any_history_gives_bounded_numbers(bad: Callable[[Floats], Floats], days: float, fortnight: History) -> None:
    plain = fortnight.first(round(days * DAY))
    history = replace(plain, values=bad(plain.values))
    made = at(history, select(history, Calendar(), HORIZONS, heavy=False), len(history.values), 0.0)
    honest = history.values[history.values < 1e6 * plain.values.max()]  # NaN and the spikes left out
    limit = 15 * float(honest.max())
    for horizon in made.horizons:
        for value in (horizon.value, *horizon.quantiles.values(), *horizon.peak.values()):
            assert np.isfinite(value)
            assert 0 <= value <= limit + 1e-9
        assert all(np.isfinite(items) and items >= 0 for items in horizon.arrivals.values())


def test_nothing_known_and_nothing_new_are_refused(fortnight: History, fitted: Fitted) -> None:
    empty = replace(fortnight, values=np.full(len(fortnight.values), np.nan))
    for history, now, why in (
        (empty, fortnight.end, Why.NO_SAMPLES),
        (fortnight, fortnight.end + 1200, Why.STALE),
        (fortnight, fortnight.start - 9000, Why.FROM_THE_FUTURE),
    ):
        with pytest.raises(Refusal) as refused:
            forecast(history, Calendar(), fitted, now, quantiles=QUANTILES, valid_seconds=900)
        assert refused.value.why is why


def test_models_that_give_no_numbers_have_no_say_and_without_any_there_is_no_forecast(
    fortnight: History, fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_numbers(learned: object, history: History, origins: Ints, steps: int) -> Floats:
        return np.full((len(origins), steps), np.nan)

    def said() -> Outlook:
        return outlook(fortnight, Calendar(), fitted, fortnight.end, quantiles=QUANTILES, valid_seconds=900)

    members = list(fitted.learned.learned)
    monkeypatch.setitem(MODELS, members[-1], replace(MODELS[members[-1]], paths=no_numbers))
    made = said()
    assert made.gate is Gate.OPEN
    assert np.isfinite([value for _, value, _ in made.path]).all()
    for name in members:
        monkeypatch.setitem(MODELS, name, replace(MODELS[name], paths=no_numbers))
    with pytest.raises(Refusal) as refused:
        said()
    assert refused.value.why is Why.FAILED


def test_censored_demand_is_a_lower_bound(fortnight: History) -> None:
    capped = np.minimum(fortnight.values, 12.0)
    cut = fortnight.values > 12.0
    history, blind = (replace(fortnight, values=capped, censored=marks) for marks in (cut, np.zeros_like(cut)))
    count = 14 * DAY + 780  # demand is 15 a second, 12 of them seen
    told, untold = (
        at(h, select(h.first(14 * DAY), Calendar(), HORIZONS, heavy=False), count).horizons[1].value
        for h in (history, blind)
    )
    assert told > untold
    assert untold == pytest.approx(12.0, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.none() | st.floats(0, 1e9), min_size=1, max_size=200).filter(lambda v: any(x is not None for x in v)),
    st.floats(0, 500),
)
def test_any_numbers_at_all_give_an_ordered_bounded_forecast_or_a_refusal(
    found: list[float | None], seconds: float
) -> None:
    values = np.array([np.nan if value is None else value for value in found])
    history = History(1_700_000_000.0, 60.0, values, np.zeros(len(values), dtype=np.bool_))
    fitted = select(history.until(history.end), Calendar("Asia/Seoul"), (120, 900), heavy=False)
    newest = history.until(history.end).end
    if history.end + seconds - newest > 600:
        with pytest.raises(Refusal):
            forecast(history, Calendar(), fitted, history.end + seconds, quantiles=QUANTILES, valid_seconds=60)
        return
    made = forecast(history, Calendar(), fitted, history.end + seconds, quantiles=QUANTILES, valid_seconds=60)
    for horizon in made.horizons:
        band = [horizon.quantiles[q] for q in QUANTILES]
        assert band == sorted(band)
        assert band[0] >= 0
        assert band[-1] <= 3 * np.nanmax(values)
        assert 0 <= horizon.value <= 3 * np.nanmax(values)


@pytest.mark.parametrize("step_seconds", [60.0, 300.0, 1800.0, 3600.0])
def test_any_resolution_will_do(step_seconds: float, make: SimpleNamespace) -> None:
    days = 12 if step_seconds > 60 else 4
    minutes = make.poisson(make.daily(np.arange(days * DAY + 0.0)))
    history = make.grid(minutes.reshape(-1, round(step_seconds / 60)).mean(axis=1), step_seconds)
    made = at(history, select(history, Calendar(), HORIZONS, heavy=False), len(history.values), 0.0)
    assert made.horizons[-1].value == pytest.approx(make.daily(np.array([60.0]))[0], rel=0.25)
