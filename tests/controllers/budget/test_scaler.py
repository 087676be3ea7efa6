"""The scaler and a real ledger: holds are taken before a target is told, renewed while it runs, given up afterwards."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controllers.budget.client import Client, Held
from controllers.domain import Money
from controllers.loop import Tick
from controllers.scale.purse import Purse, Taken, to_drain

VIDEO = "default/video"
Serve = Callable[..., Any]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def purse(token: Path) -> Iterator[Callable[[str], Purse]]:
    made: list[Purse] = []

    def make(url: str) -> Purse:
        made.append(Purse(Client(url, token), 300.0, 1200.0))
        return made[-1]

    yield make
    for one in made:
        one.close()


def tick(at: float) -> Tick:
    return Tick(at, time.monotonic() + 20)


def look(purse: Purse, asked: Any, running: int | None) -> Money:
    return purse.look({VIDEO: running}, tick(asked.clock.at), acting=True)[VIDEO]


def grow(purse: Purse, asked: Any, running: int, more: int, *, told: bool = True) -> Taken:
    taken = purse.take(VIDEO, running, more, 60.0, tick(asked.clock.at))
    if told:
        purse.started(VIDEO)
    return taken


def budget(asked: Any) -> dict[str, float]:
    """Posted and held of the usage budget, in won."""
    found = asked.get("/state")["budgets"]["usage"]
    return {key: float(found[key]) for key in ("posted", "held")}


def test_a_replicas_money_from_its_admission_to_its_end(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve()
    one = purse(asked.url)
    assert look(one, asked, 0) == Money(0, 0, 3409, 0.0, 1200.0)
    assert grow(one, asked, 0, 2) == Taken(2)
    assert budget(asked) == {"posted": 0.0, "held": pytest.approx(2 * 4.4 + 2 * 0.2 - 0.4, abs=0.5)}
    for _ in range(10):  # an hour in which both run; each renewal posts five minutes: 1 won
        asked.clock.at += 360
        assert look(one, asked, 2).refused == 0
    spent = budget(asked)["posted"]
    assert spent == pytest.approx(2 * 12, abs=2.5)
    asked.clock.at += 60
    look(one, asked, 1)  # one has stopped
    assert asked.get("/state")["workloads"][VIDEO]["replicas"] == 1
    look(one, asked, 0)
    assert budget(asked)["held"] == 0
    assert budget(asked)["posted"] == pytest.approx(spent + 2 * 0.2, abs=0.05)


def test_refused_in_the_middle_it_says_how_many_have_money(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve(usage="10 KRW")
    one = purse(asked.url)
    taken = grow(one, asked, 0, 5)
    assert taken.granted == 2
    assert "of the budget 'usage' (10.00)" in str(taken.said)
    assert not taken.silent
    assert look(one, asked, 2).max_new == 0


def test_what_the_target_was_never_told_of_costs_nothing(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve()
    one = purse(asked.url)
    grow(one, asked, 0, 2, told=False)  # the target could not be told
    assert budget(asked)["held"] > 0
    asked.clock.at += 15
    look(one, asked, 0)
    assert budget(asked) == {"posted": 0.0, "held": 0.0}


def test_what_the_target_was_told_of_costs_its_minimum(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve()
    one = purse(asked.url)
    grow(one, asked, 0, 1)
    asked.clock.at += 15
    look(one, asked, 0)  # and ended at once
    assert budget(asked) == {"posted": pytest.approx(0.2, abs=0.01), "held": 0.0}


def test_a_refused_renewal_is_a_drain_notice_and_ends_when_the_money_is_back(
    serve: Serve, purse: Callable[[str], Purse]
) -> None:
    asked = serve(usage="10 KRW")
    one = purse(asked.url)
    grow(one, asked, 0, 2)
    asked.post("/usage", event_id="elsewhere", provider="acme", model="ocr", units={"pages": 1})
    asked.clock.at += 600
    found = look(one, asked, 2)
    assert (found.paid, found.refused) == (1, 2)
    assert "this needs" in one.refusals[VIDEO]
    found = look(one, asked, 2)
    assert (found.paid, found.refused) == (1, 2), "a drain notice stands while it is not followed"
    found = look(one, asked, 1)  # one was drained, and what was held for it is free again
    assert (found.paid, found.refused, found.max_new) == (1, 0, 0)


def test_what_a_drained_replica_gives_back_does_not_let_it_grow_again_at_once(
    serve: Serve, purse: Callable[[str], Purse]
) -> None:
    asked = serve(usage="14 KRW")
    one = purse(asked.url)
    grow(one, asked, 0, 3)
    asked.clock.at += 300
    assert look(one, asked, 3).refused > 0
    asked.clock.at += 15
    assert asked.get("/state")["workloads"][VIDEO]["max_new"] == 0
    assert look(one, asked, 1).max_new == 0
    assert asked.get("/state")["workloads"][VIDEO]["max_new"] > 0, "the ledger has money for one more now"
    asked.clock.at += 300
    assert look(one, asked, 1).max_new == asked.get("/state")["workloads"][VIDEO]["max_new"]


def test_a_restarted_scaler_goes_on_with_the_holds_that_are_there(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve()
    grow(purse(asked.url), asked, 0, 3)
    before = budget(asked)["held"]
    asked.clock.at += 60
    again = purse(asked.url)
    assert look(again, asked, 3).paid == 3
    assert budget(asked)["held"] == before, "nothing is held twice"
    third = purse(asked.url)
    look(third, asked, 1)  # while nobody looked, two of three ended
    assert asked.get("/state")["workloads"][VIDEO]["replicas"] == 1


def test_an_unknown_number_leaves_the_holds_alone(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve()
    one = purse(asked.url)
    grow(one, asked, 0, 2)
    asked.clock.at += 400
    before = budget(asked)
    assert look(one, asked, None).refused == 0
    assert budget(asked) == before


def test_a_scaler_that_does_not_lead_writes_nothing(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve()
    one = purse(asked.url)
    found = one.look({VIDEO: 4}, tick(asked.clock.at), acting=False)[VIDEO]
    assert found.max_new == 3409
    assert budget(asked) == {"posted": 0.0, "held": 0.0}


def test_nobody_answers_and_then_somebody_does(serve: Serve, purse: Callable[[str], Purse], token: Path) -> None:
    asked = serve()
    one = purse(asked.url)
    look(one, asked, 1)
    url, one._client._url = one._client._url, "http://127.0.0.1:1"
    asked.clock.at += 100
    assert look(one, asked, 1) == Money(1, 0, None, 100.0, 1200.0)
    assert one.problem is not None
    assert grow(one, asked, 1, 2).silent
    one._client._url = url
    asked.clock.at += 100
    assert look(one, asked, 1).max_new is not None
    assert (one.problem, one.silent_seconds) == (None, 0.0)


class Slow(Client):
    """A ledger that answers, and takes a fifth of a second for each renewal."""

    def renew(self, workload: str, instance: str, seconds: float) -> Held:
        time.sleep(0.2)
        return super().renew(workload, instance, seconds)


def test_a_slow_ledger_is_not_a_silent_one_and_what_was_not_renewed_is_in_the_next_step(
    serve: Serve, token: Path
) -> None:
    asked = serve()
    one = Purse(Slow(asked.url, token), 300.0, 1200.0)
    looks, held = 0, 0
    while held < 30 and looks < 19:
        found = look(one, asked, 30)
        assert found.max_new is not None
        assert (one.problem, one.silent_seconds) == (None, 0.0)
        looks, held = looks + 1, asked.get("/state")["workloads"][VIDEO]["replicas"]
        asked.clock.at += 15
    assert held == 30
    assert looks > 1, "not all in one step, and all in the end"
    one.close()


def test_a_clock_that_was_set_back_renews_at_once_and_does_not_lengthen_the_silence(
    serve: Serve, purse: Callable[[str], Purse]
) -> None:
    asked = serve()
    one = purse(asked.url)

    def seen(at: float) -> Money:
        return one.look({VIDEO: 1}, tick(at), acting=True)[VIDEO]

    start = asked.clock.at
    seen(start + 86_400)  # the scaler's clock is a day ahead, the ledger's is right
    for minute in range(0, 60, 5):
        asked.clock.at = start + 60 * minute
        seen(asked.clock.at)
    assert budget(asked)["posted"] == pytest.approx(11, abs=1), "each renewal posts five minutes"
    seen(start + 86_400)
    one._client._url = "http://127.0.0.1:1"
    seen(start)
    assert seen(start + 1500).silent_seconds == 1500


def test_a_step_whose_time_has_passed_is_no_answer_and_no_failure(serve: Serve, purse: Callable[[str], Purse]) -> None:
    asked = serve()
    late = Tick(asked.clock.at, time.monotonic() - 1)
    found = purse(asked.url).look({VIDEO: 2}, late, acting=True)[VIDEO]
    assert (found.paid, found.refused, found.max_new) == (2, 0, None)


@pytest.mark.parametrize(
    ("sentence", "ages", "expected"),
    [
        ("nobody was refused", [], 0),
        ("one", [0.0], 1),
        ("of five three, and what they free may pay for two", [0.0] * 5, 3),
        ("after half of the grace all of them, while their holds still pay for draining", [601.0] * 5, 5),
        ("those that have waited so long, if they are more than half", [601.0, 601.0, 601.0, 0.0], 3),
    ],
)
def test_how_many_are_drained(sentence: str, ages: list[float], expected: int) -> None:
    assert to_drain([1000.0 - age for age in ages], 1000.0, 1200.0) == expected, sentence


@pytest.mark.parametrize("sentence", ["a workload that the ledger does not know", "a clock set back"])
def test_a_ledger_that_cannot_tell_is_no_reason_to_drain(
    serve: Serve, purse: Callable[[str], Purse], sentence: str
) -> None:
    asked = serve()
    one = purse(asked.url)
    name = "default/unheard-of"
    if sentence == "a clock set back":
        name = VIDEO
        grow(one, asked, 0, 2)
        asked.clock.at += 400
        look(one, asked, 2)
        asked.clock.at -= 3600
        at = asked.clock.at + 7200  # the scaler's own clock is right
    else:
        at = asked.clock.at
    found = one.look({name: 2}, tick(at), acting=True)[name]
    assert (found.paid, found.refused, found.max_new) == (2, 0, 0), sentence
    assert sentence == "a clock set back" or name in one.refusals
