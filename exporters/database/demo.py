"""What the database exporter would show of databases that one might have."""

import math
from collections.abc import Iterator

from exporters.database import state as the
from exporters.database.state import Fact, Which

SHOP: Which = ("postgresql", "demo-shop")
STANDBY: Which = ("postgresql", "demo-shop-standby")
GONE: Which = ("postgresql", "demo-gone")
CACHE: Which = ("redis", "demo-cache")
NOTES: Which = ("sqlite", "demo-notes.db")


def demo_facts(at: float) -> dict[Which, list[Fact]]:
    """Facts by database at that Unix time."""
    day = math.sin(at * 2 * math.pi / 86400)
    hour = math.sin(at * 2 * math.pi / 3600)
    return {
        SHOP: list(_shop(at, day, hour)),
        STANDBY: list(_standby(hour)),
        GONE: [(the.UP, (), 0), (the.UNREACHABLE, ("refused",), 1)],
        CACHE: list(_cache(at, day, hour)),
        NOTES: list(_notes(hour)),
    }


def _grown(at: float, per_second: float) -> float:
    """A counter: so much a second, with some unrest, and never falling."""
    passed = at % 1e8
    return math.floor(per_second * (passed + 100 * math.sin(passed / 300)))


def _shop(at: float, day: float, hour: float) -> Iterator[Fact]:
    yield the.UP, (), 1
    yield the.INFO, ("17.6",), 1
    yield the.PING, (), 0.0006 + 0.0003 * hour
    yield the.CONNECTIONS_MAX, (), 97
    active = round(8 + 6 * day + 2 * hour)
    for state, count in (("active", active), ("idle", 40 - active), ("idle in transaction", 1)):
        yield the.CONNECTIONS, (state,), count
    yield the.REPLICA, (), 0
    yield the.REPLICAS, (), 1
    yield the.LAG, ("demo-shop-standby",), 0.4 + 0.3 * hour
    yield the.LAG_BYTES, ("demo-shop-standby",), round(40_000 + 30_000 * hour)
    yield the.OLDEST, (), 20 + 15 * hour
    yield the.LOCKS, (), round(1 + hour)
    for name, share in (("shop", 1.0), ("reports", 0.2)):
        yield the.SIZE, (name,), round(share * (4e9 + 4e8 * day))
        yield the.TRANSACTIONS, (name, "commit"), _grown(at, 120 * share)
        yield the.TRANSACTIONS, (name, "rollback"), _grown(at, 0.5 * share)
        yield the.BLOCKS, (name, "hit"), _grown(at, 9000 * share)
        yield the.BLOCKS, (name, "read"), _grown(at, 90 * share)
        yield the.TEMP, (name,), _grown(at, 20_000 * share)
        yield the.DEADLOCKS, (name,), _grown(at, 0.001 * share)
        yield the.WRAPAROUND, (name,), 0.06 + 0.01 * day
    yield the.TUPLES, ("shop", "live"), round(2e6 + 1e5 * day)
    yield the.TUPLES, ("shop", "dead"), round(4e4 + 2e4 * hour)
    for queryid, calls, seconds in (("-3141592653589793238", 80, 0.35), ("2718281828459045235", 4, 0.2)):
        yield the.STATEMENT_CALLS, (queryid,), _grown(at, calls)
        yield the.STATEMENT_SECONDS, (queryid,), _grown(at, 1000 * seconds) / 1000
        yield the.STATEMENT_ROWS, (queryid,), _grown(at, 12 * calls)


def _standby(hour: float) -> Iterator[Fact]:
    yield the.UP, (), 1
    yield the.INFO, ("17.6",), 1
    yield the.PING, (), 0.0009 + 0.0002 * hour
    yield the.CONNECTIONS_MAX, (), 97
    yield the.CONNECTIONS, ("idle",), 4
    yield the.REPLICA, (), 1
    yield the.LINK, (), 1
    yield the.LAG, ("self",), 0.4 + 0.3 * hour
    yield the.LAG_BYTES, ("self",), round(9_000 + 8_000 * hour)


def _cache(at: float, day: float, hour: float) -> Iterator[Fact]:
    yield the.UP, (), 1
    yield the.INFO, ("7.2.4",), 1
    yield the.PING, (), 0.0002 + 0.0001 * hour
    yield the.CONNECTIONS, ("blocked",), 4
    yield the.CONNECTIONS, ("unblocked",), round(20 + 8 * day)
    yield the.CONNECTIONS_MAX, (), 10_000
    yield the.REPLICA, (), 0
    yield the.REPLICAS, (), 0
    yield the.MEMORY_USED, (), round(6e8 + 1e8 * day + 2e7 * hour)
    yield the.MEMORY_MAX, (), 2**30
    yield the.KEYS, ("db0",), round(2e5 + 3e4 * day)
    yield the.EVICTED, (), _grown(at, 0.2)
    yield the.EXPIRED, (), _grown(at, 12)
    yield the.LOOKUPS, ("hit",), _grown(at, 900)
    yield the.LOOKUPS, ("miss",), _grown(at, 60)
    yield the.COMMANDS, (), _grown(at, 1400)
    yield the.REJECTED, (), 0
    yield the.PERSISTENCE, ("rdb",), 1
    yield the.PERSISTENCE, ("aof",), 1
    yield the.LAST_SAVE, (), at - at % 300
    yield the.UNSAVED, (), round(8 * (at % 300))


def _notes(hour: float) -> Iterator[Fact]:
    yield the.UP, (), 1
    yield the.PING, (), 0.0004 + 0.0001 * hour
    yield the.SIZE, ("file",), 48_234_496
    yield the.SIZE, ("wal",), round(2e6 + 1e6 * hour)
    yield the.PAGES, ("used",), 11_000
    yield the.PAGES, ("free",), 776
    yield the.BUSY, (), 0
