"""Silences, time intervals and pages on a real Alertmanager."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from controllers.recovery.alertmanager import Page, post_pages, read_quiet
from controllers.recovery.http import NeighbourError, exchange
from testbed.parts import Alertmanager, amtool

pytestmark = pytest.mark.real

CONFIG = {
    "route": {
        "receiver": "nobody",
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": "1s",
        "routes": [
            {"receiver": "nobody", "matchers": ["instance = w4"], "continue": True},
            {"receiver": "nobody", "matchers": ["alertname = Nightly"], "mute_time_intervals": ["always"]},
        ],
    },
    "receivers": [{"name": "nobody"}],
    "time_intervals": [
        {"name": "always", "time_intervals": [{"times": [{"start_time": "00:00", "end_time": "24:00"}]}]}
    ],
}


@pytest.fixture(scope="module")
def real(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder = tmp_path_factory.mktemp("alertmanager")
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(CONFIG))
    with Alertmanager(folder, folder / "alertmanager.yml", root=parts_root) as one:
        yield one


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_a_silence_is_seen_and_its_end_as_well(real: Alertmanager) -> None:
    hung = {"alertname": "WorkerHung", "instance": "w2", "job": "worker"}
    assert not read_quiet(real.url, ["WorkerHung"], 5).covers(hung)
    said = amtool(
        f"--alertmanager.url={real.url}", "silence", "add", "-c", "x", "-a", "me", "-d", "1h",
        "alertname=WorkerHung", "instance=~w[0-9]", root=real.root,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    quiet = read_quiet(real.url, ["WorkerHung"], 5)
    assert quiet.covers(hung)
    assert not quiet.covers({**hung, "instance": "db1"})
    amtool(f"--alertmanager.url={real.url}", "silence", "expire", said.stdout.strip(), root=real.root)
    assert not read_quiet(real.url, ["WorkerHung"], 5).covers(hung)


def test_an_alert_muted_by_a_time_interval_is_in_its_maintenance_window(real: Alertmanager) -> None:
    firing = [("Nightly", "w2"), ("Nightly", "w4"), ("Daily", "w2")]
    alerts = [{"labels": {"alertname": name, "instance": instance, "severity": "page"}} for name, instance in firing]
    assert exchange("POST", f"{real.url}/api/v2/alerts", 5, alerts).status == 200
    until(lambda: bool(read_quiet(real.url, ["Nightly", "Daily"], 5).alerts))
    quiet = read_quiet(real.url, ["Nightly", "Daily"], 5)
    assert quiet.covers({"alertname": "Nightly", "instance": "w2"})
    assert not quiet.covers({"alertname": "Nightly", "instance": "w3"})
    # people have quiet hours, and another route of the same alert has none
    assert not quiet.covers({"alertname": "Nightly", "instance": "w4"})
    assert not quiet.covers({"alertname": "Daily", "instance": "w2"})


def test_a_page_stands_while_it_is_repeated_and_ends_when_taken_back(real: Alertmanager) -> None:
    page = Page("RecoveryFailed", "workers", "ladder_end", "summary", "description", since=time.time() - 60)

    def standing() -> list[dict[str, str]]:
        reply = exchange("GET", f'{real.url}/api/v2/alerts?filter=alertname%3D"RecoveryFailed"', 5)
        return [alert["labels"] for alert in reply.body]

    for _ in range(2):
        post_pages(real.url, [page], [], time.time(), 5)
    # what the rule of the same name sends as well is the same alert
    labels = {"alertname": "RecoveryFailed", "severity": "page", "target": "workers", "reason": "ladder_end"}
    assert exchange("POST", f"{real.url}/api/v2/alerts", 5, [{"labels": labels}]).status == 200
    until(lambda: standing() == [labels])
    post_pages(real.url, [], [page], time.time(), 5)
    until(lambda: standing() == [])


def test_who_is_no_alertmanager_is_said(real: Alertmanager) -> None:
    with pytest.raises(NeighbourError, match="HTTP 404"):
        read_quiet(f"{real.url}/elsewhere", [], 5)
    with pytest.raises(NeighbourError, match="Connection refused") as error:
        read_quiet("http://127.0.0.1:1", [], 5)
    assert not error.value.may_have_arrived
