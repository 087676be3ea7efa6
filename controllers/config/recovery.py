"""What recovery mends, how, and within which limits."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controllers.config.values import Count, HttpUrl, Name, Number, Text
from controllers.domain import Mode
from controllers.recovery.operation import Limits, Step
from exporters.runtime.config import ListenAddress, Section

Seconds = Annotated[Number, Field(gt=0, le=86_400)]
Times = Annotated[Count, Field(ge=1, le=100)]
Ratio = Annotated[Number, Field(gt=0, le=1)]

# What may stand where an argument has {instance}: nothing that a program could take for an option or a path upwards.
INSTANCE = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:@/%\[\]-]{0,199}")


def is_instance(text: str) -> bool:
    """Whether this may be the name of an instance."""
    return INSTANCE.fullmatch(text) is not None and ".." not in text


def _instance(text: str) -> str:
    if not is_instance(text):
        raise ValueError(
            f"found {text!r}; write letters, digits and _ . : @ / % [ ] -, beginning with a letter, a digit, _ or ["
        )
    return text


InstanceName = Annotated[str, AfterValidator(_instance)]


class Instances(Section):
    """The instances that an expression finds now. Finding none means none, never all."""

    promql: Text


class Symptom(Section):
    """What is wrong. `promql`: each series of its answer is a sick instance, whatever its value."""

    alert: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
    promql: Text | None = None  # None: the alert itself, as Prometheus sees it fire
    ladder: Annotated[list[Step], Field(min_length=1)] | None = None  # None: what the target has, then a page

    @property
    def expression(self) -> str:
        return self.promql or f'ALERTS{{alertname="{self.alert}",alertstate="firing"}}'

    @model_validator(mode="after")
    def _ladder_ends(self) -> Self:
        if self.ladder is not None and (self.ladder[-1] is not Step.PAGE or len(set(self.ladder)) < len(self.ladder)):
            found = ", ".join(self.ladder)
            raise ValueError(f"ladder: found {found}; name each step once and end with page")
        return self


class Restart(Section):
    """A program of the user's own that restarts one instance: an argument list, never a shell."""

    argv: Annotated[list[str], Field(min_length=1)]
    timeout_seconds: Annotated[Seconds, Field(le=300)] = 60.0

    @model_validator(mode="after")
    def _has_placeholder(self) -> Self:
        if not any("{instance}" in argument for argument in self.argv[1:]):
            raise ValueError(f"argv: found {self.argv!r}; an argument after the first must hold {{instance}}")
        return self


class Replace(Section):
    """The scaler that is asked to replace an instance. It is only proposed until `mode` is act here as well."""

    url: HttpUrl = "http://127.0.0.1:9813"
    token_file: Path | None = None
    ttl_seconds: Annotated[Number, Field(ge=60, le=3600)] = 900.0
    timeout_seconds: Annotated[Seconds, Field(le=60)] = 10.0
    mode: Mode = Mode.RECOMMEND


class RecoveryLimits(Section):
    """As `controllers.recovery.operation.Limits`, where each is explained."""

    attempts_per_step: Times = 3
    back_off_seconds: Seconds = 10.0
    back_off_max_seconds: Seconds = 600.0
    group_ratio: Ratio = 0.2
    per_domain: Times = 2
    replacements_per_hour: Times = 2
    recurrences_per_hour: Times = 3
    breaker_ratio: Ratio = 0.5


class RecoveryTarget(Section):
    """Instances that are alike, what can be wrong with one, and what may be done about it."""

    name: Name
    workload: str | None = None
    mode: Mode = Mode.SHADOW
    instances: Instances | Annotated[list[InstanceName], Field(min_length=1)]
    label: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "instance"
    domain_label: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] | None = None  # None: the target is one
    symptoms: Annotated[list[Symptom], Field(min_length=1)]
    healthy: Text | None = None  # each series: an instance that is there; None: those that instances.promql finds
    liveness: Text | None = None  # each series: 0, and this instance is dead; anything else, and it is alive
    restart: Restart | None = None
    replace: Replace | None = None
    depends_on: list[Name] = []
    verify_seconds: Seconds = 60.0
    stability_seconds: Seconds = 120.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.instances, list) and self.healthy is None:
            raise ValueError(
                "healthy: is missing; with a list of instances nothing else shows that one is there, "
                "for example 'up{job=\"worker\"} == 1'"
            )
        alerts = [symptom.alert for symptom in self.symptoms]
        twice = next((alert for alert in alerts if alerts.count(alert) > 1), None)
        if twice:
            raise ValueError(f"symptoms: found the alert {twice} twice; remove one")
        for index, symptom in enumerate(self.symptoms):
            for step in symptom.ladder or []:
                if step is not Step.PAGE and getattr(self, step.value) is None:
                    raise ValueError(f"symptoms.{index}.ladder: found {step}; say how under '{step}:', or take it out")
        if self.replace is not None and self.workload is None:
            raise ValueError("workload: is missing; the scaler is asked to replace an instance of a workload")
        return self

    def ladder(self, symptom: Symptom) -> tuple[Step, ...]:
        """The symptom's own, or all that the target has, the gentlest first."""
        if symptom.ladder is not None:
            return tuple(symptom.ladder)
        return tuple(step for step in Step if step is Step.PAGE or getattr(self, step.value) is not None)

    def limits(self, section: "RecoverySection") -> Limits:
        """What an operation of this target keeps to."""
        replace_seconds = self.replace.ttl_seconds if self.replace else Limits().replace_seconds
        return Limits(self.verify_seconds, replace_seconds, self.stability_seconds, **section.limits.model_dump())


class RecoverySection(Section):
    """`tidewise recovery`: whom it mends, where it keeps its journal, how Alertmanager and it reach each other."""

    listen: list[ListenAddress] = ["127.0.0.1:9815"]
    token_file: Path | None = None  # of Alertmanager's webhook; None: nothing is delivered, Prometheus is asked
    alertmanager: HttpUrl | None = None  # silences and pages; None: people hear by Prometheus's rules alone
    journal: Path = Path(".tidewise/recovery.db")
    interval_seconds: Annotated[Seconds, Field(le=300)] = 10.0
    limits: RecoveryLimits = RecoveryLimits()
    targets: list[RecoveryTarget] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [target.name for target in self.targets]
        for index, target in enumerate(self.targets):
            if target.name in names[:index]:
                raise ValueError(f"targets.{index}.name: '{target.name}' stands twice; rename one")
            for other in target.depends_on:
                if other not in names:
                    raise ValueError(f"targets.{index}.depends_on: no target '{other}'; known: {', '.join(names)}")
        circle = self._circle()
        if circle:
            raise ValueError(f"targets: {' needs '.join(circle)}; nothing in a circle can be mended first")
        return self

    def _circle(self) -> list[str] | None:
        needs = {target.name: target.depends_on for target in self.targets}

        def walk(path: list[str]) -> list[str] | None:
            if path[-1] in path[:-1]:
                return path
            return next((found for name in needs[path[-1]] if (found := walk([*path, name]))), None)

        return next((found for name in needs if (found := walk([name]))), None)
