"""What the scaler learns from the asks it saw, and what it keeps for its windows."""

from controllers.domain import Pending, Replicas
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
