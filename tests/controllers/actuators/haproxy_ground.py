"""A real HAProxy with one backend, small HTTP servers as its programs, and clients that count what they lose."""

import http.client
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controllers.actuators.haproxy import haproxy_actuator
from controllers.actuators.haproxy_socket import Runtime
from controllers.actuators.interface import Actuator
from controllers.config.haproxy import HaproxyTarget
from testbed.parts import HOST, free_port
from testbed.services import HAProxy
from tests.controllers.actuators import haproxy_server

# No retries and no redispatch: a request that meets a server that is not there is lost, and seen to be.
CONFIG = """\
global
  stats socket {folder}/admin.sock mode 600 level admin expose-fd listeners
  stats socket {folder}/operator.sock mode 600 level operator
defaults
  mode http
  retries 0
  option idle-close-on-response
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  timeout queue 5s
frontend fe
  bind {host}:{port}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  default_backend be_app
backend be_app
  balance {balance}
  option httpchk GET /healthz
  # tidewise: begin
  # tidewise: end
  {own}
"""


class Ground:
    """`with Ground(folder, root) as ground:`; `slots` servers may be had."""

    def __init__(
        self,
        folder: Path,
        root: Path,
        *,
        slots: int = 5,
        balance: str = "roundrobin",
        own: str = "",
        drain: float = 1.0,
    ) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(slots)]
        port = free_port()
        config = CONFIG.format(folder=folder, host=HOST, port=port, balance=balance, own=own)
        self.haproxy = HAProxy(folder, None, port=port, reloads=True, root=root)
        self.haproxy.config_file.write_text(config)
        self.drain = drain

    def __enter__(self) -> Self:
        self.haproxy.start()
        until((self.folder / "admin.sock").exists)  # HAProxy 3.0 may be a moment later with it than with its port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in self.ports:
            haproxy_server.stop(port, self.folder)
        self.haproxy.stop()

    @property
    def file(self) -> Path:
        return self.haproxy.config_file

    def settings(self, **changes: Any) -> dict[str, Any]:
        """The target as it stands in the configuration."""
        program = [sys.executable, "-S", "-I", haproxy_server.__file__]
        return {
            "socket": f"{self.folder}/admin.sock",
            "backend": "be_app",
            "file": str(self.file),
            "servers": [f"{HOST}:{port}" for port in self.ports],
            "options": "check inter 100ms rise 1 fall 2",
            "start": [*program, "start", "{port}", str(self.folder)],
            "stop": [*program, "stop", "{port}", str(self.folder)],
            "drain_seconds": self.drain,
            "ready_seconds": 5.0,
            **changes,
        }

    def actuator(self, **changes: Any) -> Actuator:
        return haproxy_actuator(HaproxyTarget.model_validate(self.settings(**changes)))

    def name(self, index: int) -> str:
        return f"tidewise-{HOST}:{self.ports[index]}"

    def ask(self, command: str) -> str:
        return Runtime(f"{self.folder}/admin.sock", "be_app").ask(command, time.monotonic() + 5)

    def lines(self) -> list[str]:
        """What stands between the marks, without the note."""
        text = self.file.read_text()
        return [line.strip() for line in text[text.index("begin") : text.index("# tidewise: end")].splitlines()[2:-1]]

    def told(self) -> list[str]:
        """What the programs were told, in order."""
        path = self.folder / "told"
        return path.read_text().splitlines() if path.exists() else []

    def running(self) -> list[int]:
        """Indexes of the servers whose program lives."""
        return [index for index, port in enumerate(self.ports) if haproxy_server.running(port, self.folder)]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within its time"
        time.sleep(0.05)


def settle(actuator: Actuator, replicas: int, seconds: float = 12.0) -> None:
    """Told again and again, as `scale` does, until nothing is open."""

    def settled() -> bool:
        actuator.apply(replicas, 10)
        now = actuator.read_replicas(10)
        return (now.wanted, now.ready, now.draining, now.unfinished) == (replicas, replicas, 0, False)

    until(settled, seconds)


class Load:
    """Clients of several kinds: kept connections, new ones, and slow requests. `answers` counts status or error."""

    def __init__(
        self, port: int, *, kept: int = 3, fresh: int = 2, slow: int = 3, pause: float = 0.02, path: str = "/slow/0.5"
    ) -> None:
        self.port = port
        self.answers: Counter[str] = Counter()
        self.servers: Counter[str] = Counter()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        kinds = [("/", True, pause)] * kept + [("/", False, pause)] * fresh + [(path, True, 0.0)] * slow
        self._threads = [threading.Thread(target=self._run, args=kind, daemon=True) for kind in kinds]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    @property
    def lost(self) -> dict[str, int]:
        return {answer: count for answer, count in self.answers.items() if answer != "200"}

    def _run(self, path: str, keep: bool, pause: float) -> None:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        while not self._stop.wait(pause):
            try:
                connection.request("GET", path, headers={} if keep else {"Connection": "close"})
                response = connection.getresponse()
                body = response.read()
                answer, server = str(response.status), body.decode().strip() if response.status == 200 else ""
            except (OSError, http.client.HTTPException) as error:
                answer, server = type(error).__name__, ""
                connection.close()
            with self._lock:
                self.answers[answer] += 1
                self.servers[server] += 1
        connection.close()
