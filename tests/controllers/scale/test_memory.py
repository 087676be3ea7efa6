"""What the scaler learns from the asks it saw, and what it keeps for its windows."""

from dataclasses import replace

import pytest

from controllers.domain import Pending, Reason, Recommendation, Replicas
from controllers.scale.memory import Memory, asked, decided, saw
from controllers.scale.state import Decision, LeadTime


def after(*looks: tuple[float, int, int], asks: dict[float, int] | None = None) -> tuple[Memory, Replicas]:
    """Looks at (time, wanted, ready); `asks` are told right after the look of that time."""
    memory, replicas = Memory(), Replicas(0, 0)
    for now, wanted, ready in looks:
        memory, replicas = saw(memory, Replicas(wanted, ready), now)
        memory = asked(memory, (asks or {}).get(now, 0), now)
    return memory, replicas


def test_a_replica_asked_for_is_pending_until_it_works() -> None:
    _, replicas = after((0, 5, 5), (15, 8, 5), asks={0: 3})
    assert replicas.pending == (Pending(3, 15.0),)


def test_the_lead_time_is_learned_from_asks_that_became_ready() -> None:
    memory, replicas = after((0, 5, 5), (30, 8, 5), (62, 8, 8), asks={0: 3})
    assert memory.lead_times == (62.0, 62.0, 62.0)
    assert memory.lead_time() == LeadTime(62.0, 62.0)
    assert replicas.pending == ()


def test_one_start_is_not_yet_believed() -> None:
    memory, _ = after((0, 5, 5), (62, 6, 6), asks={0: 1})
    assert memory.lead_times == (62.0,)
    assert memory.lead_time() is None


def test_scaled_in_while_starting_teaches_nothing() -> None:
    memory, replicas = after((0, 5, 5), (15, 5, 5), asks={0: 3})
    assert memory.lead_times == ()
    assert replicas.pending == ()


def test_a_crash_is_pending_from_when_it_was_seen() -> None:
    _, replicas = after((0, 5, 5), (15, 5, 4), (25, 5, 4))
    assert replicas.pending == (Pending(1, 10.0),)


@pytest.mark.parametrize(
    ("sentence", "looks", "asks", "taught"),
    [
        ("a crash", [(0, 5, 5), (15, 5, 2), (30, 5, 5)], {}, ()),
        ("a probe that fails while replicas start", [(0, 5, 5), (15, 7, 4), (30, 7, 4), (75, 7, 7)], {0: 2}, (75, 75)),
        ("somebody else asked", [(0, 5, 5), (15, 8, 5), (60, 8, 8)], {}, (45, 45, 45)),
        ("starting at the first look", [(0, 5, 3), (10, 5, 5)], {}, ()),
        ("the target did not answer for an hour", [(0, 5, 5), (15, 8, 5), (3615, 8, 8)], {0: 3}, ()),
        ("… and somebody asked meanwhile", [(0, 5, 5), (3600, 8, 5), (3615, 8, 8)], {}, ()),
        ("the clock is set back", [(9000, 5, 5), (15, 8, 5), (30, 8, 8)], {9000: 3}, ()),
    ],
)
def test_only_a_start_that_was_seen_from_its_ask_on_teaches(
    sentence: str, looks: list[tuple[float, int, int]], asks: dict[float, int], taught: tuple[float, ...]
) -> None:
    memory, replicas = after(*looks, asks=asks)
    assert memory.lead_times == taught, sentence
    assert all(one.age_seconds >= 0 for one in replicas.pending), sentence


def test_looks_as_far_apart_as_the_loop_turns_teach() -> None:
    memory, _ = saw(Memory(), Replicas(5, 5), 0, 300)
    memory, _ = saw(asked(memory, 3, 0), Replicas(8, 8), 300, 300)
    assert memory.lead_times == (300, 300, 300)


def test_a_clock_that_was_set_back_leaves_nothing_in_the_future() -> None:
    future = (Recommendation(5000, 9),)
    memory = Memory(recommendations=future, wanted=future, answers=future, started=future, known_since=4000)
    memory, _ = saw(memory, Replicas(9, 9), 5000)
    memory, _ = saw(memory, Replicas(9, 9), 1000)
    numbers = (*memory.recommendations, *memory.wanted, *memory.answers, *memory.started)
    assert ({one.at for one in numbers}, memory.known_since) == ({1000}, 1000)


def test_what_already_starts_at_the_first_look_counts_from_then() -> None:
    _, replicas = after((0, 5, 3), (10, 5, 3))
    assert replicas.pending == (Pending(2, 10.0),)


def test_the_first_that_become_ready_are_the_first_asked_for() -> None:
    memory, replicas = after((0, 5, 5), (30, 6, 5), (60, 8, 6), asks={0: 1, 30: 2})
    assert memory.lead_times == (60.0,)
    assert replicas.pending == (Pending(2, 30.0),)


def test_history_is_kept_for_the_window_and_no_longer() -> None:
    memory = Memory()
    for now in range(0, 1000, 100):
        decision = Decision("w", float(now), 5, 4, 4, 5, 5, None, ())
        memory = decided(memory, decision, told=5, keep_seconds=300)
    assert [r.at for r in memory.recommendations] == [600.0, 700.0, 800.0, 900.0]
    assert memory.known_since == 0.0
    assert {w.replicas for w in memory.wanted} == {5}


def test_a_window_without_any_recommendation_is_none_to_look_back_on() -> None:
    known = Decision("w", 0.0, 5, 5, 5, 5, 5, None, ())
    memory = decided(Memory(), known, None, keep_seconds=300)
    for now in range(15, 330, 15):
        held = replace(known, at=float(now), recommended=None, reasons=(Reason.DEMAND_UNKNOWN, Reason.HOLD))
        memory = decided(memory, held, None, keep_seconds=300)
        assert memory.known_since == (0.0 if now <= 300 else None)
    assert decided(memory, replace(known, at=330.0), None, keep_seconds=300).known_since == 330.0
