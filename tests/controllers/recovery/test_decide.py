"""The ladder, as a table: each row is a sentence, a state that differs from the ordinary one, and what comes next."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.domain import Mode
from controllers.recovery.decide import (
    Decision,
    Past,
    Peers,
    Rules,
    State,
    Watch,
    back_off_seconds,
    counted_as,
    decide,
    steady,
    watched,
)
from controllers.recovery.operation import (
    Attempt,
    Health,
    Limits,
    Next,
    Operation,
    Reason,
    Result,
    Step,
)

NOW = 1_800_000_000.0
LADDER = (Step.RESTART, Step.REPLACE, Step.PAGE)
RULES = Rules("workers", {"Hung": LADDER}, {"Hung": "Hung"}, Mode.ACT, Mode.ACT)
SICK = State(NOW, "w1", Health.SICK, symptom="Hung", peers=Peers(healthy=9))
OPEN = Operation("abc", "workers", "w1", "Hung", "Hung", NOW - 300, LADDER, Limits())


def attempt(
    step: Step = Step.RESTART,
    number: int = 1,
    ago: float = 100,
    result: Result | None = Result.DONE,
    failed: Reason | None = None,
) -> Attempt:
    ended = None if result is None else NOW - ago
    return Attempt(step, number, NOW - ago - 1, result, ended, failed=failed)


def tried(*attempts: Attempt, **changes: Any) -> dict[str, Any]:
    """A state with an operation that made these attempts, and the past that goes with it."""
    past = Past(attempts=tuple(a.last_at for a in attempts))
    return {"operation": replace(OPEN, attempts=attempts, **changes), "past": past}


HEALTHY, MISSING, UNKNOWN, GONE = (
    {"health": health, "symptom": None} for health in (Health.HEALTHY, Health.MISSING, Health.UNKNOWN, Health.GONE)
)
REMAINS = Reason.SYMPTOM_REMAINS
USED_UP = [attempt(number=n, ago=1000 - n, failed=REMAINS) for n in (1, 2, 3)]
REPLACED_THRICE = [attempt(Step.REPLACE, n, ago=990 - n, failed=REMAINS) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("sentence", "changes", "expected", "reasons"),
    [
        # evidence
        ("a sick instance with fine peers is restarted", {}, "restart", "peers_fine"),
        (
            "a dead instance is restarted although it has no peers",
            {"peers": Peers(), "alive": False},
            "restart",
            "liveness_fails",
        ),
        ("without peers and liveness there is no evidence", {"peers": Peers()}, "freeze", "no_evidence"),
        (
            "one that lives, with peers that are half sick: not its fault",
            {"peers": Peers(1, 1), "alive": True},
            "freeze",
            "breaker",
        ),
        (
            "peers of which most are unknown are no evidence",
            {"peers": Peers(healthy=2, unknown=3)},
            "freeze",
            "no_evidence",
        ),
        # unknown
        ("unknown health freezes", UNKNOWN | {"operation": OPEN}, "freeze", "health_unknown"),
        ("unknown health freezes also without an operation", UNKNOWN, "freeze", "health_unknown"),
        ("no instances means none", UNKNOWN | {"doubt": Reason.NO_INSTANCES}, "freeze", "no_instances"),
        (
            "neither sick nor shown healthy, with an operation: unknown",
            MISSING | {"operation": OPEN},
            "freeze",
            "health_unknown",
        ),
        ("neither sick nor shown healthy, and nobody complains: wait", MISSING, "wait", "health_unknown"),
        (
            "neither sick nor shown healthy, and an alert fires: freeze",
            MISSING | {"alert_firing": True},
            "freeze",
            "health_unknown",
        ),
        ("an alert that Prometheus does not confirm does nothing", HEALTHY | {"alert_firing": True}, "none", ""),
        ("a clock that was set freezes", {"clock_jumped": True}, "freeze", "clock_jumped"),
        (
            "an attempt whose outcome is unknown is not repeated",
            tried(attempt(result=None)),
            "freeze",
            "outcome_unknown",
        ),
        # verification
        ("the symptom may outlast the remedy a little", tried(attempt(ago=59)), "verify", "verifying"),
        (
            "a symptom that remains is a failed attempt, and the next follows",
            tried(attempt(ago=61)),
            "restart",
            "symptom_remains peers_fine",
        ),
        (
            "a program that failed gets the same time: only the symptom counts",
            tried(attempt(ago=20, result=Result.FAILED)),
            "verify",
            "verifying",
        ),
        (
            "what never arrived needs no waiting for an effect, only the back-off",
            tried(attempt(ago=5, result=Result.UNREACHABLE)),
            "wait",
            "symptom_remains back_off",
        ),
        ("after a restart it may be away for a while", MISSING | tried(attempt(ago=30)), "verify", "verifying"),
        (
            "away for too long is inconclusive, which is failed",
            MISSING | tried(attempt(ago=61)),
            "restart",
            "inconclusive peers_fine",
        ),
        (
            "healthy is not yet recovered",
            HEALTHY | {"watch": Watch(NOW - 119, 9)} | tried(attempt()),
            "verify",
            "stabilizing",
        ),
        (
            "healthy for the window is recovered",
            HEALTHY | {"watch": Watch(NOW - 120, 3)} | tried(attempt()),
            "close",
            "recovered",
        ),
        (
            "the window with two readings in it is too thin",
            HEALTHY | {"watch": Watch(NOW - 500, 2)} | tried(attempt()),
            "verify",
            "stabilizing",
        ),
        (
            "a symptom that went away by itself is watched as well",
            HEALTHY | {"watch": Watch(NOW - 10, 1), "operation": OPEN},
            "verify",
            "stabilizing",
        ),
        (
            "healthy for 20 s and sick again is a failed attempt",
            {"watch": Watch(relapsed=True)} | tried(attempt(ago=30)),
            "restart",
            "relapsed peers_fine",
        ),
        (
            "a replacement has the time it takes to start",
            tried(*USED_UP, attempt(Step.REPLACE, ago=899)),
            "verify",
            "verifying",
        ),
        (
            "and no more",
            tried(*USED_UP, attempt(Step.REPLACE, ago=901)),
            "replace",
            "symptom_remains peers_fine",
        ),
        # the ladder
        ("three failed restarts lead to the replacement", tried(*USED_UP), "replace", "peers_fine"),
        ("two failed restarts do not", tried(*USED_UP[:2]), "restart", "peers_fine"),
        (
            "a refused replacement is not asked for again",
            tried(*USED_UP, attempt(Step.REPLACE, ago=1, result=Result.REFUSED)),
            "page",
            "symptom_remains ladder_end",
        ),
        ("after the last step people take over", tried(*USED_UP, *REPLACED_THRICE), "page", "ladder_end"),
        (
            "what people have is theirs until it is well",
            tried(*USED_UP, handed_for=Reason.LADDER_END, handed_at=NOW - 9),
            "page",
            "ladder_end",
        ),
        (
            "what people have stands although Prometheus is silent",
            UNKNOWN | tried(*USED_UP, handed_for=Reason.FLAPPING, handed_at=NOW),
            "page",
            "flapping",
        ),
        (
            "what people have mended is closed",
            HEALTHY
            | {"watch": Watch(NOW - 121, 9)}
            | tried(*USED_UP, handed_for=Reason.LADDER_END, handed_at=NOW - 999),
            "close",
            "recovered",
        ),
        ("three recurrences within the hour are flapping", {"past": Past(recurrences=3)}, "page", "flapping"),
        (
            "two and a relapse now are flapping",
            {"watch": Watch(relapsed=True), "past": Past(recurrences=2), "operation": OPEN},
            "page",
            "relapsed flapping",
        ),
        ("two recurrences are not", {"past": Past(recurrences=2)}, "restart", "peers_fine"),
        ("an untouched instance that is gone was scaled in", GONE | {"operation": OPEN}, "close", "instance_gone"),
        ("one that is gone after a restart is for people", GONE | tried(attempt()), "page", "instance_gone"),
        # held back
        (
            "a silence stops after the step",
            {"silenced": True} | tried(attempt(ago=61)),
            "wait",
            "symptom_remains silenced",
        ),
        (
            "a silence does not stop the watching",
            HEALTHY | {"silenced": True} | tried(attempt()),
            "verify",
            "stabilizing",
        ),
        (
            "a silence keeps the page back as well",
            {"silenced": True} | tried(*USED_UP, *REPLACED_THRICE),
            "wait",
            "silenced",
        ),
        ("silences that nobody can tell freeze", {"silenced": None}, "freeze", "silences_unknown"),
        ("dependencies come first", {"dependency": "database"}, "wait", "dependency_down"),
        ("60 % sick opens the breaker", {"peers": Peers(healthy=4, sick=5)}, "freeze", "breaker"),
        (
            "60 % sick opens it also for those whose liveness fails",
            {"peers": Peers(healthy=4, sick=5), "alive": False},
            "freeze",
            "breaker",
        ),
        ("half of them do not", {"peers": Peers(healthy=5, sick=4), "alive": False}, "restart", "liveness_fails"),
        (
            "unknown ones are no sick ones to the breaker",
            {"peers": Peers(healthy=3, unknown=6), "alive": False},
            "restart",
            "liveness_fails",
        ),
        (
            "unknown ones are no healthy ones to it either",
            {"peers": Peers(healthy=1, sick=1, unknown=8), "alive": False},
            "freeze",
            "breaker",
        ),
        ("after the breaker comes a pause", {"tripped_at": NOW - 119}, "wait", "cooldown"),
        ("and an end of the pause", {"tripped_at": NOW - 120}, "restart", "peers_fine"),
        (
            "a small group is mended one by one",
            {"peers": Peers(healthy=4), "others_in_action": 1},
            "wait",
            "group_limit",
        ),
        ("a group of ten two by two", {"others_in_action": 1}, "restart", "peers_fine"),
        ("and not three by three", {"others_in_action": 2}, "wait", "group_limit"),
        (
            "two in one failure domain are enough",
            {"peers": Peers(healthy=49), "others_in_action": 2, "domain_in_action": 2},
            "wait",
            "domain_limit",
        ),
        (
            "two replacements an hour are enough",
            tried(*USED_UP) | {"past": Past(replacements=2)},
            "freeze",
            "replacement_limit",
        ),
        (
            "the pause grows with the attempts of the hour",
            {"past": Past(attempts=(NOW - 500, NOW - 140, NOW - 30))},
            "wait",
            "back_off",
        ),
        ("and ends", {"past": Past(attempts=(NOW - 500, NOW - 140, NOW - 51))}, "restart", "peers_fine"),
        (
            "after the clock was set back, what lies ahead has just happened",
            {"past": Past(attempts=(NOW + 600,))},
            "wait",
            "back_off",
        ),
    ],
)
def test_decide(sentence: str, changes: dict[str, Any], expected: str, reasons: str) -> None:
    decision = decide(replace(SICK, **changes), RULES)
    assert (decision.next, set(decision.reasons)) == (expected, set(reasons.split())), sentence


MODES = [Mode.SHADOW, Mode.RECOMMEND, Mode.ACT]


@pytest.mark.parametrize(
    ("sentence", "mode", "destructive", "state", "expected", "told"),
    [
        ("shadow touches nothing and tells nobody", Mode.SHADOW, Mode.ACT, {}, Next.WAIT, False),
        ("shadow tells nobody even when frozen", Mode.SHADOW, Mode.ACT, {"peers": Peers()}, Next.FREEZE, False),
        ("recommend proposes", Mode.RECOMMEND, Mode.ACT, {}, Next.SUGGEST, True),
        ("act acts", Mode.ACT, Mode.RECOMMEND, {}, Next.RESTART, False),
        (
            "a replacement is proposed until it is promoted itself",
            Mode.ACT,
            Mode.RECOMMEND,
            tried(*USED_UP),
            Next.SUGGEST,
            True,
        ),
        ("a promoted replacement does not outrun its target", Mode.SHADOW, Mode.ACT, tried(*USED_UP), Next.WAIT, False),
        ("both promoted", Mode.ACT, Mode.ACT, tried(*USED_UP), Next.REPLACE, False),
        ("a frozen target in act tells people", Mode.ACT, Mode.ACT, {"silenced": None}, Next.FREEZE, True),
    ],
)
def test_modes(sentence: str, mode: Mode, destructive: Mode, state: Any, expected: Next, told: bool) -> None:
    decision = decide(replace(SICK, **state), replace(RULES, mode=mode, destructive_mode=destructive))
    assert (decision.next, decision.tells_people) == (expected, told), sentence


def test_an_operation_keeps_the_ladder_and_the_limits_it_was_opened_with() -> None:
    opened = replace(OPEN, ladder=(Step.RESTART, Step.PAGE), limits=Limits(attempts_per_step=1))
    state = replace(SICK, operation=replace(opened, attempts=(attempt(failed=REMAINS),)))
    assert decide(state, RULES).next is Next.PAGE


def test_an_operation_opens_with_an_id_that_follows_from_what_it_is_about() -> None:
    first, again, later = decide(SICK, RULES), decide(SICK, RULES), decide(replace(SICK, now=NOW + 1), RULES)
    assert first.opens is not None
    assert first.operation == again.operation != later.operation
    assert (first.step, first.number) == (Step.RESTART, 1)


def test_the_pause_doubles_has_a_bound_and_its_jitter_is_no_dice() -> None:
    limits = Limits()
    pauses = [back_off_seconds("abc", n, limits) for n in range(1, 12)]
    assert pauses == [back_off_seconds("abc", n, limits) for n in range(1, 12)]
    assert 7.5 <= pauses[0] <= 12.5
    assert all(0.75 * 10 * 2**n <= pause <= 1.25 * 10 * 2**n for n, pause in enumerate(pauses[:5]))
    assert pauses[-1] == 600
    assert len({back_off_seconds(f"op{n}", 1, limits) for n in range(20)}) == 20


@pytest.mark.parametrize(
    ("sentence", "readings", "relapses", "is_steady"),
    [
        ("good for the whole window", "H" * 13, 0, True),
        ("sick again after 20 s", "HHHS", 1, False),
        ("sick twice is one relapse", "HHSSS", 1, False),
        ("healed, and broken again", "HHSHHS", 2, False),
        ("an unknown reading starts the window anew and is no relapse", "HHHHHHHHHUHHHH", 0, False),
        ("an unknown one between healthy and sick hides nothing that was seen", "HHUS", 0, False),
    ],
)
def test_watching(sentence: str, readings: str, relapses: int, is_steady: bool) -> None:
    healths = {"H": Health.HEALTHY, "S": Health.SICK, "U": Health.UNKNOWN}
    watch, seen = Watch(), 0
    for index, letter in enumerate(readings):
        watch = watched(watch, healths[letter], NOW + 10 * index)
        seen += watch.relapsed
    state = replace(SICK, now=NOW + 10 * (len(readings) - 1), watch=watch)
    assert (seen, steady(state, Limits())) == (relapses, is_steady), sentence


def test_a_victim_that_is_gone_after_its_replacement_counts_as_healed() -> None:
    replaced = replace(OPEN, attempts=(attempt(Step.REPLACE),))
    refused = replace(OPEN, attempts=(attempt(Step.REPLACE, result=Result.REFUSED),))
    restarted = replace(OPEN, attempts=(attempt(),))
    found = [counted_as(Health.GONE, one) for one in (replaced, refused, restarted, None)]
    assert found == [Health.HEALTHY, Health.GONE, Health.GONE, Health.GONE]


ATTEMPTS = st.lists(
    st.builds(
        attempt,
        st.sampled_from([Step.RESTART]),
        st.just(1),
        st.floats(0, 5000),
        st.sampled_from([*Result, None]),
        st.sampled_from([None, REMAINS, Reason.RELAPSED]),
    ),
    max_size=3,
)
STATES = st.builds(
    State,
    now=st.just(NOW),
    instance=st.just("w1"),
    health=st.sampled_from(list(Health)),
    symptom=st.just("Hung"),
    alive=st.sampled_from([True, False, None]),
    peers=st.builds(Peers, st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
    watch=st.builds(Watch, st.sampled_from([None, NOW - 500, NOW - 10]), st.integers(0, 5), st.booleans()),
    operation=st.one_of(st.none(), ATTEMPTS.map(lambda found: replace(OPEN, attempts=tuple(found)))),
    past=st.builds(
        Past, st.integers(0, 4), st.lists(st.floats(NOW - 3600, NOW), max_size=4).map(tuple), st.integers(0, 3)
    ),
    others_in_action=st.integers(0, 5),
    domain_in_action=st.integers(0, 3),
    tripped_at=st.sampled_from([None, NOW - 30, NOW - 500]),
    dependency=st.sampled_from([None, "database"]),
    silenced=st.sampled_from([True, False, None]),
    clock_jumped=st.booleans(),
    alert_firing=st.booleans(),
)


def acts(decision: Decision) -> bool:
    return decision.next in (Next.RESTART, Next.REPLACE)


@given(STATES, st.sampled_from(MODES), st.sampled_from(MODES))
def test_whatever_the_state_nothing_is_done_without_ground(state: State, mode: Mode, destructive: Mode) -> None:
    decision = decide(state, replace(RULES, mode=mode, destructive_mode=destructive))
    assert all(isinstance(reason, Reason) for reason in decision.reasons)
    assert decision.reasons or decision.next is Next.NONE
    if not acts(decision):
        return
    assert mode is Mode.ACT
    assert state.health in (Health.SICK, Health.MISSING)
    assert state.silenced is False
    assert state.dependency is None
    assert not state.clock_jumped
    assert state.operation is None or state.operation.pending is None
    assert {Reason.PEERS_FINE, Reason.LIVENESS_FAILS} & set(decision.reasons)
    assert decision.number is not None
    assert 1 <= decision.number <= Limits().attempts_per_step
    assert decision.next is not Next.REPLACE or destructive is Mode.ACT
