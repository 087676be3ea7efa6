"""What a cycle of `tidewise scale` costs for a fleet, on a real Prometheus.

    python -m benchmarks.scale [--workloads 1000] [--json OUT] [--quick] [PART …]

cycle     one whole step for all workloads (half of them queues, half services): observe, decide, apply, records,
          publish; with a new forecast of each to be read (the worst case) and without. Its parts, and the /metrics page
decide    decide() alone, by kind of demand, on the states of those cycles: its CPU time

Prometheus runs beside it on the same machine and scrapes the contract's series of all workloads, as rules would record
them: some seventy each with forecasts. Targets answer at once: what a real one takes is its own.
The peer asks as an autoscaler with one object a workload does: the same present series, one query each; measured on
some workloads in the same run, extrapolated to all. Medians of five. Prints each figure with its limit; exits with 1
where one is missed. Wall-clock figures want a machine with two cores of its own.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, generate_latest

from controllers.actuators import Actuator
from controllers.config import Config
from controllers.domain import Replicas
from controllers.loop import Tick
from controllers.scale import observe, scaler
from controllers.scale.decide import decide
from controllers.scale.records import Record, Records
from controllers.scale.run import collect_seldom
from controllers.scale.scaler import Scaler
from controllers.sources.prometheus import Source
from testbed.fetch import FetchError
from testbed.parts import HOST, PartError, Prometheus

RUNS = 5
PEERS = 40  # workloads that the peer is measured on
CYCLE_SECONDS, DECIDE_MICROSECONDS = 2.0, 100.0
HORIZONS = (120, 300, 900, 1800, 3600)
QUANTILES = (0.1, 0.9, 0.98)


@dataclass(frozen=True)
class Figure:
    """One result: at most `limit`, where there is one."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def is_met(self) -> bool:
        return self.limit is None or self.value <= self.limit


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="of cycle, decide (default: both)")
    parser.add_argument("--workloads", type=int, default=1000, metavar="N")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--quick", action="store_true", help="100 workloads, the same limits")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.parts if name not in ("cycle", "decide")]:
        parser.error(f"unknown part '{unknown[0]}'; there are cycle, decide")
    if options.workloads < 2:
        parser.error("--workloads: at least 2, a queue and a service")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    parts = options.parts or ["cycle", "decide"]
    try:
        figures = measured(100 if options.quick else options.workloads, parts)
    except (FetchError, PartError) as error:
        print(f"benchmarks.scale: {error}", file=sys.stderr)
        return 1
    print(f"{'':62}{'measured':>10}{'at most':>10}")
    for figure in figures:
        limit = "" if figure.limit is None else f"{figure.limit:g}"
        print(f"{figure.name:62}{figure.value:10.4g}{limit:>10} {figure.unit}{'' if figure.is_met else '   MISSED'}")
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n", encoding="utf-8")
    return 0 if all(figure.is_met for figure in figures) else 1


def measured(workloads: int, parts: Sequence[str]) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="tidewise-scale-") as place, filled(Path(place), workloads) as server:
        config = configuration(server.url, workloads, Path(place))
        source = Source(config.prometheus)
        fleet = {w.identity: in_memory() for w in config.workloads}
        collect_seldom()  # as the process does
        one = Scaler(config, source, fleet)
        one.step(Tick.starting(60))  # reads its past, learns, opens connections
        unknown = [name for name, record in decided(one).items() if record.decision.service_seconds is None]
        if unknown:
            raise PartError(f"{len(unknown)} of {workloads} workloads could not be decided: {unknown[0]}")
        figures = []
        if "cycle" in parts:
            figures += cycle(one, source, config, workloads)
        if "decide" in parts:
            figures += thinking(one)
        return figures


def cycle(one: Scaler, source: Source, config: Config, workloads: int) -> list[Figure]:
    """Whole steps with and without new forecasts, in turn; the parts are of those with."""
    whole: list[float] = []
    usual: list[float] = []
    cpu: list[float] = []
    split: list[dict[str, float]] = []
    page: list[float] = []
    registry = CollectorRegistry()
    registry.register(one.published)
    for _ in range(RUNS):
        one._forecasts = {}
        began = time.process_time()
        with clocks() as spent:
            whole.append(seconds(lambda: one.step(Tick.starting(60))))
        cpu.append(time.process_time() - began)
        split.append(dict(spent))
        usual.append(seconds(lambda: one.step(Tick.starting(60))))
        page.append(seconds(lambda: generate_latest(registry)))
    names = [w.identity for w in config.workloads]
    asked = names[:: max(1, len(names) // PEERS)][:PEERS]

    def ask() -> None:
        for name in asked:
            for record in observe.PRESENT:
                source.instant(f'{record}{{workload="{name}"}}')

    peer = statistics.median(seconds(ask) for _ in range(RUNS)) * len(names) / len(asked)
    total = statistics.median(whole)
    present, forecasts, think, records = (statistics.median(one[part] for one in split) for part in PARTS)
    label = f"{workloads} workloads"
    return [
        Figure(f"one cycle, {label}, all forecasts new", total, "s", CYCLE_SECONDS),
        Figure("  observe: present series", present, "s"),
        Figure("  observe: forecasts", forecasts, "s"),
        Figure("  decide", think, "s"),
        Figure("  decision records", records, "s"),
        Figure("  learn, targets, apply, publish: the rest", total - present - forecasts - think - records, "s"),
        Figure("  of it CPU of this process; the rest is Prometheus's", statistics.median(cpu), "s"),
        Figure(f"one cycle, {label}, no new forecast", statistics.median(usual), "s", CYCLE_SECONDS),
        Figure("/metrics page after it", statistics.median(page), "s"),
        Figure("peer: present series alone, one query a workload and series", peer, "s"),
        Figure("present series: ours / peer", present / peer, "", 1.0),
        Figure("one cycle with all forecasts / peer's present series alone", total / peer, "", 1.0),
    ]


def thinking(one: Scaler) -> list[Figure]:
    """Microseconds of a decision, by kind of demand."""
    figures = []
    for kind, is_queue in (("queue", True), ("service", False)):
        pairs = [(r.state, r.rules) for r in decided(one).values() if r.rules.is_queue is is_queue]

        def all_of_them(pairs: list[tuple[object, object]] = pairs) -> None:  # type: ignore[assignment]
            for state, rules in pairs:
                decide(state, rules)  # type: ignore[arg-type]

        each = [seconds(all_of_them, time.process_time) / len(pairs) * 1e6 for _ in range(RUNS)]
        figures.append(Figure(f"decide(), a {kind}", statistics.median(each), "µs", DECIDE_MICROSECONDS))
    return figures


PARTS = ("read_present", "read_forecasts", "decide", "write")


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Seconds spent in each of `PARTS` of a step within."""
    spent = dict.fromkeys(PARTS, 0.0)

    def clocked(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            began = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    places = [(observe, "read_present"), (observe, "read_forecasts"), (scaler, "decide"), (Records, "write")]
    before = [(place, name, getattr(place, name)) for place, name in places]
    for place, name, real in before:
        setattr(place, name, clocked(name, real))
    try:
        yield spent
    finally:
        for place, name, real in before:
            setattr(place, name, real)


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


def decided(one: Scaler) -> dict[str, Record]:
    return {name: shown.record for name, shown in one.published._shown.items()}


def in_memory() -> Actuator:
    """A target that has what it was told at once."""
    has = [Replicas(5, 5)]

    def apply(replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: object = None) -> None:
        has[0] = Replicas(replicas, replicas)

    return Actuator(lambda seconds: has[0], apply)


def configuration(url: str, workloads: int, folder: Path) -> Config:
    command = {"get": ["true"], "set": ["true", "{replicas}"]}
    return Config.model_validate(
        {
            "prometheus": {"url": url, "timeout_seconds": 60},
            "scale": {"records": str(folder / "decisions")},
            "workloads": [
                {
                    "name": name.partition("/")[2],
                    "demand": {"queue": name} if number % 2 == 0 else {"service": name},
                    "target": {"command": command},
                    "replicas": {"min": 1, "max": 50},
                    "schedule": [{"cron": "0 9 * * 1-5", "for": "9h", "min": 2}],
                    "price": {"per_replica_hour": "12 KRW"},
                    "mode": "act",
                }
                for number, name in enumerate(names(workloads))
            ],
        }
    )


def names(workloads: int) -> list[str]:
    return [f"default/w{number:04d}" for number in range(workloads)]


def page(workloads: int, now: float) -> bytes:
    """The contract's series of all workloads as a page of metrics, as they would be recorded now."""
    lines: list[str] = []
    for number, name in enumerate(names(workloads)):
        rate = 4.0 + number % 17 + math.sin(now / 600 + number)
        of = f'workload="{name}"'
        present = {
            "workload:demand:rate1m": rate,
            "workload:throughput:rate1m": rate,
            "workload:service_seconds:mean5m": 0.5 + number % 5 / 10,
            "workload:data_age_seconds:max": 4.0,
        }
        if number % 2 == 0:
            present |= {"workload:backlog:sum": 3.0 * rate, "workload:oldest_age_seconds:max": 2.0}
        lines += [f"{record}{{{of}}} {value}" for record, value in present.items()]
        for horizon in HORIZONS:
            at = f'{of},horizon_seconds="{horizon}"'
            lines.append(f"{observe.VALUE}{{{at}}} {rate * 1.05}")
            for quantile in QUANTILES:
                lines.append(f'{observe.QUANTILE}{{{at},quantile="{quantile}"}} {rate * (0.7 + quantile / 2)}')
                lines.append(f'{observe.PEAK}{{{at},quantile="{quantile}"}} {rate * (0.8 + quantile)}')
            for quantile in (0.5, *QUANTILES):
                lines.append(
                    f'{observe.ARRIVALS}{{{at},quantile="{quantile}"}} {rate * horizon * (0.8 + quantile / 3)}'
                )
        lines += [f'{observe.WINDOW_PEAK}{{{of},quantile="{q}"}} {rate * (0.8 + q)}' for q in QUANTILES]
        made = {
            observe.WINDOW_BEGIN: 60,
            observe.WINDOW_END: 95,
            observe.MADE: round(now) - 12,
            observe.VALID_UNTIL: round(now) + 900,
            observe.GATE: 1,
        }
        lines += [f"{record}{{{of}}} {value}" for record, value in made.items()]
    return ("\n".join(lines) + "\n").encode()


@contextmanager
def filled(folder: Path, workloads: int) -> Iterator[Prometheus]:
    """A Prometheus that scrapes all of it (1,000 workloads every ten seconds), once it has."""
    body = page(workloads, time.time())

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    pages = ThreadingHTTPServer((HOST, 0), Page)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    scrape = {
        "job_name": "contract",
        "scrape_interval": f"{max(1, workloads // 100)}s",
        "static_configs": [{"targets": [f"{HOST}:{pages.server_port}"]}],
        "metric_relabel_configs": [{"action": "labeldrop", "regex": "instance|job"}],  # rules record without them
    }
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": [scrape]}), encoding="utf-8")
    try:
        with Prometheus(folder / "prometheus", config) as server:
            source = Source(Config.model_validate({"prometheus": {"url": server.url}}).prometheus)
            until = time.monotonic() + 60
            while len(source.instant(f"count({observe.GATE}) == {workloads}")) == 0:
                if time.monotonic() > until:
                    raise PartError("Prometheus has not scraped the page within a minute")
                time.sleep(0.2)
            yield server
    finally:
        pages.shutdown()
        pages.server_close()


if __name__ == "__main__":
    sys.exit(main())
