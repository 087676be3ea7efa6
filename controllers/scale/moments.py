"""Moments as people write them: 21:00, 2h, 2h ago, 2026-11-20T13:25; and as they read them, in a workload's zone."""

import re
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from controllers.config import Config, Workload
from controllers.config.values import seconds_of

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


def zone_of(workload: Workload, config: Config) -> ZoneInfo:
    """The workload's zone; the budget's, or UTC, where it names none."""
    budget = config.budget.time_zone if config.budget else None
    return ZoneInfo(workload.time_zone or budget or "UTC")


def coming(text: str, now: float, zone: ZoneInfo) -> float:
    """Unix seconds of a moment after `now`: the next 21:00, a length from now, or ISO 8601. Raises ValueError."""
    asked = text.strip()
    if seconds_of(asked) > 0:
        return now + seconds_of(asked)
    at = _clock(asked, now, zone, ahead=True) or _iso(asked, zone)
    if at is None:
        raise ValueError(f"found '{text}'; write a time such as 21:00 or 2026-11-20T21:00, or a length such as 2h")
    if at <= now:
        raise ValueError(f"found '{text}', which has passed ({spoken(at, zone)})")
    return at


def past(text: str, now: float, zone: ZoneInfo) -> float:
    """Unix seconds of a moment up to `now`: the last 13:25, 2h ago, or ISO 8601. Raises ValueError."""
    asked = text.strip()
    length, ago, rest = asked.partition(" ago")
    if ago and not rest and 0 < seconds_of(length) < now:
        return now - seconds_of(length)
    at = _clock(asked, now, zone, ahead=False) or _iso(asked, zone)
    if at is None:
        raise ValueError(f"found '{text}'; write a time such as 13:25 or 2026-11-20T13:25, or '2h ago'")
    if at > now:
        raise ValueError(f"found '{text}', which is still to come ({spoken(at, zone)})")
    return at


def spoken(at: float, zone: ZoneInfo) -> str:
    """2026-11-20 21:00 KST; with seconds where there are any."""
    moment = datetime.fromtimestamp(round(at), zone)
    return moment.strftime("%Y-%m-%d %H:%M %Z" if moment.second == 0 else "%Y-%m-%d %H:%M:%S %Z")


def length(seconds: float) -> str:
    """3 d 4 h, 2 h 14 min, 5 min, 40 s: two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    return f"{hours} h {minutes} min" if hours and minutes else f"{hours} h" if hours else f"{minutes} min"


def _clock(text: str, now: float, zone: ZoneInfo, *, ahead: bool) -> float | None:
    """The next, or the last, moment at which a clock in the zone shows this; None where it is no clock time."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        return None
    shown = time(int(found[1]), int(found[2]), int(found[3] or 0))
    today = datetime.fromtimestamp(now, zone).date()
    moments: list[float] = []
    for day in (-1, 0, 1):
        first = datetime.combine(today + timedelta(days=day), shown, zone)
        # An hour that is struck twice when summer time ends is two moments; one that is not struck when it begins is
        # one, as many minutes after the jump (RFC 5545): the other reading would be before it.
        moments += [first.timestamp(), max(first.timestamp(), first.replace(fold=1).timestamp())]
    return min(at for at in moments if at > now) if ahead else max(at for at in moments if at <= now)


def _iso(text: str, zone: ZoneInfo) -> float | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=zone)).timestamp()
