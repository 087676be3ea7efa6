"""Hours of the clock on the wall: when they reach into a span, across changes of the clock, and how cheaply asked."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from controllers.scale.schedule import Hours, Timetable

BERLIN = "Europe/Berlin"
OFFICE = Hours("0 9 * * 1-5", 9 * 3600.0, BERLIN)
NIGHT = Hours("30 2 * * *", 3600.0, BERLIN)


def at(text: str, zone: str = BERLIN) -> float:
    """`fold=1` is written with a trailing *: the second time an hour comes."""
    when = datetime.fromisoformat(text.rstrip("*")).replace(tzinfo=ZoneInfo(zone), fold=int(text.endswith("*")))
    return when.timestamp()


@pytest.mark.parametrize(
    ("sentence", "hours", "begin", "end", "expected"),
    [
        ("before it begins", OFFICE, "2026-06-01T08:00", "2026-06-01T08:59", None),
        ("the span touches its begin", OFFICE, "2026-06-01T08:58", "2026-06-01T09:01", "2026-06-01T09:00"),
        ("a span that ends as it begins does not", OFFICE, "2026-06-01T08:58", "2026-06-01T09:00", None),
        ("it is on", OFFICE, "2026-06-01T12:00", "2026-06-01T12:01", "2026-06-01T09:00"),
        ("it is over as it ends", OFFICE, "2026-06-01T18:00", "2026-06-01T18:01", None),
        ("not on a Sunday", OFFICE, "2026-06-07T12:00", "2026-06-07T12:01", None),
        ("left out: right after it", NIGHT, "2026-03-29T03:10", "2026-03-29T03:11", "2026-03-29T03:00"),
        ("… and it lasts as long as ever", NIGHT, "2026-03-29T03:59", "2026-03-29T04:00", "2026-03-29T03:00"),
        ("… and no longer", NIGHT, "2026-03-29T04:00", "2026-03-29T04:10", None),
        ("comes twice: the first time", NIGHT, "2026-10-25T02:30", "2026-10-25T02:31", "2026-10-25T02:30"),
        ("… and not again the second time", NIGHT, "2026-10-25T02:31*", "2026-10-25T02:59*", None),
    ],
)  # fmt: skip
def test_touching(sentence: str, hours: Hours, begin: str, end: str, expected: str | None) -> None:
    found = Timetable().touching(hours, at(begin), at(end))
    assert [start for start, _ in found] == ([] if expected is None else [at(expected)]), sentence
    assert all(until - start == hours.length_seconds for start, until in found)


def test_what_overlaps_itself_is_one_window() -> None:
    often = Hours("0 * * * *", 5400.0, "UTC")
    (window,) = Timetable().touching(often, at("2026-06-01T10:10", "UTC"), at("2026-06-01T15:00", "UTC"))
    assert window[0] <= at("2026-06-01T10:00", "UTC")
    assert window[1] >= at("2026-06-01T15:00", "UTC")


def test_the_highest_floor_counts_and_no_floor_is_none() -> None:
    timetable, noon = Timetable(), Hours("0 12 * * *", 600.0, BERLIN)
    floors = ((OFFICE, 3), (noon, 8))
    assert timetable.floor(floors, at("2026-06-01T11:58"), at("2026-06-01T12:02")) == 8
    assert timetable.floor(floors, at("2026-06-01T13:00"), at("2026-06-01T13:02")) == 3
    assert timetable.floor(floors, at("2026-06-01T23:00"), at("2026-06-01T23:02")) is None


def test_cheap_hours_are_told_in_order_and_as_one_where_they_meet() -> None:
    night, early = Hours("0 1 * * *", 4 * 3600.0, BERLIN), Hours("0 5 * * *", 3600.0, BERLIN)
    found = Timetable().windows((early, night), at("2026-06-01T02:00"), at("2026-06-02T02:00"))
    assert found == (
        (at("2026-06-01T01:00"), at("2026-06-01T06:00")),
        (at("2026-06-02T01:00"), at("2026-06-02T05:00")),
    )


def test_a_year_of_steps_asks_cron_once_a_day_and_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from controllers.scale import schedule

    made: list[float] = []
    real = schedule._worked_out
    monkeypatch.setattr(schedule, "_worked_out", lambda *args: made.append(0) or real(*args))
    timetable, begin = Timetable(), at("2026-01-01T00:00")
    on = sum(
        bool(timetable.touching(OFFICE, begin + hour * 3600.0, begin + hour * 3600.0 + 60)) for hour in range(8760)
    )
    assert on == 261 * 9
    assert len(made) <= 366


def test_a_clock_that_is_set_back_is_followed() -> None:
    timetable, then = Timetable(), at("2026-06-03T12:00")
    assert timetable.touching(OFFICE, then, then + 60)
    assert timetable.touching(OFFICE, then - 86_400, then - 86_340)
    assert not timetable.touching(OFFICE, at("2026-05-31T12:00"), at("2026-05-31T12:01"))
