"""What may be asked over HTTP, as pydantic models: what they do not know is refused, by name."""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator
from pydantic_core import from_json

from controllers.budget.words import Priority, Scope
from controllers.config import MoneyText, Number, Unit
from exporters.runtime.config import Section, sentences

BODY_BYTES = 64 * 1024
KEPT_DAYS = 62  # how late spending may be reported


class BadRequestError(Exception):
    """A request that cannot be understood; `str()` is one line a mistake."""


def _id(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        raise ValueError("write letters, digits and signs without spaces or '#'")
    return text


def _proof(nothing: bool) -> bool:
    if not nothing:
        raise ValueError("found false; a hold is given back only on proof that nothing was sent or started")
    return nothing


def _label(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds a character that cannot be shown")
    return text


# Source, execution, node, item and attempt make an event's id: a retry is billed again, a replayed message is not.
EventId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_id)]
HoldId = Annotated[str, Field(min_length=1, max_length=400), AfterValidator(_label)]
Label = Annotated[str, Field(max_length=128), AfterValidator(_label)]
Named = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_label)]
Units = Annotated[dict[Unit, Annotated[Decimal, Field(ge=0, le=10**12)]], Field(max_length=20)]
Proof = Annotated[bool, Field(strict=True), AfterValidator(_proof)]
Context = Annotated[dict[Label, Label], Field(max_length=5)]


class Call(Section):
    """POST /permit: may this call be made? `units` are its most: max_tokens, the file's whole length."""

    kind: Literal["call"] = "call"
    event_id: EventId
    provider: Named
    model: Named
    units: Units
    context: Context = {}
    service: Label = ""
    workflow: Label = ""
    workload: Label = ""
    priority: Priority = Priority.NORMAL
    hold_seconds: Annotated[Number, Field(gt=0, le=86400)] | None = None

    @property
    def scope(self) -> Scope:
        return Scope(self.provider, self.service, self.model, self.workflow, self.workload)


class Replica(Section):
    """POST /permit: may this instance start or, where it has a hold or `running`, go on?"""

    kind: Literal["replica"]
    workload: Named
    instance: Named
    running: bool = False
    lead_seconds: Annotated[Number, Field(ge=0, le=86400)] | None = None


class Settle(Section):
    """POST /settle: what a hold really cost, in units of its model or as billed."""

    kind: Literal["call"] = "call"
    hold: HoldId
    units: Units | None = None
    cost: MoneyText | None = None
    context: Context | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.units is None) == (self.cost is None):
            raise ValueError("give either units or cost")
        return self


class Release(Section):
    """POST /settle: this instance has stopped."""

    kind: Literal["replica"]
    workload: Named
    instance: Named


class Void(Section):
    """POST /void: give a hold back. `nothing_sent` must be true, and known, not guessed."""

    kind: Literal["call"] = "call"
    hold: HoldId
    nothing_sent: Proof


class Withdraw(Section):
    """POST /void: the target was never told to start this instance. `hold`: only this one, if another was taken since.

    `nothing_started` must be true, and known: an answer of the target that was lost is no proof.
    """

    kind: Literal["replica"]
    workload: Named
    instance: Named
    nothing_started: Proof
    hold: HoldId | None = None


class Usage(Section):
    """POST /usage: what was spent without a hold, in units of its model or as billed."""

    event_id: EventId
    provider: Named
    model: Label = ""
    units: Units | None = None
    cost: MoneyText | None = None
    context: Context = {}
    service: Label = ""
    workflow: Label = ""
    workload: Label = ""
    occurred_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.units is None) == (self.cost is None):
            raise ValueError("give either units or cost")
        return self

    @property
    def scope(self) -> Scope:
        return Scope(self.provider, self.service, self.model, self.workflow, self.workload)


M = TypeVar("M", bound=Section)


def parsed(body: bytes, kinds: Mapping[str, type[M]]) -> M:
    """The body as the model of its `kind`; the first one where it names none. Raises BadRequestError."""
    try:
        data = from_json(body)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadRequestError("the body is not a JSON object")
    kind = data.get("kind", next(iter(kinds)))
    model = kinds.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise BadRequestError(f"kind: found {str(kind)[:40]!r}; it must be {' or '.join(kinds)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise BadRequestError("\n".join(sentences(error, model))) from None


def digest(request: Section) -> str:
    """The same for the same request, however its JSON was laid out."""
    text = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(f"{type(request).__name__} {text}".encode()).hexdigest()
