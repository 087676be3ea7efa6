"""Overrides: on the disk before they are acknowledged, expiring by themselves, and never forgotten unseen."""

import json
import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controllers.domain import Direction, Mode, Override
from controllers.scale.override_routes import Steered, routes
from controllers.scale.overrides import Entry, OverrideError, Overrides, Refusal, kind_of
from exporters.runtime.endpoint import Request, Response

NOW = 1_800_000_000.0
NAME = "default/video"
ONE = Override("11111111", NOW, NOW + 3600, "ann@desk", 5, None, "launch")
TWO = Override("22222222", NOW + 10, NOW + 7200, "bob@desk", 0, Direction.DOWN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "overrides.jsonl"


def test_what_was_accepted_is_kept_by_a_restart_and_lapses_by_itself(path: Path) -> None:
    book = Overrides(path)
    assert book.begin(NAME, ONE) == ONE
    book.begin(NAME, TWO)
    again = Overrides(path)
    assert again.active(NAME, NOW + 3599) == (ONE, TWO)
    assert again.active(NAME, NOW + 3600) == (TWO,)
    assert again.active("default/other", NOW) == ()
    assert again.in_force(NOW + 8000) == {}
    assert again.trail() == (Entry(NAME, ONE), Entry(NAME, TWO)), "who did what is not forgotten with its end"


def test_the_same_request_heard_twice_counts_once_and_its_id_is_no_other_s(path: Path) -> None:
    book = Overrides(path)
    book.begin(NAME, ONE)
    assert book.begin(NAME, replace(ONE, since=NOW + 5)) == ONE
    assert len(path.read_text().splitlines()) == 1
    with pytest.raises(Refusal, match="override 11111111 is about default/video"):
        book.begin("default/other", ONE)


def test_a_clock_that_was_set_back_a_little_does_not_end_one(path: Path) -> None:
    book = Overrides(path)
    book.begin(NAME, ONE)
    assert book.active(NAME, NOW - 59) == (ONE,)
    assert book.active(NAME, NOW - 61) == ()


def test_an_end_is_one_whatever_the_clock_says_and_only_of_this_workload(path: Path) -> None:
    book = Overrides(path)
    book.begin(NAME, ONE)
    book.begin("default/other", TWO)
    assert book.end(NAME, "eve@desk", NOW + 60) == (ONE,)
    assert book.end(NAME, "eve@desk", NOW + 61) == ()
    again = Overrides(path)
    assert again.active(NAME, NOW) == ()
    assert again.active("default/other", NOW + 20) == (TWO,)
    assert again.trail()[0] == Entry(NAME, ONE, NOW + 60, "eve@desk")


def test_a_line_torn_by_a_kill_was_never_acknowledged(path: Path) -> None:
    Overrides(path).begin(NAME, ONE)
    path.write_bytes(path.read_bytes() + b'{"kind":"begun","workload":"default/vi')
    book = Overrides(path)
    assert book.active(NAME, NOW) == (ONE,)
    book.begin(NAME, TWO)
    assert [json.loads(line)["override"]["id"] for line in path.read_text().splitlines()] == [ONE.id, TWO.id]
    assert Overrides(path).active(NAME, NOW + 20) == (ONE, TWO)


def test_a_power_cut_at_any_byte_leaves_what_was_whole_and_the_journal_goes_on(path: Path) -> None:
    book = Overrides(path)
    book.begin(NAME, ONE)
    book.begin(NAME, TWO)
    book.end(NAME, "eve@desk", NOW + 60)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        after = Overrides(path)
        lines = whole[:cut].count(b"\n")
        assert len(after.trail()) == min(lines, 2)
        assert after.active(NAME, NOW + 61) == ((), (ONE,), (ONE, TWO), ())[lines]
        if cut % 50 == 0:
            other = replace(TWO, id="99999999")
            after.begin("default/other", other)
            assert Overrides(path).active("default/other", NOW + 61) == (other,)


@pytest.mark.parametrize("damage", [b"\n", b"{}\n", b"\x00\x00\n", b'{"kind":"begun","workload":1}\n'])
def test_a_damaged_line_before_the_last_is_refused_by_its_number(path: Path, damage: bytes) -> None:
    Overrides(path).begin(NAME, ONE)
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(OverrideError, match=r"overrides\.jsonl: line 2 is damaged, and what it said may still be in"):
        Overrides(path)


def test_while_it_runs_a_journal_that_became_unreadable_changes_nothing_and_is_said(path: Path) -> None:
    book = Overrides(path)
    book.begin(NAME, ONE)
    path.write_bytes(path.read_bytes() + b"junk\n")
    assert book.in_force(NOW) == {NAME: (ONE,)}
    assert "line 2 is damaged" in str(book.problem)
    with pytest.raises(OverrideError, match="line 2 is damaged"):
        book.begin(NAME, TWO)
    path.unlink()
    assert book.in_force(NOW) == {NAME: (ONE,)}
    assert "is gone; restore it" in str(book.problem)


def test_what_cannot_be_kept_is_not_acknowledged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Overrides(path)
    book.begin(NAME, ONE)
    with monkeypatch.context() as broken:
        broken.setattr("controllers.scale.overrides.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OverrideError, match=r"overrides\.jsonl: cannot be written \(full\); make room"):
            book.begin(NAME, TWO)
    assert book.active(NAME, NOW + 20) == (ONE,)
    assert Overrides(path).active(NAME, NOW + 20) == (ONE,)
    book.begin(NAME, TWO)
    assert Overrides(path).active(NAME, NOW + 20) == (ONE, TWO)


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OverrideError, match="cannot be"):
        Overrides(tmp_path / "file" / "overrides.jsonl").begin(NAME, ONE)


def test_two_processes_with_one_file_see_each_other_s(path: Path) -> None:
    here, there = Overrides(path), Overrides(path)
    here.begin(NAME, ONE)
    assert there.in_force(NOW) == {NAME: (ONE,)}
    there.end(NAME, "eve@desk", NOW + 1)
    assert here.in_force(NOW + 1) == {}


def _writes(path: Path, first: int) -> None:
    book = Overrides(path)
    for number in range(first, first + 10):
        book.begin(f"default/w{number}", replace(ONE, id=f"{number:08}"))


def test_writers_in_threads_and_processes_lose_nothing(path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_writes, args=(path, 100 * number)) for number in (1, 2)]
    threads = [threading.Thread(target=_writes, args=(path, 100 * number)) for number in (3, 4)]
    for one in (*processes, *threads):
        one.start()
    for one in (*processes, *threads):
        one.join()
    assert len(Overrides(path).trail()) == 40


def test_no_more_at_once_than_a_person_can_see(path: Path) -> None:
    book = Overrides(path)
    for number in range(20):
        book.begin(NAME, replace(ONE, id=f"{number:08}"))
    with pytest.raises(Refusal, match="default/video has 20 overrides in force, 20 may be; resume it first"):
        book.begin(NAME, TWO)
    book.begin("default/other", TWO)


def test_the_kinds() -> None:
    kinds = [kind_of(ONE), *(kind_of(replace(TWO, pause=way)) for way in Direction)]
    assert kinds == ["surge", "pause_up", "pause_down", "pause"]


class Asked:
    """The routes on one journal, with a clock that stands."""

    def __init__(self, path: Path, refusal: Response | None = None) -> None:
        self.book = Overrides(path)
        steered = {NAME: Steered(Mode.ACT, 4), "default/shy": Steered(Mode.SHADOW, 4)}
        self.routes = routes(self.book, steered, lambda _: 1, lambda _: refusal, lambda: NOW)

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.routes[method, path](Request(method, path, {}, {}, content))
        return answer.status, json.loads(answer.body)


ASKED = {"id": "33333333", "workload": NAME, "by": "ann@desk", "until": NOW + 60, "surge": 2}


@pytest.mark.parametrize(
    ("sentence", "changes", "status", "said"),
    [
        ("as it should be", {}, 200, ["on top of what is needed, 1 now"]),
        ("more than there may ever be", {"surge": 9}, 200, ["on top of what is needed, 1 now", "bounded by max 4"]),
        (
            "more than there may be beside those decided",
            {"surge": 4},
            200,
            ["on top of what is needed, 1 now", "bounded by max 4"],
        ),
        (
            "of a workload in shadow",
            {"workload": "default/shy"},
            200,
            [
                "its mode is shadow: this is decided and published, and nothing is told to the target",
                "on top of what is needed, 1 now",
            ],
        ),
        ("a pause", {"surge": 0, "pause": "up"}, 200, []),
        ("neither", {"surge": 0}, 400, "give exactly one of surge (1 or more) and pause (up, down, both)"),
        ("both", {"pause": "up"}, 400, "give exactly one of surge (1 or more) and pause (up, down, both)"),
        ("a negative surge", {"surge": -1}, 400, "surge: Input should be greater than or equal to 0"),
        ("over already", {"until": NOW}, 400, "until: has passed already; are both clocks right?"),
        (
            "for a month",
            {"until": NOW + 30 * 86_400},
            400,
            "until: is more than 7 days ahead; what is to last belongs into the file",
        ),
        ("until NaN", {"until": float("nan")}, 400, None),
        ("an unknown key", {"force": True}, 400, "force: Extra inputs are not permitted"),
        ("a name of two lines", {"by": "ann\nbob"}, 400, None),
        (
            "a stranger",
            {"workload": "default/x"},
            404,
            "no workload 'default/x' here; is the scaler's configuration another one?",
        ),
    ],
)
def test_asking(path: Path, sentence: str, changes: dict[str, Any], status: int, said: Any) -> None:
    ask = Asked(path)
    found, answer = ask("POST", "/override", {**ASKED, **changes})
    assert found == status, answer
    assert said is None or answer["said" if status == 200 else "error"] == said, sentence
    assert len(ask.book.trail()) == (status == 200)


def test_surges_add_up_and_a_pause_upwards_beside_one_is_told(path: Path) -> None:
    ask = Asked(path)
    ask("POST", "/override", {**ASKED, "surge": 1})
    ask("POST", "/override", {**ASKED, "id": "44444444", "surge": 0, "pause": "both"})
    _, answer = ask("POST", "/override", {**ASKED, "id": "55555555", "surge": 1})
    assert answer["said"] == [
        "on top of what is needed, 1 now",
        "with what was asked for before it is +2",
        "it is paused, so nothing is added until that ends; `tidewise resume` ends all overrides of it",
    ]


def test_looking_and_ending(path: Path) -> None:
    ask = Asked(path)
    ask("POST", "/override", ASKED)
    assert [one["in_force"] for one in ask("GET", "/overrides")[1]["overrides"]] == [True]
    _, answer = ask("POST", "/override/end", {"workload": NAME, "by": "eve@desk"})
    assert [one["id"] for one in answer["ended"]] == ["33333333"]
    (one,) = ask("GET", "/overrides")[1]["overrides"]
    assert (one["in_force"], one["ended_at"], one["ended_by"]) == (False, NOW, "eve@desk")
    assert ask("POST", "/override/end", {"workload": NAME, "by": "eve@desk"})[1] == {"ended": []}
    assert ask("POST", "/override/end", {"workload": NAME})[0] == 400
    assert ask("POST", "/override", b"{")[0] == 400


def test_who_may_not_ask_is_told_nothing(path: Path) -> None:
    ask = Asked(path, Response(401, '{"error": "no"}'))
    for method, route in (("POST", "/override"), ("POST", "/override/end"), ("GET", "/overrides")):
        assert ask(method, route, ASKED) == (401, {"error": "no"})
    assert ask.book.trail() == ()


def test_a_disk_that_is_full_is_503(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Asked(path)
    monkeypatch.setattr("controllers.scale.overrides.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    status, answer = ask("POST", "/override", ASKED)
    assert (status, "cannot be written" in answer["error"]) == (503, True)
