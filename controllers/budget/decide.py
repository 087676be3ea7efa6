"""What may be spent: permits against the ledger's totals, and the level of care. No client, clock, database or log.

    limit >= posted + held + committed + this one      the hard cap, for every permit, on the ledger's totals alone
    projected month-end against a pace line            the level: what can wait, waits before the money is gone

`committed` is what is owed whatever happens: fixed costs for the whole month, and each workload's `min` replicas for
the rest of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.budget.words import BudgetReason, Level, Priority, Standing, Verdict, shown

NOTIFY = (0.5, 0.75, 0.9, 1.0)  # of the limit, by posted spend: people are told, nothing is degraded
DAY_MASS = 24.0  # hours of average demand: a rate from less is a guess, and a lead of less may be a daily batch
LARGEST_FLEET = 1_000_000  # an answer for replicas that cost nothing
STAY = 0.97  # a level is left only when the projection is this far below the line that it was entered at,
STAY_DAYS = 0.5  # or the lead so many days' demand shorter; without this the level flaps hundreds of times a month


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget. `counts_fixed`: fixed costs are paid from it."""

    name: str
    amount: int
    counts_fixed: bool


@dataclass(frozen=True, slots=True)
class Floor:
    """The replicas of a workload that run whatever happens. `cover_seconds`: how far ahead one hold pays."""

    replicas: int
    amount_per_hour: int
    cover_seconds: float


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user configured, as far as money decisions need it."""

    limits: tuple[Limit, ...]
    currency: str
    floors: Mapping[str, Floor] = field(default_factory=dict)
    economy_ratio: float = 1.0  # of the limit, by the projected month-end
    essential_ratio: float = 1.02
    clock_tolerance_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a permit adds to posted + held. `floor_workload`: it covers a committed replica, by `floor_amount` more."""

    amount: int
    priority: Priority = Priority.NORMAL
    floor_workload: str = ""
    floor_amount: int = 0
    renewal: bool = False  # of a hold that is there: the level of care does not matter, only the cap


@dataclass(frozen=True, slots=True)
class Pace:
    """The month in hours of average demand: gone, left; and what was posted lately over how much of it.

    `recent` None: unknown; then a level is held, never lifted. `windows`: seconds -> posted within them.
    """

    gone: float
    left: float
    recent: int | None = None
    recent_mass: float = 0.0
    windows: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One budget as decided. Amounts in micro-units; `spent` = posted + fixed; `burn`: window seconds -> rate."""

    name: str
    limit: int
    posted: int
    held: int
    committed: int
    spent: int
    remaining: int
    pace: int
    projected: int | None
    level: Level
    notified: float
    burn: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Decision:
    """The level is that of the budget that is worst off."""

    at: float
    period: str
    level: Level
    budgets: tuple[BudgetState, ...]


def committed(standing: Standing, limit: Limit, rules: Rules, more: Mapping[str, int] | None = None) -> int:
    """What of a budget is owed beyond posted and held. `more`: workload -> about to be held for its floor."""
    owed = standing.fixed if limit.counts_fixed else 0
    for workload, floor in rules.floors.items():
        seconds = max(0.0, standing.end - standing.at) + floor.cover_seconds
        whole = math.ceil(floor.replicas * floor.amount_per_hour * seconds / 3600.0)
        owed += max(0, whole - standing.floor_held.get(workload, 0) - (more or {}).get(workload, 0))
    return owed


def free(standing: Standing, limit: Limit, rules: Rules) -> int:
    """What may still be held; below zero when more was spent or promised than the limit."""
    return limit.amount - standing.posted - standing.held - committed(standing, limit, rules)


def admit(standing: Standing, ask: Ask, rules: Rules, level: Level) -> Verdict:
    """Whether the ledger may hold this amount now."""
    if standing.clock_behind_seconds > rules.clock_tolerance_seconds:
        return Verdict(
            False,
            BudgetReason.CLOCK_SET_BACK,
            f"the clock is {standing.clock_behind_seconds:.0f} s behind the ledger's newest row; nothing new is held "
            "until it has caught up: check the machine's time",
        )
    if not ask.renewal:
        if level is Level.ECONOMY and ask.priority is Priority.DEFERRABLE:
            return Verdict(False, BudgetReason.DEFERRED, "spending is ahead of the month: work that can wait, waits")
        if level is Level.ESSENTIAL and ask.priority is not Priority.CRITICAL:
            return Verdict(
                False, BudgetReason.NOT_CRITICAL, "the month is going to cost more than its budget: only critical work"
            )
    for limit in rules.limits:
        if limit.amount <= 0:
            return Verdict(False, BudgetReason.BUDGET_ZERO, f"the budget '{limit.name}' is zero", limit.name)
        owed = committed(standing, limit, rules, {ask.floor_workload: ask.floor_amount})
        left = limit.amount - standing.posted - standing.held - owed
        if ask.amount > left and ask.amount > 0:
            return Verdict(
                False,
                BudgetReason.OVER_LIMIT,
                f"this needs {shown(ask.amount)} {rules.currency}; of the budget '{limit.name}' "
                f"({shown(limit.amount)}) {shown(max(0, left))} are left in {standing.period}: posted "
                f"{shown(standing.posted)}, held {shown(standing.held)}, committed {shown(owed)}",
                limit.name,
            )
    return Verdict(True, BudgetReason.GRANTED)


def max_new(standing: Standing, rules: Rules, hold: int) -> int:
    """How many more replicas of `hold` each fit into every budget beside what is committed."""
    if standing.clock_behind_seconds > rules.clock_tolerance_seconds:
        return 0
    if any(limit.amount <= 0 for limit in rules.limits) or not rules.limits:
        return 0
    left = min(free(standing, limit, rules) for limit in rules.limits)
    return max(0, left // hold) if hold > 0 else LARGEST_FLEET


def decide(standing: Standing, pace: Pace, rules: Rules, before: Mapping[str, Level]) -> Decision:
    """The state of every budget and the level that follows. `before`: each budget's level until now."""
    budgets = tuple(
        _budget(standing, pace, limit, rules, before.get(limit.name, Level.NORMAL)) for limit in rules.limits
    )
    return Decision(standing.at, standing.period, max((b.level for b in budgets), default=Level.NORMAL), budgets)


def _budget(standing: Standing, pace: Pace, limit: Limit, rules: Rules, before: Level) -> BudgetState:
    fixed = standing.fixed if limit.counts_fixed else 0
    spent = standing.posted + fixed
    owed = committed(standing, limit, rules)
    projected = _projected(spent, owed - fixed, pace)
    level = _level(spent, fixed, projected, pace, limit, rules, before)
    passed = [ratio for ratio in NOTIFY if limit.amount > 0 and spent >= ratio * limit.amount]
    return BudgetState(
        name=limit.name,
        limit=limit.amount,
        posted=standing.posted,
        held=standing.held,
        committed=owed,
        spent=spent,
        remaining=limit.amount - standing.posted - standing.held - owed,
        pace=_line(limit.amount, fixed, pace),
        projected=projected,
        level=level,
        notified=max(passed, default=0.0),
        burn=_burn(spent, limit, standing, pace.windows),
    )


def _projected(spent: int, owed: int, pace: Pace) -> int | None:
    """Month-end spend: what is gone, plus the recent rate over the demand that is left; at least what is owed."""
    if pace.recent is None:
        return None
    rate = max(0, pace.recent) / max(pace.recent_mass, DAY_MASS)
    return spent + max(owed, int(rate * pace.left))


def _line(limit: int, fixed: int, pace: Pace, ahead: float = 0.0) -> int:
    """What is spent by now, or so much demand later, in a month that ends at its limit."""
    whole = pace.gone + pace.left
    share = min(1.0, (pace.gone + ahead) / whole) if whole > 0 else 1.0
    return fixed + int(max(0, limit - fixed) * share)


def _level(
    spent: int, fixed: int, projected: int | None, pace: Pace, limit: Limit, rules: Rules, before: Level
) -> Level:
    if spent >= limit.amount:
        return Level.EXHAUSTED
    before = min(before, Level.ESSENTIAL)  # below the limit again, as in a new month
    if projected is None:
        return before
    day = min(DAY_MASS, pace.left / 16)  # towards the end a lead is no longer made up for
    # what can wait waits a day sooner than the rest, or both would take turns in being refused
    care = ((Level.ESSENTIAL, 2.0, rules.essential_ratio), (Level.ECONOMY, 1.0, rules.economy_ratio))
    for level, days, ratio in care:
        stays = before >= level
        ahead = _line(limit.amount, fixed, pace, day * (days - STAY_DAYS if stays else days))
        if spent > ahead and projected > ratio * limit.amount * (STAY if stays else 1.0):
            return level
    return Level.NORMAL


def _burn(spent: int, limit: Limit, standing: Standing, windows: Mapping[int, int]) -> dict[int, float]:
    """Recent rate x time left / budget left: above 1 the budget ends before the month does.

    0 where less than a hundredth of the limit was spent in the window: nobody is woken for small change.
    """
    left, seconds = limit.amount - spent, max(0.0, standing.end - standing.at)
    if left <= 0:
        return {}
    return {
        window: posted / window * seconds / left if posted >= 0.01 * limit.amount else 0.0
        for window, posted in windows.items()
    }
