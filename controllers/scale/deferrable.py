"""Work with a deadline: done in time, and until then when it costs least. Pure.

The work is the same whenever it is done, so what can be saved is its price: starts, minimum billing times, dear hours.

    what is overdue, or whose age nobody knows  ─▶ at once, drained as late work is
    what fills replicas until the deadline      ─▶ so many, from now on: evenly, so that few suffice
    less than one replica's worth               ─▶ it waits for more of it
    where cheaper hours come in time            ─▶ the same within them; before them only what will not fit
    replicas that run anyway                    ─▶ work on while there is work; ahead of cheaper hours while paid for

The whole backlog counts as due with its oldest piece: a batch arrives at once, and a stream that is served too early
costs nothing but the wait. A tenth of the deadline is kept back, for jobs that take longer than the mean.
"""

import math
from dataclasses import dataclass

from controllers.domain import Reason

KEPT_BACK = 0.1  # of the deadline


@dataclass(frozen=True, slots=True)
class Deferred:
    """Times in seconds from now; work in pieces. `age`: of the oldest piece; None: unknown.

    `rate`: pieces a second of one replica; `at_once`: pieces that it works on at once. `most`: replicas that bounds and
    money allow. `current`: those told; `paid`: of them, those whose minimum billing time is not over. `lead`: until a
    new one works; `drain`: over so long late work is drained. `ahead`: (seconds, pieces until then), ascending.
    `cheap`: (begin, end) of cheaper hours, ascending, the present one with a begin <= 0.
    """

    backlog: float
    age: float | None
    deadline: float
    rate: float
    at_once: float
    most: int
    current: int
    paid: int
    lead: float
    drain: float
    ahead: tuple[tuple[float, float], ...] = ()
    cheap: tuple[tuple[float, float], ...] = ()


def replicas_for(work: Deferred) -> tuple[int, tuple[Reason, ...]]:
    """How many to have now, and why."""
    if work.backlog <= 0:
        return 0, ()
    busy = max(1, math.ceil(work.backlog / work.at_once - 1e-9))  # no more of them have anything to do
    at_once = min(busy, max(_over(work.drain, work), work.current))
    if work.age is None:
        return at_once, (Reason.DEADLINE,)
    left = work.deadline * (1.0 - KEPT_BACK) - work.age - work.lead - _pressed(work)
    if left <= work.drain:
        late = (Reason.LATE_WORK,) if work.age > work.deadline else ()
        return at_once, (Reason.DEADLINE, *late)
    cheap = _cheap_within(work, left + work.lead)
    if not cheap:
        must, running = _evenly(work.backlog, left, work), work.current
    else:
        hours = sum(end - begin for begin, end in cheap)
        useful = max(0.0, hours - work.lead * len(cheap))  # of a replica that is started for each of them
        must = _evenly(work.backlog - work.most * work.rate * useful, max(left - hours, work.drain), work)
        running = min(work.current, work.paid)
        if cheap[0][0] <= 0.0:  # it is cheap now
            running = max(work.current, _evenly(work.backlog, max(useful, work.drain), work))
    must, running = min(must, busy), min(running, busy, work.most)
    return (must, (Reason.DEADLINE,)) if must > 0 and must >= running else (max(must, running), (Reason.DEFERRED,))


def _evenly(backlog: float, seconds: float, work: Deferred) -> int:
    """So many are busy with it for all of that time. The next one is asked for when it, too, has to begin."""
    return max(0, math.floor(backlog / (work.rate * seconds) + 1e-9))


def _over(seconds: float, work: Deferred) -> int:
    """So many do all of it in that time; one at least."""
    return max(1, math.ceil(work.backlog / (work.rate * max(seconds, 1.0)) - 1e-9))


def _pressed(work: Deferred) -> float:
    """So much earlier one has to begin because for a while more will arrive than `most` replicas serve."""
    capacity = work.most * work.rate
    if capacity <= 0:
        return 0.0
    return max([0.0, *(pieces / capacity - seconds for seconds, pieces in work.ahead)])


def _cheap_within(work: Deferred, until: float) -> list[tuple[float, float]]:
    """The cheap spans before `until`, each cut to what lies within [0, until); the first at once if it has begun."""
    found = [(max(0.0, begin), min(end, until)) for begin, end in work.cheap if end > 0.0 and begin < until]
    return [(begin, end) for begin, end in found if end - begin > (work.lead if begin > 0 else 0.0)]
