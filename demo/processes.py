"""Our own processes of the demo: started in sessions of their own, ended by their own process ids, never by name."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.parts import http_status


class OwnProcess:
    """One `python -m …` of the demo or of Tidewise, with its output in `NAME.log` of the folder.

    module and arguments: what is run. port: where its endpoint says whether it is ready; None: it has none.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        module: str,
        arguments: Sequence[str],
        *,
        port: int | None = None,
        stop_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.argv = [sys.executable, "-m", module, *arguments]
        self.port = port
        self.stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def ending(self) -> str | None:
        """How it ended ("exit status 1", "signal SIGKILL"), None while it runs and before its start."""
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def start(self) -> None:
        """Start it; does not wait. Call it in the main thread: the kernel ends it with the thread that started it."""
        setpriv = shutil.which("setpriv")
        with_us = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*with_us, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def answers(self) -> bool:
        """Whether it says of itself that it is ready."""
        return self.running and (self.port is None or http_status(self.port, "/-/ready", 1.0) == 200)

    def stop(self) -> None:
        """Ask it to end (TERM); end it and what it started (KILL) when it has not ended in time."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """End it and everything of its session at once (KILL)."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own: only its children are in it
        process.wait()

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of its log, indented; a remark when there are none."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (it wrote nothing)"
