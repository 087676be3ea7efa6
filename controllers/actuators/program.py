"""Programs of the user's own: an argument list, never a shell, that has to end within its time."""

import os
import signal
import subprocess
from tempfile import TemporaryFile
from typing import IO

from controllers.actuators.interface import ActuatorError

OUTPUT_LIMIT_BYTES = 64 * 1024


def run_program(argv: list[str], seconds: float) -> str:
    """What it wrote to standard output. Raises ActuatorError with its own words when it failed.

    It and its children are ended when it takes longer than `seconds`. It has ended when it has, not when its output
    has: what it leaves running in the background may go on holding that.
    """
    shown = " ".join(argv)
    with _file(shown) as out, _file(shown) as err:
        try:
            process = subprocess.Popen(  # noqa: S603 - an argument list from the configuration, never a shell
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            raise ActuatorError(
                f"{shown}: could not be started ({error.strerror}); check the path and permissions"
            ) from None
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise ActuatorError(
                f"{shown}: did not end within {seconds:.0f} s and was stopped; is its target hanging?"
            ) from None
        if process.returncode != 0:
            err.seek(max(0, err.seek(0, os.SEEK_END) - OUTPUT_LIMIT_BYTES))
            said = err.read().decode(errors="replace").strip()[-200:] or "nothing on standard error"
            raise ActuatorError(f"{shown}: exited {process.returncode}; it said: {said}")
        out.seek(0)
        return out.read(OUTPUT_LIMIT_BYTES).decode(errors="replace")


def _file(shown: str) -> IO[bytes]:
    """For what it writes: a pipe would be held open by what it leaves running."""
    try:
        return TemporaryFile()
    except OSError as error:
        raise ActuatorError(
            f"{shown}: there is no place for its output ({error.strerror}); make room in the folder for temporary "
            "files, or name another in TMPDIR"
        ) from None
