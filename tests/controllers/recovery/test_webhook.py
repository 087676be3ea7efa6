"""The webhook on the real endpoint: who may deliver, what is kept, and that nothing it says is believed."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from exporters.runtime.endpoint import Endpoint
from testbed.parts import Alertmanager

TOKEN = "the-token-of-alertmanager"
CLOSED = (
    "recovery.token_file is not configured, so nobody can prove who they are; write a long random line into a file "
    "that only both sides can read, and name it there"
)


def delivery(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "receiver": "recovery", "alerts": list(alerts), **changes}


def alert(
    instance: str = "w2",
    name: str = "WorkerHung",
    status: str = "firing",
    fingerprint: str = "a1b2",
    starts_at: str = "2027-01-15T08:00:00Z",
) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": name, "instance": instance},
        "annotations": {},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": fingerprint,
    }


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def post(self, body: Any, token: str | None = TOKEN) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", "/alerts", data, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        return response.status, json.loads(text) if text.startswith("{") else text


@pytest.fixture(scope="module")
def port() -> Iterator[Callable[[Any], int]]:
    """One endpoint for all tests here: `port(webhook)` is where it serves that one from now on."""
    current: list[Any] = []
    routes = {("POST", "/alerts"): lambda request: current[-1].receive(request)}
    endpoint = Endpoint(["127.0.0.1:0"], CollectorRegistry(), process="recovery", ready=lambda: None, routes=routes)
    endpoint.start()

    def serve(webhook: Any) -> int:
        current.append(webhook)
        return int(endpoint.addresses[0].rpartition(":")[2])

    yield serve
    endpoint.stop()


@pytest.fixture
def served(tmp_path: Path, document: Any, stepped: Any, port: Any) -> Callable[..., tuple[Any, Client]]:
    """Recovery with its webhook on a real endpoint. Its journal is open unless `steps` is 0."""

    def make(token: str | None = TOKEN, steps: int = 1, **section: Any) -> tuple[Any, Client]:
        if token is not None:
            (tmp_path / "token").write_text(token + "\n")
        one = stepped(document(section={"token_file": str(tmp_path / "token"), **section}))
        one.after(10, times=steps)
        return one, Client(port(one.recovery.webhook))

    return make


def test_a_delivery_is_kept_and_a_repeated_one_is_no_second_one(served: Any, workers: Any) -> None:
    one, client = served()
    assert client.post(delivery(alert())) == (200, {"accepted": 1, "duplicate": 0, "undeclared": 0, "truncated": 0})
    assert client.post(delivery(alert()))[1]["duplicate"] == 1
    # Prometheus does not confirm it
    one.after(10)
    assert one.next("w2") == ("none",)
    assert workers.effects() == []


@pytest.mark.parametrize(
    ("sentence", "configured", "given", "status"),
    [
        ("no token given", TOKEN, None, 401),
        ("the wrong token", TOKEN, "other", 401),
        ("a token that begins alike", TOKEN, TOKEN + "x", 401),
        ("a token of other letters", TOKEN, "schlüssel", 401),
        ("an empty token file lets nobody in, least of all the empty token", " ", "", 503),
        ("a token that could be guessed", "secret", "secret", 503),
        ("a token file that is not there", None, TOKEN, 503),
    ],
)
def test_without_the_right_token_nothing_passes(
    served: Any, sentence: str, configured: str | None, given: str | None, status: int
) -> None:
    one, client = served(configured)
    given_bytes = given.encode().decode("latin-1") if given is not None else None
    assert client.post(delivery(alert()), given_bytes)[0] == status, sentence
    assert one.recovery.webhook.counts["accepted"] == 0


def test_without_a_configured_token_file_the_webhook_is_closed(served: Any) -> None:
    _, client = served(token_file=None)
    assert client.post(delivery(alert())) == (503, {"error": CLOSED})


def test_a_changed_token_counts_at_once(served: Any, tmp_path: Path) -> None:
    _, client = served()
    (tmp_path / "token").write_text("a-new-token-of-alertmanager")
    assert client.post(delivery(alert()))[0] == 401
    assert client.post(delivery(alert()), "a-new-token-of-alertmanager")[0] == 200


@pytest.mark.parametrize(
    ("sentence", "body", "status"),
    [
        ("not JSON", b"{", 400),
        ("JSON of another kind", b"[]", 400),
        ("nested beyond reason", b'{"alerts": ' + b"[" * 100_000, 400),
        ("no alerts at all", b"{}", 400),
        ("an alert without identity", delivery({"status": "firing", "labels": {}, "startsAt": "t"}), 400),
        ("a status that does not exist", delivery(alert(status="maybe")), 400),
        ("labels that are no text", delivery({**alert(), "labels": {"alertname": 7}}), 400),
        ("an identity as long as a book", delivery(alert(starts_at="t" * 101)), 400),
        ("an empty list is well", delivery(), 200),
        ("too many alerts in one", delivery(*[alert(fingerprint=f"{n:x}") for n in range(1001)]), 413),
    ],
)  # fmt: skip
def test_bad_bodies(served: Any, sentence: str, body: Any, status: int) -> None:
    one, client = served()
    assert client.post(body)[0] == status, sentence
    assert one.recovery.webhook.counts["accepted"] == 0


def test_a_body_beyond_a_mebibyte_is_refused_before_it_is_read(served: Any) -> None:
    _, client = served()
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)
    connection.putrequest("POST", "/alerts")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", str((1 << 20) + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize(
    ("sentence", "labels"),
    [
        ("an alert nobody declared", {"alertname": "Other", "instance": "w2"}),
        ("an instance nobody declared", {"alertname": "WorkerHung", "instance": "w99"}),
        ("no instance", {"alertname": "WorkerHung"}),
        ("an instance that would be an option", {"alertname": "WorkerHung", "instance": "--all"}),
        ("an instance that would be a shell command", {"alertname": "WorkerHung", "instance": "w1; rm -rf /"}),
        ("an instance that would be a path upwards", {"alertname": "WorkerHung", "instance": "w1/../../etc"}),
    ],
)
def test_labels_only_look_up_what_is_declared(served: Any, sentence: str, labels: Any, workers: Any) -> None:
    one, client = served()
    status, told = client.post(delivery({**alert(), "labels": labels}))
    assert (status, told["undeclared"]) == (200, 1), sentence
    one.after(10)
    assert workers.effects() == []


def test_truncated_alerts_are_counted_and_the_truth_is_read_anyway(served: Any, workers: Any) -> None:
    one, client = served()
    workers.hung.add("w5")  # among those that were cut off
    assert client.post(delivery(alert(), truncatedAlerts=7))[1]["truncated"] == 7
    one.after(10)
    assert workers.restarted() == ["w5"]


def test_an_alert_about_an_instance_nobody_sees_freezes_and_pages(served: Any, workers: Any, alertmanager: Any) -> None:
    one, client = served(alertmanager=alertmanager.url)
    workers.dead.add("w2")  # not shown healthy, and no symptom either
    client.post(delivery(alert()))
    one.after(10)
    assert one.next("w2") == ("freeze", "health_unknown")
    assert ("RecoveryFrozen", "workers", "health_unknown") in alertmanager.standing(one.now)


def test_resolved_before_firing_and_resolved_never(served: Any, workers: Any) -> None:
    one, client = served()
    workers.hung.add("w2")
    client.post(delivery(alert(status="resolved")))
    client.post(delivery(alert()))
    one.after(10)
    assert workers.restarted() == ["w2"]  # whatever was said of it: Prometheus shows the symptom
    one.after(60, times=4)
    assert one.book.open_operations() == []  # and ends the operation, though nobody said "resolved"


def test_before_the_journal_is_open_and_after_it_broke_it_is_asked_to_come_again(served: Any, tmp_path: Path) -> None:
    one, client = served(steps=0)
    assert client.post(delivery(alert()))[0] == 503
    one.after(10)
    assert client.post(delivery(alert()))[0] == 200
    (tmp_path / "journal.db").unlink()
    assert client.post(delivery(alert(fingerprint="ffff")))[0] == 503
    assert client.post(delivery(alert(fingerprint="ffff")))[0] == 503


def test_the_follower_answers_503(served: Any, stepped: Any, document: Any) -> None:
    one, client = served()
    stepped(document()).after(20)  # takes over the same journal
    status, told = client.post(delivery(alert()))
    assert status == 503
    assert "another recovery took over" in told["error"]
    assert one.recovery.webhook.counts["refused"] == 1


def test_a_slow_body_holds_nobody_up(served: Any) -> None:
    _, client = served()
    slow = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    slow.putrequest("POST", "/alerts")
    slow.putheader("Content-Length", "100")
    slow.putheader("Authorization", f"Bearer {TOKEN}")
    slow.endheaders(b"{")
    assert client.post(delivery(alert()))[0] == 200
    slow.close()


def test_a_storm_of_ten_thousand_alerts_is_one_operation(served: Any, workers: Any) -> None:
    one, client = served()
    workers.hung.add("w2")
    workers.cures(False)
    alerts = [alert(fingerprint=f"{n:x}", starts_at=f"2027-01-15T08:{n % 60:02}:00Z") for n in range(10_000)]
    began = time.monotonic()
    statuses = [client.post(delivery(*alerts[n : n + 500]))[0] for n in range(0, 10_000, 500)]
    assert time.monotonic() - began < 20
    assert statuses[:4] == [200] * 4  # as many as may wait
    assert set(statuses[4:]) == {503}  # Alertmanager comes again
    one.after(10)
    assert [client.post(delivery(*alerts[n : n + 500]))[0] for n in (2000, 2500)] == [200, 200]
    one.after(10)
    assert len(one.book.operations) == 1
    assert workers.restarted() == ["w2"]


def test_deliveries_and_steps_do_not_disturb_each_other(served: Any, workers: Any) -> None:
    one, client = served()
    statuses: list[int] = []

    def deliver(first: int) -> None:
        for n in range(first, first + 10):
            statuses.append(client.post(delivery(alert(fingerprint=f"{n:x}")))[0])

    threads = [threading.Thread(target=deliver, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    workers.hung.add("w3")
    one.after(10, times=10)
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    assert workers.restarted() == ["w3"]


@pytest.mark.real
def test_a_real_alertmanager_delivers(served: Any, workers: Any, parts_root: Path, tmp_path: Path) -> None:
    one, client = served()
    path = tmp_path / "alertmanager.yml"
    webhook = {
        "url": f"http://127.0.0.1:{client.port}/alerts",
        "send_resolved": True,
        "max_alerts": 100,
        "http_config": {"authorization": {"type": "Bearer", "credentials_file": str(tmp_path / "token")}},
    }
    path.write_text(
        yaml.safe_dump(
            {
                "route": {"receiver": "recovery", "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"},
                "receivers": [{"name": "recovery", "webhook_configs": [webhook]}],
            }
        )
    )
    with Alertmanager(tmp_path / "alertmanager", path, root=parts_root) as real:
        connection = http.client.HTTPConnection("127.0.0.1", real.port, timeout=5)
        body = json.dumps([{"labels": {"alertname": "WorkerHung", "instance": "w4"}}])
        connection.request("POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
        until = time.monotonic() + 15
        while one.recovery.webhook.counts["accepted"] == 0 and time.monotonic() < until:
            time.sleep(0.05)
    assert one.recovery.webhook.counts == {"accepted": 1, "duplicate": 0, "undeclared": 0, "truncated": 0}
    workers.hung.add("w4")
    one.after(10)
    assert workers.restarted() == ["w4"]
