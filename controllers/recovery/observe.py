"""Reads what a decision needs: who is sick, who is well, who is there. The webhook's word is never enough."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from controllers.config.recovery import Instances, RecoveryTarget, is_instance
from controllers.loop import StepError, Tick
from controllers.recovery.decide import Peers
from controllers.recovery.operation import Health, Reason
from controllers.sources.prometheus import Answer, Kind, Source, SourceError

# After one of these the rest of the step asks nothing more: each question would wait for its own time-out.
_SILENT = frozenset({Kind.UNREACHABLE, Kind.TIMEOUT})


@dataclass(frozen=True)
class Seen:
    """One target in one reading. While `doubt` is set, nothing else in it counts; `problem` says more.

    `sick`: instance -> the alert of its first declared symptom. `labels`: of that symptom's series.
    """

    instances: tuple[str, ...] = ()
    sick: Mapping[str, str] = field(default_factory=dict)
    healthy: frozenset[str] = frozenset()
    alive: Mapping[str, bool] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    doubt: Reason | None = None
    problem: str | None = None

    def health(self, instance: str) -> Health:
        if self.doubt is not None:
            return Health.UNKNOWN
        if instance not in self._declared:
            return Health.GONE
        if instance in self.sick:
            return Health.SICK
        return Health.HEALTHY if instance in self.healthy else Health.MISSING

    def peers(self, instance: str) -> Peers:
        """All instances but this one."""
        counts = self._counts.copy()
        if instance in self._declared:
            counts[self.health(instance)] -= 1
        healthy, sick = counts[Health.HEALTHY], counts[Health.SICK]
        return Peers(healthy, sick, counts.total() - healthy - sick)

    @cached_property
    def _declared(self) -> frozenset[str]:
        return frozenset(self.instances)

    @cached_property
    def _counts(self) -> Counter[Health]:
        return Counter(self.health(instance) for instance in self.instances)

    @property
    def is_well(self) -> bool:
        """Whether what depends on this target may be touched: it is known, none is sick, at least one is healthy."""
        return self.doubt is None and not self.sick and any(name in self.healthy for name in self.instances)


def read_targets(source: Source, targets: Sequence[RecoveryTarget], tick: Tick) -> dict[str, Seen]:
    """Each target by its name. Never raises: what could not be read is in doubt."""
    seen: dict[str, Seen] = {}
    silent: str | None = None
    for target in targets:
        if silent is not None:
            seen[target.name] = Seen(doubt=Reason.HEALTH_UNKNOWN, problem=silent)
            continue
        try:
            seen[target.name] = _read(source, target, tick)
        except SourceError as error:
            seen[target.name] = Seen(doubt=Reason.HEALTH_UNKNOWN, problem=str(error))
            silent = str(error) if error.kind in _SILENT else None
        except StepError as error:
            silent = str(error)
            seen[target.name] = Seen(doubt=Reason.HEALTH_UNKNOWN, problem=silent)
    return seen


def _read(source: Source, target: RecoveryTarget, tick: Tick) -> Seen:
    def ask(expr: str) -> Answer:
        answer = source.instant(expr, tick.now, tick.remaining()).complete()
        if answer.refused:  # a symptom that is NaN is not a symptom that is gone
            raise SourceError(Kind.MALFORMED, f"{expr}: {answer.refused} of its samples are no numbers")
        return answer

    domains: dict[str, str] = {}
    if isinstance(target.instances, Instances):
        found = _by_instance(ask(target.instances.promql), target.label)
        if target.domain_label is not None:
            domains = {name: s[0].get(target.domain_label, "") for name, s in found.items()}
        instances = tuple(sorted(found))
    else:
        instances = tuple(target.instances)
    if not instances:
        return Seen(doubt=Reason.NO_INSTANCES, problem="instances.promql finds nothing; nothing is not everything")
    declared = frozenset(instances)
    sick: dict[str, str] = {}
    labels: dict[str, Mapping[str, str]] = {}
    for symptom in target.symptoms:
        for name, series in _by_instance(ask(symptom.expression), target.label).items():
            if name in declared and name not in sick:
                sick[name], labels[name] = symptom.alert, series[0]
    healthy = frozenset(instances if target.healthy is None else _by_instance(ask(target.healthy), target.label))
    return Seen(
        instances, sick, healthy, _alive(target, ask(target.liveness) if target.liveness else None), domains, labels
    )


def _by_instance(answer: Answer, label: str) -> dict[str, list[Mapping[str, str]]]:
    """The labels of each instance's series. What has no usable name is nobody's."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for series in answer:
        name = series.labels.get(label, "")
        if is_instance(name):
            found.setdefault(name, []).append(series.labels)
    return found


def _alive(target: RecoveryTarget, answer: Answer | None) -> dict[str, bool]:
    """Two series of one instance that disagree say nothing."""
    said: dict[str, set[bool]] = {}
    for series in answer or ():
        said.setdefault(series.labels.get(target.label, ""), set()).add(series.samples[-1].value != 0)
    return {name: values.pop() for name, values in said.items() if len(values) == 1}
