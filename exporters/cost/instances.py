"""What running instances cost by prices that the configuration declares: so much an hour, since a moment."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from exporters.cost.money import MoneyText, micro
from exporters.cost.months import month_start
from exporters.cost.spend import INSTANCE_PRICE, Line, Month, Scope, month_metrics
from exporters.labels import clean
from exporters.runtime.config import Section, repeated

SOURCE = "instances"
Text = Annotated[str, Field(max_length=200)]


class Instance(Section):
    """One instance, or what else is paid by the hour. It runs from `since` to `until`, or still."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    per_hour: MoneyText
    since: AwareDatetime
    until: AwareDatetime | None = None
    provider: Text = ""
    workload: Text = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.until is not None and self.until < self.since:
            raise ValueError(f"ends ({self.until}) before it begins ({self.since})")
        return self


def _distinct(instances: list[Instance]) -> list[Instance]:
    names = [instance.name for instance in instances]
    twice = repeated(names)
    if twice is not None:
        raise ValueError(f"'{twice}' stands twice; give each instance a name of its own")
    return instances


Instances = Annotated[list[Instance], AfterValidator(_distinct)]


class InstanceCosts:
    """Reckons at each scrape; reads nothing."""

    def __init__(self, instances: Sequence[Instance], checked: date | None, zone: ZoneInfo, most: int) -> None:
        self._instances, self._zone, self._most = instances, zone, most
        self._checked = None if checked is None else datetime(*checked.timetuple()[:3], tzinfo=UTC).timestamp()

    def collect(self, deadline: float) -> Iterator[Metric]:
        now = time.time()
        start = month_start(now, self._zone)
        lines = [
            Line(
                Scope(instance.provider, instance.name, workload=instance.workload),
                instance.per_hour.currency,
                micro(instance.per_hour.amount * hours(instance, start, now)),
            )
            for instance in self._instances
        ]
        yield from month_metrics(Month(SOURCE, "estimated", start, lines, self._checked), self._most)
        price = INSTANCE_PRICE.metric()
        for instance in self._instances:
            if instance.since.timestamp() <= now and (instance.until is None or now < instance.until.timestamp()):
                price.add_metric(
                    [
                        clean(instance.name),
                        clean(instance.provider),
                        clean(instance.workload),
                        instance.per_hour.currency,
                    ],
                    float(instance.per_hour.amount),
                )
        yield price


def hours(instance: Instance, start: float, now: float) -> Decimal:
    """How long it has run since `start`, to the second."""
    end = now if instance.until is None else min(now, instance.until.timestamp())
    return Decimal(max(0, int(end - max(start, instance.since.timestamp())))) / 3600
