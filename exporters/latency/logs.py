"""Requests from access logs: one collector a log, which reads on at each scrape.

Counts and the place in the log are saved together before they are shown, so that a restart, a kill -9 included, goes
on from what was shown last: each line is counted once over all lives. Counts are shown only when everything that stood
in the log has been read: a backlog that came in parts would look like a rush of requests.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Literal, Self

import structlog
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, ConfigDict, Field, model_validator

from exporters.collector import CollectFunction, PartialReadError
from exporters.families import Counter, Family, Gauge
from exporters.labels import Cap, clean
from exporters.latency.counts import DURATION, FAILURES, Count, Kept, Requests
from exporters.latency.formats import COMBINED_TIMED, Format, HAProxy, Json, JsonFields, Nginx
from exporters.latency.routes import Routes, declared_pattern
from exporters.latency.tail import Head, Place, Tail
from exporters.runtime.config import ConfigError, Section
from exporters.runtime.durable import sync_folder

SHARE = 0.4  # of a scrape's time that reading may take
MOST_SERVICES = 50  # that one log may name

_LOG = ("log",)
LINES = Counter("request_log_lines", "Lines read.", _LOG, "the log")
MALFORMED = Counter("request_log_malformed", "Lines that are no request in the declared format.", _LOG, "the log")
BEHIND = Gauge("request_log_behind_bytes", "Written to the log and not read yet.", _LOG, "the log's size")
GAPS = Counter(
    "request_log_gaps",
    "Times that the place in the log was lost (truncated without a copy, compressed while nobody read, no usable "
    "state): lines may be missing.",
    _LOG,
    "the log",
)
STATE_ERRORS = Counter(
    "request_log_state_errors", "Times that the state could not be saved or read.", _LOG, "the state folder"
)
FAMILIES: tuple[Family, ...] = (DURATION, FAILURES, LINES, MALFORMED, BEHIND, GAPS, STATE_ERRORS)

Name = Annotated[str, Field(min_length=1, max_length=200)]
_log = structlog.get_logger()


class Fields(Section):
    """Which field of a JSON line holds what; `a.b` is b inside of a."""

    status: Name = "status"
    duration: Name = "request_time"
    uri: Name = "uri"
    method: Name = "method"
    unit: Literal["s", "ms", "us", "ns"] = "s"  # of the duration


_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Log(Section):
    """One access log. `service` names the service of all its lines, `service_from` what tells it in each."""

    path: Path
    service: Name | None = None
    service_from: Name | None = None
    format: Literal["nginx", "haproxy", "json"] = "nginx"
    log_format: Name | None = Field(None, max_length=5000)  # nginx's, as its configuration has it
    fields: Fields | None = None  # of JSON lines
    routes: list[str] = []
    max_routes: Annotated[int, Field(ge=1, le=2000)] = 50
    methods: bool = False  # GET /videos/:id instead of /videos/:id

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.service is None) == (self.service_from is None):
            raise ValueError("name the service of its lines: service, or service_from for what tells it in each line")
        if self.log_format is not None and self.format != "nginx":
            raise ValueError(f"log_format is nginx's; the format here is {self.format}")
        if self.fields is not None and self.format != "json":
            raise ValueError(f"fields are of JSON lines; the format here is {self.format}")
        try:
            self.lines()
        except ValueError as error:
            raise ValueError(f"{'log_format' if self.format == 'nginx' else 'service_from'}: {error}") from None
        for route in self.routes:
            declared_pattern(route)
        return self

    def lines(self) -> Format:
        service_from = self.service_from or ""
        if self.format == "nginx":
            return Nginx(self.log_format or COMBINED_TIMED, service_from)
        if self.format == "haproxy":
            return HAProxy(service_from)
        fields = self.fields or Fields()
        return Json(
            JsonFields(fields.status, fields.duration, fields.uri, fields.method, service_from, _UNITS[fields.unit])
        )


def log_collectors(
    logs: Sequence[Log], state_folder: Path | None, bounds: Sequence[float]
) -> Mapping[str, CollectFunction]:
    """One a log, by its path. Raises ConfigError where the state folder is none."""
    if logs and state_folder is not None:
        try:
            state_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                [f"exporters.latency.state_folder: {state_folder} cannot be made ({error.strerror})"]
            ) from None
    lock = None if state_folder is None else FolderLock(state_folder)
    return {f"log.{log.path}": LogReader(log, state_folder, bounds, lock).collect for log in logs}


class InUseError(Exception):
    """Another exporter has the state folder; a sentence."""


class FolderLock:
    """A state folder taken for this process until it ends, however it ends: two would go on from the same counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def take(self) -> None:
        """Raises InUseError while somebody else has it. A folder that knows no locks is used without."""
        with self._lock:
            if self._file is not None:
                return
            with contextlib.suppress(OSError):  # saving says what is wrong with the folder
                file = (self._folder / "lock").open("ab")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    file.close()
                    if error.errno in (errno.EAGAIN, errno.EACCES):
                        raise InUseError(
                            f"{self._folder}: another exporter uses this state_folder, and both would count the same "
                            f"lines; stop one, or give it a folder of its own"
                        ) from None
                    raise
                self._file = file


class _State(BaseModel):
    """What is kept of one log: where it was read to, and what was counted by then. made_by: of the configuration."""

    model_config = ConfigDict(strict=True, extra="forbid")

    made_by: str
    places: list[Place]
    known: list[Head]
    counts: Kept
    gaps: Count
    state_errors: Count


class LogReader:
    """Reads one log on and tells what came."""

    def __init__(
        self, log: Log, state_folder: Path | None, bounds: Sequence[float], lock: FolderLock | None = None
    ) -> None:
        name = f"latency.log.{log.path}"
        self._log = log
        self._lock = lock
        self._routes = Routes(Cap(name, "route", log.max_routes), log.routes, methods=log.methods)
        self._services = Cap(name, "service", MOST_SERVICES)
        self._bounds = tuple(bounds)
        self._requests = self._fresh()
        self._tail = Tail(log.path)
        self._state_path = None if state_folder is None else state_folder / f"{_digest(str(log.path))}.json"
        self._state_errors = 0
        self._saved: _State | None = None  # without the counts
        self._resumed = False
        made_by = log.model_dump_json(exclude={"path"}) + repr(self._bounds)
        self._made_by = _digest(made_by)

    def collect(self, deadline: float) -> Iterator[Metric]:
        if self._lock is not None:
            self._lock.take()
        if not self._resumed:
            self._resume()
        now = time.monotonic()
        done = self._tail.read(now + SHARE * (deadline - now), self._requests.take, self._requests.take_unreadable)
        problem = self._save()
        behind = BEHIND.metric()
        behind.add_metric(self._label, self._tail.behind_bytes)
        yield behind
        yield from self._counted(STATE_ERRORS, self._state_errors)
        if not done:
            raise PartialReadError(
                f"{self._log.path}: {self._tail.behind_bytes} bytes are not read yet; its counts are shown when all is"
            )
        yield from self._counted(LINES, self._requests.lines)
        yield from self._counted(MALFORMED, self._requests.malformed)
        yield from self._counted(GAPS, self._tail.gaps)
        yield from self._requests.metrics(*self._label)
        if problem:
            raise PartialReadError(problem)

    @property
    def _label(self) -> tuple[str]:
        return (clean(str(self._log.path)),)

    def _counted(self, family: Counter, count: int) -> Iterator[Metric]:
        metric = family.metric()
        metric.add_metric(self._label, count)
        yield metric

    def _fresh(self) -> Requests:
        return Requests(self._log.lines(), self._routes, self._services, self._log.service, self._bounds)

    def _resume(self) -> None:
        """Go on from the state; from the log's end where there is none, or none that can be used."""
        if self._state_path is None or not self._state_path.exists():
            self._tail.begin_at_end()
            self._resumed = True
            return
        try:
            state = _State.model_validate_json(self._state_path.read_bytes())
        except (OSError, ValueError) as error:
            kind = error.strerror if isinstance(error, OSError) else "not what was written"
            _log.warning("state_unusable", log=str(self._log.path), state=str(self._state_path), problem=kind)
            self._state_errors += 1
            self._tail.gaps += 1
            self._resumed = True
            self._tail.begin_at_end()
            return
        if state.made_by == self._made_by:
            try:
                self._requests.restore(state.counts)
            except ValueError:  # then it is counted anew, each line still once
                self._requests = self._fresh()
        self._tail.gaps, self._state_errors = state.gaps, state.state_errors
        self._tail.resume(state.places, state.known)
        self._resumed = True

    def _save(self) -> str | None:
        """Write the state where it has changed. What is wrong where that fails, else None."""
        if self._state_path is None:
            return None
        state = _State.model_construct(
            made_by=self._made_by,
            places=self._tail.places(),
            known=self._tail.known,
            counts=Kept(),
            gaps=self._tail.gaps,
            state_errors=self._state_errors,
        )
        if state == self._saved:  # where the places are the same, the counts are
            return None
        try:
            _replace(self._state_path, state.model_copy(update={"counts": self._requests.kept()}).model_dump_json())
        except OSError as error:
            self._state_errors += 1
            return f"{self._state_path}: cannot be written ({error.strerror}); a restart would count some lines twice"
        self._saved = state
        return None


def _replace(path: Path, text: str) -> None:
    """The whole of `text` or what was there before, also after the power fails."""
    written = path.with_suffix(".new")
    with written.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)
    sync_folder(path.parent)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
