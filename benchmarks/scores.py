"""Scores forecasts from their rows and the trace alone, so that anyone can score them anew.

WAPE: summed absolute error over summed demand. Coverage: share of outcomes at or below a quantile; windows in which
nothing came are counted apart. Pinball: the quantile's own loss (Koenker and Bassett 1978).
"""

import csv
import functools
import gzip
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.traces import HOUR, Trace
from controllers.forecast.history import Floats
from controllers.forecast.noise import hour_noise_floor, noise_floor

OURS, LAST, PEAK_PEER = "tidewise", "last_value", "last_peak_conformal"
NAIVES = (LAST, "day_naive", "week_naive")
HORIZONS = (120, 300, 900, 1800, HOUR)  # of the process, as it comes
PEAK_HORIZONS = (900, HOUR)
PEAK_SECONDS = 60  # a peak is that of a native bin, but of no finer one than the minute that a process sees
QUANTILES = (0.5, 0.9, 0.98)
JUDGED = 0.9  # the quantile whose coverage and loss are judged
MIN_KNOWN = 0.8  # of a window's bins, for its mean or peak to count
COLUMNS = ("trace", "model", "kind", "horizon_seconds", "origin", "target", "quantile", "value")


class Row(NamedTuple):
    """One forecast. `origin`: everything before it is known; `target`: where the forecast bin or window begins.

    `kind`: "point" (the bin that ends at origin + 1 h), "mean1h" (mean of [origin, origin + 1 h)) or "peak" (largest
    native bin, or minute where those are finer, that begins in [origin, origin + horizon)). `quantile`: None for what
    is expected.
    """

    trace: str
    model: str
    kind: str
    horizon_seconds: int
    origin: float
    target: float
    quantile: float | None
    value: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of one horizon's JUDGED quantile, over windows whose peak is not zero. `pinball`: relative to the peer's."""

    horizon_seconds: int
    count: int
    covered: float
    zeros: int
    pinball: float | None

    @property
    def standard_error(self) -> float:
        return math.sqrt(JUDGED * (1 - JUDGED) / self.count)

    @property
    def verdict(self) -> str:
        off, allowed = self.covered - JUDGED, max(0.02, 2 * self.standard_error)
        return "ok" if abs(off) <= allowed + 1e-9 else "high" if off > 0 else "low"


@dataclass(frozen=True, slots=True)
class Score:
    """One trace. WAPEs and floors as ratios, by model; None: cannot be told."""

    trace: str
    step_seconds: int
    days: float
    origins: int
    point: dict[str, float]
    mean1h: dict[str, float]
    floor_point: float | None
    floor_mean1h: float | None
    hindsight_mean1h: float | None  # WAPE of the mean of the hours before and after, which no forecast can know
    peaks: tuple[Coverage, ...] = ()

    def ratio(self, kind: str, model: str = OURS, against: str = LAST) -> float:
        wape: dict[str, float] = getattr(self, kind)
        return wape[model] / wape[against] if wape[against] > 0 else math.nan

    def worst(self, kind: str) -> tuple[float, str]:
        """Our WAPE relative to the best naive's, and which that is."""
        wape: dict[str, float] = getattr(self, kind)
        best = min(NAIVES, key=lambda name: wape[name])
        return self.ratio(kind, against=best), best


def score(trace: Trace, rows: Iterable[Row]) -> Score:
    """Raises ValueError where somebody said no number."""
    said: dict[tuple[str, int, float | None, str], dict[float, float]] = {}
    for row in rows:
        if not math.isfinite(row.value):
            raise ValueError(f"{row.model} said {row.value} ({row.kind}, {row.horizon_seconds} s) at {iso(row.origin)}")
        said.setdefault((row.kind, row.horizon_seconds, row.quantile, row.model), {})[row.origin] = row.value
    coarse, fine = trace.at(trace.coarse_seconds), trace.at(PEAK_SECONDS)
    scored: dict[str, dict[str, float]] = {}
    for kind in ("point", "mean1h"):
        models = {model: values for (of, _, _, model), values in said.items() if of == kind}
        scored[kind] = _wapes(models, functools.partial(truth, coarse, fine, kind, HOUR))
    origins = sorted(said[("point", HOUR, None, LAST)])
    peaks = []
    for horizon in sorted({key[1] for key in said if key[0] == "peak"}):
        ours, peer = (said.get(("peak", horizon, JUDGED, model), {}) for model in (OURS, PEAK_PEER))
        found = _coverage(horizon, ours, peer, {at: truth(coarse, fine, "peak", horizon, at) for at in ours})
        if found is not None:
            peaks.append(found)
    # an hour around the scored part, so that means can be centred; the mean of native counts as their sum
    counts = coarse.between(origins[0] - HOUR, origins[-1] + 2 * HOUR) * (coarse.step_seconds / trace.step_seconds)
    return Score(
        trace.name,
        trace.step_seconds,
        trace.days,
        len(origins),
        scored["point"],
        scored["mean1h"],
        noise_floor(counts, coarse.step_seconds),
        hour_noise_floor(counts, coarse.step_seconds),
        hindsight(trace.at(HOUR).between(origins[0] - HOUR, origins[-1] + 2 * HOUR)),
        tuple(peaks),
    )


def hindsight(hours: Floats) -> float | None:
    between, came = (hours[:-2] + hours[2:]) / 2, hours[1:-1]
    known = np.isfinite(between) & np.isfinite(came)
    total = float(came[known].sum())
    return float(np.abs(between - came)[known].sum()) / total if total > 0 else None


def truth(coarse: Trace, fine: Trace, kind: str, horizon: int, origin: float) -> float:
    """What came; NaN where that is not known."""
    if kind == "point":
        part = coarse.between(origin + HOUR - coarse.step_seconds, origin + HOUR)
        return float(part[0]) if len(part) else math.nan
    of = coarse if kind == "mean1h" else fine
    whole = of.bins(horizon)
    part = of.between(origin, origin + whole * of.step_seconds)
    known = part[np.isfinite(part)]
    if not len(known) or len(known) < MIN_KNOWN * whole:
        return math.nan
    return float(known.mean() if kind == "mean1h" else known.max())


def _wapes(models: dict[str, dict[float, float]], came: Callable[[float], float]) -> dict[str, float]:
    """Over the origins at which every model has said something and the outcome is known."""
    common = sorted(set.intersection(*(set(values) for values in models.values())))
    real = np.array([came(origin) for origin in common])
    known = np.isfinite(real)
    total = float(real[known].sum())
    found = {}
    for model, values in models.items():
        missed = float(np.abs(np.array([values[origin] for origin in common]) - real)[known].sum())
        found[model] = missed / total if total > 0 else math.inf if missed > 0 else 0.0
    return found


def _coverage(
    horizon: int, ours: dict[float, float], peer: dict[float, float], came: dict[float, float]
) -> Coverage | None:
    known = [origin for origin in sorted(ours) if math.isfinite(came[origin])]
    above = [origin for origin in known if came[origin] > 0]
    if not above:
        return None
    shared = [origin for origin in known if origin in peer]
    loss, theirs = (sum(pinball(said[at], came[at]) for at in shared) for said in (ours, peer))
    return Coverage(
        horizon,
        len(above),
        sum(came[origin] <= ours[origin] for origin in above) / len(above),
        len(known) - len(above),
        loss / theirs if theirs > 0 else None,
    )


def pinball(said: float, came: float, q: float = JUDGED) -> float:
    return max(q * (came - said), (q - 1) * (came - said))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    with gzip.open(path, "wt", encoding="utf-8", newline="", compresslevel=5) as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            quantile = "" if row.quantile is None else f"{row.quantile:g}"
            head = (row.trace, row.model, row.kind, row.horizon_seconds)
            table.writerow((*head, iso(row.origin), iso(row.target), quantile, repr(float(row.value))))


def read_rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        return [
            Row(
                cells["trace"],
                cells["model"],
                cells["kind"],
                int(cells["horizon_seconds"]),
                datetime.fromisoformat(cells["origin"]).timestamp(),
                datetime.fromisoformat(cells["target"]).timestamp(),
                float(cells["quantile"]) if cells["quantile"] else None,
                float(cells["value"]),
            )
            for cells in csv.DictReader(text)
        ]


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="auto").replace("+00:00", "Z")


def geometric_mean(values: Iterable[float]) -> float:
    """NaN where there is none; zeros (a peer or a forecast without error) are left out."""
    logs = [math.log(value) for value in values if value > 0 and math.isfinite(value)]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
