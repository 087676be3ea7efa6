"""A series held against its threshold: how near, since when. Pure."""

from collections.abc import Iterator, Mapping

from controllers.bottleneck.facts import Facts, Measure, Method, Trace


def measured(
    facts: Facts,
    name: str,
    resource: str,
    method: Method,
    threshold: float,
    unit: str,
    *,
    what: str = "",
    low: bool = False,
    labels: Mapping[str, str] | None = None,
) -> Iterator[Measure]:
    """Each known series of that name and labels. `low`: the limit is beneath, such as room that is left."""
    for trace in facts.traces(name, **(labels or {})):
        value = facts.late(trace)
        if low:
            pressure = threshold / value if value > 0 else float("inf")
        else:
            pressure = value / threshold if threshold > 0 else float("inf")
        since = _since(trace, threshold, low) if pressure >= 1 else None
        start = trace.samples[0].at
        at_least = since is not None and since <= start <= facts.at - 0.9 * facts.window_seconds
        yield Measure(resource, method, trace.name, value, threshold, unit, pressure, since, at_least, what)


def _since(trace: Trace, threshold: float, low: bool) -> float:
    """The beginning of the last stretch beyond the threshold; a single sample on the other side does not end it."""
    since, misses = trace.samples[-1].at, 0
    for sample in reversed(trace.samples):
        if sample.value <= threshold if low else sample.value >= threshold:
            since, misses = sample.at, 0
        else:
            misses += 1
            if misses > 1:
                break
    return since
