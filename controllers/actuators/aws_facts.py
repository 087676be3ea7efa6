"""What EC2 and ELBv2 say of a fleet, as values, and what follows from it: who works, who goes, what a start is called.

No calls and no clock. The state of an instance is in its tags, so that any process goes on where another one ended.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FLEET = "tidewise:fleet"
SLOT = "tidewise:slot"
STATE = "tidewise:state"
SINCE = "tidewise:since"  # Unix seconds, of the state
MADE_BY = "tidewise:made-by"

ALIVE = frozenset({"pending", "running"})
ABSENT = "absent"  # not registered in a target group
FAILURES_COUNT_SECONDS = 3600.0


class Stage(StrEnum):
    """The value of the tag `tidewise:state`; an instance without it is starting."""

    STARTING = "starting"
    READY = "ready"  # it was healthy once
    DRAINING = "draining"  # told to end
    FAILED = "failed"  # it did not become healthy in time


LEAVING = frozenset({Stage.DRAINING, Stage.FAILED})


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of the fleet. `launched_at`, `since`: Unix seconds. `health`: target group -> its word for it."""

    id: str
    state: str
    slot: int | None = None
    stage: Stage = Stage.STARTING
    since: float | None = None
    launched_at: float = 0.0
    names: frozenset[str] = frozenset()  # by which metrics may call it: its id and addresses
    impaired: bool = False  # EC2's own check of it fails
    health: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        return self.state in ALIVE

    @property
    def is_replica(self) -> bool:
        """Asked for, and neither ended nor told to end."""
        return self.is_alive and self.stage not in LEAVING

    @property
    def is_healthy(self) -> bool:
        """Running, and taken in by every target group."""
        return self.state == "running" and not self.impaired and all(word == "healthy" for word in self.health.values())

    @property
    def is_ready(self) -> bool:
        return self.is_replica and self.is_healthy

    @property
    def is_leaving(self) -> bool:
        """Told to end and still there."""
        return self.state == "shutting-down" or (self.is_alive and self.stage in LEAVING)

    @property
    def registered_in(self) -> tuple[str, ...]:
        return tuple(group for group, word in self.health.items() if word != ABSENT)


def parsed(raw: Mapping[str, Any]) -> Instance:
    """An instance out of DescribeInstances or RunInstances."""
    tags = {tag["Key"]: tag["Value"] for tag in raw.get("Tags", [])}
    names = (raw.get(key) for key in ("InstanceId", "PrivateIpAddress", "PrivateDnsName", "PublicIpAddress"))
    launched = raw.get("LaunchTime")
    return Instance(
        id=raw["InstanceId"],
        state=raw.get("State", {}).get("Name", "pending"),
        slot=int(tags[SLOT]) if tags.get(SLOT, "").isdecimal() else None,
        stage=Stage(tags[STATE]) if tags.get(STATE) in set(Stage) else Stage.STARTING,
        since=_number(tags.get(SINCE)),
        launched_at=launched.timestamp() if launched is not None else 0.0,
        names=frozenset(name for name in names if name),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:  # somebody wrote it by hand
        return None


def work_in_hand(instance: Instance, in_hand: Mapping[str, float] | None) -> float | None:
    """What it works on, where that is known. Metrics call it by its id or an address, with or without a port."""
    found = [work for name, work in (in_hand or {}).items() if _means(name, instance)]
    return sum(found) if found else None


def is_named(instance: Instance, names: Iterable[str]) -> bool:
    return any(_means(name, instance) for name in names)


def _means(name: str, instance: Instance) -> bool:
    return name in instance.names or name.rpartition(":")[0] in instance.names


def victims_of(
    replicas: Sequence[Instance], count: int, named: Iterable[str], in_hand: Mapping[str, float] | None
) -> list[Instance]:
    """Which `count` go: those named, then those that do not work yet, the idlest, the least busy, the youngest.

    So as many healthy ones stay as can. Of which the work is not known, they come after those of which it is.
    """
    wanted = tuple(named)

    def order(instance: Instance) -> tuple[bool, bool, float, float]:
        work = work_in_hand(instance, in_hand)
        return (
            not is_named(instance, wanted),
            instance.is_ready,
            float("inf") if work is None else work,
            -instance.launched_at,
        )

    return sorted(replicas, key=order)[:count]


def boot_failed(instance: Instance, now: float, boot_seconds: float) -> bool:
    """Whether it had its time and was never healthy. One that a target group does not know yet is not at fault."""
    known = all(word not in (ABSENT, "unused") for word in instance.health.values())
    late = now - instance.launched_at > boot_seconds
    return instance.is_replica and instance.stage is Stage.STARTING and not instance.is_healthy and known and late


def failures_in_a_row(instances: Iterable[Instance], now: float) -> list[Instance]:
    """Those of the last hour that failed to boot, since the newest that did not. Ended ones are seen for an hour."""
    instances = list(instances)
    good = max((i.launched_at for i in instances if i.stage in (Stage.READY, Stage.DRAINING)), default=0.0)
    failed = [i for i in instances if i.stage is Stage.FAILED and i.launched_at > good]
    return [i for i in failed if now - (i.since or i.launched_at) < FAILURES_COUNT_SECONDS]


def free_slots(instances: Iterable[Instance], count: int) -> list[int]:
    """The lowest numbers that no instance has that still exists."""
    taken = {i.slot for i in instances if i.is_alive or i.state in ("shutting-down", "stopping", "stopped")}
    free: list[int] = []
    slot = 0
    while len(free) < count:
        if slot not in taken:
            free.append(slot)
        slot += 1
    return free


def predecessor(instances: Iterable[Instance], slot: int) -> str:
    """The last instance that had the slot, as far as EC2 still shows it; '' for none."""
    return max(((i.launched_at, i.id) for i in instances if i.slot == slot), default=(0.0, ""))[1]


def client_token(fleet: str, slot: int, after: str, option: Sequence[str | None], attempt: int) -> str:
    """The name of a wish: the same wish has the same one in every process, so that EC2 starts one instance for it.

    It is a new wish when the slot's last instance has ended (`after`), for another type or place, and where EC2 says
    that the instance of this name has ended already (`attempt`).
    """
    words = "|".join([fleet, str(slot), after, *(part or "" for part in option), str(attempt)])
    return hashlib.sha256(words.encode()).hexdigest()[:64]
