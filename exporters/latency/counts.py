"""Requests, counted: how long they took by service, route and class of answer, and how many failed and why."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Annotated

from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, ConfigDict, Field

from exporters.families import Counter, Histogram, Observations
from exporters.labels import OTHER, Cap
from exporters.latency.formats import Format, Request, Said
from exporters.latency.routes import Routes

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MOST_REMEMBERED = 20_000  # different things that a log said, of which it is known what they mean
LONGEST_REMEMBERED = 1000  # bytes of each
REASONS = ("server_error", "bad_gateway", "unavailable", "timeout", "client_aborted", "server_aborted")

DURATION = Histogram(
    "request_duration_seconds",
    "How long requests took, by route and class of answer: 1xx to 5xx, or none where no answer was sent.",
    ("service", "route", "code_class", "log"),
    "access log: nginx's $request_time, HAProxy's Ta, the declared field of a JSON line",
)
FAILURES = Counter(
    "request_failures",
    "Requests that failed, by reason. client_aborted: the client went away or was too slow.",
    ("service", "reason", "log"),
    "access log: the status, HAProxy's termination state",
)

Count = Annotated[int, Field(ge=0)]


class Kept(BaseModel):
    """The counts as they are kept over a restart."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    durations: list[tuple[str, str, str, list[Count], Annotated[float, Field(ge=0)]]] = []  # labels, buckets, sum
    failures: list[tuple[str, str, Count]] = []  # labels, how many
    lines: Count = 0
    malformed: Count = 0


class Durations(Observations):
    """Observations that may be many, and that can be kept."""

    def observe(self, value: float, count: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += count
        self.sum += value * count

    @property
    def counts(self) -> list[int]:
        return list(self._counts)

    def restore(self, counts: list[int], total: float) -> None:
        if len(counts) != len(self._counts):
            raise ValueError("the buckets are others")
        self._counts, self.sum = list(counts), total


class Requests:
    """What one log has told of so far.

    service: of all of its lines, or None where each line names its own. A service that is known has series from the
    beginning: nothing was asked of it yet, which is 0. A series that is new on the page is 0 there once, whatever was
    counted: Prometheus sees no increase in the number that a series begins with, and the first failures would be lost.
    """

    def __init__(
        self, lines: Format, routes: Routes, services: Cap, service: str | None, bounds: Sequence[float] = BOUNDS
    ) -> None:
        self.lines = 0
        self.malformed = 0
        self._format = lines
        self._routes = routes
        self._services = services
        self._service = service
        self._bounds = bounds
        self._durations: dict[tuple[str, str, str], Durations] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._remembered: dict[Said, tuple[Durations, tuple[str, str] | None]] = {}
        self._begun: set[tuple[str, ...]] = set()  # series that were on the page
        if service is not None:
            self._meet(service)

    def take(self, block: bytes) -> None:
        """Count each line of `block`, which ends with a line's end, once: as a request or as malformed."""
        remembered, failures, parsed = self._remembered, self._failures, 0
        for said, seconds in self._format.read(block):
            parsed += 1
            found = remembered.get(said)
            if found is None:
                found = self._remember(said)
            if seconds is not None:
                found[0].observe(seconds)
            if found[1] is not None:
                failures[found[1]] += 1
        lines = block.count(b"\n")
        self.lines += lines
        self.malformed += lines - parsed

    def take_unreadable(self) -> None:
        """Count a line that is too long to be looked at."""
        self.lines += 1
        self.malformed += 1

    def _remember(self, said: Said) -> tuple[Durations, tuple[str, str] | None]:
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        request = self._format.explain(said)
        service = self._service if self._service is not None else self._services(request.service or OTHER)
        self._meet(service)
        route = self._routes(request.method, request.uri, request.status)
        reason = failure(request)
        meaning = (
            self._of(service, route, code_class(request.status)),
            None if reason is None else (service, reason),
        )
        if sum(len(word) for word in said if isinstance(word, (bytes, str))) <= LONGEST_REMEMBERED:
            self._remembered[said] = meaning
        return meaning

    def _of(self, service: str, route: str, kind: str) -> Durations:
        key = (service, route, kind)
        if key not in self._durations:
            self._durations[key] = Durations(self._bounds)
        return self._durations[key]

    def _meet(self, service: str) -> None:
        if (service, REASONS[0]) not in self._failures:
            self._failures.update(((service, reason), 0) for reason in REASONS)
            for kind in ("2xx", "5xx"):
                self._of(service, OTHER, kind)

    def metrics(self, log: str) -> Iterator[Metric]:
        """log: the label that tells these series from another log's, which may know the same services."""
        durations, failures = DURATION.metric(), FAILURES.metric()
        nothing = Durations(self._bounds)
        for labels, counted in self._durations.items():
            seen = counted if labels in self._begun else nothing
            durations.add_metric([*labels, log], seen.buckets(), seen.sum)
        for of, count in self._failures.items():
            failures.add_metric([*of, log], count if of in self._begun else 0)
        self._begun.update(self._durations, self._failures)
        yield from (durations, failures)

    def kept(self) -> Kept:
        return Kept.model_construct(
            durations=[(*labels, seen.counts, seen.sum) for labels, seen in self._durations.items()],
            failures=[(*labels, count) for labels, count in self._failures.items()],
            lines=self.lines,
            malformed=self.malformed,
        )

    def restore(self, kept: Kept) -> None:
        """Go on from there. Raises ValueError where that was counted otherwise (other buckets, other reasons)."""
        if any(reason not in REASONS for _, reason, _ in kept.failures):
            raise ValueError("a reason that is not known")
        for service, route, kind, counts, total in kept.durations:
            self._routes.admit(route)
            if self._service is None:
                self._services(service)
            self._meet(service)
            self._of(service, route, kind).restore(counts, total)
        for service, reason, count in kept.failures:
            self._meet(service)
            self._failures[service, reason] = count
        self.lines, self.malformed = kept.lines, kept.malformed
        self._begun.update(self._durations, self._failures)


def code_class(status: int | None) -> str:
    return f"{status // 100}xx" if status is not None and status < 600 else "none"


_BY_STATUS = {502: "bad_gateway", 503: "unavailable", 504: "timeout"}
_BY_ENDING = {
    "C": "client_aborted",
    "c": "client_aborted",
    "S": "server_aborted",
    "s": "timeout",
    "D": "server_aborted",
}


def failure(request: Request) -> str | None:
    """Why it failed; None where it did not. An answer of 4xx is the client's own mistake and no failure."""
    if request.ended in ("C", "c"):
        return "client_aborted"
    if request.status is not None and request.status >= 500:
        return _BY_STATUS.get(request.status, "server_error")
    return _BY_ENDING.get(request.ended)
