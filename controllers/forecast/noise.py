"""How exact could any forecast be? The error that is left when the rate is known and only chance is not.

Counts scatter around their rate. With λ the centred mean of an hour (of three bins where a bin is an hour), a Poisson
count has an expected absolute distance from its median; summed over the bins and divided by all that was counted, this
is the least WAPE that a forecast of the rate can have. Where counts come in bursts it grows by the root of the
dispersion d = median((x_t - x_{t-1})² / 2λ_t) / 0.455 (the median of χ² with one degree of freedom). It is a lower
bound under a rate that is smooth over the hour; a series that bursts within it is harder than this says.
"""

import functools
import math

import numpy as np

from controllers.forecast.history import Floats

HOUR_SECONDS = 3600.0
CHI_SQUARE_MEDIAN = 0.455
MOST_TABLED = 100.0  # λ beyond which a normal distribution is as good
WHOLE = 0.95  # share of whole numbers among the known values of a series of counts
MIN_BINS = 12
LEAST_DISPERSION = 0.5  # mean squared change relative to Poisson counts'; below, chance is not what moves them
BURST_SECONDS = 900.0  # from one coarser bin to the next it is the demand that changes: Poisson's floor alone is sure
MIN_KNOWN = 0.8  # of an hour's bins, for the hour to count


def are_counts(values: Floats) -> bool:
    """Whether the known values are whole numbers, as counts are; a utilisation is not."""
    known = values[np.isfinite(values)]
    if not len(known):
        return False
    return float((np.abs(known - np.round(known)) <= 1e-6 * np.maximum(1.0, np.abs(known))).mean()) >= WHOLE


def noise_floor(counts: Floats, step_seconds: float) -> float | None:
    """The least WAPE (a ratio) that chance leaves to a forecast of these counts per bin; NaN bins are unknown.

    For a demand per second: demand times the step. None: not counts, steadier than counts
    that chance moves, nothing came, or too little is known.
    """
    burst = dispersion(counts, step_seconds)
    return None if burst is None else _floor(counts, step_seconds, burst)


def hour_noise_floor(counts: Floats, step_seconds: float) -> float | None:
    """The same for the counts of whole hours, from the first bin on.

    The dispersion is that of the single bins: from one hour to the next it is the demand that changes, not chance.
    """
    burst, width = dispersion(counts, step_seconds), max(1, round(HOUR_SECONDS / step_seconds))
    if burst is None:
        return None
    rows = counts[: len(counts) // width * width].reshape(-1, width)
    known = np.isfinite(rows)
    share = known.mean(axis=1)
    sums = np.where(known, rows, 0.0).sum(axis=1)
    hours = np.where(share >= MIN_KNOWN, sums / np.where(share > 0, share, 1.0), np.nan)
    return _floor(hours, HOUR_SECONDS, burst)


def dispersion(counts: Floats, step_seconds: float) -> float | None:
    """Variance relative to Poisson counts', at least 1; None where there is no telling."""
    known = np.isfinite(counts)
    if known.sum() < MIN_BINS or not float(counts[known].sum()) > 0 or not are_counts(counts):
        return None
    rate, change = centred(counts, _width(step_seconds)), np.diff(counts)
    usable = np.isfinite(change) & (rate[1:] > 0)
    if not usable.any():
        return 1.0
    square, twice = change[usable] ** 2, 2 * rate[1:][usable]
    if float(square.sum()) < LEAST_DISPERSION * float(twice.sum()):  # steadier than chance: a plan, a cap, a constant
        return None
    if step_seconds > BURST_SECONDS:
        return 1.0
    return max(1.0, float(np.median(square / twice)) / CHI_SQUARE_MEDIAN)


def _floor(counts: Floats, step_seconds: float, burst: float) -> float | None:
    known = np.isfinite(counts)
    total = float(counts[known].sum())
    if total <= 0:
        return None
    return float(expected_miss(centred(counts, _width(step_seconds))[known]).sum()) / total * math.sqrt(burst)


def _width(step_seconds: float) -> int:
    return max(3, round(HOUR_SECONDS / step_seconds))


def centred(values: Floats, width: int) -> Floats:
    """Mean of the known bins of about `width` around each bin, itself included; NaN where none is known."""
    half = width // 2
    known = np.isfinite(values)
    sums = np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0))))
    counts = np.concatenate(([0], np.cumsum(known)))
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    number = counts[high] - counts[low]
    means: Floats = np.divide(sums[high] - sums[low], number, out=np.full(len(values), np.nan), where=number > 0)
    return means


def expected_miss(rates: Floats) -> Floats:
    """E|K - median(K)| of Poisson counts K with these rates."""
    grid, table = _table()
    miss: Floats = np.where(
        rates <= MOST_TABLED, np.interp(rates, grid, table), np.sqrt(2 * np.maximum(rates, 0.0) / np.pi)
    )
    return miss


@functools.cache
def _table() -> tuple[Floats, Floats]:
    grid = np.linspace(0.0, MOST_TABLED, 4001)
    most = 200  # no count this far above λ = 100 matters
    number = np.arange(most + 1)
    logs = np.concatenate(([0.0], np.cumsum(np.log(number[1:]))))
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.exp(np.where(number == 0, 0.0, number * np.log(grid[:, None])) - grid[:, None] - logs)
    chance[0] = number == 0
    below = np.cumsum(chance, axis=1)
    median = (below < 0.5).sum(axis=1)
    return grid, (chance * np.abs(number - median[:, None])).sum(axis=1)
