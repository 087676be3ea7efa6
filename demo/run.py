"""One run: set everything up, watch the live part, wind down. Ends what it started, whatever happens."""

import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from demo import configuration, prom, settings, trace, view
from demo.configuration import Addresses
from demo.fleet import read_state
from demo.history import History, history_until, write_openmetrics
from demo.interrupts import Interrupts
from demo.processes import OwnProcess
from demo.reading import reading
from demo.receiver import Receiver
from demo.recorder import Results, read_series, recorded
from demo.recording import Recording
from demo.settings import LoadPlan, Settings
from demo.stage import Stage
from demo.trace import Demand, Trace
from testbed import fetch
from testbed.parts import Alertmanager, PartError, Prometheus, Redis, create_blocks, free_port, port_in_use

HEADROOM_WORKERS = 1  # of the fleet at the start, above what demand needs then
READY_SECONDS = 30.0  # for the first workers
# From the moment the live part is fixed to its first job: time for the history's blocks and Prometheus to be there, so
# that no scrape is missing between the two.
PREPARE_SECONDS = 4.0
DRAIN_SECONDS = 60.0  # at the end, for what still waits
LOOK_SECONDS = 1.0
PAST_SECONDS = 15.0  # between two readings of the last hour


class SetUpError(Exception):
    """The demo cannot be set up. `str()` says why and what to do."""


@dataclass(frozen=True, slots=True)
class Crew:
    """What every step of a run uses. remarks: what is to be said again at the end; timings: seconds by name."""

    chosen: Settings
    screen: view.Screen
    interrupts: Interrupts
    stage: Stage
    remarks: list[str]
    begun: float = field(default_factory=time.monotonic)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ground:
    """What stands before the live part begins: the queue and the workers that serve it."""

    root: Path
    series: Trace
    addresses: Addresses
    receiver: Receiver


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """The live part, from its first job on. start, end: Unix seconds, as planned."""

    demand: Demand
    history: History
    start: float
    end: float
    results: Results


def run(chosen: Settings) -> Recording | None:
    """Run the demo in its folder; the recording, or None when it was stopped before there was anything to record.

    Raises SetUpError, TraceError, FetchError and PartError, with nothing left running.
    """
    screen = view.screen(f"Tidewise: {chosen.minutes:g} minutes of a real trace")
    remarks: list[str] = []

    def tell(sentence: str) -> None:
        remarks.append(sentence)
        screen.say(sentence)

    stage = Stage(tell)
    with Interrupts(stage.kill) as interrupts:
        crew = Crew(chosen, screen, interrupts, stage, remarks)
        try:
            return show_all(crew)
        except KeyboardInterrupt:
            return None
        except (PartError, fetch.FetchError, SetUpError):
            if interrupts.asked:  # a Ctrl-C at the terminal also reaches apt and promtool, which then fail
                return None
            raise
        finally:
            stage.stop()
            screen.end()


def show_all(crew: Crew) -> Recording | None:
    """The whole run. A Ctrl-C before the first job leaves nothing to record; later it only shortens the run."""
    ground = lay_ground(crew)
    try:
        live = begin(crew, ground)
        try:
            observe(crew, ground, live)
            watch(crew, ground, live)
        except KeyboardInterrupt:
            if time.time() < live.start:
                return None
        return wind_down(crew, ground, live)
    finally:
        ground.receiver.stop()


def lay_ground(crew: Crew) -> Ground:
    """The parts, the configuration, the queue, and the workers that were there before."""
    chosen, say, interrupts = crew.chosen, crew.screen.say, crew.interrupts
    series = trace.read_csv(chosen.trace) if chosen.trace else trace.read_azure()
    demand = trace.prepared(series, chosen.seconds_before_rise, time.time())  # a trace that will not do: refused now
    refuse_taken_ports(chosen)

    say("1/5 the parts: Redis, Prometheus, Alertmanager")
    with interrupts.at_once():
        root = fetch.ensure(say)
    crew.timings["fetch_seconds"] = time.monotonic() - crew.begun

    queue = Redis(chosen.folder / "redis", port=chosen.redis_port, root=root)
    addresses = Addresses(
        redis_url=queue.url,
        prometheus_port=chosen.prometheus_port or free_port(),
        alertmanager_port=chosen.alertmanager_port or free_port(),
        exporter_port=free_port(),
        forecast_port=free_port(),
        scale_port=free_port(),
        receiver_port=free_port(),
    )
    write_configuration(chosen, addresses)
    crew.stage.start(queue)
    interrupts.check()

    workers = workers_at_start(demand, chosen)
    say(f"2/5 {workers} workers that are there already; a new one needs {chosen.start_up_seconds:g} s to start")
    start_fleet(crew, addresses, workers)
    exporter, *_ = tidewise_processes(chosen.folder, addresses)
    crew.stage.start(exporter)
    receiver = Receiver(chosen.folder, addresses.receiver_port)
    receiver.start()
    return Ground(root, series, addresses, receiver)


def refuse_taken_ports(chosen: Settings) -> None:
    for option, port in (
        ("--redis-port", chosen.redis_port),
        ("--prometheus-port", chosen.prometheus_port),
        ("--alertmanager-port", chosen.alertmanager_port),
    ):
        if port is not None and port_in_use(port):
            raise SetUpError(f"{option} {port}: another program listens there; stop it, or leave the option out")


def write_configuration(chosen: Settings, addresses: Addresses) -> None:
    """The YAML files of this run, and the workload's rules as `tidewise rules` generates them."""
    folder = chosen.folder
    ours, rules = folder / "tidewise.yaml", folder / "workloads.yml"
    configuration.write(configuration.tidewise(chosen, addresses), ours, "Written by the demo for this run.")
    argv = [sys.executable, "-m", "controllers", "rules", "--config", str(ours), "--out", str(rules)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetUpError(f"`tidewise rules` failed:\n{done.stderr.strip()}")
    configuration.write(configuration.prometheus(addresses, rules), folder / "prometheus.yml", "One run of the demo.")
    configuration.write(configuration.alertmanager(addresses), folder / "alertmanager.yml", "One run of the demo.")


def workers_at_start(demand: Demand, chosen: Settings) -> int:
    """What the trace needs when the live part begins, and a little more."""
    start = demand.rise_at - chosen.seconds_before_rise
    needed = math.ceil(float(demand.intensity(start)) / trace.JOBS_PER_SECOND)
    return min(settings.MAX_WORKERS, max(settings.MIN_WORKERS, needed + HEADROOM_WORKERS))


def start_fleet(crew: Crew, addresses: Addresses, workers: int) -> None:
    """The foreman with its first workers, all of them ready."""
    folder = crew.chosen.folder
    arguments = ["serve", "--folder", str(folder), "--redis", addresses.redis_url]
    arguments += ["--start-up", f"{crew.chosen.start_up_seconds:g}", "--workers", str(workers)]
    fleet = OwnProcess("fleet", folder, "demo.fleet", arguments, stop_seconds=20.0)
    crew.stage.start(fleet, restart=False)
    deadline = time.monotonic() + READY_SECONDS
    while (state := read_state(folder)) is None or state.ready < workers:
        crew.interrupts.check()
        if not fleet.running or time.monotonic() > deadline:
            raise SetUpError(
                f"the workers did not start within {READY_SECONDS:g} s; {fleet.log_path}:\n{fleet.log_tail()}"
            )
        time.sleep(0.1)


def begin(crew: Crew, ground: Ground) -> Live:
    """Fix the moment at which history ends and the live part begins, and start the load driver at it."""
    chosen = crew.chosen
    start = time.time() + PREPARE_SECONDS
    end = start + chosen.live_seconds
    demand = trace.prepared(ground.series, chosen.seconds_before_rise, start)
    history, arrivals = history_until(demand, start, end, chosen.seed)
    offset = chosen.burst_offset_seconds
    path = chosen.folder / "plan.json"
    plan = LoadPlan(ground.addresses.redis_url, arrivals.tolist(), end, None if offset is None else start + offset)
    plan.write(path)
    with redis.Redis.from_url(ground.addresses.redis_url, protocol=2) as client:
        client.set(settings.ENQUEUED_KEY, history.counter)  # goes on where the history's counter ends
    live = Live(demand, history, start, end, Results(chosen.folder, ground.addresses.redis_url))
    crew.stage.start(OwnProcess("load", chosen.folder, "demo.load", [str(path)]), restart=False)
    crew.screen.say(
        f"3/5 {history.days:.1f} days of history at one minute, from {demand.source}; "
        f"in {PREPARE_SECONDS:g} s it goes on live, {len(arrivals) / chosen.live_seconds:.0f} jobs a second"
    )
    return live


def observe(crew: Crew, ground: Ground, live: Live) -> None:
    """Prometheus with the history in place, Alertmanager, and the controllers."""
    chosen, addresses = crew.chosen, ground.addresses
    since = time.monotonic()
    text = chosen.folder / "history.om"
    write_openmetrics(live.history, configuration.counter_labels(addresses), text)
    server = Prometheus(
        chosen.folder / "prometheus",
        chosen.folder / "prometheus.yml",
        port=addresses.prometheus_port,
        external_url=f"{addresses.prometheus_url}/classic",  # so that links in notifications lead to its pages
        root=ground.root,
    )
    with crew.interrupts.at_once():
        create_blocks(text, server.data_folder, root=ground.root)
    text.unlink()
    crew.timings["history_seconds"] = time.monotonic() - since

    crew.screen.say("4/5 Prometheus, Alertmanager, and a receiver of its notifications")
    messenger = Alertmanager(
        chosen.folder / "alertmanager",
        chosen.folder / "alertmanager.yml",
        port=addresses.alertmanager_port,
        root=ground.root,
    )
    for part in (server, messenger):
        crew.interrupts.check()
        crew.stage.start(part)
    crew.interrupts.check()

    crew.screen.say("5/5 tidewise forecast and tidewise scale, beside tidewise-exporter host queue")
    _, *controllers = tidewise_processes(chosen.folder, addresses)
    for process in controllers:
        crew.stage.start(process)
    crew.timings["set_up_seconds"] = time.monotonic() - crew.begun
    crew.screen.say(
        f"All is set up after {crew.timings['set_up_seconds']:.0f} s; "
        f"Prometheus answers at {addresses.prometheus_url}/classic/graph"
    )


def tidewise_processes(folder: Path, addresses: Addresses) -> list[OwnProcess]:
    """Our three processes, the exporter first, as a user would start them."""
    config = ["--config", str(folder / "tidewise.yaml")]
    return [
        OwnProcess("tidewise-exporter", folder, "exporters", ["host", "queue", *config], port=addresses.exporter_port),
        OwnProcess("tidewise-forecast", folder, "controllers", ["forecast", *config], port=addresses.forecast_port),
        OwnProcess("tidewise-scale", folder, "controllers", ["scale", *config], port=addresses.scale_port),
    ]


def watch(crew: Crew, ground: Ground, live: Live) -> None:
    """The live part until its end or the first Ctrl-C; then, if it ended, until the workers have done what waits."""
    show = Show(crew, ground, live)
    crew.screen.begin()
    while time.time() < live.end and not crew.interrupts.wait(LOOK_SECONDS):
        show.look()
    until = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < until and not crew.interrupts.wait(LOOK_SECONDS):
        show.look()
        if live.results.left() == 0:
            break


class Show:
    """Looks at everything once a second, gathers results, and shows what Prometheus says."""

    def __init__(self, crew: Crew, ground: Ground, live: Live) -> None:
        self.crew = crew
        self.ground = ground
        self.live = live
        self._past: list[tuple[float, float]] = []
        self._past_at = -math.inf
        self._notified = 0
        self._pids: dict[str, int] = {}

    def look(self) -> None:
        if time.time() >= self.live.end:
            self.crew.stage.expect_end("load")
        self.crew.stage.watch()
        if (pids := self.crew.stage.pids) != self._pids:  # for whoever wants to kill one and see what happens
            (self.crew.chosen.folder / "processes.json").write_text(json.dumps(pids, indent=2), encoding="utf-8")
            self._pids = pids
        self.live.results.collect()
        notifications = self.ground.receiver.notifications
        for notification in notifications[self._notified :]:
            self.crew.screen.say(notification_text(notification))
            self._notified += 1
        self._show(time.time())

    def _show(self, now: float) -> None:
        url, chosen = self.ground.addresses.prometheus_url, self.crew.chosen
        try:
            read = reading(prom.instant(url, prom.SHOWN))
            if now - self._past_at >= PAST_SECONDS:
                self._past, self._past_at = read_past(url, now), now
        except prom.PrometheusError:
            read = None
        clock = view.Clock(
            now=now - self.live.start,
            end=chosen.live_seconds,
            rise=chosen.seconds_before_rise,
            burst=chosen.burst_offset_seconds,
        )
        self.crew.screen.show(read, self._past, clock)


def read_past(url: str, now: float) -> list[tuple[float, float]]:
    """Demand of the last hour as (Unix time, jobs per second). Raises PrometheusError."""
    query = f'workload:demand:rate1m{{workload="{settings.WORKLOAD}"}}'
    found = prom.span(url, query, now - 3600.0, now, 60.0)
    return list(zip(found[0].times, found[0].values, strict=True)) if found else []


def notification_text(notification: dict[str, Any]) -> str:
    word = "NOTIFICATION" if notification["status"] == "firing" else "Resolved"
    return f"{word}: {notification['alertname']}: {notification['summary'] or notification['labels']}"


def wind_down(crew: Crew, ground: Ground, live: Live) -> Recording:
    """End everything in the order in which nothing gets lost, and record."""
    ended_at = min(time.time(), live.end)
    crew.screen.end()
    if crew.interrupts.asked:
        crew.screen.say("Stopping: the workers finish what they have in hand, then everything ends")
    series, problem = read_series(ground.addresses.prometheus_url, live.start, ended_at)
    crew.stage.stop("tidewise-scale", "load", "fleet")  # nobody scales, adds or takes any more
    live.results.collect()
    left = live.results.left()
    crew.stage.stop()
    recording = recorded(
        crew.chosen,
        live.demand,
        live.history,
        (live.start, ended_at, live.end),
        live.results,
        left,
        series,
        ground.receiver.notifications,
        [*crew.remarks, *([problem] if problem else [])],
        crew.timings,
    )
    recording.write(crew.chosen.folder)
    return recording
