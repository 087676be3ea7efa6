"""The servers that exporters are tested on: PostgreSQL, HAProxy, nginx, other people's exporters, a fake AWS.

They are parts like those of `testbed.parts`, from the second tree (`fetch.ensure_services()`). RabbitMQ is in a file of
its own.
"""

import http.client
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

from testbed import fetch
from testbed.parts import HOST, Part, PartError, http_status

NOBODY = 65534


class Service(Part):
    """A part from the second tree. root: None asks `fetch.ensure_services()`."""

    def __init__(self, folder: Path, *, port: int | None = None, root: Path | None = None) -> None:
        super().__init__(folder, port=port, root=fetch.ensure_services() if root is None else root)

    def program(self, pattern: str) -> str:
        """The one program of the tree whose path matches `pattern`."""
        found = sorted(self.root.glob(pattern))
        if not found:
            raise PartError(f"{self.name}: the tree {self.root} has no {pattern}: fetch it anew")
        return str(found[-1])


class PostgreSQL(Service):
    """A PostgreSQL that trusts everybody on loopback and writes without waiting for the disk. Superuser: `postgres`.

    settings: more of its configuration, e.g. {"max_connections": "20"}. `pg_stat_statements` is loaded.
    """

    name = "postgresql"
    stop_signal = signal.SIGINT  # does not wait for its clients

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
        root: Path | None = None,
    ) -> None:
        super().__init__(folder, port=port, root=root)
        self.settings = dict(settings or {})
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return self.dsn()

    @property
    def data_folder(self) -> Path:
        """Its database cluster; made at the first start."""
        return self.folder / "data"

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """The address of one database."""
        return f"postgresql://{user}@{HOST}:{self.port}/{quote(database, safe='')}"

    def make_database(self) -> str:
        """A fresh, empty database; returns its name."""
        name = f"fresh_{next(self._numbers)}"
        # Template0 and the default way of copying: 40 ms.
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, and end whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the superuser."""
        import psycopg

        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> Self:
        if not self.data_folder.exists():
            self._make_cluster()
        return super().start()

    def argv(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "jit": "off",  # its library is not in the tree
            "timezone": "GMT",  # the only one that needs no files of the system
            "log_timezone": "GMT",
            "autovacuum": "off",
            "shared_preload_libraries": "pg_stat_statements",
            **self.settings,
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        program = self.program("usr/lib/postgresql/*/bin/postgres")
        return [*as_ordinary_user(), program, "-D", str(self.data_folder), "-p", str(self.port), *options]

    def answers(self) -> bool:
        """Whether it lets somebody in: it listens a little before."""
        # A start message of protocol 3.0 for postgres@postgres; R is "you are authenticated", E an error.
        words = b"user\0postgres\0database\0postgres\0\0"
        message = (len(words) + 8).to_bytes(4) + (3 << 16).to_bytes(4) + words
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(message)
                return connection.recv(1) == b"R"
        except OSError:
            return False

    def _make_cluster(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data_folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.data_folder, NOBODY, NOBODY)
        program = self.program("usr/lib/postgresql/*/bin/initdb")
        options = ["-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "-N"]
        done = subprocess.run(
            [*as_ordinary_user(), program, *options, "-D", str(self.data_folder)],
            env=fetch.environment(self.root) | {"TZ": "GMT"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(self.data_folder)
            raise PartError(f"postgresql: initdb failed in {self.folder}:\n{done.stderr.strip()}")


class HAProxy(Service):
    """A HAProxy with a configuration of the caller's, which listens on `port`. `log stdout …` goes to `log_path`.

    config: None leaves `config_file` as it is. reloads: with a master process, which `reload()` tells.
    """

    name = "haproxy"

    def __init__(
        self, folder: Path, config: str | None, *, port: int, reloads: bool = False, root: Path | None = None
    ) -> None:
        super().__init__(folder, port=port, root=root)
        self.config = config
        self.reloads = reloads

    @property
    def config_file(self) -> Path:
        return self.folder / "haproxy.cfg"

    def argv(self) -> list[str]:
        if self.config is not None:
            self.config_file.write_text(self.config)
        mode = ["-W", "-db"] if self.reloads else ["-db"]
        return [self.program("usr/sbin/haproxy"), *mode, "-f", str(self.config_file)]

    def reload(self) -> None:
        """Let a new process with the present configuration take over; the old one ends with its last session."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGUSR2)

    def answers(self) -> bool:
        return _listens(self.port)


class Nginx(Service):
    """An nginx; http: what stands in the http block of its configuration, with a server that listens on `port`.

    Relative paths (`access_log access.log …`) are below `folder`. `reopen()` as after a rotation of its logs.
    """

    name = "nginx"

    def __init__(self, folder: Path, http: str, *, port: int, root: Path | None = None) -> None:
        super().__init__(folder, port=port, root=root)
        self.http = http

    def argv(self) -> list[str]:
        file = self.folder / "nginx.conf"
        temporary = "".join(
            f"  {kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file.write_text(
            f"{'user root;' if os.geteuid() == 0 else ''}\ndaemon off;\nworker_processes 1;\npid {self.folder}/pid;\n"
            f"error_log stderr;\nevents {{}}\nhttp {{\n{temporary}{self.http}\n}}\n"
        )
        return [self.program("usr/sbin/nginx"), "-p", f"{self.folder}/", "-e", "stderr", "-c", str(file)]

    def answers(self) -> bool:
        return _listens(self.port)

    def reopen(self) -> None:
        """Let it open its log files anew."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGUSR1)


class NodeExporter(Service):
    """Debian's prometheus-node-exporter. flags: more of its flags, e.g. ("--collector.disable-defaults",)."""

    name = "node-exporter"

    def __init__(
        self, folder: Path, *, flags: Sequence[str] = (), port: int | None = None, root: Path | None = None
    ) -> None:
        super().__init__(folder, port=port, root=root)
        self.flags = tuple(flags)

    def argv(self) -> list[str]:
        program = self.program("usr/bin/prometheus-node-exporter")
        return [program, f"--web.listen-address={HOST}:{self.port}", *self.flags]

    def answers(self) -> bool:
        return http_status(self.port, "/") == 200


class RedisExporter(NodeExporter):
    """Debian's prometheus-redis-exporter. flags: e.g. ("--redis.addr=redis://…", "--check-single-keys=video-jobs")."""

    name = "redis-exporter"

    def argv(self) -> list[str]:
        program = self.program("usr/bin/prometheus-redis-exporter")
        return [program, f"--web.listen-address={HOST}:{self.port}", *self.flags]


class PostgresExporter(NodeExporter):
    """Debian's prometheus-postgres-exporter, reading the database at `dsn`."""

    name = "postgres-exporter"

    def __init__(
        self, folder: Path, dsn: str, *, flags: Sequence[str] = (), port: int | None = None, root: Path | None = None
    ) -> None:
        super().__init__(folder, flags=flags, port=port, root=root)
        self.dsn = dsn

    def environment(self) -> dict[str, str]:
        return super().environment() | {"DATA_SOURCE_NAME": self.dsn + "?sslmode=disable"}

    def argv(self) -> list[str]:
        program = self.program("usr/bin/prometheus-postgres-exporter")
        return [program, f"--web.listen-address={HOST}:{self.port}", *self.flags]


class Moto(Part):
    """A fake AWS (moto) on loopback, which takes any credentials. It needs no tree."""

    name = "moto"

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder, port=port, root=Path(sys.prefix))

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]

    def answers(self) -> bool:
        return http_status(self.port, "/moto-api/") == 200

    def reset(self) -> None:
        """Forget everything."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("POST", "/moto-api/reset")
            connection.getresponse().read()
        finally:
            connection.close()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def as_ordinary_user() -> list[str]:
    """A prefix for programs that refuse root: `nobody`, who may still go into every folder. Nothing for other users."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PartError("setpriv is not on this machine: install util-linux, or run this as an ordinary user")
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [setpriv, *ids, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
