"""The weeks before the demo, as Prometheus would have stored them: exactly the series that the live rules go on with.

Only what follows from the trace is written: arrivals and demand, completions of a fleet that kept up with them, and the
fact that demand was never cut short. Nothing is invented about workers, waits or failures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demo import settings
from demo.trace import Demand, Floats

COUNTER, COMPLETED = "queue_enqueued_total", "queue_completed_total"
JOB_SECONDS = settings.CPU_SECONDS + settings.PAUSE_SECONDS


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What came before Unix time `until`.

    counts: jobs in each whole trace minute, the first beginning at `starts_at`; recent: Unix times of the single jobs
    of the raw counter's stretch (ten minutes and the begun one); counter: its value at `until`.
    """

    starts_at: float
    until: float
    counts: npt.NDArray[np.int64]
    recent: Floats
    counter: int

    @property
    def completed(self) -> int:
        """Jobs that were done by then: each takes its time and waits for nobody."""
        return self.counter - int(np.count_nonzero(self.recent > self.until - JOB_SECONDS))

    @property
    def days(self) -> float:
        return len(self.counts) / 1440


def history_until(demand: Demand, until: float, live_end: float, seed: int) -> tuple[History, Floats]:
    """The history up to `until` and the live arrivals in [until, live_end): one draw, cut in two.

    The last minutes' counts are those of the single arrivals drawn for the raw counter, so that both agree.
    """
    raw_minutes = round(settings.RAW_HISTORY_SECONDS / 60) + 1
    last_minute = demand.minute_at(until)
    first_raw_minute = last_minute - raw_minutes
    raw_start = demand.starts_at + first_raw_minute * 60.0
    arrivals = demand.arrivals(raw_start, live_end, seed)
    recent, live = arrivals[arrivals < until], arrivals[arrivals >= until]
    edges = demand.starts_at + 60.0 * np.arange(first_raw_minute, last_minute + 1)
    counts = np.concatenate([demand.counts(first_raw_minute, seed), np.histogram(recent, edges)[0]])
    begun = int(np.count_nonzero(recent >= edges[-1]))
    history = History(demand.starts_at, until, counts, recent, counter=int(counts.sum()) + begun)
    return history, live


def openmetrics(history: History, counter_labels: dict[str, str]) -> Iterator[str]:
    """The history as lines of OpenMetrics text. counter_labels: those of the live scrape, instance and job included."""
    queue = {"system": settings.SYSTEM, "queue": settings.QUEUE}
    workload = {"workload": settings.WORKLOAD}
    ends = history.starts_at + 60.0 * np.arange(1, len(history.counts) + 1)
    per_minute = history.counts / 60.0
    per_five = np.convolve(history.counts, np.ones(5))[: len(history.counts)] / 300.0
    one, five = ends.tolist(), ends[4:].tolist()
    for name, labels, times, values in (
        ("queue:arrivals:rate1m", queue, one, per_minute.tolist()),
        ("queue:arrivals:rate5m", queue, five, per_five[4:].tolist()),
        ("queue:completions:rate1m", queue, one, per_minute.tolist()),
        ("workload:demand:rate1m", workload, one, per_minute.tolist()),
        ("workload:demand:rate5m", workload, five, per_five[4:].tolist()),
        ("workload:demand_censored:bool", workload, one, [0.0] * len(one)),
    ):
        yield f"# TYPE {name} gauge\n"
        yield from _samples(name, labels, times, values)
    times = history.until - np.arange(settings.RAW_HISTORY_SECONDS, -1.0, -settings.SCRAPE_SECONDS)
    before = history.counter - len(history.recent)
    for name, later in ((COUNTER, 0.0), (COMPLETED, JOB_SECONDS)):
        yield f"# TYPE {name.removesuffix('_total')} counter\n"
        totals = before + np.searchsorted(history.recent + later, times, side="right")
        yield from _samples(name, counter_labels, times.tolist(), totals.astype(float).tolist())
    yield "# EOF\n"


def _samples(name: str, labels: dict[str, str], times: Sequence[float], values: Sequence[float]) -> Iterator[str]:
    series = name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
    for at, value in zip(times, values, strict=True):
        yield f"{series} {value!r} {at:.3f}\n"


def write_openmetrics(history: History, counter_labels: dict[str, str], path: Path) -> None:
    """Write the text that `testbed.parts.create_blocks` turns into database blocks."""
    with path.open("w", encoding="utf-8") as text:
        text.writelines(openmetrics(history, counter_labels))
