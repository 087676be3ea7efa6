"""A backtest as a picture, by matplotlib: the one module that imports it, and only the backtest imports this."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import dates
from matplotlib import pyplot as plt
from matplotlib.ticker import PercentFormatter

from controllers.forecast.walk import Walk, error_by_hour, error_by_lead

CAME, SAID, BAND = "#333333", "#1f77b4", "#9ecae9"
GOAL_ERROR = 0.2


def draw(found: Walk, name: str, report: dict[str, Any], out: Path) -> None:
    """Raises OSError, ValueError."""
    figure, axes = plt.subplot_mosaic(
        [["walk", "walk"], ["lead", "hour"]], figsize=(13, 8), height_ratios=[1.5, 1], layout="constrained"
    )
    try:
        _walk(axes["walk"], found)
        _by_lead(axes["lead"], found, report)
        _by_hour(axes["hour"], found)
        accuracy = report["value"]["accuracy"]
        told = "unknown" if accuracy is None else f"{accuracy:.1%}"
        figure.suptitle(f"{_short(name)}: {found.horizon_seconds / 60:g} min ahead, accuracy {told}")
        figure.savefig(out, dpi=110)
    finally:
        plt.close(figure)


def _walk(axes: Any, found: Walk) -> None:
    times = [datetime.fromtimestamp(at + found.horizon_seconds, tz=UTC) for at in found.times.tolist()]
    quantiles = sorted(found.band)
    if len(quantiles) > 1:
        low, high = quantiles[0], next((q for q in quantiles if q >= 0.9), quantiles[-1])
        axes.fill_between(
            times, found.band[low], found.band[high], color=BAND, linewidth=0, label=f"from {low:g} to {high:g}"
        )
    axes.plot(times, found.came, color=CAME, linewidth=1.2, label="came")
    axes.plot(times, found.said, color=SAID, linewidth=1.2, label="had been said")
    shut = found.gate_open == 0
    if shut.any():
        axes.scatter(
            np.array(times)[shut], np.zeros(int(shut.sum())), marker="|", color="tab:orange", label="gate closed"
        )
    axes.set_ylim(bottom=0, top=1.15 * max(1e-9, axes.get_ylim()[1]))  # room for the legend
    axes.set_ylabel("demand")
    formatter = dates.ConciseDateFormatter(axes.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.legend(loc="upper right", ncols=4, frameon=True)
    axes.set_title("What came, and what had been said about it (UTC)", loc="left")


def _by_lead(axes: Any, found: Walk, report: dict[str, Any]) -> None:
    errors = error_by_lead(found)
    leads = np.arange(1, len(errors) + 1) * found.step_seconds / 60
    axes.plot(leads, errors, color=SAID, marker="o" if len(errors) < 20 else None, label="forecast")
    best = report["value"]["best_naive"]
    if best is not None and report["value"]["wape"] is not None and report["value"]["skill"][best] > 0:
        axes.scatter(
            leads[-1:], [report["value"]["wape"] / report["value"]["skill"][best]], color=CAME, label=f"naive: {best}"
        )
    floor = report["noise_floor"].get(str(round(found.step_seconds)))
    if floor is not None:
        axes.axhline(floor, color="grey", linestyle=":", label="least by chance")
    axes.axhline(GOAL_ERROR, color="tab:green", linestyle="--", label="goal: 80 % accurate")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes ahead")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(frameon=False)
    axes.set_title("Error by lead", loc="left")


def _by_hour(axes: Any, found: Walk) -> None:
    axes.bar(np.arange(24), np.nan_to_num(error_by_hour(found)), color=SAID)
    axes.axhline(GOAL_ERROR, color="tab:green", linestyle="--")
    axes.set_xticks(range(0, 24, 3))
    axes.set_xlabel(f"hour of the day ({found.time_zone})")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("Error by hour of the day", loc="left")


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:79] + "…"
