"""`tidewise forecast` on the command line: the process itself, and the questions that are answered on the terminal."""

import argparse
from pathlib import Path

from controllers import loop
from controllers.config import load
from controllers.config.processes import scheduler_address
from controllers.forecast.run import build
from controllers.sources.prometheus import Source
from exporters.runtime.logs import configure_logs

EXAMPLES = """\
examples:
  tidewise forecast --config tidewise.yaml                        runs until stopped, serves /metrics
  tidewise forecast --once                                        one forecast of every workload, as a table
  tidewise forecast --once --format json | jq '.[].horizons'      … for programs
  tidewise forecast --explain shop                                the week it learned, what mattered, which models
  tidewise forecast --scheduler tcp://10.0.0.5:8786               fits on a Dask cluster
  tidewise forecast backtest --trace demand.csv --out report.png  how good would it have been on this? (--help)

While it runs: GET /forecast?workload=NAME gives the whole path, minute by minute; /metrics what Prometheus reads.
"""


def main(argv: list[str]) -> int:
    """Exit status 0; 1 when a workload that was asked for has no forecast, 2 when there is no such workload.

    Raises ConfigError, EndpointError.
    """
    if argv[:1] == ["backtest"]:
        from controllers.forecast import backtest_command

        return backtest_command.main(argv[1:])
    options = parsed(argv)
    config = load(options.config)
    if options.scheduler:
        forecast = config.forecast.model_copy(update={"scheduler": options.scheduler})
        config = config.model_copy(update={"forecast": forecast})
    source = Source(config.prometheus)
    if options.once or options.explain is not None:
        from controllers.forecast.once import explained, once

        configure_logs("forecast", "warning")  # on stderr: the answer alone is on stdout
        if options.explain is not None:
            return explained(config, source, options.explain, options.format, heavy=not options.quick)
        return once(config, source, options.format, heavy=options.heavy)
    return loop.run(build(config, source))


def parsed(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tidewise forecast",
        description="Learns a month of demand and publishes the next hour with quantiles, or answers and ends.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, default=Path("tidewise.yaml"), metavar="FILE", help="default: tidewise.yaml"
    )
    parser.add_argument(
        "--scheduler", type=_address, metavar="tcp://HOST:PORT", help="fit on the Dask cluster of this scheduler"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="make one forecast of every workload, print it and end")
    what.add_argument(
        "--explain", metavar="WORKLOAD", nargs="?", const="", help="say why its forecast is as it is, and end"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of --once and --explain")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--heavy", action="store_true", help="--once: with the models that take seconds to fit")
    models.add_argument("--quick", action="store_true", help="--explain: without them")
    return parser.parse_args(argv)


def _address(text: str) -> str:
    try:
        return scheduler_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
