"""The web configuration: every mistake in it, what changes while it runs, and TLS and passwords over real sockets."""

import base64
import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import psutil
import pytest
import structlog
import yaml
from cryptography import x509
from prometheus_client import CollectorRegistry

from exporters.runtime import passwords, server
from exporters.runtime.config import ConfigError
from exporters.runtime.endpoint import Endpoint
from exporters.runtime.passwords import Passwords
from exporters.runtime.web import HEADERS, HttpServerConfig, TlsServerConfig, Web, WebConfig
from tests.exporters.authority import Authority


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


ALICE = hashed("wonderland")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> dict[str, tuple[Path, Path]]:
    """Certificates by name. `stranger` is one of another authority."""
    folder = authority.folder
    return {
        "server": authority.issue("server"),
        "second": authority.issue("second"),
        "locked": authority.issue("locked", passphrase=b"secret"),
        "prometheus": authority.issue("prometheus", x509.DNSName("prometheus.example")),
        "other": authority.issue("other", x509.DNSName("other.example")),
        "stranger": Authority(folder, "elsewhere").issue("stranger"),
    }


def tls_section(issued: dict[str, tuple[Path, Path]], name: str = "server", more: str = "") -> str:
    cert_file, key_file = issued[name]
    return f"tls_server_config:\n  cert_file: {cert_file}\n  key_file: {key_file}\n{more}"


# What is wrong with the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("", "the file is empty; docs/exporters/web.md shows a first one", id="empty"),
        pytest.param("tls_config: {}", "tls_config: unknown key; did you mean 'tls_server_config'?", id="misspelt"),
        pytest.param(
            "tls_server_config: {cert_file: a}", "tls_server_config.key_file: is missing; add it", id="no key"
        ),
        pytest.param(
            "tls_server_config: {cert_file: none.crt, key_file: none.key}",
            "tls_server_config.cert_file: {folder}/none.crt cannot be read (No such file or directory); "
            "check name and rights",
            id="relative to the file's own folder",
        ),
        pytest.param(
            "tls_server_config: {cert_file: {server}.crt, key_file: {second}.key}",
            "tls_server_config: the key in {second}.key is not that of the certificate in {server}.crt; "
            "take both of one pair",
            id="the key of another certificate",
        ),
        pytest.param(
            "tls_server_config: {cert_file: {locked}.crt, key_file: {locked}.key}",
            "tls_server_config.key_file: {locked}.key is encrypted; store the key without a passphrase",
            id="an encrypted key, which nobody is asked for",
        ),
        pytest.param(
            "tls_server_config: {cert_file: {file}, key_file: {file}}",
            "tls_server_config: {file} and {file} are no certificate and key in PEM form (*); check both",
            id="no certificate at all",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerifyClientCert}",
            "tls_server_config: client_auth_type RequireAndVerifyClientCert needs client_ca_file; name one",
            id="verified by nobody",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, client_ca_file: c}",
            "tls_server_config: client_ca_file without client_auth_type verifies nobody; "
            "RequireAndVerifyClientCert does",
            id="an authority that nobody is asked for",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAnyClientCert}",
            "tls_server_config.client_auth_type: RequireAnyClientCert would accept a certificate that nobody vouches "
            "for, which cannot be had here; use RequireAndVerifyClientCert with a client_ca_file",
            id="a certificate without worth",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: RequireAndVerify}",
            "tls_server_config.client_auth_type: 'RequireAndVerify' is no policy for client certificates; "
            "did you mean 'RequireAndVerifyClientCert'?",
            id="a misspelt policy",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, client_allowed_sans: [x]}",
            "tls_server_config: client_allowed_sans needs client_auth_type RequireAndVerifyClientCert",
            id="names of nobody",
        ),
        pytest.param(
            "tls_server_config: {cert_file: {server}.crt, key_file: {server}.key, client_ca_file: {server}.key, "
            "client_auth_type: RequireAndVerifyClientCert}",
            "tls_server_config.client_ca_file: {server}.key holds no certificate in PEM form",
            id="no certificate of an authority",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS10}",
            "tls_server_config.min_version: found 'TLS10'; it must be 'TLS12' or 'TLS13'",
            id="a version that is broken",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS13, max_version: TLS12}",
            "tls_server_config: min_version TLS13 is above max_version TLS12; swap them",
            id="versions the wrong way round",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}",
            "tls_server_config.cipher_suites.0: 'TLS_RSA_WITH_RC4_128_SHA' is no cipher suite; did you mean *",
            id="a cipher that is broken",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key_file: b, curve_preferences: [X25519]}",
            "tls_server_config.curve_preferences: curves cannot be chosen here; leave it out, OpenSSL's own are sound",
            id="curves",
        ),
        pytest.param(
            "tls_server_config: {cert_file: a, key: PEM}",
            "tls_server_config.key_file: is missing; add it",
            id="a key within the file",
        ),
        pytest.param(
            "http_server_config: {headers: {Server: x}}",
            "http_server_config.headers: 'Server' cannot be set here; known here: Content-Security-Policy, *",
            id="a header of another's",
        ),
        pytest.param(
            "http_server_config: {headers: {X-Frame-Options: never}}",
            "http_server_config.headers: found X-Frame-Options 'never'; it must be deny or sameorigin",
            id="a header's value",
        ),
        pytest.param(
            'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nA: x"}}',
            "http_server_config.headers: found X-XSS-Protection '1\r\nA: x'; it must be one line of ASCII text",
            id="a header within a header",
        ),
        pytest.param(
            "basic_auth_users: {alice: wonderland}",
            "basic_auth_users.alice: what stands here is no bcrypt hash; docs/exporters/web.md shows how to make one",
            id="a password, which is not repeated",
        ),
        pytest.param(
            "basic_auth_users: {alice: 1234}",
            "basic_auth_users.alice: what stands here is no bcrypt hash; docs/exporters/web.md shows how to make one",
            id="a password of digits, which is not repeated either",
        ),
        pytest.param(
            f"basic_auth_users: {{alice: '{ALICE.replace('$04$', '$20$')}'}}",
            "basic_auth_users.alice: a bcrypt hash of cost 20; it must be 4 to 15, 10 is usual",
            id="a hash that takes a minute",
        ),
        pytest.param(
            f"basic_auth_users: {{'a:b': '{ALICE}'}}",
            "basic_auth_users.a:b.[key]: found the user name 'a:b'; a name is not empty and has no colon",
            id="a name with a colon",
        ),
        pytest.param(
            "rate_limit: {interval: 1s, burst: 5}",
            "rate_limit: is not done here; --web.max-requests limits the scrapes at one time",
            id="a rate",
        ),
    ],
)
def test_a_mistake_is_a_sentence(
    tmp_path: Path, issued: dict[str, tuple[Path, Path]], text: str, sentence: str
) -> None:
    path = tmp_path / "web.yml"
    places = {f"{{{name}}}": str(cert.with_suffix("")) for name, (cert, _) in issued.items()}
    for place, value in {**places, "{file}": str(path), "{folder}": str(tmp_path)}.items():
        text, sentence = text.replace(place, value), sentence.replace(place, value)
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        Web(path)
    told = str(refused.value).splitlines()[0] if "\r" not in sentence else str(refused.value)
    start, star, end = sentence.partition("*")
    assert told.startswith(f"{path}: {start}")
    assert told.endswith(end)
    assert star or told == f"{path}: {sentence}"


def test_a_file_that_is_not_there_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; create it, or name another with --web\.config\.file$"):
        Web(tmp_path / "web.yml")


def test_everything_of_the_format_that_can_be_had_is_accepted(
    tmp_path: Path, authority: Authority, issued: dict[str, tuple[Path, Path]]
) -> None:
    path = tmp_path / "web.yml"
    path.write_text(
        tls_section(
            issued,
            more=f"""\
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: {authority.ca_file}
  client_allowed_sans: [prometheus.example, 10.0.0.1]
  min_version: TLS12
  max_version: TLS13
  prefer_server_cipher_suites: false
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256]
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-Content-Type-Options: ""
basic_auth_users:
  alice: {ALICE}
  bob: {ALICE.replace("$2b$", "$2y$")}
rate_limit:
""".replace("rate_limit:\n", ""),
        )
    )
    loaded = Web(path).now()
    assert loaded.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"}
    assert sorted(loaded.users) == ["alice", "bob"]
    assert loaded.context is not None
    assert loaded.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert loaded.context.verify_mode is ssl.CERT_REQUIRED
    of_tls12 = [cipher["name"] for cipher in loaded.context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert of_tls12 == ["ECDHE-ECDSA-AES256-GCM-SHA384"]


# Passwords ------------------------------------------------------------------------------------------------------


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        pytest.param(basic("alice", "wonderland"), "right", id="right"),
        pytest.param(basic("alice", "wonderland").replace("Basic", "bAsIc"), "right", id="a scheme has no case"),
        pytest.param(basic("alice", "Wonderland"), "wrong", id="another password"),
        pytest.param(basic("bob", "wonderland"), "wrong", id="another name, with a password of somebody"),
        pytest.param(basic("", ""), "wrong", id="nothing"),
        pytest.param("", "wrong", id="no header"),
        pytest.param("Bearer wonderland", "wrong", id="another scheme"),
        pytest.param("Basic ???", "wrong", id="no base64"),
        pytest.param("Basic " + base64.b64encode(b"alice").decode(), "wrong", id="no colon"),
        pytest.param("Basic " + base64.b64encode(b"\xff:\xfe\x00").decode(), "wrong", id="bytes that are no text"),
        pytest.param(basic("alice", "wonderland" * 100), "wrong", id="a password of a kilobyte"),
        pytest.param(basic("alice", "w" * 5000), "wrong", id="a header of five"),
    ],
)
def test_a_password_is_right_or_wrong(header: str, verdict: str) -> None:
    assert Passwords().judge({"alice": ALICE}, header, "192.0.2.1") == verdict


def test_a_password_longer_than_bcrypt_looks_is_judged_by_its_beginning_as_other_tools_do() -> None:
    users = {"alice": hashed("x" * 72)}
    assert Passwords().judge(users, basic("alice", "x" * 80), "192.0.2.1") == "right"
    assert Passwords().judge(users, basic("alice", "x" * 71), "192.0.2.1") == "wrong"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that were really compared with a password, in order."""
    seen: list[bytes] = []
    really = bcrypt.checkpw

    def checkpw(password: bytes, hash_: bytes) -> bool:
        seen.append(hash_)
        return really(password, hash_)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    return seen


def test_what_was_right_is_known_again_and_no_password_is_kept(checks: list[bytes]) -> None:
    judge = Passwords()
    for _ in range(3):
        assert judge.judge({"alice": ALICE}, basic("alice", "wonderland"), "192.0.2.1") == "right"
    assert len(checks) == 1
    assert all(b"wonderland" not in digest for digest in judge._right)
    assert b"wonderland" not in repr(vars(judge)).encode()


def test_a_changed_hash_is_compared_anew_and_a_wrong_password_each_time(checks: list[bytes]) -> None:
    judge, changed = Passwords(), hashed("looking-glass")
    assert judge.judge({"alice": ALICE}, basic("alice", "wonderland"), "192.0.2.1") == "right"
    for _ in range(2):
        assert judge.judge({"alice": changed}, basic("alice", "wonderland"), "192.0.2.1") == "wrong"
    assert checks == [ALICE.encode(), changed.encode(), changed.encode()]


def test_an_unknown_name_costs_a_comparison_too_always_the_same(checks: list[bytes]) -> None:
    users = {f"user{n}": hashed(f"password{n}") for n in range(5)}
    judge = Passwords()
    for _ in range(3):
        assert judge.judge(users, basic("nobody", "password1"), "192.0.2.1") == "wrong"
    assert len(checks) == 3
    assert len(set(checks)) == 1


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "REMEMBERED", 3)
    judge = Passwords()
    for n in range(6):
        assert judge.judge({f"u{n}": ALICE}, basic(f"u{n}", "wonderland"), "192.0.2.1") == "right"
    assert len(judge._right) == 3


def test_a_flood_of_wrong_passwords_waits_for_nobody_and_a_known_client_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge, gate, users = Passwords(), threading.Event(), {"alice": ALICE}
    assert judge.judge(users, basic("alice", "wonderland"), "192.0.2.9") == "right"
    monkeypatch.setattr(passwords, "_matches", lambda password, hash_: gate.wait(20) and False)
    verdicts: list[str] = []

    def attack(n: int) -> None:
        verdicts.append(judge.judge(users, basic("alice", f"guess {n}"), f"192.0.2.{1 + n % 2}"))

    attackers = [threading.Thread(target=attack, args=(n,)) for n in range(20)]
    for thread in attackers:
        thread.start()
    deadline = time.monotonic() + 10
    while len(verdicts) < 16 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert verdicts == ["busy"] * 16, "four may wait for their turn, two of each address"
    assert judge.judge(users, basic("alice", "wonderland"), "192.0.2.1") == "right"
    gate.set()
    for thread in attackers:
        thread.join(10)
    assert sorted(verdicts) == ["busy"] * 16 + ["wrong"] * 4
    assert judge.judge(users, basic("alice", "guess"), "192.0.2.1") == "wrong", "there is room again"
    assert not judge._checking


# Changes while it runs ------------------------------------------------------------------------------------------


def rewrite(path: Path, text: str) -> None:
    """As a careful tool does: the new file takes the old one's place at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def test_a_broken_file_changes_nothing_is_told_once_and_mended(
    tmp_path: Path, issued: dict[str, tuple[Path, Path]]
) -> None:
    path = tmp_path / "web.yml"
    good = tls_section(issued) + f"basic_auth_users:\n  alice: {ALICE}\n"
    path.write_text(good)
    web = Web(path)
    first = web.now()
    assert web.now() is first, "what has not changed is not read again"
    with structlog.testing.capture_logs() as log:
        for broken, why in (
            ("basic_auth_users: [", "not valid YAML"),
            ("", "the file is empty"),
            (tls_section(issued), "the password is gone; that takes a restart, to be no accident"),
            (f"basic_auth_users:\n  alice: {ALICE}\n", "TLS is gone; that takes a restart, to be no accident"),
            (good.replace("server.key", "none.key"), "none.key cannot be read"),
        ):
            rewrite(path, broken)
            for _ in range(3):
                assert web.now() is first
            assert web.problem is not None
            assert why in web.problem
        path.unlink()
        assert web.now() is first
        rewrite(path, good.replace("alice", "bob"))
        assert list(web.now().users) == ["bob"]
        assert web.problem is None
    assert [entry["event"] for entry in log] == ["web_config_refused"] * 6 + ["web_config_loaded"]
    assert "wonderland" not in str(log)
    assert ALICE not in str(log)


def test_tls_cannot_begin_while_plain_connections_are_served(
    tmp_path: Path, issued: dict[str, tuple[Path, Path]]
) -> None:
    path = tmp_path / "web.yml"
    path.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    web = Web(path)
    rewrite(path, tls_section(issued))
    assert web.now().context is None
    assert web.problem == f"{path}: TLS is new; restart to speak it"
    rewrite(path, f"basic_auth_users: {{alice: '{ALICE}'}}\n")
    assert list(web.now().users) == ["alice"], "users can"


# Over the wire --------------------------------------------------------------------------------------------------


class Hanging:
    """A collector that hangs for as long as the gate is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def collect(self) -> Iterator[Any]:
        self.gate.wait(30)
        yield from ()


class Served:
    """An endpoint in this process with a web configuration that can be rewritten."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "web.yml"
        self.path.write_text(text)
        self.hanging = Hanging()
        registry = CollectorRegistry()
        registry.register(self.hanging)
        self.endpoint = Endpoint(
            ["127.0.0.1:0"], registry, process="secret", ready=lambda: None, web=Web(self.path), max_requests=40
        )
        self.endpoint.start()
        self.port = int(self.endpoint.addresses[0].rpartition(":")[2])

    def connect(self, trust: ssl.SSLContext) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, timeout=20, context=trust)

    def accepted(self) -> int:
        """Connections for which the server has a descriptor."""
        connections = psutil.Process().net_connections("tcp")
        return sum(c.laddr.port == self.port and c.status != psutil.CONN_LISTEN for c in connections)

    def tcp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


Serve = Callable[[str], Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with contextlib.ExitStack() as running:

        def start(text: str) -> Served:
            served = Served(tmp_path, text)
            running.callback(threading.Thread(target=served.endpoint.stop).start)  # half a second that nobody waits for
            running.callback(served.hanging.gate.set)
            return served

        yield start


def ask(
    connection: http.client.HTTPConnection, path: str = "/-/healthy", authorization: str = "", body: bytes = b""
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection.request(
        "POST" if body else "GET", path, body or None, {"Authorization": authorization} if authorization else {}
    )
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def refusals(served: Served) -> dict[str, float]:
    (family, _) = served.endpoint._refusals.collect()
    return {sample.labels["reason"]: sample.value for sample in family.samples}


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


# The page about it ----------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[3] / "docs" / "exporters" / "web.md"


def test_the_page_names_every_key() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("## Every key") : page.index("## While it runs")]
    keys = [*WebConfig.model_fields, *TlsServerConfig.model_fields, *HttpServerConfig.model_fields, *HEADERS]
    assert [key for key in keys if f"`{key}`" not in table and f".{key}`" not in table] == []


def test_the_page_s_example_is_right() -> None:
    page = PAGE.read_text(encoding="utf-8")
    text = page[page.index("```yaml\ntls_server_config") + 8 :].partition("```")[0]
    config = WebConfig.model_validate(yaml.safe_load(text.replace("$2b$10$…", ALICE)))
    assert config.tls_server_config is not None
    assert config.basic_auth_users == {"prometheus": ALICE}
