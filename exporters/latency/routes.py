"""Routes: what many addresses have in common. `/videos/17?size=2` is `/videos/:id`."""

import re
from collections.abc import Sequence

from exporters.labels import OTHER, Cap

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
DEEPEST = 8  # segments; what is deeper ends with an asterisk
LONGEST = 1000  # characters of a path that are looked at

_DATE = re.compile(r"(?:19|20)\d\d-?[01]\d-?[0-3]\d(?:[T_-][\d:.Z+-]*)?")
_ID = re.compile(
    r"[+-]?\d+(?:\.\d+)?"  # a number
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"  # a UUID
    r"|(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}"  # hexadecimal
    r"|(?=[^\d]*\d)[\w=~-]{22,}"  # a token, a hash in base64
    r"|[^/]*\d{4}[^/]*"  # a name with a number in it
)


class Routes:
    """The label `route` of requests. `declared`: patterns such as /videos/{id}, in the order in which they are tried.

    An address that the service does not know either (an answer of 4xx) makes no new route: whoever tries addresses at
    random would soon have taken up all the places.
    """

    def __init__(self, cap: Cap, declared: Sequence[str] = (), *, methods: bool = False) -> None:
        self._cap = cap
        self._declared = [(declared_pattern(text), text) for text in declared]
        self._methods = methods
        self._known: set[str] = set()

    def admit(self, route: str) -> None:
        """One that was known before a restart."""
        if route != OTHER:
            self._known.add(self._cap(route))

    def __call__(self, method: str, uri: str, status: int | None) -> str:
        path = path_of(uri)
        if not path:
            return OTHER
        declared = next((text for pattern, text in self._declared if pattern.fullmatch(path)), None)
        route = declared or template(path)
        if self._methods:
            if method not in METHODS:
                return OTHER
            route = f"{method} {route}"
        if route not in self._known:
            if declared is None and (status is None or 400 <= status < 500):
                return OTHER
            route = self._cap(route)
            self._known.add(route)
        return route


def path_of(uri: str) -> str:
    """The path of an address as requests name it, without query; "" where it has none."""
    if not uri.startswith("/"):
        scheme, _, rest = uri.partition("://")
        if scheme.lower() not in ("http", "https"):
            return ""
        uri = "/" + rest.partition("/")[2]
    return uri[:LONGEST].partition("?")[0].partition("#")[0]


def template(path: str) -> str:
    """The path with `:id` and `:date` for the segments that differ from request to request."""
    segments = path.split("/")
    if len(segments) > DEEPEST + 1:
        segments = [*segments[: DEEPEST + 1], "*"]
    return "/".join(map(_segment, segments))


def _segment(text: str) -> str:
    if text.isalpha():  # most are
        return text
    if _DATE.fullmatch(text):
        return ":date"
    return ":id" if _ID.fullmatch(text) else text


def declared_pattern(text: str) -> re.Pattern[str]:
    """`/videos/{id}`: {…} is one segment or part of one; `*` at the end is all the rest. Raises ValueError."""
    if not text.startswith("/"):
        raise ValueError(f"'{text}': a route begins with a slash, for example /videos/{{id}}")
    pieces = re.split(r"(\{\w+\}|\*$)", text)
    if any(mark in piece for piece in pieces[::2] for mark in "{}*?"):
        raise ValueError(f"'{text}' is no route; write /videos/{{id}}, or /files/* for all that begins so")
    marks = {"{": "[^/]+", "*": ".*"}
    return re.compile("".join(marks[piece[0]] if place % 2 else re.escape(piece) for place, piece in enumerate(pieces)))
