"""Replacements: acknowledged once, kept, protected for their time, and never more than may be."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controllers.scale.replacements import (
    Refusal,
    Replacement,
    ReplacementError,
    Replacements,
    as_told,
    routes,
    worked,
)
from exporters.runtime.endpoint import Request

NOW = 1_800_000_000.0
ONE = Replacement("default/video", "w1", "op1/replace/1", NOW, NOW + 600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "replacements.json"


def test_what_was_accepted_is_kept_by_a_restart_and_is_the_same_when_asked_again(path: Path) -> None:
    assert Replacements(path).accept(ONE) == ONE
    again = Replacements(path)
    later = replace(ONE, accepted_at=NOW + 60, until=NOW + 660)
    assert again.accept(later) == ONE
    assert again.active("default/video", NOW + 599) == (ONE,)
    assert again.active("default/video", NOW + 600) == ()
    assert again.active("default/other", NOW) == ()
    assert again.find("op1/replace/1") == ONE
    assert again.find("op2/replace/1") is None


@pytest.mark.parametrize(
    ("sentence", "asked", "said"),
    [
        ("the same operation about another instance", replace(ONE, instance="w2"), "is about w1"),
        ("the same instance for another operation", replace(ONE, operation="op2"), "being replaced already"),
    ],
)
def test_refusals(path: Path, sentence: str, asked: Replacement, said: str) -> None:
    book = Replacements(path)
    book.accept(ONE)
    with pytest.raises(Refusal, match=said):
        book.accept(asked)
    assert book.active("default/video", NOW) == (ONE,), sentence


def test_no_more_at_once_than_two_and_the_next_when_one_is_over(path: Path) -> None:
    book = Replacements(path)
    for number in (1, 2):
        book.accept(replace(ONE, instance=f"w{number}", operation=f"op{number}"))
    third = replace(ONE, instance="w3", operation="op3")
    with pytest.raises(Refusal, match="2 replacements of default/video are under way, 2 may be"):
        book.accept(third)
    book.accept(replace(third, workload="default/other"))
    book.accept(replace(third, operation="op4", accepted_at=NOW + 600, until=NOW + 1200))


def test_what_is_over_can_be_asked_for_during_a_day(path: Path) -> None:
    book = Replacements(path)
    book.accept(ONE)
    book.accept(replace(ONE, operation="op2", accepted_at=NOW + 80_000, until=NOW + 80_600))
    assert book.find(ONE.operation) == ONE
    book.accept(replace(ONE, operation="op3", accepted_at=NOW + 90_000, until=NOW + 90_600))
    assert book.find(ONE.operation) is None


def test_a_clock_that_was_set_back_a_little_does_not_end_one() -> None:
    assert ONE.in_force(NOW - 30)
    assert not ONE.in_force(NOW - 700)


def test_what_cannot_be_kept_is_not_acknowledged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Replacements(path)
    book.accept(ONE)
    two = replace(ONE, instance="w2", operation="op2")
    with monkeypatch.context() as broken:
        broken.setattr("controllers.scale.replacements.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(ReplacementError, match=r"replacements\.json: cannot be written"):
            book.accept(two)
    assert book.active("default/video", NOW) == (ONE,)
    assert Replacements(path).active("default/video", NOW) == (ONE,)
    assert sorted(os.listdir(path.parent)) == ["replacements.json"]


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"workload": 1}]'])
def test_a_damaged_file_is_said_and_not_forgotten(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ReplacementError, match="it is damaged"):
        Replacements(path)


@pytest.mark.parametrize(
    ("sentence", "ready", "after", "over"),
    [
        ("all that were told work, the victim too", 6, 10.0, True),
        ("one is starting: the replacement, or the victim does not count", 5, 10.0, False),
        ("after a lead time: the victim is the one that does not count", 5, 200.0, True),
        ("after a lead time, and even fewer work", 4, 200.0, False),
    ],
)
def test_a_replacement_is_over_when_it_works(sentence: str, ready: int, after: float, over: bool) -> None:
    told = replace(ONE, surging=True)
    found = worked([told], ready, 6, NOW + after, 90.0)
    assert [one.works for one in found] == ([True] if over else []), sentence
    assert worked([ONE], 6, 6, NOW + after, 90.0) == [], "nobody was told of it yet"


def test_what_the_target_is_told_is_noted_before_and_the_victim_stays_the_first_to_go(path: Path) -> None:
    book = Replacements(path)
    book.accept(ONE)
    book.note(as_told(book.active(ONE.workload, NOW), ()))
    assert [one.surging for one in Replacements(path).surging(ONE.workload)] == [True]
    (told,) = book.active(ONE.workload, NOW)
    book.note([replace(told, works=True)])
    assert book.active(ONE.workload, NOW) == ()
    assert book.victims(ONE.workload, NOW) == ("w1",)
    book.note(as_told((), book.surging(ONE.workload)))
    assert Replacements(path).surging(ONE.workload) == ()
    assert book.victims(ONE.workload, NOW + 900) == ("w1",)
    assert book.victims(ONE.workload, NOW + 1300) == ()


@pytest.mark.parametrize(
    ("sentence", "changes", "status", "said"),
    [
        ("as it should be", {}, 200, "op1/replace/1"),
        ("an unknown key", {"force": True}, 400, "force"),
        ("a ttl of a day", {"ttl_seconds": 86_400.0}, 400, "ttl_seconds"),
        ("a ttl that is text", {"ttl_seconds": "600"}, 400, "ttl_seconds"),
        ("no instance", {"instance": ""}, 400, "instance"),
        ("an operation with a space", {"operation": "a b"}, 400, "operation"),
    ],
)
def test_the_route(path: Path, sentence: str, changes: dict[str, Any], status: int, said: str) -> None:
    made = routes(Replacements(path), {"default/video": True}, lambda _: None, lambda: NOW)
    body = {
        "workload": "default/video",
        "instance": "w1",
        "operation": "op1/replace/1",
        "ttl_seconds": 600.0,
        **changes,
    }
    answer = made["POST", "/replace"](Request("POST", "/replace", {}, {}, json.dumps(body).encode()))
    assert answer.status == status, sentence
    assert said in str(answer.body)
