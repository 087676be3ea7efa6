"""TLS, client certificates and passwords over real sockets: what clients get that may come, and those that may not."""

import contextlib
import http.client
import socket
import ssl
import time
from pathlib import Path

import pytest

from exporters.runtime import server
from tests.exporters.authority import Authority
from tests.exporters.runtime.served import ALICE, Serve, ask, basic, hashed, refusals, rewrite, tls_section


def test_everything_wants_the_password_and_has_the_headers(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]]
) -> None:
    headers = "http_server_config: {headers: {X-Frame-Options: deny}}\n"
    served = serve(f"{tls_section(issued)}{headers}basic_auth_users:\n  alice: {ALICE}\n")
    connection = served.connect(authority.trust())
    for path in ("/metrics", "/", "/-/healthy", "/-/ready", "/nothing"):
        status, answer, body = ask(connection, path)
        assert (status, answer["WWW-Authenticate"]) == (401, 'Basic realm="tidewise", charset="UTF-8"')
        assert body == b"name and password, please\n"
        assert answer["X-Frame-Options"] == "deny"
    assert ask(connection, "/-/healthy", body=b"x" * 100_000)[0] == 401
    status, answer, body = ask(connection, "/metrics", basic("alice", "wonderland"))
    assert (status, answer["X-Frame-Options"]) == (200, "deny")
    assert b'tidewise_web_refused_total{reason="credentials"} 6.0\n' in body
    assert b"tidewise_web_config_reload_success 1.0\n" in body
    assert ask(connection, "/nothing", basic("alice", "wonderland"))[0] == 404


def test_users_without_tls_and_changed_live(serve: Serve) -> None:
    served = serve(f"basic_auth_users: {{alice: '{ALICE}'}}\n")
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    assert ask(connection, authorization=basic("alice", "wonderland"))[0] == 200
    rewrite(served.path, f"basic_auth_users: {{alice: '{hashed('looking-glass')}', bob: '{ALICE}'}}\n")
    assert ask(connection, authorization=basic("alice", "wonderland"))[0] == 401
    assert ask(connection, authorization=basic("alice", "looking-glass"))[0] == 200
    assert ask(connection, authorization=basic("bob", "wonderland"))[0] == 200


def test_a_certificate_is_rotated_while_an_old_connection_goes_on(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    cert_file, key_file = tmp_path / "tls.crt", tmp_path / "tls.key"

    def put(name: str) -> None:
        rewrite(cert_file, issued[name][0].read_text())
        rewrite(key_file, issued[name][1].read_text())

    def subject(connection: http.client.HTTPSConnection) -> str:
        return str(dict(pair[0] for pair in connection.sock.getpeercert()["subject"])["commonName"])

    put("server")
    served = serve("tls_server_config: {cert_file: tls.crt, key_file: tls.key}\n")  # relative to the file
    old = served.connect(authority.trust())
    assert ask(old)[0] == 200
    assert subject(old) == "server"
    rewrite(cert_file, issued["second"][0].read_text())  # the key has not come yet: the old pair holds
    between = served.connect(authority.trust())
    assert ask(between)[0] == 200
    assert subject(between) == "server"
    put("second")
    new = served.connect(authority.trust())
    assert ask(new)[0] == 200
    assert subject(new) == "second"
    assert ask(old)[0] == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions_below_1_2_are_not_spoken(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]]
) -> None:
    served = serve(tls_section(issued))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trust = authority.trust()
        trust.minimum_version = trust.maximum_version = version
        assert ask(served.connect(trust))[0] == 200
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError, match=r"SSL|TLS|reset"):
        ask(served.connect(old))


@pytest.mark.parametrize(
    ("client", "status"),
    [
        pytest.param("prometheus", 200, id="the right one"),
        pytest.param("other", 403, id="one of another name"),
        pytest.param("stranger", None, id="one that nobody vouches for"),
        pytest.param(None, None, id="none"),
    ],
)
def test_a_client_certificate_is_asked_for(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]], client: str | None, status: int | None
) -> None:
    served = serve(
        tls_section(
            issued,
            more=f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {authority.ca_file}\n"
            "  client_allowed_sans: [prometheus.example]\n",
        )
    )
    connection = served.connect(authority.trust(issued[client] if client else None))
    if status is None:
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(connection)
    else:
        assert ask(connection)[0] == status
    deadline = time.monotonic() + 10  # the client may hear of it a little before it is counted
    while refusals(served)["handshake"] != (status != 200) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert refusals(served)["handshake"] == (status != 200)


@pytest.mark.parametrize(
    ("policy", "client", "welcome"),
    [
        ("VerifyClientCertIfGiven", None, True),
        ("VerifyClientCertIfGiven", "prometheus", True),
        ("VerifyClientCertIfGiven", "stranger", False),
        ("RequestClientCert", None, True),
        ("RequestClientCert", "stranger", True),
    ],
)
def test_policies_that_want_less(
    serve: Serve,
    authority: Authority,
    issued: dict[str, tuple[Path, Path]],
    policy: str,
    client: str | None,
    welcome: bool,
) -> None:
    more = f"  client_auth_type: {policy}\n  client_ca_file: {authority.ca_file}\n"
    connection = serve(tls_section(issued, more=more)).connect(authority.trust(issued[client] if client else None))
    if welcome:
        assert ask(connection)[0] == 200
    else:
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(connection)


def test_the_forty_first_scrape_is_refused_at_once_and_a_probe_is_not(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]]
) -> None:
    served = serve(tls_section(issued))
    served.hanging.gate.clear()
    trust = authority.trust()
    waiting = [served.connect(trust) for _ in range(40)]
    for connection in waiting:
        connection.request("GET", "/metrics")
    deadline = time.monotonic() + 10
    while served.endpoint._scrapes and served.endpoint._scrapes._value and time.monotonic() < deadline:
        time.sleep(0.005)
    status, headers, body = ask(served.connect(trust), "/metrics")
    assert (status, body) == (503, b"too many scrapes are running, the limit is 40; ask again later\n")
    assert headers["Retry-After"] == "1"
    assert ask(served.connect(trust), "/-/healthy")[0] == 200
    served.hanging.gate.set()
    assert {connection.getresponse().status for connection in waiting} == {200}
    assert ask(served.connect(trust), "/metrics")[0] == 200
    assert refusals(served)["scrapes"] == 1


def test_plain_http_on_a_tls_port_is_told_so_and_cut(serve: Serve, issued: dict[str, tuple[Path, Path]]) -> None:
    served = serve(tls_section(issued))
    with served.tcp() as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: plain.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\nthis port speaks HTTPS only; ask it with https://\n")


def test_garbage_on_a_tls_port_is_cut_and_harms_nobody(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]]
) -> None:
    served = serve(tls_section(issued))
    for garbage in (b"\x16", b"\x16\x03\x01\x00\x05hello", b"\x16" + bytes(500), b"\x00" * 100):
        with served.tcp() as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while connection.recv(4096):
                    pass
    assert ask(served.connect(authority.trust()))[0] == 200


def client_hello() -> bytes:
    """The first flight of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_clients_that_stop_before_or_in_their_handshake_hold_no_thread_and_are_cut(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 1.0)
    served = serve(tls_section(issued))
    hello = client_hello()
    stuck: list[socket.socket] = []
    for first in (b"", hello[:1], hello[:100], hello):
        for _ in range(10):
            stuck.append(served.tcp())
            stuck[-1].sendall(first)
    assert served.accepted() > 0
    threads = served.endpoint._servers[0].requests._started
    prompt = served.connect(authority.trust())
    began = time.monotonic()
    assert ask(prompt)[0] == 200
    assert time.monotonic() - began < 0.9, "nobody had to be cut for that"
    assert threads < 20, "forty that are stuck would need forty"
    for connection in stuck:
        connection.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass  # until the server hangs up
        connection.close()
    prompt.close()
    deadline = time.monotonic() + 10
    while (left := served.accepted()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == 0, "no descriptor is left behind"


def test_a_header_that_drips_over_tls_is_cut(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.6)
    served = serve(tls_section(issued))
    with authority.trust().wrap_socket(served.tcp(), server_hostname="localhost") as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        began = time.monotonic()
        slow.settimeout(0.05)
        answer = None
        while answer is None and time.monotonic() - began < 10:
            with contextlib.suppress(TimeoutError):
                answer = slow.recv(4096)
            if answer is None:
                slow.sendall(b"X: y\r\n")
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_requests_that_come_in_one_piece_are_all_answered(
    serve: Serve, authority: Authority, issued: dict[str, tuple[Path, Path]]
) -> None:
    """TLS may have taken what the selector then waits for in vain."""
    served = serve(tls_section(issued))
    with authority.trust().wrap_socket(served.tcp(), server_hostname="localhost") as connection:
        one = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"y" * 1000 + b"\r\n\r\n"
        connection.sendall(one * 15)  # one TLS record of 15 kB; a read takes 8 kB
        answers = b""
        while answers.count(b"healthy\n") < 15:
            piece = connection.recv(65536)
            assert piece
            answers += piece
