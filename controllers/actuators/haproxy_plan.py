"""What to do next with the servers of one HAProxy backend: values in, steps out. It reads and writes nothing.

The block of lines in HAProxy's configuration file is what is wanted; what HAProxy says of its servers is what there is.
Each call looks at both and does what is open, so that it does not matter where an earlier one ended:

    starting   add the server (in maintenance), write it down, start its program, drain (its checks run, and no
               request comes), and make it ready once the check passes
    serving    nothing
    leaving    drain; once no session is left: maintenance, remove the server, stop its program, forget it

A server joins the file only after HAProxy has taken it: a line that HAProxy refuses would make the next reload fail.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

ATTEMPTS = 3  # failed starts of one server until it rests
REST_SECONDS = 600.0
RELOAD_SECONDS = 30.0  # between the reading of the configuration and the new process being the one that answers
SETTLE_SECONDS = 1.0  # a request that chose its server just before the drain is a session of it by then


class Role(StrEnum):
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class Slot:
    """A server that may be had. The name follows from the address, so one never has the other's."""

    name: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """As HAProxy writes it: HOST:PORT, brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One server of the file. `since`: Unix seconds of its role's beginning."""

    slot: Slot
    role: Role
    since: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Starts of a server in a row that did not become healthy, and the last one's Unix seconds."""

    name: str
    count: int
    at: float


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between the two marks of the file."""

    entries: tuple[Entry, ...] = ()
    failures: tuple[Failure, ...] = ()

    def wanted(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.role is not Role.LEAVING]


@dataclass(frozen=True, slots=True)
class Seen:
    """One server as HAProxy has it. `sessions`: requests in it and waiting for it. `check`: the last one's outcome."""

    slot: Slot
    maintenance: bool
    draining: bool
    running: bool
    passed: bool  # a health check has run and passed
    sessions: int
    check: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the plan may depend on. `seen`: the whole backend by name, servers of the user's own included.

    `uptime_seconds`: of the HAProxy process; older ones may still have sessions of before the last reload.
    """

    block: Block
    seen: Mapping[str, Seen]
    pool: tuple[Slot, ...]
    prefix: str
    now: float
    uptime_seconds: float
    ready_seconds: float
    drain_seconds: float


class Verb(StrEnum):
    ADD = "add server"
    START = "start"
    CHECK = "enable health"
    DRAIN = "drain"
    READY = "ready"
    END_SESSIONS = "shutdown sessions"
    MAINTENANCE = "maint"
    DELETE = "del server"
    STOP = "stop"  # and, once it is, the server's line goes
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Step:
    """One effect. Each may be done again without harm. WRITE carries the whole block, the others a server."""

    verb: Verb
    slot: Slot | None = None
    block: Block | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps to do now, in order. `failed`: servers given up because they never became healthy.

    `starting`, `draining`: servers that are waited for, until their check passes or their sessions end.
    """

    steps: tuple[Step, ...] = ()
    failed: tuple[Slot, ...] = ()
    starting: tuple[Slot, ...] = ()
    draining: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """Who goes first when there are to be fewer."""

    victims: tuple[str, ...] = ()
    in_hand: Mapping[str, float] | None = None


def plan(now: Situation, wanted: int | None = None, prefer: Preference | None = None) -> Plan:
    """What to do next so that `wanted` servers come to be there. None: only what is open already."""
    block, new = adopted(now), frozenset[Slot]()
    if wanted is not None:
        block, new = _retargeted(replace(now, block=block), wanted, prefer or Preference())
    first = [Step(Verb.ADD, slot) for slot in now.pool if slot in new]
    later: list[Step] = []
    failed: list[Slot] = []
    waiting: dict[Role, list[Slot]] = {role: [] for role in Role}
    moved = [_moved(entry, now) for entry in block.entries]
    for before, after in zip(block.entries, moved, strict=True):
        if (before.role, after.role) == (Role.STARTING, Role.SERVING):
            first.append(Step(Verb.READY, after.slot))
            block = replace(block, failures=tuple(one for one in block.failures if one.name != after.slot.name))
        if (before.role, after.role) == (Role.STARTING, Role.LEAVING):
            block = with_failure(block, after.slot.name, now.now)
            failed.append(after.slot)
        if after.slot not in new:
            more = _steps(after, now)
            later += more
            waiting[after.role] += [] if more else [after.slot]
    block = replace(block, entries=tuple(moved))
    first += [Step(Verb.DELETE, orphan) for orphan in _orphans(now, block)]
    if block != now.block:
        first.append(Step(Verb.WRITE, block=block))
    return Plan((*first, *later), tuple(failed), tuple(waiting[Role.STARTING]), tuple(waiting[Role.LEAVING]))


def _moved(entry: Entry, now: Situation) -> Entry:
    """The entry in the role that it has come to by itself."""
    seen = now.seen.get(entry.slot.name)
    if entry.since > now.now:  # the clock was set back
        return replace(entry, since=now.now)
    if entry.role is Role.STARTING:
        if seen is not None and seen.running and seen.passed and not seen.maintenance:
            return Entry(entry.slot, Role.SERVING, now.now)
        if now.now - entry.since > now.ready_seconds:
            return Entry(entry.slot, Role.LEAVING, now.now)
    if entry.role is Role.SERVING:
        missed = abs(now.now - now.uptime_seconds - entry.since) < RELOAD_SECONDS
        if seen is None or (seen.maintenance and missed):  # HAProxy started without its line, or with an older one
            return Entry(entry.slot, Role.STARTING, now.now)
    return entry


def _steps(entry: Entry, now: Situation) -> list[Step]:
    """What HAProxy and the programs are to be told about one entry; nothing where it serves, or is waited for."""
    slot, seen = entry.slot, now.seen.get(entry.slot.name)
    match entry.role:
        case Role.SERVING:
            return []
        case Role.STARTING:
            if seen is None:
                return [Step(Verb.ADD, slot)]
            if seen.maintenance:
                return [Step(Verb.START, slot), Step(Verb.CHECK, slot), Step(Verb.DRAIN, slot)]
            return []
        case Role.LEAVING:
            return [Step(Verb.STOP, slot)] if seen is None else _towards_the_end(entry, seen, now)


def _towards_the_end(entry: Entry, seen: Seen, now: Situation) -> list[Step]:
    """A server that leaves goes once it has no session here, nor, as far as can be told, in an older process."""
    slot, told_seconds = entry.slot, now.now - entry.since
    over = told_seconds >= now.drain_seconds
    settled = told_seconds >= SETTLE_SECONDS and now.uptime_seconds >= now.drain_seconds
    if not (seen.draining or seen.maintenance):
        return [Step(Verb.DRAIN, slot)]
    if over or (settled and seen.sessions == 0):
        steps = [] if seen.maintenance else [Step(Verb.MAINTENANCE, slot)]
        steps += [Step(Verb.END_SESSIONS, slot)] if seen.sessions else []
        return [*steps, Step(Verb.DELETE, slot)]
    if seen.maintenance and seen.sessions == 0 and not settled:
        # a reload has read `disabled`; in drain its checks and its sticky clients go on
        return [Step(Verb.DRAIN, slot)]
    return []


def is_ours(seen: Seen, prefix: str) -> bool:
    """Whether the name is the one that we give to that address."""
    return seen.slot.name == slot_of(prefix, seen.slot.host, seen.slot.port).name


def slot_of(prefix: str, host: str, port: int) -> Slot:
    return Slot(f"{prefix}{host}:{port}", host, port)


def adopted(now: Situation) -> Block:
    """The block, and servers of ours that take requests and are not in it: somebody put an older file back."""
    known = {entry.slot.name for entry in now.block.entries}
    lost = [
        Entry(seen.slot, Role.LEAVING if seen.draining else Role.SERVING, now.now)
        for name, seen in now.seen.items()
        if is_ours(seen, now.prefix) and name not in known and not seen.maintenance
    ]
    return replace(now.block, entries=(*now.block.entries, *lost)) if lost else now.block


def _orphans(now: Situation, block: Block) -> list[Slot]:
    """Servers of ours in maintenance that nothing is written of: added by a call that ended right after."""
    known = {entry.slot.name for entry in block.entries}
    return [
        seen.slot
        for name, seen in now.seen.items()
        if is_ours(seen, now.prefix) and name not in known and seen.maintenance
    ]


def _retargeted(now: Situation, wanted: int, prefer: Preference) -> tuple[Block, frozenset[Slot]]:
    """The block with `wanted` servers, or as many as can be had, and those of them that HAProxy has to be given."""
    entries = {entry.slot.name: entry for entry in now.block.entries}
    there = now.block.wanted()
    if len(there) >= wanted:
        for entry in going_first(there, now, prefer)[: len(there) - wanted]:
            entries[entry.slot.name] = Entry(entry.slot, Role.LEAVING, now.now)
        return replace(now.block, entries=tuple(entries.values())), frozenset()
    more = (*taken_back(now), *available(now))[: wanted - len(there)]
    for slot in more:
        entries[slot.name] = Entry(slot, Role.STARTING, now.now)
    new = frozenset(slot for slot in more if slot.name not in now.seen)
    return replace(now.block, entries=tuple(entries.values())), new


def taken_back(now: Situation) -> list[Slot]:
    """Servers that leave and still could serve: the shortest way to one more. The last told first."""
    there = [
        (entry.since, entry.slot)
        for entry in now.block.entries
        if entry.role is Role.LEAVING
        and (seen := now.seen.get(entry.slot.name)) is not None
        and not seen.maintenance
        and seen.running
        and seen.passed
    ]
    return [slot for _, slot in sorted(there, key=lambda one: -one[0])]


def available(now: Situation) -> list[Slot]:
    """Servers of the pool that may be started, those that never failed first."""
    used = {entry.slot.name for entry in now.block.entries}
    foreign = others(now)
    failures = {failure.name: failure for failure in now.block.failures}

    def count(slot: Slot) -> int:
        return failures[slot.name].count if slot.name in failures else 0

    free = [slot for slot in now.pool if slot.name not in used and slot.address not in foreign]
    return sorted([slot for slot in free if slot.name not in resting(now)], key=count)


def others(now: Situation) -> dict[str, str]:
    """Servers of the user's own: address -> name."""
    return {seen.slot.address: name for name, seen in now.seen.items() if not is_ours(seen, now.prefix)}


def resting(now: Situation) -> dict[str, Failure]:
    """Servers that failed too often, and lately."""
    return {
        failure.name: failure
        for failure in now.block.failures
        if failure.count >= ATTEMPTS and now.now - failure.at < REST_SECONDS
    }


def going_first(entries: list[Entry], now: Situation, prefer: Preference) -> list[Entry]:
    """The entries in the order in which fewer are wanted of them.

    Named victims, those that never served, those outside the pool, those that are down, and then the idlest; of equals
    the last of the pool.
    """
    place = {slot.name: index for index, slot in enumerate(now.pool)}

    def key(entry: Entry) -> tuple[bool, bool, bool, bool, float, int]:
        slot, seen = entry.slot, now.seen.get(entry.slot.name)
        named = slot.name in prefer.victims or slot.address in prefer.victims
        down = seen is None or not seen.running or seen.maintenance
        return (
            not named,
            entry.role is not Role.STARTING,
            slot.name in place,
            not down,
            work_in_hand(slot, seen, prefer),
            -place.get(slot.name, 0),
        )

    return sorted(entries, key=key)


def work_in_hand(slot: Slot, seen: Seen | None, prefer: Preference) -> float:
    """As measured under the server's name or address; sessions in HAProxy where it is not."""
    sessions = float(seen.sessions) if seen else 0.0
    measured = prefer.in_hand or {}
    return measured.get(slot.name, measured.get(slot.address, sessions))


def with_failure(block: Block, name: str, now: float) -> Block:
    """The block with one more failed start of this server; after a rest the count begins anew."""
    before = next((failure for failure in block.failures if failure.name == name), None)
    again = before is not None and now - before.at < REST_SECONDS
    count = before.count + 1 if before is not None and again else 1
    kept = tuple(failure for failure in block.failures if failure.name != name)
    return replace(block, failures=(*kept, Failure(name, count, now)))


def given_up(block: Block, slot: Slot, now: float) -> Block:
    """The block after a start that failed at once: the server leaves, and it is written how often that was."""
    entries = tuple(Entry(slot, Role.LEAVING, now) if one.slot == slot else one for one in block.entries)
    return with_failure(replace(block, entries=entries), slot.name, now)


def without(block: Block, slot: Slot) -> Block:
    return replace(block, entries=tuple(one for one in block.entries if one.slot != slot))


def conflict(now: Situation) -> tuple[Slot, Slot] | None:
    """A server of HAProxy's with the name of one of ours and another address: (ours, theirs)."""
    ours = {slot.name: slot for slot in (*now.pool, *(entry.slot for entry in now.block.entries))}
    for name, seen in now.seen.items():
        if name in ours and seen.slot.address != ours[name].address:
            return ours[name], seen.slot
    return None


def counted(now: Situation) -> tuple[int, int, int, bool]:
    """(wanted, ready, draining, unfinished) of the present situation."""
    block = adopted(now)
    there = block.wanted()
    ready = 0
    for entry in there:
        seen = now.seen.get(entry.slot.name)
        ready += seen is not None and seen.running and not seen.maintenance and not seen.draining
    open_now = plan(now)
    return (
        len(there),
        ready,
        len(block.entries) - len(there),
        bool(open_now.steps or open_now.starting or open_now.draining),
    )
