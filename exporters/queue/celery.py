"""Celery on Redis: a list for each queue and priority, and one hash of all that workers have taken, `unacked`.

A worker takes more messages than it works on (prefetch), and at once all that have an ETA; both wait in `unacked` under
no queue's name, so the messages there are looked into: they tell their exchange and routing key, and the exchange's
bindings tell the queue. What lies there with an ETA still to come is delayed, the rest is active, whether it is worked
on or only prefetched.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction
from exporters.queue.redis import since, unix_seconds
from exporters.queue.redis_queues import Found, RedisQueues, System, wanted
from exporters.queue.state import QueueState
from exporters.redis_server import Command, Key, Name, QueuesAt, Reading, distinct, require_redis
from exporters.runtime.config import Section

SEPARATOR = "\x06\x16"
SAMPLE = 300  # messages of `unacked` that are looked into; of more, a random sample tells the shares
EXCHANGES = 100  # whose bindings are looked up in one scrape
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
    messages = [destination(message) for message in pairs[1::2]]
    exchanges = sorted({message.exchange for message in messages if message.exchange})[:EXCHANGES]
    keys = [f"{server.prefix}_kombu.binding.{exchange}" for exchange in exchanges]
    bound = (yield [Command("SMEMBERS", key, may_fail=True) for key in keys]) if keys else []
    bindings = {name: each for name, each in zip(exchanges, bound, strict=True) if not isinstance(each, Exception)}
    active, delayed = shares(messages, bindings, count, now)
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


@dataclass(frozen=True)
class Destination:
    """Where a message in `unacked` was sent. eta: Unix seconds, None where it has none."""

    exchange: str
    routing_key: str
    eta: float | None


def shares(
    messages: Sequence[Destination], bindings: Mapping[str, Iterable[bytes]], count: int, now: float
) -> tuple[dict[str, int], dict[str, int]]:
    """(active, delayed) by queue, of `count` messages of which these are a sample, or all.

    bindings: of each exchange, as Redis has them.
    """
    active: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    for message in messages:
        is_due = message.eta is None or message.eta <= now
        queue = queue_of(message.routing_key, bindings.get(message.exchange, ()))
        (active if is_due else delayed)[queue] += 1
    scale = max(1.0, count / len(messages)) if messages and len(messages) >= SAMPLE else 1.0
    return scaled(active, scale), scaled(delayed, scale)


def scaled(counts: Mapping[str, int], scale: float) -> dict[str, int]:
    return {queue: round(count * scale) for queue, count in counts.items()}


def queue_of(routing_key: str, bindings: Iterable[bytes]) -> str:
    """The queue that an exchange with these bindings (key, pattern, queue) gives such a message to.

    Without exchange or binding it is the key itself. Of several queues nobody knows from which it was taken: the first.
    """
    parts = (binding.decode("utf-8", "backslashreplace").split(SEPARATOR) for binding in bindings)
    whole = (part for part in parts if len(part) == 3)
    found = sorted((key != routing_key, queue) for key, _, queue in whole if is_bound(key, routing_key))
    return found[0][1] if found else routing_key


def is_bound(key: str, routing_key: str) -> bool:
    """Whether a binding's key takes this routing key; of a topic exchange `*` is a word and `#` any number of them."""
    if key == routing_key:
        return True
    if not ("*" in key or "#" in key) or len(routing_key) > 255 or key.count("#") > 3:  # more takes long to compare
        return False
    words = ({"*": "[^.]+", "#": ".*"}.get(word, re.escape(word)) for word in key.split("."))
    return re.fullmatch("[.]".join(words), routing_key) is not None


def destination(message: bytes) -> Destination:
    """Of a message in `unacked`: [the message, exchange, routing key]."""
    try:
        content, exchange, routing_key = json.loads(message)
        eta = content["headers"].get("eta")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Destination("", "", None)
    return Destination(str(exchange or ""), str(routing_key), unix_seconds(eta))


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
