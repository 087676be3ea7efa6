"""What a scrape costs, beside the exporters that everybody runs: node_exporter and redis_exporter of Debian.

    python -m benchmarks.exporters [--quick] [PART …]

host      our `host` and node_exporter with comparable collectors, scraped in turn as Prometheus does it (OpenMetrics,
          gzip, one kept connection): CPU per series and scrape, p50 and p99 of a scrape, memory, and our start
seven     all seven exporters in one process with nothing configured: memory
queues    10,000 lists on one Redis, each with two jobs: one scrape of ours and of redis_exporter for the same keys
endless   100,000 scrapes in a row: memory and file descriptors before and after

Five runs of each comparison, medians, ratios of one run each: the machine's mood of a moment meets both. Prints each
figure with its limit, then one line of all; exits with 1 where a limit is missed. Takes some minutes, `--quick` less
than one: fewer scrapes, fewer runs, the same limits. Debian's exporters are fetched first where they are not there.
"""

import argparse
import gzip
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.fetch import FetchError
from testbed.parts import HOST, Part, PartError, Redis
from testbed.services import NodeExporter, RedisExporter

SEVEN = ("host", "gpu", "queue", "latency", "workflow", "database", "cost")
# What both read. Both also publish their own process, and how each of their collectors did.
COLLECTORS = ("cpu", "loadavg", "pressure", "meminfo", "vmstat", "diskstats", "filesystem", "netdev", "netstat",
              "stat", "filefd", "conntrack")  # fmt: skip
QUEUES = 10_000
PAUSE_SECONDS = 0.004  # between two scrapes: neither finds the caches as its own last one left them
MIB = 1 << 20
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SCRAPE = (
    "GET /metrics HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Prometheus/2.53.3\r\n"
    "Accept: application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n"
    "Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int
    scrapes: int
    warm_up: int
    endless: int


FULL = Size(runs=5, scrapes=500, warm_up=200, endless=100_000)
QUICK = Size(runs=3, scrapes=150, warm_up=50, endless=5_000)


@dataclass(frozen=True)
class Figure:
    """One result: at most `limit`, `unit` behind the number ("x": a ratio to the peer's)."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit

    def text(self) -> str:
        number = f"x{self.value:.2f}" if self.unit == "x" else f"{self.value:.4g} {self.unit}"
        return f"{self.name} {number}" + ("" if self.is_met else " MISSED")


def main(argv: Sequence[str] | None = None) -> int:
    parts: dict[str, Callable[[Size], list[Figure]]] = {
        "host": host, "seven": seven, "queues": queues, "endless": endless,
    }  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exporters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer scrapes and runs")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.parts if name not in parts]:
        parser.error(f"unknown part '{unknown[0]}'; there are {', '.join(parts)}")
    size = QUICK if options.quick else FULL
    figures: list[Figure] = []
    try:
        for name in options.parts or parts:
            figures += parts[name](size)
    except (FetchError, PartError) as error:
        print(f"benchmarks.exporters: {error}", file=sys.stderr)
        return 1
    print(f"\n{'':44}{'measured':>12}{'at most':>12}")
    for figure in figures:
        unit = "" if figure.unit == "x" else f" {figure.unit}"
        print(f"{figure.name:44}{figure.value:12.4g}{figure.limit:12.4g}{unit}{'' if figure.is_met else '   MISSED'}")
    print("exporters: " + ", ".join(figure.text() for figure in figures))
    return 0 if all(figure.is_met for figure in figures) else 1


def host(size: Size) -> list[Figure]:
    runs: list[dict[str, float]] = []
    print(f"host: {size.runs} runs of {size.scrapes} scrapes of each; node_exporter with what both can read only, the")
    print(f"collectors {' '.join(COLLECTORS)};")
    print("each side's CPU is divided by its own number of series")
    print(f"{'':4}{'exporter':18}{'series':>8}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'per series us':>15}{'MiB':>8}")
    for number in range(1, size.runs + 1):
        with folder() as here:
            ours, started = start_to_first_scrape(here)
            flags = ["--collector.disable-defaults", "--log.level=error", *(f"--collector.{x}" for x in COLLECTORS)]
            with ours, NodeExporter(here / "node", flags=flags) as theirs:
                us, them = in_turn((ours, theirs), size)
        for name, side in (("tidewise host", us), ("node_exporter", them)):
            print(
                f"{number:<4}{name:18}{side.series:8}{side.quantile(0.5) * 1e3:9.2f}{side.quantile(0.99) * 1e3:9.2f}"
                f"{side.cpu * 1e3:9.2f}{side.cpu / side.series * 1e6:15.1f}{side.rss / MIB:8.1f}"
            )
        runs.append(
            {
                "cpu": (us.cpu / us.series) / (them.cpu / them.series),
                "p50": us.quantile(0.5) / them.quantile(0.5),
                "p99": us.quantile(0.99) / them.quantile(0.99),
                "rss": us.rss / them.rss,
                "start": started * 1e3,
            }
        )
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return [
        Figure("host: CPU per series and scrape", middle["cpu"], 1.0, "x"),
        Figure("host: p50 of a scrape", middle["p50"], 1.0, "x"),
        Figure("host: p99 of a scrape", middle["p99"], 1.0, "x"),
        Figure("host: memory", middle["rss"], 1.8, "x"),
        Figure("host: start to first scrape", middle["start"], 600, "ms"),
    ]


def seven(size: Size) -> list[Figure]:
    with folder() as here, Exporter(here, SEVEN) as exporter, Client(exporter.port) as client:
        for _ in range(size.warm_up):
            page = client.scrape()
        series = sum(not line.startswith(b"#") for line in gzip.decompress(page).splitlines())
        used = rss(exporter)
    print(f"seven: {series} series, {used / MIB:.1f} MiB")
    return [Figure("all seven: memory", used / MIB, 70, "MiB")]


def queues(size: Size) -> list[Figure]:
    names = [f"queue-{number:05d}" for number in range(QUEUES)]
    walls, ratios = [], []
    with folder() as here, Redis(here / "redis") as redis:
        fill(redis, names)
        config = here / "tidewise.yaml"
        config.write_text(
            json.dumps(
                {"exporters": {"queue": {"redis": [{"url": redis.url, "queues": [{"name": n} for n in names]}]}}}
            )
        )
        flags = (f"--redis.addr={redis.url}", f"--check-single-keys={','.join(names)}")
        ours, theirs = Exporter(here, ("queue",), config), RedisExporter(here / "peer", flags=flags)
        with ours, theirs, Client(ours.port) as us, Client(theirs.port) as them:
            print(f"queues: {size.runs} scrapes of {QUEUES} lists")
            for number in range(size.runs + 1):
                one, other = timed(ours, us), timed(theirs, them)
                if number == 0:  # both get to know their keys
                    expect(gzip.decompress(us.scrape()), b"\nqueue_messages{", QUEUES, "tidewise queue")
                    expect(gzip.decompress(them.scrape()), b"\nredis_key_size{", QUEUES, "redis_exporter")
                    continue
                for name, (wall, cpu) in (("tidewise queue", one), ("redis_exporter", other)):
                    print(f"{number:<4}{name:18}{wall:8.2f} s{cpu:8.2f} s of CPU")
                walls.append(one[0])
                ratios.append(one[1] / other[1])
    return [
        Figure("10,000 queues: a scrape", statistics.median(walls), 1.5, "s"),
        Figure("10,000 queues: CPU of a scrape", statistics.median(ratios), 1.0, "x"),
    ]


def endless(size: Size) -> list[Figure]:
    with folder() as here, Exporter(here, ("host",)) as exporter:
        scrape_often(exporter.port, max(3000, size.endless // 20))
        memory, files = rss(exporter), descriptors(exporter)
        started = time.monotonic()
        for tenth in range(1, 11):
            scrape_often(exporter.port, size.endless // 10)
            print(
                f"endless: {tenth * size.endless // 10:7} scrapes in {time.monotonic() - started:.0f} s, "
                f"{(rss(exporter) - memory) / MIB:+.2f} MiB, {descriptors(exporter) - files:+d} descriptors",
                flush=True,
            )
        grown, left = rss(exporter) - memory, descriptors(exporter) - files
    return [
        Figure(f"{size.endless:,} scrapes: memory grown", grown / MIB, 1.0, "MiB"),
        Figure(f"{size.endless:,} scrapes: descriptors left", left, 0, "descriptors"),
    ]


class Exporter(Part):
    """tidewise-exporter, without a configuration unless one is given."""

    name = "tidewise-exporter"

    def __init__(self, folder: Path, names: Sequence[str], config: Path | None = None) -> None:
        super().__init__(folder / "-".join(names), root=folder)
        self.arguments = [*names, *(["--config", str(config)] if config else [])]

    def argv(self) -> list[str]:
        listen = f"{HOST}:{self.port}"
        return [sys.executable, "-m", "exporters", *self.arguments, "--web.listen-address", listen]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


class Client:
    """One kept connection, as Prometheus has it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        self._request = SCRAPE.format(address=f"{HOST}:{port}").encode()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def scrape(self) -> bytes:
        """The page, still compressed. RuntimeError for any other answer than 200."""
        self._socket.sendall(self._request)
        status = self._answers.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"the exporter answered {status!r}")
        length: int | None = None
        while (header := self._answers.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length is not None:
            return self._answers.read(length)
        page = b""
        while chunk := int(self._answers.readline(), 16):
            page += self._answers.read(chunk)
            self._answers.readline()
        self._answers.readline()
        return page


@dataclass
class Side:
    """What one of two exporters showed: seconds of each scrape, CPU seconds a scrape, bytes."""

    series: int
    seconds: list[float]
    cpu: float = 0.0
    rss: int = 0

    def quantile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


def in_turn(programs: Sequence[Part], size: Size) -> list[Side]:
    """Scrape them one after the other, again and again."""
    clients = [Client(program.port) for program in programs]
    sides = []
    for client in clients:
        for _ in range(size.warm_up):
            page = client.scrape()
        lines = gzip.decompress(page).splitlines()
        sides.append(Side(sum(1 for line in lines if line and not line.startswith(b"#")), []))
    before = [cpu_seconds(program) for program in programs]
    for _ in range(size.scrapes):
        for client, side in zip(clients, sides, strict=True):
            started = time.perf_counter()
            client.scrape()
            side.seconds.append(time.perf_counter() - started)
            time.sleep(PAUSE_SECONDS)
    for program, side, client, cpu in zip(programs, sides, clients, before, strict=True):
        side.cpu = (cpu_seconds(program) - cpu) / size.scrapes
        side.rss = rss(program)
        client.__exit__()
    return sides


def start_to_first_scrape(here: Path) -> tuple[Exporter, float]:
    """A running `host`, and the seconds from its start to its first page."""
    exporter = Exporter(here, ("host",))
    exporter.folder.mkdir(parents=True)
    started = time.monotonic()
    # with its own start() the part would be asked 20 times a second: too coarse
    process = subprocess.Popen(
        exporter.argv(), cwd=exporter.folder, env=exporter.environment(), stderr=subprocess.DEVNULL
    )
    try:
        page = first_page(exporter.port, started + 30)
        seconds = time.monotonic() - started
        expect(gzip.decompress(page), b"\nhost_load1 ", 1, "tidewise host")
    finally:
        process.kill()
        process.wait()
    return Exporter(here, ("host",)), seconds


def first_page(port: int, deadline: float) -> bytes:
    while True:
        try:
            with Client(port) as client:
                return client.scrape()
        except ConnectionError:
            if time.monotonic() > deadline:
                raise PartError("tidewise-exporter gave no page within 30 s; start it by hand and look") from None
            time.sleep(0.002)


def scrape_often(port: int, times: int) -> None:
    """Two clients at once."""

    def scrape() -> None:
        with Client(port) as client:
            for _ in range(times // 2):
                client.scrape()

    clients = [threading.Thread(target=scrape) for _ in range(2)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    time.sleep(0.5)  # the server sees their connections closed


def timed(program: Part, client: Client) -> tuple[float, float]:
    """Seconds and CPU seconds of one scrape."""
    cpu, started = cpu_seconds(program), time.perf_counter()
    client.scrape()
    seconds = time.perf_counter() - started
    return seconds, cpu_seconds(program) - cpu


def fill(redis: Redis, names: Sequence[str]) -> None:
    import redis as client

    connection = client.Redis.from_url(redis.url)
    pipeline = connection.pipeline(transaction=False)
    now = time.time()
    for number, name in enumerate(names):
        jobs = [json.dumps({"id": f"{number}.{job}", "enqueued_at": now - job}) for job in range(2)]
        pipeline.execute_command("LPUSH", name, *jobs)  # type: ignore[no-untyped-call]  # redis left it untyped
    pipeline.execute()
    connection.close()


def expect(page: bytes, line: bytes, count: int, who: str) -> None:
    """A comparison of pages that do not hold the same would say nothing."""
    found = page.count(line)
    if found < count:
        raise PartError(f"{who}: found {found} lines of {line.decode().strip()} on its page, there must be {count}")


def cpu_seconds(program: Part) -> float:
    words = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_SECOND


def rss(program: Part) -> int:
    return int(Path(f"/proc/{program.pid}/statm").read_text().split()[1]) * PAGE_BYTES


def descriptors(program: Part) -> int:
    return len(os.listdir(f"/proc/{program.pid}/fd"))


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tidewise-exporters-") as path:
        yield Path(path)


if __name__ == "__main__":
    sys.exit(main())
