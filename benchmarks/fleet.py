"""What forecasts for a fleet cost: fitting 1,000 workloads, the forecasts between two fits, and the process itself.

    python -m benchmarks.fleet [--series 1000] [--traces DIR] [--json OUT] [--quick] [PART …]

refit     1,000 series of 30 days in bins of 5 minutes: a first fit of each, and the refit an hour later, by the process
          that `tidewise forecast` spawns: CPU and memory of that process, the forecast's CPU between two fits
heavy     what the slow models of a workload cost, and how many workloads the configured budget has room for
process   `tidewise forecast` over 10 workloads of 30 days in minutes, backfilled into a real Prometheus: seconds from
          its start to its first page and forecasts, memory; medians of five starts

The series are pieces of real traces, resampled, shifted, scaled and made noisy; without --traces made-up shapes.
The peer is statsmodels' Holt-Winters with a season of a day, its smoothing tuned per series: measured on some series in
the same run, extrapolated to all. Prints each figure with its limit; exits with 1 where one is missed.
"""

import argparse
import http.client
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.traces import BadTraceError, read_trace
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import CLOSE, effort_for
from controllers.forecast.fit import Fitter
from controllers.forecast.history import Floats, History
from controllers.forecast.job import Done, Failure, Job, done, fit, packed
from controllers.forecast.models import MODELS
from controllers.forecast.predict import outlook
from controllers.forecast.selection import Fitted, select
from testbed.fetch import FetchError
from testbed.parts import HOST, Part, PartError, Prometheus, create_blocks, free_port

STEP_SECONDS = 300.0
DAYS = 30
HORIZONS = (120, 300, 900, 1800, 3600)
QUANTILES = (0.1, 0.9, 0.98)
START = 1_760_000_400.0  # a full hour
LIMIT_MIB = 500e6 / (1 << 20)
HEAVY_SECONDS_PER_DAY = 3600.0  # the default of forecast.heavy_cpu_seconds_per_day
ZONES = ("UTC", "Asia/Seoul", "Europe/Berlin", "America/New_York")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    series: int
    heavy: int = 5
    peers: int = 6
    starts: int = 5
    workloads: int = 10


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
    parts: dict[str, Callable[[Size, Sequence[Floats]], list[Figure]]] = {
        "refit": refit, "heavy": heavy, "process": process,
    }  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument("--series", type=int, default=1000, metavar="N")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="a folder of NAME.csv.gz (timestamp,value)")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--quick", action="store_true", help="50 series, fewer starts")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.parts if name not in parts]:
        parser.error(f"unknown part '{unknown[0]}'; there are {', '.join(parts)}")
    size = Size(50, heavy=2, peers=2, starts=1) if options.quick else Size(options.series)
    figures: list[Figure] = []
    try:
        shapes = read_shapes(options.traces) if options.traces else made_up()
        for name in options.parts or parts:
            figures += parts[name](size, shapes)
    except (FetchError, PartError, BadTraceError) as error:
        print(f"benchmarks.fleet: {error}", file=sys.stderr)
        return 1
    print(f"\n{'':62}{'measured':>10}{'at most':>10}")
    for figure in figures:
        limit = "" if figure.limit is None else f"{figure.limit:g}"
        print(f"{figure.name:62}{figure.value:10.4g}{limit:>10} {figure.unit}{'' if figure.is_met else '   MISSED'}")
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n", encoding="utf-8")
    return 0 if all(figure.is_met for figure in figures) else 1


def refit(size: Size, shapes: Sequence[Floats]) -> list[Figure]:
    """Two rounds as the process makes them; in between and afterwards this process forecasts as that one does."""
    count = round(DAYS * 86_400 / STEP_SECONDS)
    hour = round(3600 / STEP_SECONDS)
    whole = {
        f"default/{number:04d}": history(shapes, number, count + hour, STEP_SECONDS) for number in range(size.series)
    }
    zones = {name: Calendar(ZONES[number % len(ZONES)]) for number, name in enumerate(whole)}
    effort = effort_for(1000)
    jobs = {
        name: Job(each.first(count), zones[name], HORIZONS, heavy=False, effort=effort) for name, each in whole.items()
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fits, first, _ = rounds(jobs)
    print(f"refit: {len(fits)} first fits, {first / len(fits) * 1e3:.1f} ms of CPU each")
    update(jobs, fits)  # what is imported or remembered at the first forecast is not counted
    forecast_ms = update({name: replace(job, history=whole[name]) for name, job in jobs.items()}, fits)
    again = {name: replace(job, history=whole[name].last(count), before=fits[name]) for name, job in jobs.items()}
    learned, second, peak = rounds(again)
    sizes = [len(done_bytes) for done_bytes in sample_bytes(again)]
    print(
        f"refit: {len(learned)} refits, {second / len(learned) * 1e3:.1f} ms of CPU each; models "
        + ", ".join(f"{name} {number}" for name, number in counted(fitted.model for fitted in learned.values()))
    )
    print(
        f"refit: memory of this process {before / 1024:.0f} MiB before, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most with all that was learned"
    )
    each_peer = peer_seconds([job.history for job in list(jobs.values())[: size.peers]])
    print(f"refit: Holt-Winters of statsmodels, tuned: {each_peer:.2f} s of CPU a series, of {size.peers} series")
    scale = 1000 / size.series
    return [
        Figure("1,000 series: first fit of all", first * scale, "CPU s"),
        Figure("1,000 series: refit of the cheap models, their calibration", second * scale, "CPU s", 60),
        Figure("1,000 series: memory of the process that fits, at most", peak, "MiB", LIMIT_MIB),
        Figure("a forecast between two fits", forecast_ms, "CPU ms", 5),
        Figure("what one fit sends back", statistics.median(sizes) / 1000, "kB"),
        Figure("refit ÷ Holt-Winters tuned by statsmodels (extrapolated)", second / len(learned) / each_peer, "x"),
    ]


def rounds(jobs: dict[str, Job]) -> tuple[dict[str, Fitted], float, float]:
    """Fits all; CPU seconds of the processes that did, and MiB that one had at most."""
    fitter, left, found, peak = Fitter(), dict(jobs), dict[str, Done](), 0.0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    while left:
        begun = fitter.begin(left)
        while fitter.busy:
            peak = max(peak, mib_of(fitter.pid, "VmHWM"))  # what rusage says counts this process, whose copy it was
            found.update(fitter.collect(0.2))
        left = {name: job for name, job in left.items() if name not in found}
        print(f"  {len(begun)} in a round, {len(left)} left", flush=True)
    for name, each in found.items():
        if isinstance(each.result, Failure):
            raise PartError(f"{name} was not fitted: {each.result.kind}: {each.result.message}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {name: each.result for name, each in found.items() if isinstance(each.result, Fitted)}, seconds, peak


def mib_of(pid: int | None, key: str) -> float:
    """A line of the process's status; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), 0.0)


def update(jobs: dict[str, Job], fits: dict[str, Fitted]) -> float:
    """Milliseconds of CPU that one forecast takes."""
    began = time.process_time()
    for name, job in jobs.items():
        now = job.history.end + 20.0
        outlook(job.history, job.calendar, fits[name], now, quantiles=QUANTILES, valid_seconds=900.0)
    return (time.process_time() - began) / len(jobs) * 1e3


def sample_bytes(jobs: dict[str, Job]) -> list[bytes]:
    return [done(packed(job), fit) for job in list(jobs.values())[:5]]


def heavy(size: Size, shapes: Sequence[Floats]) -> list[Figure]:
    """On bins of 5 minutes, as a fleet has them, and of a minute, as the default is."""
    names = [name for name, model in MODELS.items() if model.heavy]
    figures = []
    for step, effort in ((STEP_SECONDS, effort_for(1000)), (60.0, CLOSE)):
        costs, alone = [], dict.fromkeys(names, 0.0)
        for number in range(size.heavy):
            job = Job(history(shapes, number, round(DAYS * 86_400 / step), step), Calendar(), HORIZONS, effort=effort)
            cheap, cheap_seconds = timed(replace(job, heavy=False))
            slow, slow_seconds = timed(replace(job, before=cheap))
            costs.append(slow_seconds - cheap_seconds)
            for name in names:
                alone[name] += slow.cpu_seconds.get(name, 0.0) / size.heavy
        cost = statistics.mean(costs)
        print(
            f"heavy: bins of {step:g} s: {cost:.1f} CPU s a workload with their backtest; one fit alone: "
            + ", ".join(f"{name} {seconds:.2f}" for name, seconds in alone.items())
        )
        print(
            f"heavy: {HEAVY_SECONDS_PER_DAY:g} CPU s a day have room for {HEAVY_SECONDS_PER_DAY / cost:.0f} workloads; "
            f"1,000 take turns every {1000 * cost / HEAVY_SECONDS_PER_DAY:.1f} days"
        )
        figures.append(Figure(f"heavy models of a workload, bins of {step:g} s", cost, "CPU s"))
        peak = rounds({"default/heavy": job})[2]
        figures.append(Figure(f"memory of the process that fits them, bins of {step:g} s", peak, "MiB", LIMIT_MIB))
    return figures


def timed(job: Job) -> tuple[Fitted, float]:
    """As `job.fit`, which drops what a fleet need not keep."""
    began = time.process_time()
    fitted = select(
        job.history, job.calendar, job.horizons_seconds, heavy=job.heavy, before=job.before, effort=job.effort,
        counter=time.process_time,
    )  # fmt: skip
    return fitted, time.process_time() - began


def peer_seconds(histories: Sequence[History]) -> float:
    """CPU seconds of statsmodels' exponential smoothing, additive season of a day, on one series."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    began = time.process_time()
    for each in histories:
        values = np.nan_to_num(each.values, nan=float(np.nanmean(each.values)))
        season = round(86_400 / each.step_seconds)
        model = ExponentialSmoothing(
            values, trend="add", damped_trend=True, seasonal="add", seasonal_periods=season,
            initialization_method="heuristic",
        )  # fmt: skip
        model.fit(optimized=True, use_brute=False).forecast(round(3600 / each.step_seconds))
    return (time.process_time() - began) / len(histories)


def process(size: Size, shapes: Sequence[Floats]) -> list[Figure]:
    newest = time.time() // 60 * 60
    names = [f"default/w{number}" for number in range(size.workloads)]
    runs: list[tuple[float, float, float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="tidewise-fleet-") as place:
        here = Path(place)
        text = here / "history.txt"
        with text.open("w", encoding="utf-8") as out:
            out.write("# TYPE workload:demand:rate1m gauge\n")
            for number, name in enumerate(names):
                values = history(shapes, number, DAYS * 1440, 60.0).values
                for place_, value in enumerate(values.tolist()):
                    at = newest - 60 * (len(values) - 1 - place_)
                    if value == value:
                        out.write(f'workload:demand:rate1m{{workload="{name}"}} {value:.4f} {at}\n')
            out.write("# EOF\n")
        (here / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
        server = Prometheus(here / "prometheus", here / "prometheus.yml")
        create_blocks(text, server.data_folder)
        with server:
            config = here / "tidewise.yaml"
            config.write_text(json.dumps(configuration(server.url, names)), encoding="utf-8")
            for number in range(size.starts):
                with ForecastProcess(here / f"forecast-{number}", config) as ours:
                    runs.append(ours.measured(len(names)))
                page, one, every, memory, most = runs[-1]
                print(
                    f"process: {page:.2f} s to the first page, {one:.1f} s to a forecast, {every:.1f} s to all "
                    f"{len(names)}; {memory:.0f} MiB then, {most:.0f} MiB at most",
                    flush=True,
                )
    page, one, every, memory, most = (statistics.median(run[place_] for run in runs) for place_ in range(5))
    return [
        Figure("tidewise forecast: start to the first page", page, "s", 3),
        Figure("tidewise forecast: start to the first forecast", one, "s"),
        Figure(f"tidewise forecast: start to the forecasts of {size.workloads} workloads", every, "s"),
        Figure(f"tidewise forecast: memory, {size.workloads} workloads", memory, "MiB", 220),
        Figure(f"tidewise forecast: memory at most, {size.workloads} workloads", most, "MiB"),
    ]


def configuration(url: str, names: Sequence[str]) -> dict[str, object]:
    command = {"get": ["true"], "set": ["true", "{replicas}"]}
    return {
        "prometheus": {"url": url},
        "forecast": {"interval_seconds": 5, "rollup_days": 0},
        "workloads": [
            {"name": name.partition("/")[2], "demand": {"promql": "vector(1)"}, "target": {"command": command},
             "replicas": {"max": 4}}
            for name in names
        ],
    }  # fmt: skip


class ForecastProcess(Part):
    """`tidewise forecast`, timed from its start."""

    name = "tidewise-forecast"

    def __init__(self, folder: Path, config: Path) -> None:
        super().__init__(folder, port=free_port())
        found = json.loads(config.read_text(encoding="utf-8"))
        found["forecast"]["listen"] = [f"{HOST}:{self.port}"]
        self.folder.mkdir(parents=True)
        self._config = self.folder / "tidewise.yaml"
        self._config.write_text(json.dumps(found), encoding="utf-8")
        self._began = 0.0

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "controllers", "forecast", "--config", str(self._config)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}

    def answers(self) -> bool:
        return bool(self._page())

    def start(self) -> "ForecastProcess":
        self._began = time.monotonic()
        super().start()
        return self

    def measured(self, workloads: int) -> tuple[float, float, float, float, float]:
        """Seconds to the first page, the first forecast, all; MiB with all forecasts, and at most."""
        started = time.monotonic() - self._began
        first = None
        until = time.monotonic() + 300
        while time.monotonic() < until:
            count = sum(line.startswith("tidewise_forecast_made_timestamp_seconds{") for line in self._page())
            first = first or (time.monotonic() - self._began if count else None)
            if count >= workloads:
                break
            time.sleep(0.05)
        else:
            raise PartError(f"{self.name}: no forecast of all workloads within 300 s; see {self.log_path}")
        every = time.monotonic() - self._began
        time.sleep(6.0)  # a cycle more, with the models that were learned
        memory, most = (mib_of(self.pid, key) for key in ("VmRSS", "VmHWM"))
        return started, first or every, every, memory, most

    def _page(self) -> list[str]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode().splitlines()
        except OSError:
            return []
        finally:
            connection.close()


def read_shapes(folder: Path) -> list[Floats]:
    """What each trace looks like."""
    found = [read_trace(path) for path in sorted(folder.glob("*.csv.gz"))]
    if not found:
        raise BadTraceError(f"{folder}: no NAME.csv.gz in it")
    return [shape(each.values, each.step_seconds) for each in found]


def shape(values: Floats, step_seconds: float) -> Floats:
    """In minutes, whole weeks of them, mean 1, gaps filled with the mean."""
    filled = np.nan_to_num(values, nan=float(np.nanmean(values)))
    minutes = np.interp(
        np.arange(0, len(filled) * step_seconds, 60.0), (np.arange(len(filled)) + 0.5) * step_seconds, filled
    )
    week = 7 * 1440
    whole = minutes[: len(minutes) // week * week] if len(minutes) >= week else minutes
    scaled: Floats = whole / max(float(whole.mean()), 1e-9)
    return scaled


def made_up() -> list[Floats]:
    """Seasonal shapes: an office, a shop, a batch at night, a service that hardly moves."""
    minutes = np.arange(28 * 1440)
    day, weekday = minutes / 1440 % 1, minutes // 1440 % 7
    office = np.clip(np.sin(np.pi * (day - 0.3) / 0.45), 0.05, None) * np.where(weekday < 5, 1.0, 0.3)
    shop = 1 - 0.7 * np.cos(2 * np.pi * (day - 0.1)) + 0.4 * np.isin(weekday, (5, 6))
    night = 0.2 + 5.0 * (np.abs(day - 0.12) < 0.03)
    flat = 1 + 0.1 * np.cos(2 * np.pi * day)
    return [each / each.mean() for each in (office, shop, night, flat)]


def history(shapes: Sequence[Floats], number: int, count: int, step_seconds: float) -> History:
    """One series of the fleet: a piece of a shape with its own size, drift, noise and gaps. The same at each call."""
    random = np.random.default_rng(number)
    minutes = shapes[number % len(shapes)]
    wide = round(step_seconds / 60)
    week = 7 * 1440
    first = week * int(random.integers(0, max(1, len(minutes) // week))) + 60 * int(random.integers(0, 24))
    piece = np.take(minutes, np.arange(first, first + count * wide), mode="wrap").reshape(count, wide).mean(axis=1)
    rate = piece * random.lognormal(1.0, 1.0) * np.linspace(1.0, random.lognormal(0.0, 0.2), count)
    counts = random.poisson(np.clip(rate * random.lognormal(0.0, 0.08, count) * step_seconds, 0, 1e9))
    values: Floats = counts / step_seconds
    values[random.random(count) < 0.005] = np.nan
    return History(START + step_seconds, step_seconds, values, np.zeros(count, dtype=np.bool_))


def counted(names: Iterator[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return sorted(found.items(), key=lambda item: -item[1])


if __name__ == "__main__":
    sys.exit(main())
