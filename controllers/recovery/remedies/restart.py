"""Restart by a program of the user's own: an argument list, {instance} filled in, never a shell.

Exit status 0 says that the program believes it, no more; whether it helped, the symptom says.
"""

import os
import signal
import subprocess
import tempfile

from controllers.config.recovery import RecoveryTarget, is_instance
from controllers.recovery.operation import Result
from controllers.recovery.remedies.interface import Ask, Outcome, Remedy

DETAIL_BYTES = 300


def restart_remedy(target: RecoveryTarget) -> Remedy | None:
    """The target's `restart:`."""
    settings = target.restart
    if settings is None:
        return None

    def apply(ask: Ask, seconds: float) -> Outcome:
        if not is_instance(ask.instance):
            return Outcome(Result.REFUSED, f"{ask.instance!r} is no name that may stand in an argument")
        argv = [settings.argv[0], *(argument.replace("{instance}", ask.instance) for argument in settings.argv[1:])]
        return run(argv, min(seconds, settings.timeout_seconds), {"TIDEWISE_EFFECT": ask.effect})

    def read_back(ask: Ask, seconds: float) -> Outcome:
        return Outcome(Result.UNKNOWN, "the process ended during the attempt; only the symptom can tell")

    return Remedy(apply, read_back, settings.timeout_seconds)


def run(argv: list[str], seconds: float, environment: dict[str, str]) -> Outcome:
    """Runs the program; it and its children are ended when they take longer than `seconds`.

    What it writes goes to a file and not to a pipe: a restarted service that inherits a pipe would keep it open, and
    the restart would seem to hang.
    """
    shown = " ".join(argv)
    with tempfile.TemporaryFile() as written:
        try:
            process = subprocess.Popen(  # noqa: S603 - an argument list from the configuration, never a shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        except OSError as error:
            return Outcome(Result.FAILED, f"{shown}: could not be started ({error.strerror})")
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Outcome(Result.UNKNOWN, f"{shown}: did not end within {seconds:.0f} s and was stopped")
        if status == 0:
            return Outcome(Result.DONE, f"{shown}: exited 0")
        written.seek(max(0, written.seek(0, os.SEEK_END) - DETAIL_BYTES))
        said = written.read().decode(errors="replace").strip() or "nothing"
        return Outcome(Result.FAILED, f"{shown}: exited {status}; it said: {said}")
