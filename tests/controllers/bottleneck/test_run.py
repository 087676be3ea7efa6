"""`tidewise bottleneck` on the terminal, against a real Prometheus that holds three hours of the contract."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controllers.__main__ import main as tidewise
from controllers.bottleneck import run
from testbed.parts import Prometheus, create_blocks

CONFIG = """\
prometheus: {{url: "{url}"}}
workloads:
  - name: pinned
    demand: {{queue: pinned}}
    target: {{command: {{get: [count], set: [scale, "{{replicas}}"]}}}}
    replicas: {{max: 4}}
    slo: {{wait_seconds: 60}}
    mode: act
  - name: poor
    namespace: prod
    demand: {{queue: poor}}
    target: {{command: {{get: [count], set: [scale, "{{replicas}}"]}}}}
    replicas: {{max: 40}}
    price: {{per_replica_hour: 12 KRW}}
    mode: act
  - name: calm
    demand: {{queue: calm}}
    target: {{command: {{get: [count], set: [scale, "{{replicas}}"]}}}}
    replicas: {{max: 4}}
    mode: act
  - name: unseen
    demand: {{queue: unseen}}
    target: {{command: {{get: [count], set: [scale, "{{replicas}}"]}}}}
    replicas: {{max: 4}}
budget: {{total: 24900 KRW, usage: 15000 KRW}}
"""
STEP, HOURS = 30, 3
NEWEST = int(time.time()) // STEP * STEP - STEP
RUSH = NEWEST - 2 * 3600  # the machine's CPU was full then, for half an hour
Value = Callable[[int], float | None]


def always(value: float) -> Value:
    return lambda at: value


def lately(value: float, before: float | None, minutes: float = 10) -> Value:
    return lambda at: value if at > NEWEST - 60 * minutes else before


def in_the_rush(value: float, otherwise: float) -> Value:
    return lambda at: value if RUSH - 1800 <= at <= RUSH else otherwise


def either(*values: Value) -> Value:
    return lambda at: next((found for value in values if (found := value(at)) is not None), None)


def workload(name: str, replicas: float, *, late: bool) -> Iterator[tuple[str, dict[str, str], Value]]:
    """Three jobs a second of half a second each; late: 12 a second, for ten minutes, and in the rush."""
    who = {"workload": name}
    rush = in_the_rush(180, 1)
    yield "workload:demand:rate1m", who, lately(12, 3) if late else always(3)
    yield "workload:throughput:rate1m", who, lately(2 * replicas, 3) if late else always(3)
    yield "workload:backlog:sum", who, lately(900, 3) if late else always(3)
    yield "workload:oldest_age_seconds:max", who, either(lately(180, None), rush) if late else rush
    yield "workload:service_seconds:mean5m", who, always(0.5)
    yield "workload:failures:ratio_rate5m", who, always(0)
    yield "workload:data_age_seconds:max", who, always(3)
    yield "workload:utilization:ratio", who, lately(0.99, 0.6) if late else always(0.6)
    for kind in ("current", "wanted", "desired"):
        yield f"workload:replicas:{kind}", who, always(replicas)
    yield "workload:replicas:recommended", who, lately(9, 2) if late else always(2)


def contract() -> Iterator[tuple[str, dict[str, str], Value]]:
    yield from workload("default/pinned", 4, late=True)
    yield "workload:scaling_reason:bool", {"workload": "default/pinned", "reason": "max_replicas"}, lately(1, None)
    yield from workload("prod/poor", 4, late=True)
    yield "workload:scaling_reason:bool", {"workload": "prod/poor", "reason": "budget_cap"}, lately(1, None, 5)
    yield from workload("default/calm", 4, late=False)
    for budget, ratio in (("usage", 0.97), ("total", 0.8)):
        yield "budget:spent:ratio", {"budget": budget}, always(ratio)
        yield "budget:projected:ratio", {"budget": budget}, always(ratio + 0.2)
    machine = {"instance": "10.0.0.7:9811"}
    yield "node:cpu_utilization:ratio_rate5m", machine, in_the_rush(0.99, 0.3)
    yield "node:memory_utilization:ratio", machine, always(0.5)
    yield "node_mountpoint:filesystem_avail:ratio", machine | {"mountpoint": "/"}, always(0.4)
    yield "node_device:disk_io_time:ratio_rate5m", machine | {"device": "vda"}, always(0.1)
    pressure = "node:pressure_stalled:ratio_rate5m"
    for resource, kind, busy in (("cpu", "some", 0.8), ("memory", "full", 0.0), ("io", "full", 0.01)):
        yield pressure, machine | {"resource": resource, "kind": kind}, in_the_rush(busy, 0.01)


@pytest.fixture(scope="module")
def config(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bottleneck")
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    server = Prometheus(folder, folder / "prometheus.yml", root=parts_root)
    with (folder / "samples.txt").open("w") as file:
        for name, labels, value in contract():
            inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
            for at in range(NEWEST - HOURS * 3600, NEWEST + 1, STEP):
                number = value(at)
                if number is not None:
                    file.write(f"{name}{{{inside}}} {number:g} {at}\n")
        file.write("# EOF\n")
    create_blocks(folder / "samples.txt", server.data_folder, root=parts_root)
    (folder / "tidewise.yaml").write_text(CONFIG.format(url=server.url))
    with server:
        yield folder / "tidewise.yaml"


@pytest.fixture
def asked(config: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Asks: (exit status, standard output, standard error)."""

    def ask(*arguments: str, at: float = NEWEST) -> tuple[int, str, str]:
        when = datetime.fromtimestamp(at, UTC).isoformat()
        status = tidewise(["bottleneck", *arguments, "--config", str(config), "--at", when])
        said = capsys.readouterr()
        return status, said.out, said.err

    return ask


@pytest.mark.real
def test_the_maximum_is_named_with_its_evidence_and_a_number_to_raise_it_to(asked) -> None:
    status, out, _ = asked("pinned")
    assert status == 0
    first, *rest = out.splitlines()
    assert first.startswith("default/pinned at ")
    assert first.endswith("over 15 min: max_replicas is the bottleneck")
    text = "\n".join(rest)
    assert 'workload:oldest_age_seconds:max{workload="default/pinned"}  3 min, limit 60 s (promised wait)' in text
    assert "replicas.max allows 4, and so many are told" in text
    change = "raise replicas.max from 4 to 10: 12 items/s and 900 that wait or are under way, 0.5 s each, need 10"
    assert change in text
    assert "budget" not in text  # it has no price
    assert "gpu:utilization:avg5m" in text.partition("\nunknown\n")[2]


@pytest.mark.real
def test_money_is_named(asked) -> None:
    _, out, _ = asked("prod/poor")
    assert "budget (budget.usage) is the bottleneck" in out.splitlines()[0]
    assert "9 replicas are right and the ledger does not pay for more (budget_cap)" in out
    assert "raise budget.usage (15,000 KRW now; at this pace the month ends at 17,550)" in out
    assert 'budget:spent:ratio{budget="usage"}' in out
    since = datetime.fromtimestamp(NEWEST - 300 + STEP, UTC)
    assert abs(_since(out, 'reason="budget_cap"') - since.timestamp() % 86400) <= 30


@pytest.mark.real
def test_the_cpu_is_named_for_the_time_at_which_it_was_full(asked) -> None:
    _, out, _ = asked("pinned", at=RUSH)
    assert "node_cpu (10.0.0.7:9811) is the bottleneck" in out.splitlines()[0]
    assert "for more than 15 min" in out
    assert "add a machine or move something off 10.0.0.7:9811" in out


@pytest.mark.real
def test_nothing_is_a_bottleneck_and_that_is_an_answer(asked) -> None:
    status, out, _ = asked("calm")
    assert status == 0
    assert out.splitlines()[0].endswith("nothing is a bottleneck")
    assert "at its limit, and it holds nothing back yet\n  max_replicas" in out


@pytest.mark.real
def test_what_is_not_measured_at_all_is_unknown(asked) -> None:
    status, out, _ = asked("unseen")
    assert status == 1
    assert out.splitlines()[0].endswith("unknown: nothing tells whether work is served as promised")
    assert "workload:oldest_age_seconds:max" in out.partition("\nunknown\n")[2]


@pytest.mark.real
def test_json_has_the_same_answer(asked) -> None:
    status, out, _ = asked("pinned", "--json", "--window", "10m")
    answer = json.loads(out)
    assert status == 0
    assert answer["verdict"] == "bottleneck"
    assert answer["bottleneck"]["resource"] == "max_replicas"
    assert answer["bottleneck"]["raise_to"] == 10
    assert answer["window_seconds"] == 600
    assert {measure["method"] for measure in answer["measures"]} == {"utilization", "saturation", "errors"}
    assert all(measure["pressure"] is not None for measure in answer["measures"])


def test_a_prometheus_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text(CONFIG.format(url="http://127.0.0.1:1"))
    assert run.main(["pinned", "--config", str(path)]) == 1
    assert "prometheus.url: http://127.0.0.1:1 tells nothing (unreachable: " in capsys.readouterr().err


def test_a_workload_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text(CONFIG.format(url="http://127.0.0.1:1"))
    assert run.main(["default/pined", "--config", str(path)]) == 2
    assert f"{path}: no workload 'default/pined'; did you mean 'default/pinned'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pinned", "--at", "noon"], "'noon' is no ISO 8601 time, such as 2026-11-20T13:25:00Z"),
        (["pinned", "--window", "1 week"], "'1 week' is no length from 10s to 30d, such as 90s, 15m or 1h"),
        (["pinned", "--window", "1s"], "'1s' is no length"),
        ([], "the following arguments are required: WORKLOAD"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--help"])
    out = capsys.readouterr().out
    for words in ("utilization", "saturation", "errors", "Exit status", "tidewise bottleneck video-analysis"):
        assert words in out


def _since(out: str, series: str) -> float:
    """The time of day after "since" in the line of a series, in seconds."""
    line = next(line for line in out.splitlines() if series in line)
    hours, minutes, seconds = line.split("since ")[1][:8].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)
