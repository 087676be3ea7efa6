"""Why there are no more replicas, or why more would not help: money, the maximum, the way to the target, the workers.

Pure. Each function gives the findings of its kind, whatever else is wrong; decide() puts them in order.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controllers.bottleneck.facts import (
    BACKLOG,
    CURRENT,
    DEMAND,
    DESIRED,
    PROJECTED,
    REASON,
    RECOMMENDED,
    SCALING_FAILURES,
    SPENT,
    THROUGHPUT,
    UTILIZATION,
    WANTED,
    Facts,
    Finding,
    Measure,
    Method,
    Resource,
    Trace,
)
from controllers.bottleneck.machines import machines_measured
from controllers.bottleneck.measures import measured
from controllers.domain import Mode, Reason

BUSY = 0.9  # replicas
IDLE = 0.5

MONEY = (Reason.BUDGET_CAP, Reason.PERMIT_REFUSED, Reason.BUDGET_DRAIN)
MONEY_SILENT = (Reason.BUDGET_UNREACHABLE, Reason.BUDGET_LOST)
BLIND = (
    Reason.DEMAND_UNKNOWN,
    Reason.DEMAND_STALE,
    Reason.BACKLOG_UNKNOWN,
    Reason.TARGET_UNKNOWN,
    Reason.CAPACITY_UNKNOWN,
)


def needed(facts: Facts, service_seconds: float | None) -> int | None:
    """Enough for what comes, and for what waits within the promise (or the time in which replicas could be there)."""
    promise, arriving = facts.promise, _arriving(facts)
    if arriving is None or service_seconds is None:
        return None
    within = max(promise.wait_seconds, facts.lead_time() + promise.minimum_run_seconds)
    rate = arriving + (facts.now(BACKLOG) or 0.0) / within
    return max(1, math.ceil(rate * service_seconds / promise.concurrency - 1e-9))


def _arriving(facts: Facts) -> float | None:
    """Work per second. Demand is a rate over a minute and lags a rise; what is done and what piles up do not."""
    demand, done, backlog = facts.now(DEMAND), facts.now(THROUGHPUT), facts.trace(BACKLOG)
    if demand is None or done is None or backlog is None:
        return demand
    late = [sample for sample in backlog.samples if sample.at > facts.at - facts.window_seconds / 3]
    if len(late) < 2:
        return demand
    return max(demand, done + (late[-1].value - late[0].value) / (late[-1].at - late[0].at))


def replicas_measured(facts: Facts) -> Iterator[Measure]:
    """How busy they are, and how many of those that are allowed."""
    yield from measured(facts, UTILIZATION, "replicas", Method.UTILIZATION, BUSY, "ratio")
    most = facts.promise.max_replicas
    yield from measured(facts, DESIRED, "replicas", Method.UTILIZATION, most, "replicas", what="replicas.max")


def money_measured(facts: Facts) -> Iterator[Measure]:
    """Nothing for a workload without a price."""
    if facts.promise.budget is not None:
        labels = {"budget": facts.promise.budget.removeprefix("budget.")}
        yield from measured(facts, SPENT, "budget", Method.UTILIZATION, 1, "ratio", labels=labels)
        what = "of the limit at the month's end"
        yield from measured(facts, PROJECTED, "budget", Method.SATURATION, 1, "ratio", what=what, labels=labels)


def budget(facts: Facts) -> Iterator[Finding]:
    """Money that is not there, or a ledger that does not say."""
    refused, silent = facts.has_reason(*MONEY), facts.has_reason(*MONEY_SILENT)
    key = facts.promise.budget or "budget"
    if refused is not None:
        right, told = facts.now(RECOMMENDED), facts.now(DESIRED)
        counts = f"{right:g} replicas are right and " if right is not None and right != told else ""
        evidence = (*_because(facts, refused, "budget"), *money_measured(facts))
        reason = refused.labels["reason"]
        says = f"{counts}the ledger does not pay for more ({reason})"
        yield Finding(Resource.BUDGET, key, evidence, says, _raise_budget(facts, key))
    elif silent is not None:
        says = f"the ledger does not answer ({silent.labels['reason']}), so nothing may grow"
        change = "bring `tidewise budget` back: does it run, and is budget.url right?"
        yield Finding(Resource.BUDGET, key, (*_because(facts, silent, "budget"), *money_measured(facts)), says, change)


def _raise_budget(facts: Facts, key: str) -> str:
    amount, currency = facts.promise.budget_amount, facts.promise.currency
    projected = facts.now(PROJECTED, budget=key.removeprefix("budget."))
    change = f"raise {key}"
    if amount is not None:
        change += f" ({amount:,.0f} {currency} now"
        if projected is not None and projected > 1:
            change += f"; at this pace the month ends at {amount * projected:,.0f}"
        change += ")"
    return f"{change}, or make room in it: `tidewise budget statement` says what it went to"


def maximum(facts: Facts) -> Iterator[Finding]:
    """All replicas that are allowed, and all of them told. Idle ones are another matter."""
    most, told, busy = facts.promise.max_replicas, facts.now(WANTED), facts.now(UTILIZATION)
    evidence = tuple(replicas_measured(facts))
    full = any(m.unit == "replicas" and m.since is not None for m in evidence)
    if not full or told is None or told < most or (busy is not None and busy < IDLE):
        return
    seconds, current = facts.service_seconds(), facts.now(CURRENT)
    enough = needed(facts, seconds)
    if enough is not None and current is not None and current < told and enough <= most:
        return  # they are enough, once they have started
    change, more = f"raise replicas.max from {most}", None
    if enough is not None:
        more = max(most + 1, enough)
        waiting = facts.now(BACKLOG)
        also = "" if waiting is None else f" and {waiting:g} that wait or are under way"
        change += f" to {more}: {_arriving(facts):.3g} items/s{also}, {seconds:.3g} s each, need {enough}"
        change += _on_the_machines(facts, more / max(1, most))
    says = f"replicas.max allows {most}, and so many are told"
    yield Finding(Resource.MAX_REPLICAS, "", evidence, says, change, more)


def _on_the_machines(facts: Facts, growth: float) -> str:
    found = [m for m in machines_measured(facts) if m.resource.endswith(" cpu") and m.method is Method.UTILIZATION]
    fullest = max(found, key=lambda m: m.value, default=None)
    if fullest is None or fullest.value * growth <= BUSY:
        return ""
    return f". {fullest.resource} is at {fullest.value:.0%} already: it may be the next limit"


def scaling(facts: Facts, waits: bool) -> Iterator[Finding]:
    """Replicas that were decided and do not come, or that are not decided although work waits."""
    promise = facts.promise
    current, wanted, desired, right = (facts.now(name) for name in (CURRENT, WANTED, DESIRED, RECOMMENDED))
    failed, blind, limited = (facts.has_reason(*r) for r in ((Reason.ACTION_FAILED,), BLIND, (Reason.RATE_LIMIT,)))
    failures = tuple(measured(facts, SCALING_FAILURES, "scaling", Method.ERRORS, 1, "attempts"))
    if failed is not None or any(m.since is not None for m in failures):
        says, change = "the target could not be told", "`tidewise why` quotes its answer; runbook ScalingActionFailed"
        yield _scaling((*_because(facts, failed, "scaling"), *failures), says, change)
    elif blind is not None:
        says = f"the scaler cannot decide ({blind.labels['reason']})"
        yield _scaling(_because(facts, blind, "scaling"), says, "`tidewise check` names the series that is missing")
    elif promise.mode is not Mode.ACT and desired is not None and wanted is not None and desired > wanted:
        says = f"{desired:g} replicas are right and {wanted:g} are told: the mode is {promise.mode.value}"
        change = f"tell the target {desired:g} by hand, or set the workload's mode to act"
        yield _scaling(_above(facts, DESIRED, wanted), says, change)
    elif (missing := _missing(facts)) is not None:
        if missing.seconds <= 2 * missing.lead_seconds:
            says = (
                f"{missing.count:g} of {missing.asked:g} replicas are starting; it takes {missing.lead_seconds:.0f} s"
            )
            left = max(0.0, missing.lead_seconds - missing.seconds)
            change = f"wait {left:.0f} s; if it is often so, shorten the start or raise replicas.min"
            yield _scaling(missing.evidence, says, change)
    elif limited is not None and right is not None and desired is not None and right > desired:
        says = f"{right:g} replicas are right and {desired:g} may be told by now: limits.up_per_minute binds"
        change = f"raise limits.up_per_minute (now {promise.up_per_minute})"
        yield _scaling(_because(facts, limited, "scaling"), says, change)
    elif waits and facts.has_reason(*MONEY, *MONEY_SILENT) is None:
        busy = tuple(m for m in replicas_measured(facts) if m.unit == "ratio" and m.since is not None)
        if busy and desired is not None and current is not None and desired <= current < promise.max_replicas:
            says = f"every replica is busy, and the scaler holds {desired:g} for enough"
            change = "`tidewise why` has its numbers; is capacity.concurrency right?"
            if facts.has_reason(Reason.MAX_REPLICAS) is not None:
                says = (
                    f"the last decision was bound by a maximum of {desired:g}; replicas.max is {promise.max_replicas}"
                )
                change = (
                    "restart `tidewise scale`, so that it reads this configuration; if it was, wait for its decision"
                )
            yield _scaling(busy, says, change)


def absent(facts: Facts) -> Iterator[Finding]:
    """Replicas that were asked for long ago and do not work: no number that is told will help."""
    missing = _missing(facts, told_only=True)
    if missing is not None and missing.seconds > 2 * missing.lead_seconds:
        says = (
            f"{missing.count:g} of {missing.asked:g} replicas have not come in {missing.seconds:.0f} s; "
            f"a start takes {missing.lead_seconds:.0f} s"
        )
        change = "look at the target: has it room, quota and the image for them, and do they start?"
        yield _scaling(missing.evidence, says, change)


@dataclass(frozen=True, slots=True)
class _Missing:
    """Replicas that were asked for and do not work yet. `seconds`: for how long the first of them."""

    asked: float
    count: float
    seconds: float
    lead_seconds: float
    evidence: tuple[Measure, ...]


def _missing(facts: Facts, *, told_only: bool = False) -> _Missing | None:
    current, wanted, desired = (facts.now(name) for name in (CURRENT, WANTED, DESIRED))
    if current is None or wanted is None:
        return None
    # What was decided is on its way to the target, which will have been told it by the next decision.
    asked, name = wanted, WANTED
    if not told_only and facts.promise.mode is Mode.ACT and desired is not None and desired > wanted:
        asked, name = desired, DESIRED
    if asked <= current:
        return None
    evidence = _above(facts, name, current)
    since = max((m.since for m in evidence if m.since is not None), default=facts.at)
    return _Missing(asked, asked - current, facts.at - since, facts.lead_time(), evidence)


def workers(facts: Facts, felt: Sequence[Measure]) -> Iterator[Finding]:
    """Replicas that count as working and do little while work waits."""
    busy, current, done = facts.now(UTILIZATION), facts.now(CURRENT), facts.now(THROUGHPUT)
    waits = tuple(m for m in felt if m.method is Method.SATURATION)
    stuck = done == 0 and (facts.now(BACKLOG) or 0) > 0
    if not (facts.promise.is_queue and waits and current):
        return
    if stuck or (busy is not None and busy < IDLE):
        does = "finish nothing" if stuck or busy is None else f"are busy {busy:.0%} of the time"
        evidence = (*waits, *(m for m in replicas_measured(facts) if m.unit == "ratio"))
        change = (
            "look at the workers: do they hang, do they take from this queue, does one do capacity.concurrency at once?"
        )
        yield Finding(Resource.WORKERS, "", evidence, f"{current:g} replicas {does} while work waits", change)


def _scaling(evidence: Sequence[Measure], says: str, change: str) -> Finding:
    return Finding(Resource.SCALING, "", tuple(evidence), says, change)


def _above(facts: Facts, name: str, there: float) -> tuple[Measure, ...]:
    what = f"there are {there:g}"
    return tuple(measured(facts, name, "scaling", Method.SATURATION, math.floor(there) + 1, "replicas", what=what))


def _because(facts: Facts, trace: Trace | None, resource: str) -> tuple[Measure, ...]:
    """The reason of the last decision as evidence."""
    if trace is None:
        return ()
    what = "a reason of the last decision"
    labels = {"reason": trace.labels["reason"]}
    return tuple(measured(facts, REASON, resource, Method.SATURATION, 1, "", what=what, labels=labels))
