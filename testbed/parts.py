"""Starts and stops the real parts (Redis, Prometheus, Alertmanager) on loopback, each by its own process id.

Every part keeps its data and its log in a folder of its own, takes a port that is given or free, and is ready when
`start()` returns. A part runs in a session of its own: a Ctrl-C typed at the terminal reaches only the program
that started it; that program then stops its parts in the order it wants.
"""

import http.client
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed import fetch

HOST = "127.0.0.1"
# Below the range from which outgoing connections take their ports, so that no client of ours snatches one meanwhile.
PORTS = range(20000, 32000)
_given_ports: set[int] = set()
# Names in the kernel, gone with this process, that other programs of ours see: a port is bound only some time after it
# was given. The newest hundred are enough.
_claims: deque[socket.socket] = deque(maxlen=100)


class PartError(RuntimeError):
    """A part that cannot start, died or does not answer. The message says what to do and quotes the end of its log."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now, that this process has not been given before, and no other has."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in _given_ports and not port_in_use(port) and _claimed(port):
            _given_ports.add(port)
            return port
    raise PartError(f"no free port between {PORTS.start} and {PORTS.stop - 1} on {HOST}: stop some servers")


def _claimed(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0tidewise-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def port_in_use(port: int) -> bool:
    """Whether a program listens on this port of 127.0.0.1 (closed connections that linger do not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


class Part(ABC):
    """One program: `with Redis(folder) as redis: redis.url`. It can be stopped and started again on the same data.

    folder: taken as it is or made; holds `NAME.log` and the part's data, and survives the stop.
    port: None takes a free one at once, so that `port` and `url` can be written into other parts' configuration.
    root: the unpacked tree; None asks `fetch.ensure()`, which fetches it when it is not there yet.
    """

    name: str
    ready_seconds: float = 30.0
    stop_seconds: float = 15.0
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, *, port: int | None = None, root: Path | None = None) -> None:
        self.folder = Path(folder).resolve()
        self.port = free_port() if port is None else port
        self.root = fetch.ensure() if root is None else Path(root)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients reach it, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def log_path(self) -> Path:
        """What the program wrote, all starts one after another."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def ending(self) -> str | None:
        """How it ended by itself ("exit status 1", "signal SIGKILL"). None while it runs and after a stop."""
        code = self._process.poll() if self._process is not None else None
        return None if code is None else _ending(code)

    @abstractmethod
    def argv(self) -> list[str]:
        """The program and its arguments."""

    def work_folder(self) -> Path:
        """The folder the program runs in."""
        return self.folder

    def environment(self) -> dict[str, str]:
        """The environment the program runs in."""
        return fetch.environment(self.root)

    def answers(self) -> bool:
        """Whether the program says of itself that it is ready. False while it cannot be reached."""
        return http_status(self.port, "/-/ready") == 200

    def start(self) -> Self:
        """Start it and wait until it is ready. PartError when its port is taken, it dies or is not ready in time."""
        if self.running:
            raise PartError(f"{self.name}: already running with process id {self.pid}")
        if port_in_use(self.port):
            raise PartError(
                f"{self.name}: port {self.port} on {HOST} is in use by another program; "
                "stop that one or choose another port"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*die_with_starter(), *self.argv()],
                cwd=self.work_folder(),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:  # also Ctrl-C while waiting: nothing that was started may stay behind
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ask it to end; end it (KILL) when it has not ended in time. Nothing happens when it does not run."""
        process = self._process
        if process is None:
            return
        process.send_signal(self.stop_signal)
        try:
            process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when a second Ctrl-C ends the waiting; nothing happens to one that has ended
            self.kill()

    def kill(self) -> None:
        """End it at once (KILL), as a crash would."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        self._process = None

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, indented; a remark when there are none."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (it wrote nothing)"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while not (self.answers() and self.running):
            if self.ending is not None:
                raise PartError(
                    f"{self.name} ended with {self.ending} before it was ready. {self.log_path}:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise PartError(
                    f"{self.name} was not ready within {self.ready_seconds:g} s on port {self.port}. "
                    f"{self.log_path}:\n{self.log_tail()}"
                )
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Redis(Part):
    """A Redis that keeps nothing on disk; what it holds is gone after a stop."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def argv(self) -> list[str]:
        options = ["--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "no", "--daemonize", "no"]
        return [str(self.root / "usr/bin/redis-server"), *options]

    def answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Prometheus(Part):
    """A Prometheus with its classic pages. Blocks go into `data_folder` before the start, or while it runs.

    retention: how long samples are kept, as `--storage.tsdb.retention.time` reads it ("40d").
    external_url: under which a browser reaches it, where that is not `url`. Debian's build serves its pages below
        `/classic/` (`{url}/classic/graph?g0.expr=…`), while the links it puts into alerts leave that out.
    flags: more command-line flags, e.g. ("--enable-feature=memory-snapshot-on-shutdown",).
    """

    name = "prometheus"
    ready_seconds = 60.0

    def __init__(
        self,
        folder: Path,
        config_file: Path,
        *,
        port: int | None = None,
        retention: str = "40d",
        external_url: str | None = None,
        flags: Sequence[str] = (),
        root: Path | None = None,
    ) -> None:
        super().__init__(folder, port=port, root=root)
        self.config_file = Path(config_file).resolve()
        self.retention = retention
        self.external_url = external_url
        self.flags = tuple(flags)

    @property
    def data_folder(self) -> Path:
        """Its time-series database."""
        return self.folder / "data"

    def argv(self) -> list[str]:
        return [
            str(self.root / "usr/bin/prometheus"),
            f"--config.file={self.config_file}",
            f"--web.listen-address={HOST}:{self.port}",
            f"--web.local-assets={self.root}/usr/share/prometheus/web/",
            f"--storage.tsdb.path={self.data_folder}",
            f"--storage.tsdb.retention.time={self.retention}",
            f"--web.external-url={self.external_url or self.url}",
            "--web.route-prefix=/",
            *self.flags,
        ]


class Alertmanager(Part):
    """An Alertmanager without peers.

    external_url: under which a browser reaches it, for links in notifications; None means `url`.
    flags: more command-line flags.
    """

    name = "alertmanager"

    def __init__(
        self,
        folder: Path,
        config_file: Path,
        *,
        port: int | None = None,
        external_url: str | None = None,
        flags: Sequence[str] = (),
        root: Path | None = None,
    ) -> None:
        super().__init__(folder, port=port, root=root)
        self.config_file = Path(config_file).resolve()
        self.external_url = external_url
        self.flags = tuple(flags)

    def work_folder(self) -> Path:
        return self.root  # its built-in template is read relative to the unpacked tree: see fetch.relocate_template

    def argv(self) -> list[str]:
        return [
            str(self.root / "usr/bin/prometheus-alertmanager"),
            f"--config.file={self.config_file}",
            f"--web.listen-address={HOST}:{self.port}",
            "--cluster.listen-address=",
            f"--storage.path={self.folder / 'data'}",
            f"--web.external-url={self.external_url or self.url}",
            *self.flags,
        ]


def promtool(*args: str | Path, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool and wait. The caller looks at `returncode`, `stdout` and `stderr`."""
    return _run_tool("promtool", args, root)


def amtool(*args: str | Path, root: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Alertmanager's amtool and wait, as `promtool` does."""
    return _run_tool("amtool", args, root)


def create_blocks(openmetrics_path: Path, out_dir: Path, *, root: Path | None = None) -> list[Path]:
    """Turn a text of timestamped samples into database blocks, put into `out_dir`; returns the block folders.

    openmetrics_path: an OpenMetrics text file with timestamps in seconds, ending in `# EOF`.
    out_dir: made when absent; a Prometheus's `data_folder`, before its start (there at once) or while it runs (seen
    within a minute). When promtool fails PartError quotes it and `out_dir` stays as it was.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    # promtool leaves half-made blocks behind when it fails, so it writes into a fresh folder on the same disk.
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=".blocks-") as fresh:
        # A hidden flag: blocks of a month instead of two hours make this sixty times as fast.
        done = promtool(
            "tsdb", "create-blocks-from", "--max-block-duration=744h", "openmetrics", openmetrics_path, fresh, root=root
        )
        if done.returncode != 0:
            raise PartError(
                f"promtool made no blocks of {openmetrics_path}:\n{done.stderr.strip() or done.stdout.strip()}"
            )
        blocks = [block for block in sorted(Path(fresh).iterdir()) if (block / "meta.json").exists()]
        return [Path(shutil.move(block, out_dir / block.name)) for block in blocks]


def http_status(port: int, path: str, timeout_seconds: float = 2.0) -> int | None:
    """The status a GET on 127.0.0.1 is answered with, None when nobody answers. It asks no proxy."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _run_tool(name: str, args: Sequence[str | Path], root: Path | None) -> subprocess.CompletedProcess[str]:
    tree = fetch.ensure() if root is None else Path(root)
    program = tree / "usr/bin" / name
    cwd = tree if name == "amtool" else None
    return subprocess.run(
        [str(program), *map(str, args)],
        cwd=cwd,
        env=fetch.environment(tree),
        capture_output=True,
        text=True,
        check=False,
    )


def die_with_starter() -> list[str]:
    """A prefix that lets the kernel end the part when the starting program is killed and can stop nothing any more.

    The kernel watches the thread that started the part, so this is only right for the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
