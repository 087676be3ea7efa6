"""The noise floor: what is left of the error when the rate is known."""

import math

import numpy as np
import pytest

from controllers.forecast.noise import are_counts, expected_miss, hour_noise_floor, noise_floor

RANDOM = np.random.default_rng(5)
BINS = 12 * 24 * 10  # ten days in five minutes
SMOOTH = 20 + 10 * np.sin(2 * np.pi * np.arange(BINS) / 288)


@pytest.mark.parametrize("rate", [0.05, 0.7, 3.3, 40.0, 130.0])
def test_the_expected_miss_of_a_poisson_count_is_what_simulated_counts_miss_their_median_by(rate: float) -> None:
    counts = RANDOM.poisson(rate, 200_000)
    missed = np.abs(counts - np.median(counts)).mean()
    assert expected_miss(np.array([rate]))[0] == pytest.approx(missed, rel=0.03)


def test_a_forecast_that_knows_the_rate_of_poisson_counts_just_reaches_the_floor() -> None:
    counts = RANDOM.poisson(SMOOTH).astype(float)
    wape = np.abs(counts - np.floor(SMOOTH)).sum() / counts.sum()
    assert noise_floor(counts, 300.0) == pytest.approx(wape, rel=0.06)


def test_counts_that_come_in_tens_have_a_floor_higher_by_the_root_of_ten() -> None:
    tens = 10.0 * RANDOM.poisson(SMOOTH / 10)
    plain = float(expected_miss(SMOOTH).sum() / SMOOTH.sum())
    assert noise_floor(tens, 300.0) == pytest.approx(plain * math.sqrt(10), rel=0.25)


def test_hours_have_a_lower_floor_than_their_bins_and_a_rising_demand_does_not_raise_it() -> None:
    counts = RANDOM.poisson(SMOOTH).astype(float)
    steep = RANDOM.poisson(SMOOTH * np.linspace(0.2, 1.8, BINS)).astype(float)
    of_bins, of_hours, of_steep = (
        noise_floor(counts, 300.0),
        hour_noise_floor(counts, 300.0),
        hour_noise_floor(steep, 300.0),
    )
    assert of_bins is not None
    assert of_hours is not None
    assert of_steep is not None
    assert of_hours == pytest.approx(of_bins / math.sqrt(12), rel=0.1)
    assert of_steep < 1.2 * of_hours


def test_what_changes_from_hour_to_hour_is_not_taken_for_chance() -> None:
    swinging = RANDOM.poisson(4000 + 3900 * np.sin(2 * np.pi * np.arange(480) / 24)).astype(float)
    floor = noise_floor(swinging, 3600.0)
    assert floor is not None
    assert floor < 0.02


def test_gaps_change_little() -> None:
    counts = RANDOM.poisson(SMOOTH).astype(float)
    gappy = counts.copy()
    gappy[RANDOM.random(BINS) < 0.15] = math.nan
    for floor in (noise_floor, hour_noise_floor):
        assert floor(gappy, 300.0) == pytest.approx(floor(counts, 300.0), rel=0.1)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(SMOOTH, id="a utilisation is no count"),
        pytest.param(np.zeros(500), id="nothing came"),
        pytest.param(np.full(500, 5.0), id="always the same"),
        pytest.param(np.full(500, math.nan), id="nothing is known"),
        pytest.param(np.array([3.0, 4.0]), id="two bins"),
        pytest.param(np.empty(0), id="none"),
    ],
)
def test_where_chance_cannot_be_told_there_is_no_floor(values: np.ndarray) -> None:
    assert noise_floor(values, 300.0) is None
    assert hour_noise_floor(values, 300.0) is None


def test_counts_from_a_rate_per_second_are_counts_again() -> None:
    assert are_counts(RANDOM.poisson(5.0, 100) / 60 * 60.0)
    assert not are_counts(RANDOM.random(100))
