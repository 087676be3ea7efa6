"""The demo itself, shortened, as a newcomer runs it: what it leaves behind, Ctrl-C, parts that die in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controllers.scale.decide import decide
from controllers.scale.records import read

pytestmark = [pytest.mark.real, pytest.mark.demo, pytest.mark.timeout(400)]
MARK = "TIDEWISE_DEMO_TEST"


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


@pytest.fixture
def demo(parts_root: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts the demo; after the test it is ended by its own means, harder if it must be."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(tmp_path / f"demo-{len(started)}", *arguments))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
            running.process.send_signal(signal.SIGINT)
            running.process.wait(60)


def test_the_main_job(demo: Callable[..., Running]) -> None:
    running = demo("--minutes", "2", "--start-up", "10")
    assert running.end(250) == 0, running.said
    assert running.ours() == []
    figures = json.loads((running.folder / "summary.json").read_text())

    assert figures["complete"] is True
    assert figures["jobs_done"] > 2000
    assert (figures["jobs_lost"], figures["jobs_undelivered"]) == (0, 0)
    assert figures["wait_p95_with_burst_seconds"] > 5.0
    assert figures["worker_minutes"] > 15.0
    assert figures["timings"]["set_up_seconds"] < 120.0
    for policy in ("tidewise", "reactive"):
        assert figures["simulated"][policy]["wait_p95_seconds"] >= 0.0
        assert figures["simulated"][policy]["worker_minutes"] > 0.0

    # the notification was delivered and shown, and it is about the burst
    assert figures["notifications"] >= 1
    assert 5.0 < figures["notification_seconds_after_burst"] < 60.0
    assert "NOTIFICATION: QueueAgeSLO" in running.said

    # demand, forecast, queue, workers and the reason were shown, and none of them stayed unknown
    shown = [line for line in running.said.splitlines() if "  demand " in line]
    assert len(shown) > 10
    assert any("unknown" not in line and "[forecast" in line for line in shown), running.said

    # every decision can be computed again from its record
    records = list(read(running.folder / "decisions"))
    assert len(records) > 15
    for record in records:
        assert decide(record.state, record.rules) == record.decision

    # the page stands alone
    page = (running.folder / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 5
    assert "QueueAgeSLO" in page
    assert 'src="http' not in page
    assert 'href="http' not in page

    # and comes out again from what was recorded
    (running.folder / "report.html").unlink()
    argv = [sys.executable, "-m", "demo", "report", "--folder", str(running.folder)]
    again = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0, again.stderr
    assert (running.folder / "report.html").read_text() == page


def test_parts_that_die_in_the_middle_are_shown_and_nothing_is_scaled_in_for_want_of_them(
    demo: Callable[..., Running],
) -> None:
    running = demo("--minutes", "3", "--start-up", "10", "--no-burst")
    running.wait_for("[forecast", 60)
    for name in ("redis", "prometheus", "tidewise-forecast"):
        os.kill(running.pid_of(name), signal.SIGKILL)
    for name in ("redis", "prometheus", "tidewise-forecast"):
        running.wait_for(f"{name} ended by itself", 15)
        running.wait_for(f"{name} runs again", 30)
    assert "everything is unknown" in running.said
    back = len(running.said)
    running.wait_for("[forecast", 60, since=back)  # all three were back, and nobody had to restart the scaler
    running.process.send_signal(signal.SIGINT)
    assert running.end(40) == 130, running.said
    assert running.ours() == []
    timeline = [json.loads(line) for line in (running.folder / "fleet.jsonl").read_text().splitlines()]
    wanted = [line["replicas"] for line in timeline]
    assert wanted == sorted(wanted), "workers were taken away while parts were missing"
    figures = json.loads((running.folder / "summary.json").read_text())
    assert figures["jobs_undelivered"] > 0
    assert any("redis ended by itself" in remark for remark in figures["remarks"])


@pytest.mark.parametrize(
    "moment",
    ["1/5", "2/5", "3/5", "5/5"],
    ids=["while fetching", "while workers start", "while history is made", "at the end"],
)
def test_ctrl_c_during_the_set_up_ends_everything(demo: Callable[..., Running], moment: str) -> None:
    running = demo("--minutes", "2", "--start-up", "10")
    running.wait_for(moment)
    running.process.send_signal(signal.SIGINT)
    assert running.end(30) == 130, running.said
    assert running.ours() == []
    assert "Traceback" not in running.said
    assert "Stopped before the live part began" in running.said or "Summary of" in running.said


def test_ctrl_c_in_the_middle_ends_everything_and_still_sums_up(demo: Callable[..., Running]) -> None:
    running = demo("--minutes", "2", "--start-up", "10")
    running.wait_for(" of 12 -> ")
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        running.process.send_signal(signal.SIGINT)
        assert running.end(40) == 130, running.said
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert running.ours() == []
    assert "Traceback" not in running.said
    figures = json.loads((running.folder / "summary.json").read_text())
    assert figures["complete"] is False
    assert figures["jobs_done"] > 100
    assert figures["jobs_lost"] == 0
    assert (running.folder / "report.html").exists()


def test_when_the_demo_itself_is_killed_nothing_stays_behind(demo: Callable[..., Running]) -> None:
    running = demo("--minutes", "2", "--start-up", "10")
    running.wait_for(" of 12 -> ")
    running.process.kill()
    running.process.wait()
    until = time.monotonic() + 20
    while running.ours():
        assert time.monotonic() < until, running.ours()
        time.sleep(0.2)


def test_a_second_demo_in_its_folder_is_refused_and_a_second_ctrl_c_ends_the_first_at_once(
    demo: Callable[..., Running],
) -> None:
    running = demo("--minutes", "2", "--start-up", "10")
    running.wait_for("2/5")
    argv = [sys.executable, "-m", "demo", "--folder", str(running.folder)]
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    assert "another demo runs in it" in refused.stderr
    running.wait_for(" of 12 -> ")
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    running.process.send_signal(signal.SIGINT)
    assert running.end(20) == 130
    assert running.ours() == []
    assert "Traceback" not in running.said
