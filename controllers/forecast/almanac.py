"""What is known ahead of time about a workload: its local time, public holidays, events and floors. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """Something announced that changes demand. Events of one `kind` are expected to be like one another.

    `begin`, `end`: Unix seconds. Past ones are what the effect of the coming ones is learned from.
    """

    kind: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Floor:
    """Demand per second that is taken for granted within [begin, end) (Unix seconds), whatever the models say."""

    begin: float
    end: float
    demand_per_second: float


@dataclass(frozen=True, slots=True)
class Calendar:
    """All of it for one workload, from the beginning of its history to a day or more ahead.

    `holidays`: name by local day number (days since the epoch, as `history.local_day_numbers` counts them).
    """

    time_zone: str = "UTC"
    holidays: Mapping[int, str] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    floors: tuple[Floor, ...] = ()
