"""What is shown: the contract series as they are, unknown as unknown, the hour ahead drawn."""

from dataclasses import replace

import pytest
from rich.console import Console

from demo.chart import CELLS, ROWS, chart
from demo.prom import Value
from demo.reading import Ahead, Reading, forecast_shown, reading
from demo.view import Clock, picture, plain_line

OURS = {"workload": "demo/video-analysis"}
CLOCK = Clock(now=130.0, end=420.0, rise=210.0, burst=355.0)
AHEAD = (Ahead(120, 24.0, 22.0, 26.0), Ahead(3600, 28.0, 25.0, 31.0))


def value(name: str, number: float, **labels: str) -> Value:
    return Value(name, {**OURS, **labels}, number, at=0.0)


FULL = [
    value("workload:demand:rate1m", 21.5),
    value("workload:backlog:sum", 13.0),
    value("workload:oldest_age_seconds:max", 0.4),
    value("workload:replicas:current", 12.0),
    value("workload:replicas:wanted", 13.0),
    value("workload:replicas:desired", 14.0),
    value("tidewise_scale_replicas_reactive", 12.0),
    value("workload:lead_time_seconds:quantile", 65.0, quantile="0.9"),
    value("workload:forecast_gate:bool", 1.0),
    value("tidewise_forecast_model_info", 1.0, model="ridge"),
    value("tidewise_scale_decision_reason", 1.0, reason="applied"),
    value("tidewise_scale_decision_reason", 1.0, reason="forecast"),
    value("workload:forecast_demand:value", 24.0, horizon_seconds="120"),
    value("workload:forecast_demand:quantile", 22.0, horizon_seconds="120", quantile="0.1"),
    value("workload:forecast_demand:quantile", 26.0, horizon_seconds="120", quantile="0.9"),
    value("workload:forecast_demand:value", 28.0, horizon_seconds="3600"),
]


def drawn(now: Reading | None, *news: str) -> str:
    console = Console(width=100, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(picture("Tidewise", now, [(0.0, 20.0)], CLOCK, news))
    return captured.get()


def test_the_contract_series_of_our_workload_are_read() -> None:
    others = [Value("workload:demand:rate1m", {"workload": "default/other"}, 99.0, 0.0)]
    now = reading([*others, *FULL])
    assert (now.demand, now.backlog, now.oldest_seconds) == (21.5, 13.0, 0.4)
    assert (now.ready, now.wanted, now.desired, now.reactive) == (12.0, 13.0, 14.0, 12.0)
    assert now.reasons == ("forecast", "applied")  # what it rests on before how it was carried out
    assert now.ahead == (Ahead(120, 24.0, 22.0, 26.0), Ahead(3600, 28.0, None, None))
    assert (now.model, now.gate_open) == ("ridge", True)


def test_alerts_that_fire_are_read_but_not_the_watchdog() -> None:
    alerts = [
        Value("ALERTS", {"alertname": "Watchdog", "alertstate": "firing", "severity": "none"}, 1.0, 0.0),
        Value("ALERTS", {"alertname": "QueueAgeSLO", "alertstate": "firing", "severity": "page"}, 1.0, 0.0),
        Value("ALERTS", {"alertname": "QueueGrowing", "alertstate": "pending", "severity": "warning"}, 1.0, 0.0),
    ]
    assert reading(alerts).firing == ("QueueAgeSLO",)


def test_a_plain_line_says_demand_forecast_queue_workers_and_the_reason() -> None:
    assert plain_line(reading(FULL), CLOCK) == (
        "2:10/7:00  demand 21.5/s  in 2 min 24.0 (22.0–26.0)  waiting 13, oldest 0.4 s"
        "  workers 12 of 13 -> 14 [forecast, applied]"
    )


def test_what_is_unknown_is_said_to_be_unknown_and_never_zero() -> None:
    line = plain_line(Reading(), CLOCK)
    assert line == (
        "2:10/7:00  demand unknown/s  ahead unknown  waiting unknown, oldest unknown"
        "  workers unknown of unknown -> unknown [no decision yet]"
    )
    assert " 0" not in drawn(None).split("┤")[0]
    assert "Prometheus does not answer: everything is unknown" in drawn(None)


def test_the_picture_shows_the_same_and_the_news() -> None:
    text = drawn(reading(FULL), "13:40:12  NOTIFICATION: QueueAgeSLO: late")
    for shown in (
        "2:10 of 7:00: the rise begins in 1:20",
        "21.5 jobs/s",
        "24.0 (22.0–26.0)",
        "in 2 min, by ridge",
        "oldest waits 0.4 s  (SLO 5 s)",
        "12 ready of 13",
        "→ 14 desired; without forecast 12",
        "forecast, applied",
        "NOTIFICATION: QueueAgeSLO",
    ):
        assert shown in text


def test_a_model_without_skill_is_shown_as_not_used() -> None:
    closed = [v for v in FULL if v.name != "workload:forecast_gate:bool"] + [value("workload:forecast_gate:bool", 0.0)]
    assert "by ridge, no skill: not used" in drawn(reading(closed))


@pytest.mark.parametrize(
    ("lead", "horizon"),
    [
        pytest.param(65.0, 120, id="the first that is not shorter than the lead time"),
        pytest.param(300.0, 3600, id="a longer one for a longer lead time"),
        pytest.param(9999.0, 3600, id="the longest where all are too short"),
        pytest.param(None, 120, id="the first while the lead time is unknown"),
    ],
)
def test_which_forecast_is_shown(lead: float | None, horizon: int) -> None:
    shown = forecast_shown(Reading(lead_seconds=lead, ahead=AHEAD))
    assert shown is not None
    assert shown.seconds == horizon


def test_the_chart_draws_what_was_and_what_is_foreseen_with_its_band() -> None:
    past = [(minute * 60.0, 20.0) for minute in range(60)]
    rows = [row.plain[7:] for row in chart(past, AHEAD, at=3600.0)[:ROWS]]
    assert rows[-1] == "█" * CELLS + "│" + "█" * CELLS
    assert "░" in rows[0]
    assert "░" not in rows[0][:CELLS]


def test_the_chart_is_empty_where_nothing_is_known() -> None:
    rows = [row.plain[7:] for row in chart([], (), at=0.0)[:ROWS]]
    assert {row.replace("│", "").strip() for row in rows} == {""}


@pytest.mark.parametrize(
    ("clock", "phase"),
    [
        pytest.param(Clock(10, 420, 210, 355), "the rise begins in 3:20", id="before the rise"),
        pytest.param(Clock(300, 420, 210, 355), "the rise is on; the burst comes in 0:55", id="in the rise"),
        pytest.param(Clock(400, 420, 210, 355), "the rise and a burst are on", id="in the burst"),
        pytest.param(Clock(300, 420, 210, None), "the rise is on", id="without a burst"),
        pytest.param(Clock(425, 420, 210, 355), "the workers finish what waits", id="after the last job"),
    ],
)
def test_where_the_run_stands(clock: Clock, phase: str) -> None:
    assert clock.phase == phase


SPEND = [
    Value(f"tidewise_budget_{name}", {"budget": budget, "currency": "KRW"}, amount, 0.0)
    for budget, factor in (("usage", 1.0), ("total", 2.0))
    for name, amount in (
        ("limit", 15000 * factor),
        ("posted", 11262.4 * factor),
        ("held", 1.25 * factor),
        ("projected", 13000.0 * factor),
    )
] + [Value("budget:level:value", {"budget": "usage"}, 1.0, 0.0)]
MENDING = [
    Value("target:recovery_operations:sum", {"target": "workers", "step": "restart", "state": "verifying"}, 1.0, 0.0),
    Value("target:recovery_operations:sum", {"target": "workers", "step": "none", "state": "none"}, 0.0, 0.0),
]


def test_spend_is_that_of_the_usage_budget_and_what_recovery_does_is_shown_while_it_does_something() -> None:
    now = reading([*FULL, *SPEND, *MENDING])
    usage = now.usage
    assert (usage.limit, usage.posted, usage.held, usage.projected, usage.level) == (
        15000.0, 11262.4, 1.25, 13000.0, "economy",
    )  # fmt: skip
    assert now.mending == ("restart verifying",)
    clock = replace(CLOCK, budget=True)
    assert plain_line(now, clock).endswith("spent 11262 of 15000 KRW  mending: restart verifying")
    assert plain_line(reading(FULL), clock).endswith("spent unknown of unknown KRW")
    console = Console(width=100, record=True, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(picture("Tidewise", now, [(0.0, 20.0)], clock, ()))
    for shown in ("11,262.4 of 15,000 KRW (75.1%)", "month-end 13000; level economy", "restart verifying"):
        assert shown in captured.get()
