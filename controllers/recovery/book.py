"""What the journal's entries add up to: the operations, the last decision about each instance, and counts. No IO."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from controllers.recovery.decide import Past, age
from controllers.recovery.operation import HOUR_SECONDS, Attempt, Limits, Operation, Reason, Result, Step


class Kind(StrEnum):
    """What an entry says. Each is written, and on the disk, before what follows from it is done."""

    EPOCH = "epoch"  # a process took over
    OPENED = "opened"
    DECIDED = "decided"  # what came next and why, when that changed
    JUDGED = "judged"  # a verification failed, or the symptom came back
    RESERVED = "reserved"  # an attempt is about to be made
    OUTCOME = "outcome"  # how it ended
    HANDED = "handed"  # people take over
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal. `operation`, `target` and `instance` are empty where it is about none."""

    kind: Kind
    at: float
    target: str = ""
    instance: str = ""
    operation: str = ""
    body: Mapping[str, Any] | None = None
    epoch: int = 0
    number: int = 0  # its place in the journal, from 1


class Book:
    """Entries, added up in their order. `add` raises KeyError or ValueError for one that does not fit."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.operations: dict[str, Operation] = {}
        self.decided: dict[tuple[str, str], Entry] = {}
        self.tripped: dict[str, float] = {}  # by target: when its breaker was last seen open
        self.results: Counter[tuple[str, Step, Result]] = Counter()
        self.repairs: list[tuple[str, float]] = []  # target, seconds from opening to being well
        self._open: dict[tuple[str, str], str] = {}  # by target and instance: its open operation
        self._of: dict[tuple[str, str], list[str]] = {}  # all of its operations, oldest first
        self._replacements: dict[str, list[float]] = {}
        for entry in entries:
            self.add(entry)

    def open_operations(self) -> list[Operation]:
        return [self.operations[one] for one in self._open.values()]

    def open_one(self, target: str, instance: str) -> Operation | None:
        found = self._open.get((target, instance))
        return None if found is None else self.operations[found]

    def unsettled(self, target: str) -> list[str]:
        """Instances of which the last decision was more than that there is nothing to do."""
        return [
            i for (name, i), entry in self.decided.items() if name == target and (entry.body or {})["next"] != "none"
        ]

    def past(self, target: str, instance: str, now: float) -> Past:
        """The last hour as decide() wants it."""
        mine = [self.operations[one] for one in self._of.get((target, instance), ())]
        return Past(
            recurrences=sum(_recent(o.opened_at, now) for o in mine if not o.is_open)
            + sum(_recent(at, now) for o in mine for at in o.relapses),
            attempts=tuple(sorted(a.last_at for o in mine for a in o.attempts if _recent(a.last_at, now))),
            replacements=sum(_recent(at, now) for at in self._replacements.get(target, ())),
        )

    def add(self, entry: Entry) -> None:
        body = entry.body or {}
        match entry.kind:
            case Kind.EPOCH:
                return
            case Kind.DECIDED:
                self.decided[entry.target, entry.instance] = entry
                if Reason.BREAKER in body["reasons"]:
                    self.tripped[entry.target] = entry.at
                return
            case Kind.OPENED:
                if entry.operation in self.operations:
                    raise ValueError(f"operation {entry.operation} was opened twice")
                about = (entry.target, entry.instance)
                if about in self._open:
                    raise ValueError(f"operation {entry.operation} is a second one for {entry.instance}")
                self.operations[entry.operation] = _opened(entry, body)
                self._open[about] = entry.operation
                self._of.setdefault(about, []).append(entry.operation)
                return
        self.operations[entry.operation] = self._changed(self.operations[entry.operation], entry, body)

    def _changed(self, operation: Operation, entry: Entry, body: Mapping[str, Any]) -> Operation:
        match entry.kind:
            case Kind.JUDGED:
                relapses = (*operation.relapses, entry.at) if body["relapsed"] else operation.relapses
                if body["failed"] is None:
                    return replace(operation, relapses=relapses)
                last = replace(operation.attempts[-1], failed=Reason(body["failed"]))
                return replace(operation, relapses=relapses, attempts=(*operation.attempts[:-1], last))
            case Kind.RESERVED:
                attempt = Attempt(Step(body["step"]), int(body["number"]), entry.at)
                if attempt.step is Step.REPLACE:
                    self._replacements.setdefault(operation.target, []).append(entry.at)
                return replace(operation, attempts=(*operation.attempts, attempt))
            case Kind.OUTCOME:
                last, result = operation.attempts[-1], Result(body["result"])
                if last.result is not None:
                    raise ValueError(f"operation {operation.id}: a second outcome of one attempt")
                self.results[operation.target, last.step, result] += 1
                last = replace(last, result=result, ended_at=entry.at, detail=str(body["detail"]))
                return replace(operation, attempts=(*operation.attempts[:-1], last))
            case Kind.HANDED:
                return replace(operation, handed_for=Reason(body["reason"]), handed_at=entry.at)
            case Kind.CLOSED:
                well_since = body["well_since"]
                if well_since is not None:
                    self.repairs.append((operation.target, max(0.0, well_since - operation.opened_at)))
                reason = Reason(body["reason"])
                del self._open[operation.target, operation.instance]
                return replace(operation, closed_for=reason, closed_at=entry.at, well_since=well_since)
        raise ValueError(f"an entry of kind {entry.kind} changes no operation")


def opened_body(operation: Operation) -> dict[str, Any]:
    """What an OPENED entry holds: with it the operation goes on as it began, whatever the configuration says later."""
    return {
        "symptom": operation.symptom,
        "alert": operation.alert,
        "ladder": [step.value for step in operation.ladder],
        "limits": asdict(operation.limits),
    }


def _opened(entry: Entry, body: Mapping[str, Any]) -> Operation:
    return Operation(
        id=entry.operation,
        target=entry.target,
        instance=entry.instance,
        symptom=str(body["symptom"]),
        alert=str(body["alert"]),
        opened_at=entry.at,
        ladder=tuple(Step(step) for step in body["ladder"]),
        limits=Limits(**body["limits"]),
    )


def _recent(at: float, now: float) -> bool:
    return age(now, at) < HOUR_SECONDS
