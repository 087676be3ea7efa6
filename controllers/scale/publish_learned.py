"""What the scaler works with on /metrics, each number with its source: learned, or configured until it is."""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from controllers.scale.records import Record
from controllers.scale.state import Rules, Signal, SignalRules, State


def learned(currencies: Mapping[str, str], records: Sequence[Record]) -> Iterator[Metric]:
    """Of each workload, and of each further demand under its own name. `currencies`: by workload with a price."""
    service, concurrency, capacity, billing, start = (
        GaugeMetricFamily(f"tidewise_scale_{name}", text, labels=["workload", "source"])
        for name, text in (
            ("service_seconds", "Mean time one piece of work takes, as used."),
            ("concurrency", "Pieces of work that one replica does at once, as used."),
            ("capacity_per_second", "Pieces of work that one replica does in a second, as used."),
            ("minimum_billing_seconds", "For how long a replica is paid at least, as used."),
            ("start_seconds", "Replica-seconds that are paid for before a replica's first work, as used."),
        )
    )
    cost = GaugeMetricFamily(
        "tidewise_scale_start_cost",
        "What a replica costs before its first work, in the currency of its price.",
        labels=["workload", "currency"],
    )
    bound = GaugeMetricFamily(
        "tidewise_scale_replicas_bound",
        "Replicas beyond which throughput did not grow, because of what is behind them; absent where none are known.",
        labels=["workload"],
    )
    for record in records:
        state, rules = record.state, record.rules
        signals: list[tuple[str, State | Signal, Rules | SignalRules]] = [(rules.workload, state, rules)]
        signals += [(of.name, signal, of) for signal, of in zip(state.more, rules.more, strict=True)]
        for name, signal, of in signals:
            seconds = _used(service, name, signal.service_seconds, of.service_seconds)
            at_once = _used(concurrency, name, signal.concurrency, of.concurrency)
            if seconds and at_once:
                source = "configured" if signal.service_seconds is None and signal.concurrency is None else "learned"
                capacity.add_metric([name, source], at_once / seconds)
        billing.add_metric([rules.workload, "configured"], rules.minimum_run_seconds)
        usual = rules.lead_time_seconds if rules.start_seconds is None else rules.start_seconds
        paid = _used(start, rules.workload, state.start_seconds, usual)
        if paid is not None and rules.price_per_replica_hour is not None and rules.workload in currencies:
            amount = paid / 3600.0 * rules.price_per_replica_hour
            cost.add_metric([rules.workload, currencies[rules.workload]], amount)
        if state.bound is not None:
            bound.add_metric([rules.workload], state.bound)
    yield from (service, concurrency, capacity, billing, start, cost, bound)


def _used(family: GaugeMetricFamily, name: str, found: float | None, configured: float | None) -> float | None:
    value = configured if found is None else found
    if value is not None:
        family.add_metric([name, "configured" if found is None else "learned"], value)
    return value
