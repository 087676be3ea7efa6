"""The middle of what several models say. Where they err in different directions, it errs less than any of them.

The median needs nothing that has to be estimated and bears one member that has gone astray: on the reference traces
weights learned from past errors were within one per cent of it.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.forecast.history import Floats, History, Ints

if TYPE_CHECKING:
    from controllers.forecast.models import Model

FEWEST = 2  # members that have a say; one alone is no ensemble


def combine(paths: Mapping[str, Floats]) -> Floats:
    """The median of the members' paths, each (origins, steps). A row is NaN where fewer than two know all of it."""
    stack = np.array(list(paths.values()))
    if not len(stack):
        return np.empty((0, 0))
    known = np.isfinite(stack).all(axis=2)
    if known.all() and len(stack) >= FEWEST:
        return middle(stack)
    combined = np.full(stack.shape[1:], np.nan)
    for members in np.unique(known.T, axis=0):  # rows in which the same members have a say
        if members.sum() >= FEWEST:
            rows = (members == known.T).all(axis=1)
            combined[rows] = middle(stack[members][:, rows])
    return combined


def middle(stack: Floats) -> Floats:
    """The median over the first axis. Of four or more, the mean of the middle half: smoother, and as robust."""
    ordered = np.sort(stack, axis=0)
    cut = (len(stack) - 1) // 2 if len(stack) < 4 else len(stack) // 4
    inner: Floats = ordered[cut : len(stack) - cut].mean(axis=0)
    return inner


def fit(members: Mapping[str, "Model"], history: History, time_zone: str, steps: int) -> dict[str, Any]:
    """Every member's own, by name; those that the history is too short for, or that fail, are left out."""
    learned = {}
    for name, member in members.items():
        if history.known_seconds >= member.needs_seconds:
            with contextlib.suppress(Exception):  # the others go on; `select`, which fits them itself, also says why
                learned[name] = member.fit(history, time_zone, steps)
    return learned


def paths(
    members: Mapping[str, "Model"], learned: Mapping[str, Any], history: History, origins: Ints, steps: int
) -> Floats:
    """The middle of the members that were learned; with one, that one's; with none, the newest value."""
    said = {name: members[name].paths(part, history, origins, steps) for name, part in learned.items()}
    if len(said) < FEWEST:
        from controllers.forecast.models import last_value

        return next(iter(said.values()), last_value.paths(None, history, origins, steps))
    return combine(said)
