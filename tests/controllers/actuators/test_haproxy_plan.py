"""What is next for the servers of a backend: a table for each situation, and what holds in all of them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.actuators.haproxy_plan import (
    ATTEMPTS,
    REST_SECONDS,
    Block,
    Entry,
    Failure,
    Preference,
    Role,
    Seen,
    Situation,
    Slot,
    Step,
    Verb,
    conflict,
    counted,
    given_up,
    plan,
    slot_of,
    without,
)

NOW = 1_800_000_000.0
POOL = tuple(slot_of("tidewise-", "10.0.0.5", port) for port in range(8000, 8004))
A, B, C, D = POOL
MINE = Slot("mine", "10.0.0.9", 80)
READY, DRAINING, CHECKING, DOWN, MAINTENANCE = (
    {"running": True, "passed": True},
    {"running": True, "passed": True, "draining": True},
    {"draining": True},
    {},
    {"maintenance": True},
)


def seen(slot: Slot, state: dict[str, bool], sessions: int = 0) -> Seen:
    flags = {"maintenance": False, "draining": False, "running": False, "passed": False} | state
    return Seen(slot, sessions=sessions, **flags)  # type: ignore[arg-type]


def situation(*entries: Entry, has: list[Seen] | None = None, **changes: object) -> Situation:
    one = Situation(
        block=Block(entries),
        seen={one.slot.name: one for one in has or []},
        pool=POOL,
        prefix="tidewise-",
        now=NOW,
        uptime_seconds=3600.0,
        ready_seconds=60.0,
        drain_seconds=30.0,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def starting(slot: Slot, ago: float = 5.0) -> Entry:
    return Entry(slot, Role.STARTING, NOW - ago)


def serving(slot: Slot, ago: float = 500.0) -> Entry:
    return Entry(slot, Role.SERVING, NOW - ago)


def leaving(slot: Slot, ago: float = 5.0) -> Entry:
    return Entry(slot, Role.LEAVING, NOW - ago)


def verbs(steps: tuple[Step, ...]) -> list[str]:
    """'add server 8000', and for a write the roles that are written."""
    found = []
    for step in steps:
        if step.block is not None:
            found.append("write " + " ".join(f"{one.slot.port}:{one.role}" for one in step.block.entries))
        elif step.slot is not None:
            found.append(f"{step.verb.value} {step.slot.port}")
    return [text.strip() for text in found]


BEGIN_DRAIN = ["write 8000:serving 8001:leaving", "drain 8001"]


@pytest.mark.parametrize(
    ("now", "wanted", "expected"),
    [
        pytest.param(situation(), 0, [], id="nothing is wanted and nothing is there"),
        pytest.param(
            situation(),
            2,
            ["add server 8000", "add server 8001", "write 8000:starting 8001:starting"],
            id="HAProxy takes a server before the file has it",
        ),
        pytest.param(
            situation(starting(A), has=[seen(A, MAINTENANCE)]),
            1,
            ["start 8000", "enable health 8000", "drain 8000"],
            id="what is written and added is started, and checked without requests",
        ),
        pytest.param(situation(starting(A), has=[seen(A, CHECKING)]), 1, [], id="its check is waited for"),
        pytest.param(
            situation(starting(A), has=[seen(A, DRAINING)]),
            1,
            ["ready 8000", "write 8000:serving"],
            id="its check has passed: requests first, then the file",
        ),
        pytest.param(
            situation(starting(A), has=[seen(A, READY)]),
            1,
            ["ready 8000", "write 8000:serving"],
            id="a call ended between the two: both again",
        ),
        pytest.param(
            situation(starting(A, ago=61), has=[seen(A, CHECKING)]),
            None,
            ["write 8000:leaving"],
            id="it never got healthy: it leaves",
        ),
        pytest.param(
            situation(starting(A)), None, ["add server 8000"], id="HAProxy was reloaded with a file from before"
        ),
        pytest.param(situation(serving(A), has=[seen(A, DOWN)]), 1, [], id="a server that is down is not replaced"),
        pytest.param(
            situation(serving(A)),
            1,
            ["write 8000:starting", "add server 8000"],
            id="a server that HAProxy has lost comes back",
        ),
        pytest.param(
            situation(serving(A), has=[seen(A, MAINTENANCE)]), 1, [], id="what somebody set to maint by hand stays so"
        ),
        pytest.param(
            situation(serving(A, ago=3), has=[seen(A, MAINTENANCE)], uptime_seconds=2.0),
            1,
            ["write 8000:starting", "start 8000", "enable health 8000", "drain 8000"],
            id="a reload read the file just before it was written that it serves",
        ),
        pytest.param(
            situation(serving(A), serving(B), has=[seen(A, READY, 3), seen(B, READY, 2)]),
            1,
            BEGIN_DRAIN,
            id="the one with fewer sessions goes, the file first",
        ),
        pytest.param(
            situation(serving(A), serving(B), has=[seen(A, READY, 2), seen(B, READY, 2)]),
            1,
            BEGIN_DRAIN,
            id="of equals the last of the pool goes",
        ),
        pytest.param(
            situation(serving(A), serving(B), has=[seen(A, DOWN, 0), seen(B, READY, 0)]),
            1,
            ["write 8000:leaving 8001:serving", "drain 8000"],
            id="one that is down goes before an idle one",
        ),
        pytest.param(
            situation(serving(A), starting(B), has=[seen(A, READY, 0), seen(B, CHECKING)]),
            1,
            ["write 8000:serving 8001:leaving"],
            id="one that never served goes before an idle one",
        ),
        pytest.param(
            situation(leaving(A), has=[seen(A, READY)]), None, ["drain 8000"], id="a call ended before it told HAProxy"
        ),
        pytest.param(situation(leaving(A), has=[seen(A, DRAINING, 1)]), None, [], id="a session is waited for"),
        pytest.param(
            situation(leaving(A, ago=0.5), has=[seen(A, DRAINING)]),
            None,
            [],
            id="a request that chose it a moment ago is not a session yet",
        ),
        pytest.param(
            situation(leaving(A), has=[seen(A, DRAINING)]), None, ["maint 8000", "del server 8000"], id="none is left"
        ),
        pytest.param(
            situation(leaving(A), has=[seen(A, DRAINING)], uptime_seconds=10.0),
            None,
            [],
            id="none is left here, but an older process may have some",
        ),
        pytest.param(
            situation(leaving(A), has=[seen(A, MAINTENANCE)], uptime_seconds=3.0),
            None,
            ["drain 8000"],
            id="a reload has made it disabled: it drains on",
        ),
        pytest.param(
            situation(leaving(A), has=[seen(A, MAINTENANCE)]), None, ["del server 8000"], id="it had connections: again"
        ),
        pytest.param(
            situation(leaving(A, ago=31), has=[seen(A, DRAINING, 1)]),
            None,
            ["maint 8000", "shutdown sessions 8000", "del server 8000"],
            id="its time is over: what is left is ended",
        ),
        pytest.param(situation(leaving(A)), None, ["stop 8000"], id="HAProxy has it no more: its program is stopped"),
        pytest.param(
            situation(leaving(A), serving(B), has=[seen(A, DRAINING), seen(B, READY)]),
            2,
            ["ready 8000", "write 8000:serving 8001:serving"],
            id="one that drains is taken back",
        ),
        pytest.param(
            situation(leaving(A), has=[seen(A, MAINTENANCE)]),
            1,
            ["add server 8001", "write 8000:leaving 8001:starting", "del server 8000"],
            id="one that is gone already is not",
        ),
        pytest.param(
            situation(has=[seen(A, MAINTENANCE)]), 0, ["del server 8000"], id="a call ended before it was written down"
        ),
        pytest.param(
            situation(has=[seen(A, MAINTENANCE)]),
            1,
            ["write 8000:starting", "start 8000", "enable health 8000", "drain 8000"],
            id="the same, and it is wanted",
        ),
        pytest.param(
            situation(has=[seen(A, READY, 4), seen(B, DRAINING, 1)]),
            None,
            ["write 8000:serving 8001:leaving"],
            id="somebody put an older file back: what takes requests is written again",
        ),
        pytest.param(
            situation(has=[seen(MINE, READY, 4), seen(Slot("tidewise-x", "10.0.0.5", 1), READY)]),
            0,
            [],
            id="servers of the user's own are left alone, even with a name that begins like ours",
        ),
        pytest.param(
            situation(has=[seen(Slot("mine", A.host, A.port), READY)]),
            1,
            ["add server 8001", "write 8001:starting"],
            id="an address that the user's own server has is left to it",
        ),
        pytest.param(
            situation(leaving(A, ago=-600), has=[seen(A, DRAINING)]),
            None,
            ["write 8000:leaving"],
            id="the clock was set back: its time begins now",
        ),
        pytest.param(
            situation(serving(slot_of("tidewise-", "10.0.0.7", 80)), serving(A), has=[seen(A, READY)]),
            1,
            ["write 80:leaving 8000:serving", "stop 80"],
            id="one that is in `servers` no more goes first",
        ),
    ],
)
def test_what_is_next(now: Situation, wanted: int | None, expected: list[str]) -> None:
    assert verbs(plan(now, wanted).steps) == expected


def test_who_is_named_goes_first_and_then_the_idlest_as_measured() -> None:
    now = situation(*map(serving, POOL), has=[seen(slot, READY, 9 - n) for n, slot in enumerate(POOL)])

    def left(wanted: int, prefer: Preference) -> list[int]:
        (block,) = [step.block for step in plan(now, wanted, prefer).steps if step.block]
        return [entry.slot.port for entry in block.entries if entry.role is Role.LEAVING]

    assert left(3, Preference()) == [D.port]  # the fewest sessions
    assert left(3, Preference(victims=(A.name,))) == [A.port]
    assert left(2, Preference(victims=(B.address, "gone"))) == [B.port, D.port]
    assert left(2, Preference(in_hand={A.name: 0.0, B.address: 1.0, C.name: 5.0, D.name: 5.0})) == [A.port, B.port]


def test_a_start_that_failed_is_counted_and_rests_after_a_few() -> None:
    block = Block((starting(A),))
    for attempt in range(1, ATTEMPTS + 1):
        block = given_up(block, A, NOW)
        assert block.failures == (Failure(A.name, attempt, NOW),)
        assert [entry.role for entry in block.entries] == [Role.LEAVING]
    now = situation(pool=(A,), block=without(block, A))
    assert plan(now, 1).steps == ()
    assert plan(replace(now, now=NOW + REST_SECONDS + 1), 1).steps
    # others, that never failed, come first
    assert verbs(plan(situation(block=Block(failures=(Failure(A.name, 1, NOW),))), 1).steps)[0] == "add server 8001"
    # after a rest, and after a success, the count begins anew
    assert given_up(block, A, NOW + REST_SECONDS + 1).failures[0].count == 1
    healthy = situation(block=Block((starting(A),), block.failures), has=[seen(A, DRAINING)])
    assert [step.block.failures for step in plan(healthy).steps if step.block] == [()]


def test_a_name_with_another_address_is_a_conflict() -> None:
    other = Slot(A.name, "10.0.0.6", 8000)
    assert conflict(situation(has=[seen(other, READY)])) == (A, other)
    assert conflict(situation(serving(A), has=[seen(A, READY), seen(MINE, READY)])) is None


def test_what_is_counted() -> None:
    now = situation(
        serving(A), serving(B), starting(C), leaving(D),
        has=[seen(A, READY), seen(B, DOWN), seen(C, CHECKING), seen(D, DRAINING, 1), seen(MINE, READY)],
    )  # fmt: skip
    assert counted(now) == (3, 1, 1, True)
    assert counted(situation(serving(A), has=[seen(A, READY)])) == (1, 1, 0, False)


states = st.sampled_from([READY, DRAINING, CHECKING, DOWN, MAINTENANCE])
servers = st.tuples(st.sampled_from(POOL), states, st.integers(0, 3))
roles = st.tuples(st.sampled_from(POOL), st.sampled_from(Role), st.floats(-100, 1000))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    entries = draw(st.lists(roles, unique_by=lambda one: one[0]))
    has = draw(st.lists(servers, unique_by=lambda one: one[0]))
    failed = draw(st.lists(st.sampled_from(POOL), unique=True))
    failures = tuple(Failure(slot.name, draw(st.integers(1, 4)), NOW - draw(st.floats(0, 1000))) for slot in failed)
    return situation(
        block=Block(tuple(Entry(slot, role, NOW - ago) for slot, role, ago in entries), failures),
        has=[*(seen(*one) for one in has), seen(MINE, READY, 5)],
        uptime_seconds=draw(st.floats(0, 5000)),
        drain_seconds=draw(st.sampled_from([1.0, 30.0])),
    )


@given(situations(), st.integers(0, 5))
def test_no_request_is_lost_by_any_step_and_nobody_elses_server_is_named(now: Situation, wanted: int) -> None:
    there = dict(now.seen)
    for step in plan(now, wanted).steps:
        assert step.slot is None or step.slot.name.startswith("tidewise-")
        if step.slot is None:
            continue
        server = there.get(step.slot.name)
        if step.verb is Verb.STOP:
            assert server is None  # HAProxy knows it no more
        if step.verb in (Verb.DELETE, Verb.MAINTENANCE) and server is not None and not server.maintenance:
            over = any(
                entry.slot == step.slot and NOW - entry.since >= now.drain_seconds for entry in now.block.entries
            )
            assert server.draining
            assert server.sessions == 0 or over
        if step.verb is Verb.READY:
            assert server is not None
            assert server.running
            assert server.passed


@given(situations(), st.integers(0, 4))
@settings(max_examples=200)
def test_from_anywhere_it_gets_there_and_then_rests(now: Situation, wanted: int) -> None:
    """A world that does what it is told, with time that passes between two calls."""
    now = replace(now, block=replace(now.block, failures=()))
    for _ in range(12):
        now = _carried_out(now, plan(now, wanted).steps)
        now = replace(now, now=now.now + 31.0, uptime_seconds=now.uptime_seconds + 31.0)
    last = plan(now, wanted)
    assert (last.steps, last.starting, last.draining) == ((), (), ())
    assert {entry.role for entry in now.block.entries} <= {Role.SERVING}
    assert len(now.block.entries) == wanted
    assert {one for one in now.seen if one != MINE.name} == {entry.slot.name for entry in now.block.entries}


def _carried_out(now: Situation, steps: tuple[Step, ...]) -> Situation:
    there, block = dict(now.seen), now.block
    for step in steps:
        if step.block is not None:
            block = step.block
        if step.slot is None:
            continue
        slot, before = step.slot, there.get(step.slot.name)
        match step.verb:
            case Verb.ADD:
                assert before is None
                there[slot.name] = seen(slot, MAINTENANCE)
            case Verb.DRAIN:
                there[slot.name] = seen(slot, DRAINING)
            case Verb.READY:
                there[slot.name] = seen(slot, READY)
            case Verb.MAINTENANCE:
                there[slot.name] = seen(slot, MAINTENANCE)
            case Verb.DELETE:
                assert before is not None
                assert before.maintenance
                del there[slot.name]
            case Verb.STOP:
                block = without(block, slot)
            case _:
                pass
    waits = {name: replace(one, running=True, passed=True) for name, one in there.items() if not one.maintenance}
    served = {name: replace(one, sessions=0) for name, one in (there | waits).items()}
    return replace(now, seen=served, block=block)
