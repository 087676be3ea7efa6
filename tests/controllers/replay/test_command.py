"""`tidewise replay` as its user meets it: tables, files that can be scored anew, what is wrong said where."""

import csv
import gzip
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controllers.__main__ import main as tidewise
from controllers.config import Config
from controllers.config import Prometheus as Settings
from controllers.replay import series
from controllers.replay.command import main, summary
from controllers.replay.compare import NAMES, Knob, Run, levels, tuned
from controllers.replay.protocol import Demand, Setting, play, score, scored
from controllers.replay.report import Promise, Replayed, as_json, table
from controllers.sources.prometheus import Source
from testbed.parts import Prometheus, create_blocks

QUICK = ["--policies", "hpa,schedule", "--as-they-come"]


@pytest.fixture(scope="module")
def trace(wave: Callable[..., Demand], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight days in ten-minute steps, one of them missing in the played part."""
    demand = wave()
    out = tmp_path_factory.mktemp("traces") / "demand.csv.gz"
    with gzip.open(out, "wt", encoding="utf-8") as text:
        text.write("timestamp,value\n")
        for place, value in enumerate(demand.values.tolist()):
            shown = "" if place == len(demand.values) - 20 else f"{value}"
            text.write(f"{demand.begin + place * demand.step_seconds:.0f},{shown}\n")
    return out


def test_it_tells_what_each_policy_costs(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tidewise(["replay", "--trace", str(trace), "--price", "40 KRW", "--lead-time", "10m", *QUICK]) == 0
    out = capsys.readouterr().out
    assert re.search(r"2\.0 days, 2023-11-21 00:00 to 2023-11-23 00:00, in ticks of 15 s, after 6\.0 days before", out)
    assert "one replica serves 0.9" in out
    assert "from 10 min after it is asked for; promised: 99.0 % of the time served" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")}
    assert list(rows) == ["policy", "oracle", "schedule", "hpa"], "by cost"
    assert rows["policy"][1] == "KRW"
    assert "target=0.7" in " ".join(rows["hpa"])
    assert "No capacity was given" in out
    assert "hindsight" not in out, "nothing was swept"


def test_swept_policies_are_set_to_what_is_cheapest_for_the_promise(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["--trace", str(trace), "--policies", "hpa,static", "--slo", "98%", "--tick", "60s", "--json", str(out)]
    assert main(options) == 0
    found = json.loads(out.read_text())
    assert found["setting"]["objective"] == 0.98
    for policy in ("hpa", "static"):
        mine = [run for run in found["runs"] if run["policy"] == policy]
        best = [run for run in mine if run["keeps_promise_cheapest"]]
        allowed = [run for run in mine if run["under"] <= 0.02 + 1e-12]
        assert len(best) == 1
        assert best[0]["replica_hours"] == min(run["replica_hours"] for run in allowed)
        assert found["levels"][policy]["0.02"]["cost_to_oracle"] == best[0]["cost_to_oracle"]
        assert [run["usual"] for run in mine] == [True] + [False] * (len(mine) - 1)


def test_the_series_score_anew_to_the_same_figures(trace: Path, tmp_path: Path) -> None:
    """By nothing but the file's columns."""
    out, folder = tmp_path / "out.json", tmp_path / "series"
    options = [
        "--trace",
        str(trace),
        "--policies",
        "tidewise,hpa",
        "--as-they-come",
        "--refit",
        "1d",
        "--price",
        "3 USD",
    ]
    assert main([*options, "--json", str(out), "--series", str(folder)]) == 0
    told = json.loads(out.read_text())
    capacity, tick = told["setting"]["capacity"], told["setting"]["tick_seconds"]
    paid_by_oracle = None
    assert sorted(path.name for path in folder.iterdir()) == ["hpa.csv.gz", "oracle.csv.gz", "tidewise.csv.gz"]
    for name in ("oracle", "hpa", "tidewise"):
        with gzip.open(folder / f"{name}.csv.gz", "rt") as text:
            rows = list(csv.DictReader(text))
        assert list(rows[0]) == ["policy", "timestamp", "demand", "ready", "paid", "desired"]
        assert {row["policy"] for row in rows} >= {name}
        mine = [row for row in rows if row["policy"] == name]
        assert mine[0]["timestamp"] == told["setting"]["begin"]
        known = [row for row in mine if row["demand"]]
        assert len(mine) - len(known) == 40, "a step that is missing"
        demand = np.array([float(row["demand"]) for row in known])
        ready = np.array([int(row["ready"]) for row in known])
        hours = sum(int(row["paid"]) for row in known) * tick / 3600
        paid_by_oracle = paid_by_oracle or hours
        run = next(run for run in told["runs"] if run["policy"] == name)
        assert run["under"] == pytest.approx(float((demand > ready * capacity * (1 + 1e-9)).mean()))
        assert run["replica_hours"] == pytest.approx(hours)
        assert run["money"] == pytest.approx(3 * hours)
        assert run["cost_to_oracle"] == pytest.approx(hours / paid_by_oracle)
        assert run["unserved"] == pytest.approx(np.maximum(demand - ready * capacity, 0).sum() / demand.sum(), abs=1e-9)
        # what serves is the least that was wanted within a start-up, as the protocol says
        desired = [int(row["desired"]) for row in mine]
        assert [int(row["ready"]) for row in mine] == [
            min(desired[max(0, i - 20) : i + 1]) for i in range(len(desired))
        ]


def test_series_are_read_back(setting: Setting, tmp_path: Path) -> None:
    result = play(setting.need, setting)
    series.write(tmp_path / "a.csv.gz", [("a", result), ("b", play(setting.need + 1, setting))])
    found = series.read(tmp_path / "a.csv.gz", setting)
    assert score(found["a"]) == score(result)
    assert found["b"].paid.tolist() == (setting.need + 1).tolist()


def test_a_page_has_the_table_and_both_pictures(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "replay.html"
    assert main(["--trace", str(trace), "--policies", "hpa", "--tick", "60s", "--html", str(out)]) == 0
    page = out.read_text()
    assert page.count("data:image/png;base64,iVBOR") == 2
    assert "as they come" in page
    assert "src=" in page
    assert "http" not in re.sub(r"base64,[^\"]+", "", page), "it needs nothing beside it"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policies", "hpaa"], "found 'hpaa', which is no policy; did you mean 'hpa'?"),
        (["--policies", ","], "found none; write some of tidewise, hpa"),
        (["--lead-time", "15"], "found '15'; write a length of time such as 90s, 15m or 1h30m"),
        (["--slo", "99.9.9"], "found '99.9.9'; write a share of time such as 99%, or '60s 95%' for a queue"),
        (["--slo", "120%"], "found '120%'; write a share of time such as 99%"),
        (["--slo", "60 95%"], "found '60 95%'; write a share of time such as 99%"),
        (["--capacity", "0"], "found '0'; write a number above 0"),
        (["--capacity", "much"], "found 'much'; write a number above 0"),
        (["--price", "12"], "found '12'; write the currency as three capital letters, for example '12 KRW'"),
        (["--days", "-1"], "found '-1'; write a number of days, up to 366"),
        (["--time-zone", "Mars/Base"], "found 'Mars/Base'; write a name such as Europe/Berlin"),
        (["--workload", "shop"], "not allowed with argument --trace"),
    ],
)
def test_wrong_usage(trace: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--trace", str(trace), *options])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "trace.csv: there is no such file; name a .csv or .csv.gz of timestamp,value"),
        ("timestamp,value\n", "trace.csv: found 0 usable rows; a forecast needs hours of them"),
        ("timestamp,value\n0,1\nnoon,2\n", "trace.csv:3: found the time 'noon'; write 2026-01-31T12:00:00Z"),
        ("timestamp,value\n0,many\n", "trace.csv:2: found the value 'many'; write a number, or nothing"),
        ("".join(f"{60 * n},1\n" for n in range(40)), "trace.csv: found 40 steps of 60 s; at least 96 are needed"),
        ("".join(f"{60 * n},{int(n < 150)}\n" for n in range(200)), "trace.csv: found a capacity of 0 a replica"),
    ],
)
def test_a_file_that_cannot_be_played(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.csv"
    if text is not None:
        path.write_text(text)
    assert main(["--trace", str(path), *QUICK]) == 1
    assert said in capsys.readouterr().err


def test_a_place_that_cannot_be_written_costs_nothing_else(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--json", str(tmp_path / "none" / "out.json"), "--series", str(tmp_path / "series")]
    assert main(["--trace", str(trace), *QUICK, *options]) == 1
    told = capsys.readouterr()
    assert "none/out.json: cannot be written (" in told.err
    assert "name another place" in told.err
    assert "oracle" in told.out
    assert (tmp_path / "series" / "hpa.csv.gz").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "tidewise replay --workload shop" in text
    for name in NAMES:
        assert name in text


def run(policy: str, knob: str, under: float, cost: float) -> Run:
    scores = {"under": under, "late": under, "cost_to_oracle": cost, "replica_hours": cost, "wait_p95": float("inf")}
    rest = ("money", "slo_minutes", "unserved", "actions", "reversals")
    return Run(policy, Knob(knob, lambda s: s.need), knob == "usual", {**scores, **dict.fromkeys(rest, 0.0)})


def test_a_promise_that_nobody_keeps_is_a_dash(setting: Setting) -> None:
    runs = [
        run("a", "usual", 0.2, 1.0),
        run("a", "x", 0.03, 2.0),
        run("b", "usual", 0.015, 3.0),
        run("b", "y", 0.0, 9.0),
    ]
    assert tuned(runs, "a", 0.01) is None
    assert [one.cost for one in levels(runs)["a"]] == [None, None, 2.0]
    assert [one.between for one in levels(runs)["b"]] == [5.0, 3.0, 3.0]
    found = Replayed("x", setting, Promise(0.99), None, runs)
    text = table(found)
    assert "replica-h" in text
    assert re.search(r"^  a +– +– +2\.000$", text, re.MULTILINE)
    assert "never" in text
    told = as_json(found)
    assert told["runs"][0]["wait_p95"] is None
    assert told["setting"]["price_per_replica_hour"] is None
    json.dumps(told, allow_nan=False)


def test_a_queue_is_held_against_late_work(setting: Setting) -> None:
    found = Replayed(
        "x", setting, Promise(0.95, is_queue=True), None, [run("a", "usual", 0.04, 1.0), run("a", "y", 0, 2)]
    )
    assert "promised: 95.0 % of the work in time" in table(found)
    assert [one.knob.label for one in found.tuned()] == ["usual"]


CONFIG: dict[str, Any] = {
    "workloads": [
        {
            "name": "shop",
            "demand": {"promql": "sum(rate(http_requests_total[1m]))"},
            "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
            "replicas": {"min": 1, "max": 40},
            "slo": {"objective": 0.9},
            "capacity": {"service_seconds": 2.0, "concurrency": 2},
            "price": {"per_replica_hour": "40 KRW"},
            "lead_time_seconds": 300.0,
        }
    ]
}


@pytest.mark.real
def test_a_workload_is_replayed_from_a_real_prometheus(
    prometheus_factory: Callable[..., Prometheus],
    parts_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two days of minutes, what ran, and the lead time that was learned."""
    newest = time.time() // 60 * 60 - 60
    times = newest - 60 * np.arange(2 * 1440 - 1, -1, -1)
    demand = 10 + 8 * np.sin(times / 86_400 * 2 * np.pi)
    label = 'workload="default/shop"'
    lines = ["# TYPE workload:demand:rate1m gauge"]
    lines += [f"workload:demand:rate1m{{{label}}} {v} {t}" for t, v in zip(times, demand, strict=True)]
    lines += ["# TYPE workload:replicas:current gauge"]
    lines += [f"workload:replicas:current{{{label}}} 20 {t}" for t in times]
    lines += ["# TYPE workload:lead_time_seconds:quantile gauge"]
    lines += [f'workload:lead_time_seconds:quantile{{{label},quantile="0.9"}} 600 {t}' for t in times]
    text = tmp_path / "history.txt"
    text.write_text("\n".join([*lines, "# EOF", ""]), encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
    server = prometheus_factory(tmp_path / "prometheus.yml")
    server.stop()
    create_blocks(text, server.data_folder, root=parts_root)
    server.start()
    config = {**CONFIG, "prometheus": {"url": server.url}}
    file = tmp_path / "tidewise.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    out = tmp_path / "out.json"
    options = ["--workload", "shop", "--config", str(file), "--days", "2", "--refit", "6h", "--json", str(out)]
    assert main([*options, "--policies", "tidewise,hpa", "--as-they-come"]) == 0
    told = json.loads(out.read_text())
    assert told["setting"]["capacity"] == 1.0
    assert told["setting"]["lead_seconds"] == 600.0
    assert told["setting"]["currency"] == "KRW"
    assert told["setting"]["objective"] == 0.9
    by = {run["policy"]: run for run in told["runs"]}
    hours = told["setting"]["ticks"] * 15 / 3600
    assert hours == pytest.approx(12, rel=0.01)
    assert by["as-it-was"]["money"] == pytest.approx(20 * hours * 40)
    assert by["as-it-was"]["under"] == 0.0
    assert by["tidewise"]["under"] <= 0.1
    assert by["tidewise"]["money"] < by["as-it-was"]["money"]
    assert "takes 2 s by capacity.service_seconds of the file, 2 at once" in capsys.readouterr().out

    settings = Config.model_validate(config)
    found = summary(settings, settings.workloads[0], Source(Settings(url=server.url)), days=2.0)
    assert set(found["policies"]) == {"tidewise", "hpa", "oracle", "as-it-was"}
    assert found["policies"]["tidewise"]["slo_minutes"] >= 0

    assert main(["--workload", "shopp", "--config", str(file)]) == 2
    assert "did you mean" in capsys.readouterr().err
    server.stop()
    assert main(options) == 1
    assert capsys.readouterr().err.strip()


def test_a_prometheus_without_demand_is_said_to_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from controllers.sources.prometheus import Answer

    monkeypatch.setattr(Source, "_ask", lambda *_: Answer())
    file = tmp_path / "tidewise.yaml"
    file.write_text(json.dumps(CONFIG))
    assert main(["--workload", "shop", "--config", str(file)]) == 1
    assert "default/shop: Prometheus has no demand of the last 30 days" in capsys.readouterr().err


def test_scored_needs_no_more_than_a_trace(wave: Callable[..., Demand]) -> None:
    assert scored(wave(2.0), 60.0).ticks == 12 * 3600 / 15
