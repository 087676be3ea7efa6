"""Celery on Redis: a list for each queue and priority, and one hash of all that workers have taken, `unacked`.

A worker takes more messages than it works on (prefetch), and at once all that have an ETA; both wait in `unacked` under
no queue's name, so the messages there are looked into. What lies there with an ETA still to come is delayed, the rest
is active, whether it is worked on or only prefetched.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction
from exporters.queue.redis import since, unix_seconds
from exporters.queue.redis_queues import Found, RedisQueues, System, wanted
from exporters.queue.redis_server import Command, Key, Name, QueuesAt, Reading, distinct, require_redis
from exporters.queue.state import QueueState
from exporters.runtime.config import Section

SEPARATOR = "\x06\x16"
SAMPLE = 300  # messages of `unacked` that are looked into; of more, a random sample tells the shares
INTERNAL = (b"celeryev", b"celery.pidbox", b"reply.celery.pidbox")  # exchanges for events and control


class CeleryQueue(Section):
    """One queue, as `-Q` names it."""

    name: Name


class Server(QueuesAt):
    """A broker. `prefix`, `priority_steps`, `unacked`: as in broker_transport_options, where the program sets them."""

    queues: list[CeleryQueue] = []
    prefix: str = ""  # global_keyprefix
    priority_steps: Annotated[list[int], Field(min_length=1, max_length=100)] = [0, 3, 6, 9]
    unacked: Key = "unacked"  # unacked_key
    enqueued_at: Key = "enqueued_at"  # a header that the program adds: Celery keeps no such time
    consumers: bool = True  # ask for the clients of the server: workers take, and listen for remote control

    @property
    def watched(self) -> Sequence[CeleryQueue]:
        return self.queues

    @property
    def source(self) -> str:
        """Programs that share a server are told apart by their prefix."""
        return self.address if self.prefix == "" else f"{self.address}#{self.prefix}"


Servers = Annotated[list[Server], AfterValidator(distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a broker, by its address. Raises ConfigError where the package `redis` is not installed."""
    require_redis("queue.celery")
    return {server.source: RedisQueues(server, system(server)).collect for server in servers}


def system(server: Server) -> System:
    """A broker: its queues, and what all of them share."""
    start = f"{server.prefix}_kombu.binding."

    def of_key(key: bytes) -> Reading[Mapping[bytes, Lists]]:
        if not server.discover or key[len(start.encode()) :] in INTERNAL:
            return {}
        (bindings,) = yield [Command("SMEMBERS", key)]
        names = (binding.rpartition(SEPARATOR.encode())[2] for binding in bindings)
        return {name: Lists(name, server) for name in names if wanted(name, server.discover)}

    return System(
        "celery",
        {queue.name: Lists(queue.name.encode(), server) for queue in server.queues},
        Found(f"{start}*", "set", of_key) if server.discover else None,
        shared=lambda now: taken(server, now),
        finish=with_taken,
    )


@dataclass(frozen=True)
class Taken:
    """What is in the workers' hands. active, delayed: messages by queue.

    workers: on this broker, whatever queues they serve; None where that is not asked.
    """

    active: Mapping[str, int]
    delayed: Mapping[str, int]
    workers: int | None


def taken(server: Server, now: float) -> Reading[Taken]:
    """What all queues of a broker share."""
    unacked = server.prefix + server.unacked
    clients = [Command("CLIENT", "LIST", may_fail=True)] if server.consumers else []
    count, pairs, *listed = yield [
        Command("HLEN", unacked),
        Command("HRANDFIELD", unacked, SAMPLE, "WITHVALUES"),
        *clients,
    ]
    active, delayed = shares(pairs[1::2], count, now)
    told = listed and not isinstance(listed[0], Exception)
    return Taken(active, delayed, workers(listed[0], server.database) if told else None)


def workers(clients: bytes, database: str) -> int:
    """How many workers are connected, by `CLIENT LIST`: each has a connection that takes and one that listens.

    Other programs on the same database have one or the other: monitors only listen, plain workers only take.
    """
    connections = [dict(part.partition(b"=")[::2] for part in line.split()) for line in clients.splitlines()]
    here = [each for each in connections if each.get(b"db") == database.encode()]
    taking = sum(each.get(b"cmd") == b"brpop" for each in here)
    listening = sum(each.get(b"psub", b"0") != b"0" for each in here)
    return min(taking, listening)


def shares(messages: Sequence[bytes], count: int, now: float) -> tuple[dict[str, int], dict[str, int]]:
    """(active, delayed) by queue, of `count` messages of which these are a sample, or all."""
    active: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    for message in messages:
        queue, eta = destination(message)
        (delayed if eta is not None and eta > now else active)[queue] += 1
    scale = max(1.0, count / len(messages)) if messages and len(messages) >= SAMPLE else 1.0
    return scaled(active, scale), scaled(delayed, scale)


def scaled(counts: Mapping[str, int], scale: float) -> dict[str, int]:
    return {queue: round(count * scale) for queue, count in counts.items()}


def destination(message: bytes) -> tuple[str, float | None]:
    """(queue, ETA in Unix seconds or None) of a message in `unacked`: [the message, exchange, routing key]."""
    try:
        content, _, queue = json.loads(message)
        eta = content["headers"].get("eta")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", None
    return str(queue), unix_seconds(eta)


def with_taken(states: dict[str, QueueState], shared: Taken) -> dict[str, QueueState]:
    """The queues' states with what workers have taken from each.

    Nobody says which queues a worker serves: their number is told where there is one queue, or no worker at all.
    """
    workers = shared.workers if len(states) == 1 or shared.workers == 0 else None
    return {
        name: replace(
            state,
            messages={
                **state.messages,
                "active": shared.active.get(name, 0),
                "delayed": shared.delayed.get(name, 0),
            },
            consumers=workers,
        )
        for name, state in states.items()
    }


class Lists:
    """One queue: a list for each priority, the first for the most urgent."""

    def __init__(self, name: bytes, server: Server) -> None:
        self._enqueued_at = server.enqueued_at
        keys = [
            server.prefix.encode() + name + (f"{SEPARATOR}{step}".encode() if step else b"")
            for step in server.priority_steps
        ]
        self._commands = [command for key in keys for command in (Command("LLEN", key), Command("LINDEX", key, -1))]

    def read(self, now: float) -> Reading[QueueState]:
        replies = yield self._commands
        heads = [head for head in replies[1::2] if head is not None]
        known = [age for age in (since(head_time(head, self._enqueued_at), now) for head in heads) if age is not None]
        ages = {"ready": max(known)} if known else {} if heads else {"ready": 0.0}
        return QueueState({"ready": sum(replies[0::2])}, ages)


def head_time(message: bytes, header: str) -> Any:
    """The value of a message's header; None where it has none."""
    try:
        return json.loads(message)["headers"].get(header)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
