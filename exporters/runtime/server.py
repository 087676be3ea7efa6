"""cheroot's server for one listen address, hardened: a slow or silent client holds neither a thread nor memory long.

cheroot bounds each read of a socket; here a whole request has one deadline, and a connection that has not said
anything yet waits in the selector instead of in a thread.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from cheroot import wsgi
from cheroot.server import HTTPConnection, HTTPRequest

from exporters.runtime.config import split_address

READ_SECONDS = 10.0  # for a whole request to arrive
REQUEST_SECONDS = 60.0  # from a request's first byte to the last byte of its answer
IDLE_SECONDS = 130  # a kept-alive connection outlives two scrape intervals of a minute
THREADS = 8
WAITING_REQUESTS = 40  # more are answered with 503
KEPT_ALIVE = 64
BODY_BYTES = 1 << 20
HEADER_BYTES = 32 << 10

_log = structlog.get_logger()


class _TimedSocket:
    """A socket whose reads share one deadline and whose writes share another, however many there are."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read_until = self._write_until = 0.0

    def begin(self) -> None:
        self._read_until = time.monotonic() + READ_SECONDS
        self._write_until = time.monotonic() + REQUEST_SECONDS

    def recv_into(self, buffer: bytearray) -> int:
        self._allow(self._read_until)
        return self._sock.recv_into(buffer)

    def send(self, data: bytes) -> int:
        self._allow(self._write_until)
        return self._sock.send(data)

    def _allow(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Request(HTTPRequest):
    def read_request_headers(self) -> bool:
        """Refuse what could make the rest of the connection be read wrongly: chunks and lengths that are no numbers."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call]  # cheroot left it untyped
            return False
        if self.chunked_read:
            self.simple_response("411 Length Required", "send the body with a Content-Length")
            return False
        if not self.inheaders.get(b"Content-Length", b"0").isdigit():
            self.simple_response("400 Bad Request", "Content-Length is not a number")
            return False
        return True


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request

    def __init__(self, server: Any, sock: socket.socket, makefile: Callable[..., Any]) -> None:
        self.timed = _TimedSocket(sock)
        super().__init__(server, sock, lambda _, mode, size: makefile(self.timed, mode, size))

    def communicate(self) -> bool:
        self.timed.begin()
        return bool(super().communicate())  # type: ignore[no-untyped-call]  # cheroot left it untyped


class Server(wsgi.Server):
    """One listen address in front of a WSGI application. `address` has the real port once open() has returned."""

    ConnectionClass = _Connection
    max_request_body_size = BODY_BYTES
    max_request_header_size = HEADER_BYTES
    keep_alive_conn_limit = KEPT_ALIVE

    def __init__(self, address: str, application: Callable[..., Any]) -> None:
        host, port = split_address(address)
        if host == "":  # every interface, as in ":9811"
            host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - asked for in so many words
        super().__init__(
            (host, port),
            application,
            numthreads=THREADS,
            server_name="tidewise",
            request_queue_size=128,
            timeout=IDLE_SECONDS,
            shutdown_timeout=1,
            accepted_queue_size=WAITING_REQUESTS,
            accepted_queue_timeout=0,
        )
        self._refusal: OSError | None = None

    def open(self) -> None:
        """Bind and serve in daemon threads. Raises the OSError of the address if it cannot be had."""
        # with this set, even for another process, cheroot would take descriptor 3 for each of our addresses
        os.environ.pop("LISTEN_PID", None)
        opened = threading.Event()
        failure: list[OSError] = []

        def run() -> None:
            # cheroot's workers inherit "daemon" from the thread that prepares: a hung request must not keep the process
            try:
                self.prepare()
            except OSError as error:
                failure.append(self._refusal or error)
                return
            finally:
                opened.set()
            self.serve()

        threading.Thread(target=run, name="http", daemon=True).start()
        opened.wait()
        if failure:
            raise failure[0]

    @property
    def address(self) -> str:
        host, port = self.bind_addr
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def bind(self, family: int, type: int, proto: int = 0) -> Any:  # noqa: A002 - cheroot's name
        try:
            return super().bind(family, type, proto)
        except OSError as error:
            self._refusal = error  # cheroot tells its text only, not its number
            raise

    def process_conn(self, conn: Any) -> None:
        if conn.last_used is None:  # new: browsers open connections in advance, and say nothing
            self.put_conn(conn)
        else:
            conn.timed.begin()  # it may be refused, which is an answer too
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        _log.log(level, "http_server", message=msg, exc_info=traceback)
