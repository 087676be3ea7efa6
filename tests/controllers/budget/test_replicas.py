"""Time holds: what a running instance costs is held ahead, posted as it runs, and never lost or freed early."""

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controllers.budget import rows
from controllers.budget.decide import Ask, Floor, Limit, Rules, admit
from controllers.budget.ledger import Ledger
from controllers.budget.periods import bounds
from controllers.budget.replicas import Extra, TimePrice, hold_time, release, withdraw
from controllers.budget.transitions import ConflictError, UnknownHoldError
from controllers.budget.words import MICRO, Answer, BudgetReason, Cost, Entry, Level, Scope, Standing, State, Verdict

Open = Callable[..., Ledger]

SEOUL = ZoneInfo("Asia/Seoul")
NOW = datetime(2026, 11, 22, 12, tzinfo=SEOUL).timestamp()
WON_A_SECOND = TimePrice(Cost(3600 * MICRO, "{}", 3600 * MICRO, "KRW"), 40.0, 60.0, 100.0, 200.0)
FIRST = 40 + 60 + 100 + 200
AGAIN = 100 + 200
NAME = "default/video"


class Fleet:
    """Instances on a ledger, at one won a second, a TTL of 100 s and a grace of 200 s."""

    def __init__(self, ledger: Ledger, limit: float = 10_000, price: TimePrice = WON_A_SECOND) -> None:
        self.ledger, self.price = ledger, price
        floors = {NAME: Floor(price.floor_replicas, price.hourly.amount, price.first_seconds)}
        self.rules = Rules((Limit("usage", int(limit * MICRO), False),), "KRW", floors if price.floor_replicas else {})

    def admit(self, standing: Standing, extra: Extra) -> Verdict:
        ask = Ask(extra.amount, floor_workload=NAME if extra.floor else "", floor_amount=extra.floor_amount,
                  renewal=extra.renewal)  # fmt: skip
        return admit(standing, ask, self.rules, Level.NORMAL)

    def ask(self, seconds: float, instance: str = "0", running: bool = False) -> Answer:
        scope = Scope(workload=NAME)
        return self.ledger.write(
            lambda db, at: hold_time(db, at, scope, instance, self.price, running, self.admit), NOW + seconds
        )

    def stop(self, seconds: float, instance: str = "0") -> None:
        minimum = self.price.minimum_seconds
        self.ledger.write(lambda db, at: release(db, at, NAME, instance, minimum), NOW + seconds)

    def withdraw(self, seconds: float, hold: str | None = None, instance: str = "0") -> Answer | None:
        return self.ledger.write(lambda db, at: withdraw(db, at, NAME, instance, hold), NOW + seconds)

    def totals(self, seconds: float = 0) -> tuple[float, float]:
        at = self.ledger.standing(NOW + seconds)
        return at.posted / MICRO, at.held / MICRO


def rows_of(fleet: Fleet) -> list[Entry]:
    hold_id = fleet.ledger.read(lambda db: db.execute("SELECT hold_id FROM entry ORDER BY id LIMIT 1").fetchone()[0])
    return fleet.ledger.read(lambda db: rows.chain(db, hold_id))


@pytest.fixture
def fleet(open_ledger: Open) -> Fleet:
    return Fleet(open_ledger())


def test_an_admission_holds_lead_time_minimum_ttl_and_grace(fleet: Fleet) -> None:
    answer = fleet.ask(0)
    assert answer.entry is not None
    assert (answer.verdict.reason, answer.entry.until) == (BudgetReason.GRANTED, NOW + FIRST)
    assert fleet.totals() == (0, FIRST)


@pytest.mark.parametrize(
    ("sentence", "asked", "posted", "held"),
    [
        ("within a TTL the same answer again", [1, 50, 99], 0, FIRST),
        ("after one TTL the time is posted and the next is held", [100], 100, AGAIN),
        ("the next one counts from there", [100, 150, 199], 100, AGAIN),
        ("and again", [100, 200], 200, AGAIN),
        ("a renewal that comes late still in the grace", [390], 390, AGAIN),
    ],
)
def test_renewals(fleet: Fleet, sentence: str, asked: list[float], posted: float, held: float) -> None:
    fleet.ask(0)
    for seconds in asked:
        assert fleet.ask(seconds, running=True).verdict.allowed
    assert fleet.totals(asked[-1]) == (posted, held), sentence


def test_the_rest_of_the_minimum_is_held_on_a_renewal_within_it(open_ledger: Open) -> None:
    fleet = Fleet(open_ledger(), price=TimePrice(WON_A_SECOND.hourly, 0.0, 3600.0, 100.0, 200.0))
    fleet.ask(0)
    fleet.ask(600, running=True)
    assert fleet.totals(600) == (600, 3000 + AGAIN)


@pytest.mark.parametrize(
    ("sentence", "asked", "stopped", "posted"),
    [
        ("stopped at once: the minimum is billed", [], 1, 60),
        ("stopped later: what it ran", [], 90, 90),
        ("after a renewal: the rest", [100], 130, 130),
        ("stopped twice: once", [100], 130, 130),
        ("stopped after its hold expired: in full", [], FIRST + 50, FIRST),
    ],
)
def test_a_stop_posts_what_it_ran(
    fleet: Fleet, sentence: str, asked: list[float], stopped: float, posted: float
) -> None:
    fleet.ask(0)
    for seconds in asked:
        fleet.ask(seconds, running=True)
    fleet.stop(stopped)
    if "twice" in sentence:
        fleet.stop(stopped + 10)
    assert fleet.totals(stopped) == (posted, 0), sentence


def test_a_slot_is_used_again_after_its_instance_stopped(fleet: Fleet) -> None:
    fleet.ask(0)
    fleet.stop(90)
    assert not fleet.ask(91).repeated
    assert fleet.totals(91) == (90, FIRST)


def test_nobody_renews_so_it_is_posted_in_full(fleet: Fleet) -> None:
    fleet.ask(0)
    assert fleet.ledger.expire(NOW + FIRST - 1) == 0
    assert fleet.ledger.expire(NOW + FIRST) == 1
    assert fleet.totals(FIRST) == (FIRST, 0)


@pytest.mark.parametrize("swept", [False, True])
def test_an_instance_that_ran_on_without_a_hold_is_billed_for_the_gap(fleet: Fleet, swept: bool) -> None:
    fleet.ask(0)
    if swept:
        fleet.ledger.expire(NOW + 900)
    assert fleet.ask(1000, running=True).verdict.allowed
    assert fleet.totals(1000) == (1000, AGAIN)


def test_a_new_instance_in_the_slot_of_a_forgotten_one_is_not_billed_for_the_gap(fleet: Fleet) -> None:
    fleet.ask(0)
    fleet.ledger.expire(NOW + 900)
    fleet.ask(1000)
    assert fleet.totals(1000) == (FIRST, FIRST)


def test_an_instance_nobody_knew_is_taken_over_without_lead_time_or_minimum(fleet: Fleet) -> None:
    fleet.ask(0, running=True)
    assert fleet.totals() == (0, AGAIN)
    fleet.ask(100, running=True)
    assert fleet.totals(100) == (100, AGAIN)


def test_a_refused_renewal_leaves_the_hold_that_pays_for_draining(open_ledger: Open) -> None:
    fleet = Fleet(open_ledger(), limit=FIRST)
    fleet.ask(0)
    assert fleet.ask(90, running=True).verdict.allowed
    assert fleet.ask(100, running=True).verdict.allowed  # 100 posted and 300 held: to the last won
    refused = fleet.ask(200, running=True)
    assert (refused.verdict.allowed, refused.verdict.reason) == (False, BudgetReason.OVER_LIMIT)
    assert refused.entry is not None
    assert refused.entry.until == NOW + 100 + AGAIN
    assert fleet.totals(200) == (100, AGAIN)
    fleet.stop(260)
    assert fleet.totals(260) == (260, 0)


def test_a_gap_is_billed_even_when_the_next_hold_is_refused_and_never_twice(open_ledger: Open) -> None:
    fleet = Fleet(open_ledger(), limit=FIRST + 100)
    fleet.ask(0)
    for seconds in (600, 600, 700):
        assert not fleet.ask(seconds, running=True).verdict.allowed
    assert fleet.totals(700) == (700, 0)  # more than the limit: it was run, so it was spent


def test_instances_are_admitted_up_to_the_limit(open_ledger: Open) -> None:
    fleet = Fleet(open_ledger(), limit=2.5 * FIRST)
    granted = [fleet.ask(0, str(n)).verdict.allowed for n in range(4)]
    assert granted == [True, True, False, False]


def test_committed_replicas_are_held_from_what_is_owed_for_them(open_ledger: Open) -> None:
    _, end = bounds("2026-11", SEOUL)
    price = TimePrice(WON_A_SECOND.hourly, 40.0, 60.0, 100.0, 200.0, floor_replicas=1)
    limit = end - NOW + price.first_seconds + 100
    fleet = Fleet(open_ledger(), limit=limit, price=price)
    assert fleet.ask(0, "0").entry.floor  # type: ignore[union-attr]
    assert not fleet.ask(0, "1").verdict.allowed  # only 100 won are free
    for step in range(1, 30):
        assert fleet.ask(step * 100.0, "0", running=True).verdict.allowed, step
    fleet.stop(2950, "0")
    assert fleet.ask(2960, "1").entry.floor  # type: ignore[union-attr]  # another instance takes its place


def test_a_renewal_over_midnight_posts_to_the_old_month_and_holds_in_the_new_one(open_ledger: Open) -> None:
    _, end = bounds("2026-11", SEOUL)
    fleet = Fleet(open_ledger(), limit=500)
    before = end - NOW - 50
    fleet.ask(before)
    assert fleet.ask(before + 100, running=True).verdict.allowed
    assert fleet.totals(before + 100) == (0, AGAIN)
    old = fleet.ledger.read(
        lambda db: db.execute("SELECT posted, held FROM period_total WHERE period = '2026-11'").fetchone()
    )
    assert old == (100 * MICRO, 0)


def test_what_was_provably_never_started_is_given_back_once(fleet: Fleet) -> None:
    fleet.ask(0)
    first, again = fleet.withdraw(10), fleet.withdraw(20)
    assert first is not None
    assert again is not None
    assert first.entry is not None
    assert (first.entry.state, again.entry, again.repeated) == (State.VOIDED, first.entry, True)
    assert fleet.totals(20) == (0, 0)
    assert not fleet.ask(30).repeated  # the slot is free for another try
    assert fleet.totals(30) == (0, FIRST)


def test_proof_that_comes_after_the_expiry_takes_the_posted_hold_back(fleet: Fleet) -> None:
    fleet.ask(0)
    fleet.ledger.expire(NOW + FIRST)
    answer = fleet.withdraw(FIRST + 60)
    assert answer is not None
    assert answer.entry is not None
    assert answer.entry.state is State.TRUED
    assert fleet.totals(FIRST + 60) == (0, 0)


def test_a_void_that_comes_late_does_not_free_the_next_hold_of_its_slot(fleet: Fleet) -> None:
    first, _, _ = fleet.ask(0).entry, fleet.withdraw(10), fleet.ask(20)
    assert first is not None
    late = fleet.withdraw(30, first.hold_id)
    assert late is not None
    assert late.repeated
    assert fleet.totals(30) == (0, FIRST)


@pytest.mark.parametrize("sentence", ["it was renewed", "it was taken over while it ran", "it was released"])
def test_what_has_run_cannot_be_voided(open_ledger: Open, sentence: str) -> None:
    price = TimePrice(WON_A_SECOND.hourly, 40.0, 0.0, 100.0, 200.0)
    fleet = Fleet(open_ledger(), price=price)
    fleet.ask(0, running="taken over" in sentence)
    if sentence == "it was renewed":
        fleet.ask(100, running=True)
    if sentence == "it was released":
        fleet.stop(50)
    before = fleet.totals(110)
    for hold in (None, rows_of(fleet)[0].hold_id):
        with pytest.raises(ConflictError):
            fleet.withdraw(110, hold)
    assert fleet.totals(110) == before


@pytest.mark.parametrize("gap", [0, 100])
def test_what_ran_on_after_its_hold_expired_cannot_be_voided(fleet: Fleet, gap: float) -> None:
    first = fleet.ask(0).entry
    assert first is not None
    fleet.ask(FIRST + gap, running=True)
    before = fleet.totals(FIRST + gap)
    for hold in (None, first.hold_id):
        with pytest.raises(ConflictError, match="ran before this hold or beyond it"):
            fleet.withdraw(FIRST + gap + 1, hold)
    assert fleet.totals(FIRST + gap) == before


def test_no_hold_and_the_hold_of_another(fleet: Fleet) -> None:
    assert fleet.withdraw(0) is None
    entry = fleet.ask(0).entry
    assert entry is not None
    with pytest.raises(UnknownHoldError, match=r"this is no hold of default/video/1"):
        fleet.withdraw(1, entry.hold_id, "1")
    assert fleet.totals(1) == (0, FIRST)


def test_a_later_price_does_not_reprice_what_is_held(fleet: Fleet) -> None:
    fleet.ask(0)
    fleet.price = TimePrice(Cost(7200 * MICRO), 40.0, 60.0, 100.0, 200.0)
    fleet.ask(100, running=True)
    assert fleet.totals(100) == (100, 2 * AGAIN)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["run", "stop", "sweep"]), st.integers(1, 500)), max_size=25))
def test_what_is_posted_is_what_was_run(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]) -> None:
    """Any mixture of renewals, silences, sweeps and stops: time is billed once, whole, and never below the minimum."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "l.sqlite", "KRW", SEOUL)
    try:
        fleet, now, begun, billed = Fleet(ledger, limit=1e6), 0.0, None, 0.0
        for what, later in steps:
            now += later
            if what == "run":
                if begun is None:
                    begun = now
                    fleet.ask(now)
                else:
                    fleet.ask(now, running=True)
            elif what == "stop" and begun is not None:
                last = ledger.read(lambda db: rows.last_of_instance(db, NAME, "0"))
                assert last is not None
                # a stop after the hold expired is dated by its end: nobody saw it run any longer
                over = last.state is State.EXPIRED_POSTED or now + NOW >= (last.until or 0)
                end = (last.until or 0) - NOW if over else max(now, begun + 60)
                billed, begun = billed + end - begun, None
                fleet.stop(now)
            elif what == "sweep":
                ledger.expire(NOW + now)
        posted, held = fleet.totals(now)
        if begun is None:
            assert (posted, held) == (pytest.approx(billed, abs=0.001), 0)
        else:
            assert posted + held >= billed + now - begun - 0.001 or held == 0
    finally:
        ledger.close()
