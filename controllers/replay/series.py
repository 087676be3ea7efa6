"""A run tick by tick as CSV, so that anyone can score it anew: policy,timestamp,demand,ready,paid,desired.

Demand is in the trace's unit and empty where unknown; the rest in replicas. A timestamp is where a tick begins.
"""

import csv
import gzip
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from controllers.replay.protocol import Result, Setting

HEADER = ("policy", "timestamp", "demand", "ready", "paid", "desired")


def write(out: Path, results: Iterable[tuple[str, Result]]) -> None:
    """A gzipped file of one policy, each run under its own name. Raises OSError."""
    with gzip.open(out, "wt", encoding="utf-8", newline="", compresslevel=6) as text:
        text.write(",".join(HEADER) + "\n")
        for name, result in results:
            times = [
                datetime.fromtimestamp(at, tz=UTC).isoformat().replace("+00:00", "Z")
                for at in result.setting.times().tolist()
            ]
            demand = ["" if rate != rate else repr(rate) for rate in result.setting.demand.tolist()]
            columns = (each.tolist() for each in (result.ready, result.paid, result.desired))
            text.writelines(
                f"{name},{at},{rate},{ready},{paid},{desired}\n"
                for at, rate, ready, paid, desired in zip(times, demand, *columns, strict=True)
            )


def read(path: Path, setting: Setting) -> dict[str, Result]:
    """What `write` wrote of the same setting, by name. Raises OSError, ValueError."""
    rows: dict[str, list[tuple[int, int, int]]] = {}
    demand: dict[str, list[float]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        reader = csv.reader(text)
        if tuple(next(reader)) != HEADER:
            raise ValueError(f"{path}: no series of a replay; its first line is {','.join(HEADER)}")
        for name, _, rate, ready, paid, desired in reader:
            rows.setdefault(name, []).append((int(ready), int(paid), int(desired)))
            demand.setdefault(name, []).append(float(rate) if rate else np.nan)
    found = {}
    for name, each in rows.items():
        ready, paid, desired = np.array(each, dtype=np.int64).T
        if not np.array_equal(demand[name], setting.demand, equal_nan=True):
            raise ValueError(f"{path}: {name} was played on another demand")
        found[name] = Result(setting, desired, ready, paid)
    return found
