"""One reading put together with what the journal knows: the state of each instance, as decide() wants it. No IO."""

from collections.abc import Mapping
from dataclasses import dataclass

from controllers.config.recovery import RecoveryTarget
from controllers.recovery.alertmanager import Quiet
from controllers.recovery.book import Book
from controllers.recovery.decide import State, Watch, age, counted_as
from controllers.recovery.observe import Seen
from controllers.recovery.operation import Health


@dataclass(frozen=True)
class Situation:
    """Everything that is known in one step. `book` goes on growing while the step writes; each state is as of then.

    `quiet`: None where Alertmanager does not say. `firing`: (target, instance) by what was delivered. `tripped`: by
    target, when its breaker was last seen open. `doubtful_since`: by target, since when nothing is known of it.
    """

    now: float
    targets: Mapping[str, RecoveryTarget]
    seen: Mapping[str, Seen]
    book: Book
    quiet: Quiet | None
    firing: frozenset[tuple[str, str]]
    tripped: Mapping[str, float]
    doubtful_since: Mapping[str, float]
    clock_jumped: bool

    def instances(self, target: str) -> list[str]:
        """Those declared now, those being mended, and those about which something was said that no longer holds.

        A nameless one stands for a target of which not even the instances are known.
        """
        opened = [one.instance for one in self.book.open_operations() if one.target == target]
        said = self.book.unsettled(target)
        return list(dict.fromkeys((*self.seen[target].instances, *opened, *said))) or [""]

    def health(self, target: str, instance: str) -> Health:
        return counted_as(self.seen[target].health(instance), self.book.open_one(target, instance))

    def state(self, target: str, instance: str, watch: Watch) -> State:
        """`watch`: with this reading taken in."""
        seen, operation = self.seen[target], self.book.open_one(target, instance)
        alert = operation.alert if operation else seen.sick.get(instance)
        me = (target, instance)
        acting = [one for one in self.book.open_operations() if one.in_action and (one.target, one.instance) != me]
        domain = self._domain(target, instance)
        return State(
            now=self.now,
            instance=instance,
            health=self.health(target, instance),
            symptom=seen.sick.get(instance),
            doubt=seen.doubt,
            doubt_seconds=age(self.now, self.doubtful_since.get(target, self.now)),
            alive=seen.alive.get(instance),
            peers=seen.peers(instance),
            watch=watch,
            operation=operation,
            past=self.book.past(target, instance, self.now),
            others_in_action=sum(one.target == target for one in acting),
            domain_in_action=sum(self._domain(one.target, one.instance) == domain for one in acting),
            tripped_at=self.tripped.get(target),
            dependency=next((name for name in self.targets[target].depends_on if not self._well(name)), None),
            silenced=self._silenced(target, instance, alert),
            clock_jumped=self.clock_jumped,
            alert_firing=me in self.firing,
        )

    def _well(self, target: str) -> bool:
        """Whether what depends on this target may be touched."""
        return self.seen[target].is_well and not any(one.target == target for one in self.book.open_operations())

    def _domain(self, target: str, instance: str) -> tuple[str, str]:
        """Where no label says it, a target is a failure domain of its own."""
        seen = self.seen.get(target)
        if seen is not None and instance in seen.domains:
            return "label", seen.domains[instance]
        return "target", target

    def _silenced(self, target: str, instance: str, alert: str | None) -> bool | None:
        """None: Alertmanager does not say, and it matters."""
        if alert is None:
            return False
        if self.quiet is None:
            return None
        labels = dict(self.seen[target].labels.get(instance, {}))
        for name in ("__name__", "alertstate"):
            labels.pop(name, None)
        return self.quiet.covers({**labels, self.targets[target].label: instance, "alertname": alert})
