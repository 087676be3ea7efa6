"""What every remedy offers: carry out one attempt, and find out what became of one whose outcome was lost."""

from collections.abc import Callable
from dataclasses import dataclass

from controllers.recovery.operation import Result


@dataclass(frozen=True, slots=True)
class Ask:
    """One attempt. `effect`: its name towards others, the same however often it is asked for."""

    target: str
    instance: str
    operation: str
    effect: str
    workload: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the attempt ended, and in words what was said."""

    result: Result
    detail: str = ""


@dataclass(frozen=True)
class Remedy:
    """Both functions end within the seconds they are given and raise nothing.

    `apply(ask, seconds)`: at most one effect. None: it may have had its effect, and `read_back` can find out.
    `read_back(ask, seconds)`: what became of an attempt whose outcome was lost; None: it cannot be found out now.
    Neither is asked whether it helped.
    """

    apply: Callable[[Ask, float], Outcome | None]
    read_back: Callable[[Ask, float], Outcome | None]
    longest_seconds: float
