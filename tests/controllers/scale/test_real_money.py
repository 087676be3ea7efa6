"""Money in the decision on real parts: `tidewise scale`, `tidewise budget`, a Prometheus and a target."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from testbed.parts import free_port

pytestmark = pytest.mark.real

TOKEN = "the-token-of-this-test-0123456789"
NAME = "default/video"
NEEDED = 5  # as the stage's Prometheus says


@pytest.fixture
def fleet(stage: Any) -> Path:
    """A file as the fleet: it holds the number of replicas."""
    file = stage.folder / "replicas"
    file.write_text("1")
    (stage.folder / "token").write_text(TOKEN + "\n")
    stage.ports["budget"] = free_port()
    put = f"import sys; open({str(file)!r}, 'w').write(sys.argv[1])"
    stage.config = {
        "prometheus": {"url": stage.prometheus.url},
        "workloads": [
            {
                "name": "video",
                "demand": {"queue": "video-jobs"},
                "target": {
                    "command": {"get": ["/bin/cat", str(file)], "set": [sys.executable, "-c", put, "{replicas}"]}
                },
                "replicas": {"min": 0, "max": 8},
                "price": {"per_replica_hour": "360 KRW"},  # 0.1 a second
                "lead_time_seconds": 1,
                "minimum_run_seconds": 1,
                "stabilization_window_seconds": 0,
                "mode": "act",
            }
        ],
        "scale": {
            "interval_seconds": 1,
            "record_every_seconds": 0,
            "replacements": str(stage.folder / "replacements.json"),
        },
        "budget": {
            "total": "55 KRW",
            "time_zone": "Asia/Seoul",
            "url": f"http://127.0.0.1:{stage.ports['budget']}",
            "token_file": str(stage.folder / "token"),
            "ledger": str(stage.folder / "ledger.sqlite"),
            "interval_seconds": 1,
            "replica_hold": {"ttl_seconds": 2, "grace_seconds": 200},
            "prices": [{"provider": "acme", "model": "ocr", "per_unit": {"pages": "1 KRW"}}],
        },
    }
    return file


def ledger(stage: Any, method: str, path: str, **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"http://127.0.0.1:{stage.ports['budget']}{path}"
    return requests.request(method, url, json=body or None, headers=headers, timeout=10).json()


def budget(stage: Any) -> dict[str, float]:
    found = ledger(stage, "GET", "/state")["budgets"]["total"]
    return {key: float(found[key]) for key in ("posted", "held")}


def holds(stage: Any) -> int:
    return int(ledger(stage, "GET", "/state")["workloads"][NAME]["replicas"])


def test_growth_is_paid_for_held_while_the_ledger_is_away_and_drained_when_the_money_is_gone(
    stage: Any, fleet: Path
) -> None:
    def replicas() -> int:
        return int(fleet.read_text() or -1)

    stage.start("budget")
    stage.start("scale")

    # a hold is 20.4 won: of 55, the running one and one more have their money, and for a minute of renewals
    stage.until(lambda: replicas() == 2, "two replicas")
    stage.until(lambda: "budget_cap" in stage.reasons(), "the cap")
    stage.steps(3)
    assert replicas() == 2
    assert budget(stage)["held"] + budget(stage)["posted"] <= 55
    argv = [sys.executable, "-m", "controllers", "why", "video", "--config", str(stage.path)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    assert f"without budget         {NEEDED}" in said, said
    assert "2 replicas paid for, 0 more would be admitted" in said, said

    # the ledger is killed: no growth, no kill, and the reason is on the page
    stage.kill("budget")
    stage.until(lambda: "budget_unreachable" in stage.reasons(), "the silence")
    stage.steps(3)
    assert replicas() == 2
    assert "tidewise_scale_ledger_up 0.0" in stage.page("scale")

    # it comes back with more money, and nobody had to restart the scaler
    stage.config["budget"]["total"] = "1000 KRW"
    stage.start("budget")
    stage.until(lambda: replicas() == NEEDED, "all that are needed")
    stage.until(lambda: holds(stage) == NEEDED, "a hold for each")
    # it is on record after it was told: whoever is killed in between has no record of it
    stage.until(lambda: any(record["told"] == NEEDED for record in stage.records()), "the record")

    # the scaler is killed and started again: it goes on with the holds that are there
    stage.kill("scale")
    stage.start("scale")
    stage.steps(3)
    assert replicas() == NEEDED
    assert holds(stage) == NEEDED

    # something else spends the month: renewals are refused, the fleet drains, and nothing stays held
    ledger(stage, "POST", "/usage", event_id="a/large/bill", provider="acme", model="ocr", units={"pages": 1000})
    stage.until(lambda: "budget_drain" in stage.reasons() or replicas() == 0, "the drain notice")
    stage.until(lambda: replicas() == 0, "an empty fleet")
    stage.until(lambda: budget(stage)["held"] == 0, "nothing held")
    numbers = [record["told"] for record in stage.records() if record["told"] is not None]
    assert numbers == [2, NEEDED, *numbers[2:]], "told only what was paid for"
    assert numbers[1:] == sorted(numbers[1:], reverse=True)
    assert numbers[-1] == 0
