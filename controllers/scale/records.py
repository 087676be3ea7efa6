"""Decision records: one JSON line from which the decision can be computed again.

Written on every change and every ten minutes (or always), one file a UTC day, in a folder of the user's.
"""

import json
from collections.abc import Iterator
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
    """The folder of records. `write` appends what is worth keeping; a line torn by a kill is skipped on reading."""

    def __init__(self, folder: Path, every_seconds: float) -> None:
        self._folder = folder
        self._every_seconds = every_seconds
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
                file.write(_RECORD.dump_json(record) + b"\n")
        except OSError as error:
            raise RecordError(f"{path}: the decision record could not be written ({error.strerror})") from error
        self._last[workload] = record
        return True

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
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder; is 'scale.records' right, and has `tidewise scale` run here?")
    for path in sorted(folder.glob("*.jsonl")):
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


def _parsed(line: bytes) -> Record | None:
    try:
        return _RECORD.validate_json(line)
    except ValidationError:
        return None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def as_json(record: Record) -> str:
    """The record, indented, for people."""
    return json.dumps(json.loads(_RECORD.dump_json(record)), indent=2)
