"""What every step of a run uses, and what stands while it runs."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from demo import view
from demo.configuration import Addresses
from demo.failures import Mishaps
from demo.history import History
from demo.interrupts import Interrupts
from demo.receiver import Receiver
from demo.recorder import Results
from demo.settings import Settings
from demo.stage import Stage
from demo.trace import Demand, Trace


class SetUpError(Exception):
    """The demo cannot be set up. `str()` says why and what to do."""


@dataclass(frozen=True, slots=True)
class Crew:
    """What every step of a run uses. remarks: what is to be said again at the end; timings: seconds by name."""

    chosen: Settings
    screen: view.Screen
    interrupts: Interrupts
    stage: Stage
    remarks: list[str]
    begun: float = field(default_factory=time.monotonic)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ground:
    """What stands before the live part begins: the queue and the workers that serve it, and the ledger.

    assumed: what the ledger holds of the month before, in micro-KRW; time_zone: of its month; None without a budget.
    """

    root: Path
    series: Trace
    addresses: Addresses
    receiver: Receiver
    assumed: int | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """The live part, from its first job on. start, end: Unix seconds, as planned."""

    demand: Demand
    history: History
    start: float
    end: float
    results: Results
    mishaps: Mishaps
