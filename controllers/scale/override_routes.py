"""POST /override, POST /override/end and GET /overrides on the scaler's endpoint."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controllers.domain import Direction, Mode, Override
from controllers.scale.overrides import LONGEST_SECONDS, MOST_SURGE, Entry, OverrideError, Overrides, Refusal, kind_of
from exporters.runtime.endpoint import Request, Response, json_response

Route = Callable[[Request], Response]
WHO = r"^[^\x00-\x1f\x7f]{1,200}$"


@dataclass(frozen=True, slots=True)
class Steered:
    """What bounds an override of one workload."""

    mode: Mode
    max_replicas: int


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")
    workload: str = Field(min_length=1, max_length=130)
    by: str = Field(pattern=WHO)
    until: float = Field(strict=True)
    surge: int = Field(default=0, ge=0, le=MOST_SURGE, strict=True)
    pause: Direction | None = None
    note: str = Field(default="", pattern=r"^[^\x00-\x1f\x7f]{0,500}$")


class _Ending(BaseModel):
    model_config = ConfigDict(extra="forbid")

    workload: str = Field(min_length=1, max_length=130)
    by: str = Field(pattern=WHO)


def routes(
    book: Overrides,
    steered: Mapping[str, Steered],
    needed: Callable[[str], int | None],
    refused: Callable[[Request], Response | None],
    clock: Callable[[], float] = time.time,
) -> Mapping[tuple[str, str], Route]:
    """`needed`: what the last decision held to be needed. `refused`: the answer to a request that has no right to ask.

    200 is on the disk; 400, 404 and 409 are refused for good; 503 was not kept.
    """

    def begin(request: Request) -> Response:
        if (refusal := refused(request)) is not None:
            return refusal
        try:
            asked = _Asked.model_validate_json(request.body)
        except ValidationError as error:
            return _invalid(error)
        now = clock()
        if (wrong := _wrong(asked, now)) is not None:
            return _error(400, wrong)
        if asked.workload not in steered:
            return _error(404, f"no workload '{asked.workload}' here; is the scaler's configuration another one?")
        wanted = Override(asked.id, now, asked.until, asked.by, asked.surge, asked.pause, asked.note)
        try:
            kept = book.begin(asked.workload, wanted)
        except Refusal as why:
            return _error(409, str(why))
        except OverrideError as error:
            return _error(503, str(error))
        active = book.active(asked.workload, now)
        bound = _bound(kept, active, needed(asked.workload), steered[asked.workload])
        return json_response({"override": shown(Entry(asked.workload, kept), now), "said": bound})

    def end(request: Request) -> Response:
        if (refusal := refused(request)) is not None:
            return refusal
        try:
            asked = _Ending.model_validate_json(request.body)
        except ValidationError as error:
            return _invalid(error)
        now = clock()
        try:
            ended = book.end(asked.workload, asked.by, now)
        except OverrideError as error:
            return _error(503, str(error))
        entries = [Entry(asked.workload, one, now, asked.by) for one in ended]
        return json_response({"ended": [shown(one, now) for one in entries]})

    def look(request: Request) -> Response:
        if (refusal := refused(request)) is not None:
            return refusal
        now = clock()
        book.in_force(now)  # takes in what another process has added
        if book.problem is not None:
            return _error(503, book.problem)
        return json_response({"now": now, "overrides": [shown(entry, now) for entry in book.trail()]})

    return {
        ("POST", "/override"): begin,
        ("POST", "/override/end"): end,
        ("GET", "/overrides"): look,
    }


def _wrong(asked: _Asked, now: float) -> str | None:
    if (asked.surge > 0) == (asked.pause is not None):
        return "give exactly one of surge (1 or more) and pause (up, down, both)"
    if not asked.until > now:
        return "until: has passed already; are both clocks right?"
    if asked.until > now + LONGEST_SECONDS + 60:
        return f"until: is more than {LONGEST_SECONDS / 86_400:.0f} days ahead; what is to last belongs into the file"
    return None


def _bound(kept: Override, active: tuple[Override, ...], needed: int | None, steered: Steered) -> list[str]:
    """What people should know of what they asked for."""
    said = []
    if steered.mode is not Mode.ACT:
        said.append(
            f"its mode is {steered.mode.value}: this is decided and published, and nothing is told to the target"
        )
    if not kept.surge:
        return said
    if needed is not None:
        said.append(f"on top of what is needed, {needed} now")
    surge = sum(one.surge for one in active)
    if surge > kept.surge:
        said.append(f"with what was asked for before it is +{surge}")
    if surge > steered.max_replicas or (needed is not None and needed + kept.surge > steered.max_replicas):
        said.append(f"bounded by max {steered.max_replicas}")
    if any(one.pause in (Direction.UP, Direction.BOTH) for one in active):
        said.append("it is paused, so nothing is added until that ends; `tidewise resume` ends all overrides of it")
    return said


def shown(entry: Entry, now: float) -> dict[str, object]:
    """As JSON."""
    one = entry.override
    return {
        "id": one.id,
        "workload": entry.workload,
        "kind": kind_of(one),
        "surge": one.surge,
        "since": one.since,
        "until": one.until,
        "by": one.by,
        "note": one.note,
        "in_force": entry.in_force(now),
        "ended_at": entry.ended_at,
        "ended_by": entry.ended_by,
    }


def _invalid(error: ValidationError) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return _error(400, f"{where}: {first['msg']}")


def _error(status: int, text: str) -> Response:
    return json_response({"error": text}, status)
