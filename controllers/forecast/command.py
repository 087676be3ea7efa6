"""`tidewise forecast` on the command line: the process itself, and the questions that are answered on the terminal."""

import argparse
import json
import sys
import time
from pathlib import Path

from controllers import loop
from controllers.config import Config, load
from controllers.config.processes import scheduler_address
from controllers.forecast.calendars import Calendars
from controllers.forecast.history import Refusal
from controllers.forecast.observe import Observer
from controllers.forecast.run import build, forecast_of
from controllers.forecast.show import as_json, table
from controllers.sources.prometheus import Source, SourceError


def main(argv: list[str]) -> int:
    """Exit status 0; with --once 1 when a workload has no forecast. Raises ConfigError, EndpointError."""
    parser = argparse.ArgumentParser(
        prog="tidewise forecast",
        description="Learns a month of demand and publishes the next hour with quantiles.",
        epilog="The full path of a workload: GET /forecast?workload=NAME",
    )
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), metavar="FILE")
    parser.add_argument("--once", action="store_true", help="make one forecast of every workload, print it and end")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of --once")
    parser.add_argument(
        "--scheduler", type=_address, metavar="tcp://HOST:PORT", help="fit on the Dask cluster of this scheduler"
    )
    options = parser.parse_args(argv)
    config = load(options.config)
    if options.scheduler:
        forecast = config.forecast.model_copy(update={"scheduler": options.scheduler})
        config = config.model_copy(update={"forecast": forecast})
    source = Source(config.prometheus)
    if options.once:
        return once(config, source, options.format)
    return loop.run(build(config, source))


def _address(text: str) -> str:
    try:
        return scheduler_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def once(config: Config, source: Source, form: str) -> int:
    """One forecast of every workload on the terminal, fitted here and now. 1 when one of them has none."""
    from controllers.forecast.selection import select

    now = time.time()
    until = time.monotonic() + 10 * config.prometheus.timeout_seconds
    observer = Observer(source, config)
    try:
        observer.read(now, lambda: until - time.monotonic())
    except SourceError as error:
        print(f"{source.url}: {error}", file=sys.stderr)
        return 1
    calendars = Calendars(config)
    missing, answers = 0, []
    for workload in config.workloads:
        name = workload.identity
        try:
            history = observer.history(name).until(now)
            calendar = calendars.of(name, now)
            fitted = select(history, calendar, config.forecast.horizons_seconds, hours=observer.hours(name))
            answers.append(as_json(name, forecast_of(config, calendar, history, fitted, now, None), fitted))
        except Refusal as refusal:
            missing += 1
            print(f"{name}: no forecast ({refusal.why.value}): {refusal}", file=sys.stderr)
    if form == "json":
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            print(table(answer))
    return 1 if missing else 0
