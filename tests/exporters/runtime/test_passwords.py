"""Who may pass, what it costs to ask, and what is remembered."""

import base64
import threading
import time

import bcrypt
import pytest

from exporters.runtime import passwords
from exporters.runtime.passwords import Passwords
from tests.exporters.runtime.served import ALICE, basic, hashed


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        pytest.param(basic("alice", "wonderland"), "right", id="right"),
        pytest.param(basic("alice", "wonderland").replace("Basic", "bAsIc"), "right", id="a scheme has no case"),
        pytest.param(basic("alice", "Wonderland"), "wrong", id="another password"),
        pytest.param(basic("bob", "wonderland"), "wrong", id="another name, with a password of somebody"),
        pytest.param(basic("", ""), "wrong", id="nothing"),
        pytest.param("", "wrong", id="no header"),
        pytest.param("Bearer wonderland", "wrong", id="another scheme"),
        pytest.param("Basic ???", "wrong", id="no base64"),
        pytest.param("Basic " + base64.b64encode(b"alice").decode(), "wrong", id="no colon"),
        pytest.param("Basic " + base64.b64encode(b"\xff:\xfe\x00").decode(), "wrong", id="bytes that are no text"),
        pytest.param(basic("alice", "wonderland" * 100), "wrong", id="a password of a kilobyte"),
        pytest.param(basic("alice", "w" * 5000), "wrong", id="a header of five"),
    ],
)
def test_a_password_is_right_or_wrong(header: str, verdict: str) -> None:
    assert Passwords().judge({"alice": ALICE}, header, "192.0.2.1") == verdict


def test_a_password_longer_than_bcrypt_looks_is_judged_by_its_beginning_as_other_tools_do() -> None:
    users = {"alice": hashed("x" * 72)}
    assert Passwords().judge(users, basic("alice", "x" * 80), "192.0.2.1") == "right"
    assert Passwords().judge(users, basic("alice", "x" * 71), "192.0.2.1") == "wrong"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that were really compared with a password, in order."""
    seen: list[bytes] = []
    really = bcrypt.checkpw

    def checkpw(password: bytes, hash_: bytes) -> bool:
        seen.append(hash_)
        return really(password, hash_)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    return seen


def test_what_was_right_is_known_again_and_no_password_is_kept(checks: list[bytes]) -> None:
    judge = Passwords()
    for _ in range(3):
        assert judge.judge({"alice": ALICE}, basic("alice", "wonderland"), "192.0.2.1") == "right"
    assert len(checks) == 1
    assert all(b"wonderland" not in digest for digest in judge._right)
    assert b"wonderland" not in repr(vars(judge)).encode()


def test_a_changed_hash_is_compared_anew_and_a_wrong_password_each_time(checks: list[bytes]) -> None:
    judge, changed = Passwords(), hashed("looking-glass")
    assert judge.judge({"alice": ALICE}, basic("alice", "wonderland"), "192.0.2.1") == "right"
    for _ in range(2):
        assert judge.judge({"alice": changed}, basic("alice", "wonderland"), "192.0.2.1") == "wrong"
    assert checks == [ALICE.encode(), changed.encode(), changed.encode()]


def test_an_unknown_name_costs_a_comparison_too_always_the_same(checks: list[bytes]) -> None:
    users = {f"user{n}": hashed(f"password{n}") for n in range(5)}
    judge = Passwords()
    for _ in range(3):
        assert judge.judge(users, basic("nobody", "password1"), "192.0.2.1") == "wrong"
    assert len(checks) == 3
    assert len(set(checks)) == 1


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "REMEMBERED", 3)
    judge = Passwords()
    for n in range(6):
        assert judge.judge({f"u{n}": ALICE}, basic(f"u{n}", "wonderland"), "192.0.2.1") == "right"
    assert len(judge._right) == 3


def test_a_flood_of_wrong_passwords_waits_for_nobody_and_a_known_client_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge, gate, users = Passwords(), threading.Event(), {"alice": ALICE}
    assert judge.judge(users, basic("alice", "wonderland"), "192.0.2.9") == "right"
    monkeypatch.setattr(passwords, "_matches", lambda password, hash_: gate.wait(20) and False)
    verdicts: list[str] = []

    def attack(n: int) -> None:
        verdicts.append(judge.judge(users, basic("alice", f"guess {n}"), f"192.0.2.{1 + n % 2}"))

    attackers = [threading.Thread(target=attack, args=(n,)) for n in range(20)]
    for thread in attackers:
        thread.start()
    deadline = time.monotonic() + 10
    while len(verdicts) < 16 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert verdicts == ["busy"] * 16, "four may wait for their turn, two of each address"
    assert judge.judge(users, basic("alice", "wonderland"), "192.0.2.1") == "right"
    gate.set()
    for thread in attackers:
        thread.join(10)
    assert sorted(verdicts) == ["busy"] * 16 + ["wrong"] * 4
    assert judge.judge(users, basic("alice", "guess"), "192.0.2.1") == "wrong", "there is room again"
    assert not judge._checking
