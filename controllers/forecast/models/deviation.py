"""How far demand has lately been from a seasonal curve, and how much of that is still there some bins ahead.

Deviations are logs of ratios, averaged over several trailing windows; for each lead a small regression for absolute
error learns how much of each goes on. Windows end at the origin, whatever the step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controllers.forecast.history import Bools, Floats, Ints
from controllers.forecast.sums import bins, cumulative, window

WINDOWS_SECONDS = (300.0, 1200.0, 3600.0, 4 * 3600.0, 86_400.0)
LEADS_SECONDS = (300.0, 1200.0, 3600.0, 3 * 3600.0)  # regressed; between them coefficients are interpolated
APART = 0.75  # of the last lead; where a regressed one is nearer, it serves the last one too
ROWS = 1500
ROUNDS = 3
PENALTY = 0.01  # of each coefficient, relative to what the column explains
HALF_LIFE_DAYS = 14.0
# A month without a change of level teaches to fall back to the old one. So some of the weight goes to imagined rows
# whose level moved by SHIFT (log, a factor of two) an hour, or four hours, ago and stays there.
SHIFT = 0.7
SHIFT_SHARE = 0.02
SHIFTED = ((1.0, 1.0, 1.0, 0.3, 0.05, 0.0), (1.0, 1.0, 1.0, 1.0, 0.2, 0.0))
LIMIT = 6.0  # of a logarithm of ratios


@dataclass(frozen=True, slots=True)
class Persistence:
    """`weights` (leads, windows + 1): how much of each deviation goes on; the last is a constant."""

    leads: Ints
    weights: Floats


def deviations(values: Floats, curve: Floats, offset: float, step_seconds: float, at: Ints) -> Floats:
    """Log ratio of the demand to the curve over each trailing window: (windows + 1, origins), the last row ones.

    A window in which nothing is known says what the next longer one says; 0 if none does.
    """
    known = np.isfinite(values)
    sums, seen = cumulative(values)
    expected, _ = cumulative(np.where(known, curve, np.nan))
    sizes = np.array([bins(seconds, step_seconds) for seconds in WINDOWS_SECONDS])[:, None]
    mean, there = window(sums, seen, at, sizes, 0)
    wanted, _ = window(expected, seen, at, sizes, 0)
    found = np.ones((len(sizes) + 1, len(at)))
    np.clip(np.log((mean + offset) / (wanted + offset)), -LIMIT, LIMIT, out=found[:-1])
    if not there.all():
        found[len(sizes) - 1] *= there[-1]
        for row in reversed(range(len(sizes) - 1)):
            found[row] = np.where(there[row], found[row], found[row + 1])
    return found


def regressed_leads(steps: int, step_seconds: float) -> Ints:
    wanted = {lead for seconds in LEADS_SECONDS if (lead := bins(seconds, step_seconds)) <= steps}
    if max(wanted, default=0) < APART * steps:
        wanted.add(steps)
    return np.array(sorted(wanted), dtype=np.int64)


def learn_all(
    values: Floats,
    curve: Floats,
    ahead_of: Callable[[Ints, int], Floats],
    censored: Bools,
    offset: float,
    step_seconds: float,
    steps: int,
) -> Persistence:
    """`curve` (bins,): what each bin's own day was to be like; `ahead_of(origins, lead)`: what was expected then."""
    count, day = len(values), bins(86_400.0, step_seconds)
    rows = np.arange(min(day, count // 3), count, max(1, count // ROWS))
    recent = deviations(values, curve, offset, step_seconds, rows)
    leads = regressed_leads(steps, step_seconds)
    weights = []
    for lead in leads.tolist():
        inside = rows + lead < count
        at, expected = rows[inside] + lead, ahead_of(rows[inside], lead) + offset
        came = np.log((values[at] + offset) / expected)
        weights.append(learn(recent[:, inside], came, expected, (count - at) / day, censored[at]))
    return Persistence(leads, np.array(weights))


def learn(recent: Floats, came: Floats, level: Floats, age_days: Floats, lower: Bools) -> Floats:
    """Coefficients (columns,) for one lead.

    `recent` (columns, rows) as `deviations` gives it, `came` (rows,): the log ratio to the curve at the target, NaN
    unknown; `level` (rows,): demand there, which is what a relative error is worth; `lower`: where `came` is a bound.
    """
    rows = np.flatnonzero(np.isfinite(came))
    x, y, lower = recent[:, rows], np.clip(came[rows], -LIMIT, LIMIT), lower[rows]
    importance = level[rows] * 0.5 ** (age_days[rows] / HALF_LIFE_DAYS)
    coefficients: Floats = np.zeros(len(x))
    if not importance.sum() > 0:  # nothing to learn from: what is now goes on
        coefficients[0] = 1.0
        return coefficients
    importance = importance / importance.mean()
    weights = importance * np.where(lower, 0.1, 1.0)
    shifts = np.array(SHIFTED)
    for _ in range(ROUNDS):
        weighted = x * weights
        gram = weighted @ x.T
        moved = SHIFT * (shifts @ coefficients - 1.0)
        trust = SHIFT_SHARE * float(importance.sum()) * SHIFT**2 / np.maximum(np.abs(moved), 0.02)
        gram += (shifts.T * trust) @ shifts
        gram.flat[:: len(x) + 1] *= 1.0 + PENALTY
        gram.flat[:: len(x) + 1] += 1e-6 * len(y) + 1e-9
        coefficients = np.linalg.solve(gram, weighted @ y + shifts.T @ trust)
        missed = y - coefficients @ x
        floor = max(1e-3, 0.3 * float(np.median(np.abs(missed))))
        weights = importance / np.maximum(np.abs(missed), floor) * ~(lower & (missed < 0))
    return coefficients


def ahead(persistence: Persistence, recent: Floats, steps: int) -> Floats:
    """Log ratios to the curve that are to be expected: (origins, steps)."""
    known, wanted = np.log(persistence.leads), np.log(np.arange(1, steps + 1))
    weights = np.array([np.interp(wanted, known, column) for column in persistence.weights.T])
    found: Floats = np.clip(recent.T @ weights, -LIMIT, LIMIT)
    return found
