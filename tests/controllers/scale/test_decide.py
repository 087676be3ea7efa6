"""decide(): one table, each row a sentence. What must hold for every state is in test_decide_properties.py."""

from dataclasses import replace

import pytest

from controllers.domain import Forecast, Horizon, Mode, Pending, Reason, Recommendation, Replicas, Sample
from controllers.scale.decide import decide
from controllers.scale.state import LeadTime, Rules, State

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
