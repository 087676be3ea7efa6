"""A question that may never be answered, asked in another thread: no second one while one is under way."""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from exporters.lanes import LANES

T = TypeVar("T")


class NoAnswerError(Exception):
    """There is no answer yet."""


class Inquiry(Generic[T]):
    """`ask()`, then `answer(until)`. One caller at a time."""

    def __init__(self, question: Callable[[], T]) -> None:
        self._question = question
        self._back: threading.Event | None = None  # set when the question asked last has come back
        self._overdue = False
        self._result: T | Exception

    @property
    def busy(self) -> bool:
        return self._back is not None and not self._back.is_set()

    def ask(self) -> None:
        """Start, unless an earlier question has not come back: it is left alone."""
        self._overdue = self.busy
        if not self._overdue:
            back = threading.Event()
            LANES.start(partial(self._run, back))
            self._back = back

    def answer(self, until: float) -> T:
        """What the question gave, or raised. NoAnswerError at time.monotonic() `until`; at once if it is an old one."""
        if self._overdue or self._back is None or not self._back.wait(max(0.0, until - time.monotonic())):
            raise NoAnswerError
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def _run(self, back: threading.Event) -> None:
        try:
            self._result = self._question()
        except Exception as error:  # handed to whoever asks for the answer
            self._result = error
        back.set()
