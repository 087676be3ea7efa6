"""decide(): one table, each row a sentence. What must hold for every state is in test_decide_properties.py."""

from dataclasses import replace

import pytest

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
from controllers.scale.decide import decide
from controllers.scale.state import Changed, LeadTime, Rules, Signal, SignalRules, State

NOW = 1_800_000_000.0

RULES = Rules(
    workload="default/video",
    is_queue=True,
    min_replicas=1,
    max_replicas=20,
    wait_seconds=5.0,
    objective=0.95,
    concurrency=1,
    service_seconds=0.5,  # 2 jobs a second a replica
    lead_time_seconds=60.0,
    minimum_run_seconds=60.0,
    stabilization_window_seconds=300.0,
    up_per_minute=None,
    down_per_minute=None,
    interval_seconds=15.0,
    data_age_limit_seconds=120.0,
    mode=Mode.ACT,
)


def forecast(rate: float, *, then: float | None = None, gate_open: bool = True, age: float = 10.0) -> Forecast:
    """`rate` a second in two minutes, `then` from five minutes on; the upper quantile 5 % above."""
    later = rate if then is None else then

    def horizon(seconds: int, value: float) -> Horizon:
        arrivals = {0.5: value * seconds, 0.9: value * seconds * 1.04, 0.98: value * seconds * 1.06}
        band = {0.1: value * 0.93, 0.9: value * 1.07, 0.98: value * 1.1}
        return Horizon(seconds, value, band, {0.9: value * 1.1, 0.98: value * 1.15}, arrivals)

    horizons = (horizon(120, rate), *(horizon(s, later) for s in (300, 900, 1800, 3600)))
    return Forecast(NOW - age, NOW - age + 900, "ridge", gate_open, horizons)


STEADY = State(
    now=NOW,
    demand=Sample(20.0, NOW - 5),  # ten replicas' worth
    backlog=Sample(10.0, NOW - 5),
    service_seconds=0.5,
    lead_time=LeadTime(60.0, 60.0),
    replicas=Replicas(wanted=11, ready=11),
    forecast=forecast(20.0),
    known_since=NOW - 3600,
)

IDLE: dict[str, object] = {"demand": Sample(0.0, NOW), "backlog": Sample(0.0, NOW)}
LOW: dict[str, object] = {"demand": Sample(10.0, NOW), "forecast": forecast(10.0)}  # six replicas' worth
THUMBS = SignalRules("thumbs", True, 5.0, 0.95, 1, 0.5)


def asked(surge: int = 0, pause: Direction | None = None) -> tuple[Override, ...]:
    return (Override("o1", NOW - 60, NOW + 600, "ann", surge, pause),)


def window(begin: float, end: float, rate: float) -> Forecast:
    """A forecast that says more of a window than its horizons do."""
    return replace(forecast(20.0), window=DecisionWindow(begin, end, {0.9: rate, 0.98: rate}))


def misses(now: float) -> dict[str, object]:
    """Of a forecast made six minutes ago, demand is `now`; it said 20 for all the time."""
    return {"demand": Sample(now, NOW - 5), "forecast": forecast(20.0, age=360.0)}


HELD_HIGH = (Recommendation(NOW - 200, 11),)

# sentence, changes to the steady state, changes to the rules, desired, reasons that must be there
TABLE: list[tuple[str, dict[str, object], dict[str, object], int | None, set[Reason]]] = [
    ("a steady load keeps what serves it", {}, {}, 11, {Reason.FORECAST}),
    ("a rise ahead is met before it comes", {"forecast": forecast(28.0)}, {}, 15, {Reason.FORECAST}),
    (
        "a rise ten minutes away is left for a later decision",
        {"forecast": replace(forecast(20.0), horizons=(*forecast(20.0).horizons[:2], *forecast(40.0).horizons[2:]))},
        {},
        11,
        {Reason.FORECAST},
    ),
    (
        "a gate that is closed leaves present demand alone to count",
        {"forecast": forecast(38.0, gate_open=False)},
        {},
        11,
        {Reason.REACTIVE, Reason.GATE_CLOSED},
    ),
    ("no forecast: reactive", {"forecast": None}, {}, 11, {Reason.REACTIVE, Reason.FORECAST_MISSING}),
    (
        "an old forecast does not count",
        {"forecast": forecast(38.0, age=901.0)},
        {},
        11,
        {Reason.REACTIVE, Reason.FORECAST_EXPIRED},
    ),
    (
        "a forecast from the future does not count",
        {"forecast": forecast(38.0, age=-300.0)},
        {},
        11,
        {Reason.REACTIVE, Reason.FORECAST_EXPIRED},
    ),
    (
        "demand above the band of a forecast that says less is served",
        {"demand": Sample(30.0, NOW), "forecast": forecast(20.0)},
        {},
        17,  # 15 for the load, and what 11 leave undone in the 60 s until then
        {Reason.REACTIVE_FLOOR},
    ),
    (
        "demand above the band ends nothing that the forecast needs again soon",
        {
            "demand": Sample(12.0, NOW),
            "backlog": Sample(0.0, NOW),
            "forecast": forecast(1.0, then=50.0),
            "replicas": Replicas(18, 18),
        },
        {"minimum_run_seconds": 600.0},
        18,
        {Reason.REACTIVE_FLOOR, Reason.NEEDED_SOON},
    ),
    ("demand unknown, nothing foreseen: hold", {"demand": None, "forecast": None}, {}, 11, {Reason.DEMAND_UNKNOWN}),
    (
        "demand unknown, a rise foreseen: follow it up",
        {"demand": None, "forecast": forecast(28.0)},
        {},
        16,
        {Reason.DEMAND_UNKNOWN, Reason.BLIND_FOLLOWS_FORECAST},
    ),
    (
        "demand unknown, a fall foreseen: hold, never down",
        {"demand": None, "forecast": forecast(4.0)},
        {},
        11,
        {Reason.DEMAND_UNKNOWN, Reason.HOLD},
    ),
    (
        "demand unknown and the forecast's gate closed: hold",
        {"demand": None, "forecast": forecast(28.0, gate_open=False)},
        {},
        11,
        {Reason.DEMAND_UNKNOWN, Reason.GATE_CLOSED, Reason.HOLD},
    ),
    (
        "stale demand is not zero demand",
        {"demand": Sample(0.0, NOW - 121), "forecast": None},
        {},
        11,
        {Reason.DEMAND_STALE, Reason.HOLD},
    ),
    (
        "backlog unknown: hold",
        {"backlog": None, "forecast": None},
        {},
        11,
        {Reason.BACKLOG_UNKNOWN, Reason.HOLD},
    ),
    (
        "holding without data keeps even what is above the maximum",
        {"demand": None, "forecast": None},
        {"max_replicas": 5},
        11,
        {Reason.HOLD},
    ),
    ("target unknown: nothing is desired", {"replicas": None}, {}, None, {Reason.TARGET_UNKNOWN}),
    (
        "no service time known anywhere: hold",
        {"service_seconds": None},
        {"service_seconds": None},
        11,
        {Reason.CAPACITY_UNKNOWN, Reason.HOLD},
    ),
    ("a longer job needs more replicas", {"service_seconds": 0.7}, {}, 16, {Reason.FORECAST}),
    ("two jobs at a time need half", {"replicas": Replicas(6, 6)}, {"concurrency": 2}, 6, {Reason.FORECAST}),
    (
        "the maximum binds and says so",
        {"forecast": forecast(80.0)},
        {},
        20,
        {Reason.FORECAST, Reason.MAX_REPLICAS},
    ),
    (
        "the minimum binds and says so",
        {"demand": Sample(0.0, NOW), "backlog": Sample(0.0, NOW), "forecast": forecast(0.0)},
        {"min_replicas": 2},
        2,
        {Reason.MIN_REPLICAS},
    ),
    (
        "no demand, none foreseen, no backlog: to zero",
        {"demand": Sample(0.0, NOW), "backlog": Sample(0.0, NOW), "forecast": forecast(0.0)},
        {"min_replicas": 0},
        0,
        {Reason.FORECAST},
    ),
    (
        "one job waiting brings one replica from zero",
        {
            "demand": Sample(0.0, NOW),
            "backlog": Sample(1.0, NOW),
            "forecast": None,
            "replicas": Replicas(0, 0),
        },
        {"min_replicas": 0},
        1,
        {Reason.REACTIVE},
    ),
    (
        "a burst is drained over lead time and minimum run, not in a panic",
        {"backlog": Sample(800.0, NOW)},
        {"max_replicas": 200},
        13,  # 80 would drain it within the SLO
        {Reason.FORECAST, Reason.LATE_WORK},
    ),
    (
        "replicas on their way are counted: backlog they will have drained asks for no more",
        {
            "backlog": Sample(300.0, NOW),
            "replicas": Replicas(16, 11, (Pending(5, 55.0),)),
            "recommendations": (Recommendation(NOW - 60, 16),),
        },
        {},
        16,
        {Reason.FORECAST},
    ),
    (
        "scale-in waits for its stabilisation window",
        {"demand": Sample(10.0, NOW), "forecast": forecast(10.0), "recommendations": HELD_HIGH},
        {},
        11,
        {Reason.STABILIZATION},
    ),
    (
        "scale-in after the window goes to what serves the load",
        {"demand": Sample(10.0, NOW), "forecast": forecast(10.0)},
        {},
        6,
        {Reason.FORECAST},
    ),
    (
        "scale-in right after a first start waits until its window is known",
        {"demand": Sample(10.0, NOW), "forecast": forecast(10.0), "known_since": NOW - 10},
        {},
        11,
        {Reason.STABILIZATION},
    ),
    (
        "capacity that is needed again before it has saved anything stays",
        {"demand": Sample(10.0, NOW), "forecast": forecast(10.0, then=20.0)},
        {"minimum_run_seconds": 300.0},
        11,
        {Reason.NEEDED_SOON},
    ),
    (
        "at most so many a minute upwards",
        {"forecast": forecast(34.0), "wanted": (Recommendation(NOW - 30, 10), Recommendation(NOW - 15, 11))},
        {"up_per_minute": 3},
        13,
        {Reason.RATE_LIMIT},
    ),
    (
        "at most so many a minute downwards",
        {"demand": Sample(4.0, NOW), "forecast": forecast(4.0), "wanted": (Recommendation(NOW - 30, 12),)},
        {"down_per_minute": 2},
        10,
        {Reason.RATE_LIMIT},
    ),
    (
        "a service whose foreseen peak is zero needs none, whatever the expected value says",
        {
            "demand": Sample(0.0, NOW),
            "backlog": None,
            "forecast": replace(
                forecast(20.0), horizons=tuple(replace(h, peak={0.9: 0.0, 0.98: 0.0}) for h in forecast(20.0).horizons)
            ),
        },
        {"is_queue": False, "min_replicas": 0},
        0,
        {Reason.FORECAST},
    ),
    (
        "what measures demand is down: said so, and held",
        {"demand": None, "forecast": None, "doubt": Reason.DEMAND_DOWN},
        {},
        11,
        {Reason.DEMAND_DOWN, Reason.HOLD},
    ),
    (
        "Prometheus is down: said so, and the last forecast followed upwards",
        {"demand": None, "backlog": None, "forecast": forecast(28.0), "doubt": Reason.SOURCE_DOWN},
        {},
        16,
        {Reason.SOURCE_DOWN, Reason.BLIND_FOLLOWS_FORECAST},
    ),
    (
        "without data it never falls below what was told, not even to the maximum",
        {"demand": None, "forecast": forecast(38.0), "replicas": Replicas(18, 18)},
        {"max_replicas": 15},
        18,
        {Reason.HOLD},
    ),
    (
        "without data it still has its minimum",
        {"demand": None, "forecast": None, "replicas": Replicas(0, 0)},
        {"min_replicas": 2},
        2,
        {Reason.HOLD, Reason.MIN_REPLICAS},
    ),
    ("zero is known: to the minimum", {**IDLE, "forecast": None}, {}, 1, {Reason.DEMAND_ZERO, Reason.MIN_REPLICAS}),
    (
        "next to nothing foreseen: to zero all the same",
        {**IDLE, "forecast": forecast(0.0002)},
        {"min_replicas": 0},
        0,
        {Reason.DEMAND_ZERO},
    ),
    (
        "… and at zero it stays there",
        {**IDLE, "forecast": forecast(0.0002), "replicas": Replicas(0, 0)},
        {"min_replicas": 0},
        0,
        {Reason.DEMAND_ZERO},
    ),
    (
        "… also while nothing is known of the present",
        {"demand": None, "backlog": None, "forecast": forecast(0.0002), "replicas": Replicas(0, 0)},
        {"min_replicas": 0},
        0,
        {Reason.DEMAND_UNKNOWN, Reason.HOLD},
    ),
    (
        "work foreseen brings replicas from zero before it comes",
        {**IDLE, "forecast": forecast(2.0), "replicas": Replicas(0, 0)},
        {"min_replicas": 0},
        2,
        {Reason.FORECAST, Reason.DEMAND_ZERO},
    ),
    (
        "the least demand of a service brings one replica from zero",
        {"demand": Sample(1e-12, NOW), "backlog": None, "forecast": None, "replicas": Replicas(0, 0)},
        {"is_queue": False, "min_replicas": 0},
        1,
        {Reason.REACTIVE},
    ),
    ("learned concurrency counts, in parts too", {"concurrency": 1.5}, {"concurrency": 4}, 8, {Reason.FORECAST}),
    (
        "a dependency binds: no more than brought more throughput",
        {"demand": Sample(30.0, NOW), "forecast": None, "bound": 12},
        {},
        12,
        {Reason.BOUND_BY_DEPENDENCY},
    ),
    (
        "a dependency binds below what runs: hold, and take nothing away",
        {"demand": Sample(30.0, NOW), "forecast": None, "bound": 8},
        {},
        11,
        {Reason.BOUND_BY_DEPENDENCY},
    ),
    ("the schedule asks for more than the work", {"schedule_floor": 14}, {}, 14, {Reason.SCHEDULE_FLOOR}),
    (
        "the schedule's floor holds without data",
        {"schedule_floor": 14, "demand": None, "forecast": None},
        {},
        14,
        {Reason.SCHEDULE_FLOOR, Reason.HOLD},
    ),
    ("a surge is on top of what the work needs", {"overrides": asked(5)}, {}, 16, {Reason.SURGE}),
    (
        "a surge that is there already is not added again",
        {"overrides": asked(5), "replicas": Replicas(16, 16)},
        {},
        16,
        {Reason.SURGE},
    ),
    ("a surge is bound by the maximum", {"overrides": asked(50)}, {}, 20, {Reason.SURGE, Reason.MAX_REPLICAS}),
    (
        "a surge without data is on top of the minimum, not of what is held",
        {"overrides": asked(5), "demand": None, "forecast": None},
        {},
        11,
        {Reason.HOLD},
    ),
    (
        "a pause upwards lets it not grow",
        {"overrides": asked(pause=Direction.UP), "forecast": forecast(30.0)},
        {},
        11,
        {Reason.PAUSED},
    ),
    ("a pause upwards lets it fall", {**LOW, "overrides": asked(pause=Direction.UP)}, {}, 6, {Reason.FORECAST}),
    ("a pause downwards lets it not fall", {**LOW, "overrides": asked(pause=Direction.DOWN)}, {}, 11, {Reason.PAUSED}),
    ("a pause both ways holds", {**LOW, "overrides": asked(pause=Direction.BOTH)}, {}, 11, {Reason.PAUSED}),
    (
        "a pause does not hold what is beyond the bounds",
        {"overrides": asked(pause=Direction.BOTH)},
        {"max_replicas": 8},
        8,
        {Reason.PAUSED, Reason.MAX_REPLICAS},
    ),
    (
        "scale-in ends none whose minimum billing time is not over",
        {**LOW, "started": (Recommendation(NOW - 600, 3), Recommendation(NOW - 30, 8))},
        {},
        8,
        {Reason.PAID_ALREADY},
    ),
    (
        "scale-in ends those whose time is over, however many are younger",
        {**LOW, "started": (Recommendation(NOW - 600, 7), Recommendation(NOW - 30, 4))},
        {},
        6,
        {Reason.FORECAST},
    ),
    (
        "capacity is kept for as long as a start would cost",
        {"demand": Sample(10.0, NOW), "forecast": forecast(10.0, then=20.0), "start_seconds": 240.0},
        {},
        11,
        {Reason.NEEDED_SOON},
    ),
    (
        "a further demand that needs more decides",
        {**LOW, "more": (Signal(Sample(24.0, NOW), Sample(0.0, NOW)),)},
        {"more": (THUMBS,)},
        13,
        {Reason.REACTIVE},
    ),
    (
        "a further demand that needs less changes nothing",
        {"more": (Signal(Sample(4.0, NOW), Sample(0.0, NOW)),)},
        {"more": (THUMBS,)},
        11,
        {Reason.FORECAST},
    ),
    (
        "a further demand that is unknown holds",
        {**LOW, "more": (Signal(doubt=Reason.DEMAND_DOWN),)},
        {"more": (THUMBS,)},
        11,
        {Reason.DEMAND_DOWN, Reason.HOLD},
    ),
    (
        "a further demand that is unknown keeps no other from growing",
        {"forecast": forecast(28.0), "more": (Signal(),)},
        {"more": (THUMBS,)},
        15,
        {Reason.FORECAST, Reason.DEMAND_UNKNOWN},
    ),
    (
        "demand beyond what an old forecast said about now corrects it upwards",
        misses(30.0),
        {"is_queue": False},
        16,
        {Reason.FORECAST, Reason.FORECAST_CORRECTED},
    ),
    (
        "demand far below what an old forecast said corrects it by half at most",
        {**misses(1.0), "replicas": Replicas(4, 4)},
        {"is_queue": False},
        6,
        {Reason.FORECAST_CORRECTED},
    ),
    (
        "demand within the band corrects nothing",
        misses(21.0),
        {"is_queue": False},
        12,
        {Reason.FORECAST},
    ),
    (
        "a service: the forecast's own window counts where it is the decision's",
        {"forecast": window(60.0, 110.0, 26.0)},
        {"is_queue": False},
        13,
        {Reason.FORECAST},
    ),
    (
        "a service: a window of another lead time does not count",
        {"forecast": window(900.0, 1000.0, 60.0)},
        {"is_queue": False},
        12,
        {Reason.FORECAST},
    ),
    (
        "a service whose lost jobs are dear gets more than its objective asks for",
        {},
        {"is_queue": False, "price_per_replica_hour": 12.0, "price_per_late_job": 50.0},
        13,
        {Reason.FORECAST, Reason.LEAST_COST},
    ),
    (
        "a service whose lost jobs are cheap gets less",
        {},
        {"is_queue": False, "price_per_replica_hour": 12.0, "price_per_late_job": 0.003},
        10,
        {Reason.FORECAST, Reason.LEAST_COST},
    ),
    (
        "a queue whose late jobs are dear gets more than its objective asks for",
        {},
        {"price_per_replica_hour": 12.0, "price_per_late_job": 50.0},
        12,
        {Reason.FORECAST, Reason.LEAST_COST},
    ),
    (
        "a queue at least cost serves the expected load in any case",
        {},
        {"price_per_replica_hour": 12.0, "price_per_late_job": 0.000001},
        11,
        {Reason.LEAST_COST},
    ),
    (
        "work with a deadline waits",
        {**IDLE, "backlog": Sample(5.0, NOW), "oldest_age_seconds": 60.0, "replicas": Replicas(0, 0)},
        {"min_replicas": 0, "deadline_seconds": 21600.0},
        0,
        {Reason.DEFERRED},
    ),
    (
        "work with a deadline that can wait no longer",
        {"backlog": Sample(5.0, NOW), "oldest_age_seconds": 20000.0, "replicas": Replicas(0, 0), "forecast": None},
        {"min_replicas": 0, "deadline_seconds": 21600.0},
        1,
        {Reason.DEADLINE},
    ),
    (
        "work with a deadline, money for one replica: the deadline still counts, the money binds",
        {
            "backlog": Sample(80000.0, NOW),
            "oldest_age_seconds": 60.0,
            "replicas": Replicas(0, 0),
            "money": Money(0, 0, 1, 0.0, 1200.0),
        },
        {"min_replicas": 0, "deadline_seconds": 21600.0},
        1,
        {Reason.DEADLINE, Reason.BUDGET_CAP},
    ),
    (
        "a service is sized for the peak of its window",
        {"backlog": None},
        {"is_queue": False},
        12,
        {Reason.FORECAST},
    ),
]


@pytest.mark.parametrize(("sentence", "state", "rules", "desired", "reasons"), TABLE, ids=[row[0] for row in TABLE])
def test_decide(
    sentence: str, state: dict[str, object], rules: dict[str, object], desired: int | None, reasons: set[Reason]
) -> None:
    decision = decide(replace(STEADY, **state), replace(RULES, **rules))  # type: ignore[arg-type]
    assert decision.desired == desired, f"{sentence}: {decision}"
    assert reasons <= set(decision.reasons), f"{sentence}: {decision.reasons}"


def test_every_step_that_changes_the_number_says_so_in_order() -> None:
    state = replace(
        STEADY, forecast=forecast(34.0), schedule_floor=18, overrides=asked(5), bound=12, money=Money(11, 0, 3, 0, 1200)
    )
    decision = decide(state, replace(RULES, up_per_minute=6))
    assert decision.changes == (
        Changed(Reason.BOUND_BY_DEPENDENCY, 19, 12),
        Changed(Reason.SCHEDULE_FLOOR, 12, 18),
        Changed(Reason.SURGE, 18, 23),
        Changed(Reason.MAX_REPLICAS, 23, 20),
        Changed(Reason.RATE_LIMIT, 20, 17),
        Changed(Reason.BUDGET_CAP, 17, 14),
    )
    assert (decision.recommended, decision.desired, decision.unbudgeted) == (20, 14, 17)


def test_the_demand_that_decided_is_named() -> None:
    state = replace(STEADY, more=(Signal(Sample(36.0, NOW), Sample(0.0, NOW)),))
    assert decide(state, replace(RULES, more=(THUMBS,))).signal == "thumbs"
    assert decide(replace(state, more=(Signal(Sample(1.0, NOW), Sample(0.0, NOW)),)), RULES).signal is None


@pytest.mark.parametrize(
    ("sentence", "answers", "coming", "desired"),
    [
        ("nothing was answered: the peak of all that the forecast covers", [], 8.0, 10),
        ("earlier windows needed six: no more is kept", [6] * 40, 8.0, 6),
        ("… unless more is expected by now", [6] * 40, 18.0, 9),
        ("not every window was looked at", [6] * 20 + [0] * 10 + [6] * 10, 8.0, 10),
        ("the last window was not looked at", [6] * 30 + [0] * 10, 8.0, 10),
    ],
)
def test_a_service_keeps_what_the_windows_until_this_one_need(
    sentence: str, answers: list[int], coming: float, desired: int
) -> None:
    """An answer each 15 s of the last ten minutes, the lead time; 0: none. `coming`: expected within five minutes."""
    near = [Horizon(s, coming, {}, {0.5: 20.0, 0.98: 20.0}) for s in (120, 300)]
    far = Horizon(900, 8.0, {}, {0.5: 20.0, 0.98: 20.0})
    window = DecisionWindow(630.0, 690.0, {0.5: 8.0, 0.98: 8.0})
    state = replace(
        STEADY,
        demand=Sample(8.0, NOW),
        backlog=None,
        lead_time=None,
        forecast=Forecast(NOW - 10, NOW + 900, "ridge", True, (*near, far), window),
        answers=tuple(Recommendation(NOW - 600 + 15 * i, n) for i, n in enumerate(answers) if n),
    )
    rules = replace(RULES, is_queue=False, lead_time_seconds=600.0, stabilization_window_seconds=0.0)
    assert decide(state, rules).desired == desired, sentence


def test_while_the_gate_is_closed_a_service_keeps_what_was_asked_for_and_has_headroom() -> None:
    """The window's quantiles then tell how far demand strays from what it is."""
    window = DecisionWindow(630.0, 690.0, {0.5: 8.0, 0.95: 12.0})
    state = replace(
        STEADY,
        demand=Sample(8.0, NOW),
        backlog=None,
        lead_time=None,
        forecast=Forecast(NOW - 10, NOW + 900, "ridge", False, (Horizon(300, 99.0, {}, {0.95: 99.0}),), window),
        answers=tuple(Recommendation(NOW - 600 + 15 * i, 9 if i == 30 else 3) for i in range(40)),
    )
    rules = replace(RULES, is_queue=False, lead_time_seconds=600.0, stabilization_window_seconds=0.0)
    found = decide(state, rules)
    assert found.desired == 9, "asked for two minutes ago, for a window that is still to come"
    assert {Reason.REACTIVE, Reason.GATE_CLOSED, Reason.NEEDED_SOON} <= set(found.reasons)
    assert found.needed == decide(replace(state, demand=Sample(12.0, NOW), forecast=None), rules).needed, "headroom"
