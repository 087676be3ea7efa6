"""Months, leap days and clocks that are put forward; the shape of a week."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from controllers.budget.periods import FLAT, HOUR, bounds, hour_of_week, mass, period_of, shape_of


def at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("sentence", "when", "zone", "period"),
    [
        ("the last second of a month is still its own", "2026-11-30T23:59:59", "Asia/Seoul", "2026-11"),
        ("midnight begins the next one", "2026-12-01T00:00:00", "Asia/Seoul", "2026-12"),
        ("the year turns with it", "2027-01-01T00:00:00", "Asia/Seoul", "2027-01"),
        ("a leap day belongs to February", "2028-02-29T12:00:00", "Asia/Seoul", "2028-02"),
        ("and the day after does not", "2028-03-01T00:00:00", "Asia/Seoul", "2028-03"),
        ("summer time does not move a month", "2026-03-29T03:00:00", "Europe/Berlin", "2026-03"),
        ("nor does a zone of half an hour", "2026-06-30T23:59:59", "Asia/Kolkata", "2026-06"),
    ],
)
def test_the_month_of_a_moment(sentence: str, when: str, zone: str, period: str) -> None:
    assert period_of(at(when, zone), ZoneInfo(zone)) == period, sentence


def test_the_same_moment_is_another_month_elsewhere() -> None:
    moment = at("2026-12-01T00:30:00", "Asia/Seoul")
    assert period_of(moment, ZoneInfo("Asia/Seoul")) == "2026-12"
    assert period_of(moment, ZoneInfo("UTC")) == "2026-11"


@pytest.mark.parametrize(
    ("sentence", "period", "zone", "hours"),
    [
        ("thirty days", "2026-11", "Asia/Seoul", 720),
        ("thirty-one days over the new year", "2026-12", "Asia/Seoul", 744),
        ("a leap February", "2028-02", "Asia/Seoul", 696),
        ("an ordinary one", "2027-02", "Asia/Seoul", 672),
        ("a century that is no leap year", "2100-02", "UTC", 672),
        ("an hour is lost in spring", "2027-03", "Europe/Berlin", 743),
        ("and found in autumn", "2026-10", "Europe/Berlin", 745),
        ("the month may begin while clocks are put forward at midnight", "2026-09", "America/Santiago", 719),
    ],
)
def test_how_long_a_month_is(sentence: str, period: str, zone: str, hours: int) -> None:
    start, end = bounds(period, ZoneInfo(zone))
    assert (end - start) / HOUR == hours, sentence
    assert period_of(start, ZoneInfo(zone)) == period
    assert period_of(end - 1, ZoneInfo(zone)) == period
    assert period_of(end, ZoneInfo(zone)) > period
    assert mass(start, end, FLAT, ZoneInfo(zone)) == pytest.approx(hours)


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "26-11", "2026-1", "", "2026-11-01", "abcd-ef", "1999-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a month as YYYY-MM"):
        bounds(text, ZoneInfo("UTC"))


def test_mass_follows_the_shape() -> None:
    zone = ZoneInfo("UTC")
    monday = at("2026-11-02T00:00:00", "UTC")
    shape = [0.0] * 168
    shape[9] = 168.0  # all demand comes on Mondays, from nine to ten
    assert hour_of_week(monday + 9.5 * HOUR, zone) == 9
    assert mass(monday, monday + 9 * HOUR, shape, zone) == 0
    assert mass(monday, monday + 9.25 * HOUR, shape, zone) == pytest.approx(42)
    assert mass(monday, monday + 7 * 24 * HOUR, shape, zone) == pytest.approx(168)


def test_a_shape_is_flat_until_two_weeks_are_known_and_never_loses_an_hour() -> None:
    zone = ZoneInfo("UTC")
    monday = at("2026-11-02T00:00:00", "UTC")
    week = [(monday + hour * HOUR, 10.0 if hour % 24 == 9 else 0.0) for hour in range(168)]
    later = [(start + 7 * 24 * HOUR, spend) for start, spend in week]
    assert shape_of(week, zone) == FLAT
    shape = shape_of([*week, *later], zone)
    assert shape[9] > 10 > 0.5 == shape[10]
    assert sum(shape) == pytest.approx(168)
    assert shape_of([(start, 0.0) for start, _ in [*week, *later]], zone) == FLAT
