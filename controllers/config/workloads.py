"""What is scaled: its demand, its target, its bounds, what it promises and what it costs."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from controllers.config.calendar import CalendarSection
from controllers.config.values import Count, MoneyText, Name, Number, Text, TimeZone
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


class CommandTarget(Section):
    """Replicas asked for and set by programs of the user's own; argv lists, never a shell.

    `get` prints either a number or JSON: {"replicas": wanted, "ready": working, "draining": told to end and still
    there}. One of the arguments of `set` holds `{replicas}`; `set` is told an absolute number and may be told the same
    number again. An argument with `{victims}` gets the instances, joined by commas, that a smaller number takes first.
    """

    get: Annotated[list[str], Field(min_length=1)]
    set: Annotated[list[str], Field(min_length=1)]
    timeout_seconds: Annotated[Number, Field(gt=0, le=300)] = 10.0

    @model_validator(mode="after")
    def _has_placeholder(self) -> Self:
        if not any("{replicas}" in argument for argument in self.set):
            raise ValueError(f"set: found {self.set!r}; one argument must hold {{replicas}}")
        return self


class Cluster(Section):
    """Which Kubernetes: that of a kubeconfig file, or, without one, that of the pod this runs in."""

    kubeconfig: Path | None = None
    context: Text | None = None  # of the kubeconfig; None: its current one

    @model_validator(mode="after")
    def _context_has_file(self) -> Self:
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("found context without kubeconfig; name the file that has it")
        return self


ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]


class KubernetesObject(Section):
    """Any object whose kind has a scale subresource, such as an Argo Rollout."""

    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")]
    name: ObjectName
    api_version: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?v[a-z0-9]+$")]


class KubernetesTarget(Cluster):
    """Replicas of a Kubernetes object: exactly one of a Deployment, a StatefulSet, or another kind that can scale."""

    namespace: Name = "default"
    deployment: ObjectName | None = None
    statefulset: ObjectName | None = None
    generic: KubernetesObject | None = None
    timeout_seconds: Annotated[Number, Field(gt=0, le=60)] = 10.0  # for reading, and again for setting

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("deployment", "statefulset", "generic") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of deployment, statefulset, generic; give exactly one"
            )
        return self


class Lease(Cluster):
    """The Kubernetes Lease by which several replicas of one controller agree who acts.

    A leader that is gone is followed after `duration_seconds`; it stops acting by itself after two thirds of them.
    """

    name: ObjectName
    namespace: Name = "default"
    duration_seconds: Annotated[Count, Field(ge=3, le=600)] = 15


class Target(Section):
    """Where the replicas live: exactly one of the actuators."""

    command: CommandTarget | None = None
    kubernetes: KubernetesTarget | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in type(self).model_fields if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of {', '.join(type(self).model_fields)}; give exactly one"
            )
        return self

    @property
    def kind(self) -> str:
        return next(key for key in type(self).model_fields if getattr(self, key) is not None)


class Bounds(Section):
    min: Annotated[Count, Field(ge=0)] = 0
    max: Annotated[Count, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"found min {self.min} and max {self.max}; max must be at least min")
        return self


class Slo(Section):
    """`objective` of the work waits at most `wait_seconds`."""

    wait_seconds: Annotated[Number, Field(gt=0)] = 60.0
    objective: Annotated[Number, Field(gt=0.5, lt=1)] = 0.95


class Capacity(Section):
    """What one replica serves until it has been learned: `concurrency` jobs at once, each of `service_seconds`."""

    service_seconds: Annotated[Number, Field(gt=0)] | None = None
    concurrency: Annotated[Count, Field(ge=1)] = 1


class Price(Section):
    per_replica_hour: MoneyText


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
    limits: Limits = Limits()
    time_zone: TimeZone | None = None  # of its daily pattern; the budget's zone if absent
    calendar: CalendarSection | None = None

    @property
    def identity(self) -> str:
        return f"{self.namespace}/{self.name}"
