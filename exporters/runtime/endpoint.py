"""The HTTP endpoint of every process: metrics, a landing page, health, and the routes a process adds.

HTTP/1.1 with keep-alive on cheroot. Several listen addresses are several servers in front of one application. With a
web configuration every one of them speaks TLS, and everything that is served wants a password, if it says so.
"""

import errno
import gzip
import html
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import gzip_accepted
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporters.runtime.exposition import Pages
from exporters.runtime.process import version
from exporters.runtime.server import CONNECTIONS, Server, Tls

if TYPE_CHECKING:
    import ssl

    from exporters.runtime.web import Web

# What Prometheus said it would wait for this scrape, in seconds; None outside a scrape and for other clients.
SCRAPE_TIMEOUT_SECONDS: ContextVar[float | None] = ContextVar("scrape_timeout_seconds", default=None)

HTML = "text/html; charset=utf-8"
MAX_REQUESTS = 40  # scrapes at one time
_SPARE_THREADS = 24  # for what is no scrape: probes, people, slow clients
_STOP_SECONDS = 2.0  # a request still running after that is cut off
_log = structlog.get_logger()


class EndpointError(Exception):
    """An address cannot be listened on; `str()` is a sentence ready to be shown."""


@dataclass(frozen=True)
class Request:
    """One request. `headers`: names in lower case. `query`: the last value of each key. `body`: at most 1 MiB."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """One answer. Text is sent as UTF-8. `headers`: beside Content-Type and Content-Length."""

    status: int = 200
    body: bytes | str = ""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Callable[[Request], Response]


class Endpoint:
    """Serves `registry` at `telemetry_path`, a landing page at /, /-/healthy, /-/ready and `routes`.

    `ready` returns None when the process is ready, else the sentence why not (answered with 503). `routes` maps
    (method, path) to a function that runs in a server thread; a path that ends in /* is that of everything below it.
    `landing` returns HTML put into the landing page.
    `web` is a web configuration, `max_requests` how many scrapes may run at one time (0: any number).
    """

    def __init__(
        self,
        listen: Sequence[str],
        registry: CollectorRegistry,
        *,
        process: str,
        telemetry_path: str = "/metrics",
        ready: Callable[[], str | None],
        routes: Mapping[tuple[str, str], Route] = {},
        landing: Callable[[], str] | None = None,
        web: "Web | None" = None,
        max_requests: int = MAX_REQUESTS,
    ) -> None:
        self._listen = listen
        self._registry = registry
        self._pages = Pages()
        self._process = process
        self._telemetry_path = telemetry_path
        self._ready = ready
        self._landing = landing
        self._web = web
        self._max_requests = max_requests
        self._scrapes = threading.Semaphore(max_requests) if max_requests else None
        self._refusals = Refusals(web)
        registry.register(self._refusals)
        self._servers: list[Server] = []
        self._routes: dict[str, dict[str, Route]] = {
            "/": {"GET": self._landing_page},
            "/-/healthy": {"GET": lambda _: Response(body="healthy\n")},
            "/-/ready": {"GET": self._readiness},
            telemetry_path: {"GET": self._scrape},
        }
        for (method, path), route in routes.items():
            self._routes.setdefault(path, {})[method] = route

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of each server, with the real port where 0 was asked for. Empty before start()."""
        return [server.address for server in self._servers]

    def start(self) -> None:
        """Listen on every address, or on none: raises EndpointError, with what to do, when one cannot be had."""
        tls = _WebTls(self._web, self._refusals) if self._web is not None and self._web.now().context else None
        refused = partial(self._refusals.count, "connections")
        threads = self._max_requests + _SPARE_THREADS if self._max_requests else CONNECTIONS
        for address in self._listen:
            try:
                server = Server(address, self._application, tls=tls, threads=threads, refused=refused)
                server.open()
            except (OSError, ValueError) as error:
                self.stop()
                raise EndpointError(_why_not(address, error)) from None
            self._servers.append(server)

    def stop(self) -> None:
        """Close every server; running requests get two seconds."""
        closing = [threading.Thread(target=server.stop, daemon=True) for server in self._servers]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(_STOP_SECONDS)
        self._servers = []

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        more_headers: Mapping[str, str] = {}
        refusal = None
        if self._web is not None:
            refusal, more_headers = self._admit(self._web, environ)
        request = _request(environ) if refusal is None else None
        if refusal is not None:
            response = refusal
        elif request is None:
            response = Response(400, "the body is shorter than its Content-Length\n")
        else:
            response = self._answer(request)
        body = response.body.encode() if isinstance(response.body, str) else response.body
        headers = {"Content-Type": response.content_type, **more_headers, **response.headers}
        if body and gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)  # level 9 costs ten times the CPU for a few percent
            headers["Content-Encoding"] = "gzip"
        headers["Vary"] = "Accept, Accept-Encoding"
        headers["Content-Length"] = str(len(body))
        start_response(f"{response.status} {_phrase(response.status)}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _admit(self, web: "Web", environ: Mapping[str, Any]) -> tuple[Response | None, Mapping[str, str]]:
        """The refusal of who may not ask, None for the others; and the headers of the answer."""
        loaded = web.now()
        verdict = web.judge(loaded, environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", ""))
        if verdict == "right":
            return None, loaded.headers
        self._refusals.count("credentials")
        if verdict == "busy":
            sentence = "too many passwords are being checked; ask again in a second\n"
            return Response(503, sentence, headers={"Retry-After": "1"}), loaded.headers
        challenge = {"WWW-Authenticate": 'Basic realm="tidewise", charset="UTF-8"'}
        return Response(401, "name and password, please\n", headers=challenge), loaded.headers

    def _answer(self, request: Request) -> Response:
        methods = self._routes.get(request.path) or self._routes_above(request.path)
        if methods is None:
            known = ", ".join(sorted(self._routes))
            return Response(404, f"{request.path}: nothing here; this process answers {known}\n")
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(sorted({*methods, *({"HEAD"} if "GET" in methods else ())}))
            return Response(
                405, f"{request.path}: {request.method} is not allowed; use {allowed}\n", headers={"Allow": allowed}
            )
        try:
            return route(request)
        except Exception:  # the last resort of a server thread: one bad request must not end the process
            _log.exception("request_failed", method=request.method, path=request.path)
            return Response(500, "internal error; the process's log has it\n")

    def _routes_above(self, path: str) -> dict[str, Route] | None:
        above = [route for route in self._routes if route.endswith("/*") and path.startswith(route[:-1])]
        return self._routes[max(above, key=len)] if above else None

    def _scrape(self, request: Request) -> Response:
        if self._scrapes is None:
            return self._metrics(request)
        if not self._scrapes.acquire(blocking=False):
            self._refusals.count("scrapes")
            sentence = f"too many scrapes are running, the limit is {self._max_requests}; ask again later\n"
            return Response(503, sentence, headers={"Retry-After": "1"})
        try:
            return self._metrics(request)
        finally:
            self._scrapes.release()

    def _metrics(self, request: Request) -> Response:
        token = SCRAPE_TIMEOUT_SECONDS.set(_positive(request.headers.get("x-prometheus-scrape-timeout-seconds")))
        try:
            body, content_type = self._pages.page(self._registry, request.headers.get("accept", ""))
            return Response(body=body, content_type=content_type)
        finally:
            SCRAPE_TIMEOUT_SECONDS.reset(token)

    def _readiness(self, request: Request) -> Response:
        why_not = self._ready()
        return Response(body="ready\n") if why_not is None else Response(503, f"not ready: {why_not}\n")

    def _landing_page(self, request: Request) -> Response:
        name = html.escape(self._process)
        links = "".join(
            f'<li><a href="{html.escape(path)}">{html.escape(path)}</a></li>'
            for path, methods in sorted(self._routes.items())
            if "GET" in methods and path != "/" and not path.endswith("/*")
        )
        why_not = self._ready()
        state = "ready" if why_not is None else f"not ready: {html.escape(why_not)}"
        fragment = self._landing() if self._landing else ""
        return Response(
            body=f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{name}</title></head><body>'
            f"<h1>{name}</h1><p>Tidewise {html.escape(version())}, {state}.</p><ul>{links}</ul>{fragment}"
            "</body></html>\n",
            content_type=HTML,
        )


class Refusals:
    """How many requests and connections were turned away, and whether the web configuration is as its file says."""

    def __init__(self, web: "Web | None") -> None:
        self._web = web
        reasons = ("scrapes", "connections") if web is None else ("scrapes", "connections", "credentials", "handshake")
        self._counts = dict.fromkeys(reasons, 0)
        self._lock = threading.Lock()

    def count(self, reason: str) -> None:
        with self._lock:
            self._counts[reason] += 1

    def collect(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "tidewise_web_refused",
            "Requests and connections turned away: too many at once, wrong password, failed TLS handshake.",
            labels=["reason"],
        )
        for reason, count in self._counts.items():
            refused.add_metric([reason], count)
        yield refused
        if self._web is not None:
            yield GaugeMetricFamily(
                "tidewise_web_config_reload_success",
                "1: the web configuration in force is that of its files. 0: they became wrong, an older one holds.",
                0 if self._web.problem else 1,
            )


class _WebTls(Tls):
    """A web configuration's TLS, as a server wants it."""

    def __init__(self, web: "Web", refusals: Refusals) -> None:
        self._web = web
        self._refusals = refusals

    def context(self) -> "ssl.SSLContext":
        return cast("ssl.SSLContext", self._web.now().context)  # TLS that was there at the start stays

    def welcome(self, connection: "ssl.SSLSocket") -> bool:
        from exporters.runtime.web import has_allowed_san

        allowed = self._web.now().allowed_sans
        return allowed is None or has_allowed_san(connection.getpeercert(), allowed)

    def failed(self) -> None:
        self._refusals.count("handshake")


def json_response(value: object, status: int = 200) -> Response:
    """`value` as a JSON answer."""
    return Response(status, json.dumps(value) + "\n", "application/json")


def _request(environ: dict[str, Any]) -> Request | None:
    """None when the client hung up before its whole body had come."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    if len(body) < length:
        return None
    headers = {key[5:].replace("_", "-").lower(): text for key, text in environ.items() if key.startswith("HTTP_")}
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if key in environ:
            headers[key.replace("_", "-").lower()] = environ[key]
    return Request(
        method=environ["REQUEST_METHOD"],
        path=_utf8(environ["PATH_INFO"]),
        query=dict(parse_qsl(_utf8(environ["QUERY_STRING"]), keep_blank_values=True)),
        headers=headers,
        body=body,
    )


def _utf8(wsgi_text: str) -> str:
    """WSGI carries bytes as Latin-1 text."""
    return wsgi_text.encode("latin-1").decode("utf-8", "replace")


def _positive(text: str | None) -> float | None:
    try:
        seconds = float(text) if text else math.nan
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _why_not(address: str, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return str(error)
    reasons = {
        errno.EADDRINUSE: "the address is in use; stop the process that has it or listen on another port",
        errno.EADDRNOTAVAIL: "this machine has no such address; listen on 127.0.0.1, 0.0.0.0 or an address of its own",
        errno.EACCES: "not permitted; choose a port above 1023 or give the process that right",
    }
    return f"{address}: {reasons.get(error.errno or 0, f'cannot be listened on ({error}); check host and port')}"
