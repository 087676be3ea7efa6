"""The controllers' sections of tidewise.yaml, as pydantic models: they check, they never change what was written."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from controllers.config.aws import AwsInstances, AwsTarget
from controllers.config.between_targets import target_mistakes
from controllers.config.budget import Budget, FixedCost, Gross, ModelPrice, ReplicaHold, Unit
from controllers.config.calendar import AnnouncedEvent, CalendarSection, DemandFloor
from controllers.config.docker import DockerTarget
from controllers.config.processes import ForecastSection, Prometheus, ScaleSection, Tls
from controllers.config.publish import ExternalMetrics, ExternalScaler, PublishTarget
from controllers.config.recovery import RecoverySection
from controllers.config.targets import (
    Cluster,
    CommandTarget,
    KubernetesObject,
    KubernetesTarget,
    Lease,
    PartTarget,
    Target,
)
from controllers.config.values import Count, HttpUrl, Money, MoneyText, Name, Number, Text, TimeZone
from controllers.config.workloads import (
    Bounds,
    Capacity,
    CheapHours,
    Demand,
    ExtraDemand,
    Limits,
    Price,
    ScheduleFloor,
    Slo,
    Workload,
)
from exporters.runtime.config import ConfigError, Section, nearest, read_yaml, validate

__all__ = [
    "HOURS_PER_MONTH",
    "AnnouncedEvent",
    "AwsInstances",
    "AwsTarget",
    "Bounds",
    "Budget",
    "CalendarSection",
    "Capacity",
    "CheapHours",
    "Cluster",
    "CommandTarget",
    "Config",
    "ConfigError",
    "Count",
    "Demand",
    "DemandFloor",
    "DockerTarget",
    "ExternalMetrics",
    "ExternalScaler",
    "ExtraDemand",
    "FixedCost",
    "ForecastSection",
    "Gross",
    "HttpUrl",
    "KubernetesObject",
    "KubernetesTarget",
    "Lease",
    "Limits",
    "ModelPrice",
    "Money",
    "MoneyText",
    "Name",
    "Number",
    "PartTarget",
    "Price",
    "Prometheus",
    "PublishTarget",
    "ReplicaHold",
    "ScaleSection",
    "ScheduleFloor",
    "Slo",
    "Target",
    "Text",
    "TimeZone",
    "Tls",
    "Unit",
    "Workload",
    "contradictions",
    "load",
]

HOURS_PER_MONTH = Decimal("744")  # the longest month: a floor must be affordable in July too


class Config(Section):
    """The whole file as the controllers see it; the exporters' section is theirs to read."""

    prometheus: Prometheus = Prometheus()
    exporters: dict[str, Any] | None = None
    workloads: list[Workload] = []
    forecast: ForecastSection = ForecastSection()
    scale: ScaleSection = ScaleSection()
    budget: Budget | None = None
    recovery: RecoverySection | None = None

    def workload(self, name: str) -> Workload | None:
        """By identity, or by bare name where only one namespace has it."""
        return _named(self.workloads, name)

    def unknown(self, name: str) -> str:
        """What to say where `workload(name)` is None: several have the name, or a nearer one is meant."""
        several = [w.identity for w in self.workloads if w.name == name]
        if several:
            return f"several workloads are called '{name}': write {' or '.join(several)}"
        known = [w.identity if "/" in name else w.name for w in self.workloads]
        return f"no workload '{name}'{nearest(name, list(dict.fromkeys(known)))}"

    def signals(self) -> list[Workload]:
        """All demands, further ones (`also`) included, each as if it were a workload: what is measured and forecast."""
        return [signal for workload in self.workloads for signal in workload.signals()]

    def signal(self, name: str) -> Workload | None:
        """One of `signals()`, by identity (namespace/workload/name) or without the namespace where that is enough."""
        return _named(self.signals(), name)


def _named(workloads: list[Workload], name: str) -> Workload | None:
    found = [w for w in workloads if name in (w.identity, w.name)]
    return found[0] if len(found) == 1 else next((w for w in found if w.identity == name), None)


def load(path: Path) -> Config:
    """Raises ConfigError: every mistake of the file, and what cannot be although each value alone is right."""
    config = validate(Config, read_yaml(path), path)
    problems = list(contradictions(config))
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return config


def contradictions(config: Config) -> list[str]:
    """Mistakes that only show between sections: twins, and floors dearer than the budget."""
    problems: list[str] = []
    seen: dict[str, int] = {}
    for index, workload in enumerate(config.workloads):
        if workload.identity in seen:
            problems.append(
                f"workloads.{index}.name: '{workload.identity}' stands twice "
                f"(also workloads.{seen[workload.identity]}); rename one or give it a namespace"
            )
        seen.setdefault(workload.identity, index)
    problems += target_mistakes(config.workloads, config.budget is not None)
    return problems + _deadlines(config) + _strangers(config) + _floors(config)


def _deadlines(config: Config) -> list[str]:
    """Work that can wait waits in a queue: of anything else nobody knows how much has to be done."""
    found = [
        (f"workloads.{index}" + (f".also.{number - 1}" if number else ""), signal)
        for index, workload in enumerate(config.workloads)
        for number, signal in enumerate(workload.signals())
    ]
    return [
        f"{place}.slo.deadline: found {signal.slo.deadline} without a queue; "
        "only work that waits in a queue can have a deadline, write wait_seconds"
        for place, signal in found
        if signal.slo.deadline is not None and signal.demand.queue is None
    ]


def _strangers(config: Config) -> list[str]:
    """Workloads that recovery names and nobody knows."""
    known = [workload.identity for workload in config.workloads]
    targets = config.recovery.targets if config.recovery else []
    return [
        f"recovery.targets.{index}.workload: found '{target.workload}', which is no workload; "
        f"known: {', '.join(known) or 'none'} (write namespace/name)"
        for index, target in enumerate(targets)
        if target.workload is not None and target.workload not in known
    ]


def _floors(config: Config) -> list[str]:
    budget = config.budget
    if budget is None:
        return []
    problems: list[str] = []
    limit, limit_name = (budget.usage, "budget.usage") if budget.usage else (budget.total, "budget.total")
    for index, fixed in enumerate(budget.fixed):
        if fixed.monthly.currency != budget.total.currency:
            problems.append(
                f"budget.fixed.{index}.monthly: found {fixed.monthly}; "
                f"the budget is in {budget.total.currency}, write it in that"
            )
    if budget.usage and budget.usage.currency != budget.total.currency:
        problems.append(
            f"budget.usage: found {budget.usage}; "
            f"budget.total is in {budget.total.currency}, write both in one currency"
        )
    if problems:
        return problems
    committed = sum((f.monthly.amount for f in budget.fixed), Decimal(0))
    if committed + (budget.usage.amount if budget.usage else Decimal(0)) > budget.total.amount:
        problems.append(
            f"budget.total: found {budget.total}; fixed costs and usage add up to more: raise it or lower them"
        )
    floor = Decimal(0)
    for index, workload in enumerate(config.workloads):
        if workload.price is None:
            continue
        price = workload.price.per_replica_hour
        if price.currency != limit.currency:
            continue  # converted by the ledger, which knows the day's rate
        floor += workload.replicas.min * price.amount * HOURS_PER_MONTH
        if floor > limit.amount:
            problems.append(
                f"workloads.{index}.replicas.min: found {workload.replicas.min}; "
                f"the floors so far cost {floor:,.0f} {limit.currency} a month "
                f"({price} an hour x {HOURS_PER_MONTH} hours), "
                f"more than {limit_name} ({limit}); lower min or raise the budget"
            )
    return problems
