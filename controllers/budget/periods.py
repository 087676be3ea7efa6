"""Months in the budget's time zone, and how demand is spread over the hours of a week. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

HOURS_OF_WEEK = 168
FLAT: tuple[float, ...] = (1.0,) * HOURS_OF_WEEK
HOUR = 3600.0
DAYS_FOR_A_SHAPE = 14.0  # every hour of the week seen twice


def period_of(at: float, zone: ZoneInfo) -> str:
    """The month that a moment belongs to, such as '2026-11'."""
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m")


def bounds(period: str, zone: ZoneInfo) -> tuple[float, float]:
    """[start, end) of a month in Unix seconds. Raises ValueError for what is no YYYY-MM."""
    if not re.fullmatch(r"(20|21)\d\d-(0[1-9]|1[0-2])", period):
        raise ValueError(f"found '{period[:40]}'; write a month as YYYY-MM, for example 2026-11")
    year, month = int(period[:4]), int(period[5:])
    following = (year + month // 12, month % 12 + 1)
    return (
        datetime(year, month, 1, tzinfo=zone).timestamp(),
        datetime(*following, 1, tzinfo=zone).timestamp(),
    )


@lru_cache(maxsize=4096)  # a month's mass asks for the same 744 hours again and again
def hour_of_week(at: float, zone: ZoneInfo) -> int:
    """0 is Monday 00:00-01:00 in the zone."""
    local = datetime.fromtimestamp(at, zone)
    return local.weekday() * 24 + local.hour


def mass(start: float, end: float, shape: Sequence[float], zone: ZoneInfo) -> float:
    """How much of the weekly demand shape lies in [start, end), in hours of average demand."""
    total, at = 0.0, start
    while at < end:
        following = min(end, (at // HOUR + 1) * HOUR)
        total += shape[hour_of_week(at, zone)] * (following - at) / HOUR
        at = following
    return total


def shape_of(hourly: Sequence[tuple[float, float]], zone: ZoneInfo) -> tuple[float, ...]:
    """Weights of the hours of the week, mean 1, from (hour's start, spend) of whole hours.

    Flat until two weeks are known. Half of each weight is flat, so that an hour that happened to be silent is not
    taken for one that always is.
    """
    if len(hourly) * HOUR < DAYS_FOR_A_SHAPE * 24 * HOUR:
        return FLAT
    sums, counts = [0.0] * HOURS_OF_WEEK, [0] * HOURS_OF_WEEK
    for at, spend in hourly:
        hour = hour_of_week(at, zone)
        sums[hour] += max(0.0, spend)
        counts[hour] += 1
    means = [total / count if count else 0.0 for total, count in zip(sums, counts, strict=True)]
    average = sum(means) / HOURS_OF_WEEK
    if average <= 0:
        return FLAT
    return tuple(0.5 + 0.5 * mean / average for mean in means)
