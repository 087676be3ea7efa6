"""Bad days on real processes: killed between hold and settle, a full disk, a lock, more asked than can be answered."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
import yaml

from controllers.budget import rows, writer
from controllers.budget.ledger import Ledger
from controllers.budget.schema import EQUATIONS, LedgerLockedError, LedgerOverloadedError
from controllers.budget.words import MICRO, BudgetReason, Cost, Scope, Standing, State, Verdict

Open = Callable[..., Ledger]

SEOUL = ZoneInfo("Asia/Seoul")
NOW = 1_795_000_000.0
OCR = {"provider": "acme", "model": "ocr", "units": {"pages": 5}}

PRELUDE = """
import random, resource, sys
from pathlib import Path
from zoneinfo import ZoneInfo
from controllers.budget.decide import Ask, Limit, Rules, admit
from controllers.budget.ledger import Ledger
from controllers.budget.schema import LedgerError
from controllers.budget.words import MICRO, Cost, Level, Scope

ledger = Ledger(Path(sys.argv[1]), "KRW", ZoneInfo("Asia/Seoul"))
name, limit = sys.argv[2], int(sys.argv[3]) * MICRO
rules, chance, now = Rules((Limit("usage", limit, False),), "KRW"), random.Random(name), 1_795_000_000.0

def hold(event, amount):
    ask = Ask(amount)
    answer = ledger.hold(event, event, Scope("p"), Cost(amount), 900, now,
                         lambda standing: admit(standing, ask, rules, Level.NORMAL))
    return answer.verdict.allowed

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()
"""

WORKER = """
n = 0
while True:
    n += 1
    event, amount = f"{name}/{n}", chance.randrange(1, 20 * MICRO)
    if hold(event, amount):
        say("held", event, amount)
        if chance.random() < 0.7:
            spent = chance.randrange(amount + 1)
            ledger.settle(event, "s", Cost(spent), now)
            say("settled", event, spent)
    else:
        say("denied", event, amount)
"""

WRITER = """
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
for n in range(5000):
    try:
        hold(f"e{n}", MICRO)
    except LedgerError as error:
        say("failed", error.kind, "|", error)
        break
    say("held", f"e{n}")
try:
    hold("again", MICRO)
except LedgerError as error:
    say("failed", error.kind, "|", error)
say("posted and held", ledger.standing(now).held)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
say("after", hold("after", MICRO))
ledger.close()
"""


def child(script: str, path: Path, name: str, limit: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, str(path), name, str(limit)], stdout=subprocess.PIPE, text=True
    )


def agrees(ledger: Ledger) -> bool:
    return all(
        ledger.read(lambda db, a=a, b=b: db.execute(a).fetchall() == db.execute(b).fetchall())  # type: ignore[misc]
        for _, a, b in EQUATIONS
    )


def test_killed_at_any_moment_no_won_is_lost_and_none_is_freed_early(open_ledger: Open, tmp_path: Path) -> None:
    """Two workers on one ledger, killed again and again: what was answered is there, whole, and nothing exceeds."""
    path, limit, chance = tmp_path / "ledger.sqlite", 3_000, random.Random(7)
    held: dict[str, int] = {}
    settled: dict[str, int] = {}
    for turn in range(6):
        workers = [child(WORKER, path, f"{turn}-{n}", limit) for n in range(2)]
        first = [worker.stdout.readline() for worker in workers if worker.stdout for _ in range(6)]  # both are at work
        time.sleep(chance.uniform(0.0, 0.15))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        said = first + [line for worker in workers for line in worker.communicate()[0].splitlines(keepends=True)]
        for line in said:
            if line.endswith("\n"):  # the last word may be torn by the kill
                what, event, amount = line.split()
                {"held": held, "settled": settled, "denied": {}}[what][event] = int(amount)

    ledger = open_ledger()  # checks the file and its totals
    assert len(held) > 20 < len(held) + len(settled)
    for event, amount in held.items():
        history = ledger.read(lambda db, e=event: rows.chain(db, e))  # type: ignore[misc]
        assert history[0].held == amount
        if event in settled:
            assert (history[-1].state, history[-1].posted) == (State.POSTED, settled[event])
    standing = ledger.standing(NOW)
    assert standing.posted + standing.held <= limit * MICRO
    # at most one answer a worker and turn was on its way when it was killed
    unanswered = ledger.read(rows.counts)[State.HELD] - len(held)
    assert 0 <= unanswered <= 12
    kept = standing.held
    assert kept >= sum(amount for event, amount in held.items() if event not in settled) - 12 * 20 * MICRO
    ledger.expire(NOW + 899)
    assert ledger.standing(NOW).held == kept
    ledger.expire(NOW + 900)
    after = ledger.standing(NOW + 900)
    assert (after.held, after.posted) == (0, standing.posted + kept)


def test_a_full_disk_refuses_and_loses_nothing(open_ledger: Open, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    said, _ = child(WRITER, path, "w", 10**6).communicate(timeout=60)
    lines = said.splitlines()
    held = [line for line in lines if line.startswith("held ")]
    failures = [line for line in lines if line.startswith("failed ")]
    assert len(held) > 50
    assert len(failures) == 2
    for failure in failures:
        assert failure.startswith("failed full | ")
        assert failure.endswith("make room on the disk")
    assert f"posted and held {len(held) * MICRO}" in lines  # answered all the same, from what is there
    assert lines[-1] == "after True"
    ledger = open_ledger()
    assert ledger.standing(NOW).held == (len(held) + 1) * MICRO


@pytest.fixture
def locker(tmp_path: Path) -> Iterator[Callable[[Path], Callable[[], None]]]:
    """Locks a ledger from another process; the function that is returned unlocks it."""
    with contextlib.ExitStack() as running:

        def lock(path: Path) -> Callable[[], None]:
            script = (
                "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
                "db.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
            )
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"

            def unlock() -> None:
                process.communicate("")

            running.callback(unlock)
            return unlock

        yield lock


def test_locked_by_another_process_every_request_is_refused_until_it_is_free(
    serve: Callable[..., Any], settings: Callable[..., Any], locker: Callable[[Path], Callable[[], None]]
) -> None:
    config = settings()
    asked = serve(config=config)
    asked.post("/permit", event_id="a", **OCR)
    unlock = locker(config.budget.ledger)
    for path, body in (("/permit", {"event_id": "b", **OCR}), ("/settle", {"hold": "a", "units": {"pages": 1}})):
        answer = asked.session.post(asked.url + path, json=body, timeout=30)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "another process has locked the ledger for more than 2 s; nothing was written" in answer.text
    unlock()
    assert asked.post("/settle", hold="a", units={"pages": 1})[0] == 200
    status, answer = asked.post("/permit", event_id="b", **OCR)
    assert (status, answer["repeated"]) == (200, False)
    assert asked.metrics()['tidewise_budget_ledger_errors_total{kind="locked"}'] == 2


def test_locked_at_the_start_is_said(
    open_ledger: Open, tmp_path: Path, locker: Callable[[Path], Callable[[], None]]
) -> None:
    open_ledger().close()
    locker(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerLockedError, match="another process has locked the ledger"):
        open_ledger()


def test_more_than_can_wait_is_refused_at_once(open_ledger: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING", 2)
    ledger, blocked, go_on = open_ledger(), threading.Event(), threading.Event()

    def block(db: object) -> None:
        blocked.set()
        go_on.wait(10)

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(ledger.read, block)
        assert blocked.wait(5)
        waiting = [threads.submit(ledger.standing, NOW) for _ in range(2)]
        while ledger.waiting() < 2:
            time.sleep(0.01)
        with pytest.raises(LedgerOverloadedError, match="2 requests are waiting; ask again later"):
            ledger.standing(NOW)
        go_on.set()
        first.result(5)
        assert [one.result(5).held for one in waiting] == [0, 0]


def test_what_was_given_up_waiting_is_never_done(open_ledger: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ANSWER_SECONDS", 0.2)
    ledger, blocked, go_on = open_ledger(), threading.Event(), threading.Event()

    def block(db: object) -> None:
        blocked.set()
        go_on.wait(10)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ledger.read, block)
        assert blocked.wait(5)
        with pytest.raises(LedgerOverloadedError, match=r"no answer within 0\.2 s"):
            ledger.usage("u", "b", Scope(), Cost(MICRO), NOW)
        go_on.set()
        first.result(5)
    assert ledger.standing(NOW).posted == 0


def test_one_piece_of_work_that_fails_does_not_take_the_others_with_it(open_ledger: Open) -> None:
    ledger, blocked, go_on = open_ledger(), threading.Event(), threading.Event()

    def block(db: object) -> None:
        blocked.set()
        go_on.wait(10)

    def fails(standing: Standing) -> Verdict:
        raise RuntimeError("a mistake")

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(ledger.read, block)
        assert blocked.wait(5)
        good = [threads.submit(ledger.usage, f"u{n}", "b", Scope(), Cost(MICRO), NOW) for n in range(3)]
        bad = threads.submit(ledger.hold, "e", "b", Scope(), Cost(MICRO), 900, NOW, fails)
        go_on.set()
        first.result(5)
        assert all(one.result(5).verdict.reason is BudgetReason.GRANTED for one in good)
        with pytest.raises(RuntimeError, match="a mistake"):
            bad.result(5)
    assert ledger.standing(NOW).posted == 3 * MICRO
    assert agrees(ledger)


HEADERS = {"Authorization": "Bearer a-token-of-the-tests-0123456789"}


class Process:
    """`tidewise budget` itself, killed and started again on the same ledger."""

    def __init__(self, folder: Path, total: str, budget: dict[str, Any]) -> None:
        self.folder, self.url = folder, ""
        own = {"provider": "acme", "model": "ocr", "per_unit": {"pages": "2 KRW"}}
        budget = {**budget, "total": total, "listen": ["127.0.0.1:0"], "prices": [own]}
        (folder / "tidewise.yaml").write_text(yaml.safe_dump({"budget": budget}))
        self.start()

    def start(self) -> None:
        script = "from controllers.budget.run import main; main(['--config', 'tidewise.yaml'])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=self.folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if '"started"' in line:
                self.url = f"http://{json.loads(line)['addresses'][0]}"
                return
        raise AssertionError("it ended before it listened")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def post(self, path: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(self.url + path, json=body, headers=HEADERS, timeout=30)


@pytest.fixture
def process(settings: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    with contextlib.ExitStack() as running:

        def start(total: str) -> Process:
            budget = json.loads(settings(interval_seconds=1).model_dump_json(exclude={"workloads"}))["budget"]
            kept = ("time_zone", "token_file", "ledger", "interval_seconds")
            one = Process(tmp_path, total, {key: budget[key] for key in kept})
            running.callback(one.kill)
            return one

        yield start


def test_the_process_killed_between_permit_and_settlement(process: Callable[[str], Process]) -> None:
    """The hold outlives kill -9, is settled after the restart, stands in the statement."""
    budget = process("20 KRW")
    permit = budget.post("/permit", {"event_id": "a", **OCR})
    assert permit.status_code == 200
    budget.kill()
    budget.start()
    again = budget.post("/permit", {"event_id": "a", **OCR}).json()
    assert (again["repeated"], again["expires_at"]) == (True, permit.json()["expires_at"])
    assert budget.post("/permit", {"event_id": "b", **OCR, "units": {"pages": 6}}).status_code == 402
    assert budget.post("/settle", {"hold": "a", "units": {"pages": 3}}).status_code == 200
    page = requests.get(budget.url + "/statement", headers=HEADERS, timeout=30).json()
    assert (page["posted"], page["held"]) == ("6", "0")


def test_killed_thrice_while_clients_ask_the_answers_and_the_ledger_agree_to_the_won(
    process: Callable[[str], Process],
) -> None:
    """Clients that repeat what was not answered: what they were told, and nothing else, is held and spent."""
    budget, over, limit, permits = process("3000 KRW"), threading.Event(), 3_000, [0] * 4

    def answered(path: str, body: dict[str, Any]) -> requests.Response:
        deadline = time.monotonic() + 90
        while True:  # the same request until there is an answer, as a caller does
            with contextlib.suppress(requests.RequestException):
                return budget.post(path, body)
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def client(name: int) -> tuple[int, int]:
        chance, held, spent, n = random.Random(name), 0, 0, 0
        while not over.is_set():
            n += 1
            pages = chance.randrange(1, 4)
            permit = answered("/permit", {"event_id": f"{name}/{n}", **OCR, "units": {"pages": pages}})
            if permit.status_code != 200:
                assert permit.status_code == 402
                time.sleep(0.01)
                continue
            held += 2 * pages
            permits[name] += 1
            if chance.random() < 0.7:
                used = chance.randrange(pages + 1)
                assert answered("/settle", {"hold": f"{name}/{n}", "units": {"pages": used}}).status_code == 200
                held, spent = held - 2 * pages, spent + 2 * used
        return held, spent

    with ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(client, name) for name in range(4)]
        try:
            for goal in (15, 30, 45, 60):
                while sum(permits) < goal and not any(one.done() for one in clients):
                    time.sleep(0.005)
                if goal < 60:
                    budget.kill()
                    budget.start()
        finally:
            over.set()
        told = [one.result(90) for one in clients]
    held, spent = (sum(column) for column in zip(*told, strict=True))
    state = requests.get(budget.url + "/state", headers=HEADERS, timeout=30).json()["budgets"]["total"]
    assert (state["held"], state["posted"]) == (str(held), str(spent))
    assert spent > 0 < held
    assert held + spent <= limit
