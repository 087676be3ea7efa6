"""The remedies on real programs and a real scaler's endpoint: what each outcome is called, and what is read back."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controllers.config.recovery import RecoveryTarget
from controllers.recovery.operation import Result, Step
from controllers.recovery.remedies import REMEDIES, Ask, Outcome, Remedy
from controllers.recovery.remedies.restart import run
from controllers.scale.replacements import Replacements, routes
from exporters.runtime.bearer import refused
from exporters.runtime.endpoint import Endpoint

ASK = Ask("workers", "w1", "abc", "abc/replace/1", "default/video")


def remedy(step: Step, **settings: Any) -> Remedy:
    target = {
        "name": "workers",
        "workload": "default/video",
        "instances": ["w1"],
        "healthy": "up == 1",
        "symptoms": [{"alert": "Hung"}],
        step.value: settings,
    }
    made = REMEDIES[step](RecoveryTarget.model_validate(target))
    assert made is not None
    return made


# restart


def program(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_instance_is_one_argument_and_no_shell_sees_it(tmp_path: Path) -> None:
    argv = [
        program(tmp_path, f'printf "%s|" "$@" > {tmp_path}/seen; echo $TIDEWISE_EFFECT >> {tmp_path}/seen'),
        "worker@{instance}",
        "-f",
    ]
    outcome = remedy(Step.RESTART, argv=argv).apply(Ask("workers", "w1:9000", "abc", "abc/restart/1"), 5)
    assert outcome is not None
    assert outcome.result is Result.DONE
    assert (tmp_path / "seen").read_text() == "worker@w1:9000|-f|abc/restart/1\n"


@pytest.mark.parametrize("instance", ["--now", "w1 w2", "$(reboot)", "w1;reboot", "../w1", "", "w1\n"])
def test_what_could_be_more_than_a_name_is_refused(tmp_path: Path, instance: str) -> None:
    argv = [program(tmp_path, f"touch {tmp_path}/ran"), "{instance}"]
    outcome = remedy(Step.RESTART, argv=argv).apply(Ask("workers", instance, "abc", "abc/restart/1"), 5)
    assert outcome is not None
    assert outcome.result is Result.REFUSED
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("sentence", "text", "result", "said"),
    [
        ("it says no", "echo no such unit >&2; exit 5", Result.FAILED, "exited 5; it said: no such unit"),
        ("it says no without a word", "exit 1", Result.FAILED, "it said: nothing"),
        ("it talks without end", "head -c 3000000 /dev/zero | tr '\\0' x; exit 1", Result.FAILED, "xxx"),
        ("it is ended by a signal", "kill -9 $$", Result.FAILED, "exited -9"),
        ("it hangs", "sleep 60", Result.UNKNOWN, "did not end within"),
        ("it leaves a service behind that keeps its output open", "sleep 5 & exit 0", Result.DONE, "exited 0"),
    ],
)
def test_how_a_program_ends(tmp_path: Path, sentence: str, text: str, result: Result, said: str) -> None:
    began = time.monotonic()
    outcome = run([program(tmp_path, text)], 1.0, {})
    assert outcome.result is result, sentence
    assert said in outcome.detail
    assert time.monotonic() - began < 4


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    assert run([str(tmp_path / "none")], 1.0, {}).result is Result.FAILED


def test_nothing_of_a_program_that_hung_lives_on(tmp_path: Path) -> None:
    run([program(tmp_path, f"(sleep 60; true) & echo $! > {tmp_path}/child; wait")], 0.5, {})
    assert ended(int((tmp_path / "child").read_text()))


def ended(pid: int) -> bool:
    """Whether a process is gone or waits to be collected, within two seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# replace, against the scaler's own side


class Scaler:
    """A scaler's endpoint with the replacement routes. `now` is its clock."""

    def __init__(self, folder: Path) -> None:
        self.book = Replacements(folder / "replacements.json")
        self.token = folder / "scaler.token"
        self.token.write_text("the-token-of-the-scaler")
        self.now = 1_800_000_000.0
        made = routes(
            self.book,
            {"default/video": True, "default/quiet": False},
            lambda request: refused(request, self.token, "scale.token_file"),
            lambda: self.now,
        )
        self.endpoint = Endpoint(["127.0.0.1:0"], CollectorRegistry(), process="scale", ready=lambda: None, routes=made)
        self.endpoint.start()
        self.url = f"http://{self.endpoint.addresses[0]}"

    def remedy(self, **settings: Any) -> Remedy:
        return remedy(Step.REPLACE, **{"url": self.url, "token_file": str(self.token), "ttl_seconds": 600, **settings})


@pytest.fixture
def scaler(tmp_path: Path) -> Iterator[Scaler]:
    one = Scaler(tmp_path)
    yield one
    one.endpoint.stop()


def result_of(outcome: Outcome | None) -> Result | None:
    return None if outcome is None else outcome.result


def test_the_scaler_acknowledges_and_a_repetition_is_the_same_replacement(scaler: Scaler) -> None:
    replace = scaler.remedy()
    assert result_of(replace.read_back(ASK, 5)) is Result.UNREACHABLE  # never heard of
    assert [result_of(replace.apply(ASK, 5)) for _ in range(2)] == [Result.DONE, Result.DONE]
    assert result_of(replace.read_back(ASK, 5)) is Result.DONE
    (kept,) = scaler.book.active("default/video", scaler.now)
    assert (kept.instance, kept.operation, kept.until) == ("w1", "abc/replace/1", scaler.now + 600)


@pytest.mark.parametrize(
    ("sentence", "ask", "token", "said"),
    [
        ("a workload it does not have", Ask("t", "w1", "abc", "abc/replace/1", "default/none"), None, "no workload"),
        ("a workload in shadow", Ask("t", "w1", "abc", "abc/replace/1", "default/quiet"), None, "not in mode act"),
        ("the wrong token", ASK, "another-token-than-that", "send the token of scale.token_file"),
    ],
)
def test_the_scaler_refuses(
    scaler: Scaler, tmp_path: Path, sentence: str, ask: Ask, token: str | None, said: str
) -> None:
    (tmp_path / "mine").write_text(token or scaler.token.read_text())
    outcome = scaler.remedy(token_file=str(tmp_path / "mine")).apply(ask, 5)
    assert outcome is not None
    assert outcome.result is Result.REFUSED, sentence
    assert said in outcome.detail
    assert scaler.book.active("default/video", scaler.now) == ()


def test_nobody_listens(scaler: Scaler) -> None:
    replace = scaler.remedy()
    scaler.endpoint.stop()
    assert result_of(replace.apply(ASK, 5)) is Result.UNREACHABLE
    assert replace.read_back(ASK, 5) is None


def test_the_scalers_disk_is_full(scaler: Scaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("controllers.scale.replacements.os.fsync", full)
    outcome = scaler.remedy().apply(ASK, 5)
    assert outcome is not None
    assert outcome.result is Result.UNREACHABLE
    assert "No space left" in outcome.detail
    monkeypatch.undo()
    assert scaler.book.active("default/video", scaler.now) == ()
    assert result_of(scaler.remedy().apply(ASK, 5)) is Result.DONE


def test_an_answer_that_is_lost_after_the_request_arrived_is_unknown_and_read_back(scaler: Scaler) -> None:
    """A proxy between them passes the request on and drops the reply."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on_and_hang_up() -> None:
        client, _ = listener.accept()
        host, _, port = scaler.url.removeprefix("http://").rpartition(":")
        request = client.recv(65536)
        while b"ttl_seconds" not in request:
            request += client.recv(65536)
        with socket.create_connection((host, int(port))) as upstream:
            upstream.sendall(request)
            upstream.recv(65536)
        client.close()

    thread = threading.Thread(target=pass_on_and_hang_up)
    thread.start()
    through = scaler.remedy(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert through.apply(ASK, 5) is None
    thread.join()
    listener.close()
    assert result_of(scaler.remedy().read_back(ASK, 5)) is Result.DONE


@pytest.mark.parametrize(
    ("sentence", "status", "body", "result"),
    [
        ("a proxy's 502 says nothing", 502, "bad gateway", None),
        ("a proxy's 503 neither", 503, "<html>", None),
        ("the scaler's own 503 does", 503, json.dumps({"error": "disk full"}), Result.UNREACHABLE),
        ("a redirect is no acknowledgement", 302, "", None),
        ("a refusal is a refusal", 409, json.dumps({"error": "too many"}), Result.REFUSED),
    ],
)
def test_answers_of_others(sentence: str, status: int, body: str, result: Result | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        replace = remedy(Step.REPLACE, url=f"http://127.0.0.1:{server.server_address[1]}")
        assert result_of(replace.apply(ASK, 5)) is result, sentence
        thread.join()


def test_a_scaler_that_is_silent_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        replace = remedy(Step.REPLACE, url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=0.3)
        began = time.monotonic()
        assert replace.apply(ASK, 5) is None
        assert time.monotonic() - began < 2


def test_a_scaler_whose_headers_drip_in_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not over.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        replace = remedy(Step.REPLACE, url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=0.3)
        began = time.monotonic()
        assert replace.apply(ASK, 5) is None  # it may have arrived
        assert time.monotonic() - began < 5
        over.set()
        thread.join()


def test_an_address_that_is_none_was_never_asked() -> None:
    outcome = remedy(Step.REPLACE, url="http://127.0.0.1:1").apply(ASK, 5)
    assert result_of(outcome) is Result.UNREACHABLE


def test_the_whole_ladder_up_to_an_acknowledged_replacement(
    document: Any, stepped: Any, workers: Any, scaler: Scaler
) -> None:
    settings = {"url": scaler.url, "token_file": str(scaler.token), "mode": "act"}
    one = stepped(document(workload="default/video", replace=settings))
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10, times=45)
    assert workers.restarted() == ["w2"] * 3
    (kept,) = scaler.book.active("default/video", scaler.now)
    operation = one.book.open_one("workers", "w2")
    assert (kept.instance, kept.operation) == ("w2", f"{operation.id}/replace/1")
    workers.lost.add("w2")  # the scaler replaced it
    one.after(10, times=14)
    assert one.book.operations[operation.id].closed_for == "recovered"


def test_in_the_default_a_replacement_is_only_proposed(
    document: Any, stepped: Any, workers: Any, scaler: Scaler, alertmanager: Any
) -> None:
    settings = {"url": scaler.url, "token_file": str(scaler.token)}
    section = {"alertmanager": alertmanager.url}
    one = stepped(document(workload="default/video", replace=settings, section=section))
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10, times=45)
    assert scaler.book.active("default/video", scaler.now) == ()
    assert alertmanager.standing(one.now) == {("RecoverySuggested", "workers", "recommend")}


def test_a_scaler_that_cannot_be_asked_what_became_of_it_freezes_the_operation(
    document: Any, stepped: Any, workers: Any, scaler: Scaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"url": scaler.url, "token_file": str(scaler.token), "mode": "act"}
    one = stepped(document(workload="default/video", replace=settings, restart=None, section={"interval_seconds": 1}))
    workers.hung.add("w2")
    real = one.recovery._remedies["workers"][Step.REPLACE]
    lost = Remedy(lambda ask, seconds: (real.apply(ask, seconds), None)[1], lambda ask, seconds: None, 1.0)
    one.recovery._remedies["workers"][Step.REPLACE] = lost
    one.after(10, times=20)
    assert one.next("w2") == ("freeze", "outcome_unknown")
    assert len(scaler.book.active("default/video", scaler.now)) == 1
    one.recovery._remedies["workers"][Step.REPLACE] = real
    one.after(10)
    assert one.next("w2") == ("verify", "verifying")
