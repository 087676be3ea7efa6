"""One Redis server for every queue system that lives on Redis: its address, commands, and their replies in bulk.

A system says of each queue what it wants to know as a `Reading`: a generator that yields commands, is sent their
replies, may ask again, and returns what it learned. It does no IO. The readings of all queues of a server run side by
side, so that the first step of all of them is one round trip, the second another.
"""

import time
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from exporters.runtime.config import ConfigError, Section, repeated

if TYPE_CHECKING:
    import redis

SOCKET_SECONDS = 2.0  # connecting may take this long, and so may each answer
CHUNK = 2000  # commands that are under way at once: neither side holds more than these in memory
SHOWN_PROBLEMS = 5  # of one server in one message

Key = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Word = str | bytes | int
Read = TypeVar("Read")
Identity = TypeVar("Identity", bound=Hashable)


def _redis_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("redis", "rediss", "unix") and (parts.hostname or parts.path) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:  # the address may hold a password: it is not repeated
        raise ValueError("not a Redis address; write redis://HOST:PORT/DB, rediss:// for TLS, or unix:///path.sock")
    return text


class RedisAddress(Section):
    """Where a Redis server is. `password_file` is read again at each connection; `ca_file`: who signed it (rediss://)."""

    url: Annotated[str, AfterValidator(_redis_url)]
    password_file: Path | None = None
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password_file and urlsplit(self.url).password:
            raise ValueError("found a password in url and password_file; keep the file")
        return self

    @property
    def address(self) -> str:
        """HOST:PORT/DB or the socket's path, without credentials."""
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            return parts.path
        return f"{parts.hostname}:{parts.port or 6379}/{parts.path.strip('/') or 0}"

    @property
    def database(self) -> str:
        """The number of the database, as text."""
        return self.address.rpartition("/")[2] if urlsplit(self.url).scheme != "unix" else "0"


class Named(Protocol):
    """A queue in the configuration."""

    @property
    def name(self) -> str: ...


class QueuesAt(RedisAddress):
    """A server and what to watch on it: the queues that are named, and those that `discover` (a glob) finds."""

    discover: Annotated[str, Field(min_length=1)] | None = None
    most: Annotated[int, Field(ge=1, le=100_000)] = 1000  # queues that discovery may find
    label_prefix: Annotated[str, Field(max_length=50)] = ""  # before each name in the label `queue`

    @property
    def watched(self) -> Sequence[Named]:
        """The queues that are named."""
        raise NotImplementedError

    @property
    def source(self) -> str:
        """What tells it from the other entries: its address, and what else of its keys is not as usual."""
        return self.address

    @model_validator(mode="after")
    def _has_queue(self) -> Self:
        if not self.watched and not self.discover:
            raise ValueError("found no queue; name at least one in queues, or let discover find them: '*'")
        return self


Server = TypeVar("Server", bound=QueuesAt)


def distinct(servers: list[Server]) -> list[Server]:
    """For a validator: no server stands twice, and no two queues can get the same label. Raises ValueError."""
    where: dict[str, str] = {}
    for number, server in enumerate(servers):
        for index, queue in enumerate(server.watched):
            here, label = f"{number}.queues.{index}", server.label_prefix + queue.name
            if label in where:
                raise ValueError(
                    f"the queue '{label}' stands twice ({where[label]}, {here}); rename one, "
                    "or give its server a label_prefix"
                )
            where[label] = here
    sources = [server.source for server in servers]
    twice = repeated(sources)
    if twice:
        raise ValueError(f"the server {twice} stands twice; write its queues in one place")
    if any(server.discover for server in servers) and len({server.label_prefix for server in servers}) < len(servers):
        raise ValueError(
            "several servers, of which one finds its queues by discover: both may have a queue of the same name; "
            "give each server a label_prefix of its own"
        )
    return servers


def require_redis(section: str) -> None:
    """Raises ConfigError where the package `redis` is not installed: at the start and not at each scrape."""
    try:
        import redis  # noqa: F401
    except ImportError:
        raise ConfigError([f"exporters.{section}: needs the package redis; install tidewise[redis]"]) from None


class Command:
    """One Redis command. Its bytes are made once, however often it is sent.

    may_fail: an error is an answer (an exception among the replies), and not the end of the reading.
    """

    __slots__ = ("may_fail", "packed", "words")

    def __init__(self, *words: Word, may_fail: bool = False) -> None:
        self.words = words
        self.may_fail = may_fail
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
        self.packed = b"".join(parts)

    def __repr__(self) -> str:
        return f"Command{self.words}"


# Numbers, bytes, lists of these, None for what does not exist; an exception where the command may fail and did.
Replies = list[Any]
Reading = Generator[Sequence[Command], Replies, Read]


def together(
    ask: Callable[[Sequence[Command]], Replies], readings: Mapping[Identity, Reading[Read]]
) -> tuple[dict[Identity, Read], dict[Identity, str]]:
    """Run readings side by side. Returns what they learned, and of those that could not: why."""
    learned: dict[Identity, Read] = {}
    problems: dict[Identity, str] = {}
    answers: dict[Identity, Replies | None] = dict.fromkeys(readings)
    while answers:
        asked: dict[Identity, Sequence[Command]] = {}
        for identity, answer in answers.items():
            try:
                # a generator that has not begun takes nothing but None
                asked[identity] = readings[identity].send(answer)  # type: ignore[arg-type]
            except StopIteration as done:
                learned[identity] = done.value
            except ValueError as error:
                problems[identity] = str(error)
        replies = ask([command for commands in asked.values() for command in commands]) if asked else []
        answers = {}
        place = 0
        for identity, commands in asked.items():
            mine = replies[place : (place := place + len(commands))]
            for command, reply in zip(commands, mine, strict=True):
                if isinstance(reply, Exception) and not command.may_fail:
                    problems[identity] = failure(command, reply)
                    break
            else:
                answers[identity] = mine
    return learned, problems


def failure(command: Command, error: Exception) -> str:
    """The sentence for a command that failed."""
    words = [shown(word) for word in command.words]
    verb, key = (f"{words[0]} {words[1]}", words[2]) if words[0] == "XINFO" else words[:2]
    if type(error).__name__ in ("MovedError", "AskError"):  # its text is the slot and the node
        return f"the key '{key}' is on another node of the Cluster ({error}); name that server for this queue"
    return f"{verb} of the key '{key}' failed ({error}); check what it holds"


def shown(word: Word) -> str:
    """A word of a command, for people."""
    return word.decode("utf-8", "backslashreplace") if isinstance(word, bytes) else str(word)


class Connection:
    """To one server. Connects when needed, and anew after any error."""

    def __init__(self, where: RedisAddress) -> None:
        self._where = where
        self._connection: redis.Connection | None = None

    def ask(self, commands: Sequence[Command], deadline: float) -> Replies:
        """The replies, in order; an error of Redis is an exception among them. Raises when the connection fails."""
        from redis.exceptions import ResponseError

        if self._connection is not None and _ended(self._connection):
            self.close()  # a server that was restarted meanwhile is not worth a failed scrape
        connection = self._connection = self._connection or self._connect(deadline)
        replies: Replies = []
        try:
            for start in range(0, len(commands), CHUNK):
                chunk = commands[start : start + CHUNK]
                packed = [b"".join([command.packed for command in chunk])]
                connection.send_packed_command(packed)  # type: ignore[no-untyped-call]  # redis left it untyped
                for _ in chunk:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{self._where.address} had not answered everything when the time was over")
                    try:
                        replies.append(connection.read_response())
                    except ResponseError as error:
                        replies.append(error)
        except BaseException:
            # whatever it was (down, time-out): the rest of an answer may still come, so the next ask starts afresh
            self.close()
            raise
        return replies

    def close(self) -> None:
        """Drop the connection, if there is one."""
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]
            self._connection = None

    def _connect(self, deadline: float) -> "redis.Connection":
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        seconds = min(SOCKET_SECONDS, max(0.1, (deadline - time.monotonic()) / 3))  # connecting and reading may be slow
        options: dict[str, Any] = {}
        if self._where.password_file:
            options["password"] = self._where.password_file.read_text(encoding="utf-8").strip()
        if self._where.ca_file:
            options["ssl_ca_certs"] = str(self._where.ca_file)
        pool = redis.ConnectionPool.from_url(
            self._where.url,
            protocol=2,  # understood by every server
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # the next scrape is the retry
            **options,
        )
        return pool.get_connection()


def _ended(connection: "redis.Connection") -> bool:
    """Whether the other side has hung up; what it sends unasked can mean nothing else."""
    try:
        return connection.can_read(timeout=0)
    except Exception:  # whatever it is called in this version
        return True
