"""The fleet on a real Redis: workers that start up, work, drain, die and are restarted, without losing a job."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from demo import settings
from demo.fleet import State, read_state, read_workers
from demo.foreman import DRAIN_SECONDS, Place, Stage, leaving
from demo.processes import OwnProcess
from testbed.parts import Redis, free_port

START_UP = 1.0
Serve = Callable[..., OwnProcess]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2, decode_responses=True) as connected:
        yield connected


@pytest.fixture
def serve(redis_url: str, tmp_path: Path) -> Iterator[Serve]:
    """Starts the foreman with so many workers that are there already, and ends it after the test."""
    started: list[OwnProcess] = []

    def start(workers: int, start_up: float = START_UP, *more: str) -> OwnProcess:
        arguments = ["serve", "--folder", str(tmp_path), "--redis", redis_url]
        arguments += ["--start-up", str(start_up), "--workers", str(workers), *more]
        process = OwnProcess("fleet", tmp_path, "demo.fleet", arguments, stop_seconds=20.0)
        process.start()
        started.append(process)
        wait_for(lambda: (state := read_state(tmp_path)) is not None and state.ready == workers)
        return process

    yield start
    for process in started:
        process.stop()


def wait_for(true: Callable[[], object], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "demo.fleet", *arguments, "--folder", str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def put(client: redis.Redis, number: int) -> None:
    for index in range(number):
        client.lpush(settings.QUEUE, json.dumps({"id": f"job-{index}", "enqueued_at": time.time()}))


def results(client: redis.Redis) -> list[dict[str, object]]:
    return [json.loads(line) for line in client.lrange(settings.RESULTS_KEY, 0, -1)]


def workers_of(foreman: OwnProcess) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == foreman.pid:
                found.append(int(entry.name))
    return sorted(found)


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (folder / "fleet.jsonl").read_text().splitlines()]


@pytest.mark.real
def test_jobs_are_done_in_order_counted_and_timed(client: redis.Redis, serve: Serve) -> None:
    put(client, 4)
    serve(2)
    wait_for(lambda: len(results(client)) == 4)
    done = results(client)
    assert {str(job["id"]) for job in done[:2]} == {"job-0", "job-1"}
    assert client.get(settings.COMPLETED_KEY) == "4"
    seconds = [float(str(job["finished_at"])) - float(str(job["started_at"])) for job in done]
    assert min(seconds) >= 0.5
    assert float(client.get(settings.PROCESS_SECONDS_KEY)) == pytest.approx(sum(seconds), abs=0.01)
    assert all(client.llen(key) == 0 for key in (settings.QUEUE, *settings.ACTIVE_KEYS))


@pytest.mark.real
def test_get_prints_what_the_command_actuator_reads_and_set_is_absolute(serve: Serve, tmp_path: Path) -> None:
    serve(1)
    assert json.loads(call(tmp_path, "get").stdout) == {"replicas": 1, "ready": 1, "draining": 0}
    assert json.loads(call(tmp_path, "set", "3").stdout) == {"replicas": 3, "ready": 1, "draining": 0}
    assert json.loads(call(tmp_path, "set", "3", "--first", "").stdout) == {"replicas": 3, "ready": 1, "draining": 0}
    wait_for(lambda: read_state(tmp_path) == State(3, 3, 0, 0))
    assert events(tmp_path).count("start") == 3  # told twice, started once


@pytest.mark.real
def test_a_new_worker_needs_its_start_up(serve: Serve, tmp_path: Path) -> None:
    serve(1)
    asked = time.monotonic()
    call(tmp_path, "set", "2")
    wait_for(lambda: read_state(tmp_path) == State(2, 2, 0, 0))
    assert time.monotonic() - asked >= START_UP


@pytest.mark.real
def test_the_job_of_a_killed_worker_goes_back_and_the_worker_stays_away_until_it_is_restarted(
    client: redis.Redis, serve: Serve, tmp_path: Path
) -> None:
    client.set(settings.ENQUEUED_KEY, 4)
    serve(1)
    put(client, 4)
    wait_for(lambda: client.llen(settings.ACTIVE_KEYS[0]) == 1)
    (worker,) = read_workers(tmp_path)
    os.kill(worker["pid"], signal.SIGKILL)
    wait_for(lambda: "put back" in events(tmp_path))
    done = len(results(client))
    assert read_state(tmp_path) == State(1, 0, 0, 0)  # nobody heals here: that is recovery's business
    assert [one["stage"] for one in read_workers(tmp_path)] == ["down"]
    assert client.llen(settings.QUEUE) == 4 - done
    restarted = call(tmp_path, "restart", "worker-01")
    assert restarted.returncode == 0, restarted.stderr
    wait_for(lambda: len(results(client)) == 4)
    assert sorted(str(job["id"]) for job in results(client)) == [f"job-{index}" for index in range(4)]
    assert client.get(settings.ENQUEUED_KEY) == "4"
    assert events(tmp_path) == ["wanted", "start", "ready", "died", "put back", "restart", "start", "ready"]


@pytest.mark.real
def test_a_worker_that_hangs_is_ended_by_its_restart_and_its_job_done(
    client: redis.Redis, serve: Serve, tmp_path: Path
) -> None:
    serve(1)
    put(client, 2)
    wait_for(lambda: client.llen(settings.ACTIVE_KEYS[0]) == 1)
    hung = read_workers(tmp_path)[0]["pid"]
    os.kill(hung, signal.SIGSTOP)
    assert read_state(tmp_path) == State(1, 1, 0, 0)  # from outside it looks well
    call(tmp_path, "restart", "worker-01")
    assert not Path(f"/proc/{hung}").exists()
    wait_for(lambda: len(results(client)) == 2)


@pytest.mark.real
def test_a_foreman_that_is_told_to_end_takes_a_hung_worker_with_it(
    client: redis.Redis, serve: Serve, tmp_path: Path
) -> None:
    foreman = serve(1)
    hung = read_workers(tmp_path)[0]["pid"]
    os.kill(hung, signal.SIGSTOP)
    began = time.monotonic()
    foreman.stop()
    assert time.monotonic() - began < DRAIN_SECONDS  # it was woken, not waited for
    assert not Path(f"/proc/{hung}").exists()


@pytest.mark.real
def test_scale_in_takes_who_was_named_and_then_an_empty_place(serve: Serve, tmp_path: Path) -> None:
    serve(4, 0.0)
    os.kill(read_workers(tmp_path)[1]["pid"], signal.SIGKILL)
    wait_for(lambda: read_state(tmp_path) == State(4, 3, 0, 0))
    call(tmp_path, "set", "3", "--first", "worker-01,{victims}")
    wait_for(lambda: read_state(tmp_path) == State(3, 2, 0, 0))
    assert [one["worker"] for one in read_workers(tmp_path)] == ["worker-02", "worker-03", "worker-04"]
    call(tmp_path, "set", "2")
    wait_for(lambda: [one["worker"] for one in read_workers(tmp_path)] == ["worker-03", "worker-04"])
    assert events(tmp_path).count("drain") == 1  # the empty place cost nobody a worker


@pytest.mark.real
def test_each_worker_has_series_of_its_own(serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    serve(2, 30.0, "--metrics-port", str(port))
    before = series(port)
    assert before["fleet_worker_up"] == {"worker-01": 1.0, "worker-02": 1.0}
    progress = before["fleet_worker_last_progress_timestamp_seconds"]
    assert all(time.time() - at < 5.0 for at in progress.values())
    first, second = (one["pid"] for one in read_workers(tmp_path))
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGSTOP)
    wait_for(lambda: series(port)["fleet_worker_up"] == {"worker-01": 0.0, "worker-02": 1.0})
    stopped = series(port)["fleet_worker_last_progress_timestamp_seconds"]
    assert list(stopped) == ["worker-02"]
    time.sleep(2.0)
    assert series(port)["fleet_worker_last_progress_timestamp_seconds"] == stopped
    call(tmp_path, "restart", "worker-02")  # a start-up of half a minute: it lives and takes no turns yet
    assert series(port) == {"fleet_worker_up": {"worker-01": 0.0, "worker-02": 1.0}}


def series(port: int) -> dict[str, dict[str, float]]:
    """The fleet's series by name and worker, as they are scraped."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    found: dict[str, dict[str, float]] = {}
    for name, worker, value in re.findall(r'^(fleet_worker_\w+){worker="([\w-]+)"} (\S+)$', text, re.MULTILINE):
        found.setdefault(name, {})[worker] = float(value)
    return found


@pytest.mark.real
def test_a_job_that_is_made_to_fail_is_counted_as_failed_and_kept(client: redis.Redis, serve: Serve) -> None:
    client.lpush(settings.QUEUE, json.dumps({"id": "job-000037", "enqueued_at": time.time(), "fails": True}))
    put(client, 1)
    serve(1)
    wait_for(lambda: len(results(client)) == 2)
    assert [job["failed"] for job in results(client)] == [True, False]
    assert (client.get(settings.FAILED_KEY), client.get(settings.COMPLETED_KEY)) == ("1", "1")
    assert json.loads(client.lindex(settings.FAILED_LIST, 0))["id"] == "job-000037"


@pytest.mark.real
def test_scale_in_lets_a_worker_finish_its_job(client: redis.Redis, serve: Serve, tmp_path: Path) -> None:
    serve(1)
    put(client, 1)
    wait_for(lambda: client.llen(settings.ACTIVE_KEYS[0]) == 1)
    call(tmp_path, "set", "0")
    wait_for(lambda: read_state(tmp_path) == State(0, 0, 0, 0))
    assert len(results(client)) == 1
    assert "died" not in events(tmp_path)


@pytest.mark.real
def test_scale_in_ends_a_starting_worker_first(serve: Serve, tmp_path: Path) -> None:
    serve(1, start_up=30.0)
    call(tmp_path, "set", "2")
    wait_for(lambda: read_state(tmp_path) == State(2, 1, 1, 0))
    call(tmp_path, "set", "1")
    wait_for(lambda: read_state(tmp_path) == State(1, 1, 0, 0))


@pytest.mark.real
def test_no_worker_outlives_a_killed_foreman(serve: Serve) -> None:
    foreman = serve(2)
    workers = workers_of(foreman)
    assert len(workers) == 2
    os.kill(foreman.pid or 0, signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers))


@pytest.mark.real
def test_workers_go_on_when_redis_comes_back(parts_root: Path, tmp_path: Path) -> None:
    with Redis(tmp_path / "redis", root=parts_root) as queue:
        arguments = ["serve", "--folder", str(tmp_path), "--redis", queue.url, "--start-up", "0", "--workers", "2"]
        foreman = OwnProcess("fleet", tmp_path, "demo.fleet", arguments)
        foreman.start()
        try:
            wait_for(lambda: (state := read_state(tmp_path)) is not None and state.ready == 2)
            queue.kill()
            time.sleep(1.0)
            queue.start()
            with redis.Redis.from_url(queue.url, protocol=2, decode_responses=True) as client:
                put(client, 4)
                wait_for(lambda: len(results(client)) == 4)
            assert read_state(tmp_path) == State(2, 2, 0, 0)
            assert "died" not in events(tmp_path)
        finally:
            foreman.stop()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["set", "21"], "ask to get, or to set 0 to 20 replicas", id="more than there is room for"),
        pytest.param(["set", "many"], "usage: python -m demo.fleet", id="no number"),
        pytest.param(["grow"], "usage: python -m demo.fleet", id="no such request"),
        pytest.param(["restart", "worker-07"], "worker-07: no such worker", id="a worker that is not there"),
    ],
)
@pytest.mark.real
def test_a_wrong_request_is_refused(serve: Serve, tmp_path: Path, arguments: list[str], said: str) -> None:
    serve(0)
    refused = call(tmp_path, *arguments)
    assert refused.returncode != 0
    assert said in refused.stderr
    assert read_state(tmp_path) == State(0, 0, 0, 0)


def test_without_a_foreman_the_actuator_hears_so(tmp_path: Path) -> None:
    refused = call(tmp_path, "get")
    assert refused.returncode == 1
    assert "the fleet's foreman does not answer" in refused.stderr
    assert read_state(tmp_path) is None


def test_of_the_workers_that_go_starting_ones_are_first_then_the_youngest() -> None:
    places = {
        slot: Place(process=None, stage=stage, since=since)  # type: ignore[arg-type]  # the order needs no process
        for slot, stage, since in (
            (1, Stage.READY, 10.0),
            (2, Stage.READY, 20.0),
            (3, Stage.STARTING, 30.0),
            (4, Stage.STARTING, 40.0),
        )
    }
    none: frozenset[str] = frozenset()
    assert leaving(places, {}, none, 3) == [4, 3, 2]
    assert leaving(places, {}, none, 0) == leaving(places, {}, none, -2) == []
    assert leaving(places, {7: 50.0}, none, 2) == [7, 4]
    assert leaving(places, {7: 50.0}, frozenset({"worker-01", "worker-99"}), 2) == [1, 7]
