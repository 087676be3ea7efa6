"""Fits models in a spawned process of low priority, so that the one that serves /metrics stays small and quick.

The process lives for one round of workloads: its memory goes back, and whatever kills it takes only that round along.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from controllers.forecast.almanac import Calendar
from controllers.forecast.history import History
from controllers.forecast.selection import Fitted, select

NICENESS = 10
ROUND_SECONDS = 600.0  # a round that takes longer is stuck
ROUND_WORKLOADS = 50  # at once: their histories are copied to the process


@dataclass(frozen=True, slots=True)
class Job:
    """One workload to be fitted; its history ends now and has at least one known sample. The rest: see `select`."""

    history: History
    calendar: Calendar
    horizons_seconds: tuple[int, ...]
    hours: History | None = None
    window: tuple[float, float] | None = None
    heavy: bool = True
    before: Fitted | None = None


def fit(job: Job) -> Fitted:
    return select(
        job.history,
        job.calendar,
        job.horizons_seconds,
        hours=job.hours,
        window=job.window,
        heavy=job.heavy,
        before=job.before,
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a workload was not fitted. `kind` becomes a label."""

    kind: str
    message: str


class Fitter:
    """At most one round at a time; `close` ends it at once."""

    def __init__(self, fit: Callable[[Job], Fitted] = fit) -> None:
        self._fit = fit
        self._process: BaseProcess | None = None
        self._answers: Connection | None = None
        self._waiting: set[str] = set()
        self._deadline = 0.0

    @property
    def busy(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of the process that fits; None between rounds."""
        return self._process.pid if self._process is not None else None

    def begin(self, jobs: Mapping[str, Job]) -> list[str]:
        """Starts a round for up to ROUND_WORKLOADS of the jobs, by workload; none while one is running.

        Returns the workloads that are in it.
        """
        if self.busy or not jobs:
            return []
        batch = dict(list(jobs.items())[:ROUND_WORKLOADS])
        context = multiprocessing.get_context("spawn")
        self._answers, theirs = context.Pipe(duplex=False)
        # matrices this small gain nothing from threads, which would only take other processes' time
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        process = context.Process(target=work, args=(theirs, batch, self._fit), name="tidewise-fit", daemon=True)
        process.start()
        theirs.close()
        self._process, self._waiting, self._deadline = process, set(batch), time.monotonic() + ROUND_SECONDS
        return list(batch)

    def collect(self, wait_seconds: float = 0.0) -> dict[str, Fitted | Failure]:
        """What was finished since the last call; waits up to `wait_seconds` for the round to end.

        Workloads of a round whose process died or was stuck are failures.
        """
        done: dict[str, Fitted | Failure] = {}
        until = time.monotonic() + wait_seconds
        while self._process is not None and self._answers is not None:
            try:
                if not self._answers.poll(max(0.0, until - time.monotonic())):
                    if time.monotonic() > self._deadline:
                        done.update(self._end("stuck", f"the fit took longer than {ROUND_SECONDS:.0f} s"))
                    return done
                workload, result = self._answers.recv()
            except (EOFError, OSError):  # it has ended; between two answers or in the middle of one
                self._process.join(5.0)
                code = self._process.exitcode
                done.update(self._end("died", f"the fitting process ended with status {code}"))
                return done
            self._waiting.discard(workload)
            done[workload] = result
        return done

    def close(self) -> None:
        """Ends a running round without waiting for its results."""
        self._end("closed", "")

    def _end(self, kind: str, message: str) -> dict[str, Fitted | Failure]:
        lost: dict[str, Fitted | Failure] = {workload: Failure(kind, message) for workload in self._waiting}
        if self._process is not None:
            self._process.kill()
            self._process.join(5.0)
            self._process.close()
        if self._answers is not None:
            self._answers.close()
        self._process, self._answers, self._waiting = None, None, set()
        return lost


def work(answers: Connection, jobs: Mapping[str, Job], fit: Callable[[Job], Fitted]) -> None:
    """Runs in the spawned process: one answer a workload, then it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends this one
    os.nice(NICENESS)
    for workload, job in jobs.items():
        try:
            result: Fitted | Failure = fit(job)
        except Exception as error:  # the last resort: one workload's fit may not cost the others theirs
            result = Failure(type(error).__name__, str(error))
        try:
            answers.send((workload, result))
        except BrokenPipeError:  # nobody is left to fit for
            return
    answers.close()
