"""What announced events and public holidays do to demand: learned from past ones, taken out of the past, put ahead.

An occasion is an event of the calendar or a whole holiday. Its effect is a log ratio to what would have come at that
time without it, by phase: an hour before it, the occasion itself (stretched to its length), two hours after it. What
would have come is the day's profile of the same weekdays, occasions left out, times the level around the occasion.

How `select` and `outlook` use it (times are those of bins' ends):

    effects = learn(history, calendar, hours); history = without(history, calendar, effects)  # before anything else
    path = (path + effects.offset) * factor(effects, calendar, times, step_seconds) - effects.offset  # ahead
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.history import Floats, History
from controllers.forecast.occasions import (
    BODY_PARTS,
    MAX_LOG,
    PARTS,
    PIECES,
    Expected,
    Occasion,
    expected,
    occasions,
    part_of,
)

GRAIN_SECONDS = 600.0  # effects are learned from means of this length, or of a bin where that is longer
ALIKE = 3.0  # neighbouring parts whose noise is alike count as one
MOST_OCCASIONS = 30  # of a kind that are learned from: the newest
BELIEF_VARIANCE = 0.25  # of how strong an occasion is relative to what was learned
MAX_BELIEF = 1.5
REST_SHARE = 0.5  # before a holiday was seen: half the way to a weekday of rest


@dataclass(frozen=True, slots=True)
class Effects:
    """Learned log ratios by part. Picklable. A kind that was never seen has none, and changes nothing."""

    offset: float = 0.0  # demand per second added before logarithms
    events: Mapping[str, Floats] = field(default_factory=dict)  # by kind: PARTS
    holidays: Mapping[str, Floats] = field(default_factory=dict)  # by name: BODY_PARTS, weekday apart
    any_holiday: Floats = field(default_factory=lambda: np.zeros(BODY_PARTS))  # of one not seen yet
    by_weekday: Floats = field(default_factory=lambda: np.zeros((7, BODY_PARTS)))  # Monday first; to all holidays
    seen: Mapping[str, int] = field(default_factory=dict)  # occasions learned from, by kind or name
    belief: Mapping[Occasion, float] = field(default_factory=dict)  # of one that goes on: how strong it turns out


NO_EFFECTS = Effects()


def learn(history: History, calendar: Calendar, hours: History | None = None) -> Effects:
    """From what past occasions did: events from the history, older ones and holidays from the hourly year."""
    if not (calendar.events or calendar.holidays):
        return NO_EFFECTS
    fine = expected(history, calendar, GRAIN_SECONDS)
    coarse = expected(hours if hours is not None else history, calendar, 3600.0)
    grids = [grid for grid in (fine, coarse) if grid is not None]
    if not grids:
        return NO_EFFECTS
    samples: dict[str, list[Floats]] = {}
    days: dict[str, list[Floats]] = {}
    weekdays: dict[str, list[int]] = {}
    noise: dict[str, list[float]] = {}
    past = occasions(calendar, min(grid.start for grid in grids), max(grid.end for grid in grids))
    for occasion in sorted(past, key=lambda one: -one.begin):
        holiday = occasion.weekday is not None
        if len(samples.get(occasion.kind, ())) >= MOST_OCCASIONS:
            continue
        grid = coarse if holiday or fine is None or occasion.reach[0] < fine.start else fine
        if grid is None or (grid is coarse and occasion.end - occasion.begin < grid.step_seconds and not holiday):
            continue
        sample = grid.effect(occasion)
        if sample is None:
            continue
        if holiday:
            days.setdefault(occasion.kind, []).append(sample[PIECES[1]])
            weekdays.setdefault(occasion.kind, []).append(occasion.weekday or 0)
        else:
            samples.setdefault(occasion.kind, []).append(sample)
            noise.setdefault(occasion.kind, []).append(grid.noise)
    events = {kind: _shrunk(np.array(rows), float(np.mean(noise[kind])), PIECES) for kind, rows in samples.items()}
    by_weekday, holidays, any_holiday = _holidays(days, weekdays, coarse or fine, calendar)
    seen = {kind: len(rows) for kind, rows in {**samples, **days}.items()}
    return Effects(grids[0].offset, events, holidays, any_holiday, by_weekday, seen)


def without(history: History, calendar: Calendar, effects: Effects) -> History:
    """As the history would have been without its past occasions, so that lags and profiles are not misled by them."""
    times = history.start + np.arange(len(history.values), dtype=np.float64) * history.step_seconds
    logs = _logs(effects, calendar, times, history.step_seconds)
    if not logs.any():
        return history
    return History(history.start, history.step_seconds, _moved(history.values, -logs, effects.offset), history.censored)


def believed(effects: Effects, history: History, calendar: Calendar) -> Effects:
    """With what has been seen so far of the occasions that go on at the history's end: there may be less to them.

    The share of an effect that is there is a least squares of the bins since its begin, with a prior of 1.
    """
    newest = history.end - history.step_seconds
    going_on = [one for one in occasions(calendar, newest, history.end) if one.begin <= newest]
    grid = expected(history, calendar, GRAIN_SECONDS) if going_on else None
    if grid is None:
        return effects
    belief = {}
    for occasion in going_on:
        parts = _effect_of(effects, occasion)
        if parts is None or (seen := grid.pairs(occasion)) is None:
            continue
        at, came, would = seen
        logs = np.log(came / would)
        due = parts[np.clip(part_of(occasion, at), 0, PARTS - 1).astype(np.int64)]
        weight = 1.0 / (ALIKE * max(grid.noise, 1e-6))
        share = (weight * float(due @ logs) + 1 / BELIEF_VARIANCE) / (weight * float(due @ due) + 1 / BELIEF_VARIANCE)
        belief[occasion] = min(max(share, 0.0), MAX_BELIEF)
    return replace(effects, belief=belief)


def factor(effects: Effects, calendar: Calendar, times: Floats, step_seconds: float = 60.0) -> Floats:
    """By what occasions multiply demand + offset in bins that end at `times` (Unix seconds, ascending); 1: nothing."""
    ratios: Floats = np.exp(_logs(effects, calendar, times, step_seconds))
    return ratios


def _shrunk(samples: Floats, noise: float, pieces: Sequence[slice], unlike: bool = False) -> Floats:
    """What several occasions (rows) have in common, drawn to nothing as far as it may be chance: (parts,).

    A mean m of n with the variance v is multiplied by m² / (m² + v / n): the whole piece first, then what its parts
    differ from it. One occasion may be a chance of its own: its v is at least m², so that at most half of it counts.
    `unlike`: what is wanted is like none of them more than they are like each other: v instead of v / n.
    """
    found = np.zeros(samples.shape[1])
    for piece in pieces:
        rows = samples[:, piece]
        means = rows.mean(axis=1)[:, None]
        apart = min(float(rows.shape[1]), ALIKE)
        whole = _drawn(means, noise * apart / rows.shape[1], unlike)
        found[piece] = whole + _drawn(rows - means, noise, unlike)
    return found


def _drawn(rows: Floats, noise: float, unlike: bool) -> Floats:
    count, mean = len(rows), rows.mean(axis=0)
    square = mean**2
    variance = (((rows - mean) ** 2).sum(axis=0) + square) / count + noise
    risk = square + (variance if unlike else variance / count)
    drawn: Floats = mean * np.divide(square, risk, out=np.zeros(len(mean)), where=square > 0)
    return drawn


def _holidays(
    days: Mapping[str, list[Floats]], weekdays: Mapping[str, list[int]], grid: Expected | None, calendar: Calendar
) -> tuple[Floats, dict[str, Floats], Floats]:
    """How far holidays are like a day of rest, what each does beyond that, and what one not seen yet does."""
    if grid is None or not calendar.holidays:
        return np.zeros((7, BODY_PARTS)), {}, np.zeros(BODY_PARTS)
    seen = [(row, day) for name, rows in days.items() for row, day in zip(rows, weekdays[name], strict=True)]
    by_weekday = _like_rest(seen, grid)
    beyond = {
        n: [row - by_weekday[day] for row, day in zip(rows, weekdays[n], strict=True)] for n, rows in days.items()
    }
    one_day = [slice(0, BODY_PARTS)]
    every = [row for rows in beyond.values() for row in rows]
    # of one that is yet to be seen only what all have in common is expected
    any_holiday = _shrunk(np.array(every), grid.noise, one_day, unlike=True) if every else np.zeros(BODY_PARTS)
    own = {
        name: any_holiday + _shrunk(np.array(rows) - any_holiday, grid.noise, one_day) for name, rows in beyond.items()
    }
    return by_weekday, own, any_holiday


def _like_rest(seen: Sequence[tuple[Floats, int]], grid: Expected) -> Floats:
    """Log ratios (7, BODY_PARTS) of a holiday to its weekday, as far as it is like a weekday of rest.

    That one explains the holidays seen (effect, weekday) best; before any was seen, it is the one least like the
    usual day. How like it they are is a least squares with a prior: half the way, believed like one holiday.
    """
    if not np.isfinite(grid.weekly).all():
        return np.zeros((7, BODY_PARTS))
    logs = _by_hour(np.log(grid.weekly + grid.offset))
    apart = ((logs - np.median(logs, axis=0)) ** 2).sum(axis=1)
    best = (np.inf, np.zeros((7, BODY_PARTS)))
    for rest in np.argsort(-apart)[:3]:
        ratios = logs[rest] - logs
        prior = float((ratios**2).mean()) * BODY_PARTS
        total = sum(float(ratios[day] @ ratios[day]) for _, day in seen) + prior
        like = sum(float(row @ ratios[day]) for row, day in seen) + REST_SHARE * prior
        found = min(max(like / total if total > 0 else 0.0, 0.0), 1.5) * ratios
        error = sum(float(((row - found[day]) ** 2).sum()) for row, day in seen)
        if error < best[0]:
            best = (error, found)
    return best[1]


def _by_hour(of_slots: Floats) -> Floats:
    """(7, slots) as (7, BODY_PARTS)."""
    slots = of_slots.shape[1]
    centres = (np.arange(BODY_PARTS) + 0.5) / BODY_PARTS * slots - 0.5
    return np.array([np.interp(centres, np.arange(slots), row) for row in of_slots])


def _logs(effects: Effects, calendar: Calendar, times: Floats, step_seconds: float) -> Floats:
    """What all occasions together do in the bins that end at `times`, ascending."""
    logs = np.zeros(len(times))
    if effects.offset <= 0 or not len(times):
        return logs
    inner = max(1, min(6, round(step_seconds / GRAIN_SECONDS)))  # a long bin may be only partly within
    for occasion in occasions(calendar, float(times[0]) - step_seconds, float(times[-1])):
        parts = _effect_of(effects, occasion)
        begin, end = occasion.reach
        first, last = np.searchsorted(times, begin, "right"), np.searchsorted(times - step_seconds, end)
        if parts is None or last <= first:
            continue
        ratios = np.zeros(last - first)
        for piece in range(inner):
            at = part_of(occasion, times[first:last] - step_seconds * (piece + 0.5) / inner)
            inside = (at >= 0) & (at < PARTS)
            ratios += np.where(inside, np.exp(parts[np.clip(at, 0, PARTS - 1).astype(np.int64)]), 1.0)
        logs[first:last] += np.log(ratios / inner)
    return np.clip(logs, -MAX_LOG, MAX_LOG)


def _effect_of(effects: Effects, occasion: Occasion) -> Floats | None:
    belief = effects.belief.get(occasion, 1.0)
    if occasion.weekday is None:
        parts = effects.events.get(occasion.kind)
        return None if parts is None else belief * parts
    parts = np.zeros(PARTS)
    own = effects.holidays.get(occasion.kind, effects.any_holiday)
    parts[PIECES[1]] = belief * (effects.by_weekday[occasion.weekday] + own)
    return parts


def _moved(values: Floats, logs: Floats, offset: float) -> Floats:
    moved: Floats = np.maximum((values + offset) * np.exp(logs) - offset, 0.0)
    return np.where(logs != 0, moved, values)
