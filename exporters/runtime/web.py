"""The file behind `--web.config.file`: TLS, users and headers, in the format that Prometheus' own exporters read.

It is looked at again with each new connection and each request; what changed is in force from then on. A file that
became wrong changes nothing: the last good one holds, the log says what is wrong with the new one, and
`tidewise_web_config_reload_success` is 0 until that is mended. Neither TLS nor the password nor the check of clients'
certificates can be taken away while the process runs: a file is empty or half there for a moment whenever somebody
writes it.
"""

import ipaddress
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import structlog
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporters.runtime.config import ConfigError, Section, nearest, parse_yaml, validate
from exporters.runtime.passwords import COSTS, HASH, Passwords, Verdict

_log = structlog.get_logger()

# The names of Go's crypto/tls, which the format uses, and OpenSSL's.
CIPHERS = {
    f"TLS_{exchange}_WITH_{go}": f"{exchange.replace('_', '-')}-{openssl}"
    for exchange in ("ECDHE_RSA", "ECDHE_ECDSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
# TLS 1.3 has these always; they may be named, as in Go, and that changes nothing.
CIPHERS_OF_TLS13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}

Version = Literal["TLS12", "TLS13"]


def _not_here(what_to_do: str) -> Callable[[Any], Any]:
    def refuse(value: Any) -> Any:
        raise ValueError(what_to_do)

    return refuse


def _cipher(name: str) -> str:
    if name not in CIPHERS and name not in CIPHERS_OF_TLS13:
        raise ValueError(f"'{name}' is no cipher suite{nearest(name, [*CIPHERS, *CIPHERS_OF_TLS13])}")
    return name


def _client_auth(name: str) -> str:
    """Python's ssl cannot take a certificate that it does not verify."""
    if name in ("RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(
            f"{name} would accept a certificate that nobody vouches for, which cannot be had here; use "
            "RequireAndVerifyClientCert with a client_ca_file"
        )
    known = ["NoClientCert", "RequestClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
    if name not in known:
        raise ValueError(f"'{name}' is no policy for client certificates{nearest(name, known)}")
    return name


def _hash(value: Any) -> str:
    """The sentences never show what was found: it may be a password that somebody forgot to hash."""
    match = HASH.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("what stands here is no bcrypt hash; docs/exporters/web.md shows how to make one")
    if int(match[1]) not in COSTS:
        raise ValueError(f"a bcrypt hash of cost {match[1]}; it must be {COSTS[0]} to {COSTS[-1]}, 10 is usual")
    return match[0]


def _users(value: Any) -> Any:
    """As with the hashes: what stands here instead of a mapping may be a password."""
    if value is not None and not isinstance(value, dict):
        raise ValueError("what stands here is no mapping; write one line NAME: HASH for each user")
    if not value:  # such as when all are commented out
        raise ValueError("no user stands here, so that everybody could come; add one, or take this key out too")
    return value


def _file(path: Path) -> Path:
    """The sentence does not show it: it may be a key that somebody wrote here instead of into a file."""
    if "\n" in str(path):
        raise ValueError("what stands here is more than one line; it must be the name of a file")
    return path


def _user(name: str) -> str:
    if not name or ":" in name:
        raise ValueError(f"found the user name '{name}'; a name is not empty and has no colon")
    return name


def _header(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if name not in HEADERS:
            raise ValueError(f"'{name}' cannot be set here{nearest(name, list(HEADERS))}")
        allowed = HEADERS[name]
        if (allowed and text not in ("", *allowed)) or not (text.isascii() and (text.isprintable() or not text)):
            must = f"must be {' or '.join(allowed)}" if allowed else "must be one line of ASCII text"
            raise ValueError(f"found {name} '{text}'; it {must}")
    return value


File = Annotated[Path, AfterValidator(_file)]


class TlsServerConfig(Section):
    """The certificate that the server shows, and what it wants to see of clients."""

    cert_file: File
    key_file: File
    client_auth_type: Annotated[str, AfterValidator(_client_auth)] = "NoClientCert"
    client_ca_file: File | None = None
    client_allowed_sans: list[str] | None = Field(None, min_length=1)
    min_version: Version = "TLS12"
    max_version: Version = "TLS13"
    cipher_suites: list[Annotated[str, AfterValidator(_cipher)]] = []
    prefer_server_cipher_suites: bool = True
    cert: Annotated[Any, AfterValidator(_not_here("write it into a file, and name that as cert_file"))] = None
    key: Annotated[Any, AfterValidator(_not_here("write it into a file, and name that as key_file"))] = None
    client_ca: Annotated[Any, AfterValidator(_not_here("write it into a file, and name that as client_ca_file"))] = None
    curve_preferences: Annotated[
        Any, AfterValidator(_not_here("curves cannot be chosen here; leave it out, OpenSSL's own are sound"))
    ] = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        verifies = self.client_auth_type in ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
        if verifies and self.client_ca_file is None:
            raise ValueError(f"client_auth_type {self.client_auth_type} needs client_ca_file; name one")
        if self.client_ca_file is not None and self.client_auth_type == "NoClientCert":
            raise ValueError("client_ca_file without client_auth_type verifies nobody; RequireAndVerifyClientCert does")
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError("client_allowed_sans needs client_auth_type RequireAndVerifyClientCert")
        if self.min_version > self.max_version:
            raise ValueError(f"min_version {self.min_version} is above max_version {self.max_version}; swap them")
        if self.cipher_suites and not set(self.cipher_suites) & set(CIPHERS) and self.min_version == "TLS12":
            raise ValueError("cipher_suites names none of TLS 1.2; add one, or set min_version to TLS13")
        return self


class HttpServerConfig(Section):
    """Headers of every answer."""

    http2: bool = True  # HTTP/2 is not spoken here, and every client speaks HTTP/1.1 too: either value changes nothing
    headers: Annotated[dict[str, str], AfterValidator(_header)] = {}


class WebConfig(Section):
    """The whole file. A section without content is as good as none; users are not, for that would open the door."""

    tls_server_config: TlsServerConfig | None = None
    http_server_config: HttpServerConfig | None = None
    basic_auth_users: Annotated[
        dict[Annotated[str, AfterValidator(_user)], Annotated[Any, AfterValidator(_hash)]] | None,
        BeforeValidator(_users),
    ] = None
    rate_limit: Annotated[
        Any, AfterValidator(_not_here("is not done here; --web.max-requests limits the scrapes at one time"))
    ] = None


@dataclass(frozen=True)
class Loaded:
    """What is in force. `context`: None without TLS. `users`: bcrypt hash by name; nobody is asked where empty."""

    context: ssl.SSLContext | None
    allowed_sans: frozenset[str] | None
    users: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def wants_certificates(self) -> bool:
        return self.context is not None and self.context.verify_mode is ssl.CERT_REQUIRED


_Stamp = tuple[int, ...] | None


class Web:
    """A web configuration, read again when one of its files changes. Raises ConfigError if the first read fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passwords = Passwords()
        self._reading = threading.Lock()
        self._seen: dict[Path, _Stamp] = {}
        self.problem: str | None = None  # of the last read; None when what is in force is what the files say
        self._loaded = self._read()

    def now(self) -> Loaded:
        """What is in force at this moment; the files are read where they changed, by one thread."""
        changed = any(_stamp(path) != stamp for path, stamp in self._seen.items())
        if changed and self._reading.acquire(blocking=False):
            try:
                self._reload()
            finally:
                self._reading.release()
        return self._loaded

    def judge(self, loaded: Loaded, authorization: str, address: str) -> Verdict:
        return self._passwords.judge(loaded.users, authorization, address) if loaded.users else "right"

    def _reload(self) -> None:
        try:
            loaded = self._read()
            for had, has, what in (
                (self._loaded.context, loaded.context, "TLS"),
                (self._loaded.wants_certificates, loaded.wants_certificates, "the check of clients' certificates"),
                (self._loaded.allowed_sans, loaded.allowed_sans, "the list of names in clients' certificates"),
                (self._loaded.users, loaded.users, "the password"),
            ):
                if had and not has:
                    raise ConfigError([f"{self._path}: {what} is gone; that takes a restart, to be no accident"])
            if loaded.context and not self._loaded.context:
                raise ConfigError([f"{self._path}: TLS is new; restart to speak it"])
        except ConfigError as error:
            if str(error) != self.problem:
                _log.error("web_config_refused", problems=error.problems, in_force="what was read before")
            self.problem = str(error)
            return
        self._loaded, self.problem = loaded, None
        _log.info("web_config_loaded", file=str(self._path), users=len(loaded.users), tls=loaded.context is not None)

    def _read(self) -> Loaded:
        self._seen = {self._path: _stamp(self._path)}  # before reading: what changes meanwhile is seen next time
        data = parse_yaml(
            self._path, "--web.config.file", "docs/exporters/web.md shows a first one", "tls_server_config"
        )
        config = validate(WebConfig, data, self._path)
        tls, http = config.tls_server_config, config.http_server_config
        if tls is not None:
            files = [self._path.parent / file for file in (tls.cert_file, tls.key_file, tls.client_ca_file) if file]
            self._seen = {**self._seen, **{file: _stamp(file) for file in files}}  # a new one: others look at the old
        return Loaded(
            context=None if tls is None else make_context(tls, self._path),
            allowed_sans=frozenset(tls.client_allowed_sans) if tls and tls.client_allowed_sans else None,
            users=config.basic_auth_users or {},
            headers={name: text for name, text in http.headers.items() if text} if http else {},
        )


def make_context(tls: TlsServerConfig, path: Path) -> ssl.SSLContext:
    """The TLS context; file names are relative to the folder of `path`. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = VERSIONS[tls.min_version], VERSIONS[tls.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if ciphers := [CIPHERS[name] for name in tls.cipher_suites if name in CIPHERS]:
        context.set_ciphers(":".join(ciphers))
    where = f"{path}: tls_server_config"
    cert_file, key_file = path.parent / tls.cert_file, path.parent / tls.key_file
    for key, file in (("cert_file", cert_file), ("key_file", key_file)):
        _readable(file, f"{where}.{key}")
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigError([f"{where}{_why_no_certificate(error, cert_file, key_file)}"]) from None
    except OSError as error:
        raise ConfigError([f"{where}: {cert_file} or {key_file} cannot be read ({error.strerror})"]) from None
    except _EncryptedKeyError:
        raise ConfigError([f"{where}.key_file: {key_file} is encrypted; store the key without a passphrase"]) from None
    if tls.client_ca_file is not None and tls.client_auth_type != "RequestClientCert":
        ca_file = path.parent / tls.client_ca_file
        _readable(ca_file, f"{where}.client_ca_file")
        try:
            context.load_verify_locations(ca_file)
        except OSError:  # ssl's own are such
            raise ConfigError([f"{where}.client_ca_file: {ca_file} holds no certificate in PEM form"]) from None
        required = tls.client_auth_type == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def has_allowed_san(certificate: Mapping[str, Any] | None, allowed: frozenset[str]) -> bool:
    """Whether one of the certificate's alternative names is allowed. `certificate`: as getpeercert() gives it."""
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI") and value in allowed:
            return True
        if kind == "IP Address" and str(ipaddress.ip_address(value.strip())) in allowed:
            return True
    return False


class _EncryptedKeyError(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedKeyError  # without this OpenSSL would ask on the terminal, and wait


def _why_no_certificate(error: ssl.SSLError, cert_file: Path, key_file: Path) -> str:
    """OpenSSL gives no reason where a file is not what it should be; which one that is shows when it is read alone."""
    if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # of one kind, and of two
        return f": the key in {key_file} is not that of the certificate in {cert_file}; take both of one pair"
    if error.reason:
        said = error.reason.replace("_", " ").lower()
        return f": {cert_file} and {key_file} are not what OpenSSL takes ({said}); make a new pair"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert_file)
    except OSError:  # ssl's own are such
        what_to_do = "it is a key: are the two files swapped?" if _is_key(cert_file) else "check it"
        return f".cert_file: {cert_file} holds no certificate in PEM form; {what_to_do}"
    return f".key_file: {key_file} holds no key in PEM form; check it"


def _is_key(file: Path) -> bool:
    try:
        return b" PRIVATE KEY-----" in file.read_bytes()
    except OSError:  # it has gone meanwhile
        return False


def _readable(file: Path, where: str) -> None:
    try:
        with file.open("rb"):
            return
    except (OSError, ValueError) as error:  # ValueError: no name of a file, such as one with a zero byte
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"{where}: {file} cannot be read ({why}); check name and rights"]) from None


def _stamp(path: Path) -> _Stamp:
    """Changes when the file does; None while it cannot be seen."""
    try:
        at = path.stat()
    except (OSError, ValueError):
        return None
    return at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns
