"""The step and the command: what is published, what survives a restart, what the terminal shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.budget import run
from controllers.budget.words import Level
from controllers.config import Config, Price
from controllers.loop import StepError
from exporters.runtime.config import ConfigError

Serve = Callable[..., Any]

NOW = 1_795_000_000.0  # 2026-11-18 20:06 in Seoul
OCR = {"provider": "acme", "model": "ocr", "units": {"pages": 5}}
USAGE = 'budget="usage",currency="KRW"'
TOTAL = 'budget="total",currency="KRW"'


def test_everything_that_was_decided_is_published(serve: Serve) -> None:
    asked = serve()
    assert "tidewise_budget_limit" not in str(asked.metrics())  # nothing of money before the first step
    asked.post("/usage", event_id="u", provider="aws", service="s3", cost="1000 KRW")
    asked.post("/permit", event_id="a", **OCR, workload="default/video")
    asked.post("/permit", event_id="b", **{**OCR, "units": {"pages": 10**6}})
    asked.step()
    found = asked.metrics()
    for name, value in {
        f"limit{{{TOTAL}}}": 24_900,
        f"limit{{{USAGE}}}": 15_000,
        f"posted{{{USAGE}}}": 1_000,
        f"held{{{USAGE}}}": 10,
        f"committed{{{USAGE}}}": 0,
        f"committed{{{TOTAL}}}": 9_900,
        f"spent{{{TOTAL}}}": 10_900,
        f"remaining{{{USAGE}}}": 13_990,
        f"remaining{{{TOTAL}}}": 13_990,
        'level{budget="usage"}': 0,
        'permits_total{reason="granted",result="allowed"}': 1,
        'permits_total{reason="over_limit",result="denied"}': 1,
        'permits_total{reason="unpriced",result="denied"}': 0,
        'entries_total{state="posted"}': 1,
        'spend{currency="KRW",model="",provider="aws",workload=""}': 1_000,
        "open_holds": 1,
        'ledger_errors_total{kind="locked"}': 0,
    }.items():
        assert found[f"tidewise_budget_{name}"] == value, name
    assert found[f"tidewise_budget_projected{{{USAGE}}}"] > 1_000
    assert 8_000 < found[f"tidewise_budget_pace{{{USAGE}}}"] < 9_500
    assert found['tidewise_budget_burn_rate{budget="usage",window_seconds="3600"}'] > 14.4


def test_a_month_lived_hour_by_hour_projects_its_end_and_degrades_only_off_plan(serve: Serve) -> None:
    start = 1_793_458_800.0  # 2026-11-01 00:00 in Seoul
    asked = serve(at=start)
    levels: list[str] = []
    for hour in range(0, 24 * 19, 6):
        asked.clock.at = start + hour * 3600
        won = 15_000 / 720 * 6 * (1.0 if hour < 240 else 2.0)  # on plan for ten days, then twice of it
        asked.post("/usage", event_id=f"u{hour}", provider="aws", cost=f"{won:.6f} KRW")
        asked.step()
        levels.append(asked.get("/state")["level"])
    assert set(levels[:42]) == {"normal"}
    assert levels[-1] == "essential"
    assert asked.post("/permit", event_id="a", **OCR)[1]["reason"] == "not_critical"
    assert asked.post("/permit", event_id="a", **OCR, priority="critical")[0] == 200
    projected = float(asked.get("/state")["budgets"]["usage"]["projected"])
    assert projected == pytest.approx(5_000 + 20_000, rel=0.03)


def test_overdue_holds_are_posted_by_the_step(serve: Serve) -> None:
    asked = serve()
    for n in range(3):
        asked.post("/permit", event_id=f"a{n}", **OCR)
    asked.clock.at += 900
    asked.step()
    assert asked.metrics()[f"tidewise_budget_posted{{{USAGE}}}"] == 30
    assert asked.metrics()["tidewise_budget_open_holds"] == 0
    assert asked.post("/settle", hold="a0", units={"pages": 1})[1]["state"] == "trued"


def test_a_restart_loses_nothing_that_was_counted(serve: Serve) -> None:
    asked = serve()
    asked.post("/usage", event_id="u", provider="aws", cost="16000 KRW")
    asked.post("/usage", event_id="u", provider="aws", cost="16000 KRW")
    asked.step()
    before = asked.metrics()
    assert before['tidewise_budget_level{budget="usage"}'] == 3
    asked.controller.close()
    asked = serve()
    assert asked.get("/state")["level"] == "exhausted"  # from the record, before any step
    asked.step()
    assert asked.metrics() == before


def test_changes_of_level_are_on_the_record(serve: Serve, settings: Serve) -> None:
    config: Config = settings()
    assert config.budget is not None
    asked = serve(config=config)
    asked.post("/usage", event_id="u", provider="aws", cost="15000 KRW")
    asked.step()
    asked.step()
    with run.reading(config.budget.ledger) as db:
        found = db.execute("SELECT budget, level, detail FROM level_change ORDER BY id").fetchall()
    # the total is spent as well: 9,900 fixed and 15,000
    assert [(budget, Level(level)) for budget, level, _ in found] == [
        ("usage", Level.EXHAUSTED),
        ("total", Level.EXHAUSTED),
    ]
    assert found[0][2].startswith("normal -> exhausted: spent 15,000.00, month-end ")


def test_a_broken_ledger_fails_the_step_and_holds_the_level(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve()
    asked.step()
    asked.controller.close()
    with pytest.raises(StepError, match="is closed") as caught:
        asked.step()
    assert caught.value.kind == "ledger_failed"
    assert asked.metrics()['tidewise_budget_ledger_errors_total{kind="failed"}'] == 1
    status, answer = asked.post("/permit", event_id="a", **OCR)
    assert (status, "is closed" in answer["error"]) == (503, True)


def test_labels_of_spend_are_bounded(serve: Serve) -> None:
    asked = serve()
    for n in range(60):
        asked.post("/usage", event_id=f"u{n}", provider="aws", model=f"m{n}", cost=f"{n + 1} KRW")
    asked.step()
    spend = {name: value for name, value in asked.metrics().items() if name.startswith("tidewise_budget_spend{")}
    assert len(spend) == 51
    assert spend['tidewise_budget_spend{currency="KRW",model="other",provider="other",workload="other"}'] == 55
    assert sum(spend.values()) == 60 * 61 / 2


def test_a_price_in_money_without_a_rate_stops_the_start(serve: Serve, settings: Serve) -> None:
    config: Config = settings()
    foreign = config.workloads[0].model_copy(update={"price": Price.model_validate({"per_replica_hour": "1 XAU"})})
    with pytest.raises(ConfigError, match="workloads: no exchange rate from XAU to KRW"):
        serve(config=config.model_copy(update={"workloads": [foreign]}))


@pytest.fixture
def written(settings: Serve, tmp_path: Path) -> Path:
    """A configuration file like the served one."""
    path = tmp_path / "tidewise.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "budget": {
                    "total": "24900 KRW",
                    "usage": "15000 KRW",
                    "fixed": [{"name": "server", "monthly": "9900 KRW"}],
                    "time_zone": "Asia/Seoul",
                    "ledger": str(tmp_path / "served.sqlite"),
                }
            }
        )
    )
    return path


def test_status_and_statement_read_the_ledger_of_a_running_process(
    serve: Serve, written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controllers.budget.run.time.time", lambda: NOW + 60)
    asked = serve(at=NOW)
    asked.post("/usage", event_id="u", provider="aws", service="s3", cost="1000 KRW")
    asked.post("/permit", event_id="a", **OCR, workflow="n8n-7", workload="default/video")
    asked.step()
    assert run.main(["status", "--config", str(written)]) == 0
    assert capsys.readouterr().out == (
        "Budget 2026-11, KRW\n\n"
        "budget      limit    posted   held  committed       left  used  month-end   level\n"
        "usage   15,000.00  1,000.00  10.00       0.00  13,990.00    7%  13,161.34  normal\n"
        "total   24,900.00  1,000.00  10.00   9,900.00  13,990.00   44%  23,061.34  normal\n\n"
        "1 hold is open; used = posted and fixed costs, of the limit;\n"
        "month-end = what is gone, and the recent rate over the demand that is left\n"
    )
    assert run.main(["statement", "--config", str(written)]) == 0
    assert capsys.readouterr().out == (
        "Statement 2026-11, KRW\n\n"
        "what            workflow  workload       rows    posted   held  committed\n"
        "server (fixed)                              1      0.00   0.00   9,900.00\n"
        "aws (s3)                                    1  1,000.00   0.00       0.00\n"
        "acme/ocr        n8n-7     default/video     1      0.00  10.00       0.00\n"
        "\n"
        "in all                                         1,000.00  10.00   9,900.00\n\n"
        "10,900.00 KRW spent; 10.00 held are not yet decided\n"
        "of the budget 'usage' (15,000.00): 1,000.00 (7%)\n"
        "of the budget 'total' (24,900.00): 10,900.00 (44%)\n"
    )
    assert run.main(["statement", "--config", str(written), "--month", "2026-10"]) == 0
    assert capsys.readouterr().out == "Statement 2026-10, KRW\n\nnothing was spent, held or committed\n"
    assert run.main(["statement", "--config", str(written), "--month", "soon"]) == 2
    assert "--month: found 'soon'; write a month as YYYY-MM" in capsys.readouterr().err


def test_status_says_what_people_were_told(
    serve: Serve, written: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controllers.budget.run.time.time", lambda: NOW + 60)
    asked = serve(at=NOW)
    asked.post("/usage", event_id="u", provider="aws", cost="12000 KRW")
    asked.step()
    assert run.main(["status", "--config", str(written)]) == 0
    said = capsys.readouterr().out
    assert "people were told that 75% of 'usage' are spent\npeople were told that 75% of 'total' are spent\n" in said
    assert "0 holds are open" in said
    usage = next(line for line in said.splitlines() if line.startswith("usage "))
    assert usage.endswith("  essential")  # the level that permits follow, as recorded


def test_without_a_ledger_the_commands_say_so(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "statement"):
        assert run.main([command, "--config", str(written)]) == 1
        assert "there is no ledger; is budget.ledger right, has `tidewise budget` run?" in capsys.readouterr().err


def test_without_a_budget_there_is_nothing_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text("workloads: []\n")
    with pytest.raises(ConfigError, match=r"budget: is missing; add it with 'total:', for example 24900 KRW"):
        run.main(["--config", str(path)])


def test_the_landing_page_shows_the_budgets(serve: Serve) -> None:
    asked = serve()
    assert "Nothing decided yet" in asked.controller.landing()
    asked.step()
    page = asked.controller.landing()
    assert "<td>usage</td><td>15,000.00</td>" in page
