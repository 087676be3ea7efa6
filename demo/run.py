"""One run: set everything up, watch the live part, wind down. Ends what it started, whatever happens."""

import resource
import time

import redis

from controllers.budget.words import MICRO
from demo import configuration, money, prom, settings, trace, view
from demo.crew import Crew, Ground, Live, SetUpError
from demo.failures import Mishaps, read_repairs, until_restarted
from demo.ground import lay_ground, tidewise_processes
from demo.history import history_until, write_openmetrics
from demo.interrupts import Interrupts
from demo.processes import OwnProcess
from demo.recorder import Results, read_series, recorded
from demo.recording import LongTerm, Money, Recording
from demo.settings import LoadPlan, Settings
from demo.stage import Stage
from demo.watching import watch
from testbed import fetch
from testbed.parts import Alertmanager, PartError, Prometheus, create_blocks

__all__ = ["SetUpError", "run"]

# From the moment the live part is fixed to its first job: time for the history's blocks and Prometheus to be there, so
# that no scrape is missing between the two.
PREPARE_SECONDS = 4.0
SENT_SECONDS = 6.0  # what was recorded last is with the second Prometheus after this


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
        client.set(settings.ENQUEUED_KEY, history.counter)  # both go on where the history's counters end
        client.set(settings.COMPLETED_KEY, history.completed)
    results = Results(chosen.folder, ground.addresses.redis_url)
    live = Live(demand, history, start, end, results, Mishaps(chosen.folder, chosen.failures_planned, start))
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
        flags=("--storage.remote.flush-deadline=1s",),
        root=ground.root,
    )
    with crew.interrupts.at_once():
        create_blocks(text, server.data_folder, root=ground.root)
    text.unlink()
    crew.timings["history_seconds"] = time.monotonic() - since

    crew.screen.say("4/5 Prometheus, Alertmanager, and a receiver of its notifications")
    start_messenger_and_memory(crew, ground)
    crew.stage.start(server)
    crew.interrupts.check()

    started = ["forecast", "scale", "recovery"]
    crew.screen.say(f"5/5 tidewise {', '.join(started)}, beside {'budget and ' if chosen.budget else ''}the exporters")
    processes = tidewise_processes(chosen, addresses)
    for name in started:
        crew.stage.start(processes[name])
    crew.timings["set_up_seconds"] = time.monotonic() - crew.begun
    crew.screen.say(
        f"All is set up after {crew.timings['set_up_seconds']:.0f} s; "
        f"Prometheus answers at {addresses.prometheus_url}/classic/graph"
    )


def start_messenger_and_memory(crew: Crew, ground: Ground) -> None:
    """Alertmanager, with what people were told before the demo kept quiet; the second Prometheus where it is wanted."""
    chosen, addresses = crew.chosen, ground.addresses
    messenger = Alertmanager(
        chosen.folder / "alertmanager",
        chosen.folder / "alertmanager.yml",
        port=addresses.alertmanager_port,
        root=ground.root,
    )
    crew.stage.start(messenger)
    if ground.assumed is not None:
        try:
            money.silence_known(addresses.alertmanager_url, money.passed(ground.assumed), time.time())
        except money.MoneyError as error:
            crew.stage.tell(f"the lines of the budget that were passed before are told again ({error})")
    if chosen.long_term:
        crew.interrupts.check()
        memory = Prometheus(
            chosen.folder / "long-term",
            chosen.folder / "longterm.yml",
            port=addresses.long_term_port,
            retention="1y",
            flags=("--web.enable-remote-write-receiver",),
            root=ground.root,
        )
        memory.name = "long-term"
        crew.stage.start(memory)
        crew.screen.say(f"    a second Prometheus keeps the contract for a year: {addresses.long_term_url}")


def wind_down(crew: Crew, ground: Ground, live: Live) -> Recording:
    """End everything in the order in which nothing gets lost, and record."""
    ended_at = min(time.time(), live.end)
    chosen, addresses = crew.chosen, ground.addresses
    crew.screen.end()
    if crew.interrupts.asked:
        crew.screen.say("Stopping: the workers finish what they have in hand, then everything ends")
    long_term = read_long_term(crew, addresses.long_term_url) if chosen.long_term else None
    series, problem = read_series(addresses.prometheus_url, live.start, ended_at)
    crew.stage.stop("tidewise-recovery", "tidewise-scale", "load", "fleet")  # nobody mends, adds or takes any more
    live.results.collect()
    left = live.results.left()
    spent = read_money(ground, chosen) if chosen.budget else None
    crew.stage.stop()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    crew.timings["cpu_seconds"] = used.ru_utime + used.ru_stime
    crew.timings["whole_seconds"] = time.monotonic() - crew.begun
    recording = recorded(
        chosen,
        live.demand,
        live.history,
        (live.start, ended_at, live.end),
        live.results,
        left,
        series,
        ground.receiver.notifications,
        [*crew.remarks, *([problem] if problem else [])],
        crew.timings,
        failures=until_restarted(live.mishaps.done, chosen.folder),
        repairs=read_repairs(chosen.folder / "recovery.db"),
        money=spent,
        long_term=long_term,
    )
    recording.write(chosen.folder)
    return recording


def read_money(ground: Ground, chosen: Settings) -> Money:
    """The ledger's last word."""
    told = money.read_ledger(ground.addresses.budget_url, configuration.token_file(chosen.folder, "budget")) or {}
    return Money(
        assumed=(ground.assumed or 0) / MICRO,
        limit=float(settings.USAGE_BUDGET),
        warned_ratio=settings.WARNED_AT,
        time_zone=ground.time_zone or money.HOME,
        state=told.get("state"),
        statement=told.get("statement"),
    )


def read_long_term(crew: Crew, url: str) -> LongTerm:
    """How many series of the contract the second Prometheus holds, and how many others."""
    crew.interrupts.wait(SENT_SECONDS)

    def count(matcher: str) -> int | None:
        try:
            found = prom.instant(url, f"count({{__name__{matcher}}})")
        except prom.PrometheusError:
            return None
        return int(found[0].value) if found else 0

    contract = '"[^:]+:[^:]+:[^:]+"'
    return LongTerm(count(f"=~{contract}"), count(f'!~{contract},__name__!=""'))
