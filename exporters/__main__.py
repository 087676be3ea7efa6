"""`tidewise-exporter NAME...`: any subset of the exporters in one process, on one /metrics."""

import argparse
import gc
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from prometheus_client.metrics_core import Metric

from exporters import labels, own
from exporters.collector import CollectFunction, Collectors
from exporters.config import DEFAULT_LISTEN, exporters_model
from exporters.registry import EXPORTERS, exporter
from exporters.runtime.config import ConfigError, Section, nearest, read_yaml, validate
from exporters.runtime.endpoint import MAX_REQUESTS, Endpoint, EndpointError
from exporters.runtime.logs import FORMATS, LEVELS, configure_logs
from exporters.runtime.process import process_registry, stop_on_signals, version

if TYPE_CHECKING:
    from exporters.runtime.web import Web

PROCESS = "tidewise-exporter"
DEFAULT_CONFIG = Path("tidewise.yaml")

DEMO_BANNER = "<p><strong>Demo: every value of these exporters is made up.</strong></p>"

EXAMPLES = f"""
what each exporter shows:
  host      CPU, pressure, memory, disks, file systems, network, the cgroup; nothing to configure
  gpu       NVIDIA cards; nothing to configure
  queue     Redis lists and streams, Bull, BullMQ, Celery, RQ, RabbitMQ, PostgreSQL tables, Amazon SQS
  latency   how long requests take, from access logs, and whether HTTP, TCP and gRPC endpoints answer
  workflow  n8n: last success, failures, duration and what is overdue
  database  PostgreSQL, Redis, SQLite files
  cost      money spent, from the budget's ledger, files of usage, declared instances, AWS

examples:
  tidewise-exporter host
      the machine, with no configuration at all, on {DEFAULT_LISTEN[0]}
  tidewise-exporter host queue --config tidewise.yaml
      the machine and the queues that the file names under exporters.queue
  tidewise-exporter queue --web.listen-address 0.0.0.0:9811 --web.listen-address [::1]:9811
      on two addresses
  tidewise-exporter --demo
      every exporter with made-up, moving values: nothing configured, nothing to watch; for dashboards and first looks
  tidewise-exporter host --web.config.file web.yml
      with TLS and a password, as the file says; it is that of Prometheus' own exporters

a first file; all keys are in docs/exporters/NAME.md:
  exporters:
    queue:
      redis:
        - url: redis://127.0.0.1:6379/0
          queues: [{{name: video-jobs}}]
    latency:
      logs: [{{path: /var/log/nginx/access.log, service: shop}}]
      probes:
        http: [{{service: shop, url: "https://shop.example/healthz"}}]
    workflow:
      n8n: [{{sqlite: /home/node/.n8n/database.sqlite}}]
    database:
      postgresql: [{{url: "postgresql://watcher@127.0.0.1/shop", password_file: /run/secrets/postgresql}}]
    cost:
      ledger: {{url: "http://127.0.0.1:9814", token_file: /etc/tidewise/budget-token}}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until a signal. 0: ended by one; 2: wrong arguments or configuration, or an address that cannot be had."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.names and not arguments.demo:
        parser.error(f"name what to export, any of: {', '.join(EXPORTERS)}")
    if arguments.demo and arguments.config:
        parser.error("--demo reads no configuration; leave --config out, or --demo")
    names = list(dict.fromkeys(arguments.names or EXPORTERS))
    configure_logs(PROCESS, arguments.log_level, arguments.log_format)
    stop = stop_on_signals()
    try:
        listen = DEFAULT_LISTEN
        if arguments.demo:
            functions = demo_functions(names)
        else:
            section = read_section(arguments.config, names)
            functions = collect_functions(section, names, arguments.config or DEFAULT_CONFIG)
            listen = getattr(section, "listen")  # noqa: B009 - the section's type is made at run time
        registry = process_registry(PROCESS)
        registry.register(Collectors(functions))
        registry.register(_Own(arguments.demo))
        endpoint = Endpoint(
            arguments.listen or listen,
            registry,
            process=PROCESS,
            telemetry_path=arguments.telemetry_path,
            ready=lambda: None,
            landing=lambda: (DEMO_BANNER if arguments.demo else "") + f"<p>Exporters: {', '.join(names)}.</p>",
            web=_web(arguments.web_config),
            max_requests=arguments.max_requests,
        )
        gc.collect()
        gc.freeze()  # what is loaded now stays: the collector of garbage need not look through it again and again
        endpoint.start()
    except (ConfigError, EndpointError) as error:
        for line in str(error).splitlines():
            print(f"{PROCESS}: {line}", file=sys.stderr)
        return 2
    structlog.get_logger().info(
        "started", version=version(), exporters=names, listen=endpoint.addresses, collectors=list(functions)
    )
    if arguments.demo:
        structlog.get_logger().warning("demo", meaning="every value of these exporters is made up")
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
        parts = module.collectors(config)
        if not parts:
            structlog.get_logger().warning(
                "nothing_configured",
                exporter=name,
                problem=f"exporters.{name} of {path} names nothing to watch; --help shows a first file",
            )
        functions |= {f"{name}.{part}": function for part, function in parts.items()}
    return functions


def demo_functions(names: Sequence[str]) -> dict[str, CollectFunction]:
    """Instead of the collectors of the named exporters: what they would show somewhere else, made up."""

    def collector(name: str) -> CollectFunction:
        demo = exporter(name).demo
        return lambda deadline: demo(time.time())

    return {f"demo.{name}": collector(name) for name in names}


class _Own:
    """What the exporter says of itself beside its collectors."""

    def __init__(self, demo: bool) -> None:
        self._demo = demo

    def collect(self) -> Iterable[Metric]:
        yield labels.refused()
        if self._demo:
            yield own.DEMO.of(1)


def _web(path: Path | None) -> "Web | None":
    """Raises ConfigError."""
    if path is None:
        return None
    from exporters.runtime.web import Web  # and with it ssl, which most never need

    return Web(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROCESS,
        description="Publishes what machines, GPUs, queues, services, workflows and databases do, and what it costs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", type=_name, metavar="NAME", help=f"what to export, any of: {', '.join(EXPORTERS)}"
    )
    parser.add_argument(
        "--demo", action="store_true", help="made-up, moving values of the named exporters, or of all; labelled as such"
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
    parser.add_argument(
        "--web.config.file",
        dest="web_config",
        type=Path,
        metavar="FILE",
        help="TLS, users and headers, in the format of Prometheus' own exporters (default: plain HTTP for everybody)",
    )
    parser.add_argument(
        "--web.max-requests",
        dest="max_requests",
        type=_count,
        default=MAX_REQUESTS,
        metavar="N",
        help=f"scrapes at one time; more get 503 (default: {MAX_REQUESTS}; 0: no limit)",
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


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"found '{text}'; it must be a whole number, 0 for no limit")
    return int(text)


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"found '{text}'; a path begins with a slash, for example /metrics")
    if text.startswith(("//", "/-/")) or not {"?", "#", "%"}.isdisjoint(text):  # no request would ever get there
        raise argparse.ArgumentTypeError(f"found '{text}'; take a path without ?, # and %, and not below /-/")
    return text


if __name__ == "__main__":
    sys.exit(main())
