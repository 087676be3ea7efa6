"""What the scaler remembers between two decisions, as values: asks and how long they took, and its own history.

Nothing of it is written to disk: it is published, and read back from Prometheus after a restart.
"""

from dataclasses import dataclass, field, replace

from controllers.domain import Pending, Recommendation, Replicas
from controllers.scale.capacity import Learned
from controllers.scale.decide import recommendation
from controllers.scale.state import Decision, LeadTime

LEAD_TIMES_KEPT = 50
FEWEST_LEAD_TIMES = 3  # before a quantile of them is believed


@dataclass(frozen=True, slots=True)
class Ask:
    """`count` replicas asked for at `at` that do not work yet."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one workload. `lead_times`: seconds from ask to first work, one a replica, newest last.

    `started`: the replicas that were told, by when they were asked for, oldest first. `capacity`: of its demand;
    `more`: of its further demands.
    """

    asks: tuple[Ask, ...] = ()
    lead_times: tuple[float, ...] = ()
    learned: LeadTime | None = None  # from before a restart, until enough new ones were seen
    ready: int | None = None
    recommendations: tuple[Recommendation, ...] = ()
    wanted: tuple[Recommendation, ...] = ()
    answers: tuple[Recommendation, ...] = ()  # what the windows of the last lead time's decisions needed
    known_since: float | None = None
    started: tuple[Recommendation, ...] = ()
    capacity: Learned = field(default_factory=Learned)
    more: tuple[Learned, ...] = ()

    def lead_time(self) -> LeadTime | None:
        """None until enough starts were seen."""
        if len(self.lead_times) < FEWEST_LEAD_TIMES:
            return self.learned
        ordered = sorted(self.lead_times)
        return LeadTime(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))])


def saw(memory: Memory, replicas: Replicas, now: float) -> tuple[Memory, Replicas]:
    """Takes in what the target has now: starts that ended teach the lead time, the rest is pending since its ask.

    Replicas that are starting although nobody here asked (a hand at the target, a crash) count from now; at the first
    look after a restart, from when the history tells that they were asked for.
    """
    starting = max(0, replicas.wanted - replicas.ready)
    asks, lead_times = list(memory.asks), list(memory.lead_times)
    known = sum(ask.count for ask in asks)
    became_ready = (
        max(0, known - starting) if memory.ready is None else min(known, max(0, replicas.ready - memory.ready))
    )
    for _ in range(became_ready):
        lead_times.append(now - asks[0].at)
        asks = _fewer(asks, 1, newest=False)
    surplus = sum(ask.count for ask in asks) - starting
    if surplus > 0:  # scaled in while starting
        asks = _fewer(asks, surplus, newest=True)
    elif surplus < 0:
        told = started_after(memory.started, replicas.wanted, now)
        asks += _newest(told, -surplus) if memory.ready is None else [Ask(now, -surplus)]
    pending = tuple(Pending(ask.count, now - ask.at) for ask in asks)
    memory = replace(memory, asks=tuple(asks), lead_times=tuple(lead_times[-LEAD_TIMES_KEPT:]), ready=replicas.ready)
    return memory, replace(replicas, pending=pending)


def _newest(started: tuple[Recommendation, ...], count: int) -> list[Ask]:
    """The newest `count` of those that were asked for, oldest first."""
    asks: list[Ask] = []
    for one in reversed(started):
        taken = min(count, one.replicas)
        if taken > 0:
            asks.insert(0, Ask(one.at, taken))
        count -= taken
    return asks


def started_after(started: tuple[Recommendation, ...], wanted: int, now: float) -> tuple[Recommendation, ...]:
    """`started` once the target was told `wanted` in all: more were asked for now, and of fewer the oldest have gone.

    Which ones a target ends is its own affair. Taken for the oldest, those that stay look younger than they may be,
    and are kept a little longer rather than ended before they are paid off.
    """
    more = wanted - sum(one.replicas for one in started)
    if more == 0:
        return started
    if more > 0:
        return (*started, Recommendation(now, more))
    left = list(started)
    while more < 0:
        gone = min(-more, left[0].replicas)
        more += gone
        if left[0].replicas > gone:
            left[0] = Recommendation(left[0].at, left[0].replicas - gone)
        else:
            del left[0]
    return tuple(left)


def started_by(wanted: tuple[Recommendation, ...]) -> tuple[Recommendation, ...]:
    """When replicas were asked for, as far as the history of numbers told shows it; the first ones at its beginning."""
    started: tuple[Recommendation, ...] = ()
    for told in wanted:
        started = started_after(started, told.replicas, told.at)
    return started


def asked(memory: Memory, count: int, now: float) -> Memory:
    """`count` more replicas were asked for."""
    return replace(memory, asks=(*memory.asks, Ask(now, count))) if count > 0 else memory


def decided(memory: Memory, decision: Decision, told: int | None, keep_seconds: float) -> Memory:
    """Keeps the recommendation and the number that the target was told, for the longest window that needs them."""
    since = decision.at - max(keep_seconds, 60.0)
    made = recommendation(decision)
    recommendations = (*memory.recommendations, made) if made else memory.recommendations
    number = told if told is not None else decision.current
    wanted = (*memory.wanted, Recommendation(decision.at, number)) if number is not None else memory.wanted
    answers = memory.answers
    if decision.needed is not None:
        answers = (*answers, Recommendation(decision.at, decision.needed))
    ahead = decision.at - (decision.lead_seconds or 0.0)
    return replace(
        memory,
        answers=tuple(a for a in answers if a.at >= ahead),
        recommendations=tuple(r for r in recommendations if r.at >= since),
        wanted=tuple(w for w in wanted if w.at >= since),
        known_since=decision.at if memory.known_since is None else memory.known_since,
        started=memory.started if number is None else started_after(memory.started, number, decision.at),
    )


def _fewer(asks: list[Ask], count: int, *, newest: bool) -> list[Ask]:
    """`asks` less `count` replicas, from the newest or the oldest end."""
    left = list(reversed(asks)) if newest else list(asks)
    while count > 0 and left:
        taken = min(count, left[0].count)
        count -= taken
        left = ([Ask(left[0].at, left[0].count - taken)] if left[0].count > taken else []) + left[1:]
    return list(reversed(left)) if newest else left
