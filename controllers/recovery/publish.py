"""What recovery publishes: the timeline of its operations, why each instance is treated as it is, and who was told."""

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from controllers.config.recovery import RecoveryTarget
from controllers.recovery.alertmanager import Page
from controllers.recovery.book import Book
from controllers.recovery.decide import Decision
from controllers.recovery.operation import Health, Next, Result, Step

REPAIR_BUCKETS = (30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0)

_STATES = {
    Next.RESTART: "acting",
    Next.REPLACE: "acting",
    Next.VERIFY: "verifying",
    Next.WAIT: "waiting",
    Next.FREEZE: "frozen",
    Next.SUGGEST: "suggested",
    Next.PAGE: "handed_over",
}


@dataclass(frozen=True)
class Shown:
    """One step as it is published. `attempts`: of open operations, by target and step."""

    decisions: Sequence[Decision] = ()
    healths: Mapping[tuple[str, str], Health] = field(default_factory=dict)
    attempts: Mapping[tuple[str, Step], int] = field(default_factory=dict)
    results: Mapping[tuple[str, Step, Result], int] = field(default_factory=dict)
    repairs: Sequence[tuple[str, float]] = ()
    problems: Mapping[str, str] = field(default_factory=dict)  # by target


class Published(Collector):
    """The collector. `show` replaces everything at once; the rest is set as it happens."""

    def __init__(self, targets: Mapping[str, RecoveryTarget], alert_counts: Counter[str]) -> None:
        self._targets = targets
        self._alerts = alert_counts
        self._shown = Shown()
        self._pages: Sequence[Page] = ()
        self._undelivered = 0
        self._journal: str | None = "not opened yet"

    def show(
        self,
        decisions: Sequence[Decision],
        healths: Mapping[tuple[str, str], Health],
        book: Book,
        problems: Mapping[str, str],
    ) -> None:
        """The step's decisions, and what the journal adds up to."""
        attempts: Counter[tuple[str, Step]] = Counter()
        for operation in book.open_operations():
            attempts.update((operation.target, attempt.step) for attempt in operation.attempts)
        self._shown = Shown(
            tuple(decisions), dict(healths), attempts, dict(book.results), tuple(book.repairs), problems
        )

    def journal(self, trouble: str | None) -> None:
        """What is wrong with the journal; None: nothing."""
        self._journal = trouble

    def pages(self, standing: Sequence[Page], delivered: bool) -> None:
        """The pages that stand, and whether Alertmanager took them."""
        self._pages = tuple(standing)
        self._undelivered = 0 if delivered else len(standing)

    def collect(self) -> Iterator[Metric]:
        shown = self._shown
        yield from self._operations(shown)
        yield from self._counted(shown)
        yield self._repairs(shown)
        pages = GaugeMetricFamily(
            "tidewise_recovery_page", "1 for each thing that people are told now.", labels=["alert", "target", "reason"]
        )
        for page in self._pages:
            pages.add_metric([page.alert, page.target, page.reason], 1)
        yield pages
        yield GaugeMetricFamily(
            "tidewise_recovery_pages_undelivered", "Of those, how many Alertmanager has not taken.", self._undelivered
        )
        yield GaugeMetricFamily(
            "tidewise_recovery_journal_up", "Whether the journal can be written.", float(self._journal is None)
        )
        alerts = CounterMetricFamily(
            "tidewise_recovery_alerts", "Alerts that were delivered, by what became of them.", labels=["result"]
        )
        for result in ("accepted", "duplicate", "undeclared", "truncated", "refused"):
            alerts.add_metric([result], self._alerts[result])
        yield alerts

    def _operations(self, shown: Shown) -> Iterator[Metric]:
        operations = GaugeMetricFamily(
            "tidewise_recovery_operations",
            "Open operations, by the step of the ladder and what is going on.",
            labels=["target", "step", "state"],
        )
        reasons = GaugeMetricFamily(
            "tidewise_recovery_decision_reason",
            "Instances for which this is a reason of the last decision.",
            labels=["target", "reason"],
        )
        counted: Counter[tuple[str, str, str]] = Counter()
        why: Counter[tuple[str, str]] = Counter()
        for decision in shown.decisions:
            if decision.operation is not None and decision.next in _STATES:
                counted[decision.target, decision.step or "none", _STATES[decision.next]] += 1
            why.update((decision.target, reason.value) for reason in decision.reasons)
        for target in self._targets:
            if not any(key[0] == target for key in counted):
                counted[target, "none", "none"] = 0  # known, and nothing going on
        for key, count in counted.items():
            operations.add_metric(list(key), count)
        for (target, reason), count in why.items():
            reasons.add_metric([target, reason], count)
        yield operations
        yield reasons
        instances = GaugeMetricFamily(
            "tidewise_recovery_instances", "Instances, by what the last reading says.", labels=["target", "health"]
        )
        healths = Counter((target, health) for (target, _), health in shown.healths.items())
        for target in self._targets:
            for health in Health:
                instances.add_metric([target, health.value], healths[target, health])
        yield instances

    def _counted(self, shown: Shown) -> Iterator[Metric]:
        actions = CounterMetricFamily(
            "tidewise_recovery_actions",
            "Attempts whose outcome is known, since the journal began.",
            labels=["target", "remedy", "result"],
        )
        attempts = GaugeMetricFamily(
            "tidewise_recovery_attempts", "Attempts of operations that are open.", labels=["target", "step"]
        )
        for name, target in self._targets.items():
            for step in (Step.RESTART, Step.REPLACE):
                if getattr(target, step.value) is None:
                    continue
                attempts.add_metric([name, step.value], shown.attempts.get((name, step), 0))
                for result in Result:
                    actions.add_metric([name, step.value, result.value], shown.results.get((name, step, result), 0))
        yield actions
        yield attempts

    def _repairs(self, shown: Shown) -> Metric:
        family = HistogramMetricFamily(
            "tidewise_recovery_repair_seconds",
            "From an operation's opening until the symptom was away for good, since the journal began.",
            labels=["target"],
        )
        for target in self._targets:
            seconds = [value for name, value in shown.repairs if name == target]
            buckets = [(str(bound), float(sum(value <= bound for value in seconds))) for bound in REPAIR_BUCKETS]
            family.add_metric([target], [*buckets, ("+Inf", float(len(seconds)))], sum(seconds))
        return family

    def landing(self) -> str:
        """The instances with something to say, as an HTML table."""
        rows = [
            (d.target, d.instance, d.next.value, d.step or "", ", ".join(r.value for r in d.reasons))
            for d in self._shown.decisions
            if d.next is not Next.NONE
        ]
        rows += [(target, "", "", "", problem) for target, problem in self._shown.problems.items()]
        if self._journal is not None:
            rows.insert(0, ("journal", "", "", "", self._journal))
        head = "".join(f"<th>{title}</th>" for title in ("target", "instance", "next", "step", "reasons"))
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows)
        return f"<table><tr>{head}</tr>{body}</table>" if rows else "<p>Nothing is being mended.</p>"
