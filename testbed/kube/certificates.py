"""The certificates and keys of one short-lived control plane, made by openssl."""

import shutil
import subprocess
from pathlib import Path

DAYS = "30"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class CertificateError(RuntimeError):
    """The certificates cannot be made. The message says why and what to do."""


def create(folder: Path) -> None:
    """Make them in `folder`, each as NAME.crt and NAME.key.

    ca signs apiserver (its serving certificate), admin (a client, group system:masters) and nothing else;
    front-proxy-ca signs front-proxy (by which the API server shows extension servers whom it asks for);
    service-accounts.key and .pub sign and check ServiceAccount tokens.
    """
    if shutil.which("openssl") is None:
        raise CertificateError("no openssl on PATH, which makes the control plane's certificates; install openssl")
    for authority in ("ca", "front-proxy-ca"):
        _certificate(folder, authority, f"/CN=testbed-{authority}", "basicConstraints=critical,CA:TRUE")
    leaf = "basicConstraints=critical,CA:FALSE"
    server = (leaf, "extendedKeyUsage=serverAuth", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    client = (leaf, "extendedKeyUsage=clientAuth")
    _certificate(folder, "apiserver", "/CN=kube-apiserver", *server, signed_by="ca")
    _certificate(folder, "admin", "/O=system:masters/CN=admin", *client, signed_by="ca")
    _certificate(folder, "front-proxy", "/CN=front-proxy", *client, signed_by="front-proxy-ca")
    _openssl(folder, "genpkey", "-algorithm", "EC", *KEY[2:4], "-out", "service-accounts.key")
    _openssl(folder, "pkey", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub")


def _certificate(folder: Path, name: str, subject: str, *extensions: str, signed_by: str | None = None) -> None:
    added = [argument for extension in extensions for argument in ("-addext", extension)]
    signed = ["-CA", f"{signed_by}.crt", "-CAkey", f"{signed_by}.key"] if signed_by else []
    files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
    _openssl(folder, "req", "-x509", *KEY, "-days", DAYS, "-subj", subject, *added, *signed, *files)


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode != 0:
        raise CertificateError(f"openssl {arguments[0]} failed; version 3 or newer is needed:\n{done.stderr.strip()}")
