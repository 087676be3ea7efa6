"""The servers that exporters are tested on: PostgreSQL, RabbitMQ, HAProxy, nginx, other people's exporters, a fake AWS.

They are parts like those of `testbed.parts`, from the second tree (`fetch.ensure_services()`).
"""

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

from testbed import fetch
from testbed.parts import HOST, Part, PartError

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

    def stop(self) -> None:
        """Ask it to end without waiting for its clients (INT), as `pg_ctl stop` does."""
        if self.running and self._process is not None:
            self._process.send_signal(2)
        super().stop()

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


def as_ordinary_user() -> list[str]:
    """A prefix for programs that refuse root: `nobody`, who may still go into every folder. Nothing for other users."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PartError("setpriv is not on this machine: install util-linux, or run this as an ordinary user")
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [setpriv, *ids, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
