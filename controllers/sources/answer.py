"""What Prometheus answered, made into values: an envelope is either an `Answer` or a `SourceError`, never a guess.

Free of sockets and clocks: it takes a status, headers and bytes. A sample that is NaN or infinite is refused and
counted; it is never turned into 0. Warnings travel with the answer, because they say that part of it is missing.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NoReturn, Self

from controllers.domain import Sample

MAX_SERIES = 20_000  # an answer with more is a mistake in the question, not something to decide on


class Kind(StrEnum):
    """Why nothing was learned: a closed vocabulary, used as metric label."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    UNAUTHORIZED = "unauthorized"
    BAD_QUERY = "bad_query"
    OVERLOADED = "overloaded"
    MALFORMED = "malformed"
    PARTIAL = "partial"
    DUPLICATE = "duplicate"


class SourceError(Exception):
    """Nothing was learned. `retry_after_seconds`: when the server asked to come back, None if it did not say."""

    def __init__(self, kind: Kind, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class DuplicateSeries(SourceError):  # noqa: N818 - says what it is, and is the word of its Kind
    """Two series where one belongs: picking one would be a guess."""

    def __init__(self, message: str) -> None:
        super().__init__(Kind.DUPLICATE, message)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of measurements; samples ascend in time and every value is finite."""

    labels: Mapping[str, str]
    samples: tuple[Sample, ...]


Row = tuple[Mapping[str, str], float]  # labels and value


class Answer(list[Series]):
    """The series of one question. Empty means unknown, never zero.

    `warnings`: what the server said about missing parts; while there is one, nothing may be taken away on this
    answer's account. `refused`: how many samples were NaN, infinite or histograms.
    """

    def __init__(self, series: Iterable[Series] = (), warnings: tuple[str, ...] = (), refused: int = 0) -> None:
        super().__init__(series)
        self.warnings = warnings
        self.refused = refused

    def complete(self) -> Self:
        """Itself. Raises SourceError(partial) if the server warned that something is missing."""
        if self.warnings:
            raise SourceError(Kind.PARTIAL, f"Prometheus answered in part: {'; '.join(self.warnings)}")
        return self


def answer(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
    """The answer of /api/v1/query or query_range. Raises SourceError for everything else.

    `now` (Unix seconds) only serves a Retry-After that is a date and came without a Date header.
    """
    return _answer(_success(status, headers, body, now))


def rows(status: int, headers: Mapping[str, str], body: bytes, now: float, most: int) -> list[Row]:
    """An instant vector as plain rows, for answers of tens of thousands of series; those of no finite number left out.

    Raises SourceError as `answer` does, and as well where parts are missing or there are more than `most`.
    """
    envelope = _success(status, headers, body, now)
    warnings = _warnings(envelope)
    if warnings:
        raise SourceError(Kind.PARTIAL, f"Prometheus answered in part: {'; '.join(warnings)}")
    try:
        kind, result = envelope["data"]["resultType"], envelope["data"]["result"]
        if kind != "vector":
            raise SourceError(Kind.BAD_QUERY, f"the expression gives a {kind}; it must give a vector")
        if len(result) > most:
            raise SourceError(Kind.OVERLOADED, f"{len(result):,} series where at most {most:,} are read")
        found = [(row["metric"], float(row["value"][1])) for row in result if "value" in row]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(Kind.MALFORMED, f"the answer's shape is not Prometheus's ({error!r})") from None
    if not all(isinstance(labels, dict) for labels, _ in found):
        raise SourceError(Kind.MALFORMED, "the answer's shape is not Prometheus's (labels are no mapping)")
    return [row for row in found if math.isfinite(row[1])]


def _success(status: int, headers: Mapping[str, str], body: bytes, now: float) -> dict[str, Any]:
    """The envelope of an answer. Raises SourceError for everything else."""
    if 300 <= status < 400:
        raise SourceError(
            Kind.MALFORMED,
            f"HTTP {status} redirects to {headers.get('Location', 'nowhere')}; redirects are not followed, "
            "write the final address into prometheus.url",
        )
    if status in (401, 403):
        raise SourceError(
            Kind.UNAUTHORIZED,
            f"HTTP {status}; check prometheus.bearer_file, headers and tenant{_excerpt(body)}",
            retry_after(headers, now),
        )
    envelope = _envelope(status, headers, body, now)
    if envelope.get("status") != "success" or status >= 300:
        _raise_failure(status, envelope, retry_after(headers, now))
    return envelope


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until the server wants to be asked again; a date counts from the server's own Date where it sent one."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text).timestamp()
        since = parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else now
    except ValueError:
        return None
    return max(0.0, until - since)


def _envelope(status: int, headers: Mapping[str, str], body: bytes, now: float) -> dict[str, Any]:
    try:
        envelope = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # a proxy's page, or an answer cut short
        envelope = None
    if isinstance(envelope, dict) and "status" in envelope:
        return envelope
    match status:
        case 429 | 500 | 503:
            kind = Kind.OVERLOADED
        case 408 | 504:
            kind = Kind.TIMEOUT
        case 502:
            kind = Kind.UNREACHABLE
        case _:
            kind = Kind.MALFORMED
    raise SourceError(kind, f"HTTP {status} without Prometheus's envelope{_excerpt(body)}", retry_after(headers, now))


def _raise_failure(status: int, envelope: dict[str, Any], retry_after_seconds: float | None) -> NoReturn:
    error_type = str(envelope.get("errorType", ""))
    text = str(envelope.get("error", "no reason given"))
    if error_type == "timeout" or status in (408, 504):
        kind = Kind.TIMEOUT
    elif status in (429, 500, 502, 503) or error_type in ("unavailable", "internal") or "too many samples" in text:
        kind = Kind.OVERLOADED
    elif "duplicate series" in text or "same labelset" in text:
        kind = Kind.DUPLICATE
    else:
        kind = Kind.BAD_QUERY
    raise SourceError(kind, f"HTTP {status}, {error_type or 'no type'}: {text}", retry_after_seconds)


def _answer(envelope: dict[str, Any]) -> Answer:
    try:
        data = envelope["data"]
        kind, result = data["resultType"], data["result"]
        match kind:
            case "vector":
                rows = [(row["metric"], [row["value"]] if "value" in row else [], "histogram" in row) for row in result]
            case "matrix":
                rows = [(row["metric"], row.get("values", []), "histograms" in row) for row in result]
            case "scalar":
                rows = [({}, [result], False)]
            case _:
                raise SourceError(Kind.BAD_QUERY, f"the expression gives a {kind}; it must give numbers")
        if len(rows) > MAX_SERIES:
            raise SourceError(
                Kind.OVERLOADED, f"{len(rows):,} series where at most {MAX_SERIES:,} are read; aggregate the expression"
            )
        return _series(rows, _warnings(envelope))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(Kind.MALFORMED, f"the answer's shape is not Prometheus's ({error!r})") from None


def _series(rows: list[tuple[Any, list[Any], bool]], warnings: tuple[str, ...]) -> Answer:
    refused = 0
    found: dict[frozenset[tuple[str, str]], Series] = {}
    for metric, points, histogram in rows:
        labels = {str(name): str(value) for name, value in metric.items()}
        samples: list[Sample] = []
        for at, text in points:
            value, time = float(text), float(at)
            if not math.isfinite(time) or (samples and time <= samples[-1].at):
                raise SourceError(Kind.MALFORMED, f"samples of {labels} do not ascend in time")
            if math.isfinite(value):
                samples.append(Sample(value, time))
            else:
                refused += 1
        refused += histogram
        key = frozenset(labels.items())
        if key in found:
            raise DuplicateSeries(f"the same series twice in one answer: {labels}")
        found[key] = Series(labels, tuple(samples))
    return Answer((series for series in found.values() if series.samples), warnings, refused)


def _warnings(envelope: dict[str, Any]) -> tuple[str, ...]:
    # Older servers put remarks on the expression ("PromQL info: ...") among the warnings; those miss nothing.
    return tuple(str(w) for w in envelope.get("warnings") or () if not str(w).startswith("PromQL info"))


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _excerpt(body: bytes) -> str:
    text = " ".join(body[:200].decode("utf-8", "replace").split())
    return f" (it said: {text})" if text else ""
