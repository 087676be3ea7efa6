"""Ridge regression on level-relative features: one direct regression a lead, fitted for absolute error.

Direct regressions at growing leads; between them the coefficients are interpolated, so that every minute keeps its own
features. Absolute error by iteratively reweighted least squares, each row weighted by its level, since an error of
10 % matters as much as the demand it is 10 % of.
"""

from dataclasses import dataclass

import numpy as np

from controllers.forecast import features
from controllers.forecast.features import Basis, Origins, Past, basis, columns, first_day, first_hour, prepare
from controllers.forecast.history import Bools, Floats, History, Ints
from controllers.forecast.seasons import Phases, phase_factors, with_phases, without
from controllers.forecast.sums import interpolating

NEEDS_SECONDS = 0.5 * 86_400.0  # the backtest tells from when on it is good
LEADS = (1, 2, 3, 5, 8, 12, 20, 30, 45, 60)  # an hour in bins of 5 and of 1 minutes among them; then half as much again
NEAR = 1.25  # leads that are less apart share their coefficients
ROWS = 2000  # enough for some thirty coefficients; more only cost time
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, spread evenly and never repeat
ROUNDS = 5
NEARBY_ROUNDS = 3  # beginning with the coefficients of the lead before
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
    phases: tuple[Phases, ...] = ()  # of periods that no calendar knows: taken out before, put back after


def fit(history: History, time_zone: str, steps: int) -> Learned:
    fixed = basis(history, time_zone)
    phases = phase_factors(history)
    past = prepare(without(history, phases, fixed.level_offset), fixed, 0)
    leads = regressed_leads(steps)
    every, importance = drawn(past)
    days = features.grid(past, int(every[0]), past.count)
    starts = features.origins(past, every, days)
    views = features.targets(past, int(every[0]) + 1, past.count, leads.tolist(), days)
    log_values = np.log(past.values + fixed.level_offset)
    firmness = PENALTY * max(1.0, (FULL_DAYS / (past.count / past.day)) ** 2)
    weights: list[Floats] = []
    for lead in leads.tolist():
        known = every + lead < past.count
        known &= np.isfinite(log_values[np.where(known, every + lead, 0)])
        mine = starts if known.all() else pick(starts, np.flatnonzero(known))
        due = every[known] + lead
        seen = views.by[first_day(past, lead), first_hour(past, lead)]
        x = columns(seen, mine, (due - views.first)[:, None], KNOWN_SHARE)[:, :, 0]
        y = np.clip(log_values[due] - mine.base, -features.LIMIT, features.LIMIT)
        before = weights[-1] if weights else None
        weights.append(least_absolute(x, y, importance[known], history.censored[due], firmness, before))
    return Learned(fixed, leads, np.array(weights), phases)


def drawn(past: Past) -> tuple[Ints, Floats]:
    """Origins to learn from, and how much each counts: the more, the higher its level and the more recent it is.

    At most ROWS, drawn as often as they count, so that few say as much as all. Evenly along time, but at no fixed
    spacing: every minute of the hour gets its turn.
    """
    begin = min(past.day, past.count // 3)  # a day without any day before it teaches little
    origins = np.arange(begin, max(past.count - 1, begin + 1))
    levels = np.exp(features.log_level(past, origins, features.LEVEL_SECONDS[features.HOUR]))
    counts = levels / max(levels.mean(), 1e-300) * 0.5 ** ((past.count - origins) / (HALF_LIFE_DAYS * past.day))
    if len(origins) <= ROWS:
        return origins, counts
    reached = np.cumsum(counts)
    turn = np.arange(ROWS)
    place = np.searchsorted(reached, (turn + turn * GOLDEN % 1) / ROWS * reached[-1])
    places, times = np.unique(np.minimum(place, len(origins) - 1), return_counts=True)
    return origins[places], times.astype(np.float64)


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    offset = learned.basis.level_offset
    past = prepare(without(history, learned.phases, offset), learned.basis, steps)
    first, end = int(origins.min()), int(origins.max()) + steps + 1
    days = features.grid(past, first, end)
    starts = features.origins(past, origins, days)
    leads = np.arange(1, steps + 1)
    weights = between(learned, leads)
    logs = np.empty((len(origins), steps))
    views = features.targets(past, first + 1, end, leads.tolist(), days)
    which = np.array([(first_day(past, lead), first_hour(past, lead)) for lead in leads.tolist()])
    for view, seen in views.by.items():
        mine = np.flatnonzero((which == view).all(axis=1))
        block = max(1, CELLS // len(mine))
        for begin in range(0, len(origins), block):
            rows = np.arange(begin, min(begin + block, len(origins)))
            x = columns(seen, pick(starts, rows), origins[rows][:, None] + leads[mine] - views.first)
            logs[rows[:, None], mine] = np.einsum("jrl,lj->rl", x, weights[mine]) + starts.base[rows][:, None]
    demand = with_phases(np.exp(logs) - offset, history, origins, learned.phases, offset)
    return np.clip(demand, 0.0, learned.basis.ceiling)


def between(learned: Learned, leads: Ints) -> Floats:
    """Coefficients for any lead (leads, columns), from the regressed ones on a logarithmic scale of leads."""
    weights: Floats = interpolating(np.log(learned.leads), np.log(leads)).T @ learned.weights
    return weights


def regressed_leads(steps: int) -> Ints:
    """The last of them stands for the few that come after it."""
    leads = [lead for lead in LEADS if lead <= steps]
    while leads[-1] * NEAR < steps:
        leads.append(min(steps, max(leads[-1] + 1, int(leads[-1] * 1.5))))
    return np.array(leads, dtype=np.int64)


def pick(all_origins: Origins, rows: Ints) -> Origins:
    return Origins(all_origins.logs[:, rows], all_origins.plain[rows], all_origins.base[rows])


def least_absolute(
    x: Floats, y: Floats, importance: Floats, censored: Bools, firmness: float = PENALTY, nearby: Floats | None = None
) -> Floats:
    """Coefficients (columns,) that make the weighted absolute error small; `x` (columns, rows) ends in ones.

    A censored row only counts where the prediction lies below it. All zeros where there is nothing to learn from.
    `nearby`: coefficients to begin with.
    """
    shifts = features.level_shifts() * x.any(axis=1)  # a column of zeros gets no weight
    everything = float(importance.sum())

    def reweighted(coefficients: Floats) -> Floats:
        missed = y - coefficients @ x
        size = np.abs(missed)
        floor = max(1e-4, 0.3 * float(np.median(size)))
        counts: Floats = importance / np.maximum(size, floor)
        return counts * ~(censored & (missed < 0)) if censored.any() else counts

    coefficients: Floats = np.zeros(len(x)) if nearby is None else nearby
    weights = importance * ~censored if (importance * ~censored).any() else importance
    for turn in range(ROUNDS if nearby is None else NEARBY_ROUNDS):
        if turn or nearby is not None:
            weights = reweighted(coefficients)
        total = float(weights.sum())
        if not total > 0:
            break
        root = np.sqrt(weights)
        weighted = x * root
        gram = weighted @ weighted.T
        penalty = firmness * np.diag(gram) + 1e-6 * total
        penalty[-1] = 1e-9 * total
        moved = np.abs(SHIFT * (shifts @ coefficients)) if turn else np.zeros(len(shifts))
        trust = SHIFT_SHARE * everything * SHIFT**2 / np.maximum(moved, 0.02)
        left = gram + np.diag(penalty) + (shifts.T * trust) @ shifts
        coefficients = np.linalg.solve(left, weighted @ (root * y)).astype(np.float64)
    return coefficients
