"""What is learned of a replica: service time, concurrency, and that more of them bring no more."""

import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.domain import Mode, Replicas, Sample
from controllers.scale.capacity import Learned, Period, Seen, bound_of, learn, recalled
from controllers.scale.decide import decide
from controllers.scale.memory import Memory, asked, decided, saw
from controllers.scale.state import Rules, State

STEP = 15.0


NOTHING = Learned()


def looked(looks: Iterable[Seen], concurrency: int = 1, known: Learned = NOTHING) -> Learned:
    for seen in looks:
        known = learn(known, seen, concurrency)
    return known


def every(steps: int, look: Callable[[float], Seen], since: float = 0.0) -> list[Seen]:
    return [replace(look(since + number * STEP), at=since + number * STEP) for number in range(steps)]


def saturated(ready: int, each: float, service: float | None, backlog: float = 1e4) -> Callable[[float], Seen]:
    """`ready` replicas that do `each` items a second, while work waits."""
    return lambda at: Seen(at, ready, ready * each, service, backlog)


class TestServiceTime:
    def test_the_first_measurement_counts_at_once(self) -> None:
        assert looked([Seen(0, 4, 2.0, 0.5, 3.0)]).service_seconds == 0.5

    def test_what_was_learned_stays_while_nothing_is_measured(self) -> None:
        known = looked([Seen(0, 4, 2.0, 0.5, 3.0), *every(100, lambda at: Seen(at, 4, 0.0, None, 0.0), 15)])
        assert known.service_seconds == 0.5

    def test_with_much_work_a_change_is_learned_within_minutes(self) -> None:
        known = looked(every(20, lambda at: Seen(at, 4, 20.0, 0.5, 3.0)))
        known = looked(every(9, lambda at: Seen(at, 4, 20.0, 1.0, 3.0), 300), known=known)
        assert known.service_seconds == 1.0

    def test_with_little_work_of_mixed_sizes_it_is_the_mean_of_a_hundred_jobs(self) -> None:
        """Half a job a second, one in ten takes ten seconds, the others a tenth: 1.09 s in the mean."""
        chance = random.Random(7)
        sizes = [10.0 if chance.random() < 0.1 else 0.1 for _ in range(5000)]
        looks = []
        for number in range(400):
            end = int(number * STEP * 0.5) + 150  # five minutes of it are measured
            looks.append(Seen(number * STEP, 4, 0.5, sum(sizes[end - 150 : end]) / 150, 2.0))
        found = [known.service_seconds for known in _all(looks)][50:]
        raw = [seen.service_seconds for seen in looks][50:]
        assert max(map(_off, found)) < max(map(_off, raw))
        assert sum(map(_off, found)) / len(found) < 0.2

    def test_one_absurd_value_moves_it_no_further_than_its_bound(self) -> None:
        known = looked(every(20, lambda at: Seen(at, 4, 20.0, 0.5, 3.0)))
        assert (looked([Seen(300, 4, 20.0, 5000.0, 3.0)], known=known).service_seconds or math.inf) <= 2.0

    def test_noise_does_not_move_it(self) -> None:
        found = {
            known.service_seconds
            for known in _all(Seen(at * STEP, 4, 20.0, 0.5 + 0.01 * (-1) ** at, 3.0) for at in range(60))
        }
        assert len(found) == 1

    def test_where_nothing_measures_it_throughput_while_work_waits_is_the_capacity(self) -> None:
        known = looked(every(20, saturated(5, 2.0, None)), concurrency=4)
        assert known.service_seconds == pytest.approx(2.0)  # 4 at once, 2 a second

    def test_and_while_nothing_waits_work_in_hand_over_throughput_is(self) -> None:
        looks = every(40, lambda at: Seen(at, 10, 4.0, None, 3.0 if at % 30 else 5.0))
        assert looked(looks).service_seconds == pytest.approx(1.0, rel=0.06)

    def test_replicas_that_serve_several_demands_teach_only_what_is_measured(self) -> None:
        looks = every(40, lambda at: replace(saturated(5, 2.0, None)(at), shared=True))
        assert looked(looks) == Learned(ready=5, steady_since=0.0)

    def test_unknown_throughput_and_no_replicas_teach_nothing(self) -> None:
        assert looked([Seen(0, None), Seen(15, 0, 1.0, None, 9.0), Seen(30, 4)]).service_seconds is None


class TestConcurrency:
    @pytest.mark.parametrize(
        ("sentence", "configured", "each", "minutes", "expected"),
        [
            ("more than was configured is believed soon", 1, 8.0, 5, 4.0),
            ("what was configured right is left alone", 4, 8.0, 30, None),
            ("less is not believed soon", 8, 8.0, 5, None),
            ("less is believed after ten minutes", 8, 8.0, 15, 4.0),
        ],
    )
    def test_from_throughput_while_work_waits(
        self, sentence: str, configured: int, each: float, minutes: int, expected: float | None
    ) -> None:
        known = looked(every(minutes * 4, saturated(5, each, 0.5)), configured)
        assert known.concurrency == (None if expected is None else pytest.approx(expected)), sentence

    def test_never_below_one(self) -> None:
        assert looked(every(100, saturated(5, 0.5, 1.0)), 2).concurrency == 1.0

    def test_while_replicas_grow_it_may_only_rise(self) -> None:
        growing = every(60, lambda at: Seen(at, 5 + int(at / 30), 10.0 * (5 + int(at / 30)), 0.5, 1e5))
        assert looked(growing).concurrency == pytest.approx(5.0)
        assert looked(growing, 8).concurrency is None

    def test_not_while_they_shrink_or_nothing_waits(self) -> None:
        assert looked(every(60, lambda at: Seen(at, 90 - int(at / 30), 40.0, 0.1, 1e4))).concurrency is None
        assert looked(every(60, lambda at: Seen(at, 5, 40.0, 0.5, 5.0))).concurrency is None


@pytest.mark.parametrize(
    ("sentence", "before", "present", "expected"),
    [
        ("twice the replicas, twice the throughput", [(10, 10, True)], (20, 20, True), None),
        ("twice the replicas, as much as before", [(10, 10, True)], (20, 10, True), 10),
        ("a little more: as many as would do it", [(10, 10, True)], (20, 11.5, True), 12),
        ("a fifth of what it should bring is something", [(10, 10, True)], (20, 12.1, True), None),
        ("fewer that were not busy did as much as they were asked", [(4, 4, False)], (60, 10, True), 10),
        ("the fewest of several", [(10, 10, True), (12, 10.5, True)], (20, 10, True), 10),
        ("a few more drown in noise", [(10, 10, True)], (12, 10, True), None),
        ("of a few pieces a minute what is missing may be chance", [(10, 0.5, True)], (13, 0.5, True), None),
        ("of twice as many it is not", [(10, 0.5, True)], (20, 0.5, True), 10),
        ("less than before: longer jobs, or one that loses", [(10, 10, True)], (20, 7, True), None),
        ("work did not wait all the time", [(10, 10, True)], (20, 10, False), None),
        ("nothing to compare with", [], (20, 10, True), None),
        ("more replicas did less: that is no evidence about fewer", [(30, 10, True)], (20, 10, True), None),
        ("nothing was done before", [(10, 0, True)], (20, 10, True), None),
    ],
)
def test_bound(
    sentence: str, before: list[tuple[int, float, bool]], present: tuple[int, float, bool], expected: int | None
) -> None:
    periods = [Period(replicas, replicas, rate, waits) for replicas, rate, waits in (*before, present)]
    assert bound_of(periods[:-1], periods[-1]) == expected, sentence


class TestBound:
    def bound(self) -> Learned:
        """10 a second is all that comes through, with ten replicas and with twenty."""
        known = looked(every(20, lambda at: Seen(at, 10, 10.0, 1.0, 500.0)))
        return looked(every(20, lambda at: Seen(at, 20, 10.0, 1.0, 500.0), 300), known=known)

    def test_it_is_found_within_minutes(self) -> None:
        known = self.bound()
        assert known.bound is not None
        assert known.bound.replicas == 10

    def test_then_half_as_many_more_are_tried_and_the_next_one_holds_for_twice_as_long(self) -> None:
        known = self.bound()
        found_at = known.bound.until - 600  # type: ignore[union-attr]
        known = looked(every(50, lambda at: Seen(at, 10, 10.0, 1.0, 500.0), 600), known=known)
        assert known.bound is not None
        assert (known.bound.replicas, known.bound.tried) == (15, True)
        known = looked(every(30, lambda at: Seen(at, 15, 10.0, 1.0, 500.0), 1350), known=known)
        assert known.bound is not None
        assert (known.bound.replicas, known.bound.tried) == (10, False)
        assert known.bound.until > found_at + 600 + 1200

    def test_no_more_are_tried_for_an_hour_while_more_than_it_are_there_anyway(self) -> None:
        known = looked(every(240, lambda at: Seen(at, 20, 10.0, 1.0, 500.0), 600), known=self.bound())
        assert known.bound is not None
        assert (known.bound.replicas, known.bound.tried) == (10, False)
        known = looked(every(60, lambda at: Seen(at, 20, 10.0, 1.0, 500.0), 4200), known=known)
        assert known.bound is not None
        assert (known.bound.replicas, known.bound.tried) == (30, True)

    def test_a_clock_that_was_set_back_does_not_lengthen_it(self) -> None:
        known = looked(every(2, lambda at: Seen(at, 10, 10.0, 1.0, 500.0), -86_400), known=self.bound())
        assert known.bound is not None
        assert known.bound.tried

    def test_more_that_bring_more_lift_it(self) -> None:
        known = looked(every(50, lambda at: Seen(at, 10, 10.0, 1.0, 500.0), 600), known=self.bound())
        assert looked(every(20, lambda at: Seen(at, 15, 15.0, 1.0, 500.0), 1350), known=known).bound is None

    def test_it_is_lifted_when_throughput_rises(self) -> None:
        known = looked(every(16, lambda at: Seen(at, 20, 18.0, 1.0, 500.0), 600), known=self.bound())
        assert known.bound is None

    def test_it_is_lifted_when_nothing_waits_any_more(self) -> None:
        assert looked([Seen(600, 20, 10.0, 1.0, 3.0)], known=self.bound()).bound is None

    def test_what_is_seen_while_it_is_bound_teaches_no_capacity(self) -> None:
        known = looked(every(20, lambda at: Seen(at, 10, 5.0, 1.0, 500.0), 600), known=self.bound())
        assert known.bound is not None
        assert (known.concurrency, known.concurrencies) == (None, ())


def test_after_a_restart_what_was_published_counts_on() -> None:
    known = recalled(0.5, 3.0, 7, now=1000.0)
    assert (known.service_seconds, known.concurrency, known.bound.replicas if known.bound else None) == (0.5, 3.0, 7)
    again = learn(known, Seen(1000.0, 7, 21.0, 0.5, 90.0), 1)
    assert (again.service_seconds, again.concurrency, again.bound) == (0.5, 3.0, known.bound)


QUANTITY = st.one_of(st.none(), st.just(0.0), st.floats(1e-6, 1e9))
LOOK = st.builds(
    Seen,
    at=st.floats(0, 1e5),  # in any order: a clock may be set back
    ready=st.one_of(st.none(), st.integers(0, 10_000)),
    throughput=QUANTITY,
    service_seconds=st.one_of(st.none(), st.floats(1e-6, 1e6)),
    backlog=QUANTITY,
    shared=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LOOK, max_size=60), st.integers(1, 64), st.booleans())
def test_any_looks_teach_something_that_can_be_used(looks: list[Seen], concurrency: int, in_order: bool) -> None:
    """Whatever is seen, in whatever order: positive, finite, and bounded in what is kept."""
    known = NOTHING
    for seen in sorted(looks, key=lambda look: look.at) if in_order else looks:
        known = learn(known, seen, concurrency)
        assert known.service_seconds is None or 0 < known.service_seconds < math.inf
        assert known.concurrency is None or 1 <= known.concurrency < math.inf
        assert known.bound is None or known.bound.replicas >= 1
        assert len(known.periods) <= 6
        assert len(known.served) <= 61


RULES = Rules("w", True, 1, 500, 60.0, 0.95, 1, 1.0, 30.0, 60.0, 60.0, None, None, STEP, 120.0, Mode.ACT)


def loop(
    arrivals: Callable[[float], float],
    cap: Callable[[float], float] = lambda now: math.inf,
    job_seconds: Callable[[float], float] = lambda now: 1.0,
    *,
    heeds: bool = True,
    bounds: list[float] | None = None,
) -> tuple[dict[float, int], float]:
    """A closed loop of two and a half hours: jobs a second that come, and those that what is behind lets through.

    Replicas told, by time; and the backlog at the end. `bounds`: gets the times at which it was bound.
    """
    memory, told, ready, backlog = Memory(), 6, 6, 0.0
    starts: list[tuple[float, int]] = []
    counts: dict[float, int] = {}
    rates = [4.0] * 4
    for number in range(600):
        now = number * STEP
        ready = min(told, max([ready, *(count for due, count in starts if due <= now)]))
        rate = min(ready / job_seconds(now), cap(now), backlog / STEP + arrivals(now))
        backlog = max(0.0, backlog + (arrivals(now) - rate) * STEP)
        rates = [*rates[1:], rate]
        memory, replicas = saw(memory, Replicas(told, ready), now)
        seen = Seen(now, ready, sum(rates) / len(rates), job_seconds(now), backlog)
        memory = replace(memory, capacity=learn(memory.capacity, seen, 1))
        bound = memory.capacity.bound
        if bound is not None and bounds is not None:
            bounds.append(now)
        state = State(
            now,
            Sample(arrivals(now), now),
            Sample(backlog, now),
            memory.capacity.service_seconds,
            memory.lead_time(),
            replicas,
            recommendations=memory.recommendations,
            wanted=memory.wanted,
            known_since=memory.known_since,
            concurrency=memory.capacity.concurrency,
            bound=bound.replicas if bound and heeds else None,
        )
        decision = decide(state, RULES)
        assert decision.desired is not None
        memory = decided(asked(memory, decision.desired - told, now), decision, decision.desired, 60.0)
        if decision.desired != told:
            told = decision.desired
            starts.append((now + 30.0, told))
        counts[now] = told
    assert memory.capacity.concurrency is None, "what something behind lets through is no sign of a replica"
    return counts, backlog


def test_a_dependency_that_caps_throughput_stops_growth_and_growth_goes_on_when_it_is_lifted() -> None:
    """4, then 20 jobs a second; a replica would do one a second, the database lets ten through for 75 minutes."""

    def run(*, heeds: bool) -> dict[float, int]:
        counts, backlog = loop(
            lambda now: 4.0 if now < 900 else 20.0, lambda now: 10.0 if now < 5400 else math.inf, heeds=heeds
        )
        assert backlog < 60
        return counts

    heeded, ignored = run(heeds=True), run(heeds=False)

    def spent(counts: dict[float, int]) -> int:
        return sum(count for now, count in counts.items() if 1500 <= now < 5400)

    def grown(counts: dict[float, int]) -> list[float]:
        """When it grew while it was capped."""
        return [now for now, count in counts.items() if 1500 <= now < 5400 and count > counts[now - STEP]]

    assert len(grown(ignored)) > 50
    assert len(grown(heeded)) <= 3, "it stops, and tries more once in an hour"
    assert spent(heeded) < 0.3 * spent(ignored)
    after = {now: count for now, count in heeded.items() if now >= 5400}
    assert max(after.values()) > heeded[5385.0], "more are asked for again"
    assert after[max(after)] <= 30, "and let go once the backlog is gone"


@pytest.mark.parametrize("kind", ["a ramp", "a jump", "constant"])
def test_noise_in_demand_and_work_is_no_dependency(kind: str) -> None:
    """A fifth of the arrivals and a seventh of the work is chance; a bound found in it would let work wait."""
    chance = random.Random(kind)

    def arrivals(now: float) -> float:
        usual = {"a ramp": 5 + now / 90, "a jump": 10.0 if now % 3600 < 1800 else 60.0, "constant": 20.0}[kind]
        return max(0.0, usual * chance.gauss(1, 0.2))

    found: list[float] = []
    loop(arrivals, job_seconds=lambda now: max(0.2, chance.gauss(1, 0.15)), bounds=found)
    assert found == []


@pytest.mark.parametrize("seconds", [60.0, 300.0])
def test_jobs_of_minutes_are_no_dependency_while_new_replicas_have_not_finished_any(seconds: float) -> None:
    """Each job takes as long as it takes, the fleet grows by one a minute, and what is counted are whole jobs."""
    chance = random.Random(seconds)
    ends, done = [chance.uniform(0, seconds) for _ in range(10)], deque[float]()
    known = Learned()
    for number in range(480):
        now = number * STEP
        ends += [now + seconds * chance.uniform(0.5, 1.5) for _ in range(10 + int(now / 60) - len(ends))]
        done.extend(end for end in ends if end <= now)
        ends = [end if end > now else now + seconds * chance.uniform(0.5, 1.5) for end in ends]
        while done and done[0] <= now - 60:
            done.popleft()
        known = learn(known, Seen(now, len(ends), len(done) / 60, seconds, 1e4), 1)
        assert known.bound is None, now


@pytest.mark.parametrize("longer", [1.3, 2.0, 5.0, 10.0])
def test_jobs_that_become_longer_are_no_dependency(longer: float) -> None:
    """10 jobs a second of one second; then they take so much longer, and need as many more replicas."""
    counts, backlog = loop(lambda now: 10.0, job_seconds=lambda now: 1.0 if now < 1800 else longer)
    assert counts[max(counts)] >= 10 * longer
    assert backlog < 10 * longer + 60


def _all(looks: Iterable[Seen]) -> list[Learned]:
    known, found = Learned(), []
    for seen in looks:
        known = learn(known, seen, 1)
        found.append(known)
    return found


def _off(seconds: float | None) -> float:
    assert seconds is not None
    return abs(seconds / 1.09 - 1)
