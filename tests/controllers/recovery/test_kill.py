"""Recovery as a process of its own, killed with SIGKILL before and after each write of its journal, and started again.

Whatever the moment: it goes on, or calls people; no attempt is carried out twice, and none beyond the limit.
"""

import http.client
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controllers.recovery.book import Entry, Kind
from controllers.recovery.journal import JournalError, read_journal
from controllers.recovery.operation import Reason, Result, Step
from controllers.scale.replacements import Replacement, Replacements, routes
from exporters.runtime.bearer import refused
from exporters.runtime.endpoint import Endpoint, Request, Response
from testbed.parts import free_port

# At a hundredth of the ordinary pace: the order of things is what is tested.
FAST = {
    "interval_seconds": 0.05,
    "limits": {"back_off_seconds": 0.05, "back_off_max_seconds": 0.1},
}
FAST_TARGET = {"verify_seconds": 0.4, "stability_seconds": 0.2}


def until(done: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def entries(tmp_path: Path) -> list[Entry]:
    try:
        return read_journal(tmp_path / "journal.db")[0]
    except JournalError:  # not made yet
        return []


def taken_over_and_done(tmp_path: Path, epoch: int = 2) -> bool:
    """Whether the process of this epoch runs, and the (only) operation was closed or handed to people."""
    found = entries(tmp_path)
    return any(e.epoch >= epoch for e in found) and any(e.kind in (Kind.CLOSED, Kind.HANDED) for e in found)


def killed_then_started_again(process: Any, document: Any, point: str, tmp_path: Path) -> None:
    process.start(document, tmp_path, TIDEWISE_KILL_AT=point)
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    epoch = 1 + max((entry.epoch for entry in entries(tmp_path)), default=0)
    process.start(document, tmp_path)
    until(lambda: taken_over_and_done(tmp_path, epoch))


MENDED = ["epoch", "opened", "decided", "reserved", "check", "outcome", "closed"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", MENDED)
def test_a_killed_recovery_mends_and_repeats_nothing(
    process: Any, document: Any, workers: Any, tmp_path: Path, write: str, moment: str
) -> None:
    workers.hung.add("w2")
    killed_then_started_again(process, document(section=FAST, **FAST_TARGET), f"{write}:{moment}", tmp_path)
    assert process.stop() == 0
    assert workers.restarted() == ["w2"]
    (operation,) = read_journal(tmp_path / "journal.db")[1].operations.values()
    assert operation.closed_for is Reason.RECOVERED
    # an attempt that was reserved counts, whether it was carried out or not
    lost = f"{write}:{moment}" in ("reserved:after", "check:before", "check:after")
    assert [a.number for a in operation.attempts] == ([1, 2] if lost else [1])
    assert workers.effects() == [f"w2 {operation.id}/restart/{2 if lost else 1}"]


GIVEN_UP = ["judged", "handed", "reserved:2", "outcome:3", "decided:4"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", GIVEN_UP)
def test_a_killed_recovery_keeps_to_its_attempts_and_pages(
    process: Any, document: Any, workers: Any, tmp_path: Path, alertmanager: Any, write: str, moment: str
) -> None:
    kind, _, turn = write.partition(":")
    workers.cures(False)
    workers.hung.add("w2")
    config = document(section={**FAST, "alertmanager": alertmanager.url}, **FAST_TARGET)
    killed_then_started_again(process, config, f"{kind}:{moment}" + (f":{turn}" if turn else ""), tmp_path)
    until(lambda: bool(alertmanager.posted))
    assert process.stop() == 0
    (operation,) = read_journal(tmp_path / "journal.db")[1].operations.values()
    assert operation.handed_for is Reason.LADDER_END
    assert [a.number for a in operation.attempts] == [1, 2, 3]
    effects = workers.effects()
    assert len(set(effects)) == len(effects)
    assert set(effects) <= {f"w2 {operation.id}/restart/{n}" for n in (1, 2, 3)}
    assert len(effects) == (2 if write == "reserved:2" and moment == "after" else 3)
    assert {a["labels"]["alertname"] for a in alertmanager.posted} == {"RecoveryFailed"}


def test_killed_while_the_restart_runs_it_is_not_run_again(
    process: Any, document: Any, workers: Any, tmp_path: Path
) -> None:
    """The program outlives recovery and has its effect; the next process sees that, and leaves it at one."""
    slow = tmp_path / "slow"
    slow.write_text(f'#!/bin/sh\ntouch {tmp_path}/begun\nsleep 0.3\nexec {workers.argv[0]} "$1"\n')
    slow.chmod(0o755)
    workers.hung.add("w2")
    config = document(section=FAST, **FAST_TARGET, restart={"argv": [str(slow), "{instance}"]})
    pid = process.start(config, tmp_path)
    until((tmp_path / "begun").exists)
    os.kill(pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.start(config, tmp_path)
    until(lambda: taken_over_and_done(tmp_path))
    assert process.stop() == 0
    (operation,) = read_journal(tmp_path / "journal.db")[1].operations.values()
    assert operation.attempts[0].result is Result.UNKNOWN
    assert workers.effects() == [f"w2 {operation.id}/restart/1"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_an_alert_is_delivered_it_never_said_yes_and_takes_it_again(
    process: Any, document: Any, workers: Any, tmp_path: Path, moment: str
) -> None:
    port = free_port()
    (tmp_path / "token").write_text("the-token-of-alertmanager")
    section = {**FAST, "token_file": str(tmp_path / "token"), "listen": [f"127.0.0.1:{port}"]}
    config = document(section=section)
    workers.hung.add("w2")
    alert: dict[str, Any] = {"status": "firing", "labels": {"alertname": "WorkerHung", "instance": "w2"}}
    alert |= {"startsAt": "t", "fingerprint": "a"}

    def deliver() -> tuple[int, dict[str, int]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request(
                "POST",
                "/alerts",
                json.dumps({"alerts": [alert]}),
                {"Authorization": "Bearer the-token-of-alertmanager"},
            )
            response = connection.getresponse()
            return response.status, dict(json.loads(response.read()))
        finally:
            connection.close()

    process.start(config, tmp_path, TIDEWISE_KILL_AT=f"alerts:{moment}")
    until(lambda: bool(workers.effects()))
    with pytest.raises((OSError, http.client.HTTPException)):
        deliver()
    assert process.wait() == -signal.SIGKILL
    process.start(config, tmp_path)
    until(lambda: any(entry.epoch == 2 for entry in entries(tmp_path)))
    answers = [deliver()]
    while answers[-1][0] == 503:  # not yet the leader: Alertmanager asks again, too
        time.sleep(0.05)
        answers.append(deliver())
    status, told = answers[-1]
    assert status == 200
    assert told["accepted"] == (1 if moment == "before" else 0)
    assert told["duplicate"] == (0 if moment == "before" else 1)
    assert process.stop() == 0


def test_a_disk_that_fills_up_stops_it_pages_and_nothing_is_forgotten(
    process: Any, document: Any, workers: Any, alertmanager: Any, tmp_path: Path
) -> None:
    config = document(section={**FAST, "alertmanager": alertmanager.url}, **FAST_TARGET)
    pid = process.start(config, tmp_path, log="/dev/null")
    until(lambda: bool(entries(tmp_path)))
    no_limit = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, no_limit))
    workers.hung.add("w2")
    until(lambda: bool(alertmanager.posted))
    assert {a["labels"]["alertname"] for a in alertmanager.posted} == {"RecoveryJournalBroken"}
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (no_limit, no_limit))
    time.sleep(0.3)  # it stepped down: who could not write once does not trust what it has in memory
    assert process.stop() == 0
    assert workers.effects() == []
    process.start(config, tmp_path)
    until(lambda: taken_over_and_done(tmp_path))
    assert process.stop() == 0
    assert workers.restarted() == ["w2"]


# replace: between recovery and the scaler

VIDEO = "default/video"


class Scaler:
    """The scaler's routes on a real endpoint; `asked` are the requests that came with the right token."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "replacements.json"
        self.token = folder / "scaler.token"
        self.token.write_text("the-token-of-the-scaler\n")
        self.asked: list[str] = []
        made = routes(Replacements(self.file), {VIDEO: True}, self._refused)
        self.endpoint = Endpoint(["127.0.0.1:0"], CollectorRegistry(), process="scale", ready=lambda: None, routes=made)
        self.endpoint.start()
        self.url = f"http://{self.endpoint.addresses[0]}"

    def _refused(self, request: Request) -> Response | None:
        refusal = refused(request, self.token, "scale.token_file")
        if refusal is None:
            self.asked.append(request.method)
        return refusal

    def kept(self) -> tuple[Replacement, ...]:
        """The replacements on its disk that are in force."""
        return Replacements(self.file).active(VIDEO, time.time())


@pytest.fixture
def scaler(tmp_path: Path) -> Iterator[Scaler]:
    one = Scaler(tmp_path)
    yield one
    one.endpoint.stop()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", ["reserved", "check", "outcome"])
def test_a_replacement_is_asked_for_once_whenever_recovery_is_killed(
    process: Any, document: Callable[..., Any], workers: Any, scaler: Scaler, tmp_path: Path, write: str, moment: str
) -> None:
    replace = {"url": scaler.url, "token_file": str(scaler.token), "mode": "act"}
    config = document(section=FAST, **FAST_TARGET, workload=VIDEO, restart=None, replace=replace)
    workers.hung.add("w2")
    process.start(config, tmp_path, TIDEWISE_KILL_AT=f"{write}:{moment}")
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    answered_before = scaler.asked.copy()
    process.start(config, tmp_path)
    until(lambda: bool(scaler.kept()))
    workers.lost.add("w2")  # the scaler has replaced it
    until(lambda: taken_over_and_done(tmp_path))
    assert process.stop() == 0
    (operation,) = read_journal(tmp_path / "journal.db")[1].operations.values()
    assert operation.closed_for is Reason.RECOVERED
    assert {attempt.step for attempt in operation.attempts} == {Step.REPLACE}
    # a reserved attempt that was never sent counts: the scaler says that it never heard of it, and the next one is made
    lost = f"{write}:{moment}" in ("reserved:after", "check:before", "check:after")
    assert [a.result for a in operation.attempts] == ([Result.UNREACHABLE] if lost else []) + [Result.DONE]
    (one,) = scaler.kept()
    assert (one.instance, one.operation) == ("w2", f"{operation.id}/replace/{2 if lost else 1}")
    assert scaler.asked.count("POST") == 1
    assert scaler.asked.count("GET") == (1 if lost or f"{write}:{moment}" == "outcome:before" else 0)
    if f"{write}:{moment}" == "outcome:before":  # acknowledged, and killed before that was written down
        assert answered_before == ["POST"]
        assert operation.attempts[-1].detail == "acknowledged, as the scaler says"
