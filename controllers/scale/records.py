"""Decision records: one JSON line from which the decision can be computed again.

Written on every change and every ten minutes (or always), one file a UTC day, in a folder of the user's, which keeps
so many days.
"""

import json
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from controllers.domain import Reason
from controllers.scale.state import Decision, Rules, State

VERSION = 1


@dataclass(frozen=True, slots=True)
class Record:
    """`outcome`: how the decision was carried out; `detail`: the words of whoever prevented it, where somebody did.

    `told`: the number that the target heard; None: it heard none.
    """

    state: State
    rules: Rules
    decision: Decision
    outcome: Reason
    detail: str | None = None
    told: int | None = None
    version: int = VERSION


_RECORD = TypeAdapter(Record)


class RecordError(Exception):
    """A record that cannot be written or read; says file, line and what to do."""


class Records:
    """The folder of records. `write` appends what is worth keeping; a line torn by a kill is skipped on reading.

    `days`: of so many days that have records the files are kept; None keeps all.
    """

    def __init__(self, folder: Path, every_seconds: float, days: int | None = None) -> None:
        self._folder = folder
        self._every_seconds = every_seconds
        self._days = days
        self._pruned: Path | None = None  # when this file was begun
        self._last: dict[str, Record] = {}

    def write(self, record: Record) -> bool:
        """Appends the record if it says something new. Returns whether it did. Raises RecordError (disk full, …)."""
        workload = record.decision.workload
        if not self._is_new(self._last.get(workload), record):
            return False
        day = datetime.fromtimestamp(record.decision.at, UTC).strftime("%Y-%m-%d")
        path = self._folder / f"{day}.jsonl"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                if file.tell() and not _ends_with_newline(path):
                    file.write(b"\n")  # a torn line of a killed process stays alone
                file.write(as_line(record))
        except OSError as error:
            raise RecordError(f"{path}: the decision record could not be written ({error.strerror})") from error
        self._prune(path)
        self._last[workload] = record
        return True

    def _prune(self, newest: Path) -> None:
        """Once a day: all but the last files of days go. Counted, not compared with a clock that may be wrong."""
        if self._days is None or self._pruned == newest:
            return
        self._pruned = newest
        for path in _days(self._folder)[: -self._days]:
            with suppress(OSError):  # somebody else removed it, or holds it; tomorrow it is tried again
                path.unlink()

    def _is_new(self, last: Record | None, record: Record) -> bool:
        if last is None or self._every_seconds <= 0:
            return True
        before, after = last.decision, record.decision
        changed = (before.desired, before.reasons, last.outcome) != (after.desired, after.reasons, record.outcome)
        return changed or after.at - before.at >= self._every_seconds


def read(folder: Path, since: float | None = None, until: float | None = None) -> Iterator[Record]:
    """The records within [since, until] (Unix seconds), oldest first. Lines that are no record are left out.

    Raises RecordError if the folder is not there.
    """
    _check(folder)
    for path in _days(folder):
        if since is not None and path.stem < datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d"):
            continue
        if until is not None and path.stem > datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d"):
            continue
        for line in path.read_bytes().splitlines():
            record = _parsed(line)
            if record is None:
                continue
            at = record.decision.at
            if (since is None or at >= since) and (until is None or at <= until):
                yield record


def backwards(folder: Path, workload: str, until: float | None = None) -> Iterator[Record]:
    """The workload's records not after `until`, newest first, in the order in which they were written.

    Reads from the end and parses only lines that name the workload, so the newest one is found in a month of records as
    quickly as in a day. Raises RecordError if the folder is not there or a file cannot be read.
    """
    _check(folder)
    name = b'"workload":' + json.dumps(workload).encode()  # as `as_line` writes it; a longer word is found faster
    for path in reversed(_days(folder)):
        if until is not None and path.stem > datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d"):
            continue
        for line in _lines_backwards(path, name):
            begun = _NOW.match(line)
            if until is not None and begun is not None and float(begun[1]) > until:
                continue
            record = _parsed(line)
            if record is None or record.decision.workload != workload:
                continue
            if until is None or record.decision.at <= until:
                yield record


_NOW = re.compile(rb'\{"state":\{"now":([0-9]+(?:\.[0-9]+)?),')
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")
_CHUNK = 1 << 18


def _lines_backwards(path: Path, word: bytes) -> Iterator[bytes]:
    """The lines that hold `word`, the last one first."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = len(content)
            while end > 0:
                begin = max(0, end - _CHUNK)
                found = content[begin:end].rfind(word)  # a copy: bytes are searched much faster than the map
                if found < 0:
                    end = begin + len(word) - 1 if begin else 0
                    continue
                start = content.rfind(b"\n", 0, begin + found) + 1
                stop = content.find(b"\n", begin + found)
                yield content[start : stop if stop >= 0 else len(content)]
                end = start
    except (FileNotFoundError, ValueError):  # it was pruned just now; it is empty, which cannot be mapped
        return
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from None


def _days(folder: Path) -> list[Path]:
    """The files of records, oldest first; what else lies there is not ours."""
    return sorted(path for path in folder.glob("*.jsonl") if _DAY.fullmatch(path.name))


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder; is 'scale.records' right, and has `tidewise scale` run here?")


def _parsed(line: bytes) -> Record | None:
    try:
        return _RECORD.validate_json(line)
    except ValidationError:
        return None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def as_line(record: Record) -> bytes:
    """The record as it stands in its file."""
    return _RECORD.dump_json(record) + b"\n"


def as_json(record: Record) -> str:
    """The record, indented, for people."""
    return json.dumps(json.loads(_RECORD.dump_json(record)), indent=2)
