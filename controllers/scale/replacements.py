"""Acknowledged replacements: what others asked the scaler to replace, until when, and what that means for a number.

Recovery asks; the scaler, the one writer of capacity, answers when it is on the disk. An operation asked for twice is
one replacement. It comes first and the victim goes afterwards: one replica more than was decided, even at the maximum,
until the new one works, at the longest for its ttl; then the number as before, and the victim is named as the first to
go. The victim's slot and its money pass to the replacement.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from exporters.runtime.durable import sync_folder
from exporters.runtime.endpoint import Request, Response, json_response

MOST_AT_ONCE = 2  # of one workload
KEPT_SECONDS = 86_400.0  # after its end: so long can the outcome of an operation be asked for
SKEW_SECONDS = 60.0
NAMED_SECONDS = 600.0  # after its end a victim is still the first to go, should the number have been held meanwhile

Route = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class Replacement:
    """`instance` is to be replaced; asked for by `operation`, in force within [accepted_at, until).

    `surging`: the target's number holds one for it, as far as is known. `works`: its replacement does, so it is over.
    """

    workload: str
    instance: str
    operation: str
    accepted_at: float
    until: float
    surging: bool = False
    works: bool = False

    def in_force(self, now: float) -> bool:
        """A clock that was set back a little does not end it."""
        return not self.works and self.accepted_at - SKEW_SECONDS <= now < self.until


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """It will not be done, now or later; `str()` says why."""


class ReplacementError(Exception):
    """It cannot be kept, so it is not acknowledged: which file, what was found, what to do."""


_FILE = TypeAdapter(list[Replacement])


class Replacements:
    """The replacements on file. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises ReplacementError for a file that cannot be read: forgetting one could end its protection."""
        self._path = path
        self._lock = threading.Lock()
        self._by_operation = {one.operation: one for one in _read(path)}

    def accept(self, asked: Replacement) -> Replacement:
        """What is in force for this operation: `asked`, or what was accepted before under the same name.

        Returns when it is on the disk. Raises Refusal, ReplacementError.
        """
        now = asked.accepted_at
        with self._lock:
            before = self._by_operation.get(asked.operation)
            if before is not None:
                if (before.workload, before.instance) != (asked.workload, asked.instance):
                    raise Refusal(f"operation {asked.operation} is about {before.instance} of {before.workload}")
                return before
            active = self._active(asked.workload, now)
            same = next((one for one in active if one.instance == asked.instance), None)
            if same is not None:
                raise Refusal(f"{asked.instance} is being replaced already, by operation {same.operation}")
            if len(active) >= MOST_AT_ONCE:
                raise Refusal(f"{len(active)} replacements of {asked.workload} are under way, {MOST_AT_ONCE} may be")
            kept = {o: one for o, one in self._by_operation.items() if now < one.until + KEPT_SECONDS}
            kept[asked.operation] = asked
            _write(self._path, list(kept.values()))
            self._by_operation = kept
            return asked

    def find(self, operation: str) -> Replacement | None:
        with self._lock:
            return self._by_operation.get(operation)

    def active(self, workload: str, now: float) -> tuple[Replacement, ...]:
        """Those in force, the oldest first."""
        with self._lock:
            return self._active(workload, now)

    def victims(self, workload: str, now: float) -> tuple[str, ...]:
        """The instances that a smaller number takes before all others; it never takes a replacement instead."""
        with self._lock:
            return tuple(
                one.instance
                for one in self._by_operation.values()
                if one.workload == workload and one.accepted_at - SKEW_SECONDS <= now < one.until + NAMED_SECONDS
            )

    def surging(self, workload: str) -> tuple[Replacement, ...]:
        """Those for which the target's number holds one."""
        with self._lock:
            return tuple(one for one in self._by_operation.values() if one.workload == workload and one.surging)

    def note(self, changed: Iterable[Replacement]) -> None:
        """Keeps these as they are now; before the target is told, so that its number is read rightly after a kill.

        Raises ReplacementError.
        """
        fresh = {one.operation: one for one in changed}
        with self._lock:
            if all(self._by_operation.get(operation) == one for operation, one in fresh.items()):
                return
            kept = {**self._by_operation, **fresh}
            _write(self._path, list(kept.values()))
            self._by_operation = kept

    def _active(self, workload: str, now: float) -> tuple[Replacement, ...]:
        found = [one for one in self._by_operation.values() if one.workload == workload and one.in_force(now)]
        return tuple(sorted(found, key=lambda one: one.accepted_at))


def as_told(active: Iterable[Replacement], surging: Iterable[Replacement]) -> tuple[Replacement, ...]:
    """What changes once the target is told one more for each active one, and no more for the others."""
    wanted = {one.operation: replace(one, surging=True) for one in active}
    over = [replace(one, surging=False) for one in surging if one.operation not in wanted]
    return (*wanted.values(), *over)


def worked(active: Iterable[Replacement], ready: int, told: int, now: float, lead_seconds: float) -> list[Replacement]:
    """Those whose replacement works by now.

    All that were told do; or, where the victim counts as one that does not, all but the victims after a lead time.
    """
    surging = [one for one in active if one.surging]
    if not surging:
        return []
    if ready >= told:
        return [replace(one, works=True) for one in surging]
    late = [one for one in surging if now - one.accepted_at > lead_seconds]
    return [replace(one, works=True) for one in late] if ready >= told - len(surging) else []


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    workload: str = Field(min_length=1, max_length=130)
    instance: str = Field(min_length=1, max_length=200)
    operation: str = Field(pattern=r"^[A-Za-z0-9_./-]{1,120}$")
    ttl_seconds: float = Field(ge=60, le=3600)


def routes(
    book: Replacements,
    acting: Mapping[str, bool],
    refused: Callable[[Request], Response | None],
    clock: Callable[[], float] = time.time,
) -> Mapping[tuple[str, str], Route]:
    """POST /replace and GET /replace?operation=… for the scaler's endpoint.

    `acting`: every workload, and whether the scaler may act on it. `refused`: the answer to a request that has no right
    to ask (`exporters.runtime.bearer.refused` with a token file). 200 is acknowledged, 404 and 409 are refused for
    good, 503 was not kept.
    """

    def ask(request: Request) -> Response:
        refusal = refused(request)
        if refusal is not None:
            return refusal
        try:
            asked = _Asked.model_validate_json(request.body)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the body"
            return _error(400, f"{where}: {error.errors()[0]['msg']}")
        if asked.workload not in acting:
            return _error(404, f"no workload '{asked.workload}' here")
        if not acting[asked.workload]:
            return _error(409, f"{asked.workload} is not in mode act: nothing of it is touched")
        now = clock()
        wanted = Replacement(asked.workload, asked.instance, asked.operation, now, now + asked.ttl_seconds)
        try:
            return json_response(_shown(book.accept(wanted)))
        except Refusal as refusal_text:
            return _error(409, str(refusal_text))
        except ReplacementError as error:
            return _error(503, str(error))

    def look_up(request: Request) -> Response:
        refusal = refused(request)
        if refusal is not None:
            return refusal
        found = book.find(request.query.get("operation", ""))
        return _error(404, "unknown operation") if found is None else json_response(_shown(found))

    return {("POST", "/replace"): ask, ("GET", "/replace"): look_up}


def _shown(one: Replacement) -> dict[str, object]:
    return {"operation": one.operation, "workload": one.workload, "instance": one.instance, "until": one.until}


def _error(status: int, text: str) -> Response:
    return json_response({"error": text}, status)


def _read(path: Path) -> list[Replacement]:
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise ReplacementError(
            f"{path}: cannot be read ({reason}); restore it, or remove it once no replacement is under way"
        ) from None


def _write(path: Path, replacements: list[Replacement]) -> None:
    """The whole file anew, in one step: it is there as it was or as it is now, also after a power cut."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(_FILE.dump_json(replacements) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise ReplacementError(
            f"{path}: cannot be written ({error.strerror}); make room or correct its permissions"
        ) from None
