"""Regression trees for what the ridge regression leaves: rows to grow them from, and plain arrays to predict with.

A library grows the trees (where it is imported is the business of the model that grows them); what is kept are arrays,
so that a forecast needs numpy alone. Every row is one origin and one lead, both sides relative to the level of the
origin's last hour. Trees cannot leave the range they have seen, so a line goes before them: on the reference traces
that took 2 % off the error of single bins and 3 % off that of hours. Trees without it err differently, which an
ensemble gains by.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from controllers.forecast import features
from controllers.forecast.features import Past, basis, columns, first_day, first_hour, prepare
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models import ridge
from controllers.forecast.models.ridge import GOLDEN, regressed_leads
from controllers.forecast.seasons import phase_factors, with_phases, without

NEEDS_SECONDS = 3 * 86_400.0  # with less, trees learn a day by heart
ROWS = 6000  # pairs of an origin and a lead; more cost time and hardly help
PAIRS = 150_000  # they are drawn from
IMAGINED = 0.5  # of them once more, with a level that has just moved
SHIFT = 1.0  # by this much of a logarithm, at most
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
    """What trees are grown from, all rows alike: `x` (rows, columns), and by how much (log) the line was too low."""

    x: Floats
    y: Floats


@dataclass(frozen=True, slots=True)
class Learned:
    line: ridge.Learned
    trees: Trees  # of what the line leaves


Grow = Callable[[Rows], Trees]


def fit(
    history: History,
    time_zone: str,
    steps: int,
    grow: Grow,
    begin: Callable[[History, str, int], ridge.Learned] = ridge.fit,
) -> Learned:
    """`begin`: finds the line."""
    line = begin(history, time_zone, steps)
    level = without(history, line.phases, line.basis.level_offset)
    return Learned(line, grow(rows_of(level, line, steps)))


def flat(history: History, time_zone: str, steps: int) -> ridge.Learned:
    """A line that says that the last hour's level goes on."""
    leads = regressed_leads(steps)
    return ridge.Learned(basis(history, time_zone), leads, np.zeros((len(leads), 1)), phase_factors(history))


def rows_of(history: History, line: ridge.Learned, steps: int) -> Rows:
    """Pairs of an origin and a lead, drawn evenly along the history with a frequency that grows with their weight.

    The weight is the demand that the profile lets expect (10 % of it is an error that large) and how recent it is. As
    many imagined pairs whose level has just moved are added, by IMAGINED: else trees learn to fall back to the old one.
    """
    past = prepare(history, line.basis, 0)
    begin = min(past.day, past.count // 3)
    leads = regressed_leads(steps)
    origins = np.arange(begin, past.count - 1, max(1, (past.count - begin) * len(leads) // PAIRS))
    log_values = np.log(past.values + line.basis.level_offset)
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
    ratio = np.clip(log_values[origin + lead] - base, -features.LIMIT, features.LIMIT)
    moves = features.level_shifts()[:, :-1]  # a row of ones has no place in trees
    again = np.arange(0, number, round(1 / IMAGINED))
    size = SHIFT * np.sin(np.arange(len(again)) * GOLDEN * 2 * np.pi)
    moved = x[:, again]
    moved[: moves.shape[1]] += (size * moves[np.arange(len(again)) % len(moves)].T)[:, :, None]
    every = np.concatenate([np.arange(number), again])
    whole = np.concatenate([x, moved], axis=1)
    left = ratio[every] - straight(line, whole, lead[every][:, None])[:, 0]
    told = ~history.censored[(origin + lead)[every]] | (left > 0)  # a bound that the line reaches says nothing
    return Rows(whole[:, told, 0].T, left[told])


def design(past: Past, origins: Ints, leads: Ints) -> tuple[Floats, Floats]:
    """Columns (columns, origins, leads) for `leads` (origins or 1, leads), and the origins' log level."""
    leads = np.broadcast_to(leads, (len(origins), leads.shape[1]))
    target = origins[:, None] + leads
    there = np.unique(leads)
    days = features.grid(past, int(origins.min()), int(target.max()) + 1)
    starts = features.origins(past, origins, days)
    views = features.targets(past, int(target.min()), int(target.max()) + 1, there.tolist(), days)
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


def straight(line: ridge.Learned, x: Floats, leads: Ints) -> Floats:
    """What the line says of a `design` (columns, origins, leads): (origins, leads)."""
    some, place = np.unique(leads, return_inverse=True)
    weights = ridge.between(line, some).T[:, place.reshape(leads.shape)]
    said: Floats = (weights[:-1] * x[: len(weights) - 1]).sum(axis=0) + weights[-1]
    return said


def paths(learned: Learned, history: History, origins: Ints, steps: int) -> Floats:
    fixed, phases = learned.line.basis, learned.line.phases
    past = prepare(without(history, phases, fixed.level_offset), fixed, steps)
    leads = np.arange(1, steps + 1)[None, :]
    x, base = design(past, origins, leads)
    said = straight(learned.line, x, leads) + base[:, None]
    said += learned.trees.predict(x.reshape(len(x), -1)).reshape(said.shape)
    demand = with_phases(np.exp(said) - fixed.level_offset, history, origins, phases, fixed.level_offset)
    return np.clip(demand, 0.0, fixed.ceiling)
