"""Has models fitted in a spawned process of low priority, so that the one that serves /metrics stays small and quick.

The process lives for one round of workloads: its memory goes back, and whatever kills it takes only that round along.
Below it there may be a pool, or a Dask cluster beside it: see `crew`.
"""

import atexit
import contextlib
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from controllers.forecast.crew import work
from controllers.forecast.job import Done, Failure, Job, Packed, fit, packed
from controllers.forecast.selection import Fitted

STUCK_SECONDS = 600.0  # a round that gives no result for so long
ROUND_BYTES = 64 << 20  # of jobs waiting for their turn, as this process holds them


class Fitter:
    """At most one round at a time; `close` ends it at once.

    `workers`: processes of this machine that fit; 1: the spawned one itself; 0: as many as there are cores but one.
    `scheduler`: of a Dask cluster, whose workers fit as long as it can be reached.
    """

    def __init__(self, fit: Callable[[Job], Fitted] = fit, *, workers: int = 1, scheduler: str | None = None) -> None:
        self._fit, self._workers, self._scheduler = fit, workers, scheduler
        self._process: BaseProcess | None = None
        self._answers: Connection | None = None
        self._feed: Feed | None = None
        self._deadline = 0.0
        self._troubles: list[Failure] = []

    @property
    def busy(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of the process that fits; None between rounds."""
        return self._process.pid if self._process is not None else None

    def begin(self, jobs: Mapping[str, Job]) -> list[str]:
        """Starts a round of the first of the jobs, by workload, up to ROUND_BYTES of them; none while one is running.

        Returns the workloads that are in it.
        """
        if self.busy or not jobs:
            return []
        batch: dict[str, Packed] = {}
        size = 0
        for workload, job in jobs.items():
            batch[workload] = packed(job)
            size += len(batch[workload].payload)
            if size > ROUND_BYTES:
                break
        # matrices this small gain nothing from threads, which would only take other processes' time
        for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        try:
            ours = self._start()
        except OSError as error:  # no process, memory or file is left
            self._troubles.append(Failure("not_started", f"the fitting process could not be started: {error}"))
            return []
        atexit.register(self.close)
        names = list(batch)
        self._feed = Feed(ours, batch)
        self._feed.start()
        self._deadline = time.monotonic() + STUCK_SECONDS
        return names

    def _start(self) -> Connection:
        """Starts the process; what is sent into the connection is fitted there. Raises OSError."""
        context = multiprocessing.get_context("spawn")
        with contextlib.ExitStack() as unless_started:
            theirs, ours = context.Pipe(duplex=False)
            unless_started.callback(theirs.close)
            unless_started.callback(ours.close)
            answers, results = context.Pipe(duplex=False)
            unless_started.callback(answers.close)
            unless_started.callback(results.close)
            arguments = (os.getpid(), theirs, results, self._fit, self._workers, self._scheduler)
            # not a daemon in multiprocessing's sense: those may not have a pool below them
            process = context.Process(target=work, args=arguments, name="tidewise-fit")
            process.start()
            unless_started.pop_all()
        theirs.close()
        results.close()
        self._process, self._answers = process, answers
        return ours

    def collect(self, wait_seconds: float = 0.0) -> dict[str, Done]:
        """What was finished since the last call; waits up to `wait_seconds` for the round to end.

        Of a round whose process died or was stuck, workloads that it had been given are failures; the rest was not
        tried and is not mentioned.
        """
        found: dict[str, Done] = {}
        until = time.monotonic() + wait_seconds
        while self._feed is not None and self._process is not None and self._answers is not None:
            try:
                if not self._answers.poll(max(0.0, until - time.monotonic())):
                    if time.monotonic() > self._deadline:
                        found.update(self._end("stuck", f"the fit took longer than {STUCK_SECONDS:.0f} s"))
                    return found
                answer = self._answers.recv()
            except (EOFError, OSError):  # it has ended; between two answers or in the middle of one
                self._process.join(5.0)
                found.update(self._end("died", f"the fitting process ended with status {self._process.exitcode}"))
                return found
            if isinstance(answer, Failure):
                self._troubles.append(answer)
                continue
            workload, result = answer
            self._feed.given.discard(workload)
            found[workload] = pickle.loads(result)  # noqa: S301 - our own process made it
            self._deadline = time.monotonic() + STUCK_SECONDS
        return found

    def troubles(self) -> list[Failure]:
        """What went wrong since the last call without costing a workload its fit."""
        found, self._troubles = self._troubles, []
        return found

    def close(self) -> None:
        """Ends a running round without waiting for its results."""
        self._end("closed", "")

    def _end(self, kind: str, message: str) -> dict[str, Done]:
        lost: dict[str, Done] = {}
        if self._process is not None:
            self._process.kill()
            self._process.join(5.0)
            self._process.close()
            atexit.unregister(self.close)
        if self._feed is not None:
            self._feed.join(5.0)  # nobody reads any more, so it has ended
            lost = {workload: Done(Failure(kind, message)) for workload in self._feed.given}
        if self._answers is not None:
            self._answers.close()
        self._process, self._answers, self._feed = None, None, None
        return lost


class Feed(threading.Thread):
    """Hands the jobs over as the process asks for them: it holds a few, never all."""

    def __init__(self, jobs: Connection, batch: dict[str, Packed]) -> None:
        super().__init__(name="tidewise-feed", daemon=True)
        self._jobs, self._batch = jobs, batch
        self.given: set[str] = set()  # and not answered

    def run(self) -> None:
        try:
            for workload in list(self._batch):
                self.given.add(workload)
                self._jobs.send((workload, self._batch.pop(workload)))
        except OSError:  # the process has ended
            pass
        finally:
            self._jobs.close()
