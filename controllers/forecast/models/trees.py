"""Regression trees on level-relative features: rows to grow them from, and plain arrays to predict with.

A library grows the trees (where it is imported is the business of the model that grows them); what is kept are arrays,
so that a forecast needs numpy alone. Every row is one origin and one lead, both sides relative to the level of the
origin's last hour: trees cannot leave the range they have seen, but that range knows no level, so they follow one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controllers.forecast import features
from controllers.forecast.features import Basis, Past, basis, columns, first_day, first_hour, prepare
from controllers.forecast.history import Bools, Floats, History, Ints
from controllers.forecast.models.ridge import GOLDEN, regressed_leads
from controllers.forecast.seasons import Phases, phase_factors, with_phases, without

NEEDS_SECONDS = 3 * 86_400.0  # with less, trees learn a day by heart
ROWS = 6000  # pairs of an origin and a lead; more cost time and hardly help
PAIRS = 150_000  # they are drawn from
IMAGINED = 0.5
SHIFT = 1.0  # of a logarithm, at most
HALF_LIFE_DAYS = 14.0


@dataclass(frozen=True, slots=True)
class Trees:
    """Trees laid out one after another; a leaf is its own child. A row's prediction is the sum of its leaves."""

    feature: Ints
    threshold: Floats  # to the left where the feature is at most this
    children: Ints  # (nodes, 2): left, right
    value: Floats  # of leaves
    roots: Ints
    depth: int
    start: float  # added to every prediction

    def predict(self, x: Floats) -> Floats:
        """`x` (columns, rows) -> (rows,)."""
        row = np.arange(x.shape[1])[:, None]
        flat, width = x.ravel(), x.shape[1]
        node = np.repeat(self.roots[None, :], x.shape[1], axis=0)
        two_children = self.children.ravel()
        for _ in range(self.depth):
            right = flat[self.feature[node] * width + row] > self.threshold[node]
            node = two_children[2 * node + right]
        summed: Floats = self.start + self.value[node].sum(axis=1)
        return summed


@dataclass(frozen=True, slots=True)
class Rows:
    """What trees are grown from, all rows alike: `x` (rows, columns), the log of demand to the level before it."""

    x: Floats
    y: Floats
    censored: Bools  # which of `y` are only lower bounds


@dataclass(frozen=True, slots=True)
class Learned:
    basis: Basis
    trees: Trees
    phases: tuple[Phases, ...] = ()  # of periods that no calendar knows: taken out before, put back after


Grow = Callable[[Rows], Trees]


def fit(history: History, time_zone: str, steps: int, grow: Grow) -> Learned:
    fixed = basis(history, time_zone)
    phases = phase_factors(history)
    return Learned(fixed, grow(rows_of(without(history, phases, fixed.level_offset), fixed, steps)), phases)


def rows_of(history: History, fixed: Basis, steps: int) -> Rows:
    """Pairs of an origin and a lead, drawn evenly along the history with a frequency that grows with their weight.

    The weight is the demand that the profile lets expect (10 % of it is an error that large) and how recent it is. As
    many imagined pairs whose level has just moved are added, by IMAGINED: else trees learn to fall back to the old one.
    """
    past = prepare(history, fixed, 0)
    begin = min(past.day, past.count // 3)
    leads = regressed_leads(steps)
    origins = np.arange(begin, past.count - 1, max(1, (past.count - begin) * len(leads) // PAIRS))
    log_values = np.log(past.values + fixed.level_offset)
    shape = features.targets(past, 0, past.count, [1]).by[1, 1].logs[features.QUARTER]
    level = features.log_level(past, origins, 3600.0)
    pairs = np.minimum(origins[:, None] + leads, past.count - 1)
    growth = np.nan_to_num(shape[pairs] - shape[origins][:, None])
    usual = float(np.median(level))
    weight = np.exp(np.clip(level - usual, -features.LIMIT, features.LIMIT)[:, None] + np.clip(growth, -2.0, 2.0))
    weight *= 0.5 ** ((past.count - origins) / (HALF_LIFE_DAYS * past.day))[:, None]
    weight *= np.isfinite(log_values[pairs]) & (origins[:, None] + leads < past.count)
    weight = np.minimum(weight, weight.sum() / ROWS * 3)  # no pair more than three times
    reached = np.cumsum(weight.T)  # lead by lead, along time
    number = min(ROWS, int((weight > 0).sum()))
    drawn = np.searchsorted(reached, (np.arange(number) + 0.5) / max(number, 1) * reached[-1])
    lead, origin = leads[drawn // len(origins)], origins[drawn % len(origins)]
    x, base = design(past, origin, lead[:, None])
    x = x[:, :, 0].T
    y = np.clip(log_values[origin + lead] - base, -features.LIMIT, features.LIMIT)
    censored = history.censored[origin + lead]
    again = np.arange(0, number, round(1 / IMAGINED))
    moves = features.level_shifts()[:, :-1]  # a row of ones has no place in trees
    size = SHIFT * np.sin(np.arange(len(again)) * GOLDEN * 2 * np.pi)
    moved = x[again]
    moved[:, : moves.shape[1]] += size[:, None] * moves[np.arange(len(again)) % len(moves)]
    return Rows(np.concatenate([x, moved]), np.concatenate([y, y[again]]), np.concatenate([censored, censored[again]]))


def design(past: Past, origins: Ints, leads: Ints) -> tuple[Floats, Floats]:
    """Columns (columns, origins, leads) for `leads` (origins or 1, leads), and the origins' log level."""
    starts = features.origins(past, origins)
    leads = np.broadcast_to(leads, (len(origins), leads.shape[1]))
    target = origins[:, None] + leads
    there = np.unique(leads)
    views = features.targets(past, int(target.min()), int(target.max()) + 1, there.tolist())
    which = np.zeros((int(there[-1]) + 1, 2), dtype=np.int64)
    which[there] = [(first_day(past, lead), first_hour(past, lead)) for lead in there.tolist()]
    x = np.empty((0, *leads.shape))
    for view, seen in views.by.items():
        mine = (which[leads] == view).all(axis=2)
        part = columns(seen, starts, target - views.first)
        x = np.where(mine, part, x) if len(x) else part
    by_clock = features.local(past, target)
    return np.concatenate([x[:-1], calendar(past, by_clock), np.log(leads)[None]]), starts.base


def calendar(past: Past, by_clock: Ints) -> Floats:
    """Local time of day on a circle, weekday and kind of day of local bins."""
    angle = 2 * np.pi * features.clock(past, by_clock)
    kind = features.quiet(past, by_clock).astype(float)
    return np.array([np.sin(angle), np.cos(angle), features.weekday(past, by_clock), kind])


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    offset = learned.basis.level_offset
    past = prepare(without(history, learned.phases, offset), learned.basis, steps)
    x, base = design(past, origins, np.arange(1, steps + 1)[None, :])
    said = learned.trees.predict(x.reshape(len(x), -1)).reshape(len(origins), steps)
    demand = with_phases(np.exp(said + base[:, None]) - offset, history, origins, learned.phases, offset)
    return np.clip(demand, 0.0, learned.basis.ceiling)
