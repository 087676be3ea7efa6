"""`tidewise bottleneck WORKLOAD`: which resource holds it back, what shows it, and what to change."""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from controllers.bottleneck.decide import decide
from controllers.bottleneck.facts import Answer, Finding, Measure, Verdict
from controllers.bottleneck.observe import observe
from controllers.config import Prometheus, load
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime.config import nearest, validate

ABOUT = """\
Which resource holds a workload back, what shows it, and what to change.

It reads the contract's series of the last minutes and holds each against a threshold:
  utilization   how busy a resource is: replicas, CPU, memory, disk, GPU, money
  saturation    what waits for it: work beyond its promised wait, tasks that stand still, work that got slower
  errors        what fails
A bottleneck needs both: work that is not served as promised, and a resource at its limit. If several are, the one that
would be left after the others were raised comes first. What is not measured is listed as unknown, never as fine.
"""
EPILOG = """\
Exit status: 0 answered (one was named, or nothing is one), 1 too little is known or Prometheus does not answer,
2 wrong usage, configuration or workload.

examples:
  tidewise bottleneck video-analysis
  tidewise bottleneck prod/video-analysis --at 2026-11-20T13:25:00Z --window 1h
  tidewise bottleneck video-analysis --json | jq .bottleneck.change
"""
SHOWN = 8  # of what was looked at
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main(argv: list[str]) -> int:
    """0 answered, 1 not answered, 2 no such workload. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="tidewise bottleneck",
        description=ABOUT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", metavar="WORKLOAD", help="name or namespace/name")
    parser.add_argument(
        "--config", type=Path, default=Path("tidewise.yaml"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--at", type=_time, metavar="TIME", help="as it was then (ISO 8601); default: now")
    parser.add_argument("--window", type=_seconds, default=900.0, metavar="LENGTH", help="90s, 15m, 1h; default: 15m")
    parser.add_argument("--prometheus", metavar="URL", help="ask this one (the year-long one, say)")
    parser.add_argument("--json", action="store_true", help="the whole answer, for programs")
    options = parser.parse_args(argv)
    config = load(options.config)
    workload = config.workload(options.workload)
    if workload is None:
        known = [w.identity for w in config.workloads]
        hint = nearest(options.workload, known)
        print(f"{options.config}: no workload '{options.workload}'{hint}", file=sys.stderr)
        return 2
    settings = config.prometheus
    if options.prometheus:
        override = {**settings.model_dump(), "url": options.prometheus}
        settings = validate(Prometheus, override, Path("--prometheus"))
    source = Source(settings)
    at = time.time() if options.at is None else options.at
    try:
        answer = decide(observe(source, config, workload, at, options.window))
    except SourceError as error:
        print(f"prometheus.url: {source.url} tells nothing ({error})", file=sys.stderr)
        print("Start it or correct the address.", file=sys.stderr)
        return 1
    print(as_json(answer) if options.json else "\n".join(lines(answer)))
    return 1 if answer.verdict is Verdict.UNKNOWN else 0


def _time(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no ISO 8601 time, such as 2026-11-20T13:25:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([smhd])", text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 10 <= seconds <= 30 * 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is no length from 10s to 30d, such as 90s, 15m or 1h")
    return seconds


def as_json(answer: Answer) -> str:
    """Everything, indented. A pressure without bound (nothing is left) is null."""
    return json.dumps(_finite(asdict(answer)), indent=2)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines(answer: Answer) -> Iterator[str]:
    """The answer in words."""
    when = datetime.fromtimestamp(answer.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield f"{answer.workload} at {when}, over {_length(answer.window_seconds)}: {headline(answer)}"
    if answer.felt:
        yield from ("", "felt", *(f"  {line}" for line in _measures(answer.felt, answer)))
    if answer.bottleneck is not None:
        yield from ("", "because", f"  {answer.bottleneck.says}")
        yield from (f"  {line}" for line in _measures(answer.bottleneck.evidence, answer))
        yield from ("", "change", f"  {answer.bottleneck.change}")
    if answer.runners_up:
        yield from ("", "next" if answer.bottleneck else "at its limit, and it holds nothing back yet")
        for finding in answer.runners_up:
            yield f"  {title(finding)}: {finding.says}" + (f"; {finding.change}" if answer.bottleneck else "")
    if answer.measures:
        yield from ("", "looked at, nearest to its limit first")
        yield from (f"  {line}" for line in _measures(answer.measures[:SHOWN], answer, share=True))
        if len(answer.measures) > SHOWN:
            yield f"  and {len(answer.measures) - SHOWN} more (--json)"
    if answer.unknown:
        width = max(map(len, answer.unknown))
        yield from ("", "unknown", *(f"  {name:<{width}}  {remark}" for name, remark in answer.unknown.items()))


def headline(answer: Answer) -> str:
    """The verdict in one sentence."""
    if answer.bottleneck is not None:
        return f"{title(answer.bottleneck)} is the bottleneck"
    if answer.verdict is Verdict.NONE:
        return "nothing is a bottleneck"
    if answer.felt:
        return "work is not served as promised, and nothing that is measured explains it"
    return "unknown: nothing tells whether work is served as promised"


def title(finding: Finding) -> str:
    """The resource, and which one."""
    name = finding.resource.value
    return f"{name} ({finding.where})" if finding.where else name


def _measures(measures: tuple[Measure, ...], answer: Answer, *, share: bool = False) -> Iterator[str]:
    rows = [
        (
            *((f"{min(m.pressure, 99.99):.0%}",) if share else ()),
            m.method.value,
            m.series,
            f"{_worded(m.value, m.unit)}, limit {_worded(m.threshold, m.unit)}{f' ({m.what})' if m.what else ''}",
            "" if m.since is None else _since(m, answer.at),
        )
        for m in measures
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _since(measure: Measure, at: float) -> str:
    since = datetime.fromtimestamp(measure.since or at, UTC)
    lasted = _length(at - since.timestamp())
    return f"for more than {lasted}" if measure.at_least else f"since {since:%H:%M:%S}, {lasted}"


def _worded(value: float, unit: str) -> str:
    if unit == "ratio":
        return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"
    if unit == "s":
        return _length(value) if value >= 120 else f"{value:.3g} s"
    return f"{value:.4g} {unit}".rstrip()


def _length(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s"
