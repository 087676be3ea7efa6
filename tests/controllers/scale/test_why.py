"""`tidewise why`: the right record found from the end of the files, in words a person can act on."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.__main__ import main
from controllers.domain import (
    Direction,
    Forecast,
    Horizon,
    Mode,
    Override,
    PartReplicas,
    Pending,
    Reason,
    Replicas,
    Sample,
)
from controllers.scale.decide import decide
from controllers.scale.explain import changes, explanation, history
from controllers.scale.records import Record, Records, as_line, backwards, read
from controllers.scale.state import LeadTime, Rules, Signal, SignalRules, State

NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC
NAME = "demo/video"
RULES = Rules(
    NAME, True, 1, 20, 5.0, 0.95, 1, None, 60.0, 60.0, 0.0, None, None, 15.0, 120.0, Mode.SHADOW
)  # fmt: skip
STATE = State(
    now=NOW,
    demand=Sample(19.87654321, NOW - 3.25),
    backlog=Sample(12.0, NOW - 3.25),
    service_seconds=0.5,
    replicas=Replicas(12, 12),
    known_since=NOW - 900,
)


def record(at: float, workload: str = NAME, replicas: int = 12) -> Record:
    shift = at - NOW
    state = replace(
        STATE,
        now=at,
        demand=Sample(19.9, NOW - 3 + shift),
        backlog=Sample(12.0, NOW - 3 + shift),
        replicas=Replicas(replicas, replicas),
        known_since=at - 900,
    )
    rules = replace(RULES, workload=workload)
    return Record(state, rules, decide(state, rules), Reason.SHADOW)


def write(folder: Path, *records: Record) -> None:
    book = Records(folder, 0)
    for one in records:
        book.write(one)


def times(folder: Path, workload: str = NAME, until: float | None = None) -> list[float]:
    return [one.decision.at - NOW for one in backwards(folder, workload, until)]


def test_the_newest_comes_first_over_several_days_and_workloads(tmp_path: Path) -> None:
    hours = range(0, 96, 5)
    write(tmp_path, *(record(NOW + 3600 * hour, name) for hour in hours for name in (NAME, "demo/other", "demo/vid")))
    assert len(list(tmp_path.glob("*.jsonl"))) > 3
    assert times(tmp_path) == [3600 * hour for hour in reversed(hours)]
    assert times(tmp_path, until=NOW + 3600 * 51) == [3600 * hour for hour in reversed(hours) if hour <= 51]
    assert times(tmp_path, "demo/nobody") == []
    assert times(tmp_path, until=NOW - 1) == []


def test_it_finds_what_a_plain_read_finds_whatever_stands_between(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("controllers.scale.records._CHUNK", 700)  # less than a line, so that words are cut
    write(tmp_path, *(record(NOW + number, NAME if number % 3 else "demo/other") for number in range(30)))
    (path,) = tmp_path.glob("*.jsonl")
    torn = as_line(record(NOW + 99))[:-200]
    path.write_bytes(path.read_bytes() + b'\n{"workload":"demo/video"}\n' + torn)
    (tmp_path / "notes.jsonl").write_bytes(as_line(record(NOW + 98)))
    (tmp_path / "2026-09-20.jsonl").write_bytes(b"")
    found = [one.decision.at - NOW for one in read(tmp_path) if one.decision.workload == NAME]
    assert times(tmp_path) == list(reversed(found))
    assert len(found) == 20


def test_so_many_days_are_kept_and_what_is_no_record_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text("mine")
    records = Records(tmp_path, 0, days=3)
    for day in range(6):
        records.write(record(NOW + 86_400 * day))
        records.write(record(NOW + 86_400 * day + 60))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2026-09-24.jsonl",
        "2026-09-25.jsonl",
        "2026-09-26.jsonl",
        "notes.jsonl",
    ]


def test_a_clock_that_jumps_years_ahead_takes_one_day_and_not_all(tmp_path: Path) -> None:
    records = Records(tmp_path, 0, days=3)
    for day in (0, 1, 2, 4000):
        records.write(record(NOW + 86_400 * day))
    assert len(list(tmp_path.iterdir())) == 3
    assert times(tmp_path) == [86_400 * day for day in (4000, 2, 1)]


def test_the_last_changes_of_the_number() -> None:
    numbers = [12, 12, 14, 14, 14, 9, 9, 12]
    records = [record(NOW + 60 * place, replicas=number) for place, number in enumerate(numbers)]
    told = [replace(one, told=number) for one, number in zip(records, numbers, strict=True)]
    assert [one.told for one in changes(reversed(told), 2)] == [12, 9]
    assert [one.told for one in changes(reversed(told), 99)] == [12, 9, 14, 12]
    assert list(changes([], 3)) == []


def test_the_table_of_changes() -> None:
    one = record(NOW)
    one = replace(one, decision=replace(one.decision, current=12, desired=14, reasons=(Reason.REACTIVE,)), told=13)
    unknown = replace(one, told=None, decision=replace(one.decision, current=None, desired=None))
    assert history([one, unknown]) == [
        "when                     replicas            told  carried out  reasons",
        "2026-09-21 14:13:20 UTC  12 -> 14            13    shadow       reactive",
        "2026-09-21 14:13:20 UTC  unknown -> unknown  -     shadow       reactive",
    ]


def test_everything_that_went_in_is_told() -> None:
    horizon = Horizon(120, 21.5, {0.9: 23.0}, {0.9: 24.0}, {0.5: 2500.0, 0.98: 2650.0})
    state = replace(
        STATE,
        lead_time=LeadTime(60.1, 62.3),
        replicas=Replicas(
            12, 9, (Pending(2, 31.5),), draining=1, floor=4, unfinished=True, parts=(PartReplicas("cloud", 5, 3, 1),)
        ),
        forecast=Forecast(NOW - 20, NOW + 880, "", True, (horizon,)),
        concurrency=2.0,
        start_seconds=30.0,
        oldest_age_seconds=125.0,
        bound=14,
        schedule_floor=3,
        overrides=(
            Override("a", NOW - 60, NOW + 3600, "ann@desk", 5, None, "launch"),
            Override("b", NOW - 30, NOW + 600, "bob@desk", 0, Direction.DOWN),
        ),
        more=(Signal(Sample(2.0, NOW - 4), Sample(7.0, NOW - 4)),),
        cheap=((NOW + 3600, NOW + 7200),),
    )
    rules = replace(
        RULES,
        more=(SignalRules("demo/video/thumbs", True, 30.0, 0.9, 3, 0.2),),
        price_per_replica_hour=12.0,
        price_per_late_job=3.0,
    )
    text = "\n".join(explanation(Record(state, rules, decide(state, rules), Reason.SHADOW)))
    for line in (
        "demo/video at 2026-09-21 14:13:20 UTC: 12 -> ",
        "  demand                 19.88 a second, measured 3 s before",
        "  backlog                12.00 waiting or in hand, measured 3 s before",
        "  oldest work waits      2 min",
        "  replicas               9 ready of 12, starting 2 since 32 s, 1 draining",
        "    in cloud             3 ready of 5, 1 draining",
        "  own autoscaler         its minimum is 4 now; that is what is told",
        "  unfinished             what was told last is still being carried out",
        "  one replica            0.5 s a piece (learned), 2 at a time (learned); a start costs 30 s (learned)",
        "  bound                  beyond 14 replicas throughput did not grow",
        (
            "  also thumbs            2.00 a second, measured 4 s before; "
            "backlog 7.00 waiting or in hand, measured 4 s before; 0.2 s a piece (configured), "
            "3 at a time (configured); no forecast; 90.0% wait at most 30 s"
        ),
        "  override               +5 until 2026-09-21 15:13:20 UTC, by ann@desk: launch",
        "  override               no change downwards until 2026-09-21 14:23:20 UTC, by bob@desk",
        "  schedule               at least 3",
        "  price                  12 a replica and hour, 3 a late job",
        "  cheaper hours          2026-09-21 15:13:20 UTC to 2026-09-21 16:13:20 UTC",
        "  slo                    95.0% wait at most 5 s",
        "  bounds                 1 to 20",
        "  without forecast       ",
        "  without overrides      ",
        "  without the schedule   ",
    ):
        assert line in text, text


def test_which_demand_it_rests_on_and_by_how_much_a_forecast_was_corrected() -> None:
    forecast = Forecast(NOW - 400, NOW + 500, "", True, (Horizon(120, 10.0), Horizon(900, 10.0)))
    decision = replace(
        decide(STATE, RULES), reasons=(Reason.FORECAST, Reason.FORECAST_CORRECTED), signal="demo/video/thumbs"
    )
    text = "\n".join(explanation(Record(replace(STATE, forecast=forecast), RULES, decision, Reason.SHADOW)))
    assert "  rests on               the demand thumbs, which needs most" in text
    assert re.search(r"  forecast               made 400 s before, gate open; scaled by 1\.\d", text), text


def test_deferrable_work_is_told_by_its_deadline() -> None:
    rules = replace(RULES, deadline_seconds=6 * 3600.0)
    text = "\n".join(explanation(Record(STATE, rules, decide(STATE, rules), Reason.SHADOW)))
    assert "  slo                    done within 6 h of its arrival" in text


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tidewise.yaml"
    target = {"command": {"get": ["true"], "set": ["true", "{replicas}"]}}
    workload = {
        "name": "video",
        "namespace": "demo",
        "demand": {"queue": "jobs"},
        "target": target,
        "replicas": {"max": 4},
        "time_zone": "Asia/Seoul",
    }
    path.write_text(yaml.safe_dump({"workloads": [workload], "scale": {"records": str(tmp_path / "decisions")}}))
    return path


def why(config: Path, *words: str) -> int:
    return main(["why", *words, "--config", str(config)])


def test_times_are_of_the_workload_s_zone(config: Path, tmp_path: Path, capsys: Any) -> None:
    now = time.time()
    write(tmp_path / "decisions", record(now - 7200), record(now - 3600), record(now - 60))
    assert why(config, "video", "--at", "90m ago") == 0
    assert " KST: 12 -> " in capsys.readouterr().out.splitlines()[0]
    assert why(config, "video", "--history", "2") == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("when ")
    assert why(config, "video", "--at", "3h ago") == 1
    assert capsys.readouterr().err == f"{tmp_path}/decisions: no decision about demo/video at that time\n"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["vidio"], 2, "no workload 'vidio'; did you mean 'video'?"),
        (["demo/vidio"], 2, "no workload 'demo/vidio'; did you mean 'demo/video'?"),
        (
            ["video", "--at", "soon"],
            2,
            "--at: found 'soon'; write a time such as 13:25 or 2026-11-20T13:25, or '2h ago'",
        ),
        (["video", "--at", "2099-01-01"], 2, "--at: found '2099-01-01', which is still to come (2099-01-01 00:00 KST)"),
        (["video"], 1, "decisions: no such folder; is 'scale.records' right, and has `tidewise scale` run here?"),
    ],
)
def test_what_cannot_be_answered_is_said(config: Path, capsys: Any, words: list[str], status: int, said: str) -> None:
    assert why(config, *words) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_a_history_of_nothing(config: Path, capsys: Any, number: str) -> None:
    with pytest.raises(SystemExit):
        why(config, "video", f"--history={number}")
    assert f"found '{number}'; write a number from 1 to 10000" in capsys.readouterr().err
