"""`tidewise replay`: what would each policy have cost, and how often would it have fallen short, on your own past?"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import TypeAdapter, ValidationError

from controllers.config import Config, Workload, load
from controllers.config.values import Money, MoneyText, seconds_of
from controllers.forecast.almanac import Calendar
from controllers.forecast.traces import TraceError, read_trace
from controllers.replay import ours, page, series
from controllers.replay.compare import NAMES, ORACLE, OURS, Contender, Knob, Run, played, result_of, rivals, tidewise
from controllers.replay.foresee import REFIT_SECONDS, foresee
from controllers.replay.protocol import (
    SCORED_DAYS,
    SCORED_SHARE,
    TICK_SECONDS,
    Demand,
    ProtocolError,
    Result,
    Setting,
    play,
    scored,
)
from controllers.replay.recorded import NothingRecordedError, Recorded, as_it_was, read
from controllers.replay.report import Promise, Replayed, as_json, learned_capacity, table
from controllers.scale.state import Rules
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime.config import nearest

AS_IT_WAS = "as-it-was"
LEAD_SECONDS = 300.0  # of a trace
FEWEST_STEPS = 24

EXAMPLES = """\
examples:
  tidewise replay --workload shop --config tidewise.yaml            your own last month, from Prometheus
  tidewise replay --trace demand.csv.gz --lead-time 5m --slo 99%    a file of timestamp,value
  tidewise replay --trace demand.csv --capacity 12 --price '40 KRW' --policies tidewise,hpa,schedule --html replay.html
  tidewise replay --trace jobs.csv --slo '60s 95%'                  a queue: 95 % of the work waits at most 60 s

policies:
  tidewise            the live decision of `tidewise scale`, with the forecasts of the time
  hpa, keda, knative  what Kubernetes, KEDA and Knative do about present demand
  phpa-as-coded, phpa-as-documented, phpa-linear    predictive-horizontal-pod-autoscaler
  crane, autopilot    Crane's forecast of a daily or weekly period; Google Autopilot's maximum of three days
  aws-predictive, google-predictive                 surrogates of what these clouds say that they do
  seasonal-max        present demand, or the next half hour of a week ago, whichever is more
  schedule, static    a fixed table by hour of the week; a fixed number
  oracle              knows the future: the limit

The last quarter of the past (10 days at most) is played, all before it is history. Every policy sees the same demand,
and the same lead time until a replica that it asked and pays for serves. 'short' is the share of time with demand above
what served, and nothing waits; 'late' and 'p95 wait' are what it would have been with a queue. Policies are shown as
they come, and set in hindsight to what is cheapest for the promise: no live policy can be set that well.
docs/replay.md tells more.
"""


@dataclass(frozen=True, slots=True)
class Given:
    """What is replayed, wherever it was read. `rules`: ours at an objective."""

    of: str
    setting: Setting
    rules: Callable[[float], Rules]
    promise: Promise
    currency: str | None
    calendar: Calendar
    notes: tuple[str, ...] = ()
    more: tuple[Contender, ...] = ()


def main(argv: list[str]) -> int:
    """Exit status 0; 1 where it cannot be read or there is too little of it; 2 wrong usage. Raises ConfigError."""
    options = _parser().parse_args(argv)
    try:
        given = _of_trace(options) if options.trace is not None else _of_workload(options)
    except (TraceError, ProtocolError, SourceError, NothingRecordedError) as error:
        print(
            f"{options.trace}: {error}" if isinstance(error, ProtocolError) and options.trace else error,
            file=sys.stderr,
        )
        return 1
    if given is None:
        return 2
    found = replayed(given, options.policies, swept=not options.as_they_come, heavy=options.heavy, refit=options.refit)
    print(table(found))
    return _written(options, found, given)


def replayed(
    given: Given, policies: Sequence[str], *, swept: bool, heavy: bool = False, refit: float = REFIT_SECONDS
) -> Replayed:
    """Plays `policies` and, as the limit of all, the oracle."""
    setting, progress = given.setting, Progress()
    contenders: list[Contender] = []
    if OURS in policies:
        foreseen = foresee(
            setting,
            every_seconds=ours.EVERY_SECONDS,
            calendar=given.calendar,
            refit_seconds=refit,
            heavy=heavy,
            progress=lambda done, whole: progress(done, whole, "forecasts"),
        )
        contenders.append(tidewise(foreseen, given.rules, given.promise.objective, swept=swept))
    contenders += rivals([name for name in policies if name != OURS], swept=swept)
    if ORACLE not in policies:
        contenders += rivals([ORACLE], swept=False)
    runs = list(played([*contenders, *given.more], setting, progress))
    return Replayed(given.of, setting, given.promise, given.currency, runs, given.notes)


def summary(
    config: Config, workload: Workload, source: Source, days: float = 30.0, policies: Sequence[str] = (OURS, "hpa")
) -> dict[str, Any]:
    """For `tidewise promote`: what `act` would have cost beside an HPA as it comes, the oracle, and what ran.

    `policies`: by name, each with `money`, `replica_hours`, `cost_to_oracle`, `slo_minutes`, `under`, `late`, …; the
    rest as in the JSON of `tidewise replay`. Raises SourceError, NothingRecordedError, ProtocolError.
    """
    given = of_recorded(workload.identity, read(config, workload, source, days, time.time()), TICK_SECONDS)
    found = as_json(replayed(given, policies, swept=False, refit=6 * REFIT_SECONDS))
    return {**found, "policies": {run["policy"]: run for run in found["runs"]}}


def _of_trace(options: argparse.Namespace) -> Given:
    history = read_trace(options.trace)
    trace = Demand(history.start - history.step_seconds, history.step_seconds, history.values)
    count = int(SCORED_SHARE * len(trace.values))
    if count < FEWEST_STEPS:
        raise ProtocolError(
            f"found {len(trace.values)} steps of {history.step_seconds:g} s; at least {4 * FEWEST_STEPS} are needed, "
            "a quarter of which is played"
        )
    price: Money | None = options.price
    setting = scored(
        trace,
        options.lead_time or LEAD_SECONDS,
        capacity=options.capacity,
        days=options.days or SCORED_DAYS,
        tick_seconds=options.tick,
        price_per_replica_hour=float(price.amount) if price else 1.0,
    )
    wait, objective = options.slo or (None, 0.99)

    def of(share: float) -> Rules:
        wanted = ours.rules(setting, share, is_queue=wait is not None)
        return replace(wanted, wait_seconds=wait) if wait is not None else wanted

    notes = () if options.capacity is not None else (learned_capacity(),)
    promise = Promise(objective, wait is not None)
    currency = price.currency if price else None
    return Given(str(options.trace), setting, of, promise, currency, Calendar(options.time_zone), notes)


def _of_workload(options: argparse.Namespace) -> Given | None:
    config = load(options.config)
    workload = config.workload(options.workload)
    if workload is None:
        print(f"{options.config}: {config.unknown(options.workload)}", file=sys.stderr)
        return None
    recorded = read(config, workload, Source(config.prometheus), options.days or 30.0, time.time())
    if options.capacity is not None:
        recorded = replace(recorded, capacity=options.capacity)
    if options.lead_time is not None:
        recorded = replace(recorded, lead_seconds=options.lead_time)
    if options.price is not None:
        recorded = replace(
            recorded, price_per_replica_hour=float(options.price.amount), currency=options.price.currency
        )
    if options.slo is not None:
        wait, objective = options.slo
        rules = replace(recorded.rules, objective=objective)
        recorded = replace(recorded, rules=replace(rules, wait_seconds=wait) if wait is not None else rules)
    return of_recorded(workload.identity, recorded, options.tick)


def of_recorded(name: str, recorded: Recorded, tick_seconds: float) -> Given:
    """Raises ProtocolError."""
    if int(SCORED_SHARE * len(recorded.demand.values)) < FEWEST_STEPS:
        raise ProtocolError(
            f"{name}: found {len(recorded.demand.values)} minutes of demand; at least {4 * FEWEST_STEPS} are needed"
        )
    setting = scored(
        recorded.demand,
        recorded.lead_seconds,
        capacity=recorded.capacity,
        tick_seconds=tick_seconds,
        price_per_replica_hour=recorded.price_per_replica_hour,
    )
    ran = as_it_was(recorded, setting)
    more: tuple[Contender, ...] = ()
    notes = recorded.notes
    if ran is not None:
        more = (Contender(AS_IT_WAS, [Knob("", lambda _: ran.astype(np.int64))]),)
        notes = (*notes, "as-it-was is what ran, told as if each replica had been asked for when it first served.")
    return Given(
        name,
        setting,
        lambda share: replace(recorded.rules, objective=share),
        Promise(recorded.rules.objective, recorded.rules.is_queue),
        recorded.currency,
        recorded.calendar,
        notes,
        more,
    )


def _written(options: argparse.Namespace, found: Replayed, given: Given) -> int:
    """The files that were asked for. 1 where one cannot be written."""
    status = 0
    for out, write in (
        (options.json, lambda out: out.write_text(json.dumps(as_json(found), indent=2) + "\n", encoding="utf-8")),
        (options.series, lambda out: write_series(out, found)),
        (options.html, lambda out: page.write(out, found, _results(page.pictured(found), given.setting))),
    ):
        if out is None:
            continue
        try:
            write(out)
        except OSError as error:
            print(f"{out}: cannot be written ({error}); name another place", file=sys.stderr)
            status = 1
        except ImportError:
            print(f"{out}: pictures need matplotlib, which is not installed: pip install matplotlib", file=sys.stderr)
            status = 1
        else:
            print(f"{out}: written", file=sys.stderr)
    return status


def write_series(folder: Path, found: Replayed) -> None:
    """One file a policy: as it comes under its own name, and set for the promise as NAME@promise. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {run.policy: run for run in found.tuned()}
    for run in found.usual:
        results = [(run.policy, result_of(run, found.setting))]
        best = kept.get(run.policy)
        if best is not None and best is not run:
            results.append((f"{run.policy}@promise", result_of(best, found.setting)))
        series.write(folder / f"{run.policy}.csv.gz", results)


def _results(runs: Iterable[Run], setting: Setting) -> list[tuple[Run, Result]]:
    return [(run, play(run.knob.policy, setting)) for run in runs]


class Progress:
    """One line on a terminal, renewed; nothing where nobody looks."""

    def __init__(self) -> None:
        self._what, self._began, self._shown = "", time.monotonic(), 0.0

    def __call__(self, done: int, whole: int, what: str) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty():
            return
        if what != self._what and done < whole and what == "forecasts":
            self._began = now
        if done >= whole:
            self._began, self._what = now, ""
            print(f"\r{'':70}\r", end="", file=sys.stderr, flush=True)
        elif now - self._shown > 0.2:
            self._shown, self._what = now, what
            left = (now - self._began) / done * (whole - done) if done else 0.0
            text = f"{what}: {done} of {whole}" + (f", about {left:.0f} s left" if left >= 1 else "")
            print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidewise replay",
        description=(__doc__ or "").partition(": ")[2].capitalize(),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--trace", type=Path, metavar="FILE", help="CSV or .csv.gz of timestamp,value")
    what.add_argument("--workload", metavar="NAME", help="one of the configuration, read from its Prometheus")
    parser.add_argument(
        "--config", type=Path, default=Path("tidewise.yaml"), metavar="FILE", help="(default: tidewise.yaml)"
    )
    parser.add_argument(
        "--days",
        type=_days,
        metavar="N",
        help="of a workload read from Prometheus (default: 30); of a trace played at most (default: 10)",
    )
    parser.add_argument(
        "--capacity", type=_positive, metavar="RATE", help="what one replica serves, in the unit of the demand"
    )
    parser.add_argument(
        "--lead-time",
        type=_length,
        metavar="TIME",
        help="from asking to serving: 90s, 15m (default: 5m, or what was learned)",
    )
    parser.add_argument(
        "--slo",
        type=_slo,
        metavar="PROMISE",
        help="a share of time served such as 99%%, or for a queue '60s 95%%' (default: 99%%, or the workload's)",
    )
    parser.add_argument("--price", type=_price, metavar="MONEY", help="of a replica-hour, such as '12 KRW'")
    parser.add_argument(
        "--policies", type=_policies, default=list(NAMES), metavar="A,B,…", help="of those below (default: all)"
    )
    parser.add_argument("--as-they-come", action="store_true", help="only their usual knobs: much quicker")
    parser.add_argument("--heavy", action="store_true", help="forecast with the models that take seconds to fit, too")
    parser.add_argument(
        "--refit",
        type=_length,
        default=REFIT_SECONDS,
        metavar="TIME",
        help="forecast models learn anew so often (default: 1h)",
    )
    parser.add_argument(
        "--tick", type=_length, default=TICK_SECONDS, metavar="TIME", help="of the comparison (default: 15s)"
    )
    parser.add_argument(
        "--time-zone", type=_zone, default="UTC", metavar="ZONE", help="of a trace's daily pattern (default: UTC)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    parser.add_argument(
        "--series", type=Path, metavar="DIR", help="write what each policy did at each tick, a CSV a policy"
    )
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a page with the table and two pictures")
    return parser


def _policies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"found '{name}', which is no policy{nearest(name, list(NAMES))}")
    if not names:
        raise argparse.ArgumentTypeError(f"found none; write some of {', '.join(NAMES)}")
    return list(dict.fromkeys(names))


def _length(text: str) -> float:
    seconds = seconds_of(text)
    if not 0 < seconds <= 366 * 86_400:
        raise argparse.ArgumentTypeError(f"found '{text}'; write a length of time such as 90s, 15m or 1h30m")
    return seconds


def _slo(text: str) -> tuple[float | None, float]:
    """(wait in seconds for a queue, else None; objective)."""
    *wait, share = text.replace(",", " ").split() or [""]
    try:
        objective = float(share.removesuffix("%")) / (100.0 if share.endswith("%") else 1.0)
        seconds = _length(wait[0]) if wait else None
    except (ValueError, argparse.ArgumentTypeError):
        objective, seconds = math.nan, None
    if not 0.0 < objective < 1.0 or len(wait) > 1:
        raise argparse.ArgumentTypeError(f"found '{text}'; write a share of time such as 99%, or '60s 95%' for a queue")
    return seconds, objective


def _price(text: str) -> Money:
    try:
        return _MONEY.validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None


_MONEY: TypeAdapter[Money] = TypeAdapter(MoneyText)


def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"found '{text}'; write a number above 0")
    return number


def _days(text: str) -> float:
    days = _number(text)
    if not 0 < days <= 366:
        raise argparse.ArgumentTypeError(f"found '{text}'; write a number of days, up to 366")
    return days


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"found '{text}'; write a name such as Europe/Berlin") from None
    return text
