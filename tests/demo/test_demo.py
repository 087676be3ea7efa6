"""The demo itself, shortened, as a newcomer runs it: what it leaves behind, Ctrl-C, parts that die in the middle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controllers.scale.decide import decide
from controllers.scale.records import read
from tests.live_demo import LiveDemo, Running

pytestmark = [pytest.mark.real, pytest.mark.demo, pytest.mark.timeout(400)]


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


def test_the_main_job(live_demo: LiveDemo) -> None:
    assert live_demo.status == 0, live_demo.said
    assert live_demo.left_running == []
    figures = live_demo.summary

    assert figures["complete"] is True
    assert figures["jobs_done"] > 2000
    assert figures["jobs_failed"] > 10
    assert (figures["jobs_lost"], figures["jobs_undelivered"]) == (0, 0)
    assert figures["wait_p95_with_burst_seconds"] > 5.0
    assert figures["worker_minutes"] > 15.0
    assert figures["timings"]["set_up_seconds"] < 120.0
    for policy in ("tidewise", "reactive"):
        assert figures["simulated"][policy]["wait_p95_seconds"] >= 0.0
        assert figures["simulated"][policy]["worker_minutes"] > 0.0

    # the notification was delivered and shown, and it is about the burst; where the machine was so busy that the work
    # had waited too long before, people had been told then, and were not told the same again
    burst_at = json.loads((live_demo.folder / "plan.json").read_text())["burst_at"]
    told = [one["at"] for one in live_demo.notifications if one["alertname"] == "QueueAgeSLO"]
    assert told[0] < burst_at or 5.0 < figures["notification_seconds_after_burst"] < 60.0
    assert "NOTIFICATION: QueueAgeSLO" in live_demo.said

    # demand, forecast, queue, workers, spend and the reason were shown, and none of them stayed unknown
    shown = [line for line in live_demo.said.splitlines() if "  demand " in line]
    assert len(shown) > 10
    assert any("unknown" not in line and "[forecast" in line for line in shown), live_demo.said

    # every decision can be computed again from its record
    records = list(read(live_demo.folder / "decisions"))
    assert len(records) > 15
    for record in records:
        assert decide(record.state, record.rules) == record.decision


def test_each_paid_call_was_permitted_and_people_were_warned_once_before_the_limit(live_demo: LiveDemo) -> None:
    money = live_demo.summary["money"]
    assert money["paid_calls"] > 200
    assert money["paid_calls_denied"] == 0
    assert money["paid_calls_unanswered"] <= 0.05 * money["paid_calls"]
    assert money["posted_before"] < 0.75 * money["limit"] < money["posted"] < money["limit"]
    assert (money["warnings"], money["warned_before_limit"]) == (1, True)
    (warning,) = [n for n in live_demo.notifications if n["alertname"].startswith("Budget") and n["status"] == "firing"]
    assert (warning["labels"]["budget"], warning["labels"]["threshold"]) == ("usage", "75")
    assert "NOTIFICATION: BudgetThreshold: 75% of the budget 'usage' is spent." in live_demo.said
    assert "gemini-2.5-flash" in str(live_demo.tools["budget statement"])


def test_both_workers_that_failed_were_restarted_verified_and_told_of(live_demo: LiveDemo) -> None:
    planned = {one["what"]: one for one in live_demo.timeline if one["what"] is not None}
    assert {what: one["alert"] for what, one in planned.items()} == {"killed": "WorkerDown", "hung": "WorkerHung"}
    for one in planned.values():
        assert one["mended"], live_demo.said
        assert one["attempts"] == 1
        assert 0 < one["people_told_after"] < one["verified_after"]
        assert 0 < one["confirmed_after"] <= one["restarted_after"] < one["well_after"] < one["verified_after"]
        told = [n["labels"]["worker"] for n in live_demo.notifications if n["alertname"] == one["alert"]]
        assert one["worker"] in told
    assert "RecoveryActed" in {n["alertname"] for n in live_demo.notifications}
    # the foreman did not heal by itself, and the job in the dead worker's hand was done all the same
    timeline = [json.loads(line) for line in (live_demo.folder / "fleet.jsonl").read_text().splitlines()]
    slot = int(planned["killed"]["worker"].removeprefix("worker-"))
    events = [line["event"] for line in timeline if line["slot"] == slot]
    died = events.index("died")
    assert [event for event in events[died:] if event != "put back"][:4] == ["died", "restart", "start", "ready"]
    assert "worker" in str(live_demo.tools["recovery why"])


def test_a_second_prometheus_holds_the_contract_and_nothing_else(live_demo: LiveDemo) -> None:
    assert live_demo.summary["long_term"]["contract_series"] > 50
    assert live_demo.summary["long_term"]["others"] == 0
    assert "the second Prometheus holds" in live_demo.said


def test_the_page_stands_alone_and_comes_out_again_from_what_was_recorded(live_demo: LiveDemo, tmp_path: Path) -> None:
    page = (live_demo.folder / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 7
    for said in ("QueueAgeSLO", "BudgetThreshold", "WorkerHung", "gemini-2.5-flash"):
        assert said in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copy(live_demo.folder / "recording.json", folder)
    argv = [sys.executable, "-m", "demo", "report", "--folder", str(folder)]
    again = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0, again.stderr
    assert (folder / "report.html").read_text() == page


def test_parts_that_die_in_the_middle_are_shown_and_nothing_is_scaled_in_for_want_of_them(
    demo: Callable[..., Running],
) -> None:
    running = demo("--minutes", "3", "--start-up", "10", "--no-burst", "--no-failures", "--no-budget")
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
