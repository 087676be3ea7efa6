"""The words of Tidewise, as values: what the controllers read, think and write.

Everything here is frozen and free of clients, clocks and environment. Times are Unix seconds (float), durations are
seconds, rates are per second, `None` means "unknown" and is never 0 or NaN.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Mode(StrEnum):
    """How far a decision may go: publish only, propose to people, or carry it out."""

    SHADOW = "shadow"
    RECOMMEND = "recommend"
    ACT = "act"


class Reason(StrEnum):
    """Why a number of replicas was decided: a closed vocabulary (log field, metric label, answer of `tidewise why`)."""

    # what the answer rests on
    FORECAST = "forecast"  # the forecast's window needs this many
    REACTIVE = "reactive"  # present demand needs this many, no forecast counted
    REACTIVE_FLOOR = "reactive_floor"  # present demand is already above the forecast's band
    LATE_WORK = "late_work"  # backlog beyond the SLO is drained over lead time + minimum run
    LEAST_COST = "least_cost"  # the price of being short against that of a replica, where both are known
    FORECAST_CORRECTED = "forecast_corrected"  # it was lately off by so much; it is scaled by that, within bounds
    DEADLINE = "deadline"  # deferrable work that can wait no longer
    DEFERRED = "deferred"  # deferrable work that waits for idle, cheaper or paid hours
    # why the forecast did not count
    FORECAST_MISSING = "forecast_missing"
    FORECAST_EXPIRED = "forecast_expired"
    GATE_CLOSED = "gate_closed"
    # unknown inputs: hold, or follow the last forecast upwards
    SOURCE_DOWN = "source_down"  # Prometheus does not answer
    DEMAND_DOWN = "demand_down"  # what measures demand does not answer
    DEMAND_UNKNOWN = "demand_unknown"  # nobody measures it: an empty answer
    DEMAND_STALE = "demand_stale"  # the last measurement is too old
    DEMAND_ZERO = "demand_zero"  # measured, and there is none
    BACKLOG_UNKNOWN = "backlog_unknown"
    TARGET_UNKNOWN = "target_unknown"
    CAPACITY_UNKNOWN = "capacity_unknown"  # nothing says how long one piece of work takes
    BLIND_FOLLOWS_FORECAST = "blind_follows_forecast"
    HOLD = "hold"
    # what changed or bound the number afterwards
    NEEDED_SOON = "needed_soon"  # capacity would be asked for again before a scale-in had paid off
    PAID_ALREADY = "paid_already"  # its minimum billing time is not over, so ending it would save nothing
    BOUND_BY_DEPENDENCY = "bound_by_dependency"  # more replicas brought no more throughput: what is behind them binds
    SCHEDULE_FLOOR = "schedule_floor"
    SURGE = "surge"  # somebody asked for more, until a time
    PAUSED = "paused"  # somebody stopped it, until a time
    MIN_REPLICAS = "min_replicas"
    MAX_REPLICAS = "max_replicas"
    RATE_LIMIT = "rate_limit"
    STABILIZATION = "stabilization"
    REPLACEMENT = "replacement"  # one more while an instance is being replaced
    # money
    BUDGET_CAP = "budget_cap"  # the ledger would not admit more
    BUDGET_DRAIN = "budget_drain"  # the ledger refused to pay on for some that run
    BUDGET_UNREACHABLE = "budget_unreachable"  # the ledger is silent: nothing grows, nothing is ended
    BUDGET_LOST = "budget_lost"  # it has been silent for longer than its grace: back to the minimum
    # how it was carried out
    SHADOW = "shadow"
    RECOMMEND = "recommend"
    APPLIED = "applied"
    ALREADY_THERE = "already_there"
    FLOOR_TOLD = "floor_told"  # the floor of the user's own autoscaler was told
    NO_CAPACITY = "no_capacity"  # the target could not give all of them
    ACTION_FAILED = "action_failed"
    PERMIT_REFUSED = "permit_refused"  # the ledger held money for fewer than were decided, or for none
    NOT_LEADER = "not_leader"  # another replica of the scaler acts


@dataclass(frozen=True, slots=True)
class Sample:
    """One number read from somewhere, with the time it was measured (Unix seconds)."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Horizon:
    """What a forecast says about one horizon.

    `value`: demand per second expected at made_at + seconds (the path's middle).
    `quantiles`: {q: demand per second at made_at + seconds}.
    `peak`: {q: largest one-minute demand per second within [made_at, made_at + seconds)}.
    `arrivals`: {q: work items arriving within [made_at, made_at + seconds)}; holds q = 0.5 as well.
    """

    seconds: int
    value: float
    quantiles: dict[float, float] = field(default_factory=dict)
    peak: dict[float, float] = field(default_factory=dict)
    arrivals: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecisionWindow:
    """What a forecast says about the window that one decision has to cover: [made_at + begin, made_at + end).

    `begin_seconds`: the lead time L; `end_seconds`: L + Δ, until the next decision's replicas are ready.
    `peak`: {q: largest one-minute demand per second in it}; while the gate is closed, if demand were expected to stay
    as it is.
    """

    begin_seconds: float
    end_seconds: float
    peak: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The hour ahead of one workload as the forecaster published it.

    After `valid_until` it may no longer be used. `gate_open` is False while the model has no skill against the
    naive forecasts; the scaler is then reactive.
    """

    made_at: float
    valid_until: float
    model: str
    gate_open: bool
    horizons: tuple[Horizon, ...]  # ascending
    window: DecisionWindow | None = None  # None: the lead time is not known


@dataclass(frozen=True, slots=True)
class Pending:
    """Replicas asked for that do not work yet. `age_seconds`: time since they were asked for."""

    count: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class PartReplicas:
    """What one of several targets of a workload has."""

    name: str
    wanted: int
    ready: int
    draining: int = 0


@dataclass(frozen=True, slots=True)
class Replicas:
    """What the target has. `wanted` is what it was last told; ready + pending need not equal it while it drains.

    `draining`: told to end and not ended yet, beyond `wanted`; 0 as well where the target does not tell.
    `floor`: the minimum that the user's own autoscaler has now, where that is what is told; `wanted` is then the
    autoscaler's number. None: the number itself is told.
    `unfinished`: what was begun goes on when the same number is told again: a registration, a drain, a move.
    `parts`: where a workload has several targets, each of them; their sum is what stands above.
    """

    wanted: int
    ready: int
    pending: tuple[Pending, ...] = ()
    draining: int = 0
    floor: int | None = None
    unfinished: bool = False
    parts: tuple[PartReplicas, ...] = ()


@dataclass(frozen=True, slots=True)
class Money:
    """What the ledger says about one priced workload. A workload without a price has none of it.

    `paid`: of the replicas that run, those that may stay. `refused`: those whose renewal it refused; some go at once,
    and what is held for them may then pay for the others.
    `max_new`: how many more it would admit; None while it is silent.
    `silent_seconds`: since when it has not answered; beyond `grace_seconds` it counts as lost.
    """

    paid: int
    refused: int
    max_new: int | None
    silent_seconds: float
    grace_seconds: float


class Direction(StrEnum):
    """Which way a pause holds a number."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Override:
    """What a person asked for, within [since, until): so many replicas more (`surge`), or no change (`pause`)."""

    id: str
    since: float
    until: float
    by: str
    surge: int = 0
    pause: Direction | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What an earlier decision held to be right before stabilisation; kept for the stabilisation window."""

    at: float
    replicas: int
