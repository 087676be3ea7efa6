"""The dashboards as JSON, and every query of every panel against a real Prometheus."""

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry

from controllers.budget import publish as budget
from controllers.forecast import publish as forecast
from controllers.loop import LoopMetrics
from controllers.recovery import publish as recovery
from controllers.scale import publish as scale
from exporters.reference import families_by_exporter
from grafana import registry
from grafana.queries import Prometheus, Query, QueryError, fill, panels, queries, silent

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = registry.written()
QUERIES = [query for dashboard in DASHBOARDS.values() for query in queries(dashboard)]
ALERTS = [
    rule["alert"]
    for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
HALF_AN_HOUR = (-1800.0, 0.0)


def each_panel() -> list[Any]:
    return [
        pytest.param(panel, id=f"{name}: {panel['title']}")
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
    ]


def test_the_files_are_what_the_code_makes() -> None:
    assert set(DASHBOARDS) == set(registry.DASHBOARDS), "run: python -m grafana"
    for name in registry.DASHBOARDS:
        text = (registry.FOLDER / f"{name}.json").read_text()
        assert text == registry.render(name), (
            f"{name}.json is not what the code (or a runbook) says; run: python -m grafana"
        )


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_key_is_one_that_the_model_knows(name: str) -> None:
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(DASHBOARDS[name]), cls=JSONEncoder))
    for shown in (*again["links"], *again["annotations"]["list"]):
        del shown["placement"]
    assert again == DASHBOARDS[name]


def test_writing_changes_only_what_differs_and_removes_what_is_no_more(tmp_path: Path) -> None:
    registry.write(tmp_path)
    (tmp_path / "gone.json").write_text("{}")
    (tmp_path / "hosts.json").write_text("{}")
    assert {path.name for path in registry.write(tmp_path)} == {"gone.json", "hosts.json"}
    assert registry.written(tmp_path) == DASHBOARDS


def test_uids_are_stable_and_links_lead_to_dashboards_that_exist() -> None:
    uids = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert uids == {f"tidewise-{name}" for name in DASHBOARDS}
    for name, dashboard in DASHBOARDS.items():
        assert set(re.findall(r'"/d/([\w-]+)', json.dumps(dashboard))) <= uids
        at_top = {link["title"] for link in dashboard["links"] if link["keepTime"] and link["includeVars"]}
        assert at_top == {"Dashboards", "Overview", "Runbooks"} - {name.capitalize()}


@pytest.mark.parametrize("panel", each_panel())
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    if panel["type"] == "text":
        assert panel["options"]["content"]
        return
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 10
    assert defaults["unit"]
    assert defaults["noValue"] == "n/a"
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert not defaults.get("custom", {}).get("spanNulls", False)  # a gap stays a gap
    assert panel["targets"]


def test_a_number_is_of_now_and_never_the_last_that_was_known() -> None:
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            if panel["type"] in ("stat", "bargauge", "table"):
                assert all(target["instant"] for target in panel["targets"]), panel["title"]
                # an instant query asks for the end of the range, which here may lie in the future
                assert dashboard["time"]["to"] == "now" or panel["timeFrom"] == "5m", panel["title"]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.dashboard}: {query.panel} {query.letter}")
def test_a_query_reads_raw_counters_only_by_the_rate_interval_and_invents_no_zero(query: Query) -> None:
    assert "vector(0)" not in query.expr
    for function, inside in re.findall(r"\b(rate|increase|irate)\(([^()]*)", query.expr):
        assert ":" not in inside.split("{")[0], f"{function} of a contract series, which is a rate already"
        assert inside.rstrip().endswith("[$__rate_interval]") or query.what == "stat", query.expr


def test_every_alert_has_its_runbook_on_the_dashboard() -> None:
    titles = [panel["title"] for panel in panels(DASHBOARDS["runbooks"])]
    assert sorted(set(ALERTS)) == titles


def test_panels_of_a_row_fill_its_width() -> None:
    for name, dashboard in DASHBOARDS.items():
        places = [panel["gridPos"] for panel in dashboard["panels"]]
        for y, row in itertools.groupby(sorted(places, key=lambda place: place["y"]), key=lambda place: place["y"]):
            assert sum(place["w"] for place in row) == 24 or name == "runbooks", f"{name}, at {y}"


@pytest.mark.real
@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_of_every_panel_finds_series(answering: Prometheus, name: str) -> None:
    assert all(answering.variables(DASHBOARDS[name]).values())
    assert silent(answering, DASHBOARDS[name], HALF_AN_HOUR, 15.0) == []


@pytest.mark.real
def test_the_first_value_of_each_variable_is_one_that_exists(answering: Prometheus) -> None:
    assert answering.variables(DASHBOARDS["forecast"]) == {"workload": "default/video", "horizon": "300"}
    assert answering.variables(DASHBOARDS["hosts"]) == {"instance": ".+"}
    assert answering.variables(DASHBOARDS["forecast"], {"horizon": "900"})["horizon"] == "900"


@pytest.mark.real
def test_a_forecast_is_drawn_at_the_time_it_speaks_of_and_what_came_ends_now(answering: Prometheus) -> None:
    dashboard = DASHBOARDS["forecast"]
    values = answering.variables(dashboard)
    ends = {
        (query.panel, query.legend): max(at for _, samples in answer.series for at, _ in samples) - answering.at
        for query in queries(dashboard)
        if query.panel in ("Forecast vs actual", "The hour ahead")
        for answer in [answering.answer(query, values, (-1800.0, 7200.0), 15.0)]
    }
    # 300 s more if the newest sample were repeated as Prometheus does
    assert -120 < ends["Forecast vs actual", "came"] < 250
    assert 300 - 120 < ends["Forecast vs actual", "said"] < 300 + 250
    assert 3600 - 120 < ends["The hour ahead", "said 60 min before"] < 3600 + 250


@pytest.mark.real
def test_what_is_said_about_a_moment_is_compared_with_what_came_then(answering: Prometheus) -> None:
    dashboard = DASHBOARDS["forecast"]
    values = answering.variables(dashboard)
    came, said = (
        dict(answering.answer(query, values, (-3600.0, -1200.0), 60.0).series[0][1])
        for query in queries(dashboard)
        if query.panel == "Forecast vs actual" and query.legend in ("came", "said")
    )
    shared = came.keys() & said.keys()
    assert len(shared) > 30
    assert all(abs(came[at] - said[at]) < 0.1 for at in shared)  # the seeded forecast is right


@pytest.mark.real
def test_the_profile_puts_a_value_into_its_hour_of_the_week(answering: Prometheus) -> None:
    dashboard = DASHBOARDS["patterns"]
    query = next(query for query in queries(dashboard) if query.panel == "Demand")
    cells = {
        shift: {
            (labels["weekday"], labels["hour"]): samples[0][1]
            for labels, samples in answering.answer(
                query, {"workload": "default/video", "utc_offset": shift}, HALF_AN_HOUR, 15.0
            ).series
        }
        for shift in ("0", "9", "-24")
    }
    assert len(cells["0"]) >= 24
    for (weekday, hour), value in cells["0"].items():
        shifted = divmod(int(hour) + 9, 24)
        assert cells["9"][str((int(weekday) + shifted[0]) % 7), f"{shifted[1]:02}"] == value
        assert cells["-24"][str((int(weekday) - 1) % 7), hour] == value


REGEX_GROUP = 'label_replace(a, "b", "0$1", "c", "(.)")'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('a{b="$x"}', 'a{b="1"}', id="a plain name"),
        pytest.param("a offset ${x}s", "a offset 1s", id="braces end a name"),
        pytest.param("${x:regex}", "1", id="a format is ignored"),
        pytest.param(REGEX_GROUP, REGEX_GROUP, id="a group of a regex is no variable"),
        pytest.param("rate(a[$__rate_interval])", "rate(a[1m])", id="Grafana's own interval"),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert fill(text, {"x": "1"}) == expected


def test_a_variable_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(QueryError, match="no variable is called horizons"):
        fill("a offset $horizons", {"horizon": "300"})


def test_provisioning_names_the_kind_of_source_that_the_dashboards_ask_for() -> None:
    folder = registry.FOLDER.parent / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "tidewise.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((folder / "dashboards" / "tidewise.yml").read_text())["providers"]
    assert source["type"] == DASHBOARDS["overview"]["templating"]["list"][0]["query"] == "prometheus"
    assert source["url"] == "${TIDEWISE_PROMETHEUS_URL}"
    assert provider["options"]["path"] == "${TIDEWISE_DASHBOARDS}"


def families() -> dict[str, set[str] | None]:
    """Series that the controllers really publish -> their labels; None where only a sample would tell them."""
    loop = CollectorRegistry()
    LoopMetrics(SimpleNamespace(name="x", interval_seconds=15.0, deadline_seconds=10.0), loop)
    scaler, target = scale.Published(), SimpleNamespace(restart=object(), replace=object())
    scaler.source_answered("timeout")
    scaler.replace({}, scale.Standing(leads=True, ledger_silent_seconds=0.0))
    ledger = budget.Published("KRW", budget.Tallies)
    ledger.replace(budget.Shown(SimpleNamespace(budgets=()), (), {}, 0))
    found: dict[str, set[str] | None] = {}
    for source in (
        scaler,
        forecast.ForecastCollector(),
        ledger,
        recovery.Published({"workers": target}, recovery.Counter()),
        loop,
    ):
        for family in source.collect():
            labels = set(family._labelnames) if hasattr(family, "_labelnames") else None
            suffixes = {"counter": ["_total"], "histogram": ["_sum", "_count", "_bucket"]}.get(family.type, [""])
            found.update({family.name + suffix: labels for suffix in suffixes})
    return found


def test_what_the_queries_are_tried_on_is_what_the_processes_publish(seeded: list[tuple[str, set[str]]]) -> None:
    """Else a dashboard could be right about series that nobody publishes."""
    real = families()
    declared = {family.series: set(family.labels) for every in families_by_exporter().values() for family in every}
    for name, labels in seeded:
        stem = name if name in declared else re.sub("_(bucket|sum|count)$", "", name)
        if name in real:
            assert real[name] in (None, labels), name
        elif stem in declared:
            assert labels - {"le"} <= declared[stem], name
        else:
            by_libraries = name.startswith(("process_", "scrape_")) or name in ("up", "tidewise_build_info")
            assert by_libraries, f"{name}: nobody publishes that"
