"""From the configuration and from calendar files to what is known ahead."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from controllers.config import Config
from controllers.forecast.almanac import Event
from controllers.forecast.calendars import KEPT_SECONDS, Calendars
from controllers.forecast.fit import Fitter
from controllers.forecast.job import Job
from controllers.forecast.run import Forecaster
from controllers.loop import Tick

NOW = datetime(2026, 3, 18, 12, 0, tzinfo=UTC).timestamp()  # a Wednesday, 21:00 in Seoul
NAME = "default/a"


def config(calendar: dict[str, Any] | None, zone: str | None = "Asia/Seoul", **forecast: Any) -> Config:
    workload: dict[str, Any] = {
        "name": "a",
        "demand": {"promql": "vector(1)"},
        "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
        "replicas": {"max": 4},
        "time_zone": zone,
    }
    if calendar is not None:
        workload["calendar"] = calendar
    return Config.model_validate({"workloads": [workload], "forecast": {"rollup_days": 90, **forecast}})


def utc(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


def day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def events(found: tuple[Event, ...]) -> list[tuple[str, str, float]]:
    """Name, begin in UTC, hours."""
    return [
        (e.kind, datetime.fromtimestamp(e.begin, UTC).strftime("%m-%d %H:%M"), (e.end - e.begin) / 3600) for e in found
    ]


def test_without_a_calendar_only_the_zone_is_known() -> None:
    found = Calendars(config(None)).of(NAME, NOW)
    assert (found.time_zone, found.holidays, found.events, found.floors) == ("Asia/Seoul", {}, (), ())
    assert Calendars(config(None, None)).of(NAME, NOW).time_zone == "UTC"


def test_holidays_of_a_country_whatever_language_the_machine_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")
    found = Calendars(config({"holidays": "KR"})).of(NAME, NOW).holidays
    assert found[day("2026-02-17")] == "Korean New Year"
    assert day("2025-12-25") in found  # the past is what effects are learned from
    assert day("2026-03-17") not in found


HOLIDAYS = {
    "the default of all": (None, "KR", "2026-03-01", True),
    "its own before the default": ("DE", "KR", "2026-03-01", False),
    "none of its own": ("none", "KR", "2026-03-01", False),
    "of a part of a country": ("DE-BE", None, "2026-03-08", True),
    "of the other parts": ("DE", None, "2026-03-08", False),
}


@pytest.mark.parametrize(("own", "default", "on", "known"), HOLIDAYS.values(), ids=HOLIDAYS)
def test_whose_holidays(own: str | None, default: str | None, on: str, known: bool) -> None:
    section = {"events": []} if own is None else {"holidays": own}
    assert (day(on) in Calendars(config(section, holidays=default)).of(NAME, NOW).holidays) is known


EVENTS: dict[str, tuple[dict[str, str], list[tuple[str, str, float]]]] = {
    "local time": ({"at": "2026-03-19T19:00", "for": "2h"}, [("x", "03-19 10:00", 2)]),
    "with a zone": ({"at": "2026-03-19T19:00+01:00", "for": "90m"}, [("x", "03-19 18:00", 1.5)]),
    "a whole day": ({"at": "2026-03-19", "for": "1d"}, [("x", "03-18 15:00", 24)]),
    "further ahead than is looked": ({"at": "2026-03-29T19:00", "for": "2h"}, []),
    "older than what is known": ({"at": "2025-03-29T19:00", "for": "2h"}, []),
    "every friday since": (
        {"at": "2026-03-04T10:00", "for": "1h", "every": "Fri"},
        [("x", "03-06 01:00", 1), ("x", "03-13 01:00", 1), ("x", "03-20 01:00", 1)],
    ),
    "cron since": (
        {"at": "2026-03-17T00:00", "for": "30m", "every": "0 9 * * *"},
        [("x", "03-17 00:00", 0.5), ("x", "03-18 00:00", 0.5), ("x", "03-19 00:00", 0.5), ("x", "03-20 00:00", 0.5)],
    ),
}


@pytest.mark.parametrize(("written", "expected"), EVENTS.values(), ids=EVENTS)
def test_configured_events(written: dict[str, str], expected: list[tuple[str, str, float]]) -> None:
    assert events(Calendars(config({"events": [{"name": "x", **written}]})).of(NAME, NOW).events) == expected


def test_a_weekly_event_stays_at_its_local_time_over_a_clock_change() -> None:
    section = {"events": [{"name": "x", "at": "2026-03-12T09:00", "for": "1h", "every": "thursday"}]}
    now = datetime(2026, 4, 1, tzinfo=UTC).timestamp()
    found = Calendars(config(section, "Europe/Berlin")).of(NAME, now).events
    assert [when for _, when, _ in events(found)] == ["03-12 08:00", "03-19 08:00", "03-26 08:00", "04-02 07:00"]


def test_floors_by_cron_in_local_time_the_one_that_runs_included() -> None:
    section = {"floors": [{"cron": "0 20 * * 1-5", "for": "2h", "demand_per_second": 5}]}
    found = Calendars(config(section)).of(NAME, NOW).floors
    assert [f.begin for f in found] == [utc("2026-03-18T11:00"), utc("2026-03-19T11:00"), utc("2026-03-20T11:00")]
    assert {(f.end - f.begin, f.demand_per_second) for f in found} == {(7200.0, 5.0)}


ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//x//x//EN
BEGIN:VEVENT
UID:1
DTSTAMP:20260101T000000Z
SUMMARY:show
DTSTART;TZID=Europe/Berlin:20260301T200000
DTEND;TZID=Europe/Berlin:20260301T213000
RRULE:FREQ=WEEKLY
EXDATE;TZID=Europe/Berlin:20260308T200000
END:VEVENT
BEGIN:VEVENT
UID:2
DTSTAMP:20260101T000000Z
SUMMARY:floating
DTSTART:20260319T190000
DURATION:PT2H
END:VEVENT
BEGIN:VEVENT
UID:3
DTSTAMP:20260101T000000Z
SUMMARY:all day
DTSTART;VALUE=DATE:20260319
END:VEVENT
BEGIN:VEVENT
UID:4
DTSTAMP:20260101T000000Z
SUMMARY:cancelled
STATUS:CANCELLED
DTSTART:20260319T190000Z
END:VEVENT
END:VCALENDAR
"""


def test_a_calendar_file_gives_its_events_recurring_floating_and_whole_days(tmp_path: Path) -> None:
    path = tmp_path / "x.ics"
    path.write_text(ICS)
    found = Calendars(config({"ics": [str(path)]})).of(NAME, NOW).events
    assert events(found) == [
        ("show", "03-01 19:00", 1.5),
        ("show", "03-15 19:00", 1.5),
        ("all day", "03-18 15:00", 24),
        ("floating", "03-19 10:00", 2),
    ]


BROKEN = {
    "empty": b"",
    "a web page": b"<html><body>Sign in</body></html>",
    "cut short": ICS.encode()[:180],
    "no text": b"\xff\xfe\x00\x01",
    "a date that is none": ICS.replace("20260319T190000\n", "2026-03-19\n").encode(),
    "an event without a begin": ICS.replace("DTSTART:20260319T190000\n", "").encode(),
    "a rule that is none": ICS.replace("FREQ=WEEKLY", "FREQ=SOMETIMES").encode(),
    "an event every second": ICS.replace("FREQ=WEEKLY", "FREQ=SECONDLY").encode(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_breaks_keeps_its_last_good_events_and_is_told_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.ics"
    path.write_text(ICS)
    calendars = Calendars(config({"ics": [str(path)]}))
    before = calendars.of(NAME, NOW)
    assert calendars.readable == {str(path): True}
    path.write_bytes(content)
    with capture_logs() as logs:
        found = [calendars.of(NAME, NOW + 30 * n) for n in range(3)]
    assert found == [before] * 3
    assert [log["event"] for log in logs] == ["calendar_unreadable"]
    assert str(path) in logs[0]["file"]
    assert calendars.readable == {str(path): False}
    assert calendars.of(NAME, NOW + 2 * KEPT_SECONDS).events == before.events
    path.write_text(ICS.replace("SUMMARY:floating", "SUMMARY:renamed"))
    assert "renamed" in {event.kind for event in calendars.of(NAME, NOW).events}
    assert calendars.readable == {str(path): True}


def test_a_file_that_is_gone_or_was_never_there(tmp_path: Path) -> None:
    path = tmp_path / "x.ics"
    calendars = Calendars(config({"ics": [str(path)], "holidays": "KR"}))
    with capture_logs() as logs:
        for _ in range(3):
            found = calendars.of(NAME, NOW)
    assert (found.events, bool(found.holidays), len(logs)) == ((), True, 1)
    path.write_text(ICS)
    assert len(calendars.of(NAME, NOW).events) == 4
    path.unlink()
    assert len(calendars.of(NAME, NOW + 60).events) == 4
    assert calendars.readable == {str(path): False}


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ics"
    path.write_text(ICS)
    calendars = Calendars(config({"ics": [str(path)]}))
    first = calendars.of(NAME, NOW)
    monkeypatch.setattr("controllers.forecast.calendars.parsed_ics", lambda path: pytest.fail("read again"))
    assert calendars.of(NAME, NOW + 60) is first
    monkeypatch.undo()
    path.write_text(ICS.replace("SUMMARY:floating", "SUMMARY:renamed!"))
    os.utime(path, ns=(1, 1))
    assert "renamed!" in {event.kind for event in calendars.of(NAME, NOW + 90).events}


def test_time_moves_on_and_may_jump_back() -> None:
    section = {"events": [{"name": "x", "at": "2026-03-01T19:00", "for": "1h", "every": "0 19 * * *"}]}
    calendars = Calendars(config(section))
    for now in (NOW, NOW + 86_400, NOW - 86_400):
        last = calendars.of(NAME, now).events[-1]
        assert 86_400 < last.begin - now <= 2 * 86_400


def test_neither_checking_nor_reading_a_calendar_imports_pandas(tmp_path: Path) -> None:
    (tmp_path / "x.ics").write_text(ICS)
    (tmp_path / "tidewise.yaml").write_text(
        "workloads:\n"
        "  - name: a\n"
        "    demand: {queue: q}\n"
        "    target: {command: {get: [count], set: [scale, '{replicas}']}}\n"
        "    replicas: {max: 4}\n"
        "    calendar:\n"
        "      holidays: KR\n"
        f"      ics: ['{tmp_path}/x.ics']\n"
        "      events: [{name: x, at: 2026-03-01T19:00, for: 1h, every: monday}]\n"
    )
    heavy = "[m for m in ('pandas', 'numpy') if m in sys.modules]"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from controllers import check\n"
        f"check.main(['--no-prometheus', '{tmp_path}/tidewise.yaml'])\n"
        f"print({heavy})\n"
        "from controllers.forecast.calendars import Calendars\n"
        f"Calendars(check.read(Path('{tmp_path}/tidewise.yaml'))).of('default/a', {NOW})\n"
        f"print('pandas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "False"]


def test_a_fit_is_told_the_calendar_and_the_year(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: lambda t: 1.0})
    settings = config({"holidays": "KR"}, history_days=2, rollup_days=30)
    jobs = {}

    class Noting(Fitter):
        def begin(self, given: Mapping[str, Job]) -> list[str]:
            jobs.update(given)
            return list(given)

    forecaster = Forecaster(settings, source, Noting())
    forecaster.step(Tick(NOW, time.monotonic() + 60))
    forecaster.close()
    assert jobs[NAME].calendar == Calendars(settings).of(NAME, NOW)
    assert jobs[NAME].hours is not None
    assert len(jobs[NAME].hours.values) == 30 * 24


def test_rules_that_cannot_be_written_out_any_more_are_no_events_and_no_fault_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.ics"
    path.write_text(ICS)
    calendars = Calendars(config({"ics": [str(path)]}))
    assert calendars.of(NAME, NOW).events

    def failing(*_: object) -> None:
        raise OverflowError("of the test")

    monkeypatch.setattr("controllers.forecast.calendars.events_of", failing)
    assert calendars.of(NAME, NOW + 7200).events == ()
    assert calendars.readable == {str(path): False}
