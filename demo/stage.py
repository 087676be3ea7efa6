"""Everything that one run of the demo started, so that exactly that is watched and ended."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Protocol

from testbed.parts import PartError

RESTART_SECONDS = 5.0  # between the end of a part and its new start: long enough to be seen
RESTARTS = 3


class Runs(Protocol):
    """A process that was started: one of testbed's parts or an OwnProcess."""

    name: str

    @property
    def pid(self) -> int | None: ...
    @property
    def running(self) -> bool: ...
    def start(self) -> object: ...
    def stop(self) -> None: ...
    def log_tail(self) -> str: ...


class Stage:
    """The started processes in the order of their start. `tell` is given a sentence whenever one ends or is back."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self._parts: list[Runs] = []
        self._starts_left: dict[str, int] = {}
        self._ended_at: dict[str, float] = {}

    def start(self, part: Runs, *, restart: bool = True) -> None:
        """Start it and remember it. restart: whether it is started again, three times at most, when it ends."""
        self._parts.append(part)  # first, so that it is ended even if its start is cut short
        part.start()
        self._starts_left[part.name] = RESTARTS if restart else 0

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of what runs, by name."""
        return {part.name: part.pid for part in self._parts if part.pid is not None}

    def watch(self) -> None:
        """Say of each part that it ended; start it again after some seconds where that is wanted."""
        for part in self._parts:
            if part.running:
                continue
            if part.name not in self._ended_at:
                self._ended_at[part.name] = time.monotonic()
                self.tell(self._ended(part))
            elif self._starts_left[part.name] > 0 and time.monotonic() - self._ended_at[part.name] >= RESTART_SECONDS:
                self._start_again(part)

    def expect_end(self, name: str) -> None:
        """This part is done: that it ends is no news."""
        self._ended_at.setdefault(name, time.monotonic())
        self._starts_left[name] = 0

    def _ended(self, part: Runs) -> str:
        ending = getattr(part, "ending", None)
        again = (
            f"it is started again in {RESTART_SECONDS:g} s"
            if self._starts_left[part.name] > 0
            else "it is not started again; the demo goes on without it"
        )
        return (
            f"{part.name} ended by itself{f' ({ending})' if ending else ''}; {again}. Its log ends:\n{part.log_tail()}"
        )

    def _start_again(self, part: Runs) -> None:
        self._starts_left[part.name] -= 1
        try:
            part.start()
        except PartError as error:
            self._ended_at[part.name] = time.monotonic()
            self.tell(f"{part.name} could not be started again: {error}")
        else:
            del self._ended_at[part.name]
            self.tell(f"{part.name} runs again")

    def stop(self, *names: str) -> None:
        """End these in this order; without names everything, the last started first."""
        named = [part for name in names for part in self._parts if part.name == name]
        for part in named if names else self._parts[::-1]:
            part.stop()
            self._parts.remove(part)

    def kill(self) -> None:
        """End everything at once, without waiting: safe within a signal handler."""
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # each leads a session of its own: only what it started is in it
