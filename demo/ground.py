"""The first steps of a run: parts, configuration, the ledger with its month so far, the queue and its first workers."""

import math
import subprocess
import sys
import time
from collections.abc import Callable
from zoneinfo import ZoneInfo

from controllers.budget.schema import LedgerError
from controllers.budget.words import MICRO
from controllers.config import load
from demo import configuration, money, settings, trace
from demo.configuration import Addresses, token_file
from demo.crew import Crew, Ground, SetUpError
from demo.fleet import read_state
from demo.processes import OwnProcess
from demo.receiver import Receiver
from demo.settings import Settings
from demo.trace import Demand
from testbed import fetch
from testbed.parts import Redis, free_port, port_in_use

HEADROOM_WORKERS = 1  # of the fleet at the start, above what demand needs then
READY_SECONDS = 30.0  # for the first workers, and for the ledger


def lay_ground(crew: Crew) -> Ground:
    """The parts, the configuration, the queue, the ledger, and the workers that were there before."""
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
        budget_port=free_port(),
        recovery_port=free_port(),
        fleet_port=free_port(),
        receiver_port=free_port(),
        long_term_port=free_port(),
    )
    time_zone = money.time_zone(time.time(), chosen.live_seconds)
    write_configuration(chosen, addresses, time_zone)
    crew.stage.start(queue)
    interrupts.check()

    workers = workers_at_start(demand, chosen)
    say(f"2/5 {workers} workers that are there already; a new one needs {chosen.start_up_seconds:g} s to start")
    processes = tidewise_processes(chosen, addresses)
    assumed = None
    if chosen.budget:
        assumed = write_assumed_spend(chosen, demand)
        crew.stage.start(processes["budget"])
    start_fleet(crew, addresses, workers)
    crew.stage.start(processes["exporter"])
    if chosen.budget:
        wait_for_ledger(crew, processes["budget"])
        say(f"    {say_money(assumed or 0)}")
    receiver = Receiver(chosen.folder, addresses.receiver_port)
    receiver.start()
    return Ground(root, series, addresses, receiver, assumed, time_zone if chosen.budget else None)


def refuse_taken_ports(chosen: Settings) -> None:
    for option, port in (
        ("--redis-port", chosen.redis_port),
        ("--prometheus-port", chosen.prometheus_port),
        ("--alertmanager-port", chosen.alertmanager_port),
    ):
        if port is not None and port_in_use(port):
            raise SetUpError(f"{option} {port}: another program listens there; stop it, or leave the option out")


def write_configuration(chosen: Settings, addresses: Addresses, time_zone: str) -> None:
    """The YAML files of this run, and the workload's rules as `tidewise rules` generates them."""
    folder, note = chosen.folder, "One run of the demo."
    ours, rules = folder / "tidewise.yaml", folder / "workloads.yml"
    document = configuration.tidewise(chosen, addresses, time_zone)
    configuration.write(document, ours, "Written by the demo for this run.")
    argv = [sys.executable, "-m", "controllers", "rules", "--config", str(ours), "--out", str(rules)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetUpError(f"`tidewise rules` failed:\n{done.stderr.strip()}")
    configuration.write(configuration.prometheus(chosen, addresses, rules), folder / "prometheus.yml", note)
    configuration.write(configuration.alertmanager(chosen, addresses), folder / "alertmanager.yml", note)
    if chosen.long_term:
        configuration.write(configuration.long_term(), folder / "longterm.yml", note)


def workers_at_start(demand: Demand, chosen: Settings) -> int:
    """What the trace needs when the live part begins, and a little more."""
    start = demand.rise_at - chosen.seconds_before_rise
    needed = math.ceil(float(demand.intensity(start)) / trace.JOBS_PER_SECOND)
    return min(settings.MAX_WORKERS, max(settings.MIN_WORKERS, needed + HEADROOM_WORKERS))


def write_assumed_spend(chosen: Settings, demand: Demand) -> int:
    """The ledger's file, with as much of the month spent that the live part passes the line; how much, in micro-KRW."""
    config = load(chosen.folder / "tidewise.yaml")
    now = time.time()
    start = demand.rise_at - chosen.seconds_before_rise
    seconds = settings.WARNED_SHARE * chosen.live_seconds
    calls = float(demand.intensity(start)) * seconds / settings.PAID_EVERY
    until_line = int(calls * float(money.call_cost(config, now)) * MICRO)
    limit = settings.USAGE_BUDGET * MICRO
    # the rule rounds its ratio to 1/4096, so it says 75 % that little earlier
    assumed = int((settings.WARNED_AT - 1 / 8192) * limit) - until_line
    if config.budget is None:
        raise SetUpError("the demo wrote a configuration without its budget")
    try:
        money.write_ledger(config, money.earlier(now, ZoneInfo(config.budget.time_zone), assumed, limit))
    except LedgerError as error:
        raise SetUpError(f"the ledger cannot be written: {error}") from None
    return assumed


def say_money(assumed: int) -> str:
    return (
        f"the ledger: {assumed / MICRO:,.0f} of this month's {settings.USAGE_BUDGET:,} KRW for paid calls are spent "
        "already (assumed)"
    )


def wait_for_ledger(crew: Crew, ledger: OwnProcess) -> None:
    _wait(crew, ledger, ledger.answers, "the ledger does not answer")


def start_fleet(crew: Crew, addresses: Addresses, workers: int) -> None:
    """The foreman with its first workers, all of them ready."""
    folder = crew.chosen.folder
    arguments = ["serve", "--folder", str(folder), "--redis", addresses.redis_url]
    arguments += ["--start-up", f"{crew.chosen.start_up_seconds:g}", "--workers", str(workers)]
    arguments += ["--metrics-port", str(addresses.fleet_port)]
    if crew.chosen.budget:
        arguments += ["--budget", addresses.budget_url, "--token-file", str(token_file(folder, "budget"))]
    fleet = OwnProcess("fleet", folder, "demo.fleet", arguments, stop_seconds=20.0)
    crew.stage.start(fleet, restart=False)

    def all_ready() -> bool:
        state = read_state(folder)
        return state is not None and state.ready >= workers

    _wait(crew, fleet, all_ready, "the workers did not start")


def _wait(crew: Crew, process: OwnProcess, true: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not true():
        crew.interrupts.check()
        if not process.running or time.monotonic() > deadline:
            raise SetUpError(f"{problem} within {READY_SECONDS:g} s; {process.log_path}:\n{process.log_tail()}")
        time.sleep(0.1)


def tidewise_processes(chosen: Settings, addresses: Addresses) -> dict[str, OwnProcess]:
    """Our processes by name, as a user would start them."""
    folder = chosen.folder
    config = ["--config", str(folder / "tidewise.yaml")]
    ports = {
        "forecast": addresses.forecast_port,
        "scale": addresses.scale_port,
        "budget": addresses.budget_port,
        "recovery": addresses.recovery_port,
    }
    exporter = OwnProcess(
        "tidewise-exporter",
        folder,
        "exporters",
        [*configuration.exporters(chosen), *config],
        port=addresses.exporter_port,
    )
    return {
        "exporter": exporter,
        **{
            name: OwnProcess(f"tidewise-{name}", folder, "controllers", [name, *config], port=port)
            for name, port in ports.items()
        },
    }
