"""The words of money, as values. Amounts are integer micro-units (1 KRW = 1,000,000) of the budget's currency.

Times are Unix seconds. Nothing here knows a client, a clock or a database.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from enum import IntEnum, StrEnum

MICRO = 1_000_000
LARGEST = 10**15  # of one row, in micro-units: a billion; sums of many stay far below what SQLite's integers hold


class State(StrEnum):
    """What a row of the ledger says. A hold goes HELD -> POSTED | VOIDED | EXPIRED_POSTED -> TRUED."""

    HELD = "held"  # set aside before it is spent
    POSTED = "posted"  # spent, as settled or as reported
    VOIDED = "voided"  # given back, because provably nothing was sent
    EXPIRED_POSTED = "expired_posted"  # nobody settled in time: counted as spent in full
    REVERSED = "reversed"  # takes an EXPIRED_POSTED back, just before its TRUED
    TRUED = "trued"  # what an expired hold really cost
    COMMITTED = "committed"  # a fixed cost of the whole period, from its first day on


class BudgetReason(StrEnum):
    """Why a permit was given or not: a closed vocabulary (metric label, field of the answer)."""

    GRANTED = "granted"
    OVER_LIMIT = "over_limit"  # posted + held + committed + this would exceed the budget
    BUDGET_ZERO = "budget_zero"
    DEFERRED = "deferred"  # the level is economy: what can wait, waits
    NOT_CRITICAL = "not_critical"  # the level is essential: only critical work
    UNPRICED = "unpriced"  # no price is known for this provider, model or unit
    UNBOUNDED = "unbounded"  # the request names no maximum, so nothing can be held for it
    FX_UNKNOWN = "fx_unknown"  # no exchange rate, or too old a one
    WORKLOAD_UNPRICED = "workload_unpriced"  # not configured, or without price.per_replica_hour
    CLOCK_SET_BACK = "clock_set_back"  # the clock is behind the ledger's newest row


class Level(IntEnum):
    """How careful to be; the number is what /metrics shows."""

    NORMAL = 0
    ECONOMY = 1  # downgrade and batch; deferrable work is denied
    ESSENTIAL = 2  # only critical work is permitted
    EXHAUSTED = 3  # the limit is spent; everything is denied


class Priority(StrEnum):
    CRITICAL = "critical"
    NORMAL = "normal"
    DEFERRABLE = "deferrable"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom an amount belongs to; "" where it has none."""

    provider: str = ""
    service: str = ""
    model: str = ""
    workflow: str = ""
    workload: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount and how it came about, kept for ever beside it.

    `native` is in micro-units of `currency`; `factor` (decimal text) is what one unit of that currency costs in the
    budget's, with tax, fees and buffer; amount = native * factor, rounded up.
    """

    amount: int
    units: str = "{}"  # JSON: raw units as they were reported
    native: int = 0
    currency: str = ""
    price: str = ""  # version of the price list
    fx: str = ""  # name of the exchange rate
    factor: str = "1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. `held`, `posted` and `committed` are what it adds to the totals of its period."""

    event_id: str
    hold_id: str  # the event that opened the chain; its own id where it opened one
    state: State
    at: float
    period: str
    scope: Scope
    cost: Cost
    held: int = 0
    posted: int = 0
    committed: int = 0
    until: float | None = None  # HELD: when it expires; time holds: how far the time is paid for
    started: float | None = None  # time holds: when the instance was admitted
    instance: str = ""
    floor: bool = False  # covers one of the workload's `min` replicas, which are committed anyway
    digest: str = ""  # of the request's body


@dataclass(frozen=True, slots=True)
class Standing:
    """One period as the ledger has it at `at`. `floor_held`: workload -> held for its committed replicas."""

    at: float
    period: str
    start: float
    end: float
    posted: int = 0
    held: int = 0
    fixed: int = 0
    floor_held: Mapping[str, int] = field(default_factory=dict)
    clock_behind_seconds: float = 0.0  # how far the clock is behind the newest row


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an amount may be held. `budget`: which one refuses; `message`: a sentence for the asker."""

    allowed: bool
    reason: BudgetReason
    message: str = ""
    budget: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking. `entry` is the row that stands for it; a repeated event gets the first answer again."""

    verdict: Verdict
    entry: Entry | None = None
    repeated: bool = False


def micro(amount: Decimal) -> int:
    """Micro-units of an amount, rounded up: spend is never recorded too low."""
    return int((amount * MICRO).to_integral_value(ROUND_CEILING))


def plain(amount: int) -> str:
    """Micro-units as decimal text, exact: '12.5'."""
    whole, rest = divmod(abs(amount), MICRO)
    return ("-" if amount < 0 else "") + f"{whole}" + (f".{rest:06d}".rstrip("0") if rest else "")


def shown(amount: int) -> str:
    """Micro-units for people: '1,234.50'."""
    return f"{Decimal(amount) / MICRO:,.2f}"
