"""What does capacity cost, and how often is it short? `python -m benchmarks.closed_loop --traces DIR [--keep DIR]`

All policies on the same traces and start-ups, each with every knob that is swept: cost relative to an oracle at 1, 2
and 5 % of under-provisioned time (controllers/replay/protocol.py says how that is played). `tidewise` is the live
decide() with forecasts as `tidewise forecast` makes them, fitted anew every hour; its knobs are the objective and the
price of being short. Between
two knobs of a policy costs are interpolated on its front. Forecasts take most of the time: --keep keeps them for the
next run with the same code.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.traces import SUFFIX, BadTraceError, Trace, names, read_trace
from controllers.config.values import seconds_of
from controllers.replay import ours
from controllers.replay.compare import ORACLE, OURS, AtLevel, Run, levels, played, rivals, tidewise
from controllers.replay.foresee import Foreseen, foresee, restored, save
from controllers.replay.protocol import LEVELS, ProtocolError, Setting, scored
from controllers.replay.rivals import POLICIES
from controllers.scale.state import Rules

LEADS = "2m,5m,15m"
# trace, start-up in seconds, cost x oracle at 1 % under-provisioned
FIGURES = (("nasa_http", 900.0, 1.15), ("genai_gpu_seconds", 300.0, 1.45), ("tweets_amzn", 300.0, 1.45))
SMOOTH = 0.85  # autocorrelation at an hour
DEARER = 1.02  # than a tuned HPA, at most, on smooth loads
BETTER_SHARE = 0.8
SPEED_DAYS, SPEED_SECONDS = 30.0, 60.0
SPEED_POLICIES = ("hpa", "keda", "crane", "seasonal-max", "schedule")


@dataclass(frozen=True, slots=True)
class Pair:
    """One trace with one start-up. `service`, `queue`: by policy, at each of LEVELS; None: no knob gets there."""

    trace: str
    lead_seconds: float
    is_smooth: bool
    service: Mapping[str, list[AtLevel]]
    queue: Mapping[str, list[AtLevel]]
    forecast_seconds: float
    play_seconds: float

    @property
    def rivals(self) -> list[str]:
        return [name for name in self.service if name not in (OURS, ORACLE)]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 1 when a trace could not be read or played; 2 when there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.closed_loop", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--traces", type=Path, required=True, help="folder of NAME.csv.gz (timestamp,value)")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="these traces")
    parser.add_argument("--leads", default=LEADS, metavar="TIME,TIME", help="start-ups (default: %(default)s)")
    parser.add_argument("--policies", default="", metavar="NAME,NAME", help="these rivals (default: all)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep forecasts there, and use those that are there")
    parser.add_argument("--refit", default="1h", metavar="TIME", help="models learn anew so often (default: 1h)")
    parser.add_argument("--heavy", action="store_true", help="with the models that take seconds to fit, once a day")
    parser.add_argument("--no-queue", action="store_true", help="without the queue protocol")
    parser.add_argument("--no-speed", action="store_true", help="without the time that a replay of a month takes")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="pairs played at once (default: 1)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    options = parser.parse_args(argv)
    bad: list[str] = []
    traces = _read(options.traces, [name for name in options.only.split(",") if name], bad)
    leads = [seconds_of(text) for text in options.leads.split(",")]
    if not all(leads):
        parser.error(f"--leads: found '{options.leads}'; write times such as 2m,5m,15m")
    asked = [name for name in options.policies.split(",") if name] or [n for n in POLICIES if n != ORACLE]
    if unknown := set(asked) - set(POLICIES):
        parser.error(f"--policies: no {', '.join(sorted(unknown))}; there are {', '.join(POLICIES)}")
    job = partial(
        played_pair,
        policies=asked,
        keep=options.keep,
        refit=seconds_of(options.refit),
        heavy=options.heavy,
        queue=not options.no_queue,
    )
    pairs = list(_pairs([(trace, lead) for trace in traces for lead in leads], job, options.jobs, bad))
    if pairs:
        print(report(pairs))
    if not options.no_speed:
        print(speed(traces))
    if options.json and pairs:
        found = [{**asdict(pair)} for pair in pairs]
        options.json.write_text(json.dumps({"pairs": found, "summary": summary(pairs), "failed": bad}, indent=2) + "\n")
    for line in bad:
        say(f"failed: {line}")
    return 1 if bad else 0 if pairs else 2


def _pairs(
    wanted: Sequence[tuple[Trace, float]], job: Callable[[Trace, float], Pair], jobs: int, bad: list[str]
) -> list[Pair]:
    found: list[Pair] = []

    def take(trace: Trace, lead: float, result: Callable[[], Pair]) -> None:
        try:
            found.append(result())
        except ProtocolError as error:
            bad.append(f"{trace.name}: {error}")
            return
        say(line_of(found[-1]))

    if jobs <= 1:
        for trace, lead in wanted:
            take(trace, lead, partial(job, trace, lead))
        return found
    with ProcessPoolExecutor(jobs) as pool:
        futures = [(trace, lead, pool.submit(job, trace, lead)) for trace, lead in wanted]
        for trace, lead, future in futures:
            take(trace, lead, future.result)
    return found


def played_pair(
    trace: Trace, lead: float, *, policies: Sequence[str], keep: Path | None, refit: float, heavy: bool, queue: bool
) -> Pair:
    """Raises ProtocolError."""
    setting = scored(trace, lead)
    began = time.perf_counter()
    found = foreseen(trace, setting, keep, refit, heavy)
    walked = time.perf_counter()
    others = [*rivals(policies, swept=True), *rivals([ORACLE], swept=False)]
    runs = list(played([tidewise(found, partial(ours.rules, setting), 0.99, swept=True), *others], setting))
    of_queue: list[Run] = []
    if queue:

        def of(objective: float) -> Rules:
            return ours.rules(setting, objective, is_queue=True)

        mine = tidewise(found, of, ours.QUEUE_OBJECTIVES[0], swept=True)
        of_queue = [*played([mine], setting), *(run for run in runs if run.policy != OURS)]
    return Pair(
        trace.name,
        lead,
        is_smooth(setting),
        levels(runs),
        levels(of_queue, violation="late"),
        walked - began,
        time.perf_counter() - walked,
    )


def foreseen(trace: Trace, setting: Setting, keep: Path | None, refit: float, heavy: bool) -> Foreseen:
    """What was kept of the same demand, start-up and effort, or a walk."""
    if keep is None:
        return foresee(setting, every_seconds=ours.EVERY_SECONDS, refit_seconds=refit, heavy=heavy)
    digest = hashlib.sha256(trace.values.tobytes() + repr((trace.begin, trace.step_seconds)).encode()).hexdigest()[:12]
    out = keep / f"{trace.name}-{setting.lead_seconds:g}-{refit:g}{'-heavy' if heavy else ''}-{digest}.npz"
    if out.exists():
        return restored(str(out))
    found = foresee(setting, every_seconds=ours.EVERY_SECONDS, refit_seconds=refit, heavy=heavy)
    keep.mkdir(parents=True, exist_ok=True)
    save(found, str(out))
    return found


def is_smooth(setting: Setting) -> bool:
    """Whether an hour tells much of the next one: autocorrelation at an hour (or at a step, where that is longer)."""
    every = np.concatenate((setting.history, setting.steps))
    lag = max(1, round(3600 / setting.step_seconds))
    now, then = every[lag:], every[:-lag]
    both = np.isfinite(now) & np.isfinite(then)
    if both.sum() < 2 or now[both].std() == 0 or then[both].std() == 0:
        return False
    return float(np.corrcoef(now[both], then[both])[0, 1]) >= SMOOTH


def better(pair: Pair, rival: str) -> bool | None:
    """True: we cost no more at any level and less at one; False: the other way round; None: each wins somewhere."""
    mine = [_cost(one) for one in pair.service[OURS]]
    theirs = [_cost(one) for one in pair.service[rival]]
    if all(m <= t for m, t in zip(mine, theirs, strict=True)) and mine != theirs:
        return True
    if all(t <= m for m, t in zip(mine, theirs, strict=True)) and mine != theirs:
        return False
    return None


def _cost(one: AtLevel) -> float:
    return float("inf") if one.between is None else one.between


def summary(pairs: Sequence[Pair]) -> dict[str, dict[str, object]]:
    """Each named figure: what it is, what was asked, whether that is met; None: no such trace."""
    found: dict[str, dict[str, object]] = {}
    for trace, lead, goal in FIGURES:
        pair = next((p for p in pairs if p.trace == trace and p.lead_seconds == lead), None)
        name = f"{trace}, {lead / 60:g} min: cost x oracle at <= 1 %"
        if pair is None:
            found[name] = {"is": None, "asked": f"<= {goal}", "met": None}
            continue
        one = pair.service[OURS][0]
        found[name] = {
            "is": one.between,
            "by_one_knob": one.cost,
            "asked": f"<= {goal}",
            "met": one.between is not None and one.between <= goal,
        }
    dearer = {
        (pair.trace, pair.lead_seconds): max(
            _cost(mine) / _cost(theirs)
            for mine, theirs in zip(pair.service[OURS], pair.service["hpa"], strict=True)
            if theirs.between is not None
        )
        for pair in pairs
        if pair.is_smooth and "hpa" in pair.service and any(one.between is not None for one in pair.service["hpa"])
    }
    if dearer:
        worst = max(dearer, key=lambda key: dearer[key])
        found["smooth loads: cost / tuned HPA's, the worst"] = {
            "is": dearer[worst],
            "where": f"{worst[0]}, {worst[1] / 60:g} min",
            "asked": f"<= {DEARER}",
            "met": dearer[worst] <= DEARER,
        }
    won = [all(better(pair, name) is True for name in pair.rivals) for pair in pairs]
    lost = [f"{p.trace} {p.lead_seconds / 60:g} min by {n}" for p in pairs for n in p.rivals if better(p, n) is False]
    found["pairs on which ours is Pareto-better than every rival"] = {
        "is": sum(won) / len(won),
        "asked": f">= {BETTER_SHARE}",
        "met": sum(won) / len(won) >= BETTER_SHARE,
    }
    found["pairs and rivals by which ours is dominated"] = {
        "is": len(lost),
        "asked": "0",
        "met": not lost,
        "which": lost,
    }
    return found


def report(pairs: Sequence[Pair]) -> str:
    """All tables."""
    lines = [
        "cost x oracle where demand is above what serves for at most 1, 2 and 5 % of the time (– no knob gets there)"
    ]
    lines += _table(pairs, lambda pair: pair.service)
    if any(pair.queue for pair in pairs):
        lines += ["", "queue: cost x oracle where at most 1, 2 and 5 % of the work waits for more than 60 s"]
        lines += _table(pairs, lambda pair: pair.queue)
    lines += ["", f"{'figure':<58}{'is':>10}{'asked':>10}  met"]
    for name, figure in summary(pairs).items():
        told = figure["is"]
        shown = "–" if told is None else f"{told:.3f}" if isinstance(told, float) else str(told)
        met = {True: "yes", False: "no", None: "–"}[figure["met"]]  # type: ignore[index]
        where = f"  ({figure['where']})" if "where" in figure else ""
        lines.append(f"{name:<58}{shown:>10}{figure['asked']!s:>10}  {met}{where}")
    return "\n".join(lines)


def _table(pairs: Sequence[Pair], of: Callable[[Pair], Mapping[str, list[AtLevel]]]) -> list[str]:
    policies = list(dict.fromkeys(name for pair in pairs for name in of(pair)))
    lines = []
    for begin in range(0, len(policies), 7):
        part = policies[begin : begin + 7]
        lines += ["", f"{'trace, start-up':<28}" + "".join(f"{name:>19}" for name in part)]
        for pair in pairs:
            cells = [" ".join(_short(one.between) for one in of(pair)[name]) for name in part if name in of(pair)]
            lines.append(f"{pair.trace + f', {pair.lead_seconds / 60:g} min':<28}" + "".join(f"{c:>19}" for c in cells))
    return lines


def _short(cost: float | None) -> str:
    return "–" if cost is None else f"{cost:.2f}" if cost < 100 else f"{cost:.0f}"


def line_of(pair: Pair) -> str:
    mine = " ".join(_short(one.between) for one in pair.service[OURS])
    best = [
        min(((_cost(pair.service[name][place]), name) for name in pair.rivals), default=(float("inf"), "none"))
        for place in range(len(LEVELS))
    ]
    theirs = ", ".join(f"{_short(None if cost == float('inf') else cost)} {name}" for cost, name in best)
    took = f"forecasts {pair.forecast_seconds:.0f} s, play {pair.play_seconds:.0f} s"
    return f"{pair.trace}, {pair.lead_seconds / 60:g} min: {mine}; best others {theirs}; {took}"


def speed(traces: Sequence[Trace]) -> str:
    """How long a replay of 30 days of minutes by six policies takes, on the longest trace that is fine enough."""
    fine = [trace for trace in traces if trace.step_seconds <= 60 and trace.days > SPEED_DAYS * 1.5]
    if not fine:
        return f"replay of {SPEED_DAYS:g} d at one-minute ticks: no trace is of minutes and long enough"
    trace = max(fine, key=lambda each: each.days)
    began, cpu = time.perf_counter(), time.process_time()
    setting = scored(trace, 300.0, share=1.0, days=SPEED_DAYS, tick_seconds=60.0)
    found = foresee(setting, every_seconds=60.0, refit_seconds=6 * 3600.0)
    walked = time.perf_counter()
    wanted = ours.rules(setting, 0.99)
    runs = list(
        played([tidewise(found, lambda _: wanted, 0.99, swept=False), *rivals(SPEED_POLICIES, swept=False)], setting)
    )
    ended = time.perf_counter()
    return (
        f"replay of {SPEED_DAYS:g} d at one-minute ticks x {len(runs)} policies ({trace.name}, fitted every 6 h): "
        f"{ended - began:.0f} s (forecasts {walked - began:.0f}, policies {ended - walked:.0f}; "
        f"CPU {time.process_time() - cpu:.0f}), "
        f"asked <= {SPEED_SECONDS:g} s: {'met' if ended - began <= SPEED_SECONDS else 'missed'}"
    )


def _read(folder: Path, only: Sequence[str], bad: list[str]) -> list[Trace]:
    found = []
    for name in names(folder, only):
        try:
            found.append(read_trace(folder / f"{name}{SUFFIX}"))
        except BadTraceError as error:
            bad.append(str(error))
    for name in sorted(set(only) - set(names(folder, only))):
        bad.append(f"{name}: no {name}{SUFFIX} in {folder}")
    if not found:
        say(f"{folder}: no *{SUFFIX} there" + (f" of {', '.join(only)}" if only else ""))
    return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
