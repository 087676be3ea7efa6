"""Every query of every panel of every dashboard, against the Prometheus of a live demo."""

import re

from grafana import registry
from grafana.queries import Query, queries
from tests.live_demo import NOT_HERE, LiveDemo, is_here

# What a short demo may be without: (dashboard, panel, letter of the query or * for all) and why.
MAY_BE_MISSING = {
    ("hosts", "Memory of the cgroup", "B"): "this machine's cgroup has no limit",
    ("forecast", "The hour ahead", "C"): "300 s ahead was said, and has not come due",
    ("forecast", "The hour ahead", "D"): "900 s ahead neither",
    ("forecast", "The hour ahead", "E"): "1800 s ahead neither",
    ("forecast", "The hour ahead", "F"): "3600 s ahead neither",
    ("forecast", "Accuracy of a day", "*"): "made of full hours, and no hour has passed",
    ("forecast", "Accuracy of a day and of a week", "A"): "made of full hours",
    ("forecast", "Accuracy of a day and of a week", "B"): "made of full hours",
    ("forecast", "Skill over a day and a week", "B"): "made of full hours; the forecaster's own is there",
    ("forecast", "Skill over a day and a week", "C"): "made of full hours",
    ("forecast", "How often each peak quantile held", "A"): "made of full hours; the forecaster's own is there",
    ("forecast", "Model in use, and why it may decide or not", "D"): "no model was refused",
    ("forecast", "Known ahead, and read", "B"): "its calendar has no file",
    ("bottlenecks", "What bound the number of replicas", "*"): "nothing bound it",
    ("budget", "Replicas bound by money", "*"): "money bound nobody",
    ("recovery", "People are told now", "*"): "recovery needed nobody: both workers were mended",
    ("recovery", "People were told", "*"): "recovery needed nobody",
    ("health", "Steps that failed", "*"): "none failed",
    ("health", "Questions without an answer", "*"): "all were answered",
    ("health", "Fits that failed", "*"): "none failed",
    ("patterns", "*", "*"): "a profile takes whole hours; demand alone has some from before",
}
BUT = {("patterns", "Demand")}


def may_be_missing(query: Query) -> bool:
    name = query.dashboard.removeprefix("tidewise-")
    if (name, query.panel) in BUT:
        return False
    if not is_here(query):
        return True
    return any(
        (name, panel, letter) in MAY_BE_MISSING for panel in (query.panel, "*") for letter in (query.letter, "*")
    )


def test_every_query_of_every_panel_has_series(live_demo: LiveDemo) -> None:
    assert len(live_demo.answers) == len({query for board in registry.written().values() for query in queries(board)})
    silent = [query for query in live_demo.silent if not may_be_missing(query) and query.what != "annotation"]
    assert silent == [], "\n".join(f"{one.dashboard} / {one.panel} / {one.letter}: {one.expr}" for one in silent)


def test_the_forecast_and_what_it_is_worth_are_in_the_running_prometheus(live_demo: LiveDemo) -> None:
    due = {"horizon_seconds": "120"}
    for name, labels in (
        ("workload:forecast_demand:value", due),
        ("workload:forecast_demand:quantile", {**due, "quantile": "0.9"}),
        ("workload:forecast_outcome:value", due),
        ("workload:forecast_accuracy:ratio_1h", due),
        ("workload:forecast_skill:ratio_1h", due),
        ("workload:forecast_coverage:ratio_1h", {**due, "quantile": "0.9"}),
        ("workload:forecast_peak_coverage:ratio_1h", {**due, "quantile": "0.9"}),
        ("workload:forecast_window_peak:quantile", {"quantile": "0.9"}),
        ("workload:forecast_noise_floor:ratio", {"mean_seconds": "60"}),
        ("workload:forecast_gate:bool", {}),
        ("tidewise_forecast_skill_ratio", {"window": "1d"}),
        ("tidewise_forecast_skill_ratio", {"window": "7d"}),
    ):
        assert live_demo.now(name, **labels), f"{name} {labels}"


def test_what_happened_is_marked_in_time(live_demo: LiveDemo) -> None:
    marked = {
        query.panel for query, answer in live_demo.answers.items() if query.what == "annotation" and answer.series
    }
    assert marked == {"Alerts", "Recoveries", "Decisions"}, live_demo.said


def test_what_may_be_missing_is_little_and_there_to_be_missed() -> None:
    every = [query for board in registry.written().values() for query in queries(board)]
    known = {(query.dashboard.removeprefix("tidewise-"), query.panel, query.letter) for query in every}
    for dashboard, panel, letter in MAY_BE_MISSING:
        assert any(dashboard == name and panel in (title, "*") and letter in (at, "*") for name, title, at in known), (
            f"{dashboard} / {panel} / {letter}: no such query; take it out"
        )
    here = list(filter(is_here, every))
    assert sum(may_be_missing(query) for query in here) < 0.15 * len(here)
    for pattern in NOT_HERE:
        assert any(re.search(pattern, query.expr) for query in every), f"{pattern}: no such query; take it out"
