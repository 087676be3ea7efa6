"""A question that may never be answered, asked in a thread of its own: no second one while one is under way."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class NoAnswerError(Exception):
    """There is no answer yet."""


class Lane(Generic[T]):
    """`ask()`, then `answer(until)`. One caller at a time."""

    def __init__(self, question: Callable[[], T]) -> None:
        self._question = question
        self._thread: threading.Thread | None = None
        self._result: list[T] = []
        self._error: Exception | None = None
        self._overdue = False

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def ask(self) -> None:
        """Start, unless an earlier question has not come back: it is left alone."""
        if self.busy:
            self._overdue = True
            return
        self._result, self._error, self._overdue = [], None, False
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._thread.start()

    def answer(self, until: float) -> T:
        """What the question gave, or raised. NoAnswerError at time.monotonic() `until`; at once if it is an old one."""
        if self._thread is not None and not self._overdue:
            self._thread.join(max(0.0, until - time.monotonic()))
        if self.busy or self._overdue:
            raise NoAnswerError
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._question())
        except Exception as error:  # handed to whoever asks for the answer
            self._error = error
