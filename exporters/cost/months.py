"""Months in a time zone."""

from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones


def month_start(at: float, zone: ZoneInfo) -> float:
    """When the month of a moment began; all in Unix seconds."""
    local = datetime.fromtimestamp(at, zone)
    return datetime(local.year, local.month, 1, tzinfo=zone).timestamp()


def zone_name(text: str) -> str:
    """An IANA time zone. Raises ValueError."""
    if text not in available_timezones():
        raise ValueError(f"found '{text[:60]}'; write an IANA time zone, for example Asia/Seoul")
    return text
