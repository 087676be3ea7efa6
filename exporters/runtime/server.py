"""cheroot's server for one listen address, hardened: a slow or silent client holds neither a thread nor memory long.

cheroot bounds each read of a socket; here a whole request has one deadline, and a connection that has not said
anything yet waits in the selector instead of in a thread. So does one in the middle of its TLS handshake, which cheroot
would have made in the one thread that accepts connections. Threads are started when all others are busy.
"""

import contextlib
import errno
import os
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import structlog
from cheroot import wsgi
from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from cheroot.workers.threadpool import ThreadPool

from exporters.runtime.config import split_address
from exporters.runtime.connections import Connections

if TYPE_CHECKING:
    import ssl

READ_SECONDS = 10.0  # for a whole request to arrive, and before it for the handshake
REQUEST_SECONDS = 60.0  # from a request's first byte to the last byte of its answer
IDLE_SECONDS = 130  # a kept-alive connection outlives two scrape intervals of a minute
THREADS = 1  # at the start; one that is always the same finds its data where it left them
MOST_THREADS = 64
THREADS_FOR_OTHERS = 8  # of all: one address gets no more than the rest
WAITING_REQUESTS = 40  # more are answered with 503
KEPT_ALIVE = 64
CONNECTIONS = 256  # more are closed at once, so that descriptors are left for the work
CONNECTIONS_OF_ONE = 192  # of one address, so that others find a place
STARVED_SECONDS = 0.1  # before the next attempt where no descriptor is left
SILENCE_SECONDS = 60.0  # between two lines in the log about it
BODY_BYTES = 1 << 20
HEADER_BYTES = 32 << 10

_TLS_HANDSHAKE = b"\x16"  # the first byte of every TLS connection
_log = structlog.get_logger()


class Tls:
    """How a server makes its connections secret."""

    def context(self) -> "ssl.SSLContext":
        """For a connection that begins now."""
        raise NotImplementedError

    def welcome(self, connection: "ssl.SSLSocket") -> bool:
        """Whether this client may stay, now that the handshake has told who it is."""
        raise NotImplementedError

    def failed(self) -> None:
        """Hears of each handshake that came to nothing."""
        raise NotImplementedError


class _Listening:
    """A listening socket that waits a moment where no descriptor is left.

    cheroot would ask again at once, log each time, and never come to closing the connections that say nothing.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._tell_at = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return self.sock.accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            now = time.monotonic()
            if now >= self._tell_at:
                self._tell_at = now + SILENCE_SECONDS
                _log.error("http_no_descriptor", problem=f"{error}: new connections wait; raise the limit (ulimit -n)")
            time.sleep(STARVED_SECONDS)
            raise BlockingIOError(errno.EAGAIN, "no descriptor is left") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class _TimedSocket:
    """A socket whose reads share one deadline and whose writes share another, however many there are."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._read_until = self._write_until = 0.0

    def begin(self) -> None:
        self._read_until = time.monotonic() + READ_SECONDS
        self._write_until = time.monotonic() + REQUEST_SECONDS

    def recv_into(self, buffer: bytearray) -> int:
        self._allow(self._read_until)
        return self.sock.recv_into(buffer)

    def send(self, data: bytes) -> int:
        self._allow(self._write_until)
        return self.sock.send(data)

    def _allow(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class _SecretSocket(_TimedSocket):
    """The same for a TLS socket, whose troubles become those of any connection: cheroot knows what to do with them."""

    def recv_into(self, buffer: bytearray) -> int:
        with _as_of_any_socket():
            return super().recv_into(buffer)

    def send(self, data: bytes) -> int:
        with _as_of_any_socket():
            return super().send(data)


@contextlib.contextmanager
def _as_of_any_socket() -> Any:
    try:
        yield
    except TimeoutError:
        raise TimeoutError("timed out") from None
    except OSError as error:
        raise ConnectionResetError(104, f"the TLS connection broke off: {error}") from None


class _Headers(HeaderReader):
    """Reads those of one request. Left out are names with a `_`, which WSGI could not tell from a `-`."""

    def __init__(self) -> None:
        self._lengths = 0

    def __call__(self, *arguments: Any) -> Any:
        try:
            return super().__call__(*arguments)
        except UnboundLocalError:  # the first line continues one that is not there
            raise ValueError("Illegal header line.") from None

    def _transform_key(self, key_name: bytes) -> bytes:
        if key_name != key_name.strip():
            raise ValueError("Illegal white space around the name of a header.")
        name = key_name.title()
        self._lengths += name == b"Content-Length"
        if self._lengths > 1:
            raise ValueError("More than one Content-Length.")
        return name

    def _allow_header(self, key_name: bytes) -> bool:
        return b"_" not in key_name


class _Request(HTTPRequest):
    def read_request_line(self) -> bool:
        self.header_reader = _Headers()
        try:
            return bool(super().read_request_line())  # type: ignore[no-untyped-call]  # cheroot left it untyped
        except ValueError:  # such as a host with one bracket
            self.simple_response("400 Bad Request", "Malformed Request-URI")
            return False

    def read_request_headers(self) -> bool:
        """Refuse what could make the rest of the connection be read wrongly: chunks and lengths that are no numbers."""
        if not super().read_request_headers():  # type: ignore[no-untyped-call]
            return False
        if b"Transfer-Encoding" in self.inheaders:  # also in HTTP/1.0, which does not know it: somebody before us may
            self.simple_response("411 Length Required", "send the body with a Content-Length")
            return False
        if not self.inheaders.get(b"Content-Length", b"0").isdigit():
            self.simple_response("400 Bad Request", "Content-Length is not a number")
            return False
        return True


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request
    server: "Server"

    def __init__(self, server: "Server", sock: socket.socket, makefile: Callable[..., Any]) -> None:
        self.timed = _TimedSocket(sock) if server.tls is None else _SecretSocket(sock)
        self.began = time.monotonic()
        self.heard = False  # a first request, or its beginning
        self.open = server.tls is None  # for requests: the handshake is done
        super().__init__(server, sock, lambda _, mode, size: makefile(self.timed, mode, size))

    def communicate(self) -> bool:
        try:
            if not self.open:
                return self._shake_hands()
            self.heard = True
            self.timed.begin()
            return bool(super().communicate())  # type: ignore[no-untyped-call]  # cheroot left it untyped
        finally:
            self.server.requests.done(self)

    def _shake_hands(self) -> bool:
        """As far as it goes without waiting; the selector tells when more has come. False: it has failed."""
        import ssl

        tls = cast(Tls, self.server.tls)
        try:
            if not isinstance(self.socket, ssl.SSLSocket):
                self.socket.settimeout(0)
                first = self.socket.recv(1, socket.MSG_PEEK)
                if not first:  # it has hung up already, as a probe of the port does
                    return False
                if first != _TLS_HANDSHAKE:
                    tls.failed()
                    self._turn_away("400 Bad Request", "this port speaks HTTPS only; ask it with https://")
                    return False
                self.socket = self.timed.sock = tls.context().wrap_socket(
                    self.socket, server_side=True, do_handshake_on_connect=False
                )
            self.socket.settimeout(0)
            self.socket.do_handshake()
        except (ssl.SSLWantReadError, BlockingIOError):
            if time.monotonic() < self.began + READ_SECONDS:
                return True
            tls.failed()
        except (OSError, ValueError):  # whatever the peer sent; ValueError: it hung up before the socket was wrapped
            tls.failed()
            self._turn_away()
        else:
            if tls.welcome(self.socket):
                self.open = True
                return True
            tls.failed()
            self._turn_away("403 Forbidden", "your certificate has none of the names that are allowed here")
        return False

    def _turn_away(self, status: str = "", sentence: str = "") -> None:
        """Answer, if there is something to say, and read what has come: unread, it would make the close a reset, and
        the client might see neither the answer nor the alert that TLS has sent.
        """
        with contextlib.suppress(OSError, ValueError):
            if status:
                self.socket.send(
                    f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                    f"Content-Length: {len(sentence) + 1}\r\n\r\n{sentence}\n".encode()
                )
            os.read(self.socket.fileno(), HEADER_BYTES)

    def silent_since(self) -> float:
        """As of now. The patience with one that was never heard counts from its beginning, and is shorter."""
        return time.monotonic() if self.heard else self.began + READ_SECONDS - IDLE_SECONDS

    def pending(self) -> bool:
        """Whether there is more to read that the selector cannot see, since it was taken from the socket already."""
        in_tls = self.open and self.server.tls is not None and self.socket.pending()
        return bool(in_tls or self.rfile.has_data())

    def close(self) -> None:
        if self.open and self.server.tls is not None:
            with contextlib.suppress(OSError, ValueError):  # a word of farewell, without waiting for the other one's
                self.socket.settimeout(0)
                self.socket.unwrap()
        self.linger = False  # cheroot would leave some sockets to the garbage collector
        with contextlib.suppress(OSError):  # an error here would end the worker thread
            super().close()
        self.socket.close()


class _Threads(ThreadPool):
    """The worker threads: a few, and one more whenever there is more to do than there are threads, up to `most`.

    One address never has the last of them: what it asks beyond its share waits until one of its own requests is done.
    """

    def __init__(self, server: "Server", most: int) -> None:
        super().__init__(
            server,
            min=min(THREADS, most),
            max=most,
            accepted_queue_size=WAITING_REQUESTS,
            accepted_queue_timeout=0,
        )
        self._count = threading.Lock()
        self._share = max(1, most - THREADS_FOR_OTHERS)
        self._taken: Counter[str] = Counter()  # connections in a thread or on the way to one, by address
        self._later: list[Any] = []
        self._started = self.min

    def put(self, obj: Any) -> None:
        with self._count:
            if self._taken[obj.remote_addr] >= self._share:
                if len(self._later) >= WAITING_REQUESTS:
                    raise queue.Full
                self._later.append(obj)
                return
            more = self._started < min(self._taken.total() + 1, self.max)
            self._started += more
            self._taken[obj.remote_addr] += 1
        if more:
            try:
                self._threads.append(self._spawn_worker())  # type: ignore[attr-defined]  # cheroot keeps it to itself
            except RuntimeError:  # the system gives no more now: those that are there do the work
                with self._count:
                    self._started -= 1
        try:
            super().put(obj)
        except queue.Full:
            self._leave(obj)
            raise

    def done(self, conn: Any) -> None:
        """It needs its thread no longer, so that another one of that address may have it."""
        self._leave(conn)
        with self._count:
            following = next((one for one in self._later if one.remote_addr == conn.remote_addr), None)
            if following is None:
                return
            self._later.remove(following)
        self.server.hand_over(following)

    def _leave(self, conn: Any) -> None:
        with self._count:
            self._taken[conn.remote_addr] -= 1
            if not self._taken[conn.remote_addr]:
                del self._taken[conn.remote_addr]


class Server(wsgi.Server):
    """One listen address in front of a WSGI application. `address` has the real port once open() has returned.

    `tls`: how its connections are made secret; None for plain HTTP. `threads`: the most that it starts.
    `refused` hears of each connection that is closed, or answered with 503, because there are too many.
    """

    ConnectionClass = _Connection
    _connections: Any
    max_request_body_size = BODY_BYTES
    max_request_header_size = HEADER_BYTES
    keep_alive_conn_limit = KEPT_ALIVE

    def __init__(
        self,
        address: str,
        application: Callable[..., Any],
        *,
        tls: Tls | None = None,
        threads: int = MOST_THREADS,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        host, port = split_address(address)
        if host == "":  # every interface, as in ":9811"
            host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - asked for in so many words
        super().__init__(
            (host, port),
            application,
            server_name="tidewise",
            request_queue_size=128,
            timeout=IDLE_SECONDS,
            shutdown_timeout=1,
        )
        self.requests = _Threads(self, threads)
        self.tls = tls
        self._refused = refused
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

    def prepare(self) -> None:
        super().prepare()
        self._connections.close()
        self._connections = Connections(self)

    @property
    def address(self) -> str:
        host, port = self.bind_addr
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def bind(self, family: int, type: int, proto: int = 0) -> Any:  # noqa: A002 - cheroot's name
        try:
            self.socket = _Listening(super().bind(family, type, proto))
        except OSError as error:
            self._refusal = error  # cheroot tells its text only, not its number
            raise
        return self.socket

    def process_conn(self, conn: Any) -> None:
        if conn.last_used is None:  # new: browsers open connections in advance, and say nothing
            if self._has_room(conn.remote_addr):
                self.put_conn(conn)
            else:
                self._refused()
                conn.close()
            return
        conn.timed.begin()  # it may be refused, which is an answer too
        self.hand_over(conn)

    def hand_over(self, conn: Any) -> None:
        """To a thread, now or soon; where too many wait already, it is refused."""
        try:
            self.requests.put(conn)
        except queue.Full:
            self._refused()
            if conn.open:
                self._unservicable_conns.put(conn)  # type: ignore[attr-defined]  # a thread of cheroot's answers 503
            else:
                conn.close()

    def _has_room(self, address: str | None) -> bool:
        """For one more connection, of those that wait for something to be said."""
        selector = self._connections._selector
        waiting = len(selector)
        if waiting <= min(CONNECTIONS, CONNECTIONS_OF_ONE):  # nothing to count
            return True
        of_one = sum(conn is not self and conn.remote_addr == address for _, conn in selector.connections)
        return waiting <= CONNECTIONS and of_one < CONNECTIONS_OF_ONE

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        _log.log(level, "http_server", message=msg, exc_info=traceback)
