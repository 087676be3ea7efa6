"""What a line of an access log says: nginx by its log_format, HAProxy's default for HTTP, JSON.

A format's reader takes a block of whole lines to (what was said, seconds) pairs, and `explain` makes a `Request` of
what was said. Between the two the same words come again and again, so that only new ones need to be explained.
"""

import json
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# nginx's `combined` and the time it took: the least that tells of durations.
COMBINED_TIMED = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
    '"$http_referer" "$http_user_agent" $request_time'
)
Said = tuple[Any, ...]  # what stands in a line, but for the duration; equal for equal requests
LONGEST_SECONDS = 1e7  # no request takes four months; what says so is no duration


@dataclass(frozen=True)
class Request:
    """What one line says of one request.

    status: the answer's, None where none was sent. uri: with its query; "" where the line has none.
    ended: who ended it before its end, one letter as HAProxy writes it (C client, S server; small: by a time-out).
    service: where the log tells it for each request, else "".
    """

    status: int | None
    method: str = ""
    uri: str = ""
    service: str = ""
    ended: str = ""


class Format(Protocol):
    """How the lines of a log are read."""

    def read(self, block: bytes) -> Iterable[tuple[Said, float | None]]:
        """(what was said, seconds or None) of each line that has this format; the others are left out."""

    def explain(self, said: Said) -> Request:
        """What `read` found, in words."""


class Nginx:
    """Lines as nginx writes them by a `log_format`. Raises ValueError for one without what is needed.

    service_from: the variable that names the service, without its dollar.
    """

    def __init__(self, log_format: str = COMBINED_TIMED, service_from: str = "") -> None:
        needed = {"status", "request_time", *([service_from] if service_from else [])}
        pattern, names = nginx_pattern(log_format, needed.union(_KEPT))
        for name in sorted(needed):
            if name not in names:
                raise ValueError(f"has no ${name}; add it here and in nginx's log_format")
        self._pattern = pattern
        self._seconds = names.index("request_time")
        self._status = names.index("status")
        self._places = {name: names.index(name) for name in _KEPT if name in names}
        self._service = names.index(service_from) if service_from else None

    def read(self, block: bytes) -> Iterator[tuple[Said, float | None]]:
        seconds, rest = self._seconds, self._seconds + 1
        for groups in self._pattern.findall(block):
            yield groups[:seconds] + groups[rest:], float(groups[seconds])

    def explain(self, said: Said) -> Request:
        groups = [*said[: self._seconds], b"", *said[self._seconds :]]
        word = {name: _text(groups[place]) for name, place in self._places.items()}
        method, uri = split_request(word.get("request", ""))
        status = int(groups[self._status])
        return Request(
            answered(status),
            word.get("request_method", method),
            word.get("request_uri") or word.get("uri") or uri,
            _text(groups[self._service]) if self._service is not None else "",
            "C" if status == 499 else "",
        )


_KEPT = ("request", "request_uri", "uri", "request_method")
_TYPED = {
    "status": rb"\d{3}",
    "request_time": rb"\d{1,7}(?:\.\d{1,9})?",
    "remote_addr": rb"[^\s]++",
    "remote_user": rb"[^\n\"]{0,256}?",  # may hold blanks, and be chosen by whoever wants this to take long
    "time_local": rb"\d\d/\w{3}/\d{4}:[\d:]{8} [+-]\d{4}",
}
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def nginx_pattern(log_format: str, needed: Container[str]) -> tuple[re.Pattern[bytes], list[str]]:
    """A pattern that finds whole lines of that log_format, and which of the `needed` variables its groups are.

    A variable runs until the character after it.
    """
    pattern, place = b"", 0
    names: list[str] = []
    for variable in _VARIABLE.finditer(log_format):
        name = variable[1] or variable[2]
        pattern += re.escape(log_format[place : variable.start()].encode())
        place = variable.end()
        following = log_format[place : place + 1]
        if following == "$":
            raise ValueError(f"${name} and what follows cannot be told apart; put a character between them")
        inside = _TYPED.get(name) or (
            b"[^" + re.escape(following.encode()[:1]) + rb"\n]*+" if following else rb"[^\r\n]*+"
        )
        if name in needed and name not in names:
            names.append(name)
            inside = b"(" + inside + b")"
        pattern += inside
    pattern += re.escape(log_format[place:].encode())
    return re.compile(rb"^" + pattern + rb"\r?$", re.MULTILINE), names


class HAProxy:
    """Lines of HAProxy's `option httplog` (or httpslog), as they are or as syslog wrote them.

    service_from: `frontend`, `backend` or `server`.
    """

    def __init__(self, service_from: str = "") -> None:
        if service_from and service_from not in _PARTS:
            raise ValueError(f"found '{service_from}'; HAProxy's lines name a frontend, a backend and a server")
        self._service = _PARTS.index(service_from) if service_from else None

    def read(self, block: bytes) -> Iterator[tuple[Said, float | None]]:
        for frontend, backend, server, total, *said in _HAPROXY.findall(block):
            milliseconds = int(total)
            yield (frontend, backend, server, *said), None if milliseconds < 0 else milliseconds / 1000

    def explain(self, said: Said) -> Request:
        status, ended, request = int(said[3]), _text(said[4]), _text(said[5])
        method, uri = split_request(request)
        service = _text(said[self._service]).removesuffix("~") if self._service is not None else ""
        return Request(answered(status), method, uri, service, ended.strip("-")[:1])


_PARTS = ("frontend", "backend", "server")
_HAPROXY = re.compile(
    rb"^(?:[^\n\"]*?: )??"  # what syslog writes before it
    rb"[^\s]+:\d+ \[[^\]\n]{1,40}\] ([^\s]+) ([^\s/]+)/([^\s]+) "
    rb"-?\d+/-?\d+/-?\d+/-?\d+/\+?(-?\d{1,12}) "  # the last is the whole; +: it goes on, `option logasap`
    rb"(-?\d{1,3}) \+?\d+ [^\s]+ [^\s]+ ([A-Za-z-])[^\s]{3} [^\s]+ [^\s]+ "
    rb"[^\"\n]*\"([^\"\n]*)",  # captured headers, the request; HAProxy cuts long lines, its end may be missing
    re.MULTILINE,
)


@dataclass(frozen=True)
class JsonFields:
    """Where a line has what; "a.b" is b inside of a. unit: of the duration, in seconds."""

    status: str = "status"
    duration: str = "request_time"
    uri: str = "uri"
    method: str = "method"
    service: str = ""
    unit: float = 1.0


class Json:
    """Lines that are JSON objects."""

    def __init__(self, fields: JsonFields) -> None:
        self._fields = fields
        self._paths = {
            name: tuple(getattr(fields, name).split(".")) for name in ("status", "duration", "uri", "method", "service")
        }

    def read(self, block: bytes) -> Iterator[tuple[Said, float | None]]:
        status_at, duration_at = self._paths["status"], self._paths["duration"]
        texts = [self._paths[name] for name in ("method", "uri", "service")]
        for line in block.split(b"\n"):
            try:
                document = json.loads(line)
                status = int(_found(document, status_at))
                seconds = float(_found(document, duration_at)) * self._fields.unit
            except (ValueError, TypeError, OverflowError, RecursionError):
                continue
            if not (0 <= status <= 999 and 0 <= seconds < LONGEST_SECONDS):
                continue
            words = (_found(document, path) for path in texts)
            yield (status, *(word if isinstance(word, str) else "" for word in words)), seconds

    def explain(self, said: Said) -> Request:
        status, method, uri, service = said
        return Request(answered(status), method, uri, service, "C" if status == 499 else "")


def _found(document: Any, path: tuple[str, ...]) -> Any:
    """The text or number there; None where there is something else or nothing."""
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    if isinstance(document, bool) or not isinstance(document, (str, int, float)):
        return None
    return None if isinstance(document, float) and not math.isfinite(document) else document


def answered(status: int) -> int | None:
    """The status, None where no answer was sent: nginx writes 444 for a rule that says so, 499 for a client gone."""
    return None if status < 100 or status in (444, 499) else status


def split_request(request: str) -> tuple[str, str]:
    """(method, URI) of a request's first line; ("", "") where it is none."""
    method, _, rest = request.partition(" ")
    uri = rest.rpartition(" ")[0] if " HTTP/" in rest else rest
    return (method, uri) if uri else ("", "")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
