"""Connecting to PostgreSQL, for every exporter that reads one: read-only, with time-outs, and no password in an error.

`Server` is how a configuration names one; `Client(server).session(deadline)` gives a connection that is kept between
scrapes. Reading goes statement by statement (autocommit); the server refuses whatever would write.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, model_validator

from exporters.runtime.config import ConfigError, Section

if TYPE_CHECKING:
    import psycopg

# What an address may say after its question mark; names are libpq's.
PARAMETERS = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding", "target_session_attrs")
EXAMPLE = "postgresql://watcher@db.example.com:5432/shop"
# Why a server could not be reached, and by what its answer is known; the first that fits. Servers may speak other
# languages: then `other`.
REASONS = {
    "connections_exhausted": ("too many clients", "remaining connection slots", "too many connections"),
    "starting": ("starting up", "shutting down", "recovery mode", "not yet accepting connections"),
    "credentials": ("authentication", "password", "pg_hba", 'role "', "permission denied", "not permitted to log in"),
    "no_database": ('database "',),
    "refused": ("refused", "no such file or directory", "failed to resolve", "could not translate", "not known"),
    "timeout": ("timeout", "timed out", "no route to host", "unreachable"),
    "tls": ("ssl", "certificate"),
}
OTHER_REASON = "other"
# A time without a zone is taken as UTC; GMT is that, and known to every server.
_SETTINGS = "-c default_transaction_read_only=on -c TimeZone=GMT"


class UnreachableError(Exception):
    """It was tried and there is no connection. `reason`: a word of REASONS, or `other`."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class StatementError(Exception):
    """A statement failed, or there was no answer in time; a sentence."""


def _postgresql_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("postgresql", "postgres") and parts.port != 0 and not parts.fragment
        asked = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:  # also several hosts: each server is named for itself
        usable, asked = False, []
    if not usable:  # the address may hold a password: it is not repeated
        raise ValueError(f"not the address of one PostgreSQL server; write postgresql://USER@HOST:PORT/DB ({EXAMPLE})")
    unknown = [key for key in asked if key not in PARAMETERS]
    if "password" in unknown:
        raise ValueError("found a password after the question mark; put it into a file and name it: password_file")
    if unknown:
        raise ValueError(f"the parameter '{unknown[0][:60]}' is not taken here; known: {', '.join(PARAMETERS)}")
    return text


SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class Server(Section):
    """One PostgreSQL database. `password_file` is read again at each connection."""

    url: Annotated[str, AfterValidator(_postgresql_url)]
    password_file: Path | None = None
    sslmode: SslMode | None = None  # verify-full proves who answers
    sslrootcert: Path | None = None

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        if self.password_file and self._parts.password:
            raise ValueError("found a password in url and password_file; keep the file")
        for key in ("sslmode", "sslrootcert"):
            if getattr(self, key) and key in self._parameters:
                raise ValueError(f"found {key} in url and beside it; keep one")
        return self

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def _parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self._parts.query))

    @property
    def address(self) -> str:
        """HOST:PORT/DB without credentials; for a socket its folder stands for the host."""
        host = self._parameters.get("host") or unquote(self._parts.hostname or "localhost")
        host = f"[{host}]" if ":" in host else host
        database = unquote(self._parts.path.strip("/")) or unquote(self._parts.username or "")
        return f"{host}:{self._parts.port or 5432}/{database}"

    def options(self) -> dict[str, Any]:
        """What libpq is told. Reads the password's file; raises OSError, as a sentence, where it cannot."""
        parts = self._parts
        found = {
            "host": unquote(parts.hostname or ""),
            "port": parts.port,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "dbname": unquote(parts.path.strip("/")),
            **self._parameters,
            "sslmode": self.sslmode or self._parameters.get("sslmode"),
            "sslrootcert": str(self.sslrootcert or self._parameters.get("sslrootcert") or ""),
        }
        if self.password_file:
            try:
                found["password"] = self.password_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "no UTF-8"
                raise OSError(f"the password_file {self.password_file} cannot be read ({why}); check it") from None
        return {key: value for key, value in found.items() if value}


def needs_psycopg(where: str) -> None:
    """Raises ConfigError where the package is not installed: at the start, and not at each scrape."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise ConfigError([f"{where}: needs the package psycopg; install tidewise[postgresql]"]) from None


class Client:
    """One connection to one server, made when it is needed and anew after any error. Not for two threads at once."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @contextlib.contextmanager
    def session(
        self, deadline: float, statement_seconds: float | None = None
    ) -> "Iterator[psycopg.Connection[tuple[Any, ...]]]":
        """A connection on which every statement ends before `deadline`, a time.monotonic() value.

        statement_seconds: how much of that one statement may take at most, so that a slow one leaves time for others.
        Raises UnreachableError where there is none; what goes wrong with a statement later becomes a StatementError.
        A statement that failed by itself (no right, no such table) may be answered inside: the connection stays good.
        """
        import psycopg

        connection = self._living(deadline, statement_seconds)
        try:
            with _cut_at(connection, deadline):
                yield connection
        except psycopg.Error as error:
            late = time.monotonic() >= deadline - 0.1
            text = "no answer in time" if late and connection.closed else said(error)
            raise StatementError(f"{self.server.address}: {text}") from None
        finally:
            if connection.closed or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.close()

    def close(self) -> None:
        """Let it go; the next session connects anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # whatever it was in: it is not used again
                connection.close()

    def _living(self, deadline: float, seconds: float | None) -> "psycopg.Connection[tuple[Any, ...]]":
        """The kept connection if it still answers, else a new one; with the statement time-out set."""
        import psycopg

        limit = deadline if seconds is None else min(deadline, time.monotonic() + seconds)
        if self._connection is not None:
            try:
                with _cut_at(self._connection, (time.monotonic() + deadline) / 2):  # leave time for a new one
                    _limit(self._connection, limit)
                return self._connection
            except psycopg.Error:  # the server was started anew, or the way to it is broken
                self.close()
        self._connection = self._connect(deadline, limit)
        return self._connection

    def _connect(self, deadline: float, limit: float) -> "psycopg.Connection[tuple[Any, ...]]":
        import psycopg

        options = self.server.options()
        # A name may stand for several addresses, each of which gets this long; libpq knows no less than 2 s.
        seconds = max(2, int((deadline - time.monotonic()) / 3))
        try:
            connection = psycopg.connect(
                **options,
                connect_timeout=min(seconds, 5),
                application_name="tidewise-exporter",
                client_encoding="UTF8",
                options=f"{_SETTINGS} -c statement_timeout={_milliseconds(limit)}",
                autocommit=True,
                prepare_threshold=None,
            )
        except psycopg.Error as error:
            text = said(error).replace(options.get("password") or "\0", "***")
            raise UnreachableError(f"cannot connect to {self.server.address}: {text}", reason(text)) from None
        _read_any_bytes(connection)
        return connection


def reason(text: str) -> str:
    """Why there is no connection, by what the server or libpq said."""
    text = text.lower()
    return next((name for name, marks in REASONS.items() if any(mark in text for mark in marks)), OTHER_REASON)


def said(error: "psycopg.Error") -> str:
    """What it says, on one line of at most 300 characters, and without the statement and its place in it."""
    told = [error.diag.message_primary, error.diag.message_hint] if error.diag.message_primary else [str(error)]
    text = "; ".join(line.strip() for part in told if part for line in part.splitlines() if line.strip())
    return text[:300] or type(error).__name__


def _milliseconds(deadline: float) -> int:
    """The statement time-out: the server shall say so itself, a moment before the line is cut. 0 would be no limit."""
    return max(1, int((deadline - time.monotonic() - 0.05) * 1000))


def _limit(connection: "psycopg.Connection[tuple[Any, ...]]", deadline: float) -> None:
    connection.execute("SELECT set_config('statement_timeout', %s, false)", [str(_milliseconds(deadline))])


@contextlib.contextmanager
def _cut_at(connection: "psycopg.Connection[tuple[Any, ...]]", deadline: float) -> Iterator[None]:
    """Cuts the line at `deadline`: a server that hangs heeds no time-out of its own, and libpq would wait for ever."""
    line = socket.socket(fileno=os.dup(connection.fileno()))

    def cut() -> None:
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        line.close()


def _read_any_bytes(connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
    r"""Names and texts of a database in SQL_ASCII may be any bytes: what is no UTF-8 becomes visible as \xNN."""
    from psycopg.adapt import Buffer, Loader

    class Text(Loader):
        def load(self, data: Buffer) -> str:
            return bytes(data).decode("utf-8", "backslashreplace")

    for kind in ("text", "name", "varchar", "bpchar", 0):  # 0: types of the database's own
        connection.adapters.register_loader(kind, Text)
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        connection.execute("SET client_encoding = SQL_ASCII")  # else the server refuses to send them
