"""Ctrl-C (and TERM, and a closed terminal) while the demo runs: noted at once, acted upon where nothing gets lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts requests to stop: the first is polled (`asked`, `wait`, `check`), a further one calls `harder` at once.

    Use it as a context in the main thread. `harder` runs within a signal handler: it must not wait.
    """

    def __init__(self, harder: Callable[[], None]) -> None:
        self.harder = harder
        self.count = 0
        self._raise_now = False
        self._asked = threading.Event()
        self._before: dict[signal.Signals, object] = {}

    @property
    def asked(self) -> bool:
        """Whether someone asked to stop."""
        return self.count > 0

    def wait(self, seconds: float) -> bool:
        """Pause; True as soon as someone asked to stop."""
        return self._asked.wait(seconds)

    def check(self) -> None:
        """Raise KeyboardInterrupt when someone asked to stop."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within: KeyboardInterrupt wherever the program stands, for calls that wait long and clean up behind them."""
        self.check()
        self._raise_now = True
        try:
            yield
        finally:
            self._raise_now = False
        self.check()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self._asked.set()
        if self.count > 1:
            self.harder()
        elif self._raise_now:
            self._raise_now = False
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in SIGNALS:
            signal.signal(number, self._before[number])  # type: ignore[arg-type]  # what signal.signal returned
