"""A scripted Prometheus, a scripted Alertmanager, and recovery run step by step or as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from controllers.config import Config
from controllers.loop import Tick
from controllers.recovery.book import Book
from controllers.recovery.journal import read_journal
from controllers.recovery.run import Recovery
from controllers.sources.prometheus import Source

NOW = 1_800_000_000.0
ROOT = Path(__file__).resolve().parents[3]


class FakePrometheus:
    """Answers `answers[expression]`: a list of (labels, value), or a function that gives one. `mode` breaks it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.mode = "well"  # well | down | partial | garbage
        self.asked = 0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, body = fake.answer(form["query"][0])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.server, self.url = serve(Handler)

    def answer(self, expr: str) -> tuple[int, bytes]:
        self.asked += 1
        if self.mode == "down":
            return 503, b"down"
        if self.mode == "garbage":
            return 200, b'{"status": "succ'
        rows = self.answers.get(expr, [])
        rows = rows() if callable(rows) else rows
        result = [{"metric": labels, "value": [NOW, str(value)]} for labels, value in rows]
        body: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": result}}
        if self.mode == "partial":
            body["warnings"] = ["one store did not answer"]
        return 200, json.dumps(body).encode()


class FakeAlertmanager:
    """Takes alerts and tells silences. `posted`: every alert, in the order of delivery."""

    def __init__(self) -> None:
        self.silences: list[dict[str, Any]] = []
        self.muted: list[dict[str, Any]] = []
        self.posted: list[dict[str, Any]] = []
        self.mode = "well"  # well | down | deaf (it tells silences and takes no alert)
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = fake.silences if "/silences" in self.path else [{"alerts": [alert]} for alert in fake.muted]
                self._answer(503 if fake.mode == "down" else 200, found)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if fake.mode == "well":
                    fake.posted += body
                self._answer(200 if fake.mode == "well" else 503, None)

            def _answer(self, status: int, value: object) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.server, self.url = serve(Handler)

    def standing(self, now: float) -> set[tuple[str, str, str]]:
        """(alert, target, reason) of what people are being told."""
        last = {tuple(a["labels"][name] for name in ("alertname", "target", "reason")): a for a in self.posted}
        return {key for key, a in last.items() if datetime.fromisoformat(a["endsAt"]).timestamp() > now}  # type: ignore[misc]


def serve(handler: type[BaseHTTPRequestHandler]) -> tuple[ThreadingHTTPServer, str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    fake = FakePrometheus()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def alertmanager() -> Iterator[FakeAlertmanager]:
    fake = FakeAlertmanager()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


class Workers:
    """Workers w1 … wN as Prometheus sees them, and a restart program that writes down each call of it.

    `hung`: those with the symptom; `dead`: those whose liveness fails; `lost`: those that no series mentions any more.
    A restart mends the symptom only while the file `cures` is there.
    """

    def __init__(self, folder: Path, prometheus: FakePrometheus, count: int = 5) -> None:
        self.folder = folder
        self.names = [f"w{number}" for number in range(1, count + 1)]
        self.hung: set[str] = set()
        self.dead: set[str] = set()
        self.lost: set[str] = set()
        (folder / "cures").touch()
        program = folder / "restart"
        program.write_text(
            f'#!/bin/sh\necho "$1 $TIDEWISE_EFFECT" >> {folder}/effects\n'
            f"[ ! -e {folder}/cures ] || touch {folder}/cured.$1\n"
        )
        program.chmod(0o755)
        self.argv = [str(program), "{instance}"]
        prometheus.answers["hung"] = lambda: [
            ({"instance": n, "job": "worker"}, 1) for n in self.names if self.is_hung(n)
        ]
        prometheus.answers["up"] = lambda: [
            ({"instance": n}, 0 if n in self.dead else 1) for n in self.names if n not in self.lost
        ]
        prometheus.answers["up == 1"] = lambda: [
            ({"instance": n}, 1) for n in self.names if n not in self.dead and n not in self.lost
        ]

    def is_hung(self, name: str) -> bool:
        """A restart that cured it takes the symptom away for good."""
        if (self.folder / f"cured.{name}").exists():
            self.hung.discard(name)
            (self.folder / f"cured.{name}").unlink()
        return name in self.hung

    def cures(self, does: bool) -> None:
        (self.folder / "cures").touch() if does else (self.folder / "cures").unlink(missing_ok=True)

    def effects(self) -> list[str]:
        """'INSTANCE OPERATION/STEP/NUMBER' of each restart that was carried out."""
        file = self.folder / "effects"
        return file.read_text().splitlines() if file.exists() else []

    def restarted(self) -> list[str]:
        return [line.split()[0] for line in self.effects()]


@pytest.fixture
def workers(tmp_path: Path, prometheus: FakePrometheus) -> Workers:
    return Workers(tmp_path, prometheus)


Changes = dict[str, Any]


@pytest.fixture
def document(tmp_path: Path, prometheus: FakePrometheus, workers: Workers) -> Callable[..., dict[str, Any]]:
    """A configuration of one target, `workers`; keywords change the target, `section` the section."""

    def make(section: Changes | None = None, **target: Any) -> dict[str, Any]:
        return {
            "prometheus": {"url": prometheus.url, "timeout_seconds": 2},
            "workloads": [
                {
                    "name": "video",
                    "demand": {"queue": "q"},
                    "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
                    "replicas": {"max": 9},
                }
            ],
            "recovery": {
                "listen": ["127.0.0.1:0"],
                "journal": str(tmp_path / "journal.db"),
                "targets": [
                    {
                        "name": "workers",
                        "mode": "act",
                        "instances": {"promql": "up"},
                        "healthy": "up == 1",
                        "liveness": "up",
                        "symptoms": [{"alert": "WorkerHung", "promql": "hung"}],
                        "restart": {"argv": workers.argv, "timeout_seconds": 5},
                        **target,
                    }
                ],
                **(section or {}),
            },
        }

    return make


class Stepped:
    """Recovery, one step at a time, with a clock of its own: `after(30)` is a step 30 seconds later."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.config = Config.model_validate(document)
        assert self.config.recovery is not None
        self.recovery = Recovery(self.config.recovery, Source(self.config.prometheus))
        self.recovery.webhook._clock = lambda: self.now
        self.now = NOW

    def after(self, seconds: float, times: int = 1) -> "Stepped":
        for _ in range(times):
            self.now += seconds
            # steps of a test follow each other at once: without this the wall clock would seem to have been set
            self.recovery._clocks = None
            self.recovery.step(Tick(self.now, Tick.starting(30).until))
        return self

    @property
    def book(self) -> Book:
        assert self.config.recovery is not None
        return read_journal(self.config.recovery.journal)[1]

    def next(self, instance: str, target: str = "workers") -> tuple[str, ...]:
        """What was decided last about an instance: next, then the reasons."""
        found = [d for d in self.recovery.published._shown.decisions if (d.target, d.instance) == (target, instance)]
        return (found[-1].next.value, *(reason.value for reason in found[-1].reasons))


@pytest.fixture
def stepped() -> Iterator[Callable[[dict[str, Any]], Stepped]]:
    with ExitStack() as opened:

        def make(document: dict[str, Any]) -> Stepped:
            one = Stepped(document)
            opened.callback(one.recovery.close)
            return one

        yield make


# Imports everything once, then forks: a process of its own for each start, without its second of importing.
_FORKS = """
import json, os, sys
from controllers.recovery.run import main
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.update(job["environment"])
        os.dup2(os.open(job["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        os._exit(main(["--config", job["config"]]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Process:
    """`tidewise recovery`, started over and over, one at a time. `pid` is that of the last start."""

    def __init__(self) -> None:
        self._forks = subprocess.Popen(
            [sys.executable, "-c", _FORKS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid: int | None = None

    def start(self, document: dict[str, Any], folder: Path, log: str = "log", **environment: str) -> int:
        """Returns its process id; its log is `log` in `folder`."""
        path = folder / "tidewise.yaml"
        path.write_text(yaml.safe_dump(document))
        job = {"config": str(path), "environment": environment, "log": str(folder / log)}
        self._forks.stdin.write(json.dumps(job) + "\n")  # type: ignore[union-attr]
        self._forks.stdin.flush()  # type: ignore[union-attr]
        self.pid = int(self._forks.stdout.readline())  # type: ignore[union-attr]
        return self.pid

    def wait(self) -> int:
        """How it ended: its exit status, or minus the signal. A test's own time limit ends the waiting."""
        self.pid = None
        return int(self._forks.stdout.readline())  # type: ignore[union-attr]

    def stop(self) -> int:
        os.kill(self.pid or 0, signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
        self._forks.communicate()


@pytest.fixture(scope="module")
def processes() -> Iterator[Process]:
    one = Process()
    yield one
    one.end()


@pytest.fixture
def process(processes: Process) -> Iterator[Process]:
    """What a test leaves running is killed."""
    yield processes
    if processes.pid is not None:
        os.kill(processes.pid, signal.SIGKILL)
        processes.wait()
