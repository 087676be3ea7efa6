"""`python -m grafana` writes the dashboards' JSON; `python -m grafana draw` shows what they would show."""

import argparse
import sys
import time
from pathlib import Path

from grafana import registry
from grafana.queries import QueryError


def main(argv: list[str]) -> int:
    """Returns the exit status: 1 where Prometheus does not answer or refuses."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description=__doc__)
    parser.add_argument("--out", type=Path, default=registry.FOLDER, metavar="FOLDER", help="default: %(default)s")
    commands = parser.add_subparsers(dest="command")
    draw = commands.add_parser("draw", help="draw each panel's answer to one HTML page; Grafana itself is not run")
    draw.add_argument("--prometheus", required=True, metavar="URL")
    draw.add_argument("--out", dest="page", type=Path, default=Path("dashboards.html"), metavar="FILE")
    draw.add_argument("--at", type=float, default=None, metavar="SECONDS", help="Unix time taken for now")
    draw.add_argument("--minutes", type=float, default=None, help="of the past; default: as each dashboard says")
    draw.add_argument("--dashboard", action="append", choices=list(registry.DASHBOARDS), metavar="NAME")
    draw.add_argument("--set", action="append", default=[], metavar="VARIABLE=VALUE", help="choose a variable's value")
    options = parser.parse_args(argv)
    if options.command == "draw":
        return _draw(options)
    for path in registry.write(options.out):
        print(f"{path}: {'written' if path.exists() else 'removed'}")
    return 0


def _draw(options: argparse.Namespace) -> int:
    from grafana.page import draw  # matplotlib takes a second, which writing the JSON need not

    chosen = dict(pair.split("=", 1) for pair in options.set)
    at = time.time() if options.at is None else options.at
    names = options.dashboard or list(registry.DASHBOARDS)
    try:
        empty = draw(options.prometheus, options.page, at, names, chosen, options.minutes)
    except QueryError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.page}: written")
    for query in empty:
        print(f"no series: {query.dashboard} / {query.panel} / {query.letter}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
