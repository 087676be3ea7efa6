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
    routes,
    victims,
    with_replacements,
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
    ("sentence", "desired", "active", "told"),
    [
        ("nothing is replaced", 4, 0, 4),
        ("the replacement comes on top of what is needed", 4, 1, 5),
        ("and on top of the maximum", 9, 1, 10),
        ("what was wanted beyond the maximum is not", 12, 1, 10),
        ("of an idle workload one is left: the replacement", 0, 1, 1),
    ],
)
def test_the_number_to_tell(sentence: str, desired: int, active: int, told: int) -> None:
    assert with_replacements(desired, 9, active) == told, sentence


def test_the_victim_goes_first() -> None:
    assert victims((ONE, replace(ONE, instance="w7"))) == ("w1", "w7")


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
