"""Hours of the clock on the wall: floors of replicas, and hours in which a replica is cheaper.

Five fields of cron in the workload's zone, read as Debian's cron reads them where the clock is changed: what falls into
the hour that is left out comes right after it, what falls into the hour that comes twice comes once (unless it comes
every hour anyway). The length counts real seconds.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

AHEAD_SECONDS = 86_400.0  # are worked out at once, at least


@dataclass(frozen=True, slots=True)
class Hours:
    """From each time of `cron` in `zone` on, for `length_seconds`."""

    cron: str
    length_seconds: float
    zone: str


@dataclass(slots=True)
class _Known:
    """The hours worked out so far, as disjoint windows, ascending: all that reach into [since, until)."""

    since: float
    until: float
    begins: list[float]
    ends: list[float]


@dataclass(slots=True)
class Timetable:
    """Works out each `Hours` once a day, whoever asks. Not for several threads."""

    _known: dict[Hours, _Known] = field(default_factory=dict)

    def touching(self, hours: Hours, begin: float, end: float) -> list[tuple[float, float]]:
        """The windows [from, to) that reach into [begin, end), in Unix seconds, ascending; what overlaps is one."""
        known = self._known.get(hours)
        if known is None or not known.since <= begin or end > known.until:
            known = self._known[hours] = _worked_out(hours, begin, max(end, begin + AHEAD_SECONDS) + AHEAD_SECONDS)
        place = bisect_right(known.ends, begin)
        found = []
        while place < len(known.begins) and known.begins[place] < end:
            found.append((known.begins[place], known.ends[place]))
            place += 1
        return found

    def floor(self, floors: Sequence[tuple[Hours, int]], begin: float, end: float) -> int | None:
        """The highest of the floors (hours, replicas) that reach into [begin, end); None: none does."""
        return max((least for hours, least in floors if self.touching(hours, begin, end)), default=None)

    def windows(self, cheap: Iterable[Hours], begin: float, end: float) -> tuple[tuple[float, float], ...]:
        """All windows of `cheap` that reach into [begin, end), ascending; those that overlap are one."""
        return tuple(_merged(sorted(window for hours in cheap for window in self.touching(hours, begin, end))))


def _worked_out(hours: Hours, begin: float, end: float) -> _Known:
    # from so far back, because what began before may still run
    since = datetime.fromtimestamp(begin - hours.length_seconds - 1, UTC).astimezone(ZoneInfo(hours.zone))
    starts = takewhile(lambda start: start < end, (time.timestamp() for time in CronSim(hours.cron, since)))
    windows = _merged((start, start + hours.length_seconds) for start in starts)
    return _Known(begin, end, [start for start, _ in windows], [until for _, until in windows])


def _merged(windows: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of windows in the order of their begin, those that overlap or touch as one."""
    found: list[tuple[float, float]] = []
    for start, until in windows:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        else:
            found.append((start, until))
    return found
