"""What is scaled: its demand, its target, its bounds, what it promises and what it costs."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from controllers.config.calendar import CalendarSection, Cron
from controllers.config.targets import Target
from controllers.config.values import Count, Duration, MoneyText, Name, Number, Text, TimeZone, distinct
from controllers.domain import Mode
from exporters.runtime.config import Section


class Demand(Section):
    """Work arriving: exactly one of a queue, a service (of the `service:` contract), one's own PromQL (per second)."""

    queue: Text | None = None
    system: Text = "redis"
    service: Text | None = None
    promql: Text | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("queue", "service", "promql") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'} of queue, service, promql; give exactly one")
        return self


class Bounds(Section):
    min: Annotated[Count, Field(ge=0)] = 0
    max: Annotated[Count, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"found min {self.min} and max {self.max}; max must be at least min")
        return self


class Slo(Section):
    """`objective` of the work waits at most `wait_seconds`; or, where it can wait, is done within `deadline` (6h).

    Work with a deadline is done in hours when capacity is idle, cheap or paid for anyway, and at the latest in time.
    """

    wait_seconds: Annotated[Number, Field(gt=0)] = 60.0
    objective: Annotated[Number, Field(gt=0.5, lt=1)] = 0.95
    deadline: Duration | None = None

    @model_validator(mode="after")
    def _one_promise(self) -> Self:
        if self.deadline is not None and "wait_seconds" in self.model_fields_set:
            raise ValueError("found wait_seconds and deadline; work either waits for a replica or has a deadline")
        return self


class Capacity(Section):
    """What one replica serves until it has been learned: `concurrency` jobs at once, each of `service_seconds`."""

    service_seconds: Annotated[Number, Field(gt=0)] | None = None
    concurrency: Annotated[Count, Field(ge=1)] = 1


class ExtraDemand(Demand):
    """Further work that the same replicas do. Each demand is judged by itself; the one that needs most counts.

    It is measured, forecast and published as `namespace/workload/name`.
    """

    name: Name
    slo: Slo = Slo()
    capacity: Capacity = Capacity()


class CheapHours(Section):
    """From each time of `cron` (in the workload's zone) on, for so long, a replica costs this much."""

    cron: Cron
    length: Annotated[Duration, Field(alias="for")]
    per_replica_hour: MoneyText


class Price(Section):
    """What a replica costs, and, where it can be said, what it costs when a piece of work is late or lost, or when a
    service has too little for an hour, however little that is.

    With one of these, the number is the one at which the two together cost least, and `slo.objective` is not asked for.
    """

    per_replica_hour: MoneyText
    per_late_job: MoneyText | None = None
    per_short_hour: MoneyText | None = None
    cheap: list[CheapHours] = []

    @model_validator(mode="after")
    def _one_currency(self) -> Self:
        if self.per_late_job is not None and self.per_short_hour is not None:
            raise ValueError("found per_late_job and per_short_hour; give one of them")
        shortage = self.per_late_job or self.per_short_hour
        others = [
            *([shortage] if shortage else []),
            *(hours.per_replica_hour for hours in self.cheap),
        ]
        for other in others:
            if other.currency != self.per_replica_hour.currency:
                raise ValueError(f"found {self.per_replica_hour} and {other}; write all in one currency")
        return self


class ScheduleFloor(Section):
    """From each time of `cron` (in the workload's zone) on, for so long, at least `min` replicas."""

    cron: Cron
    length: Annotated[Duration, Field(alias="for")]
    min: Annotated[Count, Field(ge=1)]


class Limits(Section):
    """How fast the number may move: replicas a minute. None: no limit."""

    up_per_minute: Annotated[Count, Field(ge=1)] | None = None
    down_per_minute: Annotated[Count, Field(ge=1)] | None = None


class Workload(Section):
    """What is scaled. Identity is namespace/name."""

    name: Name
    namespace: Name = "default"
    demand: Demand
    target: Target
    replicas: Bounds
    slo: Slo = Slo()
    capacity: Capacity = Capacity()
    price: Price | None = None
    mode: Mode = Mode.SHADOW
    lead_time_seconds: Annotated[Number, Field(ge=0)] = 60.0  # until learned
    minimum_run_seconds: Annotated[Number, Field(ge=0)] = 60.0  # minimum billing time of a replica
    stabilization_window_seconds: Annotated[Number, Field(ge=0)] = 300.0  # for scale-in, as the HPA's
    start_seconds: Annotated[Number, Field(ge=0)] | None = None  # replica-seconds that a start costs, until learned
    limits: Limits = Limits()
    also: list[ExtraDemand] = []
    schedule: list[ScheduleFloor] = []
    in_hand: Text | None = None  # PromQL: work in hand by `pod` or `instance`; scale-in takes the idlest first
    time_zone: TimeZone | None = None  # of its daily pattern; the budget's zone if absent
    calendar: CalendarSection | None = None

    @model_validator(mode="after")
    def _distinct_demands(self) -> Self:
        distinct([extra.name for extra in self.also])
        if self.price and self.price.per_short_hour and self.demand.queue is not None:
            raise ValueError("price.per_short_hour: is for services, whose work cannot wait; a queue has per_late_job")
        for index, floor in enumerate(self.schedule):
            if floor.min > self.replicas.max:
                raise ValueError(
                    f"schedule.{index}.min: found {floor.min}, more than replicas.max ({self.replicas.max}); raise max"
                )
        return self

    @property
    def identity(self) -> str:
        return f"{self.namespace}/{self.name}"

    def signal(self, extra: ExtraDemand) -> str:
        """The name under which a further demand is measured and forecast."""
        return f"{self.identity}/{extra.name}"

    def signals(self) -> "list[Workload]":
        """Itself and each further demand as if it were a workload of its own: what is measured and forecast."""
        return [
            self,
            *(
                self.model_copy(
                    update={
                        "name": f"{self.name}/{extra.name}",
                        "demand": Demand.model_construct(**{key: getattr(extra, key) for key in Demand.model_fields}),
                        "slo": extra.slo,
                        "capacity": extra.capacity,
                        "also": [],
                    }
                )
                for extra in self.also
            ),
        ]
