"""Work with a deadline: one table of what to run now, and whole days lived with it."""

from collections import deque
from dataclasses import dataclass, replace

import pytest

from controllers.domain import Mode, Money, Reason, Recommendation, Replicas, Sample
from controllers.scale.decide import decide
from controllers.scale.deferrable import Deferred, replicas_for
from controllers.scale.memory import Memory, decided
from controllers.scale.state import Rules, State

HOUR = 3600.0
NOW = 1_800_000_000.0

# a piece of work takes ten seconds; six hours to do it in, less a tenth and the lead time: 19,380 s
WORK = Deferred(
    backlog=1000.0,
    age=0.0,
    deadline=6 * HOUR,
    rate=0.1,
    at_once=1.0,
    most=10,
    current=0,
    paid=0,
    lead=60.0,
    drain=120.0,
)
TONIGHT = ((2 * HOUR, 4 * HOUR),)

# sentence, changes, replicas, reasons
TABLE: list[tuple[str, dict[str, object], int, set[Reason]]] = [
    ("no work: nothing", {"backlog": 0.0}, 0, set()),
    ("less than fills one replica until then waits for more of it", {}, 0, {Reason.DEFERRED}),
    ("what fills one replica until then starts one", {"backlog": 1938.0}, 1, {Reason.DEADLINE}),
    ("more is spread evenly, so that few suffice", {"backlog": 8000.0}, 4, {Reason.DEADLINE}),
    ("what has waited has less time left", {"age": 4 * HOUR}, 2, {Reason.DEADLINE}),
    ("a longer lead time begins earlier", {"age": 4 * HOUR, "lead": 1800.0}, 3, {Reason.DEADLINE}),
    ("the last moment: at once", {"age": 5.4 * HOUR, "backlog": 20.0}, 2, {Reason.DEADLINE}),
    (
        "what is overdue is drained as late work is, not in a panic",
        {"age": 7 * HOUR},
        84,
        {Reason.DEADLINE, Reason.LATE_WORK},
    ),
    ("no more replicas than there are pieces of work", {"age": 7 * HOUR, "backlog": 1.0}, 1, {Reason.LATE_WORK}),
    ("an age that nobody knows may be any: at once", {"age": None, "backlog": 24.0}, 2, {Reason.DEADLINE}),
    ("replicas that run anyway work on", {"current": 3}, 3, {Reason.DEFERRED}),
    ("… as long as there is work for them", {"current": 3, "backlog": 2.0}, 2, {Reason.DEFERRED}),
    ("cheaper hours come in time: wait for them", {"cheap": TONIGHT, "current": 3}, 0, {Reason.DEFERRED}),
    ("… but use what is paid for", {"cheap": TONIGHT, "current": 3, "paid": 2}, 2, {Reason.DEFERRED}),
    (
        "cheaper hours come in time, and are too few for all of it: only the rest is done before",
        {"cheap": TONIGHT, "backlog": 8740.0},
        1,  # 7,140 fit; 1,600 in what is left of the 19,380 s
        {Reason.DEADLINE},
    ),
    ("cheaper hours that come too late do not count", {"cheap": ((5.9 * HOUR, 8 * HOUR),), "current": 1}, 1, set()),
    ("it is cheap now: all of it within these hours", {"cheap": ((-HOUR, HOUR),)}, 2, {Reason.DEFERRED}),
    ("it is cheap now, and little: wait within these hours", {"cheap": ((-HOUR, HOUR),), "backlog": 50.0}, 0, set()),
    (
        "money for few: the cheaper hours are too few for them, so they begin now",
        {"cheap": TONIGHT, "backlog": 2700.0, "most": 1},
        1,
        {Reason.DEADLINE},
    ),
    (
        "more will come than all replicas serve: it begins earlier",
        {"ahead": ((3600.0, 9000.0),), "backlog": 1500.0},
        1,
        {Reason.DEADLINE},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "changes", "replicas", "reasons"), TABLE, ids=[row[0] for row in TABLE])
def test_replicas_for(sentence: str, changes: dict[str, object], replicas: int, reasons: set[Reason]) -> None:
    number, why = replicas_for(replace(WORK, **changes))  # type: ignore[arg-type]
    assert number == replicas, f"{sentence}: {number} {why}"
    assert reasons <= set(why), f"{sentence}: {why}"


RULES = Rules(
    workload="default/nightly",
    is_queue=True,
    min_replicas=0,
    max_replicas=10,
    wait_seconds=60.0,
    objective=0.95,
    concurrency=1,
    service_seconds=10.0,
    lead_time_seconds=300.0,
    minimum_run_seconds=60.0,
    stabilization_window_seconds=0.0,
    up_per_minute=None,
    down_per_minute=None,
    interval_seconds=60.0,
    data_age_limit_seconds=120.0,
    mode=Mode.ACT,
    deadline_seconds=6 * HOUR,
)


@dataclass
class Day:
    """What came of it: the longest time from arrival to done, replica-hours in all and in cheaper hours, starts."""

    longest: float = 0.0
    hours: float = 0.0
    cheap_hours: float = 0.0
    starts: int = 0
    most: int = 0


def live(
    arrivals: dict[int, int],
    rules: Rules = RULES,
    cheap: tuple[tuple[float, float], ...] = (),
    money: int | None = None,
) -> Day:
    """A day of minutes. `arrivals`: minute -> pieces of work; `cheap` in seconds from its begin; `money`: replicas that
    it pays for. First come, first served; a replica does six pieces a minute once its lead time is over."""
    day, waiting, asked, memory = Day(), deque[int](), list[int](), Memory()
    lead = int(rules.lead_time_seconds // 60)
    for minute in range(24 * 60):
        now = NOW + 60.0 * minute
        waiting.extend([minute] * arrivals.get(minute, 0))
        ready = sum(minute - at >= lead for at in asked)
        state = State(
            now=now,
            demand=Sample(arrivals.get(minute, 0) / 60.0, now),
            backlog=Sample(float(len(waiting)), now),
            replicas=Replicas(len(asked), ready),
            oldest_age_seconds=60.0 * (minute - waiting[0]) if waiting else None,
            started=tuple(Recommendation(NOW + 60.0 * at, 1) for at in asked),
            wanted=memory.wanted,
            recommendations=memory.recommendations,
            known_since=NOW - HOUR,
            cheap=tuple((NOW + begin, NOW + end) for begin, end in cheap if NOW + end > now),
            money=None if money is None else Money(len(asked), 0, max(0, money - len(asked)), 0.0, 1200.0),
        )
        decision = decide(state, rules)
        assert decision.desired is not None
        memory = decided(memory, decision, decision.desired, rules.stabilization_window_seconds)
        day.starts += max(0, decision.desired - len(asked))
        asked = (asked + [minute] * (decision.desired - len(asked)))[: decision.desired]
        for _ in range(min(len(waiting), 6 * ready)):
            day.longest = max(day.longest, 60.0 * (minute + 1 - waiting.popleft()))
        day.hours += len(asked) / 60.0
        day.cheap_hours += len(asked) / 60.0 * any(begin <= now - NOW < end for begin, end in cheap)
        day.most = max(day.most, len(asked))
    assert not waiting
    return day


def test_a_batch_is_done_in_time_by_few() -> None:
    day = live({60: 9000})  # 25 replica-hours
    assert day.longest <= 6 * HOUR
    assert day.most <= 6
    assert day.hours == pytest.approx(25.0, rel=0.05)


def test_a_batch_waits_for_the_night_and_is_done_in_it() -> None:
    day = live({60: 9000}, cheap=((3 * HOUR, 6 * HOUR),))
    assert day.longest <= 6 * HOUR
    assert day.cheap_hours > 0.95 * day.hours


def test_a_batch_too_large_for_the_night_is_begun_before_it_and_done_in_time() -> None:
    day = live({60: 18000}, cheap=((3 * HOUR, 6 * HOUR),))
    assert day.longest <= 6 * HOUR
    assert day.cheap_hours > 0.45 * day.hours


def test_money_for_few_begins_early_enough() -> None:
    day = live({60: 9000}, cheap=((3 * HOUR, 6 * HOUR),), money=6)
    assert day.longest <= 6 * HOUR
    assert day.most <= 6


def test_a_thin_stream_is_gathered_and_served_by_few_starts() -> None:
    every_five_minutes = dict.fromkeys(range(0, 17 * 60, 5), 10)
    day = live(every_five_minutes)
    assert day.longest <= 6 * HOUR
    assert day.starts <= 4
    assert day.hours == pytest.approx(sum(every_five_minutes.values()) / 360.0, rel=0.15)
