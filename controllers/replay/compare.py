"""Plays policies on one setting: each with its usual knobs first, then with everything that is swept. Pure.

A contender is a name and what it may be set to. Compared are shares of time that demand was above what served.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from controllers.replay import ours
from controllers.replay.foresee import Foreseen
from controllers.replay.protocol import (
    LEVELS,
    Ints,
    Point,
    Policy,
    Result,
    Setting,
    cheapest,
    cost_at,
    oracle,
    play,
    replica_hours,
    score,
)
from controllers.replay.rivals import POLICIES, named
from controllers.scale.state import Rules

OURS, ORACLE = "tidewise", "oracle"
NAMES = (OURS, *POLICIES)
Progress = Callable[[int, int, str], None]  # done, whole, of what


@dataclass(frozen=True, slots=True)
class Knob:
    """One way to set a policy."""

    label: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Contender:
    """The first of `knobs` is the usual one."""

    name: str
    knobs: Sequence[Knob]


@dataclass(frozen=True, slots=True)
class Run:
    """One policy with one knob, and what `protocol.score` says of it."""

    policy: str
    knob: Knob
    usual: bool
    scores: Mapping[str, float]


def rivals(names: Iterable[str], *, swept: bool) -> list[Contender]:
    """Of POLICIES, by name."""
    found = []
    for name in names:
        rival = POLICIES[name]
        every = rival.knobs() if swept else [rival.usual]
        found.append(Contender(name, [Knob(named(knobs), rival.policy(knobs)) for knobs in every]))
    return found


def tidewise(found: Foreseen | None, of: Callable[[float], Rules], promised: float, *, swept: bool) -> Contender:
    """Ours: as promised first, then at other objectives and, of a service, at prices of being short. `of`: the rules at
    an objective.
    """

    def want(rules: Rules, setting: Setting) -> Ints:
        return ours.tidewise(setting, found, rules).desired

    every = {f"objective={promised:g}": of(promised)}
    if swept:
        is_queue = of(promised).is_queue
        every |= {f"objective={each:g}": of(each) for each in (ours.QUEUE_OBJECTIVES if is_queue else ours.OBJECTIVES)}
        if not is_queue:
            every |= {f"shortage={each:g}": replace(of(promised), shortage=each) for each in ours.SHORTAGES}
    return Contender(OURS, [Knob(label, partial(want, rules)) for label, rules in every.items()])


def played(contenders: Sequence[Contender], setting: Setting, progress: Progress = lambda *_: None) -> Iterator[Run]:
    """Each contender with each of its knobs, in order."""
    hours = replica_hours(oracle(setting), setting)
    whole, done = sum(len(each.knobs) for each in contenders), 0
    for contender in contenders:
        for place, knob in enumerate(contender.knobs):
            progress(done, whole, contender.name)
            done += 1
            yield Run(contender.name, knob, place == 0, score(play(knob.policy, setting), hours))
    progress(whole, whole, "")


def points(runs: Iterable[Run], cost: str = "cost_to_oracle", violation: str = "under") -> dict[str, list[Point]]:
    """By policy, in the order in which they were played."""
    found: dict[str, list[Point]] = {}
    for run in runs:
        found.setdefault(run.policy, []).append(Point(run.knob.label, run.scores[cost], run.scores[violation]))
    return found


def tuned(runs: Sequence[Run], policy: str, limit: float, violation: str = "under") -> Run | None:
    """The cheapest of a policy's runs that falls short at most so often; None: none does."""
    mine = [run for run in runs if run.policy == policy and run.scores[violation] <= limit]
    return min(mine, key=lambda run: run.scores["replica_hours"], default=None)


@dataclass(frozen=True, slots=True)
class AtLevel:
    """What a policy costs at one level: of its cheapest knob that holds it, and between the two knobs around it."""

    cost: float | None
    knob: str | None
    between: float | None


def levels(runs: Sequence[Run], limits: Sequence[float] = LEVELS, violation: str = "under") -> dict[str, list[AtLevel]]:
    """Each policy's cost relative to the oracle at each of the limits; None where no knob gets there."""
    found = {}
    for name, mine in points(runs, violation=violation).items():
        best = [cheapest(mine, limit) for limit in limits]
        found[name] = [
            AtLevel(p.cost if p else None, p.knob if p else None, cost_at(mine, limit))
            for p, limit in zip(best, limits, strict=True)
        ]
    return found


def result_of(run: Run, setting: Setting) -> Result:
    """Played again, for its series."""
    return play(run.knob.policy, setting)
