"""Periods that no calendar knows are found where they are, and nowhere else."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.history import Floats, History
from controllers.forecast.models import fourier
from controllers.forecast.seasons import phase_factors, steady_periods, with_phases, without

STEP, COUNT = 300.0, 20 * 288
TIMES: Floats = 1_700_006_400.0 + STEP * np.arange(1, COUNT + 1).astype(np.float64)
DAY = TIMES % 86_400.0


def history(values: Floats, step: float = STEP) -> History:
    return History(1_700_006_400.0 + step, step, values, np.zeros(len(values), dtype=np.bool_))


def wave(times: Floats) -> Floats:
    return np.asarray(10 + 6 * np.sin(2 * np.pi * times / 86_400.0))


def noisy(rates: Floats, seed: int = 0) -> Floats:
    counts: Floats = np.random.default_rng(seed).poisson(10 * rates) / 10
    return counts


def job(times: Floats, period: float, seconds: float = 300.0, size: float = 8.0) -> Floats:
    return np.where(times % period < seconds, size, 0.0)


@pytest.mark.parametrize("period", [1200.0, 2700.0, 3600.0, 5400.0, 7 * 3600.0])
def test_jobs_at_a_steady_period_are_found(period: float) -> None:
    values = noisy(wave(TIMES) + job(TIMES, period, max(300.0, period / 12)))
    assert steady_periods(history(values)) == (period,)


def test_two_jobs_are_told_apart_and_gaps_do_not_hide_them() -> None:
    values = noisy(wave(TIMES) + job(TIMES, 1200.0) + job(TIMES, 5400.0, 900.0))
    values[np.random.default_rng(1).random(COUNT) < 0.2] = np.nan
    values[2000:2500] = np.nan
    assert steady_periods(history(values)) == (5400.0, 1200.0)


@pytest.mark.parametrize("step", [60.0, 600.0, 1800.0, 3600.0])
def test_other_steps_show_what_they_can(step: float) -> None:
    times: Floats = np.arange(1, 20 * 86_400 / step + 1).astype(np.float64) * step + 1_700_006_400.0
    period = 420.0 if step == 60 else 7 * 3600.0
    job_seconds = max(step, 120.0)
    assert steady_periods(history(noisy(wave(times) + job(times, period, job_seconds), 3), step)) == (period,)


def walk(seed: int) -> Floats:
    return np.asarray(np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.05, COUNT))))


CHANCE: dict[str, Callable[[int], Floats]] = {
    "counts": lambda seed: noisy(np.full(COUNT, 2.0), seed),
    "few counts": lambda seed: noisy(np.full(COUNT, 0.005), seed),
    "a random walk": walk,
    "a day's wave": lambda seed: noisy(wave(TIMES), seed),
    "a spike every day": lambda seed: noisy(wave(TIMES) * (1 + 9 * (DAY == 10_800)), seed),
    "three spikes every day": lambda seed: noisy(wave(TIMES) * (1 + 9 * np.isin(DAY, (10_800, 30_000, 70_200))), seed),
    "quiet weekends": lambda seed: noisy(wave(TIMES) * np.where(TIMES // 86_400 % 7 < 5, 1.0, 0.2), seed),
    "jobs that have stopped": lambda seed: noisy(
        wave(TIMES) + job(TIMES, 1200.0) * (np.arange(COUNT) < COUNT // 2), seed
    ),
}


@pytest.mark.parametrize("chance", CHANCE.values(), ids=CHANCE)
def test_nothing_is_found_in(chance: Callable[[int], Floats]) -> None:
    assert [steady_periods(history(chance(seed))) for seed in range(12)] == [()] * 12


@pytest.mark.parametrize(
    "values",
    [np.full(COUNT, 5.0), np.zeros(COUNT), np.full(COUNT, np.nan), np.ones(24), np.append(np.zeros(COUNT), 1e12)],
    ids=["a constant", "zeros", "nothing known", "two hours", "one spike"],
)
def test_nothing_to_learn_from_is_no_error(values: Floats) -> None:
    assert steady_periods(history(values)) == ()


def test_what_phases_add_is_taken_out_and_put_back() -> None:
    seen = history(noisy(wave(TIMES) + job(TIMES, 1200.0, size=20.0)))
    phases = phase_factors(seen)
    flat = without(seen, phases, 0.5)
    residual = [np.abs(np.diff(values - wave(TIMES))).mean() for values in (seen.values, flat.values)]
    assert residual[1] < 0.4 * residual[0]
    at = np.array([COUNT - 13])
    path = flat.values[None, at[0] + 1 :]
    np.testing.assert_allclose(with_phases(path, seen, at, phases, 0.5)[0], seen.values[at[0] + 1 :], rtol=1e-9)


def test_jobs_of_a_fixed_size_are_added_and_busier_minutes_multiply() -> None:
    every = job(TIMES, 1200.0, size=10.0)
    (fixed,) = phase_factors(history(noisy(wave(TIMES) + every)))
    assert fixed.adds
    assert np.ptp(fixed.shape) == pytest.approx(10.0, rel=0.05)
    (times,) = phase_factors(history(noisy(wave(TIMES) * (1 + every / 10))))
    assert not times.adds
    assert np.ptp(times.shape) == pytest.approx(np.log(2), rel=0.05)


def test_fourier_foresees_jobs_that_the_day_does_not_explain(make: SimpleNamespace) -> None:
    period = 7 * 3600.0
    truth = wave(TIMES) + job(TIMES, period, 1800.0, 20.0)
    seen = history(noisy(truth))
    learned = fourier.fit(seen.first(COUNT - 288), "UTC", 12)
    origins = np.arange(COUNT - 288, COUNT - 12)
    path = fourier.paths(learned, seen, origins, 12)[:, -1]
    came = truth[origins + 12]
    busy = came > wave(TIMES)[origins + 12] + 1
    assert busy.any()
    assert path[busy].mean() > 0.85 * came[busy].mean()
    assert path[~busy].mean() < 1.15 * came[~busy].mean()
