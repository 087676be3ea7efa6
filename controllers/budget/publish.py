"""The ledger's own series and landing page: the last decision, and totals that the ledger keeps."""

import html
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controllers.budget.decide import BudgetState, Decision
from controllers.budget.statement import Line
from controllers.budget.words import MICRO, BudgetReason, Level, State, shown

MOST_LINES = 50  # of spend by provider, model and workload; what is beyond is summed up as "other"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a step found. `counts`: rows by state since the ledger began, so that counters outlive a restart."""

    decision: Decision
    lines: tuple[Line, ...]
    counts: Mapping[State, int]
    open_holds: int


@dataclass(frozen=True, slots=True)
class Tallies:
    """What only this process has seen."""

    denied: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)


class Published(Collector):
    """Collects from the last whole step; nothing of money is shown before the first one."""

    def __init__(self, currency: str, tallies: Callable[[], Tallies]) -> None:
        self._currency = currency
        self._tallies = tallies
        self._shown: Shown | None = None

    def replace(self, found: Shown) -> None:
        """Takes the outcome of a step."""
        self._shown = found

    def collect(self) -> Iterator[Metric]:
        shown_now, tallies = self._shown, self._tallies()
        errors = CounterMetricFamily(
            "tidewise_budget_ledger_errors", "Requests and steps that the ledger failed, by kind.", labels=["kind"]
        )
        for kind in sorted({"locked", "full", "corrupt", "unavailable", "overloaded", *tallies.errors}):
            errors.add_metric([kind], tallies.errors.get(kind, 0))
        yield errors
        if shown_now is None:
            return
        yield from self._budgets(shown_now.decision)
        yield from self._permits(shown_now, tallies)
        yield self._spend(shown_now.lines)
        yield GaugeMetricFamily(
            "tidewise_budget_open_holds", "Holds that are neither settled nor expired.", value=shown_now.open_holds
        )

    def _budgets(self, decision: Decision) -> Iterator[Metric]:
        for name, text, value in _MONEY:
            family = GaugeMetricFamily(f"tidewise_budget_{name}", text, labels=["budget", "currency"])
            for one in decision.budgets:
                amount = value(one)
                if amount is not None:
                    family.add_metric([one.name, self._currency], amount / MICRO)
            yield family
        level = GaugeMetricFamily(
            "tidewise_budget_level",
            "How careful to be: 0 normal, 1 economy, 2 essential, 3 exhausted.",
            labels=["budget"],
        )
        burn = GaugeMetricFamily(
            "tidewise_budget_burn_rate",
            "Recent spend rate x time left / budget left; above 1 the budget ends before the month.",
            labels=["budget", "window_seconds"],
        )
        for one in decision.budgets:
            level.add_metric([one.name], one.level)
            for window, rate in one.burn.items():
                burn.add_metric([one.name, str(window)], rate)
        yield level
        yield burn

    def _permits(self, found: Shown, tallies: Tallies) -> Iterator[Metric]:
        permits = CounterMetricFamily(
            "tidewise_budget_permits",
            "Permits asked for, by result and reason; those allowed are counted from the ledger.",
            labels=["result", "reason"],
        )
        permits.add_metric(["allowed", BudgetReason.GRANTED.value], found.counts.get(State.HELD, 0))
        for reason in BudgetReason:
            if reason is not BudgetReason.GRANTED:
                permits.add_metric(["denied", reason.value], tallies.denied.get(reason.value, 0))
        yield permits
        entries = CounterMetricFamily(
            "tidewise_budget_entries", "Rows of the ledger, by state, since it began.", labels=["state"]
        )
        for state in State:
            entries.add_metric([state.value], found.counts.get(state, 0))
        yield entries

    def _spend(self, lines: tuple[Line, ...]) -> Metric:
        family = GaugeMetricFamily(
            "tidewise_budget_spend",
            "Posted this month, by whom and for what; the dearest, the rest as 'other'.",
            labels=["currency", "provider", "model", "workload"],
        )
        spend: dict[tuple[str, str, str], int] = {}
        for line in lines:
            key = (line.scope.provider, line.scope.model, line.scope.workload)
            spend[key] = spend.get(key, 0) + line.posted
        dearest = sorted((item for item in spend.items() if item[1]), key=lambda item: -item[1])
        for key, posted in dearest[:MOST_LINES]:
            family.add_metric([self._currency, *key], posted / MICRO)
        rest = sum(posted for _, posted in dearest[MOST_LINES:])
        if rest:
            family.add_metric([self._currency, "other", "other", "other"], rest / MICRO)
        return family

    def landing(self) -> str:
        """The budgets now, as an HTML table."""
        if self._shown is None:
            return "<p>Nothing decided yet.</p>"
        titles = ("budget", "limit", "posted", "held", "committed", "left", "month-end", "level")
        head = "".join(f"<th>{title}</th>" for title in titles)
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td>{html.escape(text)}</td>"
                for text in (
                    one.name,
                    *(shown(a) for a in (one.limit, one.posted, one.held, one.committed, one.remaining)),
                    "unknown" if one.projected is None else shown(one.projected),
                    Level(one.level).name.lower(),
                )
            )
            + "</tr>"
            for one in self._shown.decision.budgets
        )
        return (
            f"<p>{html.escape(self._shown.decision.period)}, {self._currency}</p><table><tr>{head}</tr>{rows}</table>"
        )


_MONEY: tuple[tuple[str, str, Callable[[BudgetState], int | None]], ...] = (
    ("limit", "The month's limit.", lambda b: b.limit),
    ("posted", "Spent this month, as posted in the ledger.", lambda b: b.posted),
    ("held", "Set aside for what is under way.", lambda b: b.held),
    (
        "committed",
        "Owed whatever happens: fixed costs, and minimum replicas to the month's end.",
        lambda b: b.committed,
    ),
    ("spent", "Posted and fixed costs.", lambda b: b.spent),
    ("remaining", "Limit - posted - held - committed.", lambda b: b.remaining),
    ("projected", "Spent by the month's end, at the recent rate over the demand that is left.", lambda b: b.projected),
    ("pace", "What would be spent by now on a month that ends at its limit.", lambda b: b.pace),
)
