"""Usage events from files of JSON lines, where no ledger runs: the same events as the ledger's POST /usage.

    {"event_id": "n8n/7/ocr/0/1", "provider": "google", "model": "gemini-2.5-flash", "units": {"input_tokens": 900},
     "cost": "0.02 USD", "service": "ocr", "workflow": "n8n-7", "workload": "default/video",
     "occurred_at": "2026-11-22T12:00:00+09:00"}

Each event is counted once, in the month it occurred in. A line that is still being written waits for its end. Files are
told apart by their inode, so that one that is renamed is not read again; one that got shorter is read anew.
"""

import glob
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from prometheus_client.metrics_core import Metric
from pydantic import Field

from exporters.cost.money import decimal, micro, money
from exporters.cost.months import month_start
from exporters.cost.spend import LINES, Line, Month, Scope, month_metrics
from exporters.runtime.config import Section

SOURCE = "usage"
FILES_MOST = 100
CHUNK = 1 << 20
LINE_LONGEST = 1 << 16  # bytes; what is longer is no event
IDS_MOST = 200_000  # events that are remembered: the same one again is found among so many
SCOPES_MOST = 10_000
AHEAD_SECONDS = 32 * 86_400.0  # the next month, no later one
RESULTS = ("counted", "repeated", "other_month", "refused")
_LABEL_LONGEST = 200


class UsageFiles(Section):
    """`path`: of one file, or a pattern of several, such as /var/log/usage.jsonl*."""

    path: Annotated[str, Field(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class Event:
    """One usage event. amount: micro-units; currency "": its cost was not told."""

    event_id: str
    occurred: float
    scope: Scope
    currency: str
    amount: int
    units: Mapping[str, float]


@dataclass
class _Total:
    amount: int = 0
    units: dict[str, float] = field(default_factory=dict)


class Events:
    """Follows the files and sums up the present month, and the next one where clocks are ahead."""

    def __init__(self, config: UsageFiles, zone: ZoneInfo, most: int) -> None:
        self._config, self._zone, self._most = config, zone, most
        self._results: Counter[str] = Counter()
        self._start_over(0.0)

    def _start_over(self, month: float) -> None:
        self._month = month
        self._offsets: dict[tuple[int, int], int] = {}  # (device, inode) -> bytes that were read
        self._ids: dict[bytes, None] = {}
        self._totals: dict[float, dict[tuple[Scope, str], _Total]] = {}  # start of the month -> …

    def collect(self, deadline: float) -> Iterator[Metric]:
        month = month_start(time.time(), self._zone)
        if month < self._month:  # the clock was set back: what was let go is needed again
            self._start_over(month)
        self._month = month
        for past in [start for start in self._totals if start < month]:
            del self._totals[past]
        self._read(deadline)
        lines = [
            Line(scope, currency, total.amount, total.units)
            for (scope, currency), total in self._totals.get(month, {}).items()
        ]
        yield from month_metrics(Month(SOURCE, "estimated", month, lines), self._most)
        seen = LINES.metric()
        for result in RESULTS:
            seen.add_metric([result], self._results[result])
        yield seen

    def _read(self, deadline: float) -> None:
        """All that was added. Raises OSError where a file cannot be read, or there was not enough time."""
        paths = [path for path in sorted(glob.glob(self._config.path)) if os.path.isfile(path)]
        if not paths:
            raise FileNotFoundError(f"{self._config.path}: there is no such file; check exporters.cost.usage.path")
        if len(paths) > FILES_MOST:
            raise OSError(f"{self._config.path}: fits {len(paths)} files; at most {FILES_MOST} are followed")
        there = set()
        for path in paths:
            with open(path, "rb") as file:
                about = os.fstat(file.fileno())
                key = (about.st_dev, about.st_ino)
                there.add(key)
                offset = self._offsets.get(key, 0)
                file.seek(offset if offset <= about.st_size else 0)
                rest = b""
                while chunk := file.read(CHUNK):
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        self._take(line)
                    self._offsets[key] = file.tell() - len(rest)
                    if len(rest) > LINE_LONGEST:  # a line without an end; its own end will be refused, too
                        self._results["refused"] += 1
                        self._offsets[key], rest = file.tell(), b""
                    if time.monotonic() > deadline - 0.5:
                        left = about.st_size - self._offsets[key]
                        raise OSError(f"{path}: {left} bytes are still to be read; the next scrape goes on")
        for gone in self._offsets.keys() - there:
            del self._offsets[gone]

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            event = event_of(line)
            month = month_start(event.occurred, self._zone)
            if month > self._month + AHEAD_SECONDS:
                raise ValueError("not of this time")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, OSError):
            self._results["refused"] += 1
            return
        if month < self._month:
            self._results["other_month"] += 1
            return
        known = hashlib.blake2b(event.event_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if known in self._ids:
            self._results["repeated"] += 1
            return
        self._ids[known] = None
        if len(self._ids) > IDS_MOST:
            del self._ids[next(iter(self._ids))]
        self._results["counted"] += 1
        totals = self._totals.setdefault(month, {})
        key = (event.scope, event.currency)
        if key not in totals and len(totals) >= SCOPES_MOST:
            key = (Scope(*("other",) * 5), event.currency)
        total = totals.setdefault(key, _Total())
        total.amount += event.amount
        for unit, quantity in event.units.items():
            total.units[unit] = total.units.get(unit, 0) + quantity


def event_of(line: bytes) -> Event:
    """One line. Raises ValueError, TypeError, KeyError, AttributeError, RecursionError or OverflowError."""
    if len(line) > LINE_LONGEST:
        raise ValueError("too long")
    found: dict[str, Any] = json.loads(line)
    occurred = datetime.fromisoformat(found["occurred_at"])
    if occurred.tzinfo is None:
        raise ValueError("occurred_at has no zone")
    cost = money(found["cost"]) if found.get("cost") is not None else None
    units = {str(unit)[:64]: float(decimal(count)) for unit, count in (found.get("units") or {}).items()}
    if (cost is None and not units) or len(units) > 20 or min(units.values(), default=0) < 0:
        raise ValueError("neither cost nor units")
    if not isinstance(found["event_id"], str):
        raise ValueError("its event_id is no text")
    scope = Scope(
        *(
            str(found.get(name) or "")[:_LABEL_LONGEST]
            for name in ("provider", "service", "model", "workflow", "workload")
        )
    )
    currency, amount = (cost.currency, micro(cost.amount)) if cost else ("", 0)
    return Event(found["event_id"], occurred.timestamp(), scope, currency, amount, units)
