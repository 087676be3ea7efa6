"""What was spent and used in a month, as values, and the one place where it becomes series."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from exporters.cost.money import MICRO
from exporters.families import Counter, Family, Gauge
from exporters.labels import OTHER, clean

_SCOPE = ("provider", "service", "model", "workflow", "workload")
SPEND = Gauge(
    "cost_spend",
    "Spent since the month began, in the currency of the label; estimated from prices, or as billed.",
    ("source", "basis", "currency", *_SCOPE),
    "the ledger, usage events, declared prices or the cloud's bill",
)
UNITS = Gauge(
    "cost_units",
    "Units used since the month began, tokens among them, as they were reported.",
    ("source", *_SCOPE, "unit"),
    "the ledger or usage events",
)
PERIOD_START = Gauge(
    "cost_period_start_timestamp_seconds", "Unix time at which the month began.", ("source",), "the source's time zone"
)
PRICE_TABLE = Gauge(
    "cost_price_table_timestamp_seconds",
    "Unix time of the newest price that the price table knows, or at which declared prices were looked at.",
    ("source",),
    "the ledger's price list, or the configuration",
)
INSTANCE_PRICE = Gauge(
    "cost_instance_price_per_hour",
    "What an hour of a declared instance costs, while it runs.",
    ("name", "provider", "workload", "currency"),
    "the configuration",
)
LINES = Counter(
    "cost_usage_lines",
    "Lines of usage events, by what became of them: counted, repeated, other_month, refused.",
    ("result",),
    "the files of usage events",
)
ASKED = Gauge(
    "cost_asked_timestamp_seconds", "Unix time of the bill that is shown.", ("source",), "the clock when it was asked"
)
ASKING = Gauge(
    "cost_asking_spend",
    "What asking for the bill has cost since the month began; the bill has it, too.",
    ("source", "currency"),
    "the number of requests",
)
FAMILIES: tuple[Family, ...] = (SPEND, UNITS, PERIOD_START, PRICE_TABLE, INSTANCE_PRICE, LINES, ASKED, ASKING)


@dataclass(frozen=True)
class Scope:
    """Whom spend belongs to; "" where it has none."""

    provider: str = ""
    service: str = ""
    model: str = ""
    workflow: str = ""
    workload: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """As label values, in their order."""
        return tuple(map(clean, (self.provider, self.service, self.model, self.workflow, self.workload)))


@dataclass(frozen=True)
class Line:
    """Spend of one scope in one currency, in micro-units, and what was used. currency "": nothing is known of money."""

    scope: Scope
    currency: str = ""
    amount: int = 0
    units: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Month:
    """What one source knows of the present month. Times are Unix seconds."""

    source: str
    basis: str
    start: float
    lines: Sequence[Line]
    price_table: float | None = None


def month_metrics(month: Month, most: int) -> Iterator[Metric]:
    """Its series: the `most` dearest scopes, the rest summed up as `other`."""
    spend: dict[tuple[str, ...], int] = {}
    units: dict[tuple[str, ...], float] = {}
    shown: set[tuple[str, ...]] = set()
    for line in sorted(month.lines, key=lambda line: -abs(line.amount)):
        labels = line.scope.labels
        if labels not in shown and len(shown) >= most:
            labels = (OTHER,) * len(labels)
        else:
            shown.add(labels)
        if line.currency:
            key = (month.source, month.basis, line.currency, *labels)
            spend[key] = spend.get(key, 0) + line.amount
        for unit, quantity in line.units.items():
            used_key = (month.source, *labels, clean(unit))
            units[used_key] = units.get(used_key, 0) + quantity
    spent, used = SPEND.metric(), UNITS.metric()
    for key, amount in spend.items():
        spent.add_metric(key, amount / MICRO)
    for key, quantity in units.items():
        used.add_metric(key, quantity)
    start = PERIOD_START.metric()
    start.add_metric([month.source], month.start)
    yield from (family for family in (spent, used, start) if family.samples)
    if month.price_table is not None:
        table = PRICE_TABLE.metric()
        table.add_metric([month.source], month.price_table)
        yield table
