"""The HTTP endpoint of every process: metrics, a landing page, health, and the routes a process adds.

HTTP/1.1 with keep-alive on cheroot. Several listen addresses are several servers in front of one application.
"""

import errno
import gzip
import html
import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, gzip_accepted

from exporters.runtime.process import version
from exporters.runtime.server import Server

# What Prometheus said it would wait for this scrape, in seconds; None outside a scrape and for other clients.
SCRAPE_TIMEOUT_SECONDS: ContextVar[float | None] = ContextVar("scrape_timeout_seconds", default=None)

HTML = "text/html; charset=utf-8"
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
    (method, path) to a function that runs in a server thread. `landing` returns HTML put into the landing page.
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
    ) -> None:
        self._listen = listen
        self._registry = registry
        self._process = process
        self._telemetry_path = telemetry_path
        self._ready = ready
        self._landing = landing
        self._servers: list[Server] = []
        self._routes: dict[str, dict[str, Route]] = {
            "/": {"GET": self._landing_page},
            "/-/healthy": {"GET": lambda _: Response(body="healthy\n")},
            "/-/ready": {"GET": self._readiness},
            telemetry_path: {"GET": self._metrics},
        }
        for (method, path), route in routes.items():
            self._routes.setdefault(path, {})[method] = route

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of each server, with the real port where 0 was asked for. Empty before start()."""
        return [server.address for server in self._servers]

    def start(self) -> None:
        """Listen on every address, or on none: raises EndpointError, with what to do, when one cannot be had."""
        for address in self._listen:
            try:
                server = Server(address, self._application)
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
        request = _request(environ)
        if request is None:
            response = Response(400, "the body is shorter than its Content-Length\n")
        else:
            response = self._answer(request)
        body = response.body.encode() if isinstance(response.body, str) else response.body
        headers = {"Content-Type": response.content_type, **response.headers}
        if body and gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, compresslevel=1, mtime=0)  # level 9 costs ten times the CPU for a few percent
            headers["Content-Encoding"] = "gzip"
        headers["Vary"] = "Accept, Accept-Encoding"
        headers["Content-Length"] = str(len(body))
        start_response(f"{response.status} {_phrase(response.status)}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, request: Request) -> Response:
        methods = self._routes.get(request.path)
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

    def _metrics(self, request: Request) -> Response:
        token = SCRAPE_TIMEOUT_SECONDS.set(_positive(request.headers.get("x-prometheus-scrape-timeout-seconds")))
        try:
            encode, content_type = _encoder(request.headers.get("accept", ""))
            return Response(body=encode(self._registry), content_type=content_type)
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
            if "GET" in methods and path != "/"
        )
        why_not = self._ready()
        state = "ready" if why_not is None else f"not ready: {html.escape(why_not)}"
        fragment = self._landing() if self._landing else ""
        return Response(
            body=f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title></head><body>'
            f"<h1>{name}</h1><p>Tidewise {html.escape(version())}, {state}.</p><ul>{links}</ul>{fragment}"
            "</body></html>\n",
            content_type=HTML,
        )


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


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no version: plain text is always right
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4


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
