"""What the demo does to its own workers, and what recovery's journal says about how they were mended."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from controllers.recovery.book import Book, Entry, Kind
from controllers.recovery.journal import JournalError, read_journal
from demo.fleet import read_workers
from demo.recording import Failure, Repair, Try

SIGNALS = {"killed": signal.SIGKILL, "hung": signal.SIGSTOP}
WORDS = {"killed": "is killed (kill -9)", "hung": "is made to hang (kill -STOP)"}


class Mishaps:
    """Carries out the planned failures when their time has come. done: what was done so far.

    Each hits the worker that has been ready longest and was not hit yet: scale-in takes the youngest, so it would stay.
    """

    def __init__(self, folder: Path, planned: Sequence[tuple[str, float]], live_start: float) -> None:
        self.done: list[Failure] = []
        self._folder = folder
        self._planned = [(what, live_start + at) for what, at in planned]

    def look(self, now: float) -> list[str]:
        """Do what is due; a sentence for each."""
        told = []
        while self._planned and now >= self._planned[0][1]:
            what, _ = self._planned.pop(0)
            failure, pid = self._do(what)
            if failure is None:
                told.append(f"FAILURE left out: no worker could be {what}; the fleet's foreman does not answer")
                continue
            self.done.append(failure)
            told.append(f"FAILURE: {failure.worker} (process {pid}) {WORDS[what]}")
        return told

    def _do(self, what: str) -> tuple[Failure | None, int]:
        hit = {failure.worker for failure in self.done}
        ready = [w for w in read_workers(self._folder) if w["stage"] == "ready" and w["worker"] not in hit]
        if not ready:
            return None, 0
        chosen = min(ready, key=lambda worker: float(worker["since"]))
        failure = Failure(what, str(chosen["worker"]), time.time())
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(chosen["pid"]), SIGNALS[what])
        with (self._folder / "failures.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"what": what, "worker": failure.worker, "at": round(failure.at, 3)}) + "\n")
        return failure, int(chosen["pid"])


class JournalNews:
    """Recovery's journal as news: each entry that people would want to hear, once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = 0

    def look(self) -> list[str]:
        """What is new in it, nothing where it cannot be read now."""
        try:
            entries, book = read_journal(self._path)
        except JournalError:
            return []
        fresh, self._told = entries[self._told :], len(entries)
        return list(_sentences(fresh, book))


def _sentences(entries: Iterable[Entry], book: Book) -> Iterable[str]:
    for entry in entries:
        body = entry.body or {}
        match entry.kind:
            case Kind.OPENED:
                yield f"RECOVERY: {entry.instance}: {body['symptom']} is confirmed"
            case Kind.OUTCOME:
                last = book.operations[entry.operation].attempts[-1]
                yield f"RECOVERY: {entry.instance}: {last.step} attempt {last.number}: {body['result']}"
            case Kind.HANDED:
                yield f"RECOVERY: {entry.instance}: handed over to people ({body['reason']})"
            case Kind.CLOSED:
                yield f"RECOVERY: {entry.instance}: mended and verified ({body['reason']})"


def read_repairs(path: Path) -> list[Repair]:
    """Every operation in recovery's journal, the oldest first; none where it cannot be read."""
    try:
        _, book = read_journal(path)
    except JournalError:
        return []
    return [
        Repair(
            worker=one.instance,
            symptom=one.symptom,
            opened_at=one.opened_at,
            tries=[
                Try(str(a.step), a.reserved_at, a.ended_at, str(a.result) if a.result else None) for a in one.attempts
            ],
            well_since=one.well_since,
            closed_at=one.closed_at,
            closed_for=str(one.closed_for) if one.closed_for else None,
        )
        for one in sorted(book.operations.values(), key=lambda one: one.opened_at)
    ]


def until_restarted(failures: Sequence[Failure], folder: Path) -> list[Failure]:
    """The failures with the moment at which each one's worker was started anew, as the foreman's timeline has it."""
    path = folder / "fleet.jsonl"
    text = path.read_text(encoding="utf-8").rpartition("\n")[0] if path.exists() else ""
    restarts = [(line["slot"], line["at"]) for line in map(json.loads, text.splitlines()) if line["event"] == "restart"]
    return [
        Failure(
            one.what,
            one.worker,
            one.at,
            next((at for slot, at in restarts if f"worker-{slot:02d}" == one.worker and at >= one.at), None),
        )
        for one in failures
    ]
