"""Reads from the ledger's rows what a decision about money needs: the month's pace, and the shape of the week."""

from collections.abc import Sequence
from sqlite3 import Connection
from zoneinfo import ZoneInfo

from controllers.budget import rows
from controllers.budget.decide import Pace
from controllers.budget.periods import mass, shape_of
from controllers.budget.words import Standing

WINDOWS = (300, 1800, 3600, 21600, 259200)  # seconds, of the burn rates: 5 m, 30 m, 1 h, 6 h, 3 d
RECENT_SECONDS = 7 * 86_400.0  # a week holds every hour of the week once
SHAPE_SECONDS = 28 * 86_400.0


def read_shape(db: Connection, at: float, zone: ZoneInfo) -> tuple[float, ...]:
    """The week's demand shape by the spend of the last four weeks; flat while less is known."""
    since = rows.oldest(db)
    begin = at if since is None else max(since, at - SHAPE_SECONDS)
    return shape_of(rows.posted_by_hour(db, begin, at), zone)


def read_pace(db: Connection, standing: Standing, shape: Sequence[float], zone: ZoneInfo) -> Pace:
    """The month in hours of average demand, and what was posted lately."""
    at, since = standing.at, rows.oldest(db)
    begin = max(at - RECENT_SECONDS, at if since is None else since)
    return Pace(
        gone=mass(standing.start, at, shape, zone),
        left=mass(at, standing.end, shape, zone),
        recent=rows.posted_since(db, begin),
        recent_mass=mass(begin, at, shape, zone),
        windows={window: rows.posted_since(db, at - window) for window in WINDOWS},
    )
