"""The scaler's own series and landing page: every value it decided, of the last step."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controllers.domain import Mode, Reason
from controllers.scale.landing import Row, page
from controllers.scale.overrides import kind_of
from controllers.scale.publish_learned import learned
from controllers.scale.records import Record
from controllers.scale.state import Decision, LeadTime


@dataclass(frozen=True, slots=True)
class Shown:
    """One workload of the last step. `problem`: why something is unknown, in a sentence.

    `retry_seconds`: in how long the target is told again that refused before; None: it need not wait.
    """

    record: Record
    lead_time: LeadTime | None
    problem: str | None
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Of the process as a whole. None: it seeks no lease; nothing has a price."""

    leads: bool | None = None
    ledger_silent_seconds: float | None = None
    ledger_problem: str | None = None
    overrides_problem: str | None = None


class Published(Collector):
    """Collects from the last whole step; a workload that left the configuration leaves the page."""

    def __init__(self, currencies: Mapping[str, str] | None = None) -> None:
        """`currencies`: by workload with a price."""
        self._currencies = currencies or {}
        self._shown: dict[str, Shown] = {}
        self._decisions: Counter[tuple[str, str]] = Counter()
        self._actions: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[str] = Counter()
        self._source_errors: Counter[str] = Counter()
        self._source_up: bool | None = None
        self._standing = Standing()

    def replace(self, shown: dict[str, Shown], standing: Standing = Standing()) -> None:
        """Takes the outcome of a step."""
        for workload, one in shown.items():
            for reason in one.record.decision.reasons:
                self._decisions[workload, reason.value] += 1
            outcome = one.record.outcome
            failed = outcome in (Reason.ACTION_FAILED, Reason.NO_CAPACITY)
            if one.retry_seconds is None and (one.record.told is not None or failed):
                self._actions[workload, "failure" if failed else "success"] += 1
            if outcome is Reason.PERMIT_REFUSED:
                self._refused[workload] += 1
        self._shown, self._standing = shown, standing

    def needed(self, workload: str) -> int | None:
        """What the workload's last decision held to be needed; a surge is on top of it."""
        one = self._shown.get(workload)
        return one.record.decision.recommended if one else None

    def source_answered(self, error_kind: str | None) -> None:
        """Whether Prometheus answered in this step; the kind of error if not."""
        self._source_up = error_kind is None
        if error_kind is not None:
            self._source_errors[error_kind] += 1

    def collect(self) -> Iterator[Metric]:
        shown = dict(self._shown)
        for name, text, value in _GAUGES:
            family = GaugeMetricFamily(f"tidewise_scale_{name}", text, labels=["workload"])
            for workload, one in shown.items():
                number = value(one.record.decision)
                if number is not None:
                    family.add_metric([workload], number)
            yield family
        yield from self._lead_times(shown)
        yield from learned(self._currencies, [one.record for one in shown.values()])
        retry = GaugeMetricFamily(
            "tidewise_scale_retry_seconds",
            "In how long a target is told again that refused before; absent where it need not wait.",
            labels=["workload"],
        )
        for workload, one in shown.items():
            if one.retry_seconds is not None:
                retry.add_metric([workload], one.retry_seconds)
        yield retry
        yield self._parts(shown)
        yield self._reasons(shown)
        decisions = CounterMetricFamily(
            "tidewise_scale_decisions", "Decisions, by each of their reasons.", labels=["workload", "reason"]
        )
        for (workload, reason), count in self._decisions.items():
            decisions.add_metric([workload, reason], count)
        yield decisions
        actions = CounterMetricFamily(
            "tidewise_scale_actions", "Numbers told to targets, by result.", labels=["workload", "result"]
        )
        for workload in shown:
            for result in ("success", "failure"):
                actions.add_metric([workload, result], self._actions[workload, result])
        yield actions
        yield from self._people(shown)
        yield from self._money(shown)
        yield from self._source()

    def _people(self, shown: dict[str, Shown]) -> Iterator[Metric]:
        """What people asked for, and what they are asked to do: only where there is something."""
        overrides = GaugeMetricFamily(
            "tidewise_scale_override",
            "Overrides in force: replicas more of kind surge, 1 for a pause.",
            labels=["workload", "kind"],
        )
        recommended = GaugeMetricFamily(
            "tidewise_scale_recommendation",
            "What people are asked to set, while the mode is recommend and it is something else than there is.",
            labels=["workload"],
        )
        for workload, one in shown.items():
            found: Counter[str] = Counter()
            for override in one.record.state.overrides:
                kind = kind_of(override)
                found[kind] = found[kind] + override.surge if override.surge else 1
            for kind, value in found.items():
                overrides.add_metric([workload, kind], value)
            decision = one.record.decision
            if one.record.rules.mode is Mode.RECOMMEND and decision.desired not in (None, decision.current):
                recommended.add_metric([workload], float(decision.desired or 0))
        yield overrides
        yield recommended

    def _money(self, shown: dict[str, Shown]) -> Iterator[Metric]:
        """Only of workloads with a price: what the ledger pays for, and what money took away."""
        for name, text, value in _MONEY:
            family = GaugeMetricFamily(f"tidewise_scale_{name}", text, labels=["workload"])
            for workload, one in shown.items():
                number = value(one.record)
                if number is not None:
                    family.add_metric([workload], number)
            yield family
        refused = CounterMetricFamily(
            "tidewise_scale_permits_refused",
            "Decisions that were carried out in part or not at all, because the ledger refused to hold the money.",
            labels=["workload"],
        )
        for workload, one in shown.items():
            if one.record.state.money is not None:
                refused.add_metric([workload], self._refused[workload])
        yield refused
        standing = self._standing
        if standing.ledger_silent_seconds is not None:
            yield GaugeMetricFamily(
                "tidewise_scale_ledger_up",
                "Whether the ledger answered in the last step.",
                value=float(standing.ledger_problem is None),
            )
            yield GaugeMetricFamily(
                "tidewise_scale_ledger_silent_seconds",
                "Since when the ledger has not answered; 0 while it does.",
                value=standing.ledger_silent_seconds,
            )
        if standing.leads is not None:
            yield GaugeMetricFamily(
                "tidewise_scale_leader", "Whether this process holds the lease and acts.", value=float(standing.leads)
            )

    def _lead_times(self, shown: dict[str, Shown]) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "tidewise_scale_lead_time_seconds",
            "From asking for a replica to its first work, as learned.",
            labels=["workload", "quantile"],
        )
        for workload, one in shown.items():
            if one.lead_time is not None:
                family.add_metric([workload, "0.5"], one.lead_time.median)
                family.add_metric([workload, "0.9"], one.lead_time.high)
        yield family

    def _parts(self, shown: dict[str, Shown]) -> Metric:
        family = GaugeMetricFamily(
            "tidewise_scale_part_replicas",
            "Replicas of each target, where a workload has several; draining ones are on top of the wanted.",
            labels=["workload", "part", "state"],
        )
        for workload, one in shown.items():
            replicas = one.record.state.replicas
            for part in replicas.parts if replicas else ():
                for state, count in (("wanted", part.wanted), ("ready", part.ready), ("draining", part.draining)):
                    family.add_metric([workload, part.name, state], count)
        return family

    def _reasons(self, shown: dict[str, Shown]) -> Metric:
        family = GaugeMetricFamily(
            "tidewise_scale_decision_reason", "1 for each reason of the last decision.", labels=["workload", "reason"]
        )
        for workload, one in shown.items():
            for reason in dict.fromkeys((*one.record.decision.reasons, one.record.outcome)):
                family.add_metric([workload, reason.value], 1)
        return family

    def _source(self) -> Iterator[Metric]:
        if self._source_up is not None:
            yield GaugeMetricFamily(
                "tidewise_source_up", "Whether Prometheus answered in the last step.", value=float(self._source_up)
            )
        errors = CounterMetricFamily(
            "tidewise_source_errors", "Steps in which Prometheus did not answer, by kind.", labels=["kind"]
        )
        for kind, count in self._source_errors.items():
            errors.add_metric([kind], count)
        yield errors

    def landing(self) -> str:
        """The workloads now, as HTML."""
        standing = self._standing
        told = {"The ledger does not answer": standing.ledger_problem, "The overrides": standing.overrides_problem}
        rows = {workload: Row(one.record, one.problem) for workload, one in self._shown.items()}
        return page(rows, time.time(), {what: why for what, why in told.items() if why})


_GAUGES: tuple[tuple[str, str, Callable[[Decision], float | None]], ...] = (
    ("replicas_wanted", "What the target was last told, before this decision.", lambda d: d.current),
    ("replicas_ready", "Replicas that work.", lambda d: d.ready),
    ("replicas_desired", "What the decision came to.", lambda d: d.desired),
    ("replicas_recommended", "What it was before rate limits and stabilisation.", lambda d: d.recommended),
    ("replicas_needed", "What the window of the decision needs, before anything bounds it.", lambda d: d.needed),
    ("replicas_reactive", "What present demand alone would ask for.", lambda d: d.reactive),
    ("replicas_forecast", "What the forecast would ask for.", lambda d: d.forecast),
    ("decision_timestamp_seconds", "When the last decision was made.", lambda d: d.at),
)


_MONEY: tuple[tuple[str, str, Callable[[Record], float | None]], ...] = (
    (
        "replicas_unbudgeted",
        "What the decision would have come to without the budget.",
        lambda r: r.decision.unbudgeted,
    ),
    (
        "replicas_paid",
        "Replicas that the ledger holds money for.",
        lambda r: None if r.state.money is None or r.state.money.max_new is None else r.state.money.paid,
    ),
    (
        "replicas_refused",
        "Replicas that the ledger will not pay on for.",
        lambda r: None if r.state.money is None else r.state.money.refused,
    ),
    (
        "replicas_allowed",
        "How many more replicas the ledger would admit.",
        lambda r: None if r.state.money is None else r.state.money.max_new,
    ),
    (
        "replacements",
        "Instances that are being replaced: so many more than were decided.",
        lambda r: r.state.replacing,
    ),
)


def _number(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def sentence(decision: Decision) -> str:
    """The decision in one line of words."""
    what = "unknown" if decision.desired is None else f"{_number(decision.current)} -> {decision.desired}"
    return f"{decision.workload}: {what} ({', '.join(reason.value for reason in decision.reasons)})"
