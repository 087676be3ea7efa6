"""Certificates, and endpoints that show them."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.exporters.authority import Authority
from tests.exporters.runtime.served import Serve, Served


@pytest.fixture(scope="package")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="package")
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


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with contextlib.ExitStack() as running:

        def start(text: str) -> Served:
            served = Served(tmp_path, text)
            running.callback(threading.Thread(target=served.endpoint.stop).start)  # half a second that nobody waits for
            running.callback(served.hanging.gate.set)
            return served

        yield start
