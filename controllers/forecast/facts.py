"""What else is told of a workload beside its forecast: what it was made from, and how exact any forecast could be."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.history import DAY_SECONDS, Floats, History, utc_offsets
from controllers.forecast.noise import HOUR_SECONDS, hour_noise_floor, noise_floor

DEMAND, CENSORED, HOURLY = "workload:demand:rate1m", "workload:demand_censored:bool", "workload:demand:avg1h"
BURST_SECONDS = 300.0
FLOOR_SECONDS = (60, 3600)  # of what floors are told: single minutes, and hourly means
FLOOR_DAYS = 7.0  # of the history's end
HOLIDAY, EVENT, FLOOR = "holiday", "event", "floor"


@dataclass(frozen=True, slots=True)
class Facts:
    """Made anew with every fit.

    `floors`: by seconds of which the mean is taken, the least WAPE that chance leaves; without those that are unknown.
    `series`: contract series that samples came from. `ahead`: holidays, events and floors of the calendar that go on
    or are to come, by kind. `cpu_seconds`: of the last fit with its backtest; None: not measured.
    """

    floors: Mapping[int, float] = field(default_factory=dict)
    series: tuple[str, ...] = ()
    ahead: Mapping[str, int] = field(default_factory=dict)
    cpu_seconds: float | None = None


def facts(
    history: History,
    hours: History | None,
    calendar: Calendar,
    now: float,
    *,
    counted: bool,
    cpu_seconds: float | None = None,
) -> Facts:
    """`counted`: demand is made of pieces (jobs, requests), so that what is no whole number only is so by measurement.

    For any other demand a floor is told where all of it happens to be whole pieces.
    """
    return Facts(floors(history, counted), series_of(history, hours), ahead(calendar, now), cpu_seconds)


def floors(history: History, counted: bool) -> dict[int, float]:
    step = history.step_seconds
    recent = history.last(round(FLOOR_DAYS * DAY_SECONDS / step))
    pieces: Floats = np.where(recent.censored, np.nan, recent.values * step)
    if counted:
        np.round(pieces, out=pieces)
    found = {}
    for seconds in FLOOR_SECONDS:
        several = round(seconds / step)
        if several < 1:
            continue  # finer than what was read
        if seconds == HOUR_SECONDS:  # with the bursts of five minutes: from hour to hour it is the demand that changes
            fine = max(1, round(BURST_SECONDS / step))
            floor = hour_noise_floor(summed(pieces, fine), fine * step)
        else:
            floor = noise_floor(summed(pieces, several), several * step)
        if floor is not None:
            found[seconds] = floor
    return found


def summed(values: Floats, several: int) -> Floats:
    """Sums of so many values each, the newest ones whole; NaN where one is unknown."""
    whole = len(values) // several * several
    sums: Floats = values[len(values) - whole :].reshape(-1, several).sum(axis=1)
    return sums


def series_of(history: History, hours: History | None) -> tuple[str, ...]:
    """Hours that the history reaches over were made from it, whatever the rule of hourly means says."""
    older = 0 if hours is None else max(0, int((history.start - hours.start) // hours.step_seconds))
    return tuple(
        name
        for name, there in (
            (DEMAND, bool(np.isfinite(history.values).any())),
            (CENSORED, bool(history.censored.any())),
            (HOURLY, hours is not None and bool(np.isfinite(hours.values[:older]).any())),
        )
        if there
    )


def ahead(calendar: Calendar, now: float) -> dict[str, int]:
    offset = float(utc_offsets(now, 60.0, 1, calendar.time_zone)[0]) * 60.0
    today = int((now + offset) // DAY_SECONDS)
    return {
        HOLIDAY: sum(day >= today for day in calendar.holidays),
        EVENT: sum(event.end > now for event in calendar.events),
        FLOOR: sum(floor.end > now for floor in calendar.floors),
    }
