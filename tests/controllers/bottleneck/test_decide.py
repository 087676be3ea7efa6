"""Which resource is named: a row a situation, each a sentence."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.bottleneck.decide import decide
from controllers.bottleneck.facts import (
    AGE,
    BACKLOG,
    CENSORED,
    CURRENT,
    DATA_AGE,
    DEMAND,
    DESIRED,
    DRAIN,
    FAILURES,
    GPU_BUSY,
    LEAD_TIME,
    NODE_CPU,
    NODE_DISK,
    NODE_FILESYSTEM,
    NODE_MEMORY,
    NODE_PRESSURE,
    PROJECTED,
    REASON,
    RECOMMENDED,
    SCALING_FAILURES,
    SERVICE_SECONDS,
    SPENT,
    THROUGHPUT,
    UTILIZATION,
    WANTED,
    Answer,
    Facts,
    Promise,
    Resource,
    Trace,
    Verdict,
)
from controllers.domain import Mode, Reason, Sample

AT, WINDOW, STEP = 100_000.0, 900.0, 15.0
QUEUE = Promise(
    is_queue=True,
    is_service=False,
    max_replicas=4,
    concurrency=1,
    wait_seconds=60.0,
    mode=Mode.ACT,
    lead_time_seconds=40.0,
    minimum_run_seconds=60.0,
    up_per_minute=None,
    service_seconds=None,
    data_age_limit_seconds=120.0,
)
PAID = replace(QUEUE, budget="budget.usage", budget_amount=15000.0, currency="KRW")
SERVICE = replace(QUEUE, is_queue=False, is_service=True)
A = {"instance": "a:9811"}
Value = float | tuple[float, ...] | None  # of the whole window; or of equal parts of it; None: unknown
Key = str | tuple[str, Mapping[str, str]]


def trace(name: str, value: float | tuple[float, ...], **labels: str) -> Trace:
    parts = value if isinstance(value, tuple) else (value,)
    count = int(WINDOW / STEP)
    samples = tuple(
        Sample(parts[min(len(parts) - 1, n * len(parts) // count)], AT - WINDOW + (n + 1) * STEP) for n in range(count)
    )
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return Trace(f"{name}{{{inside}}}", labels, samples)


# Two of four replicas serve three jobs a second of half a second each, and everything is in time.
CALM: dict[str, Value] = {
    DEMAND: 3.0,
    THROUGHPUT: 3.0,
    BACKLOG: 3.0,
    AGE: 1.0,
    DRAIN: 1.0,
    SERVICE_SECONDS: 0.5,
    FAILURES: 0.0,
    UTILIZATION: 0.75,
    DATA_AGE: 5.0,
    CURRENT: 2.0,
    WANTED: 2.0,
    DESIRED: 2.0,
    RECOMMENDED: 2.0,
}
# What comes is more than the replicas do, and it waits.
LATE: dict[str, Value] = CALM | {DEMAND: 12.0, BACKLOG: (100, 400, 900), AGE: (30, 90, 180), DRAIN: 200.0}
AT_MAX: dict[str, Value] = LATE | {
    THROUGHPUT: 8.0,
    UTILIZATION: 0.99,
    CURRENT: 4.0,
    WANTED: 4.0,
    DESIRED: 4.0,
    RECOMMENDED: 4.0,
}
FULL_CPU = [trace(NODE_CPU, 0.98, **A), trace(NODE_PRESSURE, 0.7, resource="cpu", kind="some", **A)]
BUSY_CPU = [trace(NODE_CPU, 0.98, **A), trace(NODE_PRESSURE, 0.05, resource="cpu", kind="some", **A)]


def because(*reasons: Reason, value: float | tuple[float, ...] = 1.0) -> list[Trace]:
    return [trace(REASON, value, reason=reason.value) for reason in reasons]


def facts(
    values: Mapping[str, Value], *more: Trace, promise: Promise = QUEUE, usual: float | None = 0.5, at: float = AT
) -> Facts:
    series: dict[str, tuple[Trace, ...]] = {
        name: (trace(name, value, workload="default/w"),) for name, value in values.items() if value is not None
    }
    for one in more:
        name = one.name.partition("{")[0]
        series[name] = (*series.get(name, ()), one)
    return Facts("default/w", at, WINDOW, promise, series, usual)


def named(answer: Answer) -> str:
    return answer.bottleneck.resource.value if answer.bottleneck else answer.verdict.value


TABLE: list[tuple[str, Facts, str, str]] = [
    # sentence, facts, what is named, words that the change (or the reason) has
    ("work is served in time and nothing is near a limit", facts(CALM), "none", ""),
    ("in time with a full CPU: nobody is held back", facts(CALM, *FULL_CPU), "none", ""),
    ("in time at the maximum: nobody is held back", facts(AT_MAX | {AGE: 1.0, DRAIN: 2.0, BACKLOG: 9.0}), "none", ""),
    (
        "every replica that is allowed is busy, and work waits",
        facts(AT_MAX, *because(Reason.MAX_REPLICAS)),
        "max_replicas",
        "raise replicas.max from 4 to 11: 12 items/s and 900 that wait or are under way, 0.5 s each, need 11",
    ),
    (
        "at the maximum and the machine's CPU is full: more replicas would wait for it",
        facts(AT_MAX, *FULL_CPU),
        "node_cpu",
        "add a machine or move something off a:9811",
    ),
    (
        "at the maximum on a CPU that is used well and that nobody waits for",
        facts(AT_MAX, *BUSY_CPU),
        "max_replicas",
        "a:9811 cpu is at 98% already: it may be the next limit",
    ),
    (
        "a full CPU whose pressure is not known is taken for full",
        facts(AT_MAX, FULL_CPU[0]),
        "node_cpu",
        "",
    ),
    (
        "at the maximum and three of four replicas do nothing",
        facts(AT_MAX | {UTILIZATION: 0.2}),
        "workers",
        "do they hang",
    ),
    (
        "nothing gets done at all, so nobody can say how busy they are",
        facts(LATE | {THROUGHPUT: 0.0, UTILIZATION: None, DRAIN: None, SERVICE_SECONDS: None}),
        "workers",
        "do they take from this queue",
    ),
    (
        "the ledger pays for no more",
        facts(LATE | {RECOMMENDED: 4.0}, *because(Reason.BUDGET_CAP), promise=PAID),
        "budget",
        "raise budget.usage (15,000 KRW now), or make room in it",
    ),
    (
        "the ledger pays for no more and the month would end above the limit",
        facts(
            LATE,
            *because(Reason.PERMIT_REFUSED),
            trace(SPENT, 0.97, budget="usage"),
            trace(PROJECTED, 1.2, budget="usage"),
            trace(PROJECTED, 3.0, budget="total"),
            promise=PAID,
        ),
        "budget",
        "at this pace the month ends at 18,000",
    ),
    (
        "capped by money before the maximum is reached: the maximum is not what binds",
        facts(AT_MAX, *because(Reason.BUDGET_CAP, Reason.MAX_REPLICAS), promise=PAID),
        "budget",
        "",
    ),
    (
        "the ledger is silent, so nothing grows",
        facts(LATE, *because(Reason.BUDGET_UNREACHABLE), promise=PAID),
        "budget",
        "bring `tidewise budget` back",
    ),
    (
        "a reason that is over is none",
        facts(LATE | {UTILIZATION: 0.95}, *[replace(t, samples=t.samples[:20]) for t in because(Reason.BUDGET_CAP)]),
        "scaling",
        "`tidewise why` has its numbers",
    ),
    (
        "each job takes three times as long as usual, and at its usual speed the replicas would do",
        facts(AT_MAX | {SERVICE_SECONDS: 1.5, DEMAND: 4.0, BACKLOG: (50, 60, 70), THROUGHPUT: 2.7}),
        "dependency",
        "look at what the work calls",
    ),
    (
        "slower than usual, and so much comes that the replicas would not do at the usual speed either",
        facts(AT_MAX | {SERVICE_SECONDS: 1.5, DEMAND: 40.0}),
        "max_replicas",
        "",
    ),
    (
        "slower than usual on a full machine: the machine explains it",
        facts(AT_MAX | {SERVICE_SECONDS: 1.5, DEMAND: 4.0, BACKLOG: (50, 60, 70)}, *FULL_CPU),
        "node_cpu",
        "",
    ),
    (
        "twice the replicas, the same throughput, and work waits all the time",
        facts(AT_MAX | {CURRENT: (2, 3, 4), THROUGHPUT: (4.0, 4.1, 4.1), BACKLOG: (300, 500, 700)}),
        "dependency",
        "the additional ones only cost",
    ),
    (
        "twice the replicas, twice the throughput: they were not in vain",
        facts(AT_MAX | {CURRENT: (2, 3, 4), THROUGHPUT: (4.0, 6.0, 8.0), BACKLOG: (300, 500, 700)}),
        "max_replicas",
        "",
    ),
    ("no history tells what is usual, so nothing is called slow", facts(AT_MAX, usual=None), "max_replicas", ""),
    (
        "a quarter of the jobs fails while none waits",
        facts(CALM | {FAILURES: 0.25}),
        "dependency",
        "read the workers' log",
    ),
    (
        "a quarter of the jobs fails and the maximum binds: what waits is explained first",
        facts(AT_MAX | {FAILURES: 0.25}),
        "max_replicas",
        "",
    ),
    (
        "in shadow mode more replicas are right than anybody told the target",
        facts(LATE | {DESIRED: 4.0, UTILIZATION: 0.99}, promise=replace(QUEUE, mode=Mode.SHADOW)),
        "scaling",
        "tell the target 4 by hand, or set the workload's mode to act",
    ),
    (
        "the target cannot be told",
        facts(LATE | {DESIRED: 4.0, SCALING_FAILURES: 5.0}, *because(Reason.ACTION_FAILED)),
        "scaling",
        "runbook ScalingActionFailed",
    ),
    ("the scaler is blind", facts(LATE, *because(Reason.DEMAND_STALE, Reason.HOLD)), "scaling", "`tidewise check`"),
    (
        "replicas are on their way",
        facts(LATE | {WANTED: (2,) * 29 + (3,), DESIRED: 3.0}, trace(LEAD_TIME, 60.0, quantile="0.9")),
        "scaling",
        "wait 45 s",
    ),
    (
        "more replicas were decided a moment ago, and the target is only being told",
        facts(LATE | {DESIRED: (2,) * 59 + (3,), UTILIZATION: 0.99}),
        "scaling",
        "wait 40 s",
    ),
    (
        "the maximum was raised in the file, and the scaler has not read it",
        facts(LATE | {UTILIZATION: 0.99}, *because(Reason.MAX_REPLICAS)),
        "scaling",
        "restart `tidewise scale`",
    ),
    (
        "replicas were asked for long ago and never came",
        facts(LATE | {WANTED: (2, 4, 4), DESIRED: 4.0}),
        "scaling",
        "has it room, quota and the image",
    ),
    (
        "the maximum is enough once the last replicas have started",
        facts(AT_MAX | {CURRENT: 2.0, DEMAND: 5.0, BACKLOG: (20, 60, 80)}),
        "scaling",
        "",
    ),
    (
        "the number may only grow by one a minute",
        facts(
            LATE | {RECOMMENDED: 4.0, DESIRED: 2.0},
            *because(Reason.RATE_LIMIT),
            promise=replace(QUEUE, up_per_minute=1),
        ),
        "scaling",
        "raise limits.up_per_minute (now 1)",
    ),
    (
        "every replica is busy, work waits, and the scaler asks for no more",
        facts(LATE | {UTILIZATION: 0.97}),
        "scaling",
        "is capacity.concurrency right?",
    ),
    (
        "work waits and nothing that is measured is at its limit",
        facts(LATE),
        "unknown",
        "",
    ),
    (
        "all memory is used and tasks stand still for it",
        facts(LATE, trace(NODE_MEMORY, 0.97, **A), trace(NODE_PRESSURE, 0.4, resource="memory", kind="full", **A)),
        "node_memory",
        "give a:9811 more memory",
    ),
    (
        "a disk always has a request under way and nobody stands still for it",
        facts(
            LATE, trace(NODE_DISK, 0.99, device="vda", **A), trace(NODE_PRESSURE, 0.01, resource="io", kind="full", **A)
        ),
        "unknown",
        "",
    ),
    (
        "all tasks stand still for the disk",
        facts(
            LATE, trace(NODE_DISK, 0.99, device="vda", **A), trace(NODE_PRESSURE, 0.5, resource="io", kind="full", **A)
        ),
        "node_io",
        "a faster disk",
    ),
    (
        "the disk is full",
        facts(LATE, trace(NODE_FILESYSTEM, 0.0, mountpoint="/", **A)),
        "node_filesystem",
        "make room on",
    ),
    ("the GPU is busy all the time", facts(LATE, trace(GPU_BUSY, 0.99, uuid="u1")), "gpu", "add a GPU"),
    (
        "of two full machines the fuller one is named",
        facts(LATE, trace(NODE_CPU, 0.93, **A), trace(NODE_CPU, 0.99, instance="b:9811")),
        "node_cpu",
        "b:9811",
    ),
    (
        "one odd sample at the end decides nothing",
        facts(CALM | {AGE: (1.0,) * 59 + (500.0,)}),
        "none",
        "",
    ),
    (
        "the data is too old to judge by",
        facts(CALM | {DATA_AGE: 300.0}),
        "unknown",
        "",
    ),
    (
        "nobody measures the wait, and the maximum binds: named, for all that is known",
        facts({DEMAND: 9.0, WANTED: 4.0, DESIRED: 4.0, CURRENT: 4.0}, promise=replace(QUEUE, is_queue=False)),
        "max_replicas",
        "raise replicas.max from 4",
    ),
    (
        "jobs do not tell when they were enqueued: what waits at the present pace stands in for their age",
        facts(AT_MAX | {AGE: None}),
        "max_replicas",
        "",
    ),
    (
        "all that is under way takes longer than the promised wait, as long work does, and none of it waits",
        facts(CALM | {SERVICE_SECONDS: 90.0, DRAIN: 95.0, UTILIZATION: 0.95}, usual=90.0),
        "none",
        "",
    ),
    (
        "the same, and no age: the pace allows for one service",
        facts(CALM | {AGE: None, SERVICE_SECONDS: 90.0, DRAIN: 95.0, UTILIZATION: 0.95}, usual=90.0),
        "none",
        "",
    ),
    (
        "demand, a rate over a minute, lags: what piles up tells what really comes",
        facts(AT_MAX | {DEMAND: 8.0, BACKLOG: tuple(60.0 * n for n in range(60))}),  # four a second
        "max_replicas",
        "12 items/s and 3210 that wait or are under way, 0.5 s each, need 23",
    ),
    ("nothing at all is known", facts({}), "unknown", ""),
    (
        "a service answers twice as slowly as usual",
        facts({DEMAND: 3.0, SERVICE_SECONDS: 1.0, CURRENT: 2.0, FAILURES: 0.0, CENSORED: 0.0}, promise=SERVICE),
        "dependency",
        "",
    ),
    (
        "a service turns clients away with all replicas that it may have",
        facts(
            {
                DEMAND: 9.0,
                SERVICE_SECONDS: 0.5,
                CURRENT: 4.0,
                WANTED: 4.0,
                DESIRED: 4.0,
                FAILURES: 0.3,
                CENSORED: 1.0,
                UTILIZATION: 1.0,
            },
            promise=SERVICE,
        ),
        "max_replicas",
        "raise replicas.max from 4 to 5",
    ),
    (
        "a service answers as fast as usual and nothing fails",
        facts({DEMAND: 3.0, SERVICE_SECONDS: 0.5, FAILURES: 0.0, CENSORED: 0.0}, promise=SERVICE),
        "none",
        "",
    ),
]


@pytest.mark.parametrize(("given", "resource", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_named_when(given: Facts, resource: str, words: str) -> None:
    answer = decide(given)
    assert named(answer) == resource
    if answer.bottleneck is not None:
        assert words in answer.bottleneck.change + answer.bottleneck.where + answer.bottleneck.says
        assert answer.bottleneck.evidence, "nothing shows it"
        assert answer.bottleneck.change
    assert named(answer) in {*(r.value for r in Resource), *(v.value for v in Verdict)}


def test_what_comes_next_is_told() -> None:
    answer = decide(facts(AT_MAX, *FULL_CPU))
    assert [finding.resource for finding in answer.runners_up] == [Resource.MAX_REPLICAS]
    assert [f.resource for f in decide(facts(CALM, *FULL_CPU)).runners_up] == [Resource.NODE_CPU]


def test_evidence_names_the_series_the_threshold_and_since_when() -> None:
    answer = decide(facts(AT_MAX | {AGE: (30.0, 90.0, 180.0), DESIRED: 4.0}))
    felt = {measure.series: measure for measure in answer.felt}
    age = felt[f'{AGE}{{workload="default/w"}}']
    assert (age.value, age.threshold, age.pressure) == (180.0, 60.0, 3.0)
    assert age.since == AT - WINDOW + 300 + STEP
    assert not age.at_least
    assert answer.bottleneck is not None
    assert all(m.at_least for m in answer.bottleneck.evidence if m.series.startswith(DESIRED))


def test_what_is_not_known_is_listed_and_is_not_fine() -> None:
    answer = decide(facts(CALM | {AGE: None}, usual=None))
    assert answer.unknown[AGE] == "no samples"
    assert answer.unknown[NODE_CPU] == "no machine is measured"
    assert answer.unknown[GPU_BUSY] == "no GPU is measured"
    assert answer.unknown[f"the usual {SERVICE_SECONDS}"] == "too little history before the window"
    assert SPENT not in answer.unknown  # it has no price
    assert decide(facts(CALM, promise=PAID)).unknown[SPENT] == "no samples"
    assert not any(measure.series.startswith(AGE) for measure in answer.measures)


def test_the_nearest_to_its_limit_is_first() -> None:
    answer = decide(facts(CALM, trace(NODE_MEMORY, 0.85, **A), trace(NODE_CPU, 0.3, **A)))
    pressures = [measure.pressure for measure in answer.measures]
    assert pressures == sorted(pressures, reverse=True)
    assert answer.measures[0].series.startswith(NODE_MEMORY)


@given(
    values=st.fixed_dictionaries(
        {name: st.none() | st.floats(0, 1000, allow_nan=False) for name in CALM},
    ),
    cpu=st.none() | st.floats(0, 1),
    reason=st.none() | st.sampled_from(list(Reason)),
    promise=st.sampled_from([QUEUE, PAID, SERVICE, replace(QUEUE, is_queue=False)]),
    usual=st.none() | st.floats(0.001, 10),
)
def test_whatever_is_known_there_is_one_answer_and_nothing_is_named_while_all_is_in_time(
    values: dict[str, float | None], cpu: float | None, reason: Reason | None, promise: Promise, usual: float | None
) -> None:
    more = [trace(NODE_CPU, cpu, **A)] if cpu is not None else []
    given = facts(values, *more, *(because(reason) if reason else ()), promise=promise, usual=usual)
    answer = decide(given)
    assert (answer.bottleneck is not None) == (answer.verdict is Verdict.BOTTLENECK)
    if given.wait_known() and not answer.felt:
        assert answer.verdict is Verdict.NONE
    if not given.wait_known():
        assert answer.verdict is not Verdict.NONE
