"""Paid calls against a real ledger: permitted, denied, and not answered; a worker that is killed leaves its hold."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
import redis

from controllers.budget import rows
from controllers.budget.schema import reading
from controllers.budget.words import State
from controllers.config import load
from demo import configuration, money, settings
from demo.configuration import Addresses
from demo.paid import Call, Payer, Permit, used_units
from demo.processes import OwnProcess
from demo.settings import Settings
from demo.worker import Worker
from testbed.parts import free_port

Ledger = Callable[..., "tuple[Payer, Path]"]


@pytest.fixture(scope="module")
def ledger(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """`tidewise budget` with so much a month for paid calls, one for all tests; a payer that asks it, and its file."""
    started: dict[str, OwnProcess] = {}
    files: dict[str, Path] = {}

    def start(usage: str = "15000 KRW") -> tuple[Payer, Path]:
        if usage not in started:
            folder, port = tmp_path_factory.mktemp("ledger"), free_port()
            document = configuration.tidewise(Settings(folder=folder), addresses)
            document["budget"] |= {"usage": usage, "listen": [f"127.0.0.1:{port}"], "url": f"http://127.0.0.1:{port}"}
            del document["workloads"][0]["price"]  # a floor of one worker would be dearer than nothing
            files[usage] = folder / "tidewise.yaml"
            configuration.write(document, files[usage], "Written.")
            argv = ["budget", "--config", str(files[usage])]
            started[usage] = OwnProcess("budget", folder, "controllers", argv, port=port)
            started[usage].start()
        until = time.monotonic() + 30.0
        while not started[usage].answers():
            assert time.monotonic() < until, started[usage].log_tail()
            time.sleep(0.05)
        budget = load(files[usage]).budget
        assert budget is not None
        assert budget.token_file is not None
        return Payer(budget.url, budget.token_file), budget.ledger

    yield start
    for process in started.values():
        process.stop()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2, decode_responses=True) as connected:
        yield connected


@contextmanager
def working(redis_url: str, payer: Payer | None) -> Iterator[None]:
    """A worker in this process."""
    stop = Event()
    connected = redis.Redis.from_url(redis_url, protocol=2)
    thread = Thread(target=Worker(connected, 1, stop, lambda word: None, payer).run, args=(0.0,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)


def paid_job(client: redis.Redis, number: int) -> None:
    job = {"id": f"job-{number:06d}", "enqueued_at": time.time(), "paid": True}
    client.lpush(settings.QUEUE, json.dumps(job))


def permits(client: redis.Redis, jobs: int) -> list[object]:
    until = time.monotonic() + 20.0
    while client.llen(settings.RESULTS_KEY) < jobs:
        assert time.monotonic() < until
        time.sleep(0.02)
    return [json.loads(line)["permit"] for line in client.lrange(settings.RESULTS_KEY, 0, -1)]


@pytest.mark.real
def test_a_paid_job_holds_before_its_call_and_settles_what_it_used(
    ledger: Ledger, client: redis.Redis, redis_url: str
) -> None:
    payer, path = ledger()
    for number in (10, 20):
        paid_job(client, number)
    client.lpush(settings.QUEUE, json.dumps({"id": "job-000021", "enqueued_at": time.time()}))
    with working(redis_url, payer):
        assert permits(client, 3) == ["granted", "granted", None]
    with reading(path) as db:
        for number in (10, 20):
            held, posted = rows.chain(db, f"demo/live/vision/job-{number:06d}/1")
            assert (held.state, posted.state) == (State.HELD, State.POSTED)
            assert 0 < posted.posted < held.held
            assert held.scope.model == settings.MODEL


@pytest.mark.real
def test_what_is_denied_is_not_called_and_the_job_is_done(ledger: Ledger, client: redis.Redis, redis_url: str) -> None:
    payer, path = ledger("0 KRW")
    paid_job(client, 10)
    with working(redis_url, payer):
        assert permits(client, 1) == ["denied"]
    assert client.get(settings.COMPLETED_KEY) == "1"
    with reading(path) as db:
        assert rows.counts(db).get(State.HELD, 0) == 0


@pytest.mark.real
def test_a_ledger_that_is_away_permits_nothing_and_costs_the_job_no_time(
    client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a-token-of-some-length\n")
    paid_job(client, 10)
    with working(redis_url, Payer(f"http://127.0.0.1:{free_port()}", tmp_path / "token")):
        assert permits(client, 1) == ["unanswered"]
    (line,) = client.lrange(settings.RESULTS_KEY, 0, -1)
    done = json.loads(line)
    assert done["finished_at"] - done["started_at"] < 5.0


@pytest.mark.real
def test_told_twice_it_counts_once_and_a_second_attempt_is_billed_again(ledger: Ledger) -> None:
    payer, path = ledger()
    first, second = Call("job-000030", 1), Call("job-000030", 2)
    assert [payer.permit(call) for call in (first, first, second)] == [Permit.GRANTED] * 3
    assert [payer.settle(first, used_units(30)) for _ in range(2)] == [True, True]
    with reading(path) as db:
        assert [entry.state for entry in rows.chain(db, first.event_id)] == [State.HELD, State.POSTED]
        assert [entry.state for entry in rows.chain(db, second.event_id)] == [State.HELD]  # until it expires as spent


@pytest.mark.real
def test_a_connection_that_the_ledger_closed_meanwhile_is_made_anew(ledger: Ledger) -> None:
    payer, _ = ledger()
    assert payer.permit(Call("job-000040", 1)) is Permit.GRANTED
    kept = payer._connection.sock
    assert kept is not None
    kept.shutdown(2)  # as after a pause that was too long
    assert payer.permit(Call("job-000050", 1)) is Permit.GRANTED


@pytest.mark.real
def test_the_demo_reads_the_ledgers_last_word(ledger: Ledger, tmp_path: Path) -> None:
    payer, path = ledger()
    assert payer.permit(Call("job-000060", 1)) is Permit.GRANTED
    url, token = f"http://127.0.0.1:{payer._connection.port}", path.with_name("budget.token")
    told = money.read_ledger(url, token)
    assert told is not None
    assert float(told["state"]["budgets"]["usage"]["held"]) > 0
    assert settings.MODEL in {line["model"] for line in told["statement"]["lines"]}
    assert money.read_ledger(f"http://127.0.0.1:{free_port()}", token) is None
