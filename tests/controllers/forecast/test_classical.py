"""Holt-Winters, ARIMA, Fourier waves, profile times ratio, smoothing: good at their own, calm about bad histories."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.history import Bools, Floats, History, Ints
from controllers.forecast.models import (
    MODELS,
    arima,
    days,
    deviation,
    fourier,
    holt_winters,
    profile_ratio,
    smoothing,
    weekday_paths,
    weekdays,
)
from controllers.forecast.sums import hold

STEP, PER_DAY, HOUR = 300.0, 288, 12
CHEAP = ("holt_winters", "fourier", "profile_ratio", "smoothing")
CLASSICAL = (*CHEAP, "arima")
ALL = (*CLASSICAL, "day_naive", "week_naive")


@pytest.fixture(scope="module")
def history(make: SimpleNamespace) -> History:
    """Fifteen days, quieter at weekends, their level wandering from day to day."""
    minutes = np.arange(15.0 * make.DAY)
    day = np.floor(minutes / make.DAY).astype(np.int64)
    level = np.where((day + 2) % 7 >= 5, 0.6, 1.0) * (1 + 0.1 * np.sin(1.7 * day))
    found: History = make.grid(make.poisson(make.daily(minutes) * level).reshape(-1, 5).mean(axis=1), STEP)
    return found


@pytest.fixture(scope="module")
def learned(history: History) -> dict[str, object]:
    return {name: MODELS[name].fit(history.first(12 * PER_DAY), "UTC", HOUR) for name in CLASSICAL}


def error(path: Floats, history: History, origins: Ints) -> float:
    came = history.values[origins + HOUR]
    return float(np.abs(path - came).sum() / came.sum())


@pytest.mark.parametrize("name", CLASSICAL)
def test_an_hour_ahead_it_is_far_better_than_the_last_value(
    name: str, history: History, learned: dict[str, object]
) -> None:
    origins = np.arange(12 * PER_DAY, 15 * PER_DAY - HOUR, 5)
    path = MODELS[name].paths(learned[name], history, origins, HOUR)[:, -1]
    assert error(path, history, origins) < 0.5 * error(hold(history.values, origins), history, origins)


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_level_that_has_moved_is_followed_within_hours(
    name: str, history: History, learned: dict[str, object]
) -> None:
    values = history.values.copy()
    moved = 13 * PER_DAY + 100
    values[moved:] *= 2
    origins = np.array([moved + 6 * HOUR])
    path = MODELS[name].paths(learned[name], History(history.start, STEP, values, history.censored), origins, HOUR)
    came = values[origins[0] + 1 : origins[0] + 1 + HOUR]
    assert 0.75 < path.mean() / came.mean() < 1.2


def two_hours(step: float) -> Floats:
    return np.full(max(1, round(7200 / step)), 3.0)


def twelve_days(step: float) -> Floats:
    return np.asarray(10 + 6 * np.sin(2 * np.pi * np.arange(0, 12 * 86_400, step) / 86_400))


def spiked(step: float) -> Floats:
    values = twelve_days(step)
    values[len(values) // 2 :: len(values) // 3] = 1e7
    return values


def full_of_holes(step: float) -> Floats:
    values = twelve_days(step)
    values[np.random.default_rng(0).random(len(values)) < 0.6] = np.nan
    values[len(values) // 4 : len(values) // 2] = np.nan
    values[-1] = np.nan
    return values


ODD: dict[str, Callable[[float], Floats]] = {
    "two hours": two_hours,
    "one bin": lambda step: np.full(1, 3.0),
    "a constant": lambda step: np.full(round(9 * 86_400 / step), 3.0),
    "zeros": lambda step: np.zeros(round(9 * 86_400 / step)),
    "zeros, then demand": lambda step: np.append(np.zeros(round(9 * 86_400 / step)), [5.0, 5.0]),
    "spikes a million times as high": spiked,
    "full of holes": full_of_holes,
}


@pytest.mark.parametrize("step", [60.0, 300.0, 600.0, 1800.0, 3600.0])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_any_history_at_any_step_gives_finite_paths_within_bounds(odd: Callable[[float], Floats], step: float) -> None:
    values = odd(step)
    history = History(1_700_006_400.0 + step, step, values, np.zeros(len(values), dtype=np.bool_))
    steps = max(1, round(4200 / step))
    origins = np.unique([len(values) - 1, len(values) // 2, 0])
    usual = float(np.nanmax(np.minimum(values, 100.0)))
    for name in (*CHEAP, "day_naive", "week_naive"):
        path = MODELS[name].paths(MODELS[name].fit(history, "Europe/Berlin", steps), history, origins, steps)
        assert path.shape == (len(origins), steps)
        assert np.isfinite(path).all(), name
        assert path.min() >= 0
        if not name.endswith("naive"):  # which repeat a spike as any other value
            assert path.max() <= 3 * usual + 1e-9, name
        if np.nanmin(values) == np.nanmax(values):
            np.testing.assert_allclose(path[-1], values[0], rtol=0.02, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("odd", [two_hours, spiked, full_of_holes], ids=["two hours", "spikes", "full of holes"])
def test_arima_bears_odd_histories(odd: Callable[[float], Floats]) -> None:
    values = odd(1800.0)
    history = History(1_700_008_200.0, 1800.0, values, np.zeros(len(values), dtype=np.bool_))
    path = arima.paths(arima.fit(history, "Europe/Berlin", 2), history, np.array([len(values) - 1]), 2)
    assert np.isfinite(path).all()
    assert 0 <= path.min() <= path.max() <= 3 * float(np.nanmax(np.minimum(values, 100.0)))


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_daily_step_comes_at_its_local_time_after_a_clock_change(name: str, make: SimpleNamespace) -> None:
    # at 13:20 in Berlin; on 2025-10-26 the clock goes back, so in UTC it moves from 11:20 to 12:20
    start = 1_761_436_800.0 - 13 * 86_400.0
    minutes = np.arange(15.0 * make.DAY)
    change = minutes >= 13 * make.DAY + 60
    values = make.daily(minutes + np.where(change, 60, 120)).reshape(-1, 5).mean(axis=1)
    at = 14 * PER_DAY + 12 * 12  # the day after, 12:00 UTC
    history = History(start + STEP, STEP, values[:at], np.zeros(at, dtype=np.bool_))
    path = MODELS[name].paths(MODELS[name].fit(history, "Europe/Berlin", HOUR), history, np.array([at - 1]), HOUR)[0]
    assert path[-3:].mean() > 1.12 * path[:3].mean()  # 1.4 in truth; waves are slower than that
    np.testing.assert_allclose(path, values[at : at + HOUR], rtol=0.25)


def test_the_hour_that_comes_twice_shows_nothing_of_the_future() -> None:
    start, count = 1_761_436_800.0 - 86_400.0, 2 * PER_DAY  # the day before and the day of the change in Berlin
    values = np.arange(float(count))
    found = days.by_days(History(start + STEP, STEP, values, np.zeros(count, dtype=np.bool_)), "Europe/Berlin", 1e9, 0)
    flat = found.values.ravel()
    for origin in range(count):
        held = flat[: found.places[origin] + 1]
        assert np.nanmax(held) <= origin


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_the_exponential_mean_is_the_recursion_it_stands_for(share: float) -> None:
    generator = np.random.default_rng(0)
    values, known = generator.normal(size=1500), generator.random(1500) > 0.3
    known[:5], known[300:1100] = False, False
    total = weight = 0.0
    expected = []
    for value, is_known in zip(values.tolist(), known.tolist(), strict=True):
        total, weight = total * (1 - share) + value * is_known, weight * (1 - share) + is_known
        if 0 < weight < 1e-200:
            total, weight = total / weight * 1e-200, 1e-200
        expected.append(total / weight if weight else 0.0)
    np.testing.assert_allclose(days.exponential_mean(values, known, share), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["holt_winters", "profile_ratio", "smoothing", "arima"])
def test_going_on_from_the_kept_state_is_the_same_as_starting_anew(
    name: str, history: History, learned: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    origins = np.array([13 * PER_DAY + 5, 15 * PER_DAY - 1])
    short = MODELS[name].paths(learned[name], history, origins, HOUR)
    monkeypatch.setattr(weekday_paths, "since", lambda state, part, at: (part, at, None))
    np.testing.assert_allclose(MODELS[name].paths(learned[name], history, origins, HOUR), short, rtol=0.005)
    monkeypatch.undo()
    part, _, _ = weekdays.since(learned[name].state, history, origins)  # type: ignore[attr-defined]
    assert len(part.values) < 0.6 * len(history.values)


def test_bins_of_a_minute_are_forecast_from_the_newest_one(history: History) -> None:
    fine = History(history.start - 240.0, 60.0, np.repeat(history.values, 5), np.repeat(history.censored, 5))
    last = len(fine.values) - 1
    for name in CHEAP:
        model = MODELS[name]
        known = model.fit(fine, "UTC", 60)
        several = model.paths(known, fine, np.arange(last - 6, last + 1), 60)
        alone = model.paths(known, fine.first(last - 2), np.array([last - 3]), 60)
        np.testing.assert_allclose(several[3], alone[0], rtol=1e-9)
        coarse = model.paths(model.fit(history, "UTC", HOUR), history, np.array([len(history.values) - 1]), HOUR)
        np.testing.assert_allclose(several[-1].reshape(-1, 5).mean(axis=1), coarse[0], rtol=0.1)


def test_arimas_recursion_says_what_statsmodels_says() -> None:
    from statsmodels.tsa.arima.model import ARIMA

    rest = np.cumsum(np.random.default_rng(2).normal(0, 0.1, 400))
    rest[100:110] = np.nan
    coefficients = (0.3, -0.2, -0.5, 0.1)
    reference = ARIMA(rest, order=(2, 1, 2), trend="n").smooth([*coefficients, 0.01]).forecast(6)
    np.testing.assert_allclose(arima.foreseen(rest, coefficients, np.array([399]), 6)[0], reference, atol=1e-3)


@pytest.mark.parametrize(
    "failing",
    [lambda *_args, **_kwargs: 1 / 0, lambda *_args, **_kwargs: SimpleNamespace(fit=lambda **_: broken())],
    ids=["when it is built", "while it is fitted"],
)
def test_an_arima_that_cannot_be_fitted_is_exponential_smoothing(
    failing: Callable[..., object], history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statsmodels.tsa.arima.model.ARIMA", failing)
    assert arima.fit(history.last(4 * PER_DAY), "UTC", HOUR).coefficients == arima.SMOOTHING


def broken() -> object:
    raise np.linalg.LinAlgError("singular")


def test_coefficients_that_never_forget_are_drawn_in() -> None:
    first, second = arima.drawn_in(1.8, -0.81, -1.0)  # a double root at 0.9 stays
    assert (first, second) == (1.8, -0.81)
    first, second = arima.drawn_in(-0.869, -0.131, 1.0)  # a root at 1
    assert np.abs(np.roots([1.0, first, second])).max() == pytest.approx(arima.LARGEST_ROOT)


def test_forecasts_of_what_was_learned_need_no_heavy_library(history: History, learned: dict[str, object]) -> None:
    script = (
        "import pickle, sys\n"
        "from controllers.forecast.models import MODELS\n"
        "import numpy as np\n"
        "history, learned = pickle.load(sys.stdin.buffer)\n"
        "for name, known in learned.items():\n"
        "    assert np.isfinite(MODELS[name].paths(known, history, np.array([len(history.values) - 1]), 12)).all()\n"
        "heavy = {'scipy', 'statsmodels', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    given = pickle.dumps((history, learned))
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_what_the_newest_deviations_are_worth_is_learned_by_lead() -> None:
    generator = np.random.default_rng(4)
    curve = np.full(6000, 10.0)
    slow = np.exp(np.cumsum(generator.normal(0, 0.02, 6000)))  # what lasts
    noise = np.exp(generator.normal(0, 0.3, 6000))  # what does not
    none: Bools = np.zeros(6000, dtype=np.bool_)
    found = {}
    for what, values in (("lasting", curve * slow), ("fleeting", curve * noise)):
        found[what] = deviation.learn_all(values, curve, lambda rows, lead: curve[rows + lead], none, 0.1, STEP, HOUR)
    lasting, fleeting = (found[what].weights for what in ("lasting", "fleeting"))
    assert lasting[0][0] > 0.2  # of the newest five minutes, five minutes ahead
    assert 0.9 < lasting[0][:5].sum() < 1.05
    assert fleeting[0][0] < 0.1
    assert fleeting[0][:2].sum() < 0.3


def test_bounds_below_what_was_expected_teach_nothing() -> None:
    curve = np.full(4000, 10.0)
    truth = curve * np.exp(np.random.default_rng(5).normal(0, 0.05, 4000))
    cut: Bools = np.random.default_rng(6).random(4000) < 0.4
    seen = np.where(cut, 4.0, truth)
    rows = np.arange(500, 3900)
    recent = deviation.deviations(truth, curve, 0.1, STEP, rows)
    came, level, age = np.log(seen[rows + 1] / 10.0), np.full(len(rows), 10.0), np.zeros(len(rows))
    constant = deviation.learn(recent, came, level, age, cut[rows + 1])[-1]
    naive = deviation.learn(recent, came, level, age, np.zeros(len(rows), dtype=np.bool_))[-1]
    assert abs(constant) < 0.05
    assert naive < -0.05


def test_what_was_learned_is_small_enough_to_travel(learned: dict[str, object]) -> None:
    for name, known in learned.items():
        assert len(pickle.dumps(known)) < 100_000, name
    assert isinstance(learned["fourier"], fourier.Learned)
    assert replace(learned["fourier"], phases=()).curve.shape == (7, PER_DAY)
    assert isinstance(learned["holt_winters"], holt_winters.Learned)
    assert isinstance(learned["profile_ratio"], profile_ratio.Learned)


def test_the_factor_is_the_one_that_makes_absolute_errors_least() -> None:
    draw = np.random.default_rng(3)
    said = draw.uniform(0.5, 3.0, 400)
    came = draw.poisson(said).astype(np.float64)
    tried = np.linspace(0.5, 1.2, 141)
    errors = [np.abs(factor * said - came).sum() for factor in tried]
    assert smoothing.scale(said, came) == pytest.approx(tried[int(np.argmin(errors))], abs=0.006)
    assert smoothing.scale(np.zeros(3), came[:3]) == 1.0


def test_demand_of_few_pieces_is_where_smoothing_is_best(make: SimpleNamespace) -> None:
    hours = np.arange(20 * PER_DAY) / HOUR
    rates = 0.8 + 0.6 * np.sin(2 * np.pi * hours / 24)
    counts = np.random.default_rng(5).poisson(rates).astype(np.float64)
    sparse = make.grid(counts / STEP, STEP)
    origins = np.arange(15 * PER_DAY, 20 * PER_DAY - HOUR, 7)
    errors = {}
    for name in ("smoothing", "holt_winters", "last_value"):
        value = MODELS[name].fit(sparse.first(15 * PER_DAY), "UTC", HOUR)
        errors[name] = error(MODELS[name].paths(value, sparse, origins, HOUR)[:, -1], sparse, origins)
    assert errors["smoothing"] < errors["holt_winters"]
    assert errors["smoothing"] < 0.85 * errors["last_value"]
