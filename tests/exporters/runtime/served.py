"""What the tests of the web configuration share: hashes, headers, and an endpoint whose file can be rewritten."""

import base64
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import psutil
from prometheus_client import CollectorRegistry

from exporters.runtime.endpoint import Endpoint
from exporters.runtime.web import Web


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


ALICE = hashed("wonderland")


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def tls_section(issued: dict[str, tuple[Path, Path]], name: str = "server", more: str = "") -> str:
    cert_file, key_file = issued[name]
    return f"tls_server_config:\n  cert_file: {cert_file}\n  key_file: {key_file}\n{more}"


def rewrite(path: Path, text: str) -> None:
    """As a careful tool does: the new file takes the old one's place at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


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
