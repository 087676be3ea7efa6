"""The collect function of one Redis server: its queues, named and discovered, of one queue system."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

from prometheus_client.metrics_core import Metric

from exporters.collector import PartialReadError
from exporters.labels import OTHER, Cap, clean
from exporters.queue.state import QueueState, queue_metrics
from exporters.redis_server import SHOWN_PROBLEMS, Command, Connection, QueuesAt, Reading, together

SCAN_SECONDS = 0.25  # of one scrape
SCAN_COUNT = 1000  # keys that the server looks at in one go
SCAN_KEYS = 2000  # that match, of one scrape
REST_SECONDS = 60.0  # between two passes over all keys


class Queue(Protocol):
    """One queue of a system, with what has to be remembered of it between scrapes."""

    def read(self, now: float) -> Reading[QueueState | None]:
        """None: there is no such queue any more. Raises ValueError, as a sentence, where a key holds something else."""


@dataclass
class Found:
    """How queues are discovered: keys that match `pattern` (and are of `kind`), and whose queues these are.

    of_key: the reading that tells the queues of one key, by name. It has to sort out itself what `discover` wants.
    """

    pattern: str
    kind: str
    of_key: Callable[[bytes], Reading[Mapping[bytes, Queue]]]


@dataclass
class System:
    """What a queue system on Redis knows.

    found, listed: two ways to discover queues: by the keys that there are, or from a list that the system keeps.
    shared: asked once a server; `finish` puts that into the queues' states.
    """

    name: str
    queues: Mapping[str, Queue]
    found: Found | None = None
    listed: Callable[[], Reading[Mapping[bytes, Queue]]] | None = None
    shared: Callable[[float], Reading[Any]] | None = None
    finish: Callable[[dict[str, QueueState], Any], dict[str, QueueState]] = field(default=lambda states, _: states)


class RedisQueues:
    """Reads all queues of one server in as many round trips as the longest reading has steps."""

    def __init__(self, server: QueuesAt, system: System) -> None:
        self._connection = Connection(server)
        self._system = system
        self._queues = dict(system.queues)
        self._scan = Scan(system.found) if system.found else None
        self._cap = Cap(f"queue.{system.name}.{server.source}", "queue", server.most) if server.discover else None
        self._label_prefix = server.label_prefix

    def collect(self, deadline: float) -> Iterator[Metric]:
        states, problems = self._read(deadline)
        yield from queue_metrics(self._system.name, {self._label_prefix + name: each for name, each in states.items()})
        if problems:
            more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
            raise PartialReadError("; ".join(problems[:SHOWN_PROBLEMS]) + more)

    def _read(self, deadline: float) -> tuple[dict[str, QueueState], list[str]]:
        def ask(commands: Iterable[Command]) -> list[Any]:
            return self._connection.ask(list(commands), deadline)

        problems = self._discover(ask)
        now = time.time()
        readings: dict[str | None, Reading[Any]] = {name: queue.read(now) for name, queue in self._queues.items()}
        if self._system.shared:
            readings[None] = self._system.shared(now)
        learned, failed = together(ask, readings)
        problems += [f"queue '{name}': {why}" if name is not None else why for name, why in failed.items()]
        states = {name: learned[name] for name in self._queues if learned.get(name) is not None}
        if None in learned:
            states = self._system.finish(states, learned[None])
        return states, problems

    def _discover(self, ask: Callable[[Iterable[Command]], list[Any]]) -> list[str]:
        """Add the queues that are new. What was found once stays: a queue without a job has no keys, mostly."""
        if self._cap is None:
            return []
        found: Mapping[bytes, Queue] = {}
        problems: list[str] = []
        if self._scan:
            found, problems = self._scan.more(ask, time.monotonic())
        if self._system.listed:
            listed, failed = together(ask, {0: self._system.listed()})
            found, problems = listed.get(0, {}), list(failed.values())
        for raw, queue in found.items():
            name = clean(raw)
            if name not in self._queues and (self._cap(raw) != OTHER or name == OTHER):
                self._queues[name] = queue
        return problems


class Scan:
    """Goes through the keys of a server bit by bit, by SCAN, for as long at a time as a scrape can spare."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._cursor: bytes = b"0"
        self._rest_until = 0.0

    def more(
        self, ask: Callable[[Iterable[Command]], list[Any]], started: float
    ) -> tuple[Mapping[bytes, Queue], list[str]]:
        """The queues of the keys that came by in this step, and what could not be read of them."""
        keys: set[bytes] = set()
        problems: list[str] = []
        while started >= self._rest_until:
            words = ("SCAN", self._cursor, "MATCH", self._found.pattern, "COUNT", SCAN_COUNT, "TYPE", self._found.kind)
            (page,) = ask([Command(*words)])
            if isinstance(page, Exception):
                problems.append(
                    f"queues could not be looked for ({page}); the user needs SCAN, and Redis be 6 or newer"
                )
                break
            self._cursor, found = page
            keys.update(found)
            if self._cursor == b"0":
                self._rest_until = time.monotonic() + REST_SECONDS
            elif time.monotonic() - started > SCAN_SECONDS or len(keys) >= SCAN_KEYS:
                break
        learned, failed = together(ask, {key: self._found.of_key(key) for key in keys})
        queues = {name: queue for found in learned.values() for name, queue in found.items()}
        return queues, problems + list(failed.values())


def wanted(name: bytes, pattern: str) -> bool:
    """Whether the glob `pattern` of `discover` takes in this name."""
    return fnmatchcase(name.decode("utf-8", "backslashreplace"), pattern)
