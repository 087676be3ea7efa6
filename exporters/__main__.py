"""`tidewise-exporter NAME...`: any subset of the exporters in one process, on one /metrics."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from exporters.collector import CollectFunction, Collectors
from exporters.config import DEFAULT_LISTEN, exporters_model
from exporters.registry import EXPORTERS, exporter
from exporters.runtime.config import ConfigError, Section, nearest, read_yaml, validate
from exporters.runtime.endpoint import Endpoint, EndpointError
from exporters.runtime.logs import FORMATS, LEVELS, configure_logs
from exporters.runtime.process import process_registry, stop_on_signals, version

PROCESS = "tidewise-exporter"
DEFAULT_CONFIG = Path("tidewise.yaml")

EXAMPLES = f"""
examples:
  tidewise-exporter host
      the machine, with no configuration at all, on {DEFAULT_LISTEN[0]}
  tidewise-exporter host queue --config tidewise.yaml
      the machine and the queues that the file names under exporters.queue
  tidewise-exporter queue --web.listen-address 0.0.0.0:9811 --web.listen-address [::1]:9811
      on two addresses

the least that 'queue' needs in the file:
  exporters:
    queue:
      redis:
        - url: redis://127.0.0.1:6379/0
          queues: [{{name: video-jobs}}]
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until a signal. 0: ended by one; 2: wrong arguments or configuration, or an address that cannot be had."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.names:
        parser.error(f"name what to export, any of: {', '.join(EXPORTERS)}")
    configure_logs(PROCESS, arguments.log_level, arguments.log_format)
    stop = stop_on_signals()
    try:
        section = read_section(arguments.config, arguments.names)
        functions = collect_functions(section, arguments.names, arguments.config or DEFAULT_CONFIG)
        registry = process_registry(PROCESS)
        registry.register(Collectors(functions))
        endpoint = Endpoint(
            arguments.listen or getattr(section, "listen"),  # noqa: B009 - the section's type is made at run time
            registry,
            process=PROCESS,
            telemetry_path=arguments.telemetry_path,
            ready=lambda: None,
            landing=lambda: f"<p>Exporters: {', '.join(arguments.names)}.</p>",
        )
        endpoint.start()
    except (ConfigError, EndpointError) as error:
        for line in str(error).splitlines():
            print(f"{PROCESS}: {line}", file=sys.stderr)
        return 2
    structlog.get_logger().info(
        "started", version=version(), exporters=arguments.names, listen=endpoint.addresses, collectors=list(functions)
    )
    stop.wait()
    endpoint.stop()
    structlog.get_logger().info("stopped")
    return 0


def read_section(path: Path | None, names: Sequence[str]) -> Section:
    """The file's `exporters:` section, of which `names` are checked. Without `path` a missing file is an empty one."""
    data = {} if path is None and not DEFAULT_CONFIG.exists() else read_yaml(path or DEFAULT_CONFIG)
    return validate(exporters_model(names), data.get("exporters") or {}, path or DEFAULT_CONFIG, prefix=("exporters",))


def collect_functions(section: Section, names: Sequence[str], path: Path) -> dict[str, CollectFunction]:
    """The collect functions of the named exporters, as EXPORTER.COLLECTOR. Raises ConfigError."""
    functions: dict[str, CollectFunction] = {}
    for name in names:
        module = exporter(name)
        config = getattr(section, name) or validate(module.Config, {}, path, prefix=("exporters", name))
        functions |= {f"{name}.{part}": function for part, function in module.collectors(config).items()}
    return functions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROCESS,
        description="Publishes what happens on a machine and in its queues as Prometheus metrics.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", type=_name, metavar="NAME", help=f"what to export, any of: {', '.join(EXPORTERS)}"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (default: tidewise.yaml here; where there is none, nothing is configured)",
    )
    parser.add_argument(
        "--web.listen-address",
        dest="listen",
        action="append",
        metavar="HOST:PORT",
        help=f"where to serve, may be repeated (default: exporters.listen of the file, else {DEFAULT_LISTEN[0]})",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        type=_path,
        default="/metrics",
        metavar="PATH",
        help="path of the metrics (default: /metrics)",
    )
    parser.add_argument("--log.level", dest="log_level", choices=LEVELS, default="info", help="default: info")
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=FORMATS,
        default="auto",
        help="default: auto, which is logfmt on a terminal and JSON elsewhere",
    )
    parser.add_argument("--version", action="version", version=f"{PROCESS} {version()}")
    return parser


def _name(text: str) -> str:
    if text in EXPORTERS:
        return text
    raise argparse.ArgumentTypeError(f"unknown exporter '{text}'{nearest(text, list(EXPORTERS))}")


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"found '{text}'; a path begins with a slash, for example /metrics")
    return text


if __name__ == "__main__":
    sys.exit(main())
