"""The pictures of the page, as SVG text. Time runs in minutes from the live start."""

import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from demo.recording import Recording, Series
from demo.summary import BUDGET_ALERT, need, ramp_lead_seconds, wanted_at
from demo.summary import repairs as summed_repairs
from testbed.fetch import cache_folder

os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))  # its font list, made once

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DEMAND, FORECAST, NEED, WANTED, READY, LATE, GREY = (
    "#1b6ca8", "#e07b00", "#7a7a7a", "#c2185b", "#2e7d32", "#c62828", "#9e9e9e",
)  # fmt: skip
STYLE: dict[Any, Any] = {  # the library types its keys as a literal of three hundred names
    "svg.fonttype": "none",
    "svg.hashsalt": "tidewise",  # the same recording makes the same page
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}
AGGREGATED_SECONDS = 5.0  # of the waits, for their p95 line


def _drawn(draw: Callable[[Axes], None], height: float = 3.4) -> str:
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _minutes(recording: Recording, times: Sequence[float]) -> list[float]:
    return [(at - recording.live_start) / 60.0 for at in times]


def _moments(axes: Axes, recording: Recording) -> None:
    """Where the rise began and the burst came, and the frame of the live part."""
    end = (recording.live_end - recording.live_start) / 60.0
    top = axes.get_ylim()[1]
    for at, name in ((recording.rise_at, "rise begins"), (recording.burst_at, "burst")):
        if at is None or at > recording.live_end:
            continue
        minute = (at - recording.live_start) / 60.0
        axes.axvline(minute, color=GREY, linestyle=":", linewidth=1.2)
        axes.text(minute, top, f" {name}", color="#616161", fontsize=9, va="top")
    axes.set_xlim(0, end)
    axes.set_xlabel("minutes from the live start")


def history(recording: Recording) -> str:
    """All of the history as jobs per second, ten-minute means, and where the live part goes on."""
    prepared = recording.preparation

    def draw(axes: Axes) -> None:
        counts = np.asarray(prepared.history_counts, dtype=float)
        whole = len(counts) // 10 * 10
        rate = counts[:whole].reshape(-1, 10).mean(axis=1) / 60.0
        days = np.arange(len(rate)) / 144.0 - prepared.history_days
        axes.plot(days, rate, color=DEMAND, linewidth=0.8)
        axes.axvline(0, color=LATE, linewidth=1.2)
        axes.text(0, axes.get_ylim()[1], "live ", color=LATE, fontsize=9, va="top", ha="right")
        axes.set_xlabel("days before the live start")
        axes.set_ylabel("jobs per second")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)

    return _drawn(draw, height=2.6)


def demand(recording: Recording, horizon_seconds: int | None) -> str:
    """Demand as measured and as the trace has it, and what had been foreseen for each moment, with its band."""

    def draw(axes: Axes) -> None:
        normal = (recording.normal_end - recording.live_start) / 60.0
        times = np.asarray(recording.intensity_times)
        axes.plot(
            _minutes(recording, times.tolist()), recording.intensity_values,
            color=NEED, linewidth=1.2, linestyle="--", label="the trace, without noise",
        )  # fmt: skip
        for series in recording.named("workload:demand:rate1m")[:1]:
            axes.plot(_minutes(recording, series.times), series.values, color=DEMAND, label="measured, last minute")
        if horizon_seconds is not None:
            _foreseen(axes, recording, horizon_seconds)
        inside = (times >= recording.live_start - 60) & (times <= recording.live_end + 60)
        highest = float(np.asarray(recording.intensity_values)[inside].max(initial=1.0))
        axes.set_ylim(0, 1.35 * highest)  # a burst may leave the picture: nobody could foresee it
        if normal < (recording.live_end - recording.live_start) / 60.0:
            axes.axvspan(normal, 1e6, color="#f5f5f5", zorder=0)
        axes.set_ylabel("jobs per second")
        _moments(axes, recording)
        axes.legend(loc="lower left", ncols=2)

    return _drawn(draw)


def _foreseen(axes: Axes, recording: Recording, horizon_seconds: int) -> None:
    horizon = str(horizon_seconds)
    quantiles = {
        s.labels.get("quantile"): s
        for s in recording.named("workload:forecast_demand:quantile", horizon_seconds=horizon)
    }
    name = f"foreseen {horizon_seconds / 60:g} min before"
    low, high = quantiles.get("0.1"), quantiles.get("0.9")
    if low is not None and high is not None:
        shared = sorted(set(low.times) & set(high.times))
        axes.fill_between(
            _minutes(recording, [at + horizon_seconds for at in shared]),
            [_at(low, at) for at in shared], [_at(high, at) for at in shared],
            color=FORECAST, alpha=0.2, linewidth=0, label="10–90 % band",
        )  # fmt: skip
    for series in recording.named("workload:forecast_demand:value", horizon_seconds=horizon)[:1]:
        due = [at + horizon_seconds for at in series.times]
        axes.plot(_minutes(recording, due), series.values, color=FORECAST, label=name)


def _at(series: Series, at: float) -> float:
    value = series.at(at)
    return float("nan") if value is None else value


def workers(recording: Recording) -> str:
    """Workers needed, told and ready, and by how much the telling came before the need."""

    def draw(axes: Axes) -> None:
        times = np.arange(recording.live_start, recording.live_end, 1.0).tolist()
        if times:
            needed = need(recording, times)
            minutes = _minutes(recording, times)
            axes.step(minutes, needed, where="post", color=NEED, linestyle="--", label="needed (trace, without noise)")
            told = [wanted_at(recording.fleet, at) for at in times]
            axes.step(minutes, _numbers(told), where="post", color=WANTED, label="told")
            ready = [max((c.at, c.ready) for c in recording.fleet if c.at <= at)[1] if recording.fleet else None
                     for at in times]  # fmt: skip
            axes.step(minutes, _numbers(ready), where="post", color=READY, label="ready")
            _lead(axes, recording, times, needed)
        for series in recording.named("tidewise_scale_replicas_reactive")[:1]:
            axes.step(
                _minutes(recording, series.times), series.values,
                where="post", color=FORECAST, linewidth=1, alpha=0.7, label="what present demand alone would ask for",
            )  # fmt: skip
        axes.set_ylim(0, recording.max_workers + 3)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("workers")
        _moments(axes, recording)
        axes.legend(loc="lower left", ncols=2)

    return _drawn(draw)


def _numbers(values: Sequence[int | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def _lead(axes: Axes, recording: Recording, times: Sequence[float], needed: Sequence[int]) -> None:
    lead, _ = ramp_lead_seconds(recording)
    if lead is None:
        return
    level = max(needed)
    needed_at = (times[list(needed).index(level)] - recording.live_start) / 60.0
    told_at = needed_at - lead / 60.0
    axes.annotate(
        "",
        xy=(told_at, level + 0.8),
        xytext=(needed_at, level + 0.8),
        arrowprops={"arrowstyle": "<->", "color": "#424242"},
    )
    axes.text((told_at + needed_at) / 2, level + 1.1, f"{lead:.0f} s ahead", ha="center", fontsize=9)


def waits(recording: Recording) -> str:
    """Each job's wait, the p95 of each five seconds, and the SLO."""

    def draw(axes: Axes) -> None:
        jobs = sorted(recording.jobs, key=lambda job: job.enqueued_at)
        minutes = _minutes(recording, [job.enqueued_at for job in jobs])
        values = [max(job.wait_seconds, 0.001) for job in jobs]
        axes.scatter(minutes, values, s=4, color=DEMAND, alpha=0.25, linewidths=0, rasterized=True, label="one job")
        if jobs:
            cells = (np.asarray(minutes) * 60.0 // AGGREGATED_SECONDS).astype(int)
            measured = np.asarray(values)
            present = np.unique(cells)
            axes.plot(
                (present + 0.5) * AGGREGATED_SECONDS / 60.0, [np.percentile(measured[cells == c], 95) for c in present],
                color=WANTED, linewidth=1.4, label="p95 of five seconds",
            )  # fmt: skip
        axes.axhline(recording.slo_wait_seconds, color=LATE, linewidth=1.2, label="SLO")
        axes.set_yscale("log")
        axes.set_ylim(0.001, max([30.0, *values]))
        axes.set_ylabel("seconds waited (log)")
        _moments(axes, recording)
        legend = axes.legend(loc="upper left", ncols=3, markerscale=2)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1.0)

    return _drawn(draw)


def hour_ahead(recording: Recording) -> str | None:
    """The forecast as it stood before the burst, with its band, over what the trace then did; None without one."""
    at = recording.normal_end
    points = sorted(
        (int(series.labels["horizon_seconds"]), value)
        for series in recording.named("workload:forecast_demand:value")
        if (value := series.at(at)) is not None
    )
    if not points:
        return None

    def bound(quantile: str) -> list[float]:
        by_horizon = {
            int(s.labels["horizon_seconds"]): _at(s, at)
            for s in recording.named("workload:forecast_demand:quantile", quantile=quantile)
        }
        return [by_horizon.get(seconds, float("nan")) for seconds, _ in points]

    def draw(axes: Axes) -> None:
        minutes = [seconds / 60.0 for seconds, _ in points]
        times = [(t - at) / 60.0 for t in recording.intensity_times]
        axes.plot(times, recording.intensity_values, color=NEED, linestyle="--", label="the trace, without noise")
        axes.fill_between(
            minutes, bound("0.1"), bound("0.9"), color=FORECAST, alpha=0.2, linewidth=0, label="10–90 % band"
        )
        axes.plot(minutes, [value for _, value in points], color=FORECAST, marker="o", markersize=4, label="forecast")
        axes.axvline(0, color=GREY, linestyle=":", linewidth=1.2)
        axes.set_xlim(-30, 62)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes from the moment of the forecast")
        axes.set_ylabel("jobs per second")
        axes.legend(loc="lower left", ncols=3)

    return _drawn(draw, height=2.8)


def money(recording: Recording) -> str | None:
    """Posted spend of the budget for paid calls, the line that people are told at, and when they were; None without."""
    told = recording.money
    posted = recording.named("tidewise_budget_posted", budget="usage")
    if told is None or not posted:
        return None
    line = told.warned_ratio * told.limit
    warned = [float(n["at"]) for n in recording.notifications if n["alertname"] == BUDGET_ALERT]

    def draw(axes: Axes) -> None:
        series = posted[0]
        axes.plot(_minutes(recording, series.times), series.values, color=DEMAND, label="posted")
        for held in recording.named("tidewise_budget_held", budget="usage"):
            both = [_at(series, at) + value for at, value in zip(held.times, held.values, strict=True)]
            axes.plot(_minutes(recording, held.times), both, color=FORECAST, linewidth=1, label="posted and held")
        axes.axhline(line, color=LATE, linewidth=1.2, linestyle="--", label=f"{told.warned_ratio:.0%} of the budget")
        for at in warned[:1]:
            minute = (at - recording.live_start) / 60.0
            axes.plot([minute], [_at(series, at)], marker="v", markersize=9, color=LATE, label="people are warned")
        low, high = min(told.assumed, *series.values), max(line, *series.values)
        axes.set_ylim(low - 0.1 * (high - low), high + 0.45 * (high - low))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylabel("KRW this month")
        _moments(axes, recording)
        axes.legend(loc="lower right", ncols=2)

    return _drawn(draw, height=2.8)


PHASES = (  # of a repair: what it was until then
    ("confirmed_after", "not noticed", LATE),
    ("restarted_after", "acting", FORECAST),
    ("well_after", "starting", GREY),
    ("verified_after", "being verified", DEMAND),
)


def repairs(recording: Recording) -> str | None:
    """A bar for each worker that failed: until it was noticed, restarted, well, and verified; None where none did."""
    found = summed_repairs(recording)
    if not found:
        return None

    def draw(axes: Axes) -> None:
        end = recording.live_end - recording.live_start
        for row, repair in enumerate(found):
            since = repair["at_seconds"]
            begin = since
            for key, _, colour in PHASES:
                after = repair[key]
                until = end if after is None else since + after
                axes.barh(row, (until - begin) / 60.0, left=begin / 60.0, height=0.5, color=colour)
                begin = until
                if after is None:
                    break
        axes.set_yticks(range(len(found)), [f"{one['worker']}\n{one['what'] or 'sick'}" for one in found])
        axes.set_ylim(len(found) + 0.2, -0.8)
        axes.set_axisbelow(True)
        axes.grid(visible=False, axis="y")
        for _, name, colour in PHASES:
            axes.barh(0, 0, color=colour, label=name)
        _moments(axes, recording)
        axes.legend(loc="lower right", ncols=4)

    return _drawn(draw, height=1.5 + 0.45 * len(found))
