"""A replay as pictures, by matplotlib: the one module of it that imports that, and only `page` imports this."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import dates
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from controllers.replay.compare import ORACLE, OURS, Run, points
from controllers.replay.protocol import Floats, Result, front
from controllers.replay.report import Replayed

DEMAND = "#333333"
COLOURS = {OURS: "#1f77b4", ORACLE: "#999999"}
SHOWN_POINTS = 1500  # of a line: a pixel each
MOST_VIOLATION = 0.3
LEAST_VIOLATION = 1e-4  # what is below is drawn there


def supply(found: Replayed, results: Sequence[tuple[Run, Result]]) -> bytes:
    """Demand in replicas and what served, under each other: the whole, and its busiest day. PNG."""
    rows = len(results)
    figure, axes = plt.subplots(
        rows, 2, figsize=(13, 1.1 + 1.9 * rows), width_ratios=[2, 1], layout="constrained", sharex="col", squeeze=False
    )
    try:
        for (left, right), (run, result) in zip(axes, results, strict=True):
            _supply(left, result, slice(0, result.setting.ticks))
            _supply(right, result, _busiest(result))
            left.set_title(
                f"{run.policy}: {run.scores['cost_to_oracle']:.2f} x oracle, short {run.scores['under']:.2%}",
                loc="left",
            )
            left.set_ylabel("replicas")
        axes[0, 1].set_title("its busiest day", loc="left")
        axes[0, 0].legend(loc="upper right", ncols=3, frameon=True)
        for column in (0, 1):
            locator = axes[-1, column].xaxis.get_major_locator()
            axes[-1, column].xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        return _png(figure)
    finally:
        plt.close(figure)


def _supply(axes: Any, result: Result, part: slice) -> None:
    setting = result.setting
    count = part.stop - part.start
    size = max(1, count // SHOWN_POINTS)
    times = [datetime.fromtimestamp(at, tz=UTC) for at in setting.times()[part][::size].tolist()]
    demand = _largest(setting.demand[part] / setting.capacity, size)
    ready, paid = (_largest(each[part].astype(np.float64), size) for each in (result.ready, result.paid))
    short = _largest(((setting.need > result.ready) & setting.known)[part].astype(np.float64), size) > 0
    axes.fill_between(times, paid, step="post", color="#c6dbef", linewidth=0, label="paid")
    axes.plot(times, ready, drawstyle="steps-post", color=COLOURS[OURS], linewidth=0.9, label="serving")
    axes.plot(times, demand, drawstyle="steps-post", color=DEMAND, linewidth=0.8, label="demand")
    if short.any():
        at = np.array(times)[short]
        axes.scatter(at, np.full(len(at), -0.03 * np.nanmax(paid, initial=1.0)), marker="|", s=18, color="tab:red")
    axes.margins(x=0)


def _busiest(result: Result) -> slice:
    ticks = result.setting.ticks_of(86_400)
    demand = np.nan_to_num(result.setting.demand)
    if len(demand) <= ticks:
        return slice(0, len(demand))
    sums = np.cumsum(np.concatenate(([0.0], demand)))
    begin = int(np.argmax(sums[ticks:] - sums[:-ticks]))
    return slice(begin, begin + ticks)


def _largest(values: Floats, size: int) -> Floats:
    """Of each `size` values, so that no peak is lost."""
    whole = -(-len(values) // size) * size
    padded = np.concatenate((values, np.full(whole - len(values), np.nan))).reshape(-1, size)
    known = np.isfinite(padded)
    found: Floats = np.where(known.any(axis=1), np.where(known, padded, -np.inf).max(axis=1), np.nan)
    return found


def pareto(found: Replayed) -> bytes:
    """Cost against violations: each policy's front, every knob tried a dot, the usual one a ring. PNG."""
    violation = found.promise.violation
    figure, axes = plt.subplots(figsize=(13, 6.5), layout="constrained")
    try:
        cycle = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
        others = [name for name in dict.fromkeys(run.policy for run in found.runs) if name not in COLOURS]
        colours = {**COLOURS, **{name: cycle[(2 + place) % 20] for place, name in enumerate(others)}}
        seen: list[float] = []
        for name, mine in points(found.runs, violation=violation).items():
            colour, is_ours = colours[name], name == OURS
            best = front(mine)
            drawn = [(_drawn(p.violation), p.cost) for p in best]
            axes.scatter(
                [_drawn(p.violation) for p in mine], [p.cost for p in mine], s=9, color=colour, alpha=0.35, linewidths=0
            )
            axes.plot(
                *zip(*drawn, strict=True),
                color=colour,
                linewidth=2.4 if is_ours else 1.1,
                marker="o" if is_ours else ".",
                markersize=4,
                label=name,
                zorder=5 if is_ours else 2,
            )
            axes.scatter(
                [_drawn(mine[0].violation)], [mine[0].cost], s=55, facecolors="none", edgecolors=[colour], zorder=6
            )
            seen += [p.cost for p in best if p.violation <= MOST_VIOLATION and name != "static"]
        for level in (0.01, 0.02, 0.05):
            axes.axvline(level, color="grey", linestyle=":", linewidth=0.8)
        axes.axvline(_drawn(found.promise.limit), color="tab:green", linestyle="--", linewidth=1, label="promised")
        axes.set_xscale("log")
        axes.set_xlim(LEAST_VIOLATION * 0.8, MOST_VIOLATION)
        axes.set_ylim(0.8, max(1.5, min(6.0, float(np.quantile(seen, 0.9)) * 1.1 if seen else 2.0)))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: "≤ 0.01 %" if x <= LEAST_VIOLATION else f"{100 * x:g} %")
        )
        axes.set_xlabel(
            "share of the work late" if found.promise.is_queue else "share of time with demand above what served"
        )
        axes.set_ylabel("cost relative to the oracle")
        axes.legend(loc="upper right", ncols=3, frameon=True, fontsize="small")
        axes.set_title("Cost against violations: left and low is better; a ring is a policy as it comes", loc="left")
        return _png(figure)
    finally:
        plt.close(figure)


def _drawn(violation: float) -> float:
    return max(violation, LEAST_VIOLATION)


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
