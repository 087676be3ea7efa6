"""What all demands of a workload share: the times that a decision looks at, what is there, what it costs. Pure."""

from dataclasses import dataclass

from controllers.domain import Replicas
from controllers.scale.economics import Prices, keep_seconds
from controllers.scale.queueing import Supply
from controllers.scale.state import LeadTime, Rules, State

# Between two decisions of the last lead time at most so many intervals lie, or a window was not looked at.
MOST_INTERVALS = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """Times in seconds from now.

    The window is [lead, lead + window): until the next decision's replicas are there, so an interval later, on data as
    late as this, an interval for the loop, and the spread of the lead time. Capacity is kept for [0, keep).
    """

    now: float
    lead: float
    window: float
    keep: float
    drain: float  # late work is drained over at least so long
    replicas: Replicas  # without those that stand in for a replacement
    supply: Supply
    state: State
    rules: Rules
    prices: Prices | None
    kept: int | None  # what the windows between now and this decision's need, as earlier decisions said

    @classmethod
    def of(cls, state: State, rules: Rules, replicas: Replicas) -> "Frame":
        known = state.lead_time or LeadTime(rules.lead_time_seconds, rules.lead_time_seconds)
        delay = max(0.0, state.now - state.demand.at) if state.demand else rules.interval_seconds
        start = state.start_seconds if state.start_seconds is not None else rules.start_seconds
        prices = None
        if rules.price_per_replica_hour is not None and rules.price_per_late_job is not None:
            prices = Prices(rules.price_per_replica_hour, rules.price_per_late_job)
        return cls(
            now=state.now,
            lead=known.high,
            window=2 * rules.interval_seconds
            + min(delay, rules.data_age_limit_seconds)
            + max(0.0, known.high - known.median),
            keep=keep_seconds(known.high, start, rules.minimum_run_seconds),
            drain=known.high + rules.minimum_run_seconds,
            replicas=replicas,
            supply=Supply(
                replicas.ready, tuple([(max(0.0, known.median - p.age_seconds), p.count) for p in replicas.pending])
            ),
            state=state,
            rules=rules,
            prices=prices,
            kept=None if rules.is_queue or rules.more else kept(state, known.high, rules.interval_seconds),
        )

    @property
    def end(self) -> float:
        return self.lead + self.window


def kept(state: State, lead: float, interval: float) -> int | None:
    """The most that decisions of the last lead time needed; None where they do not cover all of it.

    Their windows lie between now and the window of this decision, so until there nothing more is needed.
    """
    most, before, widest = 0, state.now - lead, MOST_INTERVALS * interval
    for answer in state.answers:
        if answer.at <= state.now - lead:
            continue
        if answer.at - before > widest:
            return None
        most, before = max(most, answer.replicas), answer.at
    return most if state.now - before <= widest else None
