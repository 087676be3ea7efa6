"""One leader by a lease: the moves as a table, any order of events as a property, and leaders on a real API server."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.config import Lease
from controllers.kubernetes_api import Api, ApiError, Place
from controllers.leases import NEVER, Leader, Move, Record, Seen, move, observed, record_after
from testbed.kube.cluster import Cluster

Json = dict[str, Any]

MINE = Record("me", 15.0, 4, "then")
THEIRS = Record("them", 15.0, 4, "then")
RELEASED = Record("", 1.0, 4, "then")


@pytest.mark.parametrize(
    ("record", "age", "willing", "may_act_until", "expected"),
    [
        pytest.param(None, 0, True, NEVER, Move.CREATE, id="where there is no lease it is created"),
        pytest.param(None, 0, False, NEVER, Move.WAIT, id="but not by a dead worker"),
        pytest.param(MINE, 3, True, 107, Move.RENEW, id="a leader renews"),
        pytest.param(MINE, 99, True, 50, Move.RENEW, id="a leader that was asleep renews what nobody took meanwhile"),
        pytest.param(MINE, 3, False, 107, Move.WAIT, id="a leader whose worker died lets a last write end"),
        pytest.param(MINE, 3, False, 100, Move.RELEASE, id="and then releases"),
        pytest.param(MINE, 3, False, NEVER, Move.RELEASE, id="a leader that stops releases at once"),
        pytest.param(THEIRS, 14, True, NEVER, Move.WAIT, id="a lease that was renewed lately is another's"),
        pytest.param(THEIRS, 15, True, NEVER, Move.WAIT, id="to the last moment"),
        pytest.param(THEIRS, 15.1, True, NEVER, Move.TAKE, id="one that has not changed for its duration is taken"),
        pytest.param(THEIRS, 99, False, NEVER, Move.WAIT, id="but not by a dead worker either"),
        pytest.param(RELEASED, 0, True, NEVER, Move.TAKE, id="a released lease is taken at once"),
    ],
)
def test_moves(record: Record | None, age: float, willing: bool, may_act_until: float, expected: Move) -> None:
    seen = Seen(record, since=100.0 - age)
    assert move(seen, "me", 100.0, willing=willing, may_act_until=may_act_until) is expected


@pytest.mark.parametrize(
    ("before", "record", "since"),
    [
        pytest.param(None, THEIRS, 100.0, id="what is seen first counts from now"),
        pytest.param(Seen(THEIRS, 7.0), THEIRS, 7.0, id="what has not changed counts from when it was first seen"),
        pytest.param(Seen(THEIRS, 7.0), Record("them", 15.0, 4, "later"), 100.0, id="a renewal counts anew"),
        pytest.param(Seen(MINE, 7.0), THEIRS, 100.0, id="another holder counts anew"),
        pytest.param(Seen(THEIRS, 7.0), None, 100.0, id="a lease that was deleted counts anew"),
    ],
)
def test_the_age_of_a_lease_is_counted_by_our_own_clock(before: Seen | None, record: Record, since: float) -> None:
    assert observed(before, record, 100.0) == Seen(record, since)


@pytest.mark.parametrize(
    ("before", "chosen", "expected"),
    [
        pytest.param(None, Move.CREATE, Record("me", 30, 0, "now"), id="the first epoch is 0"),
        pytest.param(MINE, Move.RENEW, Record("me", 30, 4, "now"), id="a renewal is no new epoch"),
        pytest.param(THEIRS, Move.TAKE, Record("me", 30, 5, "now"), id="another holder is a new epoch"),
        pytest.param(RELEASED, Move.TAKE, Record("me", 30, 5, "now"), id="so is one after a release"),
        pytest.param(MINE, Move.RELEASE, Record("", 1, 4, "now"), id="a release keeps the epoch"),
    ],
)
def test_what_the_lease_says_after_a_move(before: Record | None, chosen: Move, expected: Record) -> None:
    assert record_after(Seen(before, 0.0), chosen, "me", 30, "now") == expected


@dataclass
class Store:
    """A Lease in memory that is changed by compare-and-swap, as the API server does."""

    body: Json | None = None
    version: int = 0
    lose_answer: bool = False
    meanwhile: Callable[[], object] | None = None  # happens between somebody's reading and writing

    def read(self, place: Place, until: float) -> Json:
        if self.body is None:
            raise ApiError("not there", status=404)
        return self.body

    def create(self, place: Place, body: Json, until: float) -> Json:
        self._happen()
        if self.body is not None:
            raise ApiError("exists", status=409)
        return self._put(body)

    def replace(self, place: Place, body: Json, until: float) -> Json:
        self._happen()
        if self.body is None or body["metadata"]["resourceVersion"] != self.body["metadata"]["resourceVersion"]:
            raise ApiError("has been modified", status=409)
        return self._put(body)

    def _happen(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()

    def _put(self, body: Json) -> Json:
        self.version += 1
        self.body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        if self.lose_answer:
            self.lose_answer = False
            raise ApiError("no answer", maybe_done=True)
        return self.body


class Clock:
    """A clock that is moved by hand; each leader's own began at another time."""

    now = 0.0

    def since(self, start: float) -> Callable[[], float]:
        return lambda: self.now + start


LEASE = Lease(name="scale", duration_seconds=15)


def leaders_on(store: Store, clock: Clock, names: str, silence_seconds: float = 60.0) -> dict[str, Leader]:
    return {
        name: Leader(
            LEASE, silence_seconds=silence_seconds, identity=name, api=store, clock=clock.since(1000.0 * index)
        )
        for index, name in enumerate(names)
    }


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.sampled_from("abc")),
        st.tuples(st.just("turn amid another's"), st.sampled_from(["ab", "ba", "bc", "ca"])),
        st.tuples(st.just("turn without answer"), st.sampled_from("abc")),
        st.tuples(st.just("works"), st.sampled_from("abc")),
        st.tuples(st.just("time passes"), st.floats(0.1, 20.0)),
        st.tuples(st.just("lease is deleted"), st.just(None)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_whatever_happens_at_most_one_acts_and_epochs_only_grow(actions: list[tuple[str, Any]]) -> None:
    store, clock = Store(), Clock()
    leaders = leaders_on(store, clock, "abc", silence_seconds=30.0)
    acted: list[tuple[str, int]] = []
    deleted = False
    for what, who in actions:
        if what == "turn":
            leaders[who].turn()
        elif what == "turn amid another's":
            store.meanwhile = leaders[who[1]].turn
            leaders[who[0]].turn()
            store.meanwhile = None
        elif what == "turn without answer":
            store.lose_answer = True
            leaders[who].turn()
            store.lose_answer = False
        elif what == "works":
            leaders[who].worked()
        elif what == "time passes":
            clock.now += who
        elif not any(leader.may_act() for leader in leaders.values()):
            store.body, deleted = None, True  # by a person, who looked whether anybody led
        acting = [name for name, leader in leaders.items() if leader.may_act()]
        assert len(acting) <= 1
        for name in acting:
            epoch = leaders[name].tenure.epoch
            assert epoch is not None
            if acted and acted[-1][0] != name and not deleted:
                assert epoch > acted[-1][1]
            deleted = False
            acted.append((name, epoch))


def test_a_leader_acts_for_two_thirds_of_the_lease_and_another_follows_after_all_of_it() -> None:
    store, clock = Store(), Clock()
    a, b = leaders_on(store, clock, "ab").values()
    assert (a.may_act(), a.turn(), b.turn()) == (False, Move.CREATE, Move.WAIT)
    assert (a.may_act(), a.remaining_seconds(), b.may_act()) == (True, 10.0, False)
    clock.now = 9.9
    assert a.may_act()
    clock.now = 10.0
    assert (a.may_act(), a.remaining_seconds(), b.turn()) == (False, 0.0, Move.WAIT)
    clock.now = 15.1
    assert (b.turn(), b.may_act(), b.tenure.epoch) == (Move.TAKE, True, 1)
    assert (a.turn(), a.may_act(), a.tenure.holder) == (Move.WAIT, False, "b")


def test_a_slow_renewal_counts_from_before_it_was_asked_for() -> None:
    store, clock = Store(), Clock()
    (a,) = leaders_on(store, clock, "a").values()
    a.turn()

    def time_passes() -> None:
        clock.now += 4.0

    store.meanwhile = time_passes
    assert (a.turn(), a.remaining_seconds()) == (Move.RENEW, 6.0)


def test_a_leader_that_cannot_renew_acts_on_until_its_time_is_over_and_says_why() -> None:
    store, clock = Store(), Clock()
    (a,) = leaders_on(store, clock, "a").values()
    a.turn()
    clock.now = 5.0
    store.lose_answer = True
    assert (a.turn(), a.remaining_seconds(), a.tenure.problem) == (Move.WAIT, 5.0, "no answer")
    assert (a.turn(), a.remaining_seconds(), a.tenure.problem) == (Move.RENEW, 10.0, None)


@pytest.mark.parametrize("amid_its_turn", [True, False])
def test_a_leader_that_somebody_overtook_stops_at_once(amid_its_turn: bool) -> None:
    store, clock = Store(), Clock()
    a, b = leaders_on(store, clock, "ab").values()
    a.turn()
    assert store.body is not None
    store.body["spec"]["holderIdentity"] = ""  # a person released it by hand
    if amid_its_turn:
        store.meanwhile = b.turn
    else:
        b.turn()
    assert (a.turn(), a.may_act(), b.may_act()) == (Move.WAIT, False, True)


def test_a_dead_worker_loses_the_lease_and_gets_it_back_when_it_works() -> None:
    store, clock = Store(), Clock()
    a, b = leaders_on(store, clock, "ab", silence_seconds=20.0).values()
    a.turn()
    for now in (5.0, 10.0, 15.0, 20.0):
        clock.now = now
        b.worked()
        assert (a.turn(), b.turn()) == (Move.RENEW, Move.WAIT)
    clock.now = 25.0
    b.worked()
    assert (a.turn(), a.may_act()) == (Move.WAIT, True)  # a write may be under way
    clock.now = 30.0
    assert (a.turn(), a.may_act()) == (Move.RELEASE, False)
    assert (a.turn(), b.turn(), b.may_act(), b.tenure.epoch) == (Move.WAIT, Move.TAKE, True, 1)
    b.stop()
    a.worked()
    assert a.turn() is Move.WAIT  # b never ran in its thread, so it released nothing
    clock.now = 46.0
    a.worked()
    assert (a.turn(), a.tenure.epoch) == (Move.TAKE, 2)


def test_what_others_keep_in_the_lease_stays_there() -> None:
    store, clock = Store(), Clock()
    (a,) = leaders_on(store, clock, "a").values()
    a.turn()
    assert store.body is not None
    store.body["spec"]["strategy"] = "OldestEmulationVersion"
    a.turn()
    assert store.body["spec"]["strategy"] == "OldestEmulationVersion"


def test_a_leader_that_stops_in_order_leaves_the_lease_to_whoever_comes() -> None:
    store = Store()
    leader = Leader(Lease(name="scale", duration_seconds=3), silence_seconds=60, identity="a", api=store)
    leader.start()
    assert wait_until(leader.may_act)
    leader.stop()
    assert leader.may_act() is False
    assert store.body is not None
    assert store.body["spec"]["holderIdentity"] == ""


def test_nobody_leads_before_the_lease_was_read() -> None:
    leader = Leader(LEASE, silence_seconds=60, api=Store())
    assert (leader.may_act(), leader.remaining_seconds(), leader.tenure.epoch) == (False, 0.0, None)
    assert leader.may_act(-math.inf) is False


# ---------------------------------------------------------------------------------------- on a real API server

LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}


def lease_of(cluster: Cluster, namespace: str, kubeconfig: Path | None = None) -> Lease:
    return Lease(name="scale", namespace=namespace, kubeconfig=kubeconfig or cluster.kubeconfig, duration_seconds=3)


@contextmanager
def running(*leaders: Leader) -> Iterator[None]:
    for leader in leaders:
        leader.start()
    try:
        yield
    finally:
        for leader in leaders:
            leader.stop()


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


@pytest.mark.real
def test_of_two_one_acts_and_the_other_follows_at_once_when_it_stops(
    kube_cluster: Cluster, kube_namespace: str
) -> None:
    kubeconfig = kube_cluster.service_account(kube_namespace, "scaler", [LEASES])
    lease = lease_of(kube_cluster, kube_namespace, kubeconfig)
    a, b = (Leader(lease, silence_seconds=60, identity=name) for name in "ab")
    with running(a, b):
        assert wait_until(lambda: a.may_act() or b.may_act())
        first, second = (a, b) if a.may_act() else (b, a)
        for _ in range(20):
            assert (first.may_act(), second.may_act()) == (True, False)
            time.sleep(0.05)
        assert (first.tenure.epoch, second.tenure.holder) == (0, first.identity)
        first.stop()
        assert first.may_act() is False
        assert wait_until(second.may_act, 2.0)  # well before the lease would have run out
        assert second.tenure.epoch == 1


@pytest.mark.real
def test_a_worker_that_died_in_a_living_process_gives_its_lease_away(
    kube_cluster: Cluster, kube_namespace: str
) -> None:
    lease = lease_of(kube_cluster, kube_namespace)
    a = Leader(lease, silence_seconds=1.0, identity="a")
    b = Leader(lease, silence_seconds=60, identity="b")
    with running(a):
        assert wait_until(a.may_act)
        with running(b):
            assert wait_until(b.may_act)
            assert a.may_act() is False
            assert b.tenure.epoch == 1


OTHER_PROCESS = """
import json, sys
answers, sys.stdout = sys.stdout, sys.stderr  # where the log goes
from controllers.config import Lease
from controllers.leases import Leader
leader = Leader(Lease.model_validate_json(sys.argv[1]), silence_seconds=60, identity="other")
leader.start()
for line in sys.stdin:
    print(json.dumps([leader.may_act(), leader.tenure.epoch]), file=answers, flush=True)
"""


@pytest.mark.real
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_leader_that_was_killed_or_stopped_past_its_lease_is_followed_and_deposed(
    kube_cluster: Cluster, kube_namespace: str, how: signal.Signals
) -> None:
    lease = lease_of(kube_cluster, kube_namespace)
    command = [sys.executable, "-c", OTHER_PROCESS, lease.model_dump_json()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def asked() -> list[Any]:
            other.stdin.write("\n")
            other.stdin.flush()
            return json.loads(other.stdout.readline())

        try:
            assert wait_until(lambda: asked() == [True, 0])
            os.kill(other.pid, how)
            stopped_at = time.monotonic()
            leader = Leader(lease, silence_seconds=60, identity="me")
            with running(leader):
                assert wait_until(leader.may_act)
                assert time.monotonic() - stopped_at > 2.0  # not before what is left of its lease is over
                assert leader.tenure.epoch == 1
                if how is signal.SIGSTOP:
                    os.kill(other.pid, signal.SIGCONT)
                    assert asked()[0] is False  # from its first moment on
                    assert wait_until(lambda: asked() == [False, 1])
                    assert leader.may_act()
        finally:
            other.kill()


@pytest.mark.real
def test_without_the_api_server_nobody_acts_for_long_and_with_it_somebody_does_again(
    kube_cluster: Cluster, kube_namespace: str
) -> None:
    leader = Leader(lease_of(kube_cluster, kube_namespace), silence_seconds=600)
    with running(leader):
        assert wait_until(leader.may_act)
        with kube_cluster.outage():
            assert wait_until(lambda: not leader.may_act(), 4.0)
            assert leader.tenure.problem is not None
        assert wait_until(leader.may_act)
        assert leader.tenure.problem is None


@pytest.mark.real
def test_without_the_right_nobody_acts_and_the_problem_names_it(kube_cluster: Cluster, kube_namespace: str) -> None:
    kubeconfig = kube_cluster.service_account(kube_namespace, "reader", [{**LEASES, "verbs": ["get"]}])
    lease = lease_of(kube_cluster, kube_namespace, kubeconfig)
    leader = Leader(lease, silence_seconds=60, api=Api(lease))
    assert (leader.turn(), leader.may_act()) == (Move.WAIT, False)
    expected = f"may not create leases in API group coordination.k8s.io in namespace {kube_namespace} (403)"
    assert expected in str(leader.tenure.problem)
