"""The demo as tests run it: as a newcomer, in a process of its own; and what one whole run of it left and said."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from grafana import registry
from grafana.queries import Answer, Prometheus, Query, queries

MARK = "TIDEWISE_DEMO_TEST"
ROOT = Path(__file__).resolve().parents[1]
MINUTES = 2.8  # long enough for a forecast of two minutes to come due, and for both failures to be mended
ASK_BEFORE_END_SECONDS = 14.0
ALL_SHOWN = "[^:]+:[^:]+:[^:]+|up|ALERTS|(tidewise|fleet|queue|host|service|database|cost)_.+"
# The forecast's dashboard is asked about the shortest horizon: the others come due after the end.
CHOSEN = {"horizon": "120"}

# Names in a query of what the demo has none of, and why. All of them have series where dashboards are tried on the
# exporters' demonstrations (test_dashboards.py).
NOT_HERE = {
    "gpu[_:]": "it has no graphics card",
    "workflow[_:]": "it has no n8n",
    "request_|service:(latency|errors|objective)": "its services have no access log",
    "service_probe_certificate": "they speak plain HTTP",
    "queue:(consumers|wait_seconds|process_seconds:p)": "a plain list knows no consumers and keeps no times",
    "database:(oldest_transaction|replication_lag|memory_used)": "it has a Redis alone, without a limit, and a file",
    "database_(locks|deadlocks|transactions|blocks|temp|statement|tuples)": "it has no PostgreSQL",
    "database_unreachable": "they were all reached",
    "host_cgroup_(cpu_limit|cpu_.*periods|tasks)": "this machine's cgroup has no limit",
    "cost_(asked|asking|instance|usage)": "it asks no cloud, rents no instance, has a ledger",
}


def is_here(query: Query) -> bool:
    """Whether the demo has what the query asks about."""
    return not any(re.search(pattern, query.expr) for pattern in NOT_HERE)


class Running:
    """`python -m demo` in a folder of its own. `ours` finds every process that descends from it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.output = folder.with_suffix(".out")
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "demo", "--folder", str(folder), *arguments],
                stdout=out, stderr=subprocess.STDOUT, env={**os.environ, MARK: self.mark}, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def ours(self) -> list[str]:
        """Command lines of what still runs."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                if wanted in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it has ended, or is somebody else's
        return [line for line in found if line]

    def wait_for(self, text: str, seconds: float = 60.0, since: int = 0) -> None:
        until = time.monotonic() + seconds
        while text not in self.said[since:]:
            assert self.process.poll() is None, f"it ended before it said {text!r}:\n{self.said}"
            assert time.monotonic() < until, f"it did not say {text!r}:\n{self.said}"
            time.sleep(0.1)

    def end(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end within {seconds:.0f} s:\n{self.said}")

    def pid_of(self, name: str) -> int:
        return int(json.loads((self.folder / "processes.json").read_text())[name])


@dataclass(frozen=True)
class LiveDemo:
    """One whole run of the shortened demo.

    said: what the newcomer read; summary, notifications: as its files have them; left_running: what it left behind.
    answers: what the live Prometheus answered to each query of each panel shortly before the end, asked at `asked_at`;
    samples: every series that is shown anywhere, then. tools: output of `tidewise` by words, None where the command
    does not exist.
    """

    folder: Path
    status: int
    said: str
    left_running: Sequence[str]
    asked_at: float
    answers: Mapping[Query, Answer]
    samples: Sequence[tuple[Mapping[str, str], float]]
    tools: Mapping[str, str | None]

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "summary.json").read_text()))

    @property
    def notifications(self) -> list[dict[str, Any]]:
        """What people were told, oldest first: at, status, alertname, labels, summary."""
        return [json.loads(line) for line in (self.folder / "notifications.jsonl").read_text().splitlines()]

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """Each failure and what became of it, in seconds from the failure."""
        return list(self.summary["repairs"])

    def now(self, name: str, **labels: str) -> list[tuple[Mapping[str, str], float]]:
        """The series of this name that carried these labels shortly before the end, each with its value then."""
        wanted = {"__name__": name, **labels}.items()
        return [(found, value) for found, value in self.samples if wanted <= dict(found).items()]

    @property
    def silent(self) -> list[Query]:
        """The queries that found no series."""
        return [query for query, answer in self.answers.items() if not answer.series]


class Background:
    """The run, begun beside whatever else is tested meanwhile: most of its three minutes it waits."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tidewise-live-"))
        self._running = Running(self._folder / "demo", "--minutes", str(MINUTES), "--start-up", "10", "--long-term")
        self._found: Future[LiveDemo] = Future()
        self._thread = threading.Thread(target=self._watch, name="live-demo", daemon=True)
        self._thread.start()

    def result(self) -> LiveDemo:
        """Waits for its end. An AssertionError says what it said where it did not get there."""
        return self._found.result()

    def end(self, *, keep: bool) -> None:
        """Ends it where it still runs. `keep`: its folder is left, for somebody to look at."""
        if self._running.process.poll() is None:
            self._running.process.kill()
        self._thread.join(60)
        if not keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        try:
            self._found.set_result(watch_live_demo(self._running))
        except BaseException as error:  # crosses to the test that asks for the result
            self._found.set_exception(error)


def watch_live_demo(running: Running) -> LiveDemo:
    """Looks at it while it is live, and at what it leaves. An AssertionError says what it said instead."""
    folder = running.folder
    try:
        running.wait_for("All is set up", 180.0)
        end = float(json.loads((folder / "plan.json").read_text())["end"])
        url = running.said.partition("Prometheus answers at ")[2].partition("/classic")[0]
        while time.time() < end - ASK_BEFORE_END_SECONDS:
            assert running.process.poll() is None, running.said
            time.sleep(0.2)
        asked_at = time.time()
        answers = asked(url, asked_at)
        samples = shown(url, asked_at)
        tools = {"bottleneck": tidewise(folder, "bottleneck", "video-analysis")}
        status = running.end(200.0)
        for words in (("why", "video-analysis"), ("budget", "statement"), ("budget", "status"), ("recovery", "status"),
                      ("recovery", "why", "workers", "--last", "1000")):  # fmt: skip
            tools[" ".join(words[:2])] = tidewise(folder, *words)
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
    return LiveDemo(folder, status, running.said, running.ours(), asked_at, answers, samples, tools)


def asked(url: str, at: float) -> dict[Query, Answer]:
    """The answer to each query of each panel of each dashboard, over the live part."""
    prometheus = Prometheus(url, at)
    found: dict[Query, Answer] = {}
    for dashboard in registry.written().values():
        values = prometheus.variables(dashboard, CHOSEN)
        found |= {query: prometheus.answer(query, values, (-60.0 * MINUTES, 0.0), 5.0) for query in queries(dashboard)}
    return found


def shown(url: str, at: float) -> list[tuple[Mapping[str, str], float]]:
    """Every series that is shown anywhere, with its value then."""
    with requests.Session() as session:
        session.trust_env = False  # it is near: no proxy of the environment
        query = {"query": f'{{__name__=~"{ALL_SHOWN}"}}', "time": str(at)}
        answer = session.get(f"{url}/api/v1/query", params=query, timeout=30).json()
    return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]


def tidewise(folder: Path, *words: str) -> str | None:
    """What `tidewise` prints for this run; None where it has no such command."""
    argv = [sys.executable, "-m", "controllers", *words, "--config", str(folder / "tidewise.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if "is no command" in done.stderr:
        return None
    return done.stdout + done.stderr
