"""How a model of weekday seasons is asked: from its kept state on, in coarse bins, steady periods put back after."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from controllers.forecast.features import Basis
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models.days import coarse_paths
from controllers.forecast.models.weekdays import State, since
from controllers.forecast.seasons import Phases, with_phases, without


class Learned(Protocol):
    @property
    def basis(self) -> Basis: ...
    @property
    def state(self) -> State: ...
    @property
    def phases(self) -> tuple[Phases, ...]: ...


Some = TypeVar("Some", bound=Learned)


def weekday_paths(
    learned: Some,
    history: History,
    origins: Ints,
    steps: int,
    coarsely: Callable[[Some, State | None, History, Ints, int], Floats],
) -> Floats:
    """`coarsely(learned, after, part, origins, steps)`: its own paths in coarse bins; `after`: see `since`."""
    offset = learned.basis.level_offset
    history, origins, after = since(learned.state, history, origins)
    level = without(history, learned.phases, offset)
    demand = coarse_paths(level, origins, steps, lambda part, at, count: coarsely(learned, after, part, at, count))
    return with_phases(demand, history, origins, learned.phases, offset)
