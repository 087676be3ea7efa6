"""The ledger on a real file: transitions, identity, months, totals; what is wrong with a file is said at start."""

import random
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controllers.budget import rows
from controllers.budget.decide import Ask, Limit, Rules, admit
from controllers.budget.ledger import Ledger
from controllers.budget.periods import bounds
from controllers.budget.schema import EQUATIONS, LedgerCorruptError, LedgerError, LedgerUnavailableError
from controllers.budget.transitions import ConflictError, UnknownHoldError
from controllers.budget.words import LARGEST, MICRO, BudgetReason, Cost, Level, Scope, Standing, State, Verdict

Open = Callable[..., Ledger]

SEOUL = ZoneInfo("Asia/Seoul")
NOW = datetime(2026, 11, 22, 12, tzinfo=SEOUL).timestamp()
SCOPE = Scope("google", "ocr", "gemini-2.5-flash", "n8n-7", "default/video")


def yes(standing: Standing) -> Verdict:
    return Verdict(True, BudgetReason.GRANTED)


def cost(won: float) -> Cost:
    return Cost(int(won * MICRO), '{"input_tokens": 5}', int(won * 700), "USD", "genai-prices 0.2.3", "ecb", "1400")


def within(rules: Rules, amount: int) -> Callable[[Standing], Verdict]:
    """The real decision on an amount."""
    return lambda standing: admit(standing, Ask(amount), rules, Level.NORMAL)


def hold(ledger: Ledger, event: str = "e1", won: float = 10, now: float = NOW, seconds: float = 900) -> str:
    answer = ledger.hold(event, f"body of {event}", SCOPE, cost(won), seconds, now, yes)
    assert answer.entry is not None
    return answer.entry.hold_id


def totals(ledger: Ledger, now: float = NOW) -> tuple[float, float]:
    found = ledger.standing(now)
    return found.posted / MICRO, found.held / MICRO


def agrees(ledger: Ledger) -> bool:
    """Whether every total equals the sum of its rows."""
    return all(
        ledger.read(lambda db, a=a, b=b: db.execute(a).fetchall() == db.execute(b).fetchall())  # type: ignore[misc]
        for _, a, b in EQUATIONS
    )


def test_a_hold_keeps_everything_that_its_amount_came_from(open_ledger: Open) -> None:
    ledger = open_ledger()
    hold(ledger)
    entry = ledger.find("e1")
    assert (entry.state, entry.scope, entry.cost, entry.period) == (State.HELD, SCOPE, cost(10), "2026-11")
    assert (entry.held, entry.posted, entry.until) == (10 * MICRO, 0, NOW + 900)
    assert totals(ledger) == (0, 10)


@pytest.mark.parametrize(
    ("sentence", "steps", "posted", "held"),
    [
        ("settled below its hold", ["settle 4"], 4, 0),
        ("settled above it, which is a fact", ["settle 14"], 14, 0),
        ("given back", ["void"], 0, 0),
        ("nobody settled: spent in full", ["expire"], 10, 0),
        ("an early sweep takes nothing", ["sweep"], 0, 10),
        ("settled after it expired: taken back and trued", ["expire", "settle 4"], 4, 0),
        ("given back after it expired", ["expire", "void"], 0, 0),
        ("settled after its time, before anybody swept", ["late settle 4"], 4, 0),
        ("settled twice in the same way", ["settle 4", "settle 4"], 4, 0),
        ("expired once, however often one sweeps", ["expire", "expire"], 10, 0),
    ],
)
def test_ways_of_a_hold(open_ledger: Open, sentence: str, steps: list[str], posted: float, held: float) -> None:
    ledger = open_ledger()
    hold(ledger)
    for step in steps:
        match step.split():
            case ["settle", won]:
                ledger.settle("e1", "settled", cost(float(won)), NOW + 1)
            case ["late", "settle", won]:
                ledger.settle("e1", "settled", cost(float(won)), NOW + 5000)
            case ["void"]:
                ledger.void("e1", "voided", NOW + 1)
            case ["sweep"]:
                assert ledger.expire(NOW + 899) == 0
            case _:
                ledger.expire(NOW + 900)
    assert totals(ledger) == (posted, held), sentence
    assert agrees(ledger)


@pytest.mark.parametrize(
    ("sentence", "first", "second"),
    [
        ("void after settle", "settle", "void"),
        ("settle after void", "void", "settle"),
        ("another amount after settle", "settle", "settle other"),
    ],
)
def test_contradictions_are_refused_and_change_nothing(
    open_ledger: Open, sentence: str, first: str, second: str
) -> None:
    ledger = open_ledger()
    hold(ledger)
    ways = {
        "settle": lambda: ledger.settle("e1", "settled", cost(4), NOW + 1),
        "settle other": lambda: ledger.settle("e1", "settled at 5", cost(5), NOW + 1),
        "void": lambda: ledger.void("e1", "voided", NOW + 1),
    }
    ways[first]()
    before = totals(ledger)
    with pytest.raises(ConflictError, match=r"report what was spent beyond that to /usage"):
        ways[second]()
    assert totals(ledger) == before, sentence


def test_the_same_event_is_answered_twice_and_counted_once(open_ledger: Open) -> None:
    ledger = open_ledger()
    first = ledger.hold("e1", "body", SCOPE, cost(10), 900, NOW, yes)
    again = ledger.hold("e1", "body", SCOPE, cost(10), 900, NOW + 60, yes)
    assert (again.entry, again.repeated) == (first.entry, True)
    ledger.usage("u1", "body", SCOPE, cost(3), NOW)
    assert ledger.usage("u1", "body", SCOPE, cost(3), NOW + 60).repeated
    assert totals(ledger) == (3, 10)


@pytest.mark.parametrize("event", ["e1", "u1"])
def test_an_event_with_another_body_is_refused(open_ledger: Open, event: str) -> None:
    ledger = open_ledger()
    hold(ledger, "e1")
    ledger.usage("u1", "body", SCOPE, cost(3), NOW)
    with pytest.raises(ConflictError, match="give a new attempt an id of its own"):
        ledger.hold(event, "another body", SCOPE, cost(1), 900, NOW, yes)
    with pytest.raises(ConflictError):
        ledger.usage(event, "another body", SCOPE, cost(1), NOW)
    assert totals(ledger) == (3, 10)


def test_a_repeated_event_gets_its_first_answer_even_when_it_would_be_denied_now(open_ledger: Open) -> None:
    ledger = open_ledger()
    hold(ledger)
    no = Verdict(False, BudgetReason.OVER_LIMIT, "full")
    assert ledger.hold("e1", "body of e1", SCOPE, cost(10), 900, NOW, lambda standing: no).verdict.allowed


def test_what_was_denied_leaves_no_row(open_ledger: Open) -> None:
    ledger = open_ledger()
    no = Verdict(False, BudgetReason.OVER_LIMIT, "full")
    answer = ledger.hold("e1", "body", SCOPE, cost(10), 900, NOW, lambda standing: no)
    assert (answer.verdict, answer.entry) == (no, None)
    with pytest.raises(UnknownHoldError, match="there is no such hold; report what was spent"):
        ledger.settle("e1", "settled", cost(1), NOW)
    assert ledger.read(rows.counts) == {}


def test_reordered_a_settlement_before_its_hold_is_refused_and_may_come_again(open_ledger: Open) -> None:
    ledger = open_ledger()
    with pytest.raises(UnknownHoldError):
        ledger.settle("e1", "settled", cost(4), NOW)
    hold(ledger)
    ledger.settle("e1", "settled", cost(4), NOW)
    assert totals(ledger) == (4, 0)


def test_what_was_used_without_a_hold_is_no_hold(open_ledger: Open) -> None:
    ledger = open_ledger()
    ledger.usage("u1", "body", SCOPE, cost(3), NOW)
    with pytest.raises(UnknownHoldError):
        ledger.void("u1", "voided", NOW)


@pytest.mark.parametrize("won", [-1, LARGEST / MICRO + 1])
def test_no_row_holds_less_than_nothing_or_more_than_a_billion(open_ledger: Open, won: float) -> None:
    ledger = open_ledger()
    with pytest.raises(ConflictError, match="is no amount for one row"):
        ledger.hold("e1", "body", SCOPE, cost(won), 900, NOW, yes)
    with pytest.raises(ConflictError, match="is no amount for one row"):
        ledger.usage("u1", "body", SCOPE, cost(won), NOW)


def test_the_month_is_fixed_when_it_is_held(open_ledger: Open) -> None:
    ledger = open_ledger()
    _, end = bounds("2026-11", SEOUL)
    for event in ("settled", "voided", "left", "trued"):
        hold(ledger, event, now=end - 1)
    later = end + 3600
    ledger.settle("settled", "s", cost(4), later)
    ledger.void("voided", "v", later)
    assert ledger.expire(later) == 2
    ledger.settle("trued", "t", cost(6), later + 86_400)
    assert totals(ledger, later + 86_400) == (0, 0)
    november = ledger.read(lambda db: db.execute("SELECT posted FROM period_total WHERE period = '2026-11'").fetchone())
    assert november[0] / MICRO == 4 + 10 + 6
    assert {period for (period,) in ledger.read(lambda db: db.execute("SELECT period FROM entry").fetchall())} == {
        "2026-11"
    }


@pytest.mark.parametrize(
    ("sentence", "occurred", "month"),
    [
        ("of today", NOW, "2026-11"),
        ("of last month, reported late", NOW - 30 * 86_400, "2026-10"),
        ("of a little later, by another machine's clock", NOW + 60, "2026-11"),
    ],
)
def test_usage_belongs_to_the_month_it_occurred_in(
    open_ledger: Open, sentence: str, occurred: float, month: str
) -> None:
    entry = open_ledger().usage("u1", "body", SCOPE, cost(3), NOW, occurred).entry
    assert entry is not None
    assert (entry.period, entry.at) == (month, NOW), sentence


def test_fixed_costs_are_committed_once_a_month_from_its_first_moment(open_ledger: Open, tmp_path: Path) -> None:
    fixed = [("server", 9_900 * MICRO)]
    _, end = bounds("2026-11", SEOUL)
    ledger = open_ledger(fixed=fixed)
    seen: list[int] = []

    def watching(standing: Standing) -> Verdict:
        seen.append(standing.fixed)
        return yes(standing)

    ledger.hold("e1", "b", SCOPE, cost(1), 900, NOW, watching)
    ledger.hold("e2", "b", SCOPE, cost(1), 900, end, watching)  # nobody has looked at December before
    assert seen == [9_900 * MICRO, 9_900 * MICRO]
    ledger.close()
    ledger = open_ledger(fixed=fixed)
    assert ledger.standing(end + 1).fixed == 9_900 * MICRO
    assert ledger.read(rows.counts)[State.COMMITTED] == 2


def test_a_changed_fixed_cost_is_corrected_in_the_present_month_only(open_ledger: Open) -> None:
    _, end = bounds("2026-11", SEOUL)
    ledger = open_ledger(fixed=[("server", 9_900 * MICRO), ("domain", 500 * MICRO)])
    ledger.standing(NOW)
    ledger.standing(end)
    ledger.close()
    ledger = open_ledger(fixed=[("server", 8_000 * MICRO)])
    assert ledger.standing(end + 1).fixed == 8_000 * MICRO
    old = ledger.read(lambda db: db.execute("SELECT committed FROM period_total WHERE period = '2026-11'").fetchone())
    assert old[0] == 10_400 * MICRO
    assert agrees(ledger)


def test_a_clock_that_is_set_back_moves_nothing_back_and_nothing_new_is_held(open_ledger: Open) -> None:
    ledger = open_ledger()
    start, _ = bounds("2026-11", SEOUL)
    hold(ledger)
    hold(ledger, "e2", seconds=60)
    back = start - 3600  # into October
    rules = Rules((Limit("total", 100 * MICRO, False),), "KRW")
    answer = ledger.hold("e3", "b", SCOPE, cost(1), 900, back, within(rules, MICRO))
    assert (answer.verdict.allowed, answer.verdict.reason) == (False, BudgetReason.CLOCK_SET_BACK)
    assert ledger.expire(back) == 0
    standing = ledger.standing(back)
    assert (standing.period, standing.at, standing.clock_behind_seconds) == ("2026-11", NOW, NOW - back)
    ledger.settle("e1", "settled", cost(4), back)  # facts are still taken, and dated by the newest row
    assert ledger.usage("u1", "body", SCOPE, cost(1), back).entry.at == NOW  # type: ignore[union-attr]
    assert totals(ledger) == (5, 10)


def units(ledger: Ledger) -> dict[str, float]:
    return ledger.read(lambda db: rows.units_by_scope(db, "2026-11")).get(SCOPE, {})


def test_units_are_summed_of_what_was_posted_and_what_is_taken_back_counts_against_them(open_ledger: Open) -> None:
    ledger = open_ledger()
    hold(ledger, "e1")
    assert units(ledger) == {}  # held, not used
    ledger.settle("e1", "settled", Cost(4, '{"input_tokens": 3, "pages": "0.5", "context": {"tier": "flex"}}'), NOW)
    assert units(ledger) == {"input_tokens": 3, "pages": 0.5}
    hold(ledger, "e2", seconds=60)
    ledger.expire(NOW + 60)
    assert units(ledger) == {"input_tokens": 8, "pages": 0.5}
    ledger.settle("e2", "settled", Cost(4, '{"input_tokens": 2}'), NOW + 90)
    assert units(ledger) == {"input_tokens": 5, "pages": 0.5}
    hold(ledger, "e3")
    ledger.void("e3", "nothing sent", NOW)
    assert units(ledger) == {"input_tokens": 5, "pages": 0.5}


def test_a_ledger_from_before_units_were_summed_gets_its_sums_when_it_is_opened(
    open_ledger: Open,
) -> None:
    ledger = open_ledger()
    ledger.usage("u1", "body", SCOPE, cost(3), NOW)
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        db.executescript("DROP TRIGGER units_follow; DROP TABLE unit_total")
        assert rows.units_by_scope(db, "2026-11") == {}  # as `tidewise budget statement` may find it
    ledger = open_ledger()
    ledger.usage("u2", "body", SCOPE, cost(3), NOW)
    assert units(ledger) == {"input_tokens": 10}


def test_rows_cannot_be_changed_or_removed(open_ledger: Open) -> None:
    ledger = open_ledger()
    hold(ledger)
    for statement in ("UPDATE entry SET held = 0", "DELETE FROM entry"):
        with pytest.raises(LedgerError, match=r"rows of the ledger are never"):
            ledger.read(lambda db, s=statement: db.execute(s))  # type: ignore[misc]
    assert totals(ledger) == (0, 10)


def test_everything_is_there_after_it_was_closed_and_opened(open_ledger: Open) -> None:
    ledger = open_ledger()
    hold(ledger)
    ledger.usage("u1", "body", SCOPE, cost(3), NOW)
    ledger.level_changed(ledger.standing(NOW), "usage", Level.ECONOMY, "why")
    ledger.close()
    ledger = open_ledger()
    assert totals(ledger) == (3, 10)
    assert ledger.read(lambda db: rows.levels(db, "2026-11")) == {"usage": Level.ECONOMY}
    assert ledger.expire(NOW + 900) == 1
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.standing(NOW)


def test_spend_by_minute_hour_and_scope(open_ledger: Open) -> None:
    ledger = open_ledger()
    for n, minutes in enumerate((200, 61, 59, 0)):
        ledger.usage(f"u{n}", "b", SCOPE, cost(2**n), NOW - minutes * 60)
    assert ledger.read(lambda db: rows.posted_since(db, NOW - 3600)) == 12 * MICRO
    hours = ledger.read(lambda db: rows.posted_by_hour(db, NOW - 4 * 3600, NOW))
    assert [int(spend) // MICRO for _, spend in hours] == [1, 0, 2, 4]
    ((scope, held, posted, committed, count),) = ledger.read(lambda db: rows.by_scope(db, "2026-11"))
    assert (scope, held, posted, committed, count) == (SCOPE, 0, 15 * MICRO, 0, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"currency": "USD"}, "its currency is KRW, the configuration says USD"),
        ({"zone": ZoneInfo("UTC")}, "its time_zone is Asia/Seoul, the configuration says UTC"),
    ],
)
def test_a_ledger_keeps_its_currency_and_its_months(
    open_ledger: Open, changed: dict[str, object], message: str
) -> None:
    open_ledger().close()
    with pytest.raises(LedgerUnavailableError, match=message):
        open_ledger(**changed)


@pytest.mark.parametrize(
    ("sentence", "damage"),
    [
        ("a total was edited", "UPDATE period_total SET posted = posted - 1"),
        ("a scope's total was edited", "UPDATE scope_total SET held = held + 1"),
        ("a minute's total was edited", "UPDATE minute_total SET posted = 0"),
        ("an open hold was forgotten", "DELETE FROM open_hold"),
        ("a row was removed", "DROP TRIGGER entry_never_goes; DELETE FROM entry WHERE event_id = 'u1'"),
    ],
)
def test_totals_that_differ_from_their_rows_stop_the_start(
    open_ledger: Open, tmp_path: Path, sentence: str, damage: str
) -> None:
    ledger = open_ledger()
    hold(ledger)
    ledger.usage("u1", "body", SCOPE, cost(3), NOW)
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.executescript(damage)
    db.close()
    with pytest.raises(LedgerCorruptError, match="differ from the sum of the rows; nothing is permitted on it"):
        open_ledger()


@pytest.mark.parametrize("what", ["no database", "torn pages"])
def test_a_damaged_file_stops_the_start(open_ledger: Open, tmp_path: Path, what: str) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = open_ledger()
    for n in range(200):
        ledger.usage(f"u{n}", "body", SCOPE, cost(3), NOW)
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(b"not a database at all " * 500 if what == "no database" else whole[:8192] + b"\xff" * 40960)
    with pytest.raises(LedgerCorruptError, match="damaged"):
        open_ledger()


def test_a_folder_that_cannot_be_made_is_said(open_ledger: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailableError, match=r"check budget\.ledger"):
        open_ledger(tmp_path / "file" / "ledger.sqlite")


def test_eight_threads_never_hold_more_than_the_limit(open_ledger: Open) -> None:
    ledger = open_ledger()
    rules = Rules((Limit("usage", 100 * MICRO, False),), "KRW")
    granted: list[int] = []

    def hammer(thread: int) -> None:
        chance = random.Random(thread)
        for n in range(60):
            amount = chance.randrange(1, 3 * MICRO)
            event = f"{thread}/{n}"
            answer = ledger.hold(event, "b", SCOPE, Cost(amount), 900, NOW, within(rules, amount))
            if not answer.verdict.allowed:
                continue
            kept = chance.choice(("settled", "held", "voided"))
            if kept == "settled":
                ledger.settle(event, "s", Cost(chance.randrange(amount + 1)), NOW)
            elif kept == "voided":
                ledger.void(event, "v", NOW)
            granted.append(amount)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hammer, range(8)))
    standing = ledger.standing(NOW)
    assert 90 * MICRO < standing.posted + standing.held <= 100 * MICRO
    assert len(granted) > 50
    assert agrees(ledger)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "hold", "settle", "void", "expire"]),
        st.integers(0, 5),  # which event
        st.integers(0, 40),  # won
        st.integers(0, 1200),  # seconds later
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_comes_in_whatever_order_the_limit_and_the_sums_hold(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, int]]
) -> None:
    """Holds are true maxima here: a settlement is never above its hold, and facts without a hold stay away."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "l.sqlite", "KRW", SEOUL)
    rules, now = Rules((Limit("usage", 100 * MICRO, False),), "KRW"), NOW
    held: dict[str, int] = {}
    try:
        for what, which, won, later in steps:
            now += later
            event, amount = f"e{which}", won * MICRO
            try:
                if what == "hold":
                    amount = held.get(event, amount)
                    answer = ledger.hold(event, f"{amount}", SCOPE, Cost(amount), 900, now, within(rules, amount))
                    if answer.verdict.allowed:
                        assert answer.repeated is (event in held)
                        held.setdefault(event, amount)
                elif what == "settle":
                    ledger.settle(event, f"{won}", Cost(min(amount, held.get(event, 0))), now)
                elif what == "void":
                    ledger.void(event, "v", now)
                elif what == "expire":
                    ledger.expire(now)
            except (ConflictError, UnknownHoldError):
                pass  # contradictions are refused; what counts is that the sums do not notice them
            standing = ledger.standing(now)
            assert 0 <= standing.posted + standing.held <= 100 * MICRO
            assert standing.posted >= 0 <= standing.held
        assert agrees(ledger)
    finally:
        ledger.close()
