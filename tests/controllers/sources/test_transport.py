"""The deadline holds whatever the other side does; nothing it does becomes an answer."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controllers.config import Prometheus
from controllers.sources import transport
from controllers.sources.prometheus import Kind, Source, SourceError

DEADLINE = 0.4
GRACE = 0.4  # a loaded machine's scheduling


def refused(source: Source, deadline_seconds: float = DEADLINE) -> SourceError:
    began = time.monotonic()
    with pytest.raises(SourceError) as caught:
        source.instant("up", deadline_seconds=deadline_seconds)
    assert time.monotonic() - began < deadline_seconds + GRACE
    return caught.value


@pytest.fixture
def source(fake) -> Source:
    return Source(Prometheus(url=fake.url))


def test_it_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, but nobody listens
        error = refused(Source(Prometheus(url=f"http://127.0.0.1:{taken.getsockname()[1]}")), 5)
    assert error.kind is Kind.UNREACHABLE
    assert "Connection refused" in error.message


def test_its_name_is_unknown() -> None:
    assert refused(Source(Prometheus(url="http://prometheus.invalid:9090")), 5).kind is Kind.UNREACHABLE


def test_it_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(Source(Prometheus(url=f"http://127.0.0.1:{silent.getsockname()[1]}")))
    assert error.kind is Kind.TIMEOUT


SLOW = [
    ("it thinks for long", {"wait": 30.0}),
    ("its headers drip in, byte by byte", {"drip": "headers"}),
    ("its body drips in, byte by byte", {"drip": "body", "body": b'{"status": "success"' + b" " * 10_000}),
]


@pytest.mark.parametrize("reply", [r[1] for r in SLOW], ids=[r[0] for r in SLOW])
def test_it_is_slow(fake, source: Source, reply: dict[str, object]) -> None:
    fake.answer = fake.Reply(**reply)
    assert refused(source).kind is Kind.TIMEOUT


def test_what_drips_is_hung_up_on(fake, source: Source) -> None:
    fake.answer = fake.Reply(drip="body", body=b" " * 10_000)
    refused(source)
    until = time.monotonic() + 5
    while time.monotonic() < until and any(t.name == "prometheus-request" for t in threading.enumerate()):
        time.sleep(0.02)
    assert not [t for t in threading.enumerate() if t.name == "prometheus-request"]


def test_few_hanging_requests_are_tolerated(fake, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_LEFT_BEHIND", 2)
    fake.answer = fake.Reply(drip="headers")
    for _ in range(2):
        refused(source, 0.1)
    error = refused(source)
    assert "2 earlier requests are still hanging" in error.message
    assert len(fake.seen) == 2


def test_it_recovers_by_itself(fake, source: Source) -> None:
    fake.answer = fake.Reply(drip="body", body=b" " * 10_000)
    refused(source)
    fake.answer = fake.vector(({"a": "b"}, 1))
    assert [series.labels for series in source.instant("up", deadline_seconds=5)] == [{"a": "b"}]


def test_its_answer_is_cut_short(fake, source: Source) -> None:
    fake.answer = fake.Reply(body=fake.vector(({}, 1)).body, cut_at=20)
    assert refused(source, 5).kind is Kind.MALFORMED


@pytest.fixture
def gibberish() -> Iterator[str]:
    """Something that listens and speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_it_is_something_else(gibberish: str) -> None:
    assert refused(Source(Prometheus(url=gibberish)), 5).kind is Kind.UNREACHABLE


def test_it_redirects(fake, source: Source) -> None:
    fake.answer = fake.Reply(302, headers={"Location": f"{fake.url}/login"})
    assert refused(source, 5).kind is Kind.MALFORMED
    assert [seen.path for seen in fake.seen] == ["/api/v1/query"]


def test_its_answer_is_too_large(fake, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_BYTES", 100_000)
    fake.answer = fake.Reply(body=b" " * 1_000_000)
    error = refused(source, 5)
    assert error.kind is Kind.OVERLOADED
    assert "larger than" in error.message


def test_our_clock_jumps(fake, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is on the monotonic clock: a corrected wall clock neither ends nor extends it."""
    fake.answer = lambda _: monkeypatch.setattr(time, "time", lambda: 600.0) or fake.vector(({}, 1))
    assert len(source.instant("up", deadline_seconds=5)) == 1
    fake.answer = fake.Reply(wait=30)
    assert refused(source).kind is Kind.TIMEOUT


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that only signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the program openssl is not here")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


TLS = [
    ("unknown to us", {}, False),
    ("named as trusted", {"ca_file": "cert.pem"}, True),
    ("not to be looked at", {"insecure_skip_verify": True}, True),
    ("asking for ours", {"ca_file": "cert.pem", "cert_file": "cert.pem", "key_file": "key.pem"}, True),
]


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize(("tls", "trusted"), [row[1:] for row in TLS], ids=[row[0] for row in TLS])
def test_a_certificate_that_is(
    fake, certificate: tuple[Path, Path], tls: dict[str, object], trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if "cert_file" in tls:
        context.load_verify_locations(cert)
        context.verify_mode = ssl.CERT_REQUIRED
    fake.speak_tls(context)
    monkeypatch.chdir(cert.parent)
    source = Source(Prometheus.model_validate({"url": fake.url, "tls": tls}))
    if trusted:
        assert source.instant("up", deadline_seconds=5) == []
        return
    error = refused(source, 5)
    assert error.kind is Kind.UNREACHABLE
    assert "certificate" in error.message


def test_a_certificate_file_that_is_not_there() -> None:
    settings = Prometheus.model_validate({"url": "https://127.0.0.1:1", "tls": {"ca_file": "/nowhere/ca.pem"}})
    error = refused(Source(settings), 5)
    assert error.kind is Kind.UNREACHABLE
    assert "/nowhere/ca.pem" in error.message
