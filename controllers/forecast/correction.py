"""Part of the error of the last hour's forecasts is taken back, where the backtest says that this pays."""

import numpy as np

from controllers.forecast.backtest import shortfall
from controllers.forecast.calibration import knots
from controllers.forecast.history import Bools, Floats, Ints, leads_in
from controllers.forecast.sums import interpolating

CORRECTIONS = (0.0, 0.15, 0.3)  # shares of the last hour's mean error that may be taken back
CORRECTION_WORTH = 1.02  # so much better it has to make the backtest
MAX_CORRECTION = 0.4  # of the logarithm: a factor of 1.5
MEMORY_SECONDS = 3600.0


def corrected_backtest(
    path: Floats, actual: Floats, censored: Bools, origins: Ints, offset: float, leads: list[int], step: float
) -> tuple[float, Floats]:
    """The share of the last hour's error that is best taken back, and the paths with that done."""
    if not leads or not len(origins):
        return 0.0, path
    bias = bias_at(path, actual, censored, origins, origins, offset, step)
    tried = {share: correct(path, share, bias, offset) for share in CORRECTIONS}
    columns = np.array(leads) - 1
    errors = {
        share: float(np.nansum(shortfall(new[:, columns], actual[:, columns], censored[:, columns])))
        for share, new in tried.items()
    }
    best = min(errors, key=lambda share: errors[share] * (1.0 if share == 0.0 else CORRECTION_WORTH))
    return best, tried[best]


def bias_at(
    path: Floats, actual: Floats, censored: Bools, origins: Ints, at: Ints, offset: float, step_seconds: float
) -> Floats:
    """Mean log ratio of outcome to prediction over the hour before each of `at`, for every lead: (len(at), steps)."""
    steps = path.shape[1]
    leads = np.array(knots(steps))
    some, came = path[:, leads - 1], actual[:, leads - 1]
    missed = np.clip(np.log((came + offset) / (some + offset)), -1.0, 1.0)
    missed[censored[:, leads - 1] & (missed < 0)] = np.nan
    bias = recent_bias(origins, missed, leads, at, leads_in(MEMORY_SECONDS, step_seconds))
    return bias @ interpolating(leads, np.arange(1, steps + 1))


def correct(path: Floats, share: float, bias: Floats, offset: float) -> Floats:
    factor = np.exp(np.clip(share * bias, -MAX_CORRECTION, MAX_CORRECTION))
    taken_back: Floats = np.maximum((path + offset) * factor - offset, 0.0)
    return taken_back


def recent_bias(origins: Ints, missed: Floats, leads: Ints, at: Ints, memory: int) -> Floats:
    """Mean residual, at each lead, of the forecasts whose outcome was known at `at` and at most `memory` bins old.

    `missed` (origins, leads): residuals; NaN unknown. Shape (len(at), leads); 0 where nothing is known.
    """
    known = np.isfinite(missed)
    sums, counts = np.zeros((2, len(origins) + 1, len(leads)))
    np.cumsum(np.where(known, missed, 0.0), axis=0, out=sums[1:])
    np.cumsum(known, axis=0, out=counts[1:])
    column, reached = np.arange(len(leads)), at[:, None] - leads
    high, low = (np.searchsorted(origins, each, side="right") for each in (reached, reached - memory))
    number = counts[high, column] - counts[low, column]
    total = sums[high, column] - sums[low, column]
    bias: Floats = np.divide(total, number, out=np.zeros(total.shape), where=number > 0)
    return bias
