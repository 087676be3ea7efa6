"""`tidewise why WORKLOAD`: the last decision about it, or the one at a time, in words, from its record."""

import argparse
import itertools
import sys
import time
from pathlib import Path

from controllers.config import load
from controllers.scale.explain import changes, counterfactuals, explanation, history, same_decision
from controllers.scale.meaning import MEANING
from controllers.scale.moments import past, zone_of
from controllers.scale.records import RecordError, as_json, backwards

__all__ = ["MEANING", "counterfactuals", "explanation", "main", "same_decision"]


def main(argv: list[str]) -> int:
    """`tidewise why`: 0 answered, 1 no record, 2 no such workload or time. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="tidewise why",
        description="Why a workload has the replicas it has: the numbers that went in, the reasons, what bound it.",
        epilog="Examples: tidewise why video-analysis --at 13:25; tidewise why video-analysis --history 10",
    )
    parser.add_argument("workload", help="name or namespace/name")
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    parser.add_argument(
        "--at",
        metavar="WHEN",
        help="the decision in force then: 13:25 in the workload's zone, '2h ago', or ISO 8601; default: the last one",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the whole record, from which it can be computed again")
    form.add_argument("--history", type=_count, metavar="N", help="a table of the last N changes, newest first")
    arguments = parser.parse_args(argv)
    config = load(arguments.config)
    workload = config.workload(arguments.workload)
    if workload is None:
        print(f"{arguments.config}: {config.unknown(arguments.workload)}", file=sys.stderr)
        return 2
    zone = zone_of(workload, config)
    try:
        until = past(arguments.at, time.time(), zone) if arguments.at else None
    except ValueError as error:
        print(f"--at: {error}", file=sys.stderr)
        return 2
    records = backwards(config.scale.records, workload.identity, until)
    try:
        last = next(records, None)
        if last is None:
            when = " at that time" if arguments.at else " yet"
            print(f"{config.scale.records}: no decision about {workload.identity}{when}", file=sys.stderr)
            return 1
        if arguments.history:
            lines = history(changes(itertools.chain([last], records), arguments.history), zone)
        elif arguments.json:
            lines = [as_json(last)]
        else:
            lines = list(explanation(last, zone))
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"found '{text}'; write a number from 1 to 10000")
    return int(text)
