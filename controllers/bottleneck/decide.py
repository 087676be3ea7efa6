"""Which resource holds a workload back: facts in, answer out. No client, clock, environment or log.

A bottleneck needs two things: work is not served as promised, and a resource is at its limit. A limit without the first
holds nobody back yet; it is told as the next one. Of several limits that one comes first which would be left if the
others were raised: a full machine before anything that would put more on it, a slow dependency before more workers that
would wait for it, money before the maximum that it would not pay for. Within that order the larger pressure is first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from controllers.bottleneck.dependency import failing, fails, in_vain, slow, slower
from controllers.bottleneck.facts import (
    AGE,
    BACKLOG,
    CENSORED,
    CURRENT,
    DRAIN,
    FOR_A_QUEUE,
    FOR_A_SERVICE,
    FOR_ANY,
    GPU_BUSY,
    OF_MACHINES,
    OF_MONEY,
    SERVICE_SECONDS,
    THROUGHPUT,
    Answer,
    Facts,
    Finding,
    Measure,
    Method,
    Verdict,
)
from controllers.bottleneck.machines import machines, machines_measured
from controllers.bottleneck.measures import measured
from controllers.bottleneck.replicas import (
    absent,
    budget,
    maximum,
    money_measured,
    needed,
    replicas_measured,
    scaling,
    workers,
)


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A finding, its place in the order, and whether it explains what is felt."""

    finding: Finding
    place: int
    explains: bool


def decide(facts: Facts) -> Answer:
    """The bottleneck, or that there is none, or that too little is known to say either."""
    looked_at = tuple(_users(facts))
    felt = tuple(measure for measure in looked_at if measure.since is not None)
    suspects = sorted(_suspects(facts, felt), key=lambda s: (not s.explains, s.place, -s.finding.pressure))
    if suspects and suspects[0].explains:
        verdict = Verdict.BOTTLENECK
    elif felt or not facts.wait_known():
        verdict = Verdict.UNKNOWN  # nothing that is measured explains it, or nobody knows whether work waits
    else:
        verdict = Verdict.NONE
    found = [suspect.finding for suspect in suspects]
    measures = {measure.series: measure for measure in (*_resources(facts), *looked_at)}
    return Answer(
        facts.workload,
        facts.at,
        facts.window_seconds,
        verdict,
        found[0] if verdict is Verdict.BOTTLENECK else None,
        tuple(found[1:] if verdict is Verdict.BOTTLENECK else found),
        felt,
        tuple(sorted(measures.values(), key=lambda measure: -measure.pressure)),
        unknown(facts),
    )


def _suspects(facts: Facts, felt: tuple[Measure, ...]) -> Iterator[_Suspect]:
    waits = any(measure.method is Method.SATURATION for measure in felt)
    # An overloaded service answers with errors; a queue's jobs fail for reasons of their own.
    bad = waits or not facts.wait_known() or (facts.promise.is_service and bool(felt))
    full = list(machines(facts))
    yield from (_Suspect(finding, 1, bad) for finding in full)
    yield from (_Suspect(finding, 2, bad) for finding in in_vain(facts))
    for finding in slow(facts):
        # At its usual speed, would the replicas that work do? If not, it is not the only reason. And a full machine
        # makes everything on it slow.
        enough, current = needed(facts, facts.usual_service_seconds), facts.now(CURRENT)
        alone = enough is None or current is None or enough <= current
        yield _Suspect(finding, 3 if alone and not full else 7, bad)
    yield from (_Suspect(finding, 4, bad) for finding in absent(facts))
    yield from (_Suspect(finding, 5, bad) for finding in budget(facts))
    yield from (_Suspect(finding, 6, bad) for finding in maximum(facts))
    yield from (_Suspect(finding, 8, bad) for finding in scaling(facts, waits))
    yield from (_Suspect(finding, 9, bad) for finding in workers(facts, felt))
    yield from (_Suspect(finding, 10, True) for finding in fails(facts))


def _users(facts: Facts) -> Iterator[Measure]:
    """What the workload's users notice."""
    promise = facts.promise
    if promise.is_queue:
        yield from measured(facts, AGE, "work", Method.SATURATION, promise.wait_seconds, "s", what="promised wait")
        if facts.now(AGE) is None:  # jobs do not tell when they were enqueued: what waits at the present pace does
            yield from _drain(facts)
        if facts.now(THROUGHPUT) == 0:
            what = "nothing gets done"
            yield from measured(facts, BACKLOG, "work", Method.SATURATION, 1, "items", what=what)
    if promise.is_service:
        yield from slower(facts, "work")
        yield from measured(facts, CENSORED, "work", Method.ERRORS, 1, "", what="clients are turned away")
    yield from failing(facts)


def _drain(facts: Facts) -> Iterator[Measure]:
    # Little's law: all that waits or is under way, over the pace, is the wait and the service of one piece.
    limit = facts.promise.wait_seconds + (facts.service_seconds() or 0.0)
    what = "promised wait and one service"
    yield from measured(facts, DRAIN, "work", Method.SATURATION, limit, "s", what=what)


def _resources(facts: Facts) -> Iterator[Measure]:
    yield from _drain(facts)
    yield from replicas_measured(facts)
    yield from slower(facts, "dependency")
    yield from money_measured(facts)
    yield from machines_measured(facts)


def unknown(facts: Facts) -> dict[str, str]:
    """What would be looked at and is not known: series -> remark."""
    promise = facts.promise
    wanted = [*FOR_ANY, *(FOR_A_QUEUE if promise.is_queue else FOR_A_SERVICE if promise.is_service else ())]
    wanted += OF_MONEY if promise.budget is not None else ()
    remark = "its data is older than scale.data_age_limit_seconds" if facts.too_old() else "no samples"
    missing = {name: remark for name in wanted if not _there(facts, name)}
    if DRAIN in missing and facts.now(THROUGHPUT) == 0:
        missing[DRAIN] = "nothing gets done"
    missing |= {name: "no machine is measured" for name in OF_MACHINES if not _there(facts, name)}
    if not _there(facts, GPU_BUSY):
        missing[GPU_BUSY] = "no GPU is measured"
    if SERVICE_SECONDS not in missing and facts.usual_service_seconds is None:
        missing[f"the usual {SERVICE_SECONDS}"] = "too little history before the window"
    return missing


def _there(facts: Facts, name: str) -> bool:
    return any(True for _ in facts.traces(name))
