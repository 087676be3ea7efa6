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
# Between two looks at the target, at most: with more nobody knows when something began to work.
APART_SECONDS, APART_INTERVALS = 120.0, 4


@dataclass(frozen=True, slots=True)
class Ask:
    """`count` replicas asked for at `at` that do not work yet.

    `teaches`: when they were asked for is known, and they did not work before, so they tell what a start takes.
    """

    at: float
    count: int
    teaches: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """What the target had at `at`; `wanted` with what it was told since."""

    at: float
    wanted: int
    ready: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one workload. `lead_times`: seconds from ask to first work, one a replica, newest last.

    `started`: the replicas that were told, by when they were asked for, oldest first. `capacity`: of its demand;
    `more`: of its further demands.
    """

    asks: tuple[Ask, ...] = ()
    lead_times: tuple[float, ...] = ()
    learned: LeadTime | None = None  # from before a restart, until enough new ones were seen
    look: Look | None = None  # the last one
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


def saw(memory: Memory, replicas: Replicas, now: float, interval_seconds: float = 15.0) -> tuple[Memory, Replicas]:
    """Takes in what the target has now: starts that ended teach the lead time, the rest is pending since its ask.

    Replicas that are starting although nobody here asked (a hand at the target, a crash) count from now; at the first
    look after a restart, from when the history tells that they were asked for. What worked before and works again
    teaches nothing: a crash or a failed probe is over sooner than a start.
    """
    look, starting = memory.look, max(0, replicas.wanted - replicas.ready)
    apart = max(APART_SECONDS, APART_INTERVALS * interval_seconds)
    follows = look is None or 0 <= now - look.at <= apart
    if not follows:
        memory = _anew(memory, now)
    asks, lead_times = list(memory.asks), list(memory.lead_times)
    known = sum(ask.count for ask in asks)
    became_ready = max(0, known - starting) if look is None else min(known, max(0, replicas.ready - look.ready))
    for _ in range(became_ready):
        if asks[0].teaches:
            lead_times.append(now - asks[0].at)
        asks = _fewer(asks, 1, newest=False)
    surplus = sum(ask.count for ask in asks) - starting
    if surplus > 0:  # scaled in while starting
        asks = _fewer(asks, surplus, newest=True)
    elif surplus < 0:
        if look is None:
            asks += _newest(started_after(memory.started, replicas.wanted, now), -surplus, now)
        else:
            others = min(-surplus, max(0, replicas.wanted - look.wanted))  # somebody else asked for them
            found = (Ask(now, others, follows), Ask(now, -surplus - others, teaches=False))
            asks += [ask for ask in found if ask.count]
    pending = tuple(Pending(ask.count, now - ask.at) for ask in asks)
    memory = replace(
        memory,
        asks=tuple(asks),
        lead_times=tuple(lead_times[-LEAD_TIMES_KEPT:]),
        look=Look(now, replicas.wanted, replicas.ready),
    )
    return memory, replace(replicas, pending=pending)


def _anew(memory: Memory, now: float) -> Memory:
    """After a clock that was set, or a target that did not answer for long: what starts teaches nothing.

    Of a clock that was set back nothing is left in the future: it would hold capacity until that has come.
    """

    def past(numbers: tuple[Recommendation, ...]) -> tuple[Recommendation, ...]:
        return tuple(Recommendation(min(one.at, now), one.replicas) for one in numbers)

    return replace(
        memory,
        asks=tuple(Ask(min(ask.at, now), ask.count, teaches=False) for ask in memory.asks),
        recommendations=past(memory.recommendations),
        wanted=past(memory.wanted),
        answers=past(memory.answers),
        started=past(memory.started),
        known_since=None if memory.known_since is None else min(memory.known_since, now),
    )


def _newest(started: tuple[Recommendation, ...], count: int, now: float) -> list[Ask]:
    """The newest `count` of those that were asked for, oldest first. Of those from now on that is not known."""
    asks: list[Ask] = []
    for one in reversed(started):
        taken = min(count, one.replicas)
        if taken > 0:
            asks.insert(0, Ask(one.at, taken, teaches=one.at < now))
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
    if count <= 0:
        return memory
    look = None if memory.look is None else replace(memory.look, wanted=memory.look.wanted + count)
    return replace(memory, asks=(*memory.asks, Ask(now, count)), look=look)


def decided(memory: Memory, decision: Decision, told: int | None, keep_seconds: float) -> Memory:
    """Keeps the recommendation and the number that the target was told, for the longest window that needs them.

    Where for all of that time nothing could be recommended, there is no window to look back on: it begins anew.
    """
    since = decision.at - max(keep_seconds, 60.0)
    made = recommendation(decision)
    recommendations = (*memory.recommendations, made) if made else memory.recommendations
    number = told if told is not None else decision.current
    wanted = (*memory.wanted, Recommendation(decision.at, number)) if number is not None else memory.wanted
    answers = memory.answers
    if decision.needed is not None:
        answers = (*answers, Recommendation(decision.at, decision.needed))
    ahead = decision.at - (decision.lead_seconds or 0.0)
    recommendations = tuple(r for r in recommendations if r.at >= since)
    known_since = decision.at if memory.known_since is None else memory.known_since
    return replace(
        memory,
        answers=tuple(a for a in answers if a.at >= ahead),
        recommendations=recommendations,
        wanted=tuple(w for w in wanted if w.at >= since),
        known_since=known_since if recommendations else None,
        started=memory.started if number is None else started_after(memory.started, number, decision.at),
    )


def _fewer(asks: list[Ask], count: int, *, newest: bool) -> list[Ask]:
    """`asks` less `count` replicas, from the newest or the oldest end."""
    left = list(reversed(asks)) if newest else list(asks)
    while count > 0 and left:
        taken = min(count, left[0].count)
        count -= taken
        left = ([replace(left[0], count=left[0].count - taken)] if left[0].count > taken else []) + left[1:]
    return list(reversed(left)) if newest else left
