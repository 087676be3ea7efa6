"""What `tidewise rules` makes of a configuration, as text; promtool's opinion of it is in tests/prometheus."""

from pathlib import Path

import pytest
import yaml

from controllers import rules
from controllers.config import Config, load

WORKLOAD = """\
  - name: {name}
    demand: {demand}
    target: {{command: {{get: [count], set: [scale, "{{replicas}}"]}}}}
    replicas: {{max: 4}}
"""


def config_of(tmp_path: Path, *demands: str, more: str = "") -> Config:
    path = tmp_path / "tidewise.yaml"
    workloads = "".join(WORKLOAD.format(name=f"w{number}", demand=demand) for number, demand in enumerate(demands))
    path.write_text(f"workloads:\n{workloads}{more}" if demands else more or "workloads: []\n")
    return load(path)


def expression(config: Config, record: str, workload: str) -> str:
    (found,) = [
        rule["expr"]
        for rule in rules.workload_rules(config)["groups"][0]["rules"]
        if (rule["record"], rule["labels"]["workload"]) == (record, workload)
    ]
    return str(found)


DEMANDS = [
    ("a queue", "{queue: jobs}", 'sum(queue:arrivals:rate1m{system="redis",queue="jobs"})'),
    (
        "a queue of another system",
        "{queue: jobs, system: rabbitmq}",
        'sum(queue:arrivals:rate1m{system="rabbitmq",queue="jobs"})',
    ),
    (
        "a queue with a strange name",
        r"""{queue: 'a"b\c'}""",
        r'sum(queue:arrivals:rate1m{system="redis",queue="a\"b\\c"})',
    ),
    ("a service", "{service: shop}", 'sum(service:requests:rate1m{service="shop"})'),
    ("an expression", "{promql: 'rate(x_total[1m])'}", "sum(\nrate(x_total[1m])\n)"),
    (
        "an expression that ends in a comment",
        "{promql: 'rate(x_total[1m]) # of all'}",
        "sum(\nrate(x_total[1m]) # of all\n)",
    ),
]


@pytest.mark.parametrize(("demand", "expected"), [row[1:] for row in DEMANDS], ids=[row[0] for row in DEMANDS])
def test_demand_of(tmp_path: Path, demand: str, expected: str) -> None:
    assert expression(config_of(tmp_path, demand), "workload:demand:rate1m", "default/w0") == expected


def test_what_is_configured_becomes_a_series(tmp_path: Path) -> None:
    config = config_of(tmp_path, "{queue: jobs}", more="scale: {data_age_limit_seconds: 90}\n")
    assert expression(config, "workload:replicas:max", "default/w0") == "vector(4)"
    assert expression(config, "workload:slo_wait_seconds:max", "default/w0") == "vector(60)"
    assert expression(config, "workload:data_age_limit_seconds:max", "default/w0") == "vector(90)"


def test_a_service_and_an_expression_have_no_backlog(tmp_path: Path) -> None:
    config = config_of(tmp_path, "{service: shop}", "{promql: up}")
    records = {rule["record"] for rule in rules.workload_rules(config)["groups"][0]["rules"]}
    assert not {record for record in records if "backlog" in record or "oldest" in record}


def test_further_horizons_bring_their_own_rules(tmp_path: Path) -> None:
    config = config_of(tmp_path, more="forecast: {horizons_seconds: [300, 7200]}\n")
    group = rules.workload_rules(config)["groups"][1]
    spoken_of = 'and on (workload) workload:forecast_due:value{horizon_seconds="7200"}'
    assert group["name"] == "tidewise-forecast-horizons"
    assert [rule["expr"] for rule in group["rules"]] == [
        'workload:forecast_demand:value{horizon_seconds="7200"} offset 7200s',
        'workload:forecast_demand:quantile{horizon_seconds="7200"} offset 7200s',
        f"workload:demand:rate1m offset 7200s\n{spoken_of}",
        'workload:forecast_peak:quantile{horizon_seconds="7200"} offset 7200s',
        (
            f"max_over_time(workload:demand:rate1m[7200s:1m]) and workload:demand:rate1m {spoken_of}\n"
            "unless on (workload) max_over_time(workload:demand_censored:bool[7200s]) == 1"
        ),
    ]
    assert {rule["labels"]["horizon_seconds"] for rule in group["rules"]} == {"7200"}


def test_further_quantiles_bring_their_own_rule(tmp_path: Path) -> None:
    config = config_of(tmp_path, more="forecast: {quantiles: [0.1, 0.75]}\n")
    group = rules.workload_rules(config)["groups"][1]
    assert group["name"] == "tidewise-forecast-quantiles"
    (rule,) = group["rules"]
    assert rule["record"] == "workload:forecast_pinball:value"
    assert rule["labels"] == {"quantile": "0.75"}
    missed = 'workload:forecast_quantile_error:value{quantile="0.75"}'
    assert rule["expr"] == f"0.25 * clamp_min({missed}, 0)\n- 0.75 * clamp_max({missed}, 0)"


def test_the_default_horizons_and_quantiles_bring_none(tmp_path: Path) -> None:
    assert len(rules.workload_rules(config_of(tmp_path, "{queue: jobs}"))["groups"]) == 1


def test_every_rule_has_an_expression_to_stand_in_for_it(tmp_path: Path) -> None:
    config = config_of(tmp_path, "{queue: jobs}", "{service: shop}", "{promql: up}")
    stand_ins = rules.expressions(config)
    for rule in rules.workload_rules(config)["groups"][0]["rules"]:
        expr = stand_ins[rule["record"]][rule["labels"]["workload"]]
        assert expr.endswith(f'"workload", "{rule["labels"]["workload"]}", "", "")')
        assert "queue:" not in expr
        assert "service:" not in expr


def test_what_was_published_stands_in_for_its_contract_name(tmp_path: Path) -> None:
    stand_ins = rules.expressions(config_of(tmp_path, "{queue: jobs}"))
    assert (
        stand_ins["workload:replicas:recommended"]["default/w0"]
        == 'max by (workload) (tidewise_scale_replicas_recommended{workload="default/w0"})'
    )


class TestMain:
    def config_file(self, tmp_path: Path) -> Path:
        config_of(tmp_path, "{promql: up}")
        return tmp_path / "tidewise.yaml"

    def test_it_prints_yaml_that_says_where_it_comes_from(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert rules.main(["--config", str(self.config_file(tmp_path))]) == 0
        text = capsys.readouterr().out
        assert text.startswith("# Generated by `tidewise rules`")
        assert yaml.safe_load(text)["groups"][0]["name"] == "tidewise-workloads"
        assert "    expr: |-\n      sum(\n      up\n      )\n" in text

    def test_it_writes_a_whole_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "rules" / "workloads.yml"
        assert rules.main(["--config", str(self.config_file(tmp_path)), "--out", str(out)]) == 0
        assert yaml.safe_load(out.read_text())["groups"]
        assert [path.name for path in out.parent.iterdir()] == ["workloads.yml"]
        assert capsys.readouterr().out == ""

    def test_it_says_where_it_cannot_write(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "workloads.yml"
        assert rules.main(["--config", str(self.config_file(tmp_path)), "--out", str(out)]) == 1
        assert f"{out}: cannot be written" in capsys.readouterr().err


ALSO = """\
    also:
      - {name: llm, queue: llm-jobs, slo: {wait_seconds: 5}, capacity: {concurrency: 8}}
"""


def test_a_further_demand_is_measured_under_its_own_name_and_has_no_replicas(tmp_path: Path) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text(f"workloads:\n{WORKLOAD.format(name='video', demand='{queue: jobs}')}{ALSO}")
    config = load(path)
    name = "default/video/llm"
    assert expression(config, "workload:demand:rate1m", name) == (
        'sum(queue:arrivals:rate1m{system="redis",queue="llm-jobs"})'
    )
    assert expression(config, "workload:slo_wait_seconds:max", name) == "vector(5)"
    assert expression(config, "workload:concurrency:max", name) == "vector(8)"
    of_it = {r["record"] for r in rules.workload_rules(config)["groups"][0]["rules"] if r["labels"]["workload"] == name}
    assert "workload:replicas:max" not in of_it
    stand_ins = rules.expressions(config)
    assert name in stand_ins["workload:forecast_gate:bool"]
    assert name not in stand_ins["workload:replicas:wanted"]
    assert [signal.identity for signal in config.signals()] == ["default/video", name]


def test_what_the_scaler_reads_is_recorded_somewhere(tmp_path: Path) -> None:
    """By the generated rules or by a rule file: a renamed series would else be unknown for ever."""
    from controllers.scale import observe

    config = config_of(tmp_path, "{queue: jobs}")
    files = (Path(__file__).resolve().parents[2] / "prometheus" / "rules").glob("*.yml")
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    groups += rules.workload_rules(config)["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    asked = {
        value for name, value in vars(observe).items() if name.isupper() and isinstance(value, str) and ":" in value
    }
    assert len(asked) > 15
    assert asked <= recorded
