"""One thread writes the ledger; what waits meanwhile is committed together, and answered only then."""

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, TypeVar

from controllers.budget.schema import LedgerError, LedgerOverloadedError, translated

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

WAITING = 256  # pieces of work; more are refused at once
TOGETHER = 64  # in one transaction
ANSWER_SECONDS = 10.0


class Writer:
    """Runs work inside transactions of `db`. Work that raises leaves no trace; the others of its group stay."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._waiting: queue.Queue[tuple[Work, Future[Any]] | None] = queue.Queue(WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="ledger", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work`, once it is on the disk. Raises LedgerError, or what `work` raised."""
        done: Future[T] = Future()
        if self._closed:
            raise LedgerError(f"{self._path}: the ledger is closed")
        try:
            self._waiting.put_nowait((work, done))
        except queue.Full:
            raise LedgerOverloadedError(f"{self._path}: {WAITING} requests are waiting; ask again later") from None
        try:
            return done.result(timeout=ANSWER_SECONDS)
        except FutureTimeoutError:
            if done.cancel():  # not begun yet, and now it never will be
                raise LedgerOverloadedError(f"{self._path}: no answer within {ANSWER_SECONDS:g} s") from None
            return done.result()  # in a transaction right now: its end is near, and must be known

    def waiting(self) -> int:
        """Pieces of work that are not begun yet."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Finishes what waits, then closes the file."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._thread.join()
        self._db.close()

    def _serve(self) -> None:
        while True:
            group = [self._waiting.get()]
            while len(group) < TOGETHER and not self._waiting.empty():
                group.append(self._waiting.get())
            self._commit([one for one in group if one is not None and one[1].set_running_or_notify_cancel()])
            if None in group:
                return

    def _commit(self, group: list[tuple[Work, "Future[Any]"]]) -> None:
        answers: list[tuple[Future[Any], Any, Exception | None]] = []
        if not group:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for work, done in group:
                answers.append((done, *self._one(work)))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:  # none of the group is on the disk
            problem = translated(self._path, error)
            self._roll_back()
            for _, done in group:
                done.set_exception(problem)
            return
        for done, result, problem_of_one in answers:
            if problem_of_one is None:
                done.set_result(result)
            else:
                done.set_exception(problem_of_one)

    def _one(self, work: Work) -> tuple[Any, Exception | None]:
        self._db.execute("SAVEPOINT one")
        try:
            result = work(self._db)
        except sqlite3.IntegrityError as error:
            self._db.execute("ROLLBACK TO one")
            return None, translated(self._path, error)
        except sqlite3.Error:
            raise  # of the file, not of this work: it ends the whole group
        except Exception as error:  # crosses to the asker, who raises it
            self._db.execute("ROLLBACK TO one")
            return None, error
        finally:
            if self._db.in_transaction:
                self._db.execute("RELEASE one")
        return result, None

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            return  # SQLite has rolled back by itself
