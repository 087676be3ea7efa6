"""A small HTTP server, and the program that starts and stops it: `haproxy_server.py start|stop|serve PORT FOLDER`.

It ends at once when it is told to: whoever stops it with a request in hand loses that request.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"
LONGEST_SECONDS = 180.0  # it outlives no test for long


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/slow/"):
            time.sleep(float(self.path.removeprefix("/slow/")))
        body = f"{self.server.server_port}\n".encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def serve(port: int, folder: Path) -> None:
    """It loads for a while first, where the file `loads` says how long."""
    loads = folder / "loads"
    time.sleep(float(loads.read_text()) if loads.exists() else 0.0)
    end = threading.Timer(LONGEST_SECONDS, lambda: os._exit(1))
    end.daemon = True
    end.start()
    Server((HOST, port), Handler).serve_forever()


@contextlib.contextmanager
def alone(port: int, folder: Path) -> Iterator[None]:
    """One after the other: whoever asked may be killed, and its successor asks while the program still runs."""
    with (folder / f"{port}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(port: int, folder: Path) -> None:
    """Told again, it finds the server running and is content."""
    if (folder / "broken").exists():
        sys.exit(f"port {port}: told to fail")
    note(folder, f"start {port}")
    if not running(port, folder):
        argv = [sys.executable, "-S", "-I", __file__, "serve", str(port), str(folder)]
        if (folder / "deaf").exists():
            argv = ["sleep", "60"]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        (folder / f"{port}.pid").write_text(str(process.pid))


def stop(port: int, folder: Path) -> None:
    note(folder, f"stop {port}")
    pid = running(port, folder)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    (folder / f"{port}.pid").unlink(missing_ok=True)


def running(port: int, folder: Path) -> int | None:
    """Its process id, while it lives."""
    try:
        pid = int((folder / f"{port}.pid").read_text())
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return None
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid


def note(folder: Path, what: str) -> None:
    with (folder / "told").open("a") as file:
        file.write(f"{what}\n")


if __name__ == "__main__":
    verb, number, where = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if verb == "serve":
        with contextlib.suppress(KeyboardInterrupt, socket.error):
            serve(number, where)
    else:
        with alone(number, where):
            {"start": start, "stop": stop}[verb](number, where)
