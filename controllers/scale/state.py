"""What a decision is made of and what it is: state and rules in, decision out. Values only."""

from dataclasses import dataclass

from controllers.domain import Forecast, Mode, Money, Override, Reason, Recommendation, Replicas, Sample


@dataclass(frozen=True, slots=True)
class SignalRules:
    """What was promised about one further demand of a workload. Fields as in `Rules`."""

    name: str
    is_queue: bool
    wait_seconds: float
    objective: float
    concurrency: int
    service_seconds: float | None
    deadline_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """What is known of one further demand. Fields as in `State`."""

    demand: Sample | None = None
    backlog: Sample | None = None
    service_seconds: float | None = None
    concurrency: float | None = None
    oldest_age_seconds: float | None = None
    forecast: Forecast | None = None
    doubt: Reason | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user configured for one workload, as far as a decision needs it."""

    workload: str
    is_queue: bool
    min_replicas: int
    max_replicas: int
    wait_seconds: float
    objective: float
    concurrency: int
    service_seconds: float | None  # until learned
    lead_time_seconds: float  # until learned
    minimum_run_seconds: float
    stabilization_window_seconds: float
    up_per_minute: int | None
    down_per_minute: int | None
    interval_seconds: float
    data_age_limit_seconds: float
    mode: Mode
    deadline_seconds: float | None = None  # deferrable: done so long after it arrived; None: `wait_seconds` counts
    price_per_replica_hour: float | None = None  # both in one currency, whichever
    price_per_late_job: float | None = None  # of a piece of work that waits for longer than `wait_seconds`, or is lost
    start_seconds: float | None = None  # replica-seconds that a start costs before its first work, until learned
    shortage: float | None = None  # so many idle replicas weigh as much as being short; instead of the objective
    more: tuple[SignalRules, ...] = ()  # of `State.more`, in this order


@dataclass(frozen=True, slots=True)
class LeadTime:
    """From asking for a replica to its first work, as learned: median and 90th percentile in seconds."""

    median: float
    high: float


@dataclass(frozen=True, slots=True)
class State:
    """Everything a decision may depend on besides the rules. None is unknown."""

    now: float
    demand: Sample | None = None  # work per second arriving
    backlog: Sample | None = None  # work waiting or in hand; stays None for a service
    service_seconds: float | None = None  # learned mean
    lead_time: LeadTime | None = None
    replicas: Replicas | None = None
    forecast: Forecast | None = None
    recommendations: tuple[Recommendation, ...] = ()  # before stabilisation, oldest first
    wanted: tuple[Recommendation, ...] = ()  # what the target was told, oldest first
    known_since: float | None = None  # from when on both histories are whole; None: never
    money: Money | None = None  # None: it has no price, so money does not bind it
    doubt: Reason | None = None  # why demand is missing, where that is known (SOURCE_DOWN, DEMAND_DOWN)
    concurrency: float | None = None  # learned: pieces of work that a replica does at once
    oldest_age_seconds: float | None = None  # of the work waiting; for deadlines
    start_seconds: float | None = None  # learned: replica-seconds that a start costs before its first work
    bound: int | None = None  # replicas beyond which throughput did not grow; None: not known to be bound
    answers: tuple[Recommendation, ...] = ()  # what the windows of earlier decisions needed, oldest first
    started: tuple[Recommendation, ...] = ()  # running replicas by when they were asked for, oldest first
    schedule_floor: int | None = None  # of the schedule, for [now, now + lead time + window)
    overrides: tuple[Override, ...] = ()  # in force now
    cheap: tuple[
        tuple[float, float], ...
    ] = ()  # cheaper hours that begin within the deadline (Unix seconds), ascending
    more: tuple[Signal, ...] = ()  # further demands of the same replicas
    replacing: int = 0  # instances being replaced: so many more than were decided
    surge: int = 0  # how many of them the target's number holds already


@dataclass(frozen=True, slots=True)
class Changed:
    """One step that changed the number, and why."""

    reason: Reason
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and why. `desired` is None when even holding is impossible, because the target is unknown."""

    workload: str
    at: float
    desired: int | None
    current: int | None
    ready: int | None
    recommended: int | None  # before rate limits and stabilisation
    reactive: int | None  # the answer without forecast
    forecast: int | None  # the answer with it, where it may count
    reasons: tuple[Reason, ...]
    changes: tuple[Changed, ...] = ()
    lead_seconds: float | None = None
    window_seconds: float | None = None
    service_seconds: float | None = None
    rate_expected: float | None = None  # at the window's end
    rate_upper: float | None = None
    unbudgeted: int | None = None  # what it would have been without the budget; None: it has no price
    signal: str | None = None  # which further demand it rests on; None: the workload's own
    needed: int | None = None  # what the window of this decision needs, before anything bounds it
