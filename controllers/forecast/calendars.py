"""Reads what is configured to be known ahead (holidays, events, calendar files, floors) into `almanac.Calendar`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import structlog

from controllers.config import AnnouncedEvent, CalendarSection, Config
from controllers.config.calendar import NO_HOLIDAYS, weekday
from controllers.config.values import seconds_of
from controllers.forecast.almanac import Calendar, Event, Floor

AHEAD = timedelta(days=2)
KEPT_SECONDS = 3600.0  # then a calendar is made anew, because time has moved on
MAX_BYTES = 10_000_000  # of a calendar file
MAX_EVENTS = 20_000  # of one workload
UNTIMED_SECONDS = 3600.0  # length of an event of a calendar file that has a time but neither end nor duration
EPOCH = date(1970, 1, 1)
# Such rules would be expanded for minutes; what is this frequent is a pattern, not an event.
TOO_FREQUENT = re.compile(rb"^RRULE[^\r\n]*(FREQ=(SECONDLY|MINUTELY|HOURLY)|BY(SECOND|MINUTE)=)", re.MULTILINE)


@dataclass
class IcsFile:
    """A calendar file, read again when it changes; what was last read well stays when it breaks or is gone."""

    path: Path
    readable: bool = True
    _stamp: tuple[int, int] | None = None
    _parsed: Any = None  # an icalendar.Calendar

    def changed(self) -> bool:
        """Looks whether there is something new, and reads it. Whether what `between` gives may differ now."""
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            parsed = parsed_ics(self.path)
        except Exception as error:  # whatever a library makes of what somebody wrote
            self._stamp = None if isinstance(error, OSError) else self._stamp
            self._unreadable(error, "what was read before stays in use; correct the file")
            return False
        self.readable, self._parsed = True, parsed
        return True

    def between(self, begin: datetime, end: datetime, zone: ZoneInfo) -> list[Event]:
        if self._parsed is None:
            return []
        try:
            return events_of(self._parsed, begin, end, zone)
        except Exception as error:  # rules that could be written out when it was read, and cannot for these days
            self._parsed = None
            self._unreadable(error, "correct the file")
            return []

    def _unreadable(self, error: Exception, now: str) -> None:
        if self.readable:
            structlog.get_logger().warning(
                "calendar_unreadable",
                file=str(self.path),
                error=f"{type(error).__name__}: {error}",
                now=now if self._parsed else "it has no events",
            )
        self.readable = False


@dataclass
class _Made:
    at: float
    calendar: Calendar


@dataclass
class Calendars:
    """The calendars of all workloads, one for each that is configured alike. Not for several threads."""

    config: Config
    _files: dict[Path, IcsFile] = field(default_factory=dict)
    _made: dict[str, _Made] = field(default_factory=dict)  # by settings
    _sections: dict[str, CalendarSection] = field(default_factory=dict)  # by workload
    _keys: dict[str, str] = field(default_factory=dict)  # time zone and settings as text, by workload

    def __post_init__(self) -> None:
        for workload in self.config.signals():
            section = self._sections[workload.identity] = workload.calendar or CalendarSection.model_construct()
            zone = workload.time_zone or (self.config.budget.time_zone if self.config.budget else "UTC")
            self._keys[workload.identity] = f"{zone} {section.model_dump_json()}"
            for path in section.ics:
                self._files.setdefault(path, IcsFile(path))

    @property
    def readable(self) -> Mapping[str, bool]:
        """Each calendar file, and whether it could be read when it was last looked at."""
        return {str(path): file.readable for path, file in self._files.items()}

    def of(self, workload: str, now: float) -> Calendar:
        """From the beginning of the year or history that is read, to two days ahead of `now` (Unix seconds)."""
        section = self._sections[workload]
        changed = [path for path in section.ics if self._files[path].changed()]
        if changed:
            self._forget(changed)
        key = self._keys[workload]
        made = self._made.get(key)
        if made is None or not 0 <= now - made.at < KEPT_SECONDS:
            zone = key.split(" ", 1)[0]
            made = self._made[key] = _Made(now, self._make(section, zone, now))
        return made.calendar

    def _forget(self, paths: list[Path]) -> None:
        for workload, section in self._sections.items():
            if set(paths) & set(section.ics):
                self._made.pop(self._keys[workload], None)

    def _make(self, section: CalendarSection, time_zone: str, now: float) -> Calendar:
        zone = ZoneInfo(time_zone)
        today = datetime.fromtimestamp(now, zone)
        days = max(self.config.forecast.history_days, self.config.forecast.rollup_days) + 1
        begin, end = today - timedelta(days=days), today + AHEAD
        region = section.holidays or self.config.forecast.holidays or NO_HOLIDAYS
        events = [event for announced in section.events for event in occurrences(announced, begin, end, zone)]
        for path in section.ics:
            events += self._files[path].between(begin, end, zone)
        events = sorted(set(events), key=lambda event: (event.begin, event.end, event.kind))
        floors = [
            Floor(at.timestamp(), at.timestamp() + seconds_of(floor.length), floor.demand_per_second)
            for floor in section.floors
            for at in ticks(floor.cron, today - timedelta(seconds=seconds_of(floor.length)), end)
        ]
        return Calendar(
            time_zone, holidays_of(region, begin.year, end.year), tuple(events[-MAX_EVENTS:]), tuple(floors)
        )


def holidays_of(region: str, first_year: int, last_year: int) -> dict[int, str]:
    """Public holidays by local day number. An event's effect is learned by name: always the English one, if any."""
    if region == NO_HOLIDAYS:
        return {}
    import holidays

    code, _, part = region.partition("-")
    english = next((name for name in holidays.list_localized_countries().get(code, []) if name == "en_US"), None)
    years = range(first_year, last_year + 1)
    found = holidays.country_holidays(code, subdiv=part or None, years=years, language=english)
    return {(day - EPOCH).days: name for day, name in sorted(found.items())}


def occurrences(announced: AnnouncedEvent, begin: datetime, end: datetime, zone: ZoneInfo) -> Iterator[Event]:
    """Those of one configured event that touch [begin, end]."""
    length = timedelta(seconds=seconds_of(announced.length))
    first = announced.at if announced.at.tzinfo else announced.at.replace(tzinfo=zone)
    day = None if announced.every is None else weekday(announced.every)
    if announced.every is None:
        starts: Iterator[datetime] = iter([first])
    elif day is None:
        starts = ticks(announced.every, max(first, begin - length), end)
    else:
        starts = weekly(first, day, begin - length, end)
    for start in starts:
        if start.timestamp() + length.total_seconds() > begin.timestamp() and start <= end:
            yield Event(announced.name, start.timestamp(), start.timestamp() + length.total_seconds())


def weekly(first: datetime, day: int, begin: datetime, end: datetime) -> Iterator[datetime]:
    """`first`'s local time on each such weekday (0: Monday) from `first` on, within [begin, end]."""
    on = first.date() + timedelta(days=(day - first.weekday()) % 7)
    skipped = max(0, (begin.date() - on).days // 7)
    on += timedelta(days=7 * skipped)
    while (at := datetime.combine(on, first.timetz())) <= end:
        yield at
        on += timedelta(days=7)


def ticks(cron: str, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The times of a cron expression after `begin` until `end`, in the zone of `end`."""
    from cronsim import CronSim

    for at in CronSim(cron, begin.astimezone(end.tzinfo)):
        if at > end:
            return
        yield at


def parsed_ics(path: Path) -> Any:
    """The file as an icalendar.Calendar that can be expanded. Raises anything at all."""
    import icalendar

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{size:,} bytes where at most {MAX_BYTES:,} are read")
    content = path.read_bytes()
    frequent = TOO_FREQUENT.search(content)
    if frequent:
        raise ValueError(f"{frequent[0].decode('utf-8', 'replace')}: events come once a day at most, or at set times")
    parsed = icalendar.Calendar.from_ical(content)
    now = datetime.now(UTC)
    events_of(parsed, now - timedelta(days=400), now + AHEAD, ZoneInfo("UTC"))  # mistakes in rules only show here
    return parsed


def events_of(parsed: Any, begin: datetime, end: datetime, zone: ZoneInfo) -> list[Event]:
    """Events of a calendar file, recurring ones written out; all-day and floating times are local. Cancelled: none."""
    import recurring_ical_events

    found = []
    for event in recurring_ical_events.of(parsed).between(begin, end):
        if str(event.get("STATUS", "")).upper() == "CANCELLED":
            continue
        start, until = (_instant(moment, zone) for moment in (event.start, event.end))
        name = str(event.get("SUMMARY", "")).strip() or "event"
        found.append(Event(name, start, until if until > start else start + UNTIMED_SECONDS))
    return found


def _instant(moment: date, zone: ZoneInfo) -> float:
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
