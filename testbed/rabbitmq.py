"""A RabbitMQ for tests and benchmarks."""

import base64
import http.client
import itertools
import json
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from testbed.parts import HOST, PartError, die_with_starter, free_port
from testbed.services import Service


class RabbitMQ(Service):
    """A RabbitMQ with its management and Prometheus plugins. `guest`/`guest` may do everything.

    It is stopped as by a crash: an orderly stop takes six seconds, and nothing here has to survive.

    Its queues tell their numbers every 200 ms, and the management plugin takes them up every second; where nobody says
    otherwise, both do so every 5 s.

    settings: more lines of its configuration, e.g. {"management.disable_stats": "true"}.
    """

    name = "rabbitmq"
    ready_seconds = 60.0
    stop_signal = signal.SIGKILL

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        root: Path | None = None,
    ) -> None:
        super().__init__(folder, port=port, root=root)
        self.management_port, self.metrics_port = free_port(), free_port()
        self._inner_port, self._names_port = free_port(), free_port()
        self.settings = {
            "management.tcp.ip": HOST,
            "management.tcp.port": str(self.management_port),
            "prometheus.tcp.ip": HOST,
            "prometheus.tcp.port": str(self.metrics_port),
            "collect_statistics_interval": "200",
            **(settings or {}),
        }
        self._numbers = itertools.count(1)
        self._names: subprocess.Popen[bytes] | None = None  # epmd, where Erlang programs look each other up

    @property
    def url(self) -> str:
        return self.vhost_url("/")

    def vhost_url(self, vhost: str) -> str:
        """Where AMQP clients reach one virtual host."""
        return f"amqp://guest:guest@{HOST}:{self.port}/{quote(vhost, safe='')}"

    @property
    def management_url(self) -> str:
        """The management API is below `/api`."""
        return f"http://{HOST}:{self.management_port}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus plugin: `/metrics`, `/metrics/per-object`, `/metrics/detailed?family=…`."""
        return f"http://{HOST}:{self.metrics_port}"

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the management API: `api("GET", "/queues")`. PartError where it refuses."""
        connection = http.client.HTTPConnection(HOST, self.management_port, timeout=10)
        login = base64.b64encode(b"guest:guest").decode()
        try:
            connection.request(
                method,
                f"/api{path}",
                json.dumps(body),
                {"Authorization": f"Basic {login}", "Content-Type": "text/json"},
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise PartError(f"rabbitmq: {method} {path} was answered with {answer.status}: {text.decode()}")
        return json.loads(text) if text else None

    def make_vhost(self) -> str:
        """A fresh virtual host, on which `guest` may do everything; returns its name."""
        name = f"fresh-{next(self._numbers)}"
        self.api("PUT", f"/vhosts/{name}", {})
        self.api("PUT", f"/permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        return name

    def drop_vhost(self, name: str) -> None:
        """Drop it with all its queues and connections."""
        self.api("DELETE", f"/vhosts/{quote(name, safe='')}")

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{key} = {value}\n" for key, value in self.settings.items()]
        (self.folder / "rabbitmq.conf").write_text("".join(lines))
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management,rabbitmq_prometheus].\n")
        kept = "[{global,[{600,1}]},{basic,[{600,1}]},{detailed,[{10,1}]}]"  # seconds, and how often
        agent = f"[{{rabbitmq_management_agent,[{{sample_retention_policies,{kept}}}]}}].\n"
        (self.folder / "advanced.config").write_text(agent)
        if self._names is None:
            epmd = self.program("usr/lib/erlang/erts-*/bin/epmd")
            command = [*die_with_starter(), epmd, "-port", str(self._names_port), "-address", HOST]
            self._names = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
        return super().start()

    def kill(self) -> None:
        super().kill()
        if self._names is not None:
            self._names.kill()
            self._names.wait()
            self._names = None

    def environment(self) -> dict[str, str]:
        erlang = self.root / "usr/lib/erlang"
        home = Path(self.program("usr/lib/rabbitmq/lib/*"))
        inherited = {key: value for key, value in super().environment().items() if not key.startswith("RABBITMQ_")}
        own = {
            "ADVANCED_CONFIG_FILE": self.folder / "advanced.config",
            "CONFIG_FILE": self.folder / "rabbitmq.conf",
            "CONF_ENV_FILE": self.folder / "rabbitmq-env.conf",
            "DIST_PORT": self._inner_port,
            "ENABLED_PLUGINS_FILE": self.folder / "enabled_plugins",
            "FEATURE_FLAGS_FILE": self.folder / "feature_flags",
            "GENERATED_CONFIG_DIR": self.folder / "generated",
            "HOME": home,
            "LOGS": "-",
            "LOG_BASE": self.folder / "log",
            "MNESIA_BASE": self.folder / "mnesia",
            "NODENAME": "tidewise@localhost",
            "NODE_IP_ADDRESS": HOST,
            "NODE_PORT": self.port,
            "PID_FILE": self.folder / "pid",
            "PLUGINS_DIR": home / "plugins",
        }
        return inherited | {
            "ROOTDIR": str(erlang),
            "BINDIR": str(Path(self.program("usr/lib/erlang/erts-*/bin/erlexec")).parent),
            "EMU": "beam",
            "PROGNAME": "erl",
            "HOME": str(self.folder),  # keeps the secret that Erlang programs share
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_LIBS": str(home / "plugins"),
            **{f"RABBITMQ_{key}": str(value) for key, value in own.items()},
        }

    def argv(self) -> list[str]:
        # What the package's shell scripts come to, without them: the process that is started is the server itself.
        program = self.program("usr/lib/erlang/erts-*/bin/erlexec")
        boot = "-noinput -s rabbit boot -boot start_sasl -start_epmd false"
        idle = "+W w +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"  # its threads do not spin while they wait
        kernel = "-kernel prevent_overlapping_partitions false -kernel inet_dist_use_interface {127,0,0,1}"
        logs = "-syslog logger [] -syslog syslog_error_logger false"
        return [program, *boot.split(), *idle.split(), *kernel.split(), *logs.split()]

    def answers(self) -> bool:
        # The management API listens before the rest has started; this check knows.
        try:
            return bool(self.api("GET", f"/health/checks/port-listener/{self.port}")["status"] == "ok")
        except (OSError, http.client.HTTPException, ValueError, PartError):
            return False
