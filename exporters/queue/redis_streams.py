"""Redis streams: `XADD`, and a consumer group that reads (`XREADGROUP`) and acknowledges (`XACK`)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction
from exporters.queue.redis_queues import Found, RedisQueues, System
from exporters.queue.state import QueueState
from exporters.redis_server import Command, Key, Name, QueuesAt, Reading, distinct, failure, require_redis
from exporters.runtime.config import Section

COUNTED_ENTRIES = 500  # read to count what a group has not seen, where Redis itself does not know
COUNTED_BYTES = 8 * 2**20  # of these together, by the first and the last entry


class Stream(Section):
    """One queue: a group's view of a stream. Without `group`, whoever reads it deletes the entries (`XDEL`)."""

    name: Name
    stream: Key | None = None
    group: Key | None = None
    consumer_idle_seconds: Annotated[float, Field(gt=0)] = 600.0  # one that has not asked for so long is gone


class Server(QueuesAt):
    """A Redis server and its streams. `discover`: a glob of keys; each group of each is a queue called KEY/GROUP."""

    queues: list[Stream] = []

    @property
    def watched(self) -> Sequence[Stream]:
        return self.queues


Servers = Annotated[list[Server], AfterValidator(distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a server, by its address. Raises ConfigError where the package `redis` is not installed."""
    require_redis("queue.redis_streams")
    return {server.source: RedisQueues(server, system(server)).collect for server in servers}


def system(server: Server) -> System:
    """The streams of a server."""
    queues = {
        queue.name: Streams(queue.stream or queue.name, queue.group, queue.consumer_idle_seconds)
        for queue in server.queues
    }
    found = Found(server.discover, "stream", groups_of) if server.discover else None
    return System("redis_streams", queues, found)


def groups_of(key: bytes) -> Reading[Mapping[bytes, "Streams"]]:
    """The queues of a stream that was discovered: one a group, or the stream itself where it has none."""
    (groups,) = yield [Command("XINFO", "GROUPS", key, may_fail=True)]
    if isinstance(groups, Exception):  # it has gone meanwhile
        return {}
    names = [fields(group)["name"] for group in groups]
    found = {key + b"/" + name: Streams(key, name, is_found=True) for name in names}
    return found or {key: Streams(key, None, is_found=True)}


class Streams:
    """One queue: a stream and perhaps a group. `is_found`: by discovery, so nobody said that there must be one."""

    def __init__(
        self, stream: str | bytes, group: str | bytes | None, idle_seconds: float = 600.0, is_found: bool = False
    ) -> None:
        self._stream = stream
        self._is_found = is_found
        self._group = group.encode() if isinstance(group, str) else group
        self._idle_seconds = idle_seconds
        self._type = Command("TYPE", stream)
        self._info = Command("XINFO", "STREAM", stream, may_fail=True)
        self._groups = Command("XINFO", "GROUPS", stream, may_fail=True)
        self._grouped = (
            Command("XINFO", "CONSUMERS", stream, self._group, may_fail=True),
            Command("XPENDING", stream, self._group, may_fail=True),
        ) if self._group else ()  # fmt: skip

    def read(self, now: float) -> Reading[QueueState | None]:
        commands = [self._type, self._info, self._groups, *self._grouped]
        kind, info, groups, *grouped = yield commands
        if kind == b"none":  # nobody has put anything yet
            return QueueState(
                {"ready": 0} | ({"active": 0} if self._group else {}), {"ready": 0.0}, 0 if self._group else None
            )
        for command, reply in ((self._info, info), (self._groups, groups)):
            if isinstance(reply, Exception):
                raise ValueError(failure(command, reply))
        stream = fields(info)
        enqueued = {"enqueued": float(stream["entries-added"])} if "entries-added" in stream else {}
        group = next((each for each in map(fields, groups) if each["name"] == self._group), None)
        if group is None and self._is_found and (groups or self._group):
            return None  # it got a group, which is a queue of its own; or this group was taken away
        if group is None:
            # nobody reads it yet (or it has no groups at all): all that is there waits
            first = stream.get("first-entry")
            age = ages(now, ready=first[0] if first else None)
            waiting = {"ready": stream["length"]} | ({"active": 0} if self._group else {})
            return QueueState(waiting, age, 0 if self._group else None, enqueued)
        return (yield from self._of_group(stream, group, grouped, now, enqueued))

    def _of_group(
        self,
        stream: Mapping[str, Any],
        group: Mapping[str, Any],
        grouped: Sequence[Any],
        now: float,
        counters: Mapping[str, float],
    ) -> Reading[QueueState]:
        members, pending = grouped
        for command, reply in zip(self._grouped, grouped, strict=True):
            if isinstance(reply, Exception):
                raise ValueError(failure(command, reply))
        lag: int | None = group.get("lag")
        after = following(group["last-delivered-id"])
        size = max(entry_bytes(stream.get("first-entry")), entry_bytes(stream.get("last-entry")))
        asked = COUNTED_ENTRIES + 1 if lag is None and size * COUNTED_ENTRIES <= COUNTED_BYTES else 1
        (next_entries,) = yield [Command("XRANGE", self._stream, after, "+", "COUNT", asked)]
        if lag is None and len(next_entries) < asked:  # Redis before 7, or an entry behind it was deleted
            lag = len(next_entries)
        age = ages(now, ready=next_entries[0][0] if next_entries else None, active=pending[1])
        messages = {"active": group["pending"]}
        if lag is not None:
            messages = {"ready": max(0, lag), **messages}
        counters = dict(counters)
        if (entries_read := group.get("entries-read")) is not None:
            counters["completed"] = float(max(0, entries_read - group["pending"]))
        alive = [each for each in map(fields, members) if each["idle"] <= 1000 * self._idle_seconds]
        return QueueState(messages, age, len(alive), counters)


def fields(reply: Sequence[Any]) -> dict[str, Any]:
    """A flat list of names and values, as a dict."""
    pairs = iter(reply)
    return {name.decode(): value for name, value in zip(pairs, pairs, strict=True)}


def entry_bytes(entry: Sequence[Any] | None) -> int:
    """How long an entry's fields and values are; 0 where there is none."""
    return sum(map(len, entry[1])) if entry else 0


def ages(now: float, **oldest: bytes | None) -> dict[str, float]:
    """Seconds by state, from the oldest entry's ID, which begins with Unix milliseconds; 0 where there is none.

    A producer may make up IDs of its own: what is no time of this century leaves its state out.
    """
    found: dict[str, float] = {}
    for state, entry in oldest.items():
        if entry is None:
            found[state] = 0.0
        elif (added := int(entry.partition(b"-")[0]) / 1000) >= 946_684_800:
            found[state] = max(0.0, now - added)
    return found


def following(entry: bytes) -> str:
    """The smallest ID after this one."""
    milliseconds, _, number = entry.decode().partition("-")
    return f"{milliseconds}-{int(number) + 1}"
