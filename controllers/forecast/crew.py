"""Who fits the jobs of one round: this process, a pool of processes below it, or the workers of a Dask cluster.

Runs in the process that `Fitter` spawned, which holds few jobs at a time: it takes the next one when there is room.
Nothing here outlives it: the kernel ends the processes of the pool when this one ends, and this one with its parent.
"""

import ctypes
import functools
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from controllers.forecast.job import Done, Failure, Job, Packed, done, edition
from controllers.forecast.selection import Fitted

NICENESS = 10
CONNECT_SECONDS = 5.0  # for a Dask scheduler to answer

Fit = Callable[[Job], Fitted]
Answer = tuple[str, bytes]


class ClusterError(Exception):
    """Why a Dask cluster could not be used. `kind` becomes a label."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class Waiting:
    """The jobs of the round as they arrive. One that was handed out and not answered is handed out anew."""

    def __init__(self, jobs: Connection) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()  # joblib takes the next job in the thread that heard of a result
        self._turn = 0
        self._out: dict[str, Packed] = {}
        self._ended = False

    def __iter__(self) -> Iterator[tuple[str, Packed]]:
        """Everything unanswered. Whoever iterated before gets nothing more."""
        with self._lock:
            self._turn += 1
            turn, again = self._turn, self.unanswered
        yield from again.items()
        while True:
            with self._lock:
                if self._ended or turn != self._turn:
                    return
                try:
                    name, packed = self._jobs.recv()
                except EOFError:  # that was the last one
                    self._ended = True
                    return
                self._out[name] = packed
            yield name, packed

    @property
    def left(self) -> bool:
        """Whether anything is still unanswered."""
        return bool(self._out) or not self._ended

    def answered(self, name: str) -> bool:
        """Whether this is the job's first answer."""
        return self._out.pop(name, None) is not None

    @property
    def unanswered(self) -> dict[str, Packed]:
        """What was handed out, as far as there is no answer."""
        return dict(self._out)


def work(parent: int, jobs: Connection, answers: Connection, fit: Fit, workers: int, scheduler: str | None) -> None:
    """The spawned process: an answer for each job, in any order, then it ends. `workers` 0: all cores but one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends this one
    end_with_parent(parent)
    os.nice(NICENESS)
    waiting = Waiting(jobs)
    try:
        if scheduler is not None:
            try:
                tell(answers, waiting, on_cluster(waiting, fit, scheduler))
            except ClusterError as error:  # what it has not answered is fitted here
                answers.send(Failure(error.kind, str(error)))
        while waiting.left:
            if workers == 1:
                tell(answers, waiting, ((name, done(packed, fit)) for name, packed in waiting))
            else:
                tell(answers, waiting, in_pool(waiting, fit, workers))
    except BrokenPipeError:  # nobody is left to fit for
        return
    answers.close()


def tell(answers: Connection, waiting: Waiting, results: Iterable[Answer]) -> None:
    for name, result in results:
        if waiting.answered(name):
            answers.send((name, result))


def in_pool(waiting: Waiting, fit: Fit, workers: int) -> Iterator[Answer]:
    """Fits in processes of this machine. One that dies takes along what all of them had; those jobs get one each."""
    import joblib
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        # payloads are bytes, so nothing is laid out in shared memory, where the killed leave theirs behind
        end = functools.partial(end_with_parent, os.getpid())
        with joblib.parallel_config(backend="loky", initializer=end, max_nbytes=None):
            yield from parallel(waiting, fit, workers or max(1, joblib.cpu_count() - 1))
    except BrokenProcessPool:
        for name, packed in waiting.unanswered.items():
            yield name, alone(packed, fit)


def alone(packed: Packed, fit: Fit) -> bytes:
    """Fits in a process of its own: whether it survives is this job's doing."""
    context = multiprocessing.get_context("spawn")
    answers, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work_alone, args=(os.getpid(), theirs, packed, fit))
    process.start()
    theirs.close()
    try:
        return answers.recv_bytes()
    except (EOFError, OSError):
        process.join()
        return pickle.dumps(Done(Failure("died", f"the fitting process ended with status {process.exitcode}")))
    finally:
        process.join()
        answers.close()


def work_alone(parent: int, answers: Connection, packed: Packed, fit: Fit) -> None:
    end_with_parent(parent)
    answers.send_bytes(done(packed, fit))


def on_cluster(waiting: Waiting, fit: Fit, scheduler: str) -> Iterator[Answer]:
    """Fits on the workers of a Dask cluster. Raises ClusterError when it cannot be used, or no longer."""
    try:
        host, _, port = scheduler.rpartition("://")[2].rpartition(":")
        # asked first: a client would try for as long as it may even where nobody listens
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()

        import joblib
        from distributed import Client

        client: Any = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (ImportError, OSError, ValueError) as error:
        raise ClusterError("cluster_unreachable", f"forecast.scheduler {scheduler}: {error}") from None
    with client:
        same_edition(client, scheduler)
        try:
            with joblib.parallel_config(backend="dask", client=client):
                yield from parallel(waiting, fit, -1)
        except Exception as error:  # of a library's many: whatever a cluster fails with, this machine can still fit
            raise ClusterError(
                "cluster_lost", f"forecast.scheduler {scheduler}: {type(error).__name__}: {error}"
            ) from None
        if waiting.left:  # joblib may take results that were cancelled for the end
            raise ClusterError("cluster_lost", f"forecast.scheduler {scheduler}: the connection ended")


def same_edition(client: Any, scheduler: str) -> None:
    """Raises ClusterError unless all workers have this Tidewise: they import what fits by its name."""

    def probe() -> str:  # travels as code, not by name: a worker may have nothing of ours
        try:
            from controllers.forecast.job import edition
        except ImportError:
            return "none"
        return edition()

    ours = edition()
    for worker, theirs in client.run(probe, on_error="return").items():
        if theirs != ours:
            raise ClusterError(
                "cluster_differs",
                f"forecast.scheduler {scheduler}: the worker {worker} has tidewise {theirs}, this machine {ours}; "
                "install the same on both",
            )


def parallel(waiting: Waiting, fit: Fit, jobs: int) -> Iterator[Answer]:
    """By joblib's backend in force; two jobs a worker are on their way at a time."""
    import joblib

    run = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    yield from run(joblib.delayed(one)(name, packed, fit) for name, packed in waiting)


def one(name: str, packed: Packed, fit: Fit) -> Answer:
    return name, done(packed, fit)


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when `parent`, which started it, ends, however that ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended just before
            os._exit(1)
