"""What is known ahead of time about a workload's demand: public holidays, announced events, calendar files, floors."""

import itertools
import re
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from controllers.config.values import Duration, Number, Text
from exporters.runtime.config import Section, nearest

NO_HOLIDAYS = "none"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MOST_A_DAY = 24  # occurrences: what happens more often is a pattern, which is learned without being announced


def _region(text: str) -> str:
    """Checked against the library where it is installed: only `forecast` needs it."""
    if text == NO_HOLIDAYS:
        return text
    code, dash, part = text.partition("-")
    if not re.fullmatch(r"[A-Z]{2}", code) or (dash and not part):
        raise ValueError(
            f"found {text!r}; write a country such as KR, a part of one such as DE-BE, or {NO_HOLIDAYS!r} for none"
        )
    try:
        from holidays import list_supported_countries
    except ImportError:
        return text
    known = list_supported_countries()
    if code not in known:
        raise ValueError(f"found {text!r}; holidays of the country {code} are not known, give them as events or ics")
    if dash and part not in known[code]:
        if not known[code]:
            raise ValueError(f"found {text!r}; the holidays of {code} are the same everywhere, write '{code}'")
        raise ValueError(f"found {text!r}; {code} has no part {part}{nearest(part, list(known[code]))}")
    return text


Holidays = Annotated[str, AfterValidator(_region)]


def _cron(text: str) -> str:
    example = "write five fields as cron does, for example '0 9 * * 1-5' (minute, hour, day, month, weekday)"
    if len(text.split()) != 5:
        raise ValueError(f"found {text!r}; {example}")
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        return text
    try:
        first = next(CronSim(text, datetime(2000, 1, 1)), None)  # noqa: DTZ001 - local time
    except CronSimError as error:
        raise ValueError(f"found {text!r} ({str(error).lower()}); {example}") from None
    if first is None:
        raise ValueError(f"found {text!r}, which never comes; {example}")
    return text


Cron = Annotated[str, AfterValidator(_cron)]


def _every(text: str) -> str:
    if weekday(text) is not None:
        return text
    if len(text.split()) != 5:
        raise ValueError(f"found {text!r}; write a weekday such as friday, or five fields of cron such as '0 9 * * 5'")
    _cron(text)
    if often(text):
        raise ValueError(
            f"found {text!r}, more than {MOST_A_DAY} times a day; what is this frequent is learned without an event"
        )
    return text


def weekday(text: str) -> int | None:
    """0 for monday or mon, and so on; None for anything else."""
    found = [number for number, name in enumerate(WEEKDAYS) if text.lower() in (name, name[:3])]
    return found[0] if found else None


def often(cron: str) -> bool:
    """Whether it comes more than MOST_A_DAY times within a day."""
    try:
        from cronsim import CronSim
    except ImportError:
        return False
    ticks = list(itertools.islice(CronSim(cron, datetime(2000, 1, 1)), MOST_A_DAY + 1))  # noqa: DTZ001 - local
    return len(ticks) > MOST_A_DAY and (ticks[-1] - ticks[0]).total_seconds() < 86_400


def _moment(value: object) -> object:
    """YAML makes dates of some of what people write; the rest is text here."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError(f"found {value!r}; write date and time, for example 2026-12-24T19:00 or 2026-12-24T19:00+09:00")


Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=str)]


class AnnouncedEvent(Section):
    """Demand will differ from `at` on for so long. Without a zone: in the workload's. `every`: again since then."""

    name: Text  # events of one name are expected to be alike
    at: Moment
    length: Annotated[Duration, Field(alias="for")]
    every: Annotated[str, AfterValidator(_every)] | None = None  # a weekday (at the time of `at`), or cron


class DemandFloor(Section):
    """From each time of `cron` (in the workload's zone) on, for so long, at least so much demand is expected."""

    cron: Cron
    length: Annotated[Duration, Field(alias="for")]
    demand_per_second: Annotated[Number, Field(gt=0)]


class CalendarSection(Section):
    """`holidays`: a country or a part of one; forecast.holidays if absent. `ics`: calendar files, read when changed."""

    holidays: Holidays | None = None
    events: list[AnnouncedEvent] = []
    ics: list[Path] = []
    floors: list[DemandFloor] = []

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("is empty; write holidays, events, ics or floors, or leave it out")
        return self
