"""The HTTP endpoint over real sockets: what Prometheus, a browser, a probe and an ill-meaning client get."""

import contextlib
import errno
import gzip
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporters.runtime import server
from exporters.runtime.endpoint import (
    SCRAPE_TIMEOUT_SECONDS,
    Endpoint,
    EndpointError,
    Request,
    Response,
    Route,
    json_response,
)
from exporters.runtime.process import process_registry


class TimeoutSeen:
    """A collector that publishes the scrape timeout it was told; -1 for none."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        seconds = SCRAPE_TIMEOUT_SECONDS.get()
        yield GaugeMetricFamily("timeout_seen", "", -1 if seconds is None else seconds)


def echo(request: Request) -> Response:
    return json_response(
        {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "type": request.headers.get("content-type"),
            "custom": request.headers.get("x-custom"),
            "body": request.body.decode(),
        },
        status=202,
    )


def broken(request: Request) -> Response:
    raise RuntimeError("secret detail")


class Client:
    """One kept-alive connection."""

    def __init__(self, address: str, source: str | None = None) -> None:
        host, _, port = address.rpartition(":")
        self.connection = http.client.HTTPConnection(
            host.strip("[]"), int(port), timeout=20, source_address=(source, 0) if source else None
        )

    def __call__(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, names)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()


@pytest.fixture(scope="module")
def state() -> dict[str, str | None]:
    return {"why_not": None}


@pytest.fixture(scope="module")
def endpoint(state: dict[str, str | None]) -> Iterator[Endpoint]:
    registry = process_registry("test")
    Counter("jobs_total", "Jobs.", ["queue"], registry=registry).labels('a"b\\c\nd').inc(3)
    registry.register(TimeoutSeen())
    endpoint = Endpoint(
        ["127.0.0.1:0", "127.0.0.1:0"],
        registry,
        process="test <1>",
        ready=lambda: state["why_not"],
        routes={("POST", "/echo"): echo, ("GET", "/broken"): broken, ("GET", "/wörter"): echo},
        landing=lambda: "<p>All is <b>well</b>.</p>",
    )
    endpoint.start()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[Client]:
    client = Client(endpoint.addresses[0])
    yield client
    client.connection.close()


def test_metrics_as_plain_text(client: Client) -> None:
    status, headers, body = client("/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parse_text(body.decode())}
    assert families["jobs"].samples[0].labels == {"queue": 'a"b\\c\nd'}
    assert families["tidewise_build_info"].samples[0].labels["process"] == "test"
    assert "process_resident_memory_bytes" in families
    assert b"_created" not in body


def test_metrics_as_openmetrics_where_the_client_prefers_them(client: Client) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    _, headers, body = client("/metrics", Accept=accept)
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["jobs"].samples[0].value == 3


def test_an_accept_header_that_makes_no_sense_gets_plain_text(client: Client) -> None:
    status, headers, _ = client("/metrics", Accept="application/openmetrics-text;version=one")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_gzip_only_where_it_is_accepted(client: Client) -> None:
    _, plain_headers, plain = client("/metrics")
    _, headers, packed = client("/metrics", Accept_Encoding="deflate, gzip")
    assert "Content-Encoding" not in plain_headers
    assert headers["Content-Encoding"] == "gzip"
    assert int(headers["Content-Length"]) == len(packed) < len(plain)
    assert gzip.decompress(packed).splitlines()[:3] == plain.splitlines()[:3]


def test_many_requests_share_one_connection(client: Client) -> None:
    client("/metrics")
    first = client.connection.sock
    for path in ("/", "/-/healthy", "/nothing", "/metrics", "/broken"):
        client(path)
    assert client.connection.sock is first


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        pytest.param({"X_Prometheus_Scrape_Timeout_Seconds": "7.5"}, 7.5, id="as Prometheus sends it"),
        pytest.param({}, -1, id="no header: unknown"),
        pytest.param({"X_Prometheus_Scrape_Timeout_Seconds": "soon"}, -1, id="no number: unknown"),
        pytest.param({"X_Prometheus_Scrape_Timeout_Seconds": "nan"}, -1, id="NaN: unknown"),
        pytest.param({"X_Prometheus_Scrape_Timeout_Seconds": "-1"}, -1, id="negative: unknown"),
    ],
)
def test_the_scrape_timeout_reaches_the_collectors(client: Client, header: dict[str, str], seen: float) -> None:
    _, _, body = client("/metrics", **header)
    assert f"timeout_seen {float(seen)}\n".encode() in body


def test_head_is_get_without_the_body(client: Client) -> None:
    for path in ("/metrics", "/", "/-/healthy"):
        status, headers, body = client(path, "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0


def test_health_and_readiness(client: Client, state: dict[str, str | None]) -> None:
    assert client("/-/healthy")[::2] == (200, b"healthy\n")
    assert client("/-/ready")[::2] == (200, b"ready\n")
    state["why_not"] = "no data for <5 minutes"
    try:
        assert client("/-/ready")[::2] == (503, b"not ready: no data for <5 minutes\n")
        assert b"not ready: no data for &lt;5 minutes" in client("/")[2]
        assert client("/-/healthy")[0] == 200
    finally:
        state["why_not"] = None


def test_the_landing_page_names_the_process_and_links_what_can_be_got(client: Client) -> None:
    status, headers, body = client("/")
    page = body.decode()
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>test &lt;1&gt;</h1>" in page
    assert "<p>All is <b>well</b>.</p>" in page
    assert re.findall(r'href="([^"]+)"', page) == ["/-/healthy", "/-/ready", "/broken", "/metrics", "/wörter"]


def test_a_route_gets_the_request_and_gives_the_response(client: Client) -> None:
    status, headers, body = client(
        "/echo?a=1&b=%C3%A4&b=z&empty=", "POST", "Größe".encode(), Content_Type="text/plain", X_Custom="yes"
    )
    assert (status, headers["Content-Type"]) == (202, "application/json")
    assert json.loads(body) == {
        "method": "POST",
        "path": "/echo",
        "query": {"a": "1", "b": "z", "empty": ""},
        "type": "text/plain",
        "custom": "yes",
        "body": "Größe",
    }
    assert json.loads(client("/w%C3%B6rter")[2])["path"] == "/wörter"


def test_a_path_that_ends_in_an_asterisk_is_that_of_everything_below_it_and_of_no_more() -> None:
    def named(name: str) -> Route:
        return lambda request: Response(body=f"{name} {request.path}")

    below = {("GET", "/a/*"): named("a"), ("GET", "/a/b/*"): named("b"), ("GET", "/a/c"): named("c")}
    endpoint = Endpoint(["127.0.0.1:0"], CollectorRegistry(), process="x", ready=lambda: None, routes=below)
    endpoint.start()
    client = Client(endpoint.addresses[0])
    try:
        answered = {path: client(path) for path in ("/a/x", "/a/x/y", "/a/b/x", "/a/c", "/a", "/ab/x", "/")}
    finally:
        client.connection.close()
        endpoint.stop()
    assert {path: body.decode() for path, (status, _, body) in answered.items() if status == 200 and path != "/"} == {
        "/a/x": "a /a/x",
        "/a/x/y": "a /a/x/y",
        "/a/b/x": "b /a/b/x",
        "/a/c": "c /a/c",
    }
    assert b"*" not in answered["/"][2]  # nobody can follow such a link


def test_a_path_that_is_not_there_is_told_what_is(client: Client) -> None:
    status, _, body = client("/metric")
    assert status == 404
    assert body.decode() == (
        "/metric: nothing here; this process answers /, /-/healthy, /-/ready, /broken, /echo, /metrics, /wörter\n"
    )


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/metrics", "GET, HEAD"), ("DELETE", "/", "GET, HEAD"), ("GET", "/echo", "POST")],
)
def test_a_method_that_is_not_allowed_is_told_which_is(client: Client, method: str, path: str, allowed: str) -> None:
    status, headers, body = client(path, method)
    assert (status, headers["Allow"]) == (405, allowed)
    assert body.decode() == f"{path}: {method} is not allowed; use {allowed}\n"


def test_an_error_in_a_route_is_500_and_tells_nothing(client: Client) -> None:
    assert client("/broken")[::2] == (500, b"internal error; the process's log has it\n")
    assert client("/-/healthy")[0] == 200


def test_every_address_serves_the_same(endpoint: Endpoint) -> None:
    first, second = endpoint.addresses
    assert first != second
    assert Client(first)("/-/healthy")[0] == Client(second)("/-/healthy")[0] == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6() -> None:
    endpoint = Endpoint(["[::1]:0"], CollectorRegistry(), process="six", ready=lambda: None)
    endpoint.start()
    try:
        assert endpoint.addresses[0].startswith("[::1]:")
        assert Client(endpoint.addresses[0])("/-/healthy")[0] == 200
    finally:
        endpoint.stop()


def test_an_empty_host_is_every_interface() -> None:
    endpoint = Endpoint([":0"], CollectorRegistry(), process="all", ready=lambda: None)
    endpoint.start()
    try:
        port = endpoint.addresses[0].rpartition(":")[2]
        assert Client(f"127.0.0.1:{port}")("/-/healthy")[0] == 200
    finally:
        endpoint.stop()


def test_a_port_in_use_is_said_and_the_other_addresses_are_given_back(endpoint: Endpoint) -> None:
    taken = endpoint.addresses[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    second = Endpoint([free, taken], CollectorRegistry(), process="second", ready=lambda: None)
    with pytest.raises(EndpointError) as refused:
        second.start()
    assert str(refused.value) == (
        f"{taken}: the address is in use; stop the process that has it or listen on another port"
    )
    assert second.addresses == []
    again = Endpoint([free], CollectorRegistry(), process="again", ready=lambda: None)
    again.start()
    again.stop()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("localhost", "'localhost' is not an address; write HOST:PORT, for example 127.0.0.1:9811 or [::1]:9811"),
        ("127.0.0.1:99999", "'127.0.0.1:99999' is not an address; write HOST:PORT, for example "),
        ("::1:9811", "'::1:9811': an IPv6 address needs brackets, for example [::1]:9811"),
        ("192.0.2.1:0", "192.0.2.1:0: this machine has no such address; listen on 127.0.0.1, 0.0.0.0 or "),
    ],
)
def test_an_address_that_cannot_be_had_is_a_sentence(address: str, sentence: str) -> None:
    with pytest.raises(EndpointError) as refused:
        Endpoint([address], CollectorRegistry(), process="x", ready=lambda: None).start()
    assert str(refused.value).startswith(sentence)


def raw(address: str, request: bytes, patience: float = 5.0) -> bytes:
    """What comes back for bytes that no proper client would send; the server closes the connection."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"POST /echo HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", b"413", id="a body above 1 MiB"),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"411", id="chunks"
        ),
        pytest.param(b"POST /echo HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400", id="a negative length"),
        pytest.param(b"POST /echo HTTP/1.1\r\nContent-Length: ten\r\n\r\n", b"400", id="a length in words"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", b"413", id="endless headers"),
        pytest.param(b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n", b"414", id="an endless address"),
        pytest.param(b"hello\r\n\r\n", b"400", id="no HTTP at all"),
        pytest.param(b"GET //[x HTTP/1.1\r\n\r\n", b"400", id="a host with one bracket"),
        pytest.param(b"GET / HTTP/1.1\r\n x\r\n\r\n", b"400", id="the continuation of no header"),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nContent-Length : 5\r\n\r\nhello", b"400", id="white space before the colon"
        ),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nContent-Length: 38\r\nContent-Length: 0\r\n\r\n"
            b"GET /-/healthy HTTP/1.1\r\nHost: here\r\n\r\n",
            b"400",
            id="two lengths",
        ),
        pytest.param(
            b"POST /echo HTTP/1.0\r\nConnection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"GET /-/healthy HTTP/1.1\r\nHost: here\r\n\r\n",
            b"411",
            id="chunks in HTTP 1.0",
        ),
    ],
)
def test_a_request_that_is_no_request_is_refused_and_the_connection_closed(
    endpoint: Endpoint, client: Client, capsys: pytest.CaptureFixture[str], request_bytes: bytes, status: bytes
) -> None:
    answer = raw(endpoint.addresses[0], request_bytes)
    assert answer.split(b" ")[1] == status
    assert answer.count(b"HTTP/1.") == 1, "nothing of the body is taken for a second request"
    assert client("/-/healthy")[0] == 200
    assert "Traceback" not in "".join(capsys.readouterr()), "what a client does wrong is no news"


def test_a_header_that_only_looks_like_a_length_is_none(endpoint: Endpoint) -> None:
    answer = raw(endpoint.addresses[0], b"GET /-/healthy HTTP/1.1\r\nContent_Length: abc\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] == b"200"


def test_a_body_that_breaks_off_is_an_error_and_reaches_no_route(endpoint: Endpoint) -> None:
    host, _, port = endpoint.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536).split(b" ")[1] == b"400"


def test_silent_and_dripping_clients_hold_nobody_up(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.6)
    host, _, port = endpoint.addresses[0].rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(3 * server.THREADS)]
    dripping = [socket.create_connection((host, int(port))) for _ in range(server.THREADS)]
    for connection in dripping:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
    done = threading.Event()

    def drip() -> None:
        while not done.wait(0.1):
            for connection in dripping:
                try:
                    connection.sendall(b"X: y\r\n")
                except OSError:
                    continue

    dripper = threading.Thread(target=drip)
    dripper.start()
    try:
        started = time.monotonic()
        assert Client(endpoint.addresses[0])("/-/healthy")[0] == 200
        assert time.monotonic() - started < 5, "each byte in time is not enough: the request has one deadline"
    finally:
        done.set()
        dripper.join()
        for connection in (*silent, *dripping):
            connection.close()


def test_a_clock_that_is_set_back_does_not_lengthen_the_patience_with_silent_clients(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.1)
    host, _, port = endpoint.addresses[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as silent:
        earlier = time.time() - 3600
        monkeypatch.setattr(time, "time", lambda: earlier)
        assert silent.recv(1) == b"", "the server hangs up"


def test_threads_come_when_all_are_busy_what_cannot_wait_is_refused_and_other_addresses_are_served() -> None:
    gate = threading.Event()

    def hang(request: Request) -> Response:
        gate.wait(30)
        return Response(body="at last\n")

    endpoint = Endpoint(
        ["127.0.0.1:0"],
        CollectorRegistry(),
        process="x",
        ready=lambda: None,
        routes={("GET", "/hang"): hang},
        max_requests=1,
    )
    endpoint.start()
    (running,) = endpoint._servers
    assert running.requests._started == server.THREADS
    share = running.requests.max - server.THREADS_FOR_OTHERS
    clients = [Client(endpoint.addresses[0]) for _ in range(share + server.WAITING_REQUESTS + 5)]
    try:
        for client in clients[: share - 1]:
            client.connection.request("GET", "/hang")
        assert Client(endpoint.addresses[0])("/-/healthy")[0] == 200, "a probe gets a thread of its own"
        for client in clients[share - 1 :]:
            client.connection.request("GET", "/hang")
            time.sleep(0.002)  # in this order
        last = clients[-1].connection.getresponse()
        assert last.status == 503
        assert endpoint._refusals._counts["connections"] == 5
        assert running.requests._started == share
        assert Client(endpoint.addresses[0], source="127.0.0.2")("/-/healthy")[0] == 200
        gate.set()
        for client in (clients[0], clients[share + server.WAITING_REQUESTS - 1]):  # one that ran, one that waited
            response = client.connection.getresponse()
            assert (response.status, response.read()) == (200, b"at last\n")
    finally:
        gate.set()
        endpoint.stop()


def test_where_the_system_gives_no_more_threads_those_that_are_there_do_the_work(
    endpoint: Endpoint, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client("/-/healthy")[0] == 200
    running = endpoint._servers[0].requests
    before = running._started

    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(running, "_spawn_worker", refuse)
        running._taken["192.0.2.1"] = before  # as if all were busy
        assert client("/-/healthy")[0] == 200
    assert running._started == before
    assert client("/-/healthy")[0] == 200
    del running._taken["192.0.2.1"]
    assert running._started == before + 1, "once there are threads again, it takes one"


def test_more_connections_than_may_be_are_closed_and_the_others_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 5)
    registry = CollectorRegistry()
    endpoint = Endpoint(["127.0.0.1:0"], registry, process="x", ready=lambda: None)
    endpoint.start()
    host, _, port = endpoint.addresses[0].rpartition(":")
    client = Client(endpoint.addresses[0])
    assert client("/-/healthy")[0] == 200
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(8)]
    try:
        assert [connection.recv(1) for connection in silent[5:]] == [b""] * 3
        assert client("/-/healthy")[0] == 200
        counted = registry.get_sample_value("tidewise_web_refused_total", {"reason": "connections"})
        assert counted in (3, 4), "one of them may have come when the client's had not been put back yet"
    finally:
        for connection in silent:
            connection.close()
        endpoint.stop()


def test_an_address_that_holds_many_connections_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_OF_ONE", 5)
    endpoint = Endpoint(["127.0.0.1:0"], CollectorRegistry(), process="x", ready=lambda: None)
    endpoint.start()
    host, _, port = endpoint.addresses[0].rpartition(":")
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(8)]
    try:
        assert [connection.recv(1) for connection in silent[5:]] == [b""] * 3
        for _ in range(2):
            assert Client(endpoint.addresses[0], source="127.0.0.2")("/-/healthy")[0] == 200
    finally:
        for connection in silent:
            connection.close()
        endpoint.stop()


def test_where_no_descriptor_is_left_new_connections_wait_and_the_log_hears_of_it_once(
    endpoint: Endpoint, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = endpoint._servers[0].socket
    attempts = []

    class Starved:
        def accept(self) -> None:
            attempts.append(time.monotonic())
            raise OSError(errno.EMFILE, "Too many open files")

    real = listening.sock
    assert client("/-/healthy")[0] == 200
    with structlog.testing.capture_logs() as log:
        monkeypatch.setattr(listening, "sock", Starved())
        waiting = Client(endpoint.addresses[0])
        waiting.connection.request("GET", "/-/healthy")
        while len(attempts) < 3:
            time.sleep(0.01)
        assert attempts[2] - attempts[0] >= 2 * server.STARVED_SECONDS
        assert client("/-/healthy")[0] == 200, "those that are there are served"
        monkeypatch.setattr(listening, "sock", real)
        assert waiting.connection.getresponse().status == 200
    assert [entry["event"] for entry in log] == ["http_no_descriptor"]


def test_stopping_frees_the_port_and_does_not_wait_for_a_request_that_hangs() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hang(request: Request) -> Response:
        entered.set()
        gate.wait(30)
        return Response()

    endpoint = Endpoint(
        ["127.0.0.1:0"], CollectorRegistry(), process="x", ready=lambda: None, routes={("GET", "/hang"): hang}
    )
    endpoint.start()
    address = endpoint.addresses[0]

    def ask() -> None:
        with contextlib.suppress(http.client.HTTPException, OSError):  # cut off, as it should be
            Client(address)("/hang")

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    assert entered.wait(5)
    started = time.monotonic()
    endpoint.stop()
    assert time.monotonic() - started < 4
    assert endpoint.addresses == []
    gate.set()
    asker.join(10)
    with pytest.raises(ConnectionRefusedError):
        Client(address)("/-/healthy")
