"""Replicas as servers of an HAProxy backend: which socket, which backend, which file, and which servers it may have."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controllers.config.values import Number, Text, distinct
from exporters.runtime.config import Section

MOST_SERVERS = 1000
_PLACEHOLDERS = ("{name}", "{address}", "{host}", "{port}")
_RANGE = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?")
_OPTIONS = re.compile(r"[\w .:/,=%+()@-]+")


def addresses_of(text: str) -> list[tuple[str, int]]:
    """(host, port) of '10.0.0.5:8000', '10.0.0.5:8000-8019' or '[::1]:8000'. Raises ValueError."""
    found = _RANGE.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        host = str(ip_address(found["v6"] or found["v4"]))
        first, last = int(found["first"]), int(found["last"] or found["first"])
        if not 0 < first <= last <= 65535 or last - first >= MOST_SERVERS:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"found {text!r}; write IP:PORT or IP:FIRST-LAST, for example 10.0.0.5:8000-8019 (no names: HAProxy does "
            "not look them up for servers that are added while it runs)"
        ) from None
    return [(host, port) for port in range(first, last + 1)]


def _addresses(text: str) -> str:
    addresses_of(text)
    return text


def _options(text: str) -> str:
    words = text.split()
    if not _OPTIONS.fullmatch(text) or "check" not in words or {"disabled", "enabled"} & set(words):
        raise ValueError(
            f"found {text!r}; write what stands behind a server's address in HAProxy's configuration, with the word "
            "check in it and without disabled, for example 'check inter 1s fall 3 maxconn 50'"
        )
    return text


def _socket(text: str) -> str:
    """A path, or HOST:PORT."""
    if not text.startswith("/") and not re.fullmatch(r"[^\s/]+:\d{1,5}", text):
        raise ValueError(f"found {text!r}; write the whole path of HAProxy's stats socket, or HOST:PORT")
    return text


class HaproxyTarget(Section):
    """Servers of one backend, added and removed over HAProxy's runtime socket, and kept in its configuration file.

    `file` holds the backend's section with two lines, `# tidewise: begin` and `# tidewise: end`, in it; what is between
    them is ours. `start` and `stop` are the programs (argument lists, never a shell) that start and stop what listens
    on an address; they may be told the same again. Without them the servers exist already, and are only put into
    rotation and taken out.
    """

    socket: Annotated[Text, AfterValidator(_socket)]
    backend: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$")]
    file: Path
    servers: Annotated[list[Annotated[Text, AfterValidator(_addresses)]], Field(min_length=1)]
    options: Annotated[Text, AfterValidator(_options)] = "check"
    start: Annotated[list[str], Field(min_length=1)] | None = None
    stop: Annotated[list[str], Field(min_length=1)] | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")] = "tidewise-"
    ready_seconds: Annotated[Number, Field(gt=0, le=3600)] = 60.0
    drain_seconds: Annotated[Number, Field(ge=0, le=86_400)] = 60.0
    timeout_seconds: Annotated[Number, Field(gt=0, le=60)] = 10.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        distinct(self.addresses)
        if len(self.addresses) > MOST_SERVERS:
            raise ValueError(f"servers: found {len(self.addresses)}; at most {MOST_SERVERS} can be managed")
        if (self.start is None) != (self.stop is None):
            raise ValueError("found one of start and stop; give both, or none where the servers run anyway")
        for key in ("start", "stop"):
            argv = getattr(self, key)
            if argv is not None and not any(word in argument for word in _PLACEHOLDERS for argument in argv):
                raise ValueError(f"{key}: found {argv!r}; one argument must hold one of {', '.join(_PLACEHOLDERS)}")
        return self

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """All of `servers`, in their order."""
        return [address for text in self.servers for address in addresses_of(text)]
