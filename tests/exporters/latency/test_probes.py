"""Probes against servers that answer, answer wrongly, slowly, or not at all; and what a configuration may say."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exporters.collector import CollectFunction, Collectors
from exporters.config import exporters_model
from exporters.latency import collectors
from exporters.runtime.config import ConfigError, validate
from tests.exporters.authority import Authority


def configured(section: Mapping[str, Any]) -> Mapping[str, CollectFunction]:
    """The collect functions for an `exporters.latency` section."""
    exporters: Any = validate(exporters_model(["latency"]), {"latency": section}, Path("t.yaml"), ("exporters",))
    return collectors(exporters.latency)


class Handler(BaseHTTPRequestHandler):
    """Answers as its path says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        part = self.path.split("/")
        status = int(part[2]) if part[1] == "status" else 302 if part[1] == "to" else 200
        body = b"all is well" + b"." * (100_000 if part[1] == "long" else 0)
        self.send_response(status)
        if part[1] == "to":
            self.send_header("Location", {"self": "/", "away": "ftp://h/", "plain": "http://127.0.0.1:9/"}[part[2]])
        if part[1] == "host":
            body = (self.headers["Host"] or "").encode()
        if part[1] == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"4\r\nall \r\n7\r\nis well\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names that http.server asks for

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # a client that leaves in the middle is no news here


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    with serving(Server(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("probes"))


@pytest.fixture(scope="module")
def https(authority: Authority) -> Iterator[int]:
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as port:
        yield port


class serving:  # noqa: N801 - reads as what it does
    """A server in a thread of its own."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """A port on which each connection is given to a function."""
    listening: list[socket.socket] = []

    def listen(answer: Callable[[socket.socket], None]) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(server.getsockname()[1])

    yield listen
    for server in listening:
        server.close()


def outcome(kind: str, **probe: Any) -> tuple[float, str | None]:
    """(success, why not) of one probe of the service `shop`."""
    samples = asked(kind, **probe)
    reason = next((labels["reason"] for name, labels, _ in samples if name == "service_probe_failed"), None)
    success = next(value for name, _, value in samples if name == "service_probe_success")
    timed = any(name == "service_probe_duration_seconds" for name, _, _ in samples)
    assert timed == (success == 1)
    return success, reason


def asked(kind: str, *, seconds: float = 5.0, **probe: Any) -> list[tuple[str, dict[str, str], float]]:
    [collect] = configured({"probes": {kind: [{"service": "shop", **probe}]}}).values()
    metrics = collect(time.monotonic() + seconds)
    return [(sample.name, sample.labels, sample.value) for metric in metrics for sample in metric.samples]


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        pytest.param("/", {}, (1, None), id="as it should"),
        pytest.param("", {}, (1, None), id="an address without a path"),
        pytest.param("/status/500", {}, (0, "status"), id="another status"),
        pytest.param("/status/204", {"expect_status": [200, 204]}, (1, None), id="one of several statuses"),
        pytest.param("/", {"expect_body": "is we.l$"}, (1, None), id="a body as it should be"),
        pytest.param("/chunked", {"expect_body": "^all is well$"}, (1, None), id="a body in pieces"),
        pytest.param("/", {"expect_body": "broken"}, (0, "body"), id="another body"),
        pytest.param("/long", {"expect_body": r"\.{60000}$"}, (1, None), id="a long body, of which 64 KiB are read"),
        pytest.param("/", {"method": "HEAD"}, (1, None), id="HEAD"),
        pytest.param("/", {"method": "POST"}, (1, None), id="POST"),
        pytest.param("/host", {"headers": {"Host": "x.example"}, "expect_body": "^x.example$"}, (1, None), id="Host"),
        pytest.param("/to/self", {}, (0, "redirect"), id="a redirect that nobody asked to follow"),
        pytest.param("/to/self", {"expect_status": [302]}, (1, None), id="a redirect that is expected"),
        pytest.param("/to/self", {"redirects": 1}, (1, None), id="a redirect that is followed"),
        pytest.param("/to/away", {"redirects": 5}, (0, "redirect"), id="a redirect to no web page"),
    ],
)
def test_an_http_server_that_answers(
    http: str, path: str, more: dict[str, Any], expected: tuple[float, str | None]
) -> None:
    assert outcome("http", url=http + path, **more) == expected


def send(data: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(data)

    return answer


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "protocol"), (b"\x16\x03\x01\x00", "protocol"), (b"HTTP/1.1 200 OK\r\nA: b", "protocol"),
     (b"\xff" * 100_000, "protocol"), (b"HTTP/1.1 9999 x\r\n\r\n", "protocol"), (b"HTTP/1.1 200 OK\r\n\r\n", None)],
    ids=["nothing", "no HTTP", "half a head", "endless bytes", "a status that is none", "the least there is"],
)  # fmt: skip
def test_an_http_server_that_says_something_else(raw: Any, data: bytes, reason: str | None) -> None:
    assert outcome("http", url=f"http://127.0.0.1:{raw(send(data))}") == (0 if reason else 1, reason)


def drip(connection: socket.socket) -> None:
    """An answer that never ends, byte by byte."""
    with connection:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                connection.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            return


def test_a_server_that_drips_or_is_silent_is_given_up_in_time_and_hinders_no_other(raw: Any, http: str) -> None:
    silent = raw(lambda connection: time.sleep(3))
    functions = configured(
        {
            "probes": {
                "http": [
                    {"service": "drips", "url": f"http://127.0.0.1:{raw(drip)}/", "timeout_seconds": 0.3},
                    {"service": "silent", "url": f"http://127.0.0.1:{silent}/", "timeout_seconds": 0.3},
                    {"service": "sound", "url": f"{http}/"},
                ],
                "tcp": [{"service": "open", "address": f"127.0.0.1:{silent}"}],
            }
        }
    )
    started = time.monotonic()
    samples = [sample for metric in Collectors(functions).collect() for sample in metric.samples]
    assert time.monotonic() - started < 2.5
    success = {each.labels["service"]: each.value for each in samples if each.name == "service_probe_success"}
    reasons = {each.labels["service"]: each.labels["reason"] for each in samples if each.name == "service_probe_failed"}
    assert success == {"drips": 0, "silent": 0, "sound": 1, "open": 1}
    assert reasons == {"drips": "timeout", "silent": "timeout"}


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_nobody_listens() -> None:
    assert outcome("http", url=f"http://127.0.0.1:{closed_port()}") == (0, "connect")
    assert outcome("tcp", address=f"127.0.0.1:{closed_port()}") == (0, "connect")


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert outcome("tcp", address="shop.invalid:80") == (0, "resolve")


def test_a_certificate_is_checked_and_its_end_is_shown(https: int, authority: Authority) -> None:
    trusted = {"url": f"https://127.0.0.1:{https}/", "ca_file": str(authority.ca_file)}
    assert outcome("http", **trusted) == (1, None)
    assert outcome("http", url=f"https://127.0.0.1:{https}/") == (0, "tls")
    [expiry] = [value for name, _, value in asked("http", **trusted) if name.endswith("expiry_timestamp_seconds")]
    assert 0 < expiry - time.time() <= 86_400
    assert outcome("http", url=f"https://127.0.0.1:{https}/to/plain", redirects=3, ca_file=trusted["ca_file"]) == (
        0,
        "redirect",  # never from https to http
    )
    assert outcome("tcp", address=f"127.0.0.1:{https}", tls=True, ca_file=trusted["ca_file"]) == (1, None)
    assert outcome("tcp", address=f"127.0.0.1:{https}", tls=True) == (0, "tls")
    with pytest.raises(RuntimeError, match=r"ca_file nowhere.crt cannot be used .*; it must hold certificates as PEM"):
        asked("tcp", address=f"127.0.0.1:{https}", tls=True, ca_file="nowhere.crt")


@pytest.mark.real
def test_a_grpc_server_says_how_it_is(authority: Authority) -> None:
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    certificate, key = authority.issue("grpc")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    secure = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        assert outcome("grpc", address=address) == (1, None)
        assert outcome("grpc", address=address, health_service="shop.Orders") == (0, "not_serving")
        servicer.set("shop.Orders", health_pb2.HealthCheckResponse.SERVING)
        assert outcome("grpc", address=address, health_service="shop.Orders") == (1, None)
        servicer.set("shop.Orders", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert outcome("grpc", address=address, health_service="shop.Orders") == (0, "not_serving")
        assert outcome("grpc", address=secure, tls=True, ca_file=str(authority.ca_file)) == (1, None)
        assert outcome("grpc", address=secure, tls=True) == (0, "connect")
    finally:
        server.stop(None)
    assert outcome("grpc", address=f"127.0.0.1:{closed_port()}") == (0, "connect")


def test_a_grpc_server_that_is_silent_is_given_up_in_time(raw: Any) -> None:
    port = raw(lambda connection: time.sleep(3))
    assert outcome("grpc", address=f"127.0.0.1:{port}", timeout_seconds=0.3)[0] == 0


LOG = {"path": "/l", "service": "a"}


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        pytest.param({"logs": [{"path": "/l"}]}, "logs.0: name the service of its lines: service, or service_from for "
                     "what tells it in each line", id="no service"),
        pytest.param({"logs": [LOG, LOG]}, "logs: the log /l stands twice; its lines would count twice", id="twice"),
        pytest.param({"logs": [LOG | {"format": "apache"}]}, "logs.0.format: found 'apache'; it must be 'nginx', "
                     "'haproxy' or 'json'", id="an unknown format"),
        pytest.param({"logs": [LOG | {"log_format": "$status"}]}, "logs.0: log_format: has no $request_time; add it "
                     "here and in nginx's log_format", id="a log_format without times"),
        pytest.param({"logs": [LOG | {"format": "json", "log_format": "$status"}]}, "logs.0: log_format is nginx's; "
                     "the format here is json", id="a log_format of another format"),
        pytest.param({"logs": [LOG | {"fields": {}}]}, "logs.0: fields are of JSON lines; the format here is nginx",
                     id="fields of another format"),
        pytest.param({"logs": [{"path": "/l", "format": "haproxy", "service_from": "host"}]}, "logs.0: service_from: "
                     "found 'host'; HAProxy's lines name a frontend, a backend and a server", id="no such part"),
        pytest.param({"logs": [LOG | {"routes": ["videos"]}]}, "logs.0: 'videos': a route begins with a slash, for "
                     "example /videos/{id}", id="a route that is none"),
        pytest.param({"buckets": [1, 0.5]}, "buckets: found [1.0, 0.5]; upper bounds rise, for example "
                     "[0.1, 0.5, 1, 5]", id="buckets that fall"),
        pytest.param({"state_folder": "/dev/null/x"}, None, id="a state folder that nobody needs"),
        pytest.param({"state_folder": "/dev/null/x", "logs": [LOG]}, "state_folder: /dev/null/x cannot be made "
                     "(Not a directory)", id="a state folder that is none"),
        pytest.param({"probes": {"http": [{"service": "a", "url": "http://u:secret@h/"}]}}, "probes.http.0.url: found "
                     "a user or password in the address; probe something that needs none", id="a password"),
        pytest.param({"probes": {"http": [{"service": "a", "url": "h:80"}]}}, "probes.http.0.url: not an address; "
                     "write http://HOST:PORT/PATH or https://HOST/PATH", id="no URL"),
        pytest.param({"probes": {"http": [{"service": "a", "url": "http://h", "expect_body": "("}]}},
                     "probes.http.0.expect_body: '(' is no regular expression (missing ), unterminated subpattern at "
                     "position 0)", id="no regular expression"),
        pytest.param({"probes": {"tcp": [{"service": "a", "address": ":80"}]}}, "probes.tcp.0.address: ':80' is not "
                     "an address to connect to; write HOST:PORT", id="no host"),
        pytest.param({"probes": {"tcp": [{"service": "a", "address": "h:1"}] * 2}}, "probes: the tcp probe of 'a' at "
                     "h:1 stands twice; remove one", id="a probe twice"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_work_is_said(section: dict[str, Any], sentence: str | None) -> None:
    if sentence is None:
        assert configured(section) == {}
        return
    with pytest.raises(ConfigError) as refused:
        configured(section)
    assert str(refused.value).removeprefix("t.yaml: ") == f"exporters.latency.{sentence}"


def test_nothing_is_configured_and_nothing_is_shown() -> None:
    assert configured({}) == {}
