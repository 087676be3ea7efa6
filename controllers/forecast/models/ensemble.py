"""The mean of what several models say, each weighed by how far off it was of late.

Weights fall with the eighth power of a backtest error relative to the least: who errs a tenth more has half the say,
who errs twice as much has none. On the reference traces this was one to two per cent better than the median, since
it follows who is good at this workload, and within one per cent of the best single model where only one is good.
"""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from controllers.forecast.history import Bools, Floats, History, Ints

if TYPE_CHECKING:
    from controllers.forecast.models import Model

FEWEST = 2  # members that have a say; one alone is no ensemble
POWER = 8.0
LEAST = 0.03  # who weighs less everywhere is not asked
NAIVE = 1.2  # a naive member's error counts for so much more: one noisy sample that was lucky for some days
UNPROVEN = 1.1  # the error, relative to the least, of a member that could not be tried
COVERED = 0.5  # of the origins, at which a member has to have been tried


@dataclass(frozen=True, slots=True)
class Mixture:
    """`learned` and the weight at each lead (steps,), by member. No weights at all: everybody says the same."""

    learned: Mapping[str, Any]
    weights: Mapping[str, Floats] = field(default_factory=dict)


def weigh(paths: Mapping[str, Floats], missed: Mapping[str, Floats], naive: Collection[str] = ()) -> dict[str, Floats]:
    """Weights (steps,) of the members, from their absolute errors (origins, steps) in the backtest; NaN unknown."""
    proven = [name for name in paths if name in missed and np.isfinite(missed[name]).any()]
    most = max((np.isfinite(missed[name]).any(axis=1).sum() for name in proven), default=0)
    proven = [name for name in proven if np.isfinite(missed[name]).any(axis=1).sum() >= COVERED * most]
    steps = next((path.shape[1] for path in paths.values()), 0)
    if not proven:
        return {name: np.full(steps, 1.0 / len(paths)) for name in paths}
    stack = np.array([missed[name] for name in proven])
    both: Bools = np.isfinite(stack).all(axis=0)
    # each lead for itself: where jobs run every hour, who is good an hour ahead may be bad half an hour ahead
    errors = np.where(both, stack, 0.0).sum(axis=1)
    errors *= np.array([NAIVE if name in naive else 1.0 for name in proven])[:, None]
    least = errors.min(axis=0)
    relative = np.divide(errors, least, out=np.ones_like(errors), where=least > 0)
    relative[(least <= 0) & (errors > 0)] = np.inf
    found = dict(zip(proven, relative**-POWER, strict=True))
    weights = {name: found.get(name, np.full(steps, UNPROVEN**-POWER)) for name in paths}
    total = np.sum(list(weights.values()), axis=0)
    weights = {name: each / total for name, each in weights.items() if (each / total).max() >= LEAST}
    total = np.sum(list(weights.values()), axis=0)
    return {name: each / total for name, each in weights.items()}


def combine(paths: Mapping[str, Floats], weights: Mapping[str, Floats]) -> Floats:
    """The members' weighted mean, each (origins, steps). NaN in rows of which fewer than two members know all.

    Where the weights name only one member, that one's path.
    """
    asked = [name for name in paths if name in weights]
    stack = np.array([paths[name] for name in asked])
    known = np.isfinite(stack).all(axis=2)
    weight = np.array([weights[name] for name in asked])[:, None, :] * known[:, :, None]
    total = weight.sum(axis=0)
    enough = known.sum(axis=0) >= min(FEWEST, len(asked))
    whole = np.einsum("mrl,mrl->rl", weight, np.where(known[:, :, None], stack, 0.0))
    mean: Floats = np.divide(whole, total, out=np.full(whole.shape, np.nan), where=(total > 0) & enough[:, None])
    return mean


def fit(members: Mapping[str, "Model"], history: History, time_zone: str, steps: int) -> Mixture:
    """Every member's own, by name; those that the history is too short for, or that fail, are left out.

    Without a backtest all weigh the same; `select` fits the members itself, weighs them, and says who is left out.
    """
    learned = {}
    for name, member in members.items():
        if history.known_seconds >= member.needs_seconds:
            with contextlib.suppress(Exception):  # the others go on
                learned[name] = member.fit(history, time_zone, steps)
    return Mixture(learned)


def paths(members: Mapping[str, "Model"], learned: Mixture, history: History, origins: Ints, steps: int) -> Floats:
    """The newest value where nobody has a say."""
    said = {name: members[name].paths(part, history, origins, steps) for name, part in learned.learned.items()}
    if not said:
        from controllers.forecast.models import last_value

        return last_value.paths(None, history, origins, steps)
    weights = learned.weights or {name: np.ones(steps) for name in said}
    return combine(said, weights)
