"""People are warned before the API budget is exceeded: a real ledger, Prometheus, Alertmanager, and who receives.

Rules and routes are the shipped ones. Shortened: intervals to a second, the pauses that spare people, and the quarter
of an hour for which a month-end must be foreseen above the limit.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
import yaml

from controllers.budget.periods import bounds, period_of
from demo.processes import OwnProcess
from demo.receiver import Receiver
from testbed.parts import HOST, Alertmanager, Prometheus, free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SHIPPED = Path(__file__).resolve().parents[2] / "prometheus"
TOKEN = "a-token-of-the-acceptance-0123456789"
USAGE = 15_000
OCR = {"provider": "acme", "model": "ocr"}  # 2 KRW a page
PATIENCE_SECONDS = 60.0


class Till:
    """The ledger's HTTP, and what people were sent."""

    def __init__(self, url: str, receiver: Receiver) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {TOKEN}"
        self._receiver = receiver
        self._events = 0
        self._spent = [(0.0, 0.0)]

    def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        self._events += 1
        if path != "/settle":
            body["event_id"] = f"acceptance/{self._events}"
        answer = self._session.post(self._url + path, json=body, timeout=10)
        return answer.status_code, answer.json()

    def posted(self) -> float:
        state = self._session.get(self._url + "/state", timeout=10).json()
        return float(state["budgets"]["usage"]["posted"])

    def spend_up_to(self, ratio: float) -> float:
        """Reports so much spend that `ratio` of the budget is posted. When, in Unix seconds."""
        status, _ = self.post("/usage", provider="aws", service="s3", cost=f"{USAGE * ratio - self.posted():.6f} KRW")
        assert status == 200
        self._spent.append((time.time(), USAGE * ratio))
        return self._spent[-1][0]

    def told_at(self, alertname: str, **labels: str) -> float:
        """When people first heard of it for the budget 'usage'. Waits."""
        wanted = {"alertname": alertname, "budget": "usage", **labels}
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            for one in list(self._receiver.notifications):
                if one["status"] == "firing" and wanted.items() <= one["labels"].items():
                    return float(one["at"])
            assert time.monotonic() < until, f"nobody was told of {wanted}; told: {self._receiver.notifications}"
            time.sleep(0.1)

    def spent_at(self, at: float) -> float:
        """What was reported until then."""
        return max(amount for when, amount in self._spent if when <= at)


@pytest.fixture
def till(parts_root: Path, tmp_path: Path) -> Iterator[Till]:
    """Everything that runs, ready."""
    ports = {name: free_port() for name in ("budget", "receiver")}
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "tidewise.yaml").write_text(yaml.safe_dump(_configuration(tmp_path, ports["budget"])))
    receiver = Receiver(tmp_path, ports["receiver"])
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(_alertmanager(ports["receiver"])))
    people = Alertmanager(tmp_path / "alertmanager", tmp_path / "alertmanager.yml", root=parts_root)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(_prometheus(tmp_path, ports["budget"], people.port)))
    prometheus = Prometheus(tmp_path / "prometheus", tmp_path / "prometheus.yml", root=parts_root)
    ledger = OwnProcess(
        "budget", tmp_path, "controllers", ["budget", "--config", str(tmp_path / "tidewise.yaml")], port=ports["budget"]
    )
    receiver.start()
    ledger.start()
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        with people, prometheus:
            while not ledger.answers():
                assert ledger.running, ledger.log_tail()
                assert time.monotonic() < until, ledger.log_tail()
                time.sleep(0.1)
            yield Till(f"http://{HOST}:{ports['budget']}", receiver)
    finally:
        ledger.stop()
        receiver.stop()


def test_people_are_warned_before_the_budget_is_exceeded(
    till: Till, seen: Callable[[int, str], None]
) -> None:  # fmt: skip
    till.spend_up_to(0.3)
    passed: dict[int, tuple[float, float]] = {}
    for percent in (50, 75, 90):
        at = till.spend_up_to(percent / 100 + 0.01)
        passed[percent] = (at, till.told_at("BudgetThreshold", threshold=str(percent)))
    till.spend_up_to(0.995)
    foreseen_at = till.told_at("BudgetForecastExceeded")

    # until here money was given to what is critical, to the last won
    status, granted = till.post("/permit", **OCR, units={"pages": 37}, priority="critical")
    assert (status, granted["reason"]) == (200, "granted")
    assert till.post("/settle", hold=granted["hold"], units={"pages": 37})[0] == 200
    assert till.posted() < USAGE
    at_limit = till.spend_up_to(1.0)
    status, denied = till.post("/permit", **OCR, units={"pages": 1}, priority="critical")
    told_of_the_end_at = till.told_at("BudgetExceeded")

    order = [moment for line in passed.values() for moment in line]
    assert order == sorted(order), passed  # each line: passed, told; then the next
    assert order[-1] < at_limit
    assert foreseen_at < at_limit
    assert (status, denied["allowed"], denied["reason"]) == (402, False, "over_limit")
    assert told_of_the_end_at > at_limit
    lines = [
        f"{percent} % passed at {USAGE * (percent / 100 + 0.01):,.0f} KRW, told after {told - at:.0f} s"
        for percent, (at, told) in passed.items()
    ]
    seen(
        2,
        f"{'; '.join(lines)}; that the month would end above its limit was told at {till.spent_at(foreseen_at):,.0f}; "
        f"at {USAGE:,} the next permit was denied ({status} {denied['reason']})",
    )


def _configuration(folder: Path, port: int) -> dict[str, Any]:
    return {
        "budget": {
            "total": "24900 KRW",
            "usage": f"{USAGE} KRW",
            "fixed": [{"name": "server", "monthly": "9900 KRW"}],
            "time_zone": _zone(time.time()),
            "listen": [f"{HOST}:{port}"],
            "token_file": str(folder / "token"),
            "ledger": str(folder / "ledger.sqlite"),
            "interval_seconds": 1,
            "prices": [{**OCR, "per_unit": {"pages": "2 KRW"}}],
        }
    }


def _zone(now: float) -> str:
    """Where the month lasts longest yet, if it is not Seoul: on its last day nothing is ahead of its pace."""

    def left(name: str) -> float:
        zone = ZoneInfo(name)
        return bounds(period_of(now, zone), zone)[1] - now

    zones = ("Asia/Seoul", "Etc/GMT+12", "Pacific/Kiritimati")
    return zones[0] if left(zones[0]) > 2 * 86_400 else max(zones, key=left)


def _prometheus(folder: Path, budget_port: int, alertmanager_port: int) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    document["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    rules = yaml.safe_load((SHIPPED / "rules/budget-alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        if rule["alert"] == "BudgetForecastExceeded":
            rule["for"] = "2s"
    (folder / "budget-alerts.yml").write_text(yaml.safe_dump(rules))
    document["rule_files"] = [str(SHIPPED / "rules/budget.yml"), str(folder / "budget-alerts.yml")]
    document["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"{HOST}:{alertmanager_port}"]}]}]
    scraped = {"job_name": "tidewise-budget", "static_configs": [{"targets": [f"{HOST}:{budget_port}"]}]}
    return {**document, "scrape_configs": [scraped]}


def _alertmanager(receiver_port: int) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((SHIPPED / "alertmanager/alertmanager.yml").read_text())
    document["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in document["receivers"]:
        for webhook in receiver.get("webhook_configs", []):
            webhook["url"] = f"http://{HOST}:{receiver_port}/"
    return document
