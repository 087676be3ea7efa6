"""Services that are asked at each scrape whether they answer: by HTTP, by a TCP connection, by gRPC's health check.

An answer is not a failure of the exporter whatever it says: a service that is down has success 0. Each probe is a
collector of its own, so that they wait side by side.
"""

import functools
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urljoin, urlsplit

from prometheus_client.metrics_core import Metric
from pydantic import AfterValidator, Field, model_validator

from exporters.collector import CollectFunction
from exporters.families import Family, Gauge
from exporters.labels import clean
from exporters.runtime.config import ConfigError, Section, repeated, split_address

MOST_BYTES = 65536  # of an answer that are read
SPARE_SECONDS = 0.2  # before the scrape's end, so that a failure is told and not lost

_WHOM = ("service", "kind", "target")
SUCCESS = Gauge("service_probe_success", "1: the service answered as it should. 0: it did not.", _WHOM, "the service")
SECONDS = Gauge(
    "service_probe_duration_seconds",
    "How long it took to connect and to have the answer; missing while it does not answer as it should.",
    _WHOM,
    "the service",
)
FAILED = Gauge(
    "service_probe_failed", "1, with the reason why it did not answer as it should.", (*_WHOM, "reason"), "the service"
)
EXPIRY = Gauge(
    "service_probe_certificate_expiry_timestamp_seconds",
    "Until when the certificate that it showed is valid.",
    _WHOM,
    "the service's certificate",
)
FAMILIES: tuple[Family, ...] = (SUCCESS, SECONDS, FAILED, EXPIRY)

Reason = Literal["resolve", "connect", "tls", "timeout", "protocol", "status", "body", "redirect", "not_serving"]


class ProbeError(Exception):
    """The service did not answer as it should."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"'{text}' is no regular expression ({error})") from None
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or not text.isascii() or any(character <= " " for character in text):
        raise ValueError("not an address; write http://HOST:PORT/PATH or https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ValueError("found a user or password in the address; probe something that needs none")
    return text


def _address(text: str) -> str:
    host, port = split_address(text)
    if not host or not port:
        raise ValueError(f"'{text}' is not an address to connect to; write HOST:PORT")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, AfterValidator(_address)]


class Probe(Section):
    """What every probe has. `service`: the label, as the logs and the workloads name it."""

    service: Name
    timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 2.0


class Http(Probe):
    """An answer to one HTTP request. `expect_body`: a regular expression that its first 64 KiB must contain."""

    url: Annotated[str, AfterValidator(_url)]
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    headers: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], Annotated[str, Field(pattern=r"^[ -~]*$")]] = {}
    expect_status: Annotated[list[Annotated[int, Field(ge=100, le=599)]], Field(min_length=1)] = [200]
    expect_body: Annotated[str, AfterValidator(_regex)] | None = None
    redirects: Annotated[int, Field(ge=0, le=5)] = 0  # followed at most
    ca_file: Path | None = None  # instead of the system's authorities

    @property
    def target(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


class Tcp(Probe):
    """A TCP connection that is taken; with `tls` a certificate that is valid, too."""

    address: Address
    tls: bool = False
    ca_file: Path | None = None

    @property
    def target(self) -> str:
        return self.address


class Grpc(Probe):
    """gRPC's own health check. `health_service`: of which it is asked; "" is the server as a whole."""

    address: Address
    health_service: str = ""
    tls: bool = False
    ca_file: Path | None = None

    @property
    def target(self) -> str:
        return f"{self.address}/{self.health_service}" if self.health_service else self.address


class Probes(Section):
    """Services that are asked at each scrape."""

    http: list[Http] = []
    tcp: list[Tcp] = []
    grpc: list[Grpc] = []

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [(kind, probe.service, probe.target) for kind, probe in self.all()]
        twice = repeated(names)
        if twice:
            raise ValueError(f"the {twice[0]} probe of '{twice[1]}' at {twice[2]} stands twice; remove one")
        return self

    def all(self) -> Iterator[tuple[str, Http | Tcp | Grpc]]:
        yield from (("http", probe) for probe in self.http)
        yield from (("tcp", probe) for probe in self.tcp)
        yield from (("grpc", probe) for probe in self.grpc)


@dataclass(frozen=True)
class Outcome:
    """What came of one probe. failed: why it did not succeed; expiry: of the certificate, Unix seconds."""

    seconds: float
    failed: Reason | None = None
    expiry: float | None = None


def probe_collectors(probes: Probes) -> Mapping[str, CollectFunction]:
    """One a probe. Raises ConfigError where the package for gRPC is not installed, or an authority cannot be read."""
    if probes.grpc:
        try:
            import grpc_health.v1.health_pb2_grpc  # noqa: F401 - only to say so at the start and not at each scrape
        except ImportError:
            raise ConfigError(
                ["exporters.latency.probes.grpc: needs the package grpcio-health-checking; install tidewise[grpc]"]
            ) from None
    functions = {}
    for kind, probe in probes.all():
        functions[f"probe.{probe.service}.{kind}.{probe.target}"] = _collector(kind, probe)
    return functions


def _collector(kind: str, probe: Http | Tcp | Grpc) -> CollectFunction:
    ask = cast(Callable[[Any, float], "float | None"], {"http": ask_http, "tcp": ask_tcp, "grpc": ask_grpc}[kind])
    whom = (clean(probe.service), kind, clean(probe.target))

    def collect(deadline: float) -> Iterator[Metric]:
        started = time.monotonic()
        outcome = probed(
            lambda until: ask(probe, until), min(started + probe.timeout_seconds, deadline - SPARE_SECONDS)
        )
        yield from probe_metrics(whom, outcome)

    return collect


def probed(ask: Callable[[float], float | None], until: float) -> Outcome:
    """Ask, and say how it went. What is wrong on this side (a file that is missing) is raised."""
    started = time.monotonic()
    try:
        expiry = ask(until)
        return Outcome(time.monotonic() - started, None, expiry)
    except ProbeError as error:
        return Outcome(time.monotonic() - started, error.reason)
    except TimeoutError:
        return Outcome(time.monotonic() - started, "timeout")
    except socket.gaierror:
        return Outcome(time.monotonic() - started, "resolve")
    except ssl.SSLError:
        return Outcome(time.monotonic() - started, "tls")
    except (http.client.HTTPException, UnicodeError):
        return Outcome(time.monotonic() - started, "protocol")
    except OSError:
        return Outcome(time.monotonic() - started, "connect")


def probe_metrics(whom: Sequence[str], outcome: Outcome) -> Iterator[Metric]:
    success, seconds, failed, expiry = (family.metric() for family in (SUCCESS, SECONDS, FAILED, EXPIRY))
    success.add_metric(whom, 0 if outcome.failed else 1)
    yield success
    if outcome.failed:
        failed.add_metric([*whom, outcome.failed], 1)
        yield failed
    else:
        seconds.add_metric(whom, outcome.seconds)
        yield seconds
    if outcome.expiry is not None:
        expiry.add_metric(whom, outcome.expiry)
        yield expiry


def ask_tcp(probe: Tcp, until: float) -> float | None:
    host, port = split_address(probe.address)
    with connect(host, port, until) as connection:
        if not probe.tls:
            return None
        with secured(connection, host, probe.ca_file, until) as secure:
            return expiry_of(secure)


def ask_http(probe: Http, until: float) -> float | None:
    """When the certificate of the first address expires; None without one. Raises ProbeError."""
    url, expiry = probe.url, None
    for hop in range(probe.redirects + 1):
        answer, shown = exchange(url, probe, until)
        expiry = shown if hop == 0 else expiry
        if answer.status not in (301, 302, 303, 307, 308) or answer.status in probe.expect_status:
            break
        following = urljoin(url, answer.location)
        schemes = ("https://",) if url.startswith("https://") else ("http://", "https://")
        if hop == probe.redirects or not following.startswith(schemes):
            raise ProbeError("redirect")
        try:
            url = _url(following)
        except ValueError:
            raise ProbeError("redirect") from None
    if answer.status not in probe.expect_status:
        raise ProbeError("status")
    if probe.expect_body is not None and not re.search(probe.expect_body, answer.body.decode("utf-8", "replace")):
        raise ProbeError("body")
    return expiry


@dataclass(frozen=True)
class Answer:
    """Of an HTTP server: as much of the body as was read, "" for the location where there is none."""

    status: int
    location: str
    body: bytes


def exchange(url: str, probe: Http, until: float) -> tuple[Answer, float | None]:
    """One request and its answer, and when the server's certificate expires."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    headers = {"Host": parts.netloc, "User-Agent": "tidewise-exporter", "Accept": "*/*"} | probe.headers
    lines = [f"{probe.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    lines += ["Content-Length: 0"] if probe.method == "POST" else []
    request = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    with connect(host, parts.port or (443 if secure else 80), until) as plain:
        if secure:
            with secured(plain, host, probe.ca_file, until) as connection:
                return said(connection, request, probe, until), expiry_of(connection)
        return said(plain, request, probe, until), None


def said(connection: socket.socket, request: bytes, probe: Http, until: float) -> Answer:
    """The answer to `request`, of which all is here before it is looked at: a slow one ends at `until`."""
    connection.settimeout(remaining(until))
    connection.sendall(request)
    data = b""
    while len(data) < MOST_BYTES and not _enough(data, probe):
        connection.settimeout(remaining(until))
        try:
            more = connection.recv(MOST_BYTES - len(data))
        except ssl.SSLEOFError:  # closed without TLS's own goodbye
            more = b""
        if not more:
            break
        data += more
    if not _HEAD.search(data):
        raise ProbeError("protocol")
    response = http.client.HTTPResponse(cast(socket.socket, _Said(data)), method=probe.method)
    response.begin()
    try:
        body = response.read()
    except http.client.IncompleteRead as part:
        body = part.partial
    return Answer(response.status, response.getheader("Location") or "", body)


_HEAD = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length: *(\d{1,9})\r?\n", re.IGNORECASE)


def _enough(data: bytes, probe: Http) -> bool:
    """Whether nothing more need be read. Without a length the server closes when it has said all."""
    head = _HEAD.search(data)
    if head is None or probe.expect_body is None:
        return head is not None
    length = _LENGTH.search(data[: head.end()])
    return length is not None and len(data) - head.end() >= int(length[1])


class _Said:
    """Bytes that were received, where http.client wants a connection."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def ask_grpc(probe: Grpc, until: float) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    if probe.tls:
        authorities = _read(probe.ca_file) if probe.ca_file else None
        credentials = grpc.ssl_channel_credentials(authorities)
        channel = grpc.secure_channel(probe.address, credentials, options)
    else:
        channel = grpc.insecure_channel(probe.address, options)
    with channel:
        question = health_pb2.HealthCheckRequest(service=probe.health_service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(question, timeout=remaining(until))
        except grpc.RpcError as error:
            reasons: dict[str, Reason] = {
                "DEADLINE_EXCEEDED": "timeout", "UNAVAILABLE": "connect", "NOT_FOUND": "not_serving",
            }  # fmt: skip
            raise ProbeError(reasons.get(error.code().name, "protocol")) from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ProbeError("not_serving")


def connect(host: str, port: int, until: float) -> socket.socket:
    """A connection to the first address of the host that takes one."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(remaining(until) / (len(addresses) - number))
            connection.connect(address)
            return connection
        except OSError:
            connection.close()
            if number == len(addresses) - 1:
                raise
    raise ProbeError("resolve")


def secured(connection: socket.socket, host: str, ca_file: Path | None, until: float) -> ssl.SSLSocket:
    try:
        context = trusting(ca_file, ca_file.stat().st_mtime_ns if ca_file else 0)
    except OSError as error:
        raise RuntimeError(f"ca_file {ca_file} cannot be used ({error}); it must hold certificates as PEM") from None
    connection.settimeout(remaining(until))
    return context.wrap_socket(connection, server_hostname=host)


@functools.lru_cache(maxsize=32)
def trusting(ca_file: Path | None, changed: int) -> ssl.SSLContext:
    """Reading the system's authorities takes long: it is done once, and anew where a file of one's own has changed."""
    return ssl.create_default_context(cafile=ca_file)


def _read(ca_file: Path) -> bytes:
    try:
        return ca_file.read_bytes()
    except OSError as error:
        raise RuntimeError(f"ca_file {ca_file} cannot be used ({error}); it must hold certificates as PEM") from None


def expiry_of(connection: ssl.SSLSocket) -> float | None:
    shown = connection.getpeercert()
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"]))) if shown else None


def remaining(until: float) -> float:
    """Seconds until then. Raises TimeoutError where there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
