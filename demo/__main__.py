"""`python -m demo`: Tidewise's main job on real parts, live and at real speed, in a few minutes."""

import argparse
import sys
from pathlib import Path

from demo.settings import DEFAULT_SEED

ABOUT = """\
Shows Tidewise at its main job, on this machine, at real speed:

  a real queue (Redis) and real worker processes, which need a start-up time before their first job
  a real trace of demand: weeks of it as history in a real Prometheus, the next minutes live, with a steep rise
  tidewise-exporter measures, tidewise forecast foresees the hour ahead, tidewise scale starts workers before the rise
  tidewise budget permits each paid call; one warning reaches people before the month's limit does
  one worker is killed and one hangs: tidewise recovery restarts each and verifies that it helped
  a burst at the end that is more than anyone could foresee: Alertmanager delivers a notification

Nothing is installed: what is missing is fetched once into a cache of your own, everything listens on 127.0.0.1, and
Ctrl-C ends all of it at any moment. The folder then holds report.html, summary.json and everything that was written.
"""

EXAMPLES = """\
examples:
  python -m demo                            the whole show, 7 minutes
  python -m demo --minutes 3 --start-up 10  a short one: workers that start quickly
  python -m demo --trace visits.csv         on your own demand: a header timestamp,value and 22 days or more
  python -m demo report --folder .demo      summary and page again, from what was recorded

while it runs, in another terminal:
  python -m demo.fleet get                  how many workers there are
  tidewise why --config .demo/tidewise.yaml video-analysis
  tidewise budget status --config .demo/tidewise.yaml
  tidewise recovery why --config .demo/tidewise.yaml workers
  kill -9 a process of .demo/processes.json, and see what it says
"""


def main(argv: list[str] | None = None) -> int:
    """0: done; 1: it could not run, and said why; 2: wrong usage; 130: stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="?", choices=["run", "report"], default="run", help="run it (default), or report on the last run")
    add("--minutes", type=_minutes, default=7.0, metavar="M", help="length of the live part, 1.5 to 60 (default: 7)")
    add("--start-up", type=_start_up, default=60.0, metavar="S", help="seconds a new worker needs (default: 60)")
    add("--trace", type=Path, metavar="FILE", help="demand of your own as CSV: timestamp,value (default: Azure's)")
    add("--seed", type=int, default=DEFAULT_SEED, metavar="N", help="of the single arrivals (default: %(default)s)")
    add("--no-burst", dest="burst", action="store_false", help="leave out the burst at the end and its notification")
    add("--no-failures", dest="failures", action="store_false", help="leave the workers alone: none is killed or hangs")
    add("--no-budget", dest="budget", action="store_false", help="leave out the ledger and the paid calls")
    add("--long-term", action="store_true", help="a second Prometheus beside it, which keeps the contract for a year")
    add("--folder", type=Path, default=Path(".demo"), metavar="DIR", help="where everything is kept (default: .demo)")
    for part in ("redis", "prometheus", "alertmanager"):
        add(f"--{part}-port", type=_port, metavar="PORT", help=f"for {part.title()} (default: a free one)")
    arguments = parser.parse_args(argv)
    shortest = (arguments.start_up + 90.0) / 60.0
    if arguments.what == "run" and arguments.minutes < shortest:
        parser.error(
            f"--minutes {arguments.minutes:g} is too short to see a rise that workers with a start-up of "
            f"{arguments.start_up:g} s can meet; give {shortest:.1f} or more, or a shorter --start-up"
        )
    try:
        from demo.show import report, run_and_report
    except ModuleNotFoundError as error:
        print(f"demo: the package {error.name} is missing; run 'make install' and then 'make demo'", file=sys.stderr)
        return 1
    if arguments.what == "report":
        return report(arguments.folder)
    return run_and_report(arguments)


def _minutes(text: str) -> float:
    return _within(text, 1.5, 60, "minutes")


def _start_up(text: str) -> float:
    return _within(text, 0, 600, "seconds")


def _port(text: str) -> int:
    return int(_within(text, 1, 65535, "a port"))


def _within(text: str, low: float, high: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"found '{text}'; give {what}, {low:g} to {high:g}")
    return value


if __name__ == "__main__":
    sys.exit(main())
