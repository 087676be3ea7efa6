"""RabbitMQ's queues, by its management API: what is ready or unacknowledged, who consumes, what came and was done.

The numbers are as old as the server's own sampling, 5 s where nobody set another interval.
"""

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import quote, urlencode, urlsplit

import structlog
from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, Field, model_validator

from exporters.collector import CollectFunction, PartialReadError
from exporters.jsonapi import cut_at
from exporters.labels import clean
from exporters.queue.state import QueueState, queue_metrics
from exporters.runtime.config import Section, repeated

if TYPE_CHECKING:
    import socket

    import urllib3

SYSTEM = "rabbitmq"
FEW = 50  # named queues: asked for one by one, 2 ms each; more, or unknown ones, come with the list of all
LARGEST_ANSWER = 64 * 2**20  # bytes
# What is asked of each queue; the rest of the answer would be ten times as much.
COLUMNS = (
    "name", "state", "messages_ready", "messages_unacknowledged", "consumers", "head_message_timestamp",
    "message_stats.publish", "message_stats.ack", "message_stats.deliver_no_ack", "message_stats.get_no_ack",
)  # fmt: skip
GONE = ("down", "crashed", "stopped", "minority")  # states in which nobody knows a queue's numbers

_log = structlog.get_logger()


class ReadError(Exception):
    """The API did not give what was asked; a sentence without the password."""


Name = Annotated[str, Field(min_length=1, max_length=255)]


class Queue(Section):
    """One queue. `dead_letters`: the queue where its refused messages go; they are its failed ones."""

    name: Name
    dead_letters: Name | None = None
    fed_by_dead_letters: bool = False  # what comes by dead-lettering is counted nowhere, so nothing is said of arrivals


def _management_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("not the address of a management API; write http://HOST:15672, or https:// for TLS")
    if "@" in parts.netloc:  # it may hold a password: it is not repeated
        raise ValueError("found a user in the address; write user and password_file beside it")
    return text.rstrip("/")


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError) as error:
        raise ValueError(f"not a regular expression ({error}); write for example 'jobs[.].*'") from None
    return text


class Server(Section):
    """One virtual host of one RabbitMQ. `password_file` is read again at each scrape."""

    url: Annotated[str, AfterValidator(_management_url)]
    user: Annotated[str, Field(pattern="^[^:]*$", max_length=255)] = "guest"
    password_file: Path | None = None
    ca_file: Path | None = None
    vhost: Name = "/"
    queues: list[Queue] = []
    match: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_pattern)] | None = None
    label_prefix: Annotated[str, Field(max_length=50)] = ""  # before each name in the label `queue`
    most: Annotated[int, Field(ge=1, le=100_000)] = 5000

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.queues and self.match is None:
            raise ValueError("found no queue; name some (queues: [{name: video-jobs}]), or all of a kind (match: '.*')")
        names = [name for queue in self.queues for name in (queue.name, queue.dead_letters) if name]
        twice = repeated(names)
        if twice:
            raise ValueError(
                f"the queue '{twice}' stands twice, so its messages would count twice; name it in one place"
            )
        return self

    @property
    def address(self) -> str:
        """HOST:PORT/VHOST."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"{parts.hostname}:{port}/{self.vhost.strip('/')}"


def _distinct(servers: list[Server]) -> list[Server]:
    addresses = [server.address for server in servers]
    twice = repeated(addresses)
    if twice:
        raise ValueError(f"the virtual host {twice} stands twice; write its queues in one place")
    labels: dict[str, int] = {}
    for number, server in enumerate(servers):
        for label in (server.label_prefix + queue.name for queue in server.queues):
            if labels.setdefault(label, number) != number:
                raise ValueError(
                    f"the queue '{label}' is in {labels[label]} and {number}; give one of them a label_prefix"
                )
    matching = [server.label_prefix for server in servers if server.match is not None]
    if matching and len(servers) > 1 and len({server.label_prefix for server in servers}) < len(servers):
        raise ValueError(
            "several virtual hosts, of which one finds its queues by match: give each a label_prefix of its own"
        )
    return servers


Servers = Annotated[list[Server], AfterValidator(_distinct)]


def collectors(servers: Sequence[Server]) -> Mapping[str, CollectFunction]:
    """One a virtual host, by its address."""
    return {server.address: RabbitQueues(server).collect for server in servers}


class RabbitQueues:
    """Reads the queues of one virtual host."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._api = Api(server)
        self._counts: bool | None = None  # whether the server counts; asked anew after any error
        self._missing: frozenset[str] = frozenset()

    def collect(self, deadline: float) -> Iterator[Metric]:
        try:
            if self._counts is None:
                overview = self._api.get("/overview", {"columns": "disable_stats"}, deadline)
                self._counts = not (isinstance(overview, dict) and overview.get("disable_stats"))
            found = read_queues(self._api, self._server, deadline)
        except Exception:
            self._counts = None
            raise
        states, problems = queue_states(self._server, found, self._counts, time.time())
        self._say_what_is_missing(found)
        yield from queue_metrics(SYSTEM, states)
        if problems:
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise PartialReadError("; ".join(problems[:3]) + more)

    def _say_what_is_missing(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        missing = frozenset(queue.name for queue in self._server.queues if queue.name not in found)
        for name in sorted(missing - self._missing):
            _log.warning(
                "queue_missing", server=self._server.address, queue=name,
                problem="the server has no queue of this name, so it holds 0 messages; declare it, or mend its name",
            )  # fmt: skip
        self._missing = missing


def read_queues(api: "Api", server: Server, deadline: float) -> dict[str, Mapping[str, Any]]:
    """What the API says of each queue that is there and asked for, by name."""
    names = {name for queue in server.queues for name in (queue.name, queue.dead_letters) if name}
    columns = {"columns": ",".join(COLUMNS)}
    path = f"/queues/{quote(server.vhost, safe='')}"
    if server.match is None and len(names) <= FEW:
        each = {name: api.get(f"{path}/{quote(name, safe='')}", columns, deadline) for name in names}
        if None in each.values() and api.get(path, {"page": 1, "page_size": 1, "columns": "name"}, deadline) is None:
            raise ReadError(_no_vhost(server))
        return {name: item for name, item in each.items() if isinstance(item, dict)}
    # All at once: a page of the API costs the server as much as all of them.
    items = api.get(path, columns, deadline)
    if items is None:
        raise ReadError(_no_vhost(server))
    if not isinstance(items, list):
        raise ReadError(f"{server.address}: the answer is no list of queues; is this RabbitMQ's management API?")
    wanted = re.compile(server.match) if server.match is not None else None
    found = {str(item["name"]): item for item in items if isinstance(item, dict) and "name" in item}
    return {name: item for name, item in found.items() if name in names or (wanted and wanted.fullmatch(name))}


def _no_vhost(server: Server) -> str:
    return f"{server.address}: there is no virtual host '{clean(server.vhost)}'; mend vhost, or the address"


def queue_states(
    server: Server, found: Mapping[str, Mapping[str, Any]], counts: bool, now: float
) -> tuple[dict[str, QueueState], list[str]]:
    """Each queue's numbers by the label's value, and what is wrong, as sentences.

    counts: whether the server keeps counters. A queue declared a moment ago has no numbers yet: it is left out.
    """
    declared = {queue.name: queue for queue in server.queues}
    dead = {queue.dead_letters for queue in server.queues}
    matched = sorted(name for name in found if name not in declared and name not in dead)
    states: dict[str, QueueState] = {}
    problems: list[str] = []
    for name in (*declared, *matched[: server.most]):
        queue = declared.get(name) or Queue.model_construct(name=name)
        label = clean(server.label_prefix + name)
        try:
            state = queue_state(queue, found, counts, now)
        except ValueError as error:
            problems.append(f"queue '{clean(name)}': {error}")
            continue
        if label in states:
            problems.append(f"queue '{label}': two queues have this name when it is cut; give them shorter names")
        elif state is not None:
            states[label] = state
    if len(matched) > server.most:
        problems.append(f"more than {server.most} queues match; narrow match, or raise most")
    return states, problems


def queue_state(queue: Queue, found: Mapping[str, Mapping[str, Any]], counts: bool, now: float) -> QueueState | None:
    """One queue's numbers, None while nobody has counted. Raises ValueError where they cannot be had."""
    failed = {}
    if queue.dead_letters:
        letters = found.get(queue.dead_letters, {"messages_ready": 0, "messages_unacknowledged": 0})
        parts = [_count(letters, key) for key in ("messages_ready", "messages_unacknowledged")]
        if None in parts:
            raise ValueError(f"its dead letters '{clean(queue.dead_letters)}' have no numbers (yet)")
        failed = {"failed": sum(part for part in parts if part is not None)}
    item = found.get(queue.name)
    if item is None:  # what is not there holds nothing
        return QueueState({"ready": 0, "active": 0, **failed}, {"ready": 0.0}, consumers=0)
    if item.get("state") in GONE:
        raise ValueError(f"it is {item['state']}; see to the node that holds it")
    ready, active = _count(item, "messages_ready"), _count(item, "messages_unacknowledged")
    if ready is None or active is None:
        if counts:
            return None
        raise ValueError("the server gives no numbers (management.disable_stats); let it give them, or its totals")
    oldest = _oldest_age(item, ready, now)
    return QueueState(
        {"ready": ready, "active": active, **failed},
        {} if oldest is None else {"ready": oldest},
        consumers=_count(item, "consumers"),
        counters=_counters(queue, item.get("message_stats") or {}) if counts else {},
    )


def _oldest_age(item: Mapping[str, Any], ready: int, now: float) -> float | None:
    """By the `timestamp` that producers set. Of the oldest that is ready or unacknowledged: never too short."""
    if ready == 0:
        return 0.0
    at = item.get("head_message_timestamp")
    if isinstance(at, bool) or not isinstance(at, int) or not 0 < at <= now + 60:
        return None
    return max(0.0, now - at)


def _counters(queue: Queue, stats: object) -> dict[str, float]:
    """From the server's start, or the queue's. Redeliveries are no arrivals; what is delivered without ack is done."""
    if not isinstance(stats, dict):
        return {}
    names = ("publish", "ack", "deliver_no_ack", "get_no_ack")  # each is there from its first message on
    publish, *done = (_count(stats, name) or 0 for name in names)
    return {**({} if queue.fed_by_dead_letters else {"enqueued": publish}), "completed": sum(done)}


def _count(item: Mapping[str, Any], key: str) -> int | None:
    value = item.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"its {key} is {str(value)[:40]!r}, which is no count; is this RabbitMQ's management API?")
    return value


class Api:
    """The management API of one server. Its connection is kept between scrapes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pool: urllib3.PoolManager | None = None
        self._line: socket.socket | None = None  # the last that was opened

    def get(self, path: str, query: Mapping[str, object], deadline: float) -> Any:
        """The object or list it answers with, None for something that is not there (404). Raises ReadError."""
        import urllib3

        where = urlsplit(self._server.url).netloc
        try:
            status, body = self._fetch(f"/api{path}?{urlencode(query)}", deadline)
        except urllib3.exceptions.NewConnectionError as error:
            raise ReadError(f"{where}: cannot be reached ({_reason(error)})") from None
        except (urllib3.exceptions.TimeoutError, TimeoutError):
            raise ReadError(f"{where}: no answer in time; see whether the server is overloaded") from None
        except urllib3.exceptions.SSLError as error:
            raise ReadError(f"{where}: TLS failed ({_reason(error)}); check its certificate and ca_file") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ReadError(f"{where}: cannot be reached ({_reason(error)})") from None
        if status == 401:
            user = clean(self._server.user)
            raise ReadError(
                f"{where}: refused the user '{user}'; check password_file, that it has the tag monitoring, "
                f"and any permissions on the virtual host"
            )
        if status == 404:
            return None
        if status != 200:
            raise ReadError(f"{where}: answered with the status {status}; see the server's log")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, (dict, list)):
            raise ReadError(
                f"{where}: the answer is not the JSON that was asked for; is this RabbitMQ's management API?"
            )
        return answer

    def _fetch(self, path: str, deadline: float) -> tuple[int, bytes]:
        """Status and body, which ends before `deadline` however slowly it comes."""
        import urllib3

        if self._pool is None:
            self._pool = self._made()
        login = f"{self._server.user}:{self._password()}"
        left = max(0.1, deadline - time.monotonic() - 0.1)
        parts, size = [], 0
        with cut_at(lambda: self._line, time.monotonic() + left):
            response = self._pool.request(
                "GET", self._server.url + path,
                headers={"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"},
                timeout=urllib3.Timeout(connect=min(2.0, left), total=left), redirect=False, preload_content=False,
            )  # fmt: skip
            try:
                while part := response.read1(2**16):
                    parts.append(part)
                    size += len(part)
                    if size > LARGEST_ANSWER:
                        raise OSError(f"its answer is larger than {LARGEST_ANSWER} bytes; narrow match")
            except BaseException:
                response.close()  # what was not read cannot be left in the connection
                raise
        response.release_conn()
        return response.status, b"".join(parts)

    def _made(self) -> "urllib3.PoolManager":
        """One that tells which line it opens, so that it can be cut: urllib3's time to read is for each byte alone."""
        import urllib3

        ca_file = str(self._server.ca_file) if self._server.ca_file else None
        manager = urllib3.PoolManager(maxsize=1, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=ca_file)
        pool: Any = manager.connection_from_url(self._server.url)
        make = pool.ConnectionCls

        def made(**options: Any) -> Any:
            connection = make(**options)
            connect = connection.connect

            def connect_and_tell() -> None:
                connect()
                self._line = connection.sock

            connection.connect = connect_and_tell
            return connection

        pool.ConnectionCls = made
        return manager

    def _password(self) -> str:
        if self._server.password_file is None:
            return "guest"
        try:
            return self._server.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "no UTF-8"
            raise ReadError(
                f"the password_file {self._server.password_file} cannot be read ({why}); check it"
            ) from None


def _reason(error: Exception) -> str:
    """What an error of urllib3's comes down to, without its wrapping."""
    while isinstance(inner := getattr(error, "reason", None) or error.__cause__, Exception):
        error = inner
    text = re.sub(r"^<?[\w.]+(\(.*?\))?( object at 0x[0-9a-f]+>)?: ", "", str(error))
    return text[:200]
