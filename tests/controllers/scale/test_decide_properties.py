"""What must hold for every state: bounds, monotonicity, reproducibility, calm, and that a restart changes nothing."""

import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from controllers.domain import (
    DecisionWindow,
    Direction,
    Forecast,
    Horizon,
    Mode,
    Money,
    Override,
    Pending,
    Reason,
    Recommendation,
    Replicas,
    Sample,
)
from controllers.replay.policies import tidewise
from controllers.replay.simulate import Setting, simulate
from controllers.scale.decide import decide
from controllers.scale.memory import Memory, decided
from controllers.scale.observe import Past
from controllers.scale.records import Record, as_json
from controllers.scale.scaler import with_past
from controllers.scale.state import Decision, LeadTime, Rules, Signal, SignalRules, State

NOW = 1_800_000_000.0
HOUR = 3600.0
RULES = Rules(
    workload="default/video",
    is_queue=True,
    min_replicas=1,
    max_replicas=20,
    wait_seconds=5.0,
    objective=0.95,
    concurrency=1,
    service_seconds=0.5,
    lead_time_seconds=60.0,
    minimum_run_seconds=60.0,
    stabilization_window_seconds=300.0,
    up_per_minute=None,
    down_per_minute=None,
    interval_seconds=15.0,
    data_age_limit_seconds=120.0,
    mode=Mode.ACT,
)
MORE = SignalRules("default/video/thumbs", True, 5.0, 0.95, 1, 0.5)
PRICES: dict[str, Any] = {"price_per_replica_hour": 12.0, "price_per_late_job": 0.05}
KINDS: dict[str, dict[str, Any]] = {
    "queue": {},
    "service": {"is_queue": False},
    "queue at least cost": PRICES,
    "service at least cost": {"is_queue": False, **PRICES},
    "service that weighs shortage": {"is_queue": False, "shortage": 8.0},
    "two queues": {"more": (MORE,)},
    "deadline": {"deadline_seconds": 6 * HOUR, "max_replicas": 15},
}
kinds = st.sampled_from(sorted(KINDS))


def rules_of(kind: str, **changes: Any) -> Rules:
    return replace(RULES, **{**KINDS[kind], **changes})


def horizon(seconds: int, rate: float, spread: float) -> Horizon:
    def table(width: float) -> dict[float, float]:
        return {0.1: rate * (1 - width), 0.5: rate, 0.9: rate * (1 + width), 0.98: rate * (1 + 1.8 * width)}

    return Horizon(
        seconds, rate, table(spread), table(1.2 * spread), {q: v * seconds for q, v in table(0.6 * spread).items()}
    )


def forecast(rates: Sequence[float], spread: float = 0.1, age: float = 10.0, *, window: bool = False) -> Forecast:
    """One rate for each horizon. Peaks are of all until the horizon, so they never fall with it."""
    peaks = [max(rates[: i + 1]) for i in range(len(rates))]
    horizons = [
        replace(horizon(s, rate, spread), peak=horizon(s, peak, spread).peak)
        for s, rate, peak in zip((120, 300, 900, 1800, 3600), rates, peaks, strict=True)
    ]
    seen = DecisionWindow(90.0, 150.0, horizons[0].peak) if window else None
    return Forecast(NOW - age, NOW - age + 900, "ridge", True, tuple(horizons), seen)


rates = st.floats(0, 60)
counts = st.integers(0, 25)
histories = st.lists(counts, max_size=5).map(
    lambda numbers: tuple(Recommendation(NOW - 30 * i, n) for i, n in reversed(list(enumerate(numbers, 1))))
)
forecasts = st.none() | st.builds(
    forecast,
    st.lists(rates, min_size=5, max_size=5),
    st.floats(0, 0.5),
    st.sampled_from([10.0, 200.0, 500.0]),
    window=st.booleans(),
)
samples = rates.map(lambda value: Sample(value, NOW - 5))
backlogs = st.floats(0, 2000).map(lambda value: Sample(value, NOW - 5))
states = st.builds(
    State,
    now=st.just(NOW),
    demand=st.none() | samples | samples,
    backlog=backlogs,
    service_seconds=st.just(0.5),
    lead_time=st.none() | st.builds(LeadTime, st.just(50.0), st.floats(50, 400)),
    replicas=st.builds(
        lambda ready, starting: Replicas(ready + starting, ready, (Pending(starting, 20.0),) if starting else ()),
        st.integers(0, 20),
        st.integers(0, 5),
    ),
    forecast=forecasts,
    recommendations=histories,
    wanted=histories,
    known_since=st.sampled_from([NOW - 3600, NOW - 10]),
    doubt=st.none() | st.sampled_from([Reason.SOURCE_DOWN, Reason.DEMAND_DOWN]),
    concurrency=st.none() | st.floats(0.5, 3),
    oldest_age_seconds=st.none() | st.floats(0, 8 * HOUR),
    start_seconds=st.none() | st.floats(0, 600),
    bound=st.none() | st.integers(1, 20),
    started=st.lists(st.builds(Recommendation, st.floats(NOW - 200, NOW), st.integers(1, 5)), max_size=3).map(tuple),
    schedule_floor=st.none() | st.integers(1, 20),
    overrides=st.lists(
        st.builds(
            lambda surge, pause: Override("a", NOW - 60, NOW + 60, "ann", surge, pause),
            st.integers(0, 5),
            st.none() | st.sampled_from(Direction),
        ),
        max_size=1,
    ).map(tuple),
    cheap=st.just(()) | st.builds(lambda at: ((NOW + at, NOW + at + 2 * HOUR),), st.floats(-HOUR, 3 * HOUR)),
    more=st.just(()) | st.builds(lambda d, b: (Signal(d, b, 0.5),), samples, backlogs),
)


def desired(state: State, rules: Rules) -> int:
    number = decide(state, rules).desired
    assert number is not None
    return number


@given(states, kinds, st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_bounds_hold_and_missing_data_removes_nothing(state: State, kind: str, least: int) -> None:
    rules = rules_of(kind, min_replicas=least)
    decision = decide(state, rules)
    assert state.replicas is not None
    assert decision.desired is not None
    told = state.replicas.wanted
    missing = {Reason.HOLD, Reason.BLIND_FOLLOWS_FORECAST, Reason.DEMAND_UNKNOWN, Reason.BACKLOG_UNKNOWN}
    missing |= {Reason.SOURCE_DOWN, Reason.DEMAND_DOWN}
    if missing & set(decision.reasons):
        assert max(told, least) <= decision.desired <= max(told, least, rules.max_replicas)
    else:
        assert least <= decision.desired <= rules.max_replicas
    assert [c.after for c in decision.changes][-1:] in ([], [decision.desired])
    for before, after in pairwise(decision.changes):
        assert before.after == after.before
    assert {change.reason for change in decision.changes} <= set(decision.reasons)


@given(states, kinds, st.floats(0, 30))
@settings(max_examples=150, deadline=None)
def test_more_demand_never_means_fewer_replicas(state: State, kind: str, more: float) -> None:
    if state.demand is None:
        return
    higher = replace(state, demand=replace(state.demand, value=state.demand.value + more))
    assert desired(higher, rules_of(kind)) >= desired(state, rules_of(kind))


@given(states, kinds, st.floats(0, 2000))
@settings(max_examples=150, deadline=None)
def test_more_backlog_never_means_fewer_replicas(state: State, kind: str, more: float) -> None:
    assert state.backlog is not None
    higher = replace(state, backlog=replace(state.backlog, value=state.backlog.value + more))
    assert desired(higher, rules_of(kind)) >= desired(state, rules_of(kind))


@given(states, kinds, st.floats(1, 3))
@settings(max_examples=150, deadline=None)
def test_more_foreseen_demand_never_means_fewer_replicas(state: State, kind: str, factor: float) -> None:
    """All of the path and its quantiles higher by one factor. Not where shortage is weighed against idle replicas: a
    spread that grows makes protection dearer, so less of it is bought; nor where present demand is beyond the band."""
    if state.forecast is None or state.demand is None or KINDS[kind].get("shortage"):
        return
    low = replace(state, forecast=replace(state.forecast, made_at=NOW - 10, valid_until=NOW + 900))
    assert low.forecast is not None
    if state.demand.value > min(max(h.quantiles.values()) for h in low.forecast.horizons):
        return

    def scaled(table: dict[float, float]) -> dict[float, float]:
        return {q: value * factor for q, value in table.items()}

    horizons = tuple(
        replace(
            h,
            value=h.value * factor,
            quantiles=scaled(h.quantiles),
            peak=scaled(h.peak),
            arrivals=scaled(h.arrivals),
        )
        for h in low.forecast.horizons
    )
    seen = low.forecast.window
    window = None if seen is None else replace(seen, peak=scaled(seen.peak))
    high = replace(low, forecast=replace(low.forecast, horizons=horizons, window=window))
    assert desired(high, rules_of(kind)) >= desired(low, rules_of(kind))


@given(states, st.sampled_from(["queue", "service", "service at least cost"]), st.floats(0, 900), rates, rates)
@settings(max_examples=150, deadline=None)
def test_a_longer_lead_time_never_means_fewer_replicas(
    state: State, kind: str, longer: float, first: float, second: float
) -> None:
    """Where demand is not foreseen to fall and nothing is late already: what falls is best met later, and late work is
    drained over the lead time on purpose."""
    low, high = sorted((first, second))
    backlog = 0.0
    state = replace(
        state,
        demand=Sample(low, NOW - 5),
        backlog=Sample(backlog, NOW - 5),
        forecast=forecast([low, *[low + (high - low) * share for share in (0.2, 0.4, 0.7, 1.0)]]),
        lead_time=LeadTime(50.0, 60.0),
    )
    slower = replace(state, lead_time=LeadTime(50.0 + longer, 60.0 + longer))
    assert desired(slower, rules_of(kind)) >= desired(state, rules_of(kind))


@given(states, kinds, st.floats(1, 50))
@settings(max_examples=150, deadline=None)
def test_a_dearer_shortage_never_means_fewer_replicas(state: State, kind: str, factor: float) -> None:
    rules = rules_of(kind)
    if rules.price_per_late_job is not None:
        dearer = replace(rules, price_per_late_job=rules.price_per_late_job * factor)
    elif rules.shortage is not None:
        dearer = replace(rules, shortage=rules.shortage * factor)
    else:
        dearer = replace(rules, objective=1.0 - (1.0 - rules.objective) / factor)
    assert desired(state, dearer) >= desired(state, rules)


@given(states, st.floats(0, 8 * HOUR), st.floats(0, 2 * HOUR), st.booleans())
@settings(max_examples=60, deadline=None)
def test_older_work_with_a_deadline_never_means_fewer_replicas(
    state: State, age: float, older: float, forecast_too: bool
) -> None:
    state = replace(state, oldest_age_seconds=age, forecast=state.forecast if forecast_too else None)
    later = replace(state, oldest_age_seconds=age + older)
    assert desired(later, rules_of("deadline")) >= desired(state, rules_of("deadline"))


RECORD = TypeAdapter(Record)


@given(states, kinds, st.none() | st.builds(Money, counts, st.integers(0, 3), st.none() | counts, rates, st.just(30.0)))
@settings(max_examples=60, deadline=None)
def test_a_decision_is_a_function_of_its_record(state: State, kind: str, money: Money | None) -> None:
    rules = rules_of(kind)
    state = replace(state, money=money)
    record = Record(state, rules, decide(state, rules), Reason.SHADOW)
    back = RECORD.validate_json(as_json(record))
    assert decide(back.state, back.rules) == record.decision


def test_a_record_from_before_the_newer_words_is_still_read_and_computed() -> None:
    state = State(NOW, Sample(20.0, NOW), Sample(10.0, NOW), 0.5, LeadTime(60.0, 60.0), Replicas(11, 11))
    record = Record(state, RULES, decide(state, RULES), Reason.SHADOW)
    old = json.loads(as_json(record))
    for part, fields in (("state", State), ("rules", Rules), ("decision", Decision)):
        for field in dataclasses.fields(fields):
            if field.default is not dataclasses.MISSING and old[part][field.name] in (None, [], 0):
                del old[part][field.name]
    assert "shortage" not in old["rules"]
    back = RECORD.validate_json(json.dumps(old))
    assert back == record
    assert decide(back.state, back.rules) == record.decision


def reversals(numbers: Sequence[int]) -> int:
    """How often the number turned round."""
    moves = [after - before for before, after in pairwise(numbers) if after != before]
    return sum(one * other < 0 for one, other in pairwise(moves))


FLAT = Setting(NOW, NOW + HOUR, 15.0, 60.0, 0.5, 1, 3)


def flat_forecasts(rate: float) -> list[Forecast]:
    made = [NOW - 30 + 30 * turn for turn in range(int(FLAT.end - FLAT.start) // 30 + 2)]
    one = forecast([rate] * 5, 0.15)
    return [replace(one, made_at=at, valid_until=at + 900) for at in made]


@pytest.mark.parametrize("foreseen", [True, False], ids=["with a forecast", "without one"])
@pytest.mark.parametrize("rate", [0.5, 4.0, 20.0])
def test_a_constant_load_without_noise_is_met_once_and_never_left(rate: float, foreseen: bool) -> None:
    arrivals = [NOW + i / rate for i in range(int(HOUR * rate))]
    before = [NOW - i / rate for i in range(int(60 * rate), 0, -1)]
    policy = tidewise(replace(RULES, max_replicas=100), 0.5, flat_forecasts(rate) if foreseen else [])
    result = simulate(arrivals, policy, replace(FLAT, before=before))
    wanted = [number for _, number, _ in result.timeline]
    assert reversals(wanted) <= 1  # up for what was late at the start, and down again
    assert len(set(wanted[len(wanted) // 3 :])) == 1


@pytest.mark.parametrize(("foreseen", "most"), [(True, 4), (False, 16)], ids=["with a forecast", "without one"])
@pytest.mark.parametrize("rate", [4.0, 20.0])
def test_a_constant_load_with_noise_turns_seldom(rate: float, foreseen: bool, most: int) -> None:
    """In an hour, of 240 decisions. A reactive rule follows a minute's rate, which is noise; a forecast does not."""
    draw = random.Random(7)
    arrivals, at = [], NOW - 60.0
    while at < NOW + HOUR:
        at += draw.expovariate(rate)
        arrivals.append(at)
    policy = tidewise(replace(RULES, max_replicas=100), 0.5, flat_forecasts(rate) if foreseen else [])
    start = next(i for i, t in enumerate(arrivals) if t >= NOW)
    result = simulate(arrivals[start:], policy, replace(FLAT, before=arrivals[:start], replicas=int(rate / 2) + 2))
    assert reversals([number for _, number, _ in result.timeline]) <= most


def lived(rules: Rules, demands: Sequence[float], turn: int, memory: Memory, replicas: int) -> list[tuple[Memory, int]]:
    """The decisions from `turn` on, each with the memory after it; replicas come at once."""
    found = []
    for index in range(turn, len(demands)):
        now = NOW + 15.0 * index
        state = State(
            now=now,
            demand=Sample(demands[index], now),
            backlog=Sample(0.0, now),
            service_seconds=0.5,
            replicas=Replicas(replicas, replicas),
            recommendations=memory.recommendations,
            wanted=memory.wanted,
            known_since=memory.known_since,
            started=memory.started,
        )
        replicas = desired(state, rules)
        memory = decided(memory, decide(state, rules), replicas, rules.stabilization_window_seconds)
        found.append((memory, replicas))
    return found


@given(
    st.lists(st.tuples(st.integers(1, 12), rates), min_size=2, max_size=6),
    st.sampled_from(["queue", "service"]),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 4),
    st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_a_restart_in_any_prefix_gives_the_same_decisions_after(
    steps: list[tuple[int, float]], kind: str, up: int | None, down: int | None, when: float
) -> None:
    """The new process knows what was published: what was recommended and told within the window, no more."""
    rules = rules_of(kind, up_per_minute=up, down_per_minute=down)
    demands = [rate for count, rate in [(22, 20.0), *steps] for _ in range(count)]
    whole = lived(rules, demands, 0, Memory(), 10)
    turn = 21 + int(when * (len(demands) - 22))  # not before the window is known
    memory, replicas = whole[turn - 1]
    now = NOW + 15.0 * turn
    since = now - rules.stabilization_window_seconds
    past = Past(
        tuple(one for one in memory.recommendations if one.at >= since),
        tuple(one for one in memory.wanted if one.at >= since),
    )
    restarted = with_past(Memory(), rules, {rules.workload: past}, now)
    again = lived(rules, demands, turn, restarted, replicas)
    assert [number for _, number in again] == [number for _, number in whole[turn:]]
