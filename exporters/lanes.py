"""Threads for what may hang. They stay for the next piece of work: starting one costs more than most reads."""

import queue
import threading
from collections.abc import Callable

KEPT = 4  # more than that end when they have nothing to do
IDLE_SECONDS = 150.0  # longer than two scrape intervals of a minute


class Lanes:
    """`start(work)` runs it in a daemon thread, at once, whatever the others do. `work` must not raise."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # threads that wait and have nothing to take yet

    def start(self, work: Callable[[], None]) -> None:
        with self._lock:
            is_waiting = self._idle > 0
            if is_waiting:
                self._idle -= 1
        if not is_waiting:
            threading.Thread(target=self._lane, name="lane", daemon=True).start()
        self._work.put(work)

    def _lane(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle == 0:  # something is on its way to this thread
                        continue
                    self._idle -= 1
                return
            work()
            del work  # what it holds is not held until the next comes
            with self._lock:
                if self._idle >= KEPT:
                    return
                self._idle += 1


LANES = Lanes()  # of the process
