"""Asking an HTTP API for JSON: one answer, whole before a deadline, of bounded size; no redirect, no proxy.

Errors are sentences with the address and never with what was sent to prove who asks.
"""

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

LONGEST = 32 * 1024 * 1024  # bytes of one answer
_CHUNK = 65_536


class ApiError(Exception):
    """There is no usable answer. `status`: what HTTP said, None where there was none."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


def get_json(
    url: str,
    headers: Mapping[str, str],
    deadline: float,
    query: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
) -> Any:
    """The answer to a GET. `deadline`: a time.monotonic() value. Raises ApiError."""
    parts = urlsplit(url)
    try:
        connection = _connection(parts.scheme, parts.hostname or "", parts.port, deadline, ca_file)
        try:
            path = (parts.path or "/") + (f"?{urlencode(query)}" if query else "")
            connection.connect()
            line = connection.sock
            with cut_at(lambda: line, deadline):
                connection.request("GET", path, headers={"Accept": "application/json", **headers})
                response = connection.getresponse()
                body = _body(response, url)
        finally:
            connection.close()
    except TimeoutError:
        raise ApiError(f"{url}: no answer in time") from None
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
        raise ApiError(f"{url}: TLS failed ({why}); check the certificate, its name, and ca_file") from None
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__
        raise ApiError(f"{url}: {why}; is it running, and is this its address?") from None
    except ValueError:  # a header of what cannot be one: a key with a line break in it
        raise ApiError(f"{url}: the request cannot be written; check the key or token for odd characters") from None
    if response.status != 200:
        raise ApiError(f"{url}: answered {response.status}{_why(response.status)}", response.status)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(f"{url}: the answer is no JSON; is this the address of its API?", 200) from None


def _why(status: int) -> str:
    if status in (401, 403):
        return "; check the key or token, and what it may read"
    if 300 <= status < 400:
        return "; name the address that it sends to"
    return ""


def _connection(
    scheme: str, host: str, port: int | None, deadline: float, ca_file: Path | None
) -> http.client.HTTPConnection:
    seconds = max(0.05, deadline - time.monotonic())
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        raise ApiError(f"ca_file {ca_file} cannot be used ({error.strerror or error}); it must be PEM") from None
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


@contextlib.contextmanager
def cut_at(line: Callable[[], socket.socket | None], deadline: float) -> Iterator[None]:
    """Cuts the line at `deadline`: a server that sends a byte now and then keeps no one, whatever it is a byte of.

    line: which that is by then (http.client's connection forgets one whose answer ends with it). What was not whole
    by then is a TimeoutError.
    """

    def cut() -> None:
        with contextlib.suppress(OSError):
            if (open_line := line()) is not None:  # not TLS's own shutdown: what comes would then be read as plain text
                socket.socket.shutdown(open_line, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
        if time.monotonic() >= deadline:
            raise TimeoutError
    except Exception:
        if time.monotonic() >= deadline:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
        timer.join()


def _body(response: http.client.HTTPResponse, url: str) -> bytes:
    """All of it."""
    found = bytearray()
    while chunk := response.read1(_CHUNK):
        found += chunk
        if len(found) > LONGEST:
            raise ApiError(f"{url}: the answer is longer than {LONGEST} bytes; nothing of it was taken")
    return bytes(found)


def secret(path: Path, setting: str) -> str:
    """One line of a file. Raises ApiError, a sentence with the setting's name and without the secret."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not plain text"
        raise ApiError(f"{setting}: {path} cannot be read ({why})") from None
    if not text or not text.isprintable() or " " in text:
        raise ApiError(f"{setting}: {path} must hold one line without spaces")
    return text
