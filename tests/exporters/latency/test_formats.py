"""Lines of access logs and what they say; routes; and that no bytes whatever are too much for them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.labels import OTHER, Cap
from exporters.latency.counts import Requests, code_class, failure
from exporters.latency.formats import Format, HAProxy, Json, JsonFields, Nginx, Request
from exporters.latency.routes import Routes, template

NGINX, HAPROXY, JSON = Nginx(), HAProxy("backend"), Json(JsonFields())
TIMED = '10.0.0.1 - {user} [27/Nov/2026:03:49:04 +0000] "{request}" {status} 3 "-" "a b" {seconds}'
SYSLOG = "Nov 27 03:49:04 lb haproxy[812]: "
TCPLIKE = "{at}10.0.0.1:54326 [27/Nov/2026:03:49:04.740] fe~ shop/s1 0/0/0/1/{ms} {status} 125 - - {end} 1/1/0/0/0 0/0 "


def nginx(request: str = "GET / HTTP/1.1", status: str = "200", seconds: str = "0.100", user: str = "-") -> str:
    return TIMED.format(request=request, status=status, seconds=seconds, user=user)


def haproxy(
    request: str = '"GET / HTTP/1.1"', status: str = "200", ms: str = "100", end: str = "----", at: str = ""
) -> str:
    return TCPLIKE.format(status=status, ms=ms, end=end, at=at) + request


def found(lines: Format, line: str | bytes) -> tuple[Request, float | None] | None:
    block = (line if isinstance(line, bytes) else line.encode()) + b"\n"
    rows = list(lines.read(block))
    assert len(rows) <= 1
    return (lines.explain(rows[0][0]), rows[0][1]) if rows else None


GET = Request(200, "GET", "/")
SHOP = Request(200, "GET", "/", "shop")


@pytest.mark.parametrize(
    ("lines", "line", "request_", "seconds"),
    [
        pytest.param(NGINX, nginx(), GET, 0.1, id="nginx"),
        pytest.param(NGINX, nginx() + "\r", GET, 0.1, id="nginx, a line's end as on Windows"),
        pytest.param(NGINX, nginx(user="john [x] doe"), GET, 0.1, id="nginx, a user with blanks and brackets"),
        pytest.param(NGINX, nginx("GET /a b HTTP/1.1"), Request(200, "GET", "/a b"), 0.1, id="nginx, a blank in it"),
        pytest.param(NGINX, nginx("GET /"), GET, 0.1, id="nginx, HTTP/0.9"),
        pytest.param(NGINX, nginx(r"\x16\x03\x01", "400"), Request(400), 0.1, id="nginx, TLS spoken to a plain port"),
        pytest.param(NGINX, nginx("", "400"), Request(400), 0.1, id="nginx, no request"),
        pytest.param(NGINX, nginx(status="499"), Request(None, "GET", "/", "", "C"), 0.1, id="nginx, the client left"),
        pytest.param(NGINX, nginx(status="444"), Request(None, "GET", "/"), 0.1, id="nginx, closed without an answer"),
        pytest.param(NGINX, nginx(status="000"), Request(None, "GET", "/"), 0.1, id="nginx, no status"),
        pytest.param(
            Nginx('{"t":$request_time,"s":$status,"u":"$request_uri","m":"$request_method","h":"${host}"}', "host"),
            '{"t":1.5,"s":201,"u":"/x?y","m":"PUT","h":"shop.example"}',
            Request(201, "PUT", "/x?y", "shop.example"),
            1.5,
            id="nginx, a format of one's own",
        ),
        pytest.param(HAPROXY, haproxy(), SHOP, 0.1, id="HAProxy"),
        pytest.param(HAPROXY, haproxy(at=SYSLOG), SHOP, 0.1, id="HAProxy through syslog"),
        pytest.param(HAPROXY, haproxy(ms="+100"), SHOP, 0.1, id="HAProxy, logged before its end"),
        pytest.param(HAPROXY, haproxy('{a|b: c} {} "GET / HTTP/1.1"'), SHOP, 0.1, id="HAProxy, captured headers"),
        pytest.param(HAPROXY, haproxy('"GET / HTTP/1.1" 0/0/0/0/0 a/TLSv1.3/b'), SHOP, 0.1, id="HAProxy, httpslog"),
        pytest.param(HAPROXY, haproxy('"GET /cut'), Request(200, "GET", "/cut", "shop"), 0.1, id="HAProxy, cut off"),
        pytest.param(HAPROXY, haproxy('"<BADREQ>"', "400", "-1", "CR--"), Request(400, "", "", "shop", "C"), None,
                     id="HAProxy, no request and no time"),
        pytest.param(HAPROXY, haproxy(status="-1", end="CH--"), Request(None, "GET", "/", "shop", "C"), 0.1,
                     id="HAProxy, the client left"),
        pytest.param(HAPROXY, haproxy(status="504", end="sH--"), Request(504, "GET", "/", "shop", "s"), 0.1,
                     id="HAProxy, the server was too slow"),
        pytest.param(HAProxy("frontend"), haproxy(), Request(200, "GET", "/", "fe"), 0.1, id="HAProxy, TLS' tilde"),
        pytest.param(JSON, '{"status": 200, "request_time": 0.1, "uri": "/", "method": "GET"}', GET, 0.1, id="JSON"),
        pytest.param(JSON, '{"status": "200", "request_time": "0.1", "uri": 7}', Request(200), 0.1, id="JSON, texts"),
        pytest.param(
            Json(JsonFields("status", "duration", "request.uri", "request.method", "request.host", 1e-3)),
            '{"request": {"host": "shop", "uri": "/", "method": "GET"}, "status": 200, "duration": 100}',
            SHOP,
            0.1,
            id="JSON, fields inside of fields and milliseconds",
        ),
    ],
)  # fmt: skip
def test_what_a_line_says(lines: Format, line: str, request_: Request, seconds: float | None) -> None:
    assert found(lines, line) == (request_, None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        pytest.param(NGINX, "", id="an empty line"),
        pytest.param(NGINX, nginx(seconds="-"), id="nginx, no time"),
        pytest.param(NGINX, nginx(seconds="nan"), id="nginx, a time that is none"),
        pytest.param(NGINX, nginx().rpartition(" ")[0], id="nginx, without the time"),
        pytest.param(NGINX, nginx() + " more", id="nginx, more than the format"),
        pytest.param(NGINX, nginx(status="20"), id="nginx, a status that is none"),
        pytest.param(NGINX, haproxy(), id="another server's"),
        pytest.param(HAPROXY, nginx(), id="another server's, to HAProxy"),
        pytest.param(HAPROXY, SYSLOG + "Server shop/s1 is DOWN, reason: Layer4 timeout.", id="HAProxy, an event"),
        pytest.param(HAPROXY, haproxy(ms="1" * 13), id="HAProxy, a time of thousands of years"),
        pytest.param(JSON, "[200, 0.1]", id="JSON, no object"),
        pytest.param(JSON, '{"status": 200}', id="JSON, no time"),
        pytest.param(JSON, '{"status": true, "request_time": 0.1}', id="JSON, a status that is none"),
        pytest.param(JSON, '{"status": 200, "request_time": NaN}', id="JSON, no number"),
        pytest.param(JSON, '{"status": 200, "request_time": -1}', id="JSON, less than no time"),
        pytest.param(JSON, '{"status": 1e999, "request_time": 1}', id="JSON, too large a number"),
        pytest.param(JSON, '{"status": {"a": 1}, "request_time": 1}', id="JSON, an object where a number should be"),
        pytest.param(JSON, "[" * 100_000, id="JSON too deep to read"),
        pytest.param(JSON, '{"status": 200, "request_time": ' + "9" * 5000 + "}", id="JSON, a number of 5000 digits"),
    ],
)
def test_what_is_no_request_of_that_format(lines: Format, line: str) -> None:
    assert found(lines, line) is None


@pytest.mark.parametrize(
    ("log_format", "problem"),
    [
        ("$remote_addr $status", r"has no \$request_time; add it here and in nginx's log_format"),
        ("$request_time", r"has no \$status"),
        ("$status$request_time", r"\$status and what follows cannot be told apart; put a character between them"),
    ],
)
def test_a_log_format_that_cannot_do(log_format: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Nginx(log_format)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/videos", "/videos"),
        ("/api/v1/oauth2/token", "/api/v1/oauth2/token"),
        ("/videos/17", "/videos/:id"),
        ("/videos/17/parts/3.5", "/videos/:id/parts/:id"),
        ("/users/3f2504e0-4f89-11d3-9a0c-0305e82c3301/", "/users/:id/"),
        ("/commits/deadbeef0", "/commits/:id"),
        ("/facade", "/facade"),
        ("/blobs/dGhpcyBpcyBhIHRva2VuIDE", "/blobs/:id"),
        ("/reports/2026-11-27", "/reports/:date"),
        ("/reports/20261127T034904Z", "/reports/:date"),
        ("/images/IMG_20431.jpg", "/images/:id"),
        ("/a" * 12, "/a" * 8 + "/*"),
    ],
)
def test_what_differs_from_request_to_request_is_no_part_of_a_route(path: str, route: str) -> None:
    assert template(path) == route


def routes(most: int = 3, *declared: str, methods: bool = False) -> Routes:
    return Routes(Cap("test", "route", most), declared, methods=methods)


def test_declared_routes_come_first_and_in_their_order() -> None:
    route = routes(9, "/videos/latest", "/videos/{id}", "/v/{a}-{b}.ts", "/files/*")
    paths = ("/videos/latest", "/videos/cats?size=2", "/videos/cats/parts", "/v/x-y.ts", "/files/a/b/c", "/files")
    assert [route("GET", path, 200) for path in paths] == [
        "/videos/latest", "/videos/{id}", "/videos/cats/parts", "/v/{a}-{b}.ts", "/files/*", "/files",
    ]  # fmt: skip


@pytest.mark.parametrize("declared", ["videos", "/a/{b", "/a/*/b", "/a?b={c}", "/{}"])
def test_a_route_that_is_none(declared: str) -> None:
    with pytest.raises(ValueError, match="route"):
        routes(3, declared)


def test_addresses_that_the_service_does_not_know_make_no_routes() -> None:
    route = routes(2)
    assert [route("GET", f"/wp-{name}.php", 404) for name in "abcdef"] == [OTHER] * 6
    assert [route("GET", f"/{name}", 200) for name in "abc"] == ["/a", "/b", OTHER]
    assert route("GET", "/a", 404) == "/a"


@pytest.mark.parametrize(
    ("uri", "route"),
    [
        ("http://shop.example/a?b", "/a"),
        ("http://shop.example", "/"),
        ("/a#b", "/a"),
        ("*", OTHER),
        ("", OTHER),
        ("shop.example:443", OTHER),
        ('/a\ud800\n"\\', '/a\\xed\\xa0\\x80\n"\\'),
    ],
)
def test_the_path_of_an_address(uri: str, route: str) -> None:
    assert routes()("GET", uri, 200) == route


def test_methods_are_in_the_route_only_where_that_was_asked_for() -> None:
    route = routes(9, methods=True)
    assert [route(method, "/a", 200) for method in ("GET", "POST", "BREW")] == ["GET /a", "POST /a", OTHER]


@pytest.mark.parametrize(
    ("request_", "kind", "reason"),
    [
        (Request(200), "2xx", None),
        (Request(101), "1xx", None),
        (Request(404), "4xx", None),
        (Request(500), "5xx", "server_error"),
        (Request(502), "5xx", "bad_gateway"),
        (Request(503, ended="S"), "5xx", "unavailable"),
        (Request(504, ended="s"), "5xx", "timeout"),
        (Request(None, ended="C"), "none", "client_aborted"),
        (Request(200, ended="c"), "2xx", "client_aborted"),
        (Request(200, ended="S"), "2xx", "server_aborted"),
        (Request(200, ended="s"), "2xx", "timeout"),
        (Request(403, ended="P"), "4xx", None),
        (Request(999), "none", "server_error"),
    ],
)
def test_what_failed_and_why(request_: Request, kind: str, reason: str | None) -> None:
    assert (code_class(request_.status), failure(request_)) == (kind, reason)


PIECES = [nginx(), haproxy(), haproxy(at=SYSLOG), '{"status": 200, "request_time": 0.1, "uri": "/"}']
BYTES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(PIECES).map(str.encode),
    st.tuples(st.sampled_from(PIECES).map(str.encode), st.binary(max_size=20), st.integers(0, 80)).map(
        lambda parts: parts[0][: parts[2]] + parts[1] + parts[0][parts[2] :]
    ),
)


@settings(max_examples=80, deadline=None)
@given(blocks=st.lists(BYTES, min_size=1, max_size=8), kind=st.sampled_from([NGINX, HAPROXY, JSON]))
def test_any_bytes_are_counted_once_and_raise_nothing(blocks: list[bytes], kind: Any) -> None:
    requests = Requests(kind, routes(5), Cap("test", "service", 5), None)
    block = b"\n".join(blocks) + b"\n"
    requests.take(block)
    list(requests.metrics("a.log"))  # where each series begins with 0
    seen = sum(
        sample.value
        for metric in requests.metrics("a.log")
        for sample in metric.samples
        if sample.name == "request_duration_seconds_count"
    )
    assert requests.lines == block.count(b"\n")
    assert 0 <= requests.malformed <= requests.lines
    assert seen <= requests.lines - requests.malformed
    for metric in requests.metrics("a.log"):
        for sample in metric.samples:
            assert all(text.encode() is not None for text in sample.labels.values())
