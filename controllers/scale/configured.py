"""What the configuration says about a workload, as decide() wants it."""

from controllers.config import Config, Workload
from controllers.config.values import seconds_of
from controllers.scale.schedule import Hours
from controllers.scale.state import Rules, SignalRules


def rules_of(workload: Workload, config: Config) -> Rules:
    """The rules of one workload."""
    price = workload.price
    return Rules(
        workload=workload.identity,
        is_queue=workload.demand.queue is not None,
        min_replicas=workload.replicas.min,
        max_replicas=workload.replicas.max,
        wait_seconds=workload.slo.wait_seconds,
        objective=workload.slo.objective,
        concurrency=workload.capacity.concurrency,
        service_seconds=workload.capacity.service_seconds,
        lead_time_seconds=workload.lead_time_seconds,
        minimum_run_seconds=workload.minimum_run_seconds,
        stabilization_window_seconds=workload.stabilization_window_seconds,
        up_per_minute=workload.limits.up_per_minute,
        down_per_minute=workload.limits.down_per_minute,
        interval_seconds=config.scale.interval_seconds,
        data_age_limit_seconds=config.scale.data_age_limit_seconds,
        mode=workload.mode,
        deadline_seconds=seconds_of(workload.slo.deadline) if workload.slo.deadline else None,
        price_per_replica_hour=float(price.per_replica_hour.amount) if price else None,
        price_per_late_job=float(price.per_late_job.amount) if price and price.per_late_job else None,
        start_seconds=workload.start_seconds,
        shortage=float(price.per_short_hour.amount / price.per_replica_hour.amount)
        if price and price.per_short_hour and price.per_replica_hour.amount
        else None,
        more=tuple(_signal_rules(signal) for signal in workload.signals()[1:]),
    )


def _signal_rules(signal: Workload) -> SignalRules:
    return SignalRules(
        name=signal.identity,
        is_queue=signal.demand.queue is not None,
        wait_seconds=signal.slo.wait_seconds,
        objective=signal.slo.objective,
        concurrency=signal.capacity.concurrency,
        service_seconds=signal.capacity.service_seconds,
        deadline_seconds=seconds_of(signal.slo.deadline) if signal.slo.deadline else None,
    )


def zone_of(workload: Workload, config: Config) -> str:
    """The zone of its hours: its own, else the budget's, else UTC."""
    return workload.time_zone or (config.budget.time_zone if config.budget else "UTC")


def floors_of(workload: Workload, config: Config) -> tuple[tuple[Hours, int], ...]:
    """Its schedule: hours, and the least replicas within them."""
    zone = zone_of(workload, config)
    return tuple((Hours(one.cron, seconds_of(one.length), zone), one.min) for one in workload.schedule)


def cheap_of(workload: Workload, config: Config) -> tuple[Hours, ...]:
    """Hours in which a replica costs less than usual."""
    if workload.price is None:
        return ()
    zone, usual = zone_of(workload, config), workload.price.per_replica_hour.amount
    return tuple(
        Hours(one.cron, seconds_of(one.length), zone)
        for one in workload.price.cheap
        if one.per_replica_hour.amount < usual
    )
