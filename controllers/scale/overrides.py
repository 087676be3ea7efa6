"""What people asked of the scaler for a time (`tidewise surge`, `pause`): a journal that is only ever added to.

One JSON object a line: an override that was accepted, or the end of some. A line is on the disk before it is
acknowledged. An override that is over ends by itself; its lines stay, so that it can be told who did what, and when.
A last line without its newline was never acknowledged and is left out; a line before it that cannot be read is refused,
for what it said may still be in force.
"""

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from controllers.domain import Direction, Override
from exporters.runtime.durable import sync_folder

SKEW_SECONDS = 60.0  # by which a clock may be set back without ending what was begun just before
LONGEST_SECONDS = 7 * 86_400.0
MOST_IN_FORCE = 20  # of one workload
MOST_SURGE = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One override of one workload. `ended_at`, `ended_by`: somebody ended it before its time."""

    workload: str
    override: Override
    ended_at: float | None = None
    ended_by: str | None = None

    def in_force(self, now: float) -> bool:
        return self.ended_at is None and self.override.since - SKEW_SECONDS <= now < self.override.until


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """It is not done; `str()` says why."""


class OverrideError(Exception):
    """The journal cannot be kept or read, so nothing is acknowledged: which file, what was found, what to do."""


@checked(frozen=True)
class _Begun:
    kind: Literal["begun"]
    workload: str
    override: Override


@checked(frozen=True)
class _Ended:
    kind: Literal["ended"]
    workload: str
    at: float
    by: str
    ids: tuple[str, ...]


_Line = _Begun | _Ended
_LINE: TypeAdapter[_Line] = TypeAdapter(_Line)


class Overrides:
    """The journal at `path`. Safe to use from several threads, and from several processes that share the file."""

    def __init__(self, path: Path) -> None:
        """Raises OverrideError for a journal that cannot be read."""
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}  # by id, oldest first
        self._read_to = 0  # bytes
        self._lines = 0
        self.problem: str | None = None  # why what another process added is not known
        with self._lock:
            self._take_in()

    def begin(self, workload: str, asked: Override) -> Override:
        """`asked`, once it is on the disk; what was accepted before under the same id. Raises Refusal, OverrideError.

        A person who asks twice is heard twice: two surges add up.
        """
        with self._lock, self._file() as file:
            self._take_in()
            before = self._entries.get(asked.id)
            if before is not None:
                if before.workload != workload:
                    raise Refusal(f"override {asked.id} is about {before.workload}")
                return before.override
            active = self._active(workload, asked.since)
            if len(active) >= MOST_IN_FORCE:
                raise Refusal(
                    f"{workload} has {len(active)} overrides in force, {MOST_IN_FORCE} may be; resume it first"
                )
            self._append(file, _Begun("begun", workload, asked))
            return asked

    def end(self, workload: str, by: str, now: float) -> tuple[Override, ...]:
        """Ends all of the workload that are in force; which they were. Raises OverrideError."""
        with self._lock, self._file() as file:
            self._take_in()
            active = self._active(workload, now)
            if active:
                self._append(file, _Ended("ended", workload, now, by, tuple(one.id for one in active)))
            return active

    def active(self, workload: str, now: float) -> tuple[Override, ...]:
        """Those in force, the oldest first."""
        with self._lock:
            return self._active(workload, now)

    def in_force(self, now: float) -> Mapping[str, tuple[Override, ...]]:
        """All that are in force, by workload, with what another process has added meanwhile.

        Where the journal cannot be read any more, what was known counts, and `problem` says why.
        """
        with self._lock:
            try:
                self._take_in()
                self.problem = None
            except OverrideError as error:
                self.problem = str(error)
            found: dict[str, tuple[Override, ...]] = {}
            for entry in self._entries.values():
                if entry.in_force(now):
                    found[entry.workload] = (*found.get(entry.workload, ()), entry.override)
            return found

    def trail(self) -> tuple[Entry, ...]:
        """All there ever were, oldest first."""
        with self._lock:
            return tuple(self._entries.values())

    def _active(self, workload: str, now: float) -> tuple[Override, ...]:
        return tuple(e.override for e in self._entries.values() if e.workload == workload and e.in_force(now))

    @contextmanager
    def _file(self) -> Iterator[int]:
        """The journal, for adding to; no other process adds meanwhile."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:  # a network disk without locks
                raise self._unwritable(error) from None
            yield file
        finally:
            os.close(file)

    def _append(self, file: int, line: _Line) -> None:
        """The line is on the disk afterwards, or the journal is as it was."""
        content = _LINE.dump_json(line) + b"\n"
        try:
            os.ftruncate(file, self._read_to)  # a line that a kill tore was never acknowledged
            written = 0
            while written < len(content):
                written += os.write(file, content[written:])
            os.fsync(file)
            if self._read_to == 0:
                sync_folder(self._path.parent)
        except OSError as error:
            try:
                os.ftruncate(file, self._read_to)
            except OSError as again:
                raise OverrideError(
                    f"{self._path}: cannot be written ({error.strerror}), nor set back ({again.strerror}); "
                    "restart the scaler once the disk is well"
                ) from None
            raise self._unwritable(error) from None
        self._read_to += len(content)
        self._lines += 1
        self._add(line)

    def _unwritable(self, error: OSError) -> OverrideError:
        return OverrideError(
            f"{self._path}: cannot be written ({error.strerror}); make room or correct its permissions"
        )

    def _take_in(self) -> None:
        """Reads the whole lines that were added since. Raises OverrideError."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read_to:
                    raise OverrideError(
                        f"{self._path}: is shorter than it was; it is only ever added to. Restore it, then restart"
                    )
                file.seek(self._read_to)
                content = file.read()
        except FileNotFoundError:
            if self._read_to:
                raise OverrideError(
                    f"{self._path}: is gone; restore it, or restart to begin without overrides"
                ) from None
            return
        except OSError as error:
            raise OverrideError(f"{self._path}: cannot be read ({error.strerror}); correct its permissions") from None
        whole = content[: content.rfind(b"\n") + 1]
        for text in whole.splitlines(keepends=True):
            try:
                line = _LINE.validate_json(text)
            except ValidationError:
                raise OverrideError(
                    f"{self._path}: line {self._lines + 1} is damaged, and what it said may still be in force; "
                    "correct or remove that line, then look at `tidewise overrides`"
                ) from None
            self._read_to += len(text)
            self._lines += 1
            self._add(line)

    def _add(self, line: _Line) -> None:
        if isinstance(line, _Begun):
            self._entries[line.override.id] = Entry(line.workload, line.override)
            return
        for one in _known(line.ids, self._entries):
            if one.ended_at is None:
                self._entries[one.override.id] = replace(one, ended_at=line.at, ended_by=line.by)


def _known(ids: Iterable[str], entries: Mapping[str, Entry]) -> list[Entry]:
    return [entries[one] for one in ids if one in entries]


def kind_of(override: Override) -> str:
    """As a label: surge, pause, pause_up or pause_down."""
    if override.pause is None:
        return "surge"
    return "pause" if override.pause is Direction.BOTH else f"pause_{override.pause.value}"
