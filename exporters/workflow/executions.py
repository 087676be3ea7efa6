"""Executions as n8n writes them down, and which of them ended since the last look.

n8n's rows change and go: an execution that began early may end late, pruning deletes, a clock is set back. So nothing
here goes by times. New rows are found by their number, and a number that was seen open, or skipped, is asked for
again until it has ended or is gone. Each execution is counted once.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from exporters.families import Observations
from exporters.workflow.state import SECONDS_BOUNDS, Count, Ended, Open, latest

OPEN_MOST = 5000  # executions that have not ended and are remembered
HOLE_SECONDS = 60.0  # a number that was skipped may belong to a transaction that is not committed yet
HOLES_MOST = 500  # looked for at once


@dataclass(frozen=True)
class Execution:
    """One execution; times in Unix seconds. `status` is None in rows from before n8n had one."""

    number: int
    workflow_id: str
    mode: str
    status: str | None
    finished: bool | None = None
    started: float | None = None
    stopped: float | None = None
    waits: bool = False

    @property
    def outcome(self) -> str:
        """success, failure, crashed, canceled, running or waiting."""
        if self.status in ("success", "crashed", "canceled", "waiting"):
            return self.status
        if self.status in ("error", "failed"):  # the latter until 2024
            return "failure"
        if self.status in ("running", "new"):
            return "running"
        if self.waits:
            return "waiting"
        if self.stopped is None:
            return "running"
        return "success" if self.finished else "failure"

    @property
    def ended(self) -> bool:
        return self.outcome not in ("running", "waiting")

    @property
    def counted_as(self) -> str | None:
        """The mode as n8n's own statistics have it; None for a chat in the editor."""
        return {"manual": "manual", "chat": None, "evaluation": None}.get(self.mode, "production")


class Tally:
    """What ended since the exporter started, by workflow."""

    def __init__(self) -> None:
        self._ended: dict[str, Ended] = {}

    def of(self, workflow_id: str) -> Ended:
        """Of one workflow; nothing where it is unknown."""
        return self._ended.get(workflow_id) or Ended()

    def remember(self, execution: Execution) -> None:
        """Of what ended before the exporter started: only when it did."""
        self._note(execution, 0)

    def add(self, execution: Execution) -> None:
        """Counts one that has ended."""
        self._note(execution, 1)
        if execution.counted_as != "production":
            return
        ended = self._ended[execution.workflow_id]
        if execution.outcome == "crashed":
            ended.crashes += 1
        elif execution.outcome != "canceled" and execution.started is not None and execution.stopped is not None:
            ended.durations = ended.durations or Observations(SECONDS_BOUNDS)
            ended.durations.observe(max(0.0, execution.stopped - execution.started))

    def _note(self, execution: Execution, one: int) -> None:
        mode = execution.counted_as
        ended = self._ended.setdefault(execution.workflow_id, Ended())
        if mode is None or execution.outcome == "canceled":
            return
        before = ended.counts.get(mode, Count())
        if execution.outcome == "success":
            after = replace(
                before,
                successes=before.successes + one,
                last_success=latest(before.last_success, execution.stopped),
            )
        else:
            after = replace(
                before, failures=before.failures + one, last_failure=latest(before.last_failure, execution.stopped)
            )
        ended.counts[mode] = after

    def keep(self, workflow_ids: Collection[str]) -> None:
        """Forgets workflows that are no more."""
        for gone in self._ended.keys() - set(workflow_ids):
            del self._ended[gone]


class Follower:
    """Follows executions by number. `last`: up to which they are known; `asks`: which to look at again."""

    def __init__(self, last: int, still_open: Iterable[Execution]) -> None:
        self.last = last
        self._open: dict[int, Execution] = {}
        self._holes: dict[int, float] = {}  # number -> when to give it up; monotonic seconds
        self.look_again(still_open)

    def look_again(self, still_open: Iterable[Execution]) -> None:
        """Takes all that have not ended, as a search found them. `complete`: there was room for every one."""
        self.complete = True
        for execution in still_open:
            self._remember(execution)

    @property
    def has_room(self) -> bool:
        """It may be worth while to search for what there was no room for."""
        return not self.complete and len(self._open) < OPEN_MOST // 2

    def missed(self, number: int) -> bool:
        """It was skipped, and is looked for."""
        return number in self._holes

    @property
    def asks(self) -> list[int]:
        """The numbers that were open, or missing, when last looked at."""
        return [*self._open, *self._holes]

    def absorb(self, found: Iterable[Execution], asked: Collection[int], now: float) -> list[Execution]:
        """Takes the rows beyond `last` and those of `asked` that are there. Returns the ones that have ended.

        now: monotonic seconds.
        """
        rows = {execution.number: execution for execution in found}
        new = sorted(number for number in rows if number > self.last)
        previous = self.last
        for number in new:
            for hole in range(max(previous + 1, number - HOLES_MOST), number):
                self._holes[hole] = now + HOLE_SECONDS
            previous = number
        self.last = previous
        for number in asked:
            if number in rows or number in self._open:
                self._open.pop(number, None)
                self._holes.pop(number, None)
        ended = []
        for execution in rows.values():
            self._holes.pop(execution.number, None)
            if execution.ended:
                self._open.pop(execution.number, None)
                ended.append(execution)
            else:
                self._remember(execution)
        for number in [number for number, until in self._holes.items() if until < now]:
            del self._holes[number]
        while len(self._holes) > HOLES_MOST:
            del self._holes[min(self._holes)]
        return ended

    def still_open(self) -> dict[str, Open]:
        """By workflow."""
        found: dict[str, Open] = {}
        for execution in self._open.values():
            before = found.get(execution.workflow_id, Open())
            if execution.outcome == "waiting":
                found[execution.workflow_id] = replace(before, waiting=before.waiting + 1)
                continue
            starts = [start for start in (before.oldest_start, execution.started) if start is not None]
            found[execution.workflow_id] = replace(
                before, running=before.running + 1, oldest_start=min(starts, default=None)
            )
        return found

    def _remember(self, execution: Execution) -> None:
        if execution.number not in self._open and len(self._open) >= OPEN_MOST:
            self.complete = False
        else:
            self._open[execution.number] = execution
