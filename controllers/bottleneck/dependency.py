"""What lies behind the replicas: work that got slower, fails, or does not get faster with more of them. Pure."""

from collections.abc import Iterator

from controllers.bottleneck.facts import (
    BACKLOG,
    CURRENT,
    FAILURES,
    SERVICE_SECONDS,
    THROUGHPUT,
    Facts,
    Finding,
    Measure,
    Method,
    Resource,
)
from controllers.bottleneck.measures import measured

FAILING = 0.05
SLOWER = 1.5  # than usual
GREW = 1.25  # replicas, for "more of them brought no more"


def slower(facts: Facts, resource: str) -> Iterator[Measure]:
    """The time that one piece of work takes against its own usual; nothing where no usual is known."""
    usual = facts.usual_service_seconds
    if usual:
        what = f"{SLOWER:g} times its usual {usual:.3g} s"
        yield from measured(facts, SERVICE_SECONDS, resource, Method.SATURATION, SLOWER * usual, "s", what=what)


def failing(facts: Facts) -> Iterator[Measure]:
    """Of the finished work, what failed."""
    yield from measured(facts, FAILURES, "work", Method.ERRORS, FAILING, "ratio")


def slow(facts: Facts) -> Iterator[Finding]:
    """Slower than usual. Whether a full machine explains it is for decide() to say."""
    evidence = tuple(m for m in slower(facts, "dependency") if m.since is not None)
    if evidence:
        times = evidence[0].value / (facts.usual_service_seconds or 1.0)
        yield Finding(
            Resource.DEPENDENCY,
            "",
            evidence,
            f"one piece of work takes {times:.1f} times as long as usual",
            "look at what the work calls (database, API, another machine's disk): its latency, its limits, its errors; "
            "more replicas wait for it as well",
        )


def fails(facts: Facts) -> Iterator[Finding]:
    """Too much of it fails."""
    evidence = tuple(m for m in failing(facts) if m.since is not None)
    if evidence:
        yield Finding(
            Resource.DEPENDENCY,
            "",
            evidence,
            f"{evidence[0].value:.0%} of the finished work failed",
            "read the workers' log for the error that repeats; what fails and is tried again takes capacity twice",
        )


def in_vain(facts: Facts) -> Iterator[Finding]:
    """More replicas than at the window's beginning, work waiting at both ends, and hardly more of it done."""
    replicas, done, waiting = (facts.thirds(name) for name in (CURRENT, THROUGHPUT, BACKLOG))
    trace = facts.trace(THROUGHPUT)
    if not facts.promise.is_queue or trace is None or replicas is None or done is None or waiting is None:
        return
    if min(*replicas, done[0], *waiting) <= 0 or replicas[1] < GREW * replicas[0] or waiting[1] < waiting[0]:
        return
    growth, gained = replicas[1] / replicas[0], done[1] / done[0]
    if gained - 1 >= (growth - 1) / 4:
        return
    due = done[0] * growth
    what = f"as much as {replicas[1]:g} replicas should do, if {replicas[0]:g} did {done[0]:.3g}"
    start = facts.at - facts.window_seconds
    pressure = growth / max(0.01, gained)
    yield Finding(
        Resource.DEPENDENCY,
        "",
        (Measure("dependency", Method.SATURATION, trace.name, done[1], due, "items/s", pressure, start, True, what),),
        f"{replicas[1]:g} replicas do no more than {replicas[0]:g} did, while work waits",
        "look at what all of them share (database connections, an API's rate limit, a lock); until that is raised, "
        "the additional ones only cost",
    )
