"""Ridge regression on level-relative features: one direct regression a lead, fitted for absolute error.

Direct regressions at growing leads; between them the coefficients are interpolated, so that every minute keeps its own
features. Absolute error by iteratively reweighted least squares, each row weighted by its level, since an error of
10 % matters as much as the demand it is 10 % of.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast import features
from controllers.forecast.features import Basis, Origins, basis, columns, first_day, first_hour, prepare
from controllers.forecast.history import Bools, Floats, History, Ints

NEEDS_SECONDS = 1.25 * 86_400.0
LEADS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60)  # then each half as much again
ROWS = 9000  # enough for some thirty coefficients; more only cost time
ROUNDS = 4
PENALTY = 0.003
HALF_LIFE_DAYS = 10.0
FULL_DAYS = 28.0  # of history; with less, the penalty grows by the square of what is missing
KNOWN_SHARE = 0.35  # of the rows; a lag known for fewer is left out, else its weight is that of what stood in for it
# A month without a change of level teaches to fall back to the old one. So a share of the weight goes to imagined rows
# whose level has just moved by SHIFT (log, a factor of two), where the truth is that it stays there.
SHIFT = 0.7
SHIFT_SHARE = 0.005
CELLS = 200_000  # origins x leads worked on at once: bounds memory


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    leads: Ints
    weights: Floats  # (leads, columns)


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = basis(history, time_zone)
    past = prepare(history, fixed, 0)
    log_values = np.log(past.values + fixed.level_offset)
    everything = np.arange(past.count)
    starts = features.origins(past, everything)
    base = starts.base
    leads = regressed_leads(steps)
    views: dict[tuple[int, int], features.Targets] = {}
    weights = []
    begin = min(past.day, past.count // 3)  # a day without any day before it teaches little
    for lead in leads.tolist():
        view = (first_day(past, lead), first_hour(past, lead))
        if view not in views:
            views = {view: features.targets(past, everything, *view)}
        rows = np.arange(begin, past.count - lead, stride(past.count - begin))
        rows = rows[np.isfinite(log_values[rows + lead])]
        x = columns(views[view], pick(starts, rows), (rows + lead)[:, None])[:, :, 0]
        x[: len(views[view].logs)][features.known_share(views[view], starts, rows, lead) < KNOWN_SHARE] = 0.0
        y = np.clip(log_values[rows + lead] - base[rows], -6.0, 6.0)
        level = np.exp(base[rows])
        recency = 0.5 ** ((past.count - rows) / (HALF_LIFE_DAYS * past.day))
        weights.append(
            least_absolute(
                x,
                y,
                recency * level / max(level.mean(), 1e-300),
                history.censored[rows + lead],
                PENALTY * max(1.0, (FULL_DAYS / (past.count / past.day)) ** 2),
            )
        )
    return Learned(fixed, leads, np.array(weights))


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    past = prepare(history, learned.basis, steps)
    low = int(origins.min()) + 1
    at = np.arange(low, int(origins.max()) + steps + 1)
    starts = features.origins(past, origins)
    leads = np.arange(1, steps + 1)
    weights = between(learned, leads)
    logs = np.empty((len(origins), steps))
    # leads with one view of the past: the same nearest day and hour
    views = np.array([(first_day(past, lead), first_hour(past, lead)) for lead in leads.tolist()])
    for view in np.unique(views, axis=0).tolist():
        seen = features.targets(past, at, *view)
        mine = np.flatnonzero((views == view).all(axis=1))
        block = max(1, CELLS // len(mine))
        for begin in range(0, len(origins), block):
            rows = np.arange(begin, min(begin + block, len(origins)))
            x = columns(seen, pick(starts, rows), origins[rows][:, None] + leads[mine] - low)
            logs[rows[:, None], mine] = np.einsum("jrl,lj->rl", x, weights[mine]) + starts.base[rows][:, None]
    demand: Floats = np.clip(np.exp(logs) - learned.basis.level_offset, 0.0, learned.basis.ceiling)
    return demand


def between(learned: Learned, leads: Ints) -> Floats:
    """Coefficients for any lead (leads, columns), from the regressed ones on a logarithmic scale of leads."""
    known, wanted = np.log(learned.leads), np.log(leads)
    return np.array([np.interp(wanted, known, column) for column in learned.weights.T]).T


def regressed_leads(steps: int) -> Ints:
    leads = [lead for lead in LEADS if lead <= steps]
    while leads[-1] < steps:
        leads.append(min(steps, max(leads[-1] + 1, int(leads[-1] * 1.5))))
    return np.array(leads, dtype=np.int64)


def stride(rows: int) -> int:
    """Between rows that are used; shares no factor with 60, so that every minute of the hour gets its turn."""
    step = max(1, rows // ROWS)
    while np.gcd(step, 60) != 1:
        step += 1
    return step


def pick(all_origins: Origins, rows: Ints) -> Origins:
    return Origins(all_origins.logs[:, rows], all_origins.plain[rows], all_origins.base[rows])


def least_absolute(x: Floats, y: Floats, importance: Floats, censored: Bools, firmness: float = PENALTY) -> Floats:
    """Coefficients (columns,) that make the weighted absolute error small; `x` (columns, rows) ends in ones.

    A censored row only counts where the prediction lies below it. All zeros where there is nothing to learn from.
    """
    weights = importance * ~censored if (importance * ~censored).any() else importance
    shifts = features.level_shifts() * x.any(axis=1)  # a column of zeros gets no weight
    coefficients: Floats = np.zeros(len(x))
    for _ in range(ROUNDS):
        total = float(weights.sum())
        if not total > 0:
            break
        weighted = x * weights
        gram = weighted @ x.T
        penalty = firmness * np.diag(gram) + 1e-6 * total
        penalty[-1] = 1e-9 * total
        moved = np.abs(SHIFT * (shifts @ coefficients))
        trust = SHIFT_SHARE * float(importance.sum()) * SHIFT**2 / np.maximum(moved, 0.02)
        left = gram + np.diag(penalty) + (shifts.T * trust) @ shifts
        coefficients = np.linalg.solve(left, weighted @ y).astype(np.float64)
        missed = y - coefficients @ x
        floor = max(1e-4, 0.3 * float(np.median(np.abs(missed))))
        weights = importance / np.maximum(np.abs(missed), floor) * ~(censored & (missed < 0))
    return coefficients
