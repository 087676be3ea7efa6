"""The rule files and configurations, judged by Prometheus's and Alertmanager's own tools."""

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.check import read
from controllers.rules import (
    FILED_HORIZONS,
    FILED_QUANTILES,
    FORECAST,
    SCALE,
    due_rules,
    everything,
    expressions,
    quantile_rules,
    queue_rules,
    render,
    service_rules,
)
from testbed.parts import amtool, promtool

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
TESTS = sorted(path for path in (ROOT / "prometheus" / "tests").glob("*.yml") if not path.name.endswith(".rules.yml"))
EXAMPLE = ROOT / "prometheus" / "tests" / "example.yaml"
GENERATED = ROOT / "prometheus" / "tests" / "example.rules.yml"


def rules_of(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def recorded(name: str) -> dict[str, str]:
    """record -> expression, without white space, of the rules that have no labels of their own."""
    rules = rules_of(ROOT / "prometheus" / "rules" / name)
    return {rule["record"]: squeezed(rule["expr"]) for rule in rules if "record" in rule and "labels" not in rule}


def squeezed(expr: str) -> str:
    return "".join(expr.split())


@functools.cache
def alert_cases() -> list[dict[str, Any]]:
    documents = [yaml.safe_load(path.read_text()) for path in TESTS]
    return [case for document in documents for test in document["tests"] for case in test.get("alert_rule_test", [])]


ALERTS = {rule["alert"]: rule for path in RULES for rule in rules_of(path) if "alert" in rule}


@pytest.mark.real
@pytest.mark.parametrize("path", [*RULES, GENERATED], ids=lambda path: path.name)
def test_promtool_finds_nothing_to_lint(parts_root: Path, path: Path) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", path, root=parts_root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_promtool_agrees_with_what_the_rules_should_say(parts_root: Path, path: Path) -> None:
    done = promtool("test", "rules", path, root=parts_root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_prometheus_takes_its_configuration(parts_root: Path) -> None:
    done = promtool("check", "config", ROOT / "prometheus" / "prometheus.yml", root=parts_root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rule files found" in done.stdout


@pytest.mark.real
def test_alertmanager_takes_its_configuration(parts_root: Path) -> None:
    done = amtool("check-config", ROOT / "prometheus" / "alertmanager" / "alertmanager.yml", root=parts_root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_what_stands_in_for_a_rule_gives_what_the_rule_gives(parts_root: Path, tmp_path: Path) -> None:
    """Over the raw metrics of the first case of workloads.yml: each expression equals its recorded series."""
    document = yaml.safe_load((ROOT / "prometheus" / "tests" / "workloads.yml").read_text())
    case = document["tests"][0]
    config = read(EXAMPLE)
    checks = [
        {
            "expr": f'({expr}) == on (workload) {record}{{workload="{workload}"}}',
            "eval_time": "12m",
            "exp_samples": [{"labels": f'{{workload="{workload}"}}', "value": value}],
        }
        for check in case["promql_expr_test"]
        for sample in check["exp_samples"]
        for record, _, rest in [sample["labels"].partition("{")]
        for workload, value in [(rest.split('"')[1], sample["value"])]
        for expr in [expressions(config)[record][workload]]
    ]
    assert len(checks) == len(yaml.safe_load(GENERATED.read_text())["groups"][0]["rules"])
    document["tests"] = [{**case, "promql_expr_test": checks, "alert_rule_test": []}]
    document["rule_files"] = [str(path) for path in [*RULES, GENERATED]]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    done = promtool("test", "rules", tmp_path / "tests.yml", root=parts_root)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_is_what_the_generator_makes_of_it() -> None:
    assert GENERATED.read_text() == render(read(EXAMPLE)), (
        "run: tidewise rules --config prometheus/tests/example.yaml --out prometheus/tests/example.rules.yml"
    )


def test_the_contract_and_what_stands_in_for_it_are_one() -> None:
    expected = {**queue_rules(everything), **service_rules(everything)}
    found = recorded("contract.yml")
    # queue:drain_seconds:ratio is made of other series of the contract; no reader needs it without them
    assert set(expected) == {name for name in found if name.startswith(("queue:", "service:"))} - {
        "queue:drain_seconds:ratio"
    }
    for name, expr in expected.items():
        assert found[name] == squeezed(expr), name


@pytest.mark.parametrize(("name", "templates"), [("forecast.yml", FORECAST), ("scale.yml", SCALE)])
def test_published_series_and_what_stands_in_for_them_are_one(name: str, templates: dict[str, str]) -> None:
    found = recorded(name)
    for record, template in templates.items():
        assert found[record] == squeezed(template.replace("{}", "")), record


def test_the_default_horizons_and_quantiles_have_their_rules() -> None:
    rules = rules_of(ROOT / "prometheus" / "rules" / "forecast.yml")
    written_out = [rule for rule in rules if {"horizon_seconds", "quantile"} & rule.get("labels", {}).keys()]
    due = [rule for horizon in FILED_HORIZONS for rule in due_rules(horizon)]
    assert written_out == due + [rule for quantile in FILED_QUANTILES for rule in quantile_rules(quantile)]


def test_every_contract_series_is_named_in_its_page() -> None:
    page = (ROOT / "docs" / "contract.md").read_text()
    names = {rule["record"] for path in [*RULES, GENERATED] for rule in rules_of(path) if "record" in rule}
    assert sorted(name for name in names if f"`{name}`" not in page) == []


def test_there_are_alerts() -> None:
    assert len(ALERTS) >= 17


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_has_a_firing_and_a_silent_case(alert: str) -> None:
    cases = [case for case in alert_cases() if case["alertname"] == alert]
    assert any(case["exp_alerts"] for case in cases), "no case in which it fires"
    # Watchdog is the one that is never silent
    assert alert == "Watchdog" or any(not case["exp_alerts"] for case in cases), "no case in which it is silent"


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("page", "warning", "none")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"
    page = (ROOT / rule["annotations"]["runbook_url"]).read_text()
    assert page.startswith(f"# {alert}\n")
    for part in ("## What it means", "## What Tidewise does meanwhile", "## What to do"):
        assert part in page, part


def test_no_runbook_is_without_its_alert() -> None:
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == set(ALERTS)


def test_every_recorded_series_has_a_three_part_name() -> None:
    names = {rule["record"] for path in [*RULES, GENERATED] for rule in rules_of(path) if "record" in rule}
    assert [name for name in names if name.count(":") != 2] == []


def test_ratios_are_rounded_for_the_disk() -> None:
    """`round(x, 1/4096)` takes a third of the room; drain_seconds is a time and accuracy is 1 - a rounded one."""
    found = {name: expr for path in RULES for name, expr in recorded(path.name).items() if ":ratio" in name}
    unrounded = {name for name, expr in found.items() if not expr.startswith("round(")}
    accuracy = {f"workload:forecast_accuracy:ratio_{window}" for window in ("1h", "1d", "7d")}
    assert unrounded == {"queue:drain_seconds:ratio", *accuracy}
