"""`tidewise forecast backtest`: how good would the forecasts have been, on your own data?"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import ValidationError

from controllers.config import Config, Prometheus, load
from controllers.forecast.almanac import Calendar
from controllers.forecast.facts import floors
from controllers.forecast.history import DAY_SECONDS, History, Refusal, regular
from controllers.forecast.traces import TraceError, read_trace
from controllers.forecast.walk import HISTORY_DAYS, Walk, coverage, pinball, rows_of, score, walk
from controllers.sources.prometheus import Source, SourceError

STEP_SECONDS = 60.0
GOAL = 0.8  # accuracy
FEWEST_ROWS = 12
DEFAULT_URL = "http://127.0.0.1:9090"

EXAMPLES = """\
examples:
  tidewise forecast backtest --trace demand.csv.gz                     a file of timestamp,value
  tidewise forecast backtest --trace demand.csv --out report.png       … with a picture
  tidewise forecast backtest --promql 'sum(rate(http_requests_total[1m]))' --url http://127.0.0.1:9090
  tidewise forecast backtest --promql 'workload:demand:rate1m{workload="default/shop"}' --config tidewise.yaml

At every full hour of the last --days the hour ahead is forecast with what was known then, by models fitted anew once a
day, and compared with what came. Skill is the error relative to a naive forecast's: below 1 is better than that.
"""


def main(argv: list[str]) -> int:
    """Exit status 0; 1 where there is too little to walk through, or it cannot be read. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="tidewise forecast backtest",
        description=(__doc__ or "").partition(": ")[2].capitalize(),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trace", type=Path, metavar="FILE", help="CSV or .csv.gz of timestamp,value")
    what.add_argument("--promql", metavar="QUERY", help="an expression that gives one series: demand per second")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="whose Prometheus is asked")
    where.add_argument(
        "--url", type=_url, metavar="URL", help="the Prometheus that is asked (default: http://127.0.0.1:9090)"
    )
    parser.add_argument("--days", type=_days, default=7.0, metavar="N", help="how many are walked through (default: 7)")
    parser.add_argument(
        "--horizon", type=_horizon, default=3600, metavar="SECONDS", help="how far ahead (default: 3600)"
    )
    parser.add_argument("--time-zone", type=_zone, metavar="ZONE", help="of its daily pattern (default: UTC)")
    parser.add_argument("--quick", action="store_true", help="without the models that cost seconds to fit")
    parser.add_argument("--out", type=Path, metavar="PNG", help="draw it there")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args(argv)
    config = load(options.config) if options.config else Config(prometheus=Prometheus(url=options.url or DEFAULT_URL))
    zone = options.time_zone or (config.budget.time_zone if config.budget else "UTC")
    try:
        history = (
            read_trace(options.trace)
            if options.trace is not None
            else read_query(Source(config.prometheus), options.promql, HISTORY_DAYS + options.days, time.time())
        )
    except (TraceError, SourceError, Refusal) as error:
        print(error, file=sys.stderr)
        return 1
    name = str(options.trace or options.promql)
    rows = len(rows_of(history, options.horizon, options.days))
    if rows < FEWEST_ROWS:
        hours = history.known_seconds / 3600
        print(
            f"{name}: found {hours:.0f} hours of demand; half of it is learned from, and the rest has {rows} full "
            f"hours to forecast at; at least {FEWEST_ROWS} are needed",
            file=sys.stderr,
        )
        return 1
    found = walk(
        history,
        Calendar(zone),
        horizon_seconds=options.horizon,
        days=options.days,
        quantiles=config.forecast.quantiles,
        heavy=not options.quick,
        progress=Progress(),
    )
    report = told(found, history)
    print(json.dumps({"of": name, **report}, indent=2) if options.format == "json" else table(name, report))
    return drawn(found, name, report, options.out) if options.out else 0


class Progress:
    """One line on a terminal, renewed; nothing where nobody looks."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = 0.0

    def __call__(self, done: int, whole: int) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty():
            return
        if done == whole:
            print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)
        elif now - self._shown > 0.2:
            self._shown = now
            left = (now - self._began) / done * (whole - done)
            text = f"forecast {done} of {whole}, about {left:.0f} s left"
            print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


def read_query(source: Source, expr: str, days: float, now: float) -> History:
    """The expression's only series over the last days. Raises SourceError, Refusal, TraceError."""
    end = now // STEP_SECONDS * STEP_SECONDS
    found = list(source.range(expr, end - days * DAY_SECONDS, end, STEP_SECONDS, 120.0).complete())
    if len(found) > 1:
        several = " and ".join(_selector(series.labels) for series in found[:2]) + (", …" if len(found) > 2 else "")
        raise TraceError(
            f"{source.url}: {expr} gives {len(found)} series ({several}); choose one, or write sum({expr})"
        )
    samples = [(sample.at, sample.value) for series in found for sample in series.samples]
    return regular(samples, step_seconds=STEP_SECONDS, now=now, days=days)


def told(found: Walk, history: History) -> dict[str, Any]:
    """The figures, for programs. Ratios, not per cent; None: unknown."""
    value = score(found.said, found.came, found.naive)
    means = score(found.mean_said, found.mean_came, found.mean_naive)
    floor = floors(history, counted=False)
    opened = found.gate_open[np.isfinite(found.gate_open)]
    return {
        "horizon_seconds": found.horizon_seconds,
        "step_seconds": found.step_seconds,
        "time_zone": found.time_zone,
        "begin": float(found.times[0]),
        "end": float(found.times[-1]),
        "forecasts": len(found.times),
        "refused": found.refused,
        "models": dict(found.models),
        "gate_open": float(opened.mean()) if len(opened) else None,
        "value": _scored(value),
        "mean": _scored(means),
        "noise_floor": {str(seconds): ratio for seconds, ratio in floor.items()},
        "quantiles": [
            {
                "quantile": q,
                "coverage": coverage(found.band[q], found.came),
                "pinball": pinball(q, found.band[q], found.came),
                "peak_coverage": coverage(found.peak[q], found.peak_came),
                "peak_pinball": pinball(q, found.peak[q], found.peak_came),
            }
            for q in sorted(found.band)
        ],
    }


def _scored(one: Any) -> dict[str, Any]:
    return {
        "rows": one.rows,
        "wape": one.wape,
        "accuracy": one.accuracy,
        "bias": one.bias,
        "skill": dict(one.skill),
        "best_naive": one.best[0] if one.best else None,
    }


def table(name: str, report: dict[str, Any]) -> str:
    """The figures, for people."""
    horizon, step = report["horizon_seconds"], report["step_seconds"]
    value, means = report["value"], report["mean"]
    days = (report["end"] - report["begin"]) / DAY_SECONDS
    models = ", ".join(f"{model} {count / report['forecasts']:.0%}" for model, count in _most(report["models"]))
    lines = [
        name,
        f"{report['forecasts']} forecasts of the next {_span(horizon)} over {days:.1f} days ({report['time_zone']})",
        "",
        f"{'':<24}{f'its last {_span(step)}':>20}{'its mean':>20}",
        f"{'error (WAPE)':<24}{_percent(value['wape']):>20}{_percent(means['wape']):>20}",
        f"{'accuracy, goal 80 %':<24}{_goal(value['accuracy']):>20}{_goal(means['accuracy']):>20}",
        f"{'bias':<24}{_percent(value['bias'], '+.1%'):>20}{_percent(means['bias'], '+.1%'):>20}",
        "error relative to that of (below 1 is better)",
    ]
    for naive in value["skill"]:
        marks = [" *" if one["best_naive"] == naive else "  " for one in (value, means)]
        figures = [one["skill"].get(naive) for one in (value, means)]
        cells = [f"{_number(figure)}{mark}" for figure, mark in zip(figures, marks, strict=True)]
        lines.append(f"  {naive:<22}{cells[0]:>20}{cells[1]:>20}")
    floor = report["noise_floor"]
    if floor:
        finest, hourly = (_percent(floor.get(str(round(seconds)))) for seconds in (max(step, 60), 3600))
        lines.append(f"{'least error by chance':<24}{finest:>20}{hourly if horizon == 3600 else '–':>20}")
    lines += [
        "",
        f"{'quantile':<24}{'value below':>13}{'loss':>7}{'peak below':>13}{'loss':>7}",
        *(
            f"{row['quantile']:<24g}{_percent(row['coverage'], '.1%'):>13}{_percent(row['pinball'], '.1%'):>7}"
            f"{_percent(row['peak_coverage'], '.1%'):>13}{_percent(row['peak_pinball'], '.1%'):>7}"
            for row in report["quantiles"]
        ),
        "",
        f"models: {models or 'none'}",
        f"the gate was open for {_percent(report['gate_open'], '.0%')} of the forecasts",
    ]
    if report["refused"]:
        lines.append(f"{report['refused']} forecasts could not be made: nothing was known just before them")
    if any(one["best_naive"] for one in (value, means)):
        lines.append("*: the best of the naive forecasts")
    return "\n".join(line.rstrip() for line in lines)


def drawn(found: Walk, name: str, report: dict[str, Any], out: Path) -> int:
    try:
        from controllers.forecast.picture import draw
    except ImportError:
        print("a picture needs matplotlib, which is not installed: pip install matplotlib", file=sys.stderr)
        return 1
    try:
        draw(found, name, report, out)
    except (OSError, ValueError) as error:  # ValueError: a suffix that matplotlib cannot write
        print(f"{out}: cannot be written ({error}); name another file with --out", file=sys.stderr)
        return 1
    print(f"{out}: written", file=sys.stderr)
    return 0


def _most(models: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(models.items(), key=lambda item: -item[1])


def _span(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}{'s' if unit == 'day' and seconds > size else ''}"
    return f"{seconds:g} s"


def _percent(ratio: float | None, form: str = ".1%") -> str:
    return "–" if ratio is None else format(ratio, form).replace("%", " %")


def _goal(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{_percent(accuracy)} {'reached' if accuracy >= GOAL else 'missed'}"


def _number(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.2f}"


def _selector(labels: Mapping[str, str]) -> str:
    """A series as one would ask for it."""
    inner = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}"


def _days(text: str) -> float:
    days = _number_in(text)
    if not 0 < days <= 366:
        raise argparse.ArgumentTypeError(f"found {text}; write a number of days, up to 366")
    return days


def _horizon(text: str) -> int:
    seconds = _number_in(text)
    if not 60 <= seconds <= 86_400 or seconds % 1:
        raise argparse.ArgumentTypeError(f"found {text}; write 60 to 86400 seconds")
    return int(seconds)


def _number_in(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _url(text: str) -> str:
    try:
        return Prometheus(url=text).url
    except ValidationError:
        raise argparse.ArgumentTypeError(f"found {text}; write http://HOST:PORT or https://HOST:PORT") from None


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"found {text}; write a name such as Europe/Berlin") from None
    return text
