"""decide() with money and replacements: one table, then what must hold whatever the ledger says."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.domain import Mode, Money, Reason, Recommendation, Replicas, Sample
from controllers.scale.decide import decide
from controllers.scale.records import Record
from controllers.scale.state import LeadTime, Rules, State
from controllers.scale.why import counterfactuals, explanation

NOW = 1_800_000_000.0
RULES = Rules(
    workload="default/video",
    is_queue=True,
    min_replicas=1,
    max_replicas=20,
    wait_seconds=5.0,
    objective=0.95,
    concurrency=1,
    service_seconds=0.5,
    lead_time_seconds=60.0,
    minimum_run_seconds=60.0,
    stabilization_window_seconds=300.0,
    up_per_minute=None,
    down_per_minute=None,
    interval_seconds=15.0,
    data_age_limit_seconds=120.0,
    mode=Mode.ACT,
)


def money(max_new: int | None, *, paid: int = 6, refused: int = 0, silent: float = 0.0) -> Money:
    return Money(paid, refused, max_new, silent, 1200.0)


# six replicas, and work for eleven or twelve
RISING = State(
    now=NOW,
    demand=Sample(20.0, NOW - 5),
    backlog=Sample(6.0, NOW - 5),
    service_seconds=0.5,
    lead_time=LeadTime(60.0, 60.0),
    replicas=Replicas(wanted=6, ready=6),
    known_since=NOW - 3600,
)
NEEDED = decide(RISING, RULES).desired or 0
assert NEEDED > 10
IDLE = replace(RISING, demand=Sample(1.0, NOW - 5), backlog=Sample(0.0, NOW - 5))
BLIND = replace(RISING, demand=None)

# sentence, state, desired, reasons that must be there
TABLE: list[tuple[str, State, int, set[Reason]]] = [
    ("money for all of them: as without a budget", replace(RISING, money=money(40)), NEEDED, set()),
    ("money for two more", replace(RISING, money=money(2)), 8, {Reason.BUDGET_CAP}),
    ("money for none", replace(RISING, money=money(0)), 6, {Reason.BUDGET_CAP}),
    (
        "draining ones are paid for, and their slots are used again once they are gone",
        replace(RISING, money=money(1, paid=8)),
        9,
        {Reason.BUDGET_CAP},
    ),
    (
        "the ledger is silent: no growth",
        replace(RISING, money=money(None, silent=30.0)),
        6,
        {Reason.BUDGET_UNREACHABLE},
    ),
    ("the ledger is silent: no kill", replace(BLIND, money=money(None, silent=30.0)), 6, {Reason.HOLD}),
    (
        "the ledger is silent: what is not needed goes all the same",
        replace(IDLE, money=money(None, silent=30.0)),
        1,
        {Reason.REACTIVE},
    ),
    (
        "silent for longer than its grace: back to the minimum, which is paid for",
        replace(RISING, money=money(None, silent=1201.0)),
        1,
        {Reason.BUDGET_LOST},
    ),
    (
        "silent for longer than its grace: the same without data",
        replace(BLIND, money=money(None, silent=1201.0)),
        1,
        {Reason.BUDGET_LOST, Reason.HOLD},
    ),
    (
        "two renewals refused: two are drained, whatever is needed",
        replace(RISING, money=money(0, paid=4, refused=2)),
        4,
        {Reason.BUDGET_DRAIN},
    ),
    (
        "what is refused is drained although nothing else is known",
        replace(BLIND, money=money(0, paid=4, refused=2)),
        4,
        {Reason.BUDGET_DRAIN},
    ),
    (
        "one drains already: it is not counted again",
        replace(RISING, replicas=Replicas(5, 5, draining=1), money=money(0, paid=5, refused=1)),
        5,
        {Reason.BUDGET_DRAIN},
    ),
    ("refused for all: none is left", replace(RISING, money=money(0, paid=0, refused=6)), 0, {Reason.BUDGET_DRAIN}),
    (
        "an instance is replaced: one more, although nothing else may grow",
        replace(RISING, money=money(0), replacing=1),
        7,
        {Reason.BUDGET_CAP, Reason.REPLACEMENT},
    ),
    (
        "an instance is replaced, even at the maximum",
        replace(RISING, demand=Sample(60.0, NOW - 5), replicas=Replicas(20, 19), replacing=1),
        21,
        {Reason.REPLACEMENT},
    ),
    (
        "the number holds the replacement already: it is not added twice",
        replace(RISING, demand=Sample(60.0, NOW - 5), replicas=Replicas(21, 20), replacing=1, surge=1),
        21,
        {Reason.REPLACEMENT},
    ),
    (
        "the replacement works: the number is as before",
        replace(RISING, demand=Sample(60.0, NOW - 5), replicas=Replicas(21, 21), surge=1),
        20,
        {Reason.REACTIVE},
    ),
    (
        "the end of a replacement is no scale-in that waits for its window",
        replace(
            RISING,
            replicas=Replicas(NEEDED + 1, NEEDED + 1),
            surge=1,
            recommendations=(Recommendation(NOW - 15, NEEDED),),
        ),
        NEEDED,
        set(),
    ),
]


@pytest.mark.parametrize(("sentence", "state", "desired", "reasons"), TABLE, ids=[row[0] for row in TABLE])
def test_decide(sentence: str, state: State, desired: int, reasons: set[Reason]) -> None:
    decision = decide(state, RULES)
    assert decision.desired == desired, f"{sentence}: {decision}"
    assert reasons <= set(decision.reasons), f"{sentence}: {decision.reasons}"
    told = state.replicas.wanted if state.replicas else None
    assert decision.current == told, sentence


def test_a_budget_that_does_not_bind_leaves_no_reason() -> None:
    plain, rich = decide(RISING, RULES), decide(replace(RISING, money=money(40)), RULES)
    assert plain == replace(rich, unbudgeted=None)


@pytest.mark.parametrize(
    "state", [row[1] for row in TABLE if row[1].money], ids=[row[0] for row in TABLE if row[1].money]
)
def test_the_number_without_the_budget_is_what_the_same_decision_would_have_been(state: State) -> None:
    assert decide(state, RULES).unbudgeted == decide(replace(state, money=None), RULES).desired


answers = st.builds(
    lambda running, refused, more, silent: (
        running,
        Money(max(0, running - refused), min(refused, running), None if silent else more, silent, 1200.0),
    ),
    st.integers(0, 20),
    st.integers(0, 4),
    st.integers(0, 30),
    st.sampled_from([0.0, 0.0, 60.0, 5000.0]),
)


@given(answers, st.floats(0, 60), st.floats(0, 500))
@settings(max_examples=400, deadline=None)
def test_money_never_adds_and_growth_is_never_more_than_it_admits(
    answer: tuple[int, Money], demand: float, backlog: float
) -> None:
    running, said = answer
    state = replace(
        RISING,
        demand=Sample(demand, NOW),
        backlog=Sample(backlog, NOW),
        replicas=Replicas(running, running),
    )
    without, bound = decide(state, RULES).desired, decide(replace(state, money=said), RULES).desired
    assert without is not None
    assert bound is not None
    assert bound <= without
    assert bound <= running + (said.max_new or 0)
    if said.max_new is not None and not said.refused and without <= running:
        assert bound == without  # a no to more ends nothing that runs


def test_why_tells_what_would_have_been_without_the_budget() -> None:
    state = replace(RISING, money=money(2))
    record = Record(state, RULES, decide(state, RULES), Reason.PERMIT_REFUSED, "this needs 4 KRW; 3 are left", 7)
    assert dict(counterfactuals(record))["without budget"] == str(NEEDED)
    text = "\n".join(explanation(record))
    assert "budget_cap             the ledger would not admit more" in text
    assert "permit_refused" in text
    assert "this needs 4 KRW; 3 are left" in text
    assert "so the target was told 7" in text
    assert "6 replicas paid for, 2 more would be admitted" in text


def test_why_of_a_workload_without_a_price_does_not_speak_of_money() -> None:
    record = Record(RISING, RULES, decide(RISING, RULES), Reason.APPLIED)
    assert "without budget" not in dict(counterfactuals(record))
    assert "money" not in "\n".join(explanation(record))
