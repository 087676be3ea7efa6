"""Moments as people write them, in the workload's zone, also when its clocks are set."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from controllers.scale.moments import coming, length, past, spoken

SEOUL, BERLIN = ZoneInfo("Asia/Seoul"), ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


NOW = at("2026-11-27T22:30:00+09:00")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("23:00", "2026-11-27T23:00:00+09:00"),
        ("21:00", "2026-11-28T21:00:00+09:00"),
        ("22:30", "2026-11-28T22:30:00+09:00"),
        ("9:05", "2026-11-28T09:05:00+09:00"),
        ("23:00:30", "2026-11-27T23:00:30+09:00"),
        ("2h", "2026-11-28T00:30:00+09:00"),
        ("1d", "2026-11-28T22:30:00+09:00"),
        ("2026-11-29T08:00", "2026-11-29T08:00:00+09:00"),
        ("2026-11-29 08:00", "2026-11-29T08:00:00+09:00"),
        ("2026-11-28T08:00:00Z", "2026-11-28T17:00:00+09:00"),
    ],
)
def test_moments_to_come(written: str, meant: str) -> None:
    assert coming(written, NOW, SEOUL) == at(meant)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("22:00", "2026-11-27T22:00:00+09:00"),
        ("23:00", "2026-11-26T23:00:00+09:00"),
        ("22:30", "2026-11-27T22:30:00+09:00"),
        ("2h ago", "2026-11-27T20:30:00+09:00"),
        ("3d ago", "2026-11-24T22:30:00+09:00"),
        ("2026-11-20T13:25:00Z", "2026-11-20T22:25:00+09:00"),
        ("2026-11-20T13:25", "2026-11-20T13:25:00+09:00"),
    ],
)
def test_moments_that_were(written: str, meant: str) -> None:
    assert past(written, NOW, SEOUL) == at(meant)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("soon", "found 'soon'; write a time such as 21:00 or 2026-11-20T21:00, or a length such as 2h"),
        ("25:00", "found '25:00'; write a time such as 21:00 or 2026-11-20T21:00, or a length such as 2h"),
        ("0h", "found '0h'; write a time such as 21:00 or 2026-11-20T21:00, or a length such as 2h"),
        ("", "found ''; write a time such as 21:00 or 2026-11-20T21:00, or a length such as 2h"),
        ("2026-11-20T13:25", "found '2026-11-20T13:25', which has passed (2026-11-20 13:25 KST)"),
    ],
)
def test_what_is_no_moment_to_come(written: str, said: str) -> None:
    with pytest.raises(ValueError, match="found") as error:
        coming(written, NOW, SEOUL)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2h", "found '2h'; write a time such as 13:25 or 2026-11-20T13:25, or '2h ago'"),
        ("99999999d ago", "found '99999999d ago'; write a time such as 13:25 or 2026-11-20T13:25, or '2h ago'"),
        ("2027-01-01T00:00", "found '2027-01-01T00:00', which is still to come (2027-01-01 00:00 KST)"),
    ],
)
def test_what_is_no_moment_that_was(written: str, said: str) -> None:
    with pytest.raises(ValueError, match="found") as error:
        past(written, NOW, SEOUL)
    assert str(error.value) == said


def test_an_hour_that_is_struck_twice_and_one_that_is_not_struck() -> None:
    first, second = at("2026-10-25T02:30:00+02:00"), at("2026-10-25T02:30:00+01:00")
    assert coming("02:30", first - 60, BERLIN) == first
    assert coming("02:30", first, BERLIN) == second
    assert past("02:30", second - 60, BERLIN) == first
    spring = at("2026-03-29T01:00:00+01:00")
    half_past = at("2026-03-29T03:30:00+02:00")  # never before the hour that was meant
    assert coming("02:30", spring, BERLIN) == coming("2026-03-29T02:30", spring, BERLIN) == half_past
    assert past("02:30", half_past + 60, BERLIN) == half_past


def test_how_moments_and_lengths_are_spoken() -> None:
    assert spoken(NOW, SEOUL) == "2026-11-27 22:30 KST"
    assert spoken(NOW + 5, SEOUL) == "2026-11-27 22:30:05 KST"
    lengths = [length(s) for s in (0.4, 59, 60, 3600, 8040, 86_400, 90_000, 604_800)]
    assert lengths == ["0 s", "59 s", "1 min", "1 h", "2 h 14 min", "1 d", "1 d 1 h", "7 d"]
