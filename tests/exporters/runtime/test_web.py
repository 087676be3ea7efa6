"""The web configuration's file: every mistake in it, what changes while it is in force, and the page about it."""

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.runtime.config import ConfigError
from exporters.runtime.web import HEADERS, HttpServerConfig, TlsServerConfig, Web, WebConfig
from tests.exporters.authority import Authority
from tests.exporters.runtime.served import ALICE, rewrite, tls_section


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
            'tls_server_config: {cert_file: "a\\0b", key_file: b}',
            "tls_server_config.cert_file: {folder}/a\0b cannot be read (embedded null byte); check name and rights",
            id="no name of a file",
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
            "tls_server_config.cert_file: {file} holds no certificate in PEM form; check it",
            id="no certificate at all",
        ),
        pytest.param(
            "tls_server_config: {cert_file: {server}.key, key_file: {server}.crt}",
            "tls_server_config.cert_file: {server}.key holds no certificate in PEM form; "
            "it is a key: are the two files swapped?",
            id="certificate and key swapped",
        ),
        pytest.param(
            "tls_server_config: {cert_file: {server}.crt, key_file: {file}}",
            "tls_server_config.key_file: {file} holds no key in PEM form; check it",
            id="no key",
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
            "basic_auth_users:\n#  alice: hash",
            "basic_auth_users: no user stands here, so that everybody could come; add one, or take this key out too",
            id="users that are all commented out",
        ),
        pytest.param(
            "basic_auth_users: [{alice: wonderland}]",
            "basic_auth_users: what stands here is no mapping; write one line NAME: HASH for each user",
            id="users in a list, with a password",
        ),
        pytest.param(
            "tls_server_config:\n  cert_file: x\n  key_file: |\n    -----BEGIN PRIVATE KEY-----\n    MIGH",
            "tls_server_config.key_file: what stands here is more than one line; it must be the name of a file",
            id="a key instead of its file",
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


words = st.sampled_from(
    [
        *TlsServerConfig.model_fields,
        *HEADERS,
        "headers",
        "http2",
        "RequireAndVerifyClientCert",
        "TLS12",
        "web.yml",
        ALICE,
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.integers(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(list(WebConfig.model_fields)) | st.text(max_size=5), values, max_size=4))
def test_whatever_the_file_holds_it_is_accepted_or_refused_in_sentences(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "web.yml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    problems: list[str] = []
    try:
        Web(path)
    except ConfigError as error:
        problems = error.problems
    assert all(problem.startswith(f"{path}: ") for problem in problems)


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


def test_a_half_written_file_lets_in_no_client_whose_certificate_is_not_checked(
    tmp_path: Path, authority: Authority, issued: dict[str, tuple[Path, Path]]
) -> None:
    path = tmp_path / "web.yml"
    lines = tls_section(
        issued,
        more="  client_auth_type: RequireAndVerifyClientCert\n"
        f"  client_ca_file: {authority.ca_file}\n"
        "  client_allowed_sans: [prometheus.example]\n",
    ).splitlines(keepends=True)
    path.write_text("".join(lines))
    web = Web(path)
    first = web.now()
    for lines_there in range(len(lines)):
        rewrite(path, "".join(lines[:lines_there]))
        assert web.now() is first
        assert web.problem is not None
    assert "the list of names in clients' certificates is gone" in web.problem
    rewrite(path, "".join(lines[:3]))
    assert web.now() is first
    assert "the check of clients' certificates is gone" in str(web.problem)


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


PAGE = Path(__file__).parents[3] / "docs" / "exporters" / "web.md"


def test_the_page_names_every_key() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("## Every key") : page.index("## While it runs")]
    keys = [*WebConfig.model_fields, *TlsServerConfig.model_fields, *HttpServerConfig.model_fields, *HEADERS]
    assert [key for key in keys if not re.search(rf"[`.]{key}[`.]", table)] == []


def test_the_page_s_example_is_right() -> None:
    page = PAGE.read_text(encoding="utf-8")
    text = page[page.index("```yaml\ntls_server_config") + 8 :].partition("```")[0]
    config = WebConfig.model_validate(yaml.safe_load(text.replace("$2b$10$…", ALICE)))
    assert config.tls_server_config is not None
    assert config.basic_auth_users == {"prometheus": ALICE}
