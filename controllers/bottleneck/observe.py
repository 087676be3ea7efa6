"""Reads the facts: a range query a contract series, of this workload, its queue, its budget, and of every machine."""

import time
from collections.abc import Callable, Iterable, Iterator

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
    GPU_MEMORY,
    GPU_THROTTLED,
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
    Facts,
    Promise,
    Trace,
)
from controllers.config import Config, Workload
from controllers.rules import expressions
from controllers.sources.prometheus import Series, Source

OF_THE_WORKLOAD = (
    DEMAND,
    CENSORED,
    THROUGHPUT,
    BACKLOG,
    AGE,
    SERVICE_SECONDS,
    FAILURES,
    DATA_AGE,
    CURRENT,
    WANTED,
    DESIRED,
    RECOMMENDED,
    REASON,
    LEAD_TIME,
    # these are made of others: there is no expression over raw metrics to fall back on
    UTILIZATION,
    SCALING_FAILURES,
)
OF_ANY_MACHINE = (
    NODE_CPU,
    NODE_MEMORY,
    NODE_PRESSURE,
    NODE_DISK,
    NODE_FILESYSTEM,
    GPU_BUSY,
    GPU_MEMORY,
    GPU_THROTTLED,
)
POINTS = 60  # of a window
USUAL_DAYS = 7
USUAL_SAMPLES = 100  # fewer tell of no usual
DEADLINE_SECONDS = 30.0


def observe(source: Source, config: Config, workload: Workload, at: float, window_seconds: float) -> Facts:
    """Everything that is known of the window that ends at `at`. Raises SourceError when Prometheus tells nothing.

    A series that the server answered only in part is unknown: a part of a sum is not the sum.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS

    def left() -> float:
        return max(0.1, deadline - time.monotonic())

    step = max(1.0, round(window_seconds / POINTS))
    start = at - window_seconds
    fallbacks = expressions(config)
    who = workload.identity
    found: dict[str, tuple[Trace, ...]] = {}
    for name in OF_THE_WORKLOAD:
        asked = f'{name}{{workload="{who}"}}'
        expr = fallbacks.get(name, {}).get(who)
        instead = {asked: {who: expr}} if expr else {}
        reading = source.contract_range([asked], instead, start, at, step, deadline_seconds=left())[asked]
        found[name] = () if reading.warnings else tuple(_traces(name, reading.series.get(who, ())))
    asked_of_all = {name: name for name in OF_ANY_MACHINE} | _asked_of_its_own(workload, config)
    for name, asked in asked_of_all.items():
        answered = source.range(asked, start, at, step, left())
        found[name] = () if answered.warnings else tuple(_traces(name, answered))
    return Facts(who, at, window_seconds, promise(workload, config), found, _usual(source, who, start, left))


def promise(workload: Workload, config: Config) -> Promise:
    """What the configuration says."""
    budget = config.budget
    key, money = None, None
    if workload.price is not None and budget is not None:
        key, money = ("budget.usage", budget.usage) if budget.usage else ("budget.total", budget.total)
    return Promise(
        is_queue=workload.demand.queue is not None,
        is_service=workload.demand.service is not None,
        max_replicas=workload.replicas.max,
        concurrency=workload.capacity.concurrency,
        wait_seconds=workload.slo.wait_seconds,
        mode=workload.mode,
        lead_time_seconds=workload.lead_time_seconds,
        minimum_run_seconds=workload.minimum_run_seconds,
        up_per_minute=workload.limits.up_per_minute,
        service_seconds=workload.capacity.service_seconds,
        data_age_limit_seconds=config.scale.data_age_limit_seconds,
        budget=key,
        budget_amount=float(money.amount) if money else None,
        currency=money.currency if money else "",
    )


def _asked_of_its_own(workload: Workload, config: Config) -> dict[str, str]:
    """Series of its queue and of the budget that pays for it."""
    demand = workload.demand
    asked = {}
    if demand.queue is not None:
        asked[DRAIN] = f"{DRAIN}{{system={_quoted(demand.system)},queue={_quoted(demand.queue)}}}"
    if config.budget is not None:
        asked |= {name: name for name in (SPENT, PROJECTED)}
    return asked


def _usual(source: Source, workload: str, before: float, left: Callable[[], float]) -> float | None:
    """The median service time of the days before the window, where there were enough of them."""
    matched = f'{SERVICE_SECONDS}{{workload="{workload}"}}[{USUAL_DAYS}d]'
    enough = f"(count_over_time({matched}) >= {USUAL_SAMPLES})"
    found = source.by_workload(f"quantile_over_time(0.5, {matched}) and {enough}", before, left())
    sample = found.get(workload)
    return sample.value if sample is not None and sample.value > 0 else None


def _traces(name: str, answered: Iterable[Series]) -> Iterator[Trace]:
    for series in answered:
        labels = {key: text for key, text in series.labels.items() if key != "__name__"}
        inside = ",".join(f"{key}={_quoted(text)}" for key, text in sorted(labels.items()))
        yield Trace(f"{name}{{{inside}}}", labels, series.samples)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
