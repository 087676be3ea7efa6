"""How good is the hour ahead? `python -m benchmarks.forecast [--traces DIR] [--json OUT] [--predictions DIR]`

Protocol: origins at every full hour of the last quarter of a trace (at most 14 days, 30 for hourly ones); everything
before an origin is known, nothing after it; steps under five minutes are averaged to five, peaks excepted. `point` is
the bin that ends one hour after the origin, `mean1h` the mean of that hour. Errors are WAPE; ratios are to the last
value's (the last complete bin; for the mean the last hour) and below 1 where better. `tidewise` is what `tidewise
forecast` would have published: its own code at the trace's step (from a minute up) with 30 days of history and a year
of hourly means. Costs of models are not measured while choosing, so that two runs say the same.

Rivals are in peers.py, how is scored in scores.py; `--predictions` writes what everyone said, `--score` reads it back.
"""

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.report import printed, summary
from benchmarks.scores import (
    HORIZONS,
    LAST,
    OURS,
    PEAK_HORIZONS,
    PEAK_PEER,
    PEAK_SECONDS,
    QUANTILES,
    Row,
    Score,
    read_rows,
    score,
    write_rows,
)
from benchmarks.traces import HOUR, SUFFIX, BadTraceError, Trace, names, read_trace, read_wheel
from controllers.forecast.almanac import Calendar
from controllers.forecast.history import Floats, History, Refusal
from controllers.forecast.models import MODELS, Model
from controllers.forecast.predict import Outlook, outlook
from controllers.forecast.selection import Fitted, select

DAY = 86_400
HISTORY_DAYS = 30  # what the process reads in minutes
YEAR_DAYS = 365  # and in hours
SCORED_SHARE, SCORED_DAYS, SCORED_DAYS_HOURLY = 0.25, 14, 30
MIN_ORIGINS = 12
HEAVY_HOURS = 24
REFIT_HOURS = 1  # as the process does; heavy models once a day


@dataclass(slots=True)
class Facts:
    """What a walk cost and did, beside its forecasts."""

    origins: int
    cpu_seconds: float = 0.0
    fit_seconds: float = 0.0
    refits: int = 0
    refused: int = 0  # no forecast: the last value is all there is
    open: int = 0
    models: dict[str, int] = field(default_factory=dict)  # by origins
    peer_seconds: dict[str, float] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 1 when a trace could not be read; 2 when there is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forecast", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--traces", type=Path, help="folder of NAME.csv.gz (timestamp,value); default: the demo's trace"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="also write every forecast, a file a trace")
    parser.add_argument("--score", type=Path, metavar="DIR", help="score what --predictions wrote there, walk nowhere")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="these traces")
    parser.add_argument("--models", default="", metavar="NAME,NAME", help="let Tidewise choose among these and naives")
    parser.add_argument("--without-peers", action="store_true", help="beside naive forecasts no others")
    parser.add_argument("--as-reference", action="store_true", help="origins as in the reference's table, to compare")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument(
        "--refit-hours", type=float, default=REFIT_HOURS, metavar="N", help="Tidewise fits anew (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    only = [name for name in options.only.split(",") if name]
    models = chosen_models(options.models)
    bad: list[str] = []
    scores: list[Score] = []
    facts: dict[str, Facts] = {}
    for trace in _read(options.traces, only, bad):
        origins = origins_of(trace, options.as_reference)
        if why := unusable(trace, origins):
            say(f"{trace.name}: {why}; left out")
            continue
        say(f"{trace.name}: {trace.days:.1f} days in steps of {trace.step_seconds} s, {len(origins)} origins")
        try:
            if options.score:
                rows, facts[trace.name] = read_rows(options.score / f"{trace.name}{SUFFIX}"), Facts(len(origins))
            else:
                rows, facts[trace.name] = walk(trace, origins, options.refit_hours, models, not options.without_peers)
            scores.append(score(trace, rows))
        except Exception as error:  # a fault that one trace brings to light may not cost the figures of the others
            traceback.print_exc()
            bad.append(f"{trace.name}: {type(error).__name__}: {error}")
            continue
        if options.predictions:
            options.predictions.mkdir(parents=True, exist_ok=True)
            write_rows(options.predictions / f"{trace.name}{SUFFIX}", rows)
        say(_progress(scores[-1], facts[trace.name]))
    if scores:
        print(printed(scores, facts, markdown=options.markdown))
        for name, peer in peers.OTHERS.items() if not options.without_peers else ():
            if peers.missing(peer):
                print(f"\n{name}: not installed: pip install {peer.package}")
    if options.json and scores:
        figures = {row[0]: {"is": row[1], "asked": row[2], "met": row[3] == "yes"} for row in summary(scores)[1:]}
        whole = {
            "traces": [{**asdict(found), **asdict(facts[found.trace])} for found in scores],
            "summary": figures,
            "failed": bad,
        }
        options.json.write_text(json.dumps(finite(whole), indent=2) + "\n", encoding="utf-8")
    for line in bad:
        say(f"failed: {line}")
    return 1 if bad else 0 if scores else 2


def unusable(trace: Trace, origins: Floats) -> str | None:
    """Why a trace cannot be scored; None: it can."""
    if len(origins) < MIN_ORIGINS:
        return f"too short, {len(origins)} hours to be scored in {trace.days:.1f} days"
    part = trace.between(float(origins[0]), trace.end)
    known = int(np.isfinite(part).sum())
    if known < MIN_ORIGINS or not np.isfinite(trace.before(float(origins[0]))).any():
        return f"too little is known, {known} of the last {len(part)} values"
    return None


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def finite(value: Any) -> Any:
    """For JSON, which knows neither NaN nor infinity: null."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def chosen_models(listed: str) -> Mapping[str, Model]:
    wanted = {name for name in listed.split(",") if name}
    if unknown := wanted - set(MODELS):
        raise SystemExit(f"--models: no {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    return {n: m for n, m in MODELS.items() if n in wanted or "naive" in n or n == LAST} if wanted else MODELS


def _read(folder: Path | None, only: Sequence[str], bad: list[str]) -> Iterator[Trace]:
    if folder is None:
        yield read_wheel()
        return
    found = names(folder, only)
    if not found:
        say(f"{folder}: no *{SUFFIX} there" + (f" of {', '.join(only)}" if only else ""))
    for name in sorted(set(only) - set(found)):
        bad.append(f"{name}: no {name}{SUFFIX} in {folder}")
    for name in found:
        try:
            yield read_trace(folder / f"{name}{SUFFIX}")
        except BadTraceError as error:
            bad.append(str(error))
            say(str(error))


def origins_of(trace: Trace, as_reference: bool = False) -> Floats:
    """The full hours of the last part whose next hour is inside the trace.

    `as_reference`: instead as in the reference's table, one bin past the hours counted from the trace's begin, and the
    first 14 days of the last quarter (of hourly traces the last 30 days).
    """
    hourly = trace.step_seconds >= HOUR
    days = SCORED_DAYS_HOURLY if hourly else SCORED_DAYS
    if as_reference:
        coarse = trace.at(trace.coarse_seconds)
        count, hour = len(coarse.values), HOUR // coarse.step_seconds
        first = count - days * 24 if hourly else int((1 - SCORED_SHARE) * count)
        places = np.arange(math.ceil(first / hour) * hour + 1, count - hour + 1, hour)[: days * 24]
        return coarse.begin + coarse.step_seconds * places.astype(np.float64)
    begin = trace.end - min(SCORED_SHARE * (trace.end - trace.begin), days * DAY)
    first = math.ceil((begin - trace.phase) / HOUR - 1e-6)
    last = math.floor((trace.end - trace.phase) / HOUR + 1e-6) - 1
    return trace.phase + HOUR * np.arange(first, last + 1, dtype=np.float64)


def walk(
    trace: Trace, origins: Floats, refit_hours: float, models: Mapping[str, Model] = MODELS, with_peers: bool = True
) -> tuple[list[Row], Facts]:
    """Every forecast at every origin, by everyone."""
    facts = Facts(len(origins))
    rows = list(naive_rows(trace, origins))
    began = time.process_time()
    spare = {row.origin: row.value for row in rows if row.kind == "point" and row.model == LAST}
    spare_mean = {row.origin: row.value for row in rows if row.kind == "mean1h" and row.model == LAST}
    for origin, made in tidewise(trace, origins, refit_hours, models, facts):
        coarse = trace.coarse_seconds
        if made is None:
            rows.append(Row(trace.name, OURS, "point", HOUR, origin, origin + HOUR - coarse, None, spare[origin]))
            rows.append(Row(trace.name, OURS, "mean1h", HOUR, origin, origin, None, spare_mean[origin]))
            continue
        inside = [rate for at, rate, _ in made.path if origin + HOUR - coarse + 1 < at <= origin + HOUR + 1]
        whole = next(horizon for horizon in made.forecast.horizons if horizon.seconds == HOUR)
        value = float(np.mean(inside)) if inside else whole.value
        rows.append(Row(trace.name, OURS, "point", HOUR, origin, origin + HOUR - coarse, None, value))
        rows.append(Row(trace.name, OURS, "mean1h", HOUR, origin, origin, None, whole.arrivals[0.5] / HOUR))
        for horizon in made.forecast.horizons:
            if horizon.seconds in PEAK_HORIZONS:
                rows += [
                    Row(trace.name, OURS, "peak", horizon.seconds, origin, origin, q, peak)
                    for q, peak in horizon.peak.items()
                ]
    facts.cpu_seconds = time.process_time() - began
    if with_peers:
        for name, peer in peers.OTHERS.items():
            if peers.missing(peer):
                continue
            began = time.process_time()
            try:
                rows += list(peer_rows(trace, origins, name, peer))
            except Exception as error:  # a peer's own fault: it has no figures for this trace
                say(f"{trace.name}: {name} failed: {type(error).__name__}: {error}")
            facts.peer_seconds[name] = time.process_time() - began
    return rows, facts


def tidewise(
    trace: Trace, origins: Floats, refit_hours: float, models: Mapping[str, Model], facts: Facts
) -> Iterator[tuple[float, Outlook | None]]:
    """What `tidewise forecast` would have said at each origin; None: it refused."""
    own, hourly = trace.at(PEAK_SECONDS), trace.at(HOUR)
    days = YEAR_DAYS if own.step_seconds >= HOUR else HISTORY_DAYS
    fitted: Fitted | None = None
    fitted_at, heavy_at, was_open = -math.inf, -math.inf, None
    for origin in origins.tolist():
        history = known_at(own, origin, days)
        try:
            known = history.until(origin)
            if fitted is None or origin - fitted_at >= refit_hours * HOUR:
                began = time.process_time()
                heavy = origin - heavy_at >= HEAVY_HOURS * HOUR
                hours = None if own.step_seconds >= HOUR else known_at(hourly, origin, YEAR_DAYS)
                fitted = select(known, Calendar(), HORIZONS, models, hours=hours, heavy=heavy, before=fitted)
                fitted_at, heavy_at = origin, origin if heavy else heavy_at
                facts.refits += 1
                facts.fit_seconds += time.process_time() - began
            made = outlook(
                known, Calendar(), fitted, origin, quantiles=QUANTILES, valid_seconds=HOUR, gate_was_open=was_open
            )
        except Refusal:
            facts.refused += 1
            yield origin, None
            continue
        was_open = made.forecast.gate_open
        facts.open += was_open
        facts.models[fitted.model] = facts.models.get(fitted.model, 0) + 1
        yield origin, made


def known_at(trace: Trace, origin: float, days: float) -> History:
    """The last days before an origin, as the process would hold them; nothing after."""
    values = trace.before(origin)[-round(days * DAY / trace.step_seconds) :]
    count = len(trace.before(origin))
    start = trace.begin + (count - len(values) + 1) * trace.step_seconds
    return History(start, trace.step_seconds, values, np.zeros(len(values), dtype=np.bool_))


def naive_rows(trace: Trace, origins: Floats) -> Iterator[Row]:
    for name, peer in peers.NAIVE.items():
        yield from peer_rows(trace, origins, name, peer)
    for horizon in PEAK_HORIZONS:
        for q, values in peers.peak_quantiles(trace, origins, horizon).items():
            for origin, value in zip(origins.tolist(), values.tolist(), strict=True):
                if math.isfinite(value):
                    yield Row(trace.name, PEAK_PEER, "peak", horizon, origin, origin, q, value)


def peer_rows(trace: Trace, origins: Floats, name: str, peer: peers.Peer) -> Iterator[Row]:
    coarse = trace.at(trace.coarse_seconds)
    step = coarse.step_seconds
    places = np.round((origins - coarse.begin) / step).astype(np.int64)
    points, means = peers.said_by(peer, coarse.values, places, peers.Grid(HOUR // step, DAY // step))
    for origin, point, mean in zip(origins.tolist(), points.tolist(), means.tolist(), strict=True):
        yield Row(trace.name, name, "point", HOUR, origin, origin + HOUR - step, None, point)
        yield Row(trace.name, name, "mean1h", HOUR, origin, origin, None, mean)


def _progress(found: Score, facts: Facts) -> str:
    return (
        f"{found.trace}: {found.origins} origins,"
        f" ratio point {found.ratio('point'):.3f}, mean {found.ratio('mean1h'):.3f};"
        f" {facts.refits} fits, CPU {facts.cpu_seconds:.1f} s, peers {sum(facts.peer_seconds.values()):.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
