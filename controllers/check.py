"""`tidewise check FILE`: is the configuration right, and does Prometheus have what it names?

First every mistake of the file, the exporters' section included. Then, workload by workload, each series of the
contract: is it there, is it fresh, does it come from its rule or from the rule's expression, since when is it known.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from controllers import check_aws, check_targets
from controllers.config import Config, Prometheus, Workload, contradictions
from controllers.domain import Sample
from controllers.rules import expressions
from controllers.schema import file_model
from controllers.sources.prometheus import Kind, Origin, Reading, Source, SourceError
from exporters.runtime.config import ConfigError, nearest, read_yaml, validate
from exporters.runtime.logs import configure_logs

DEMAND = "workload:demand:rate1m"
BACKLOG = "workload:backlog:sum"
AGE = "workload:data_age_seconds:max"
SERVICE_SECONDS = "workload:service_seconds:mean5m"
REQUIRED = (DEMAND, AGE)
# Useful, and not to be had everywhere: what is lost without it.
WITHOUT = {
    "workload:throughput:rate1m": "nothing counts finished work",
    "workload:oldest_age_seconds:max": "jobs do not tell when they were enqueued, so QueueAgeSLO cannot fire",
    SERVICE_SECONDS: "nothing measures the work, so capacity.service_seconds counts",
    "workload:failures:ratio_rate5m": "nothing counts failed work",
}
SECONDS_OF_DEADLINE = 30.0
SKEW_SECONDS = 10.0
DAY = 86_400.0


@dataclass(frozen=True)
class Row:
    """One contract series of one workload; `problem` says why there is no sample, or none that can be used."""

    record: str
    sample: Sample | None = None
    age_seconds: float | None = None
    origin: Origin | None = None
    problem: str | None = None
    required: bool = False


@dataclass(frozen=True)
class Finding:
    """What Prometheus knows of one workload. `mistakes` are the file's, found by asking."""

    rows: tuple[Row, ...]
    history_since: float | None = None
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    workloads: Mapping[str, Finding] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def main(argv: list[str]) -> int:
    """0: all there. 1: series or rights are missing, or cannot be asked for. 2: Prometheus shows mistakes of the file.

    Raises ConfigError with every mistake that the file shows by itself.
    """
    parser = argparse.ArgumentParser(
        prog="tidewise check",
        description="Check the configuration, whether Prometheus has the series it names, and whether the "
        "Kubernetes targets can be told and let a busy worker finish.",
        epilog="Exit status: 0 all is well, 1 series or rights are missing or Prometheus is silent, 2 the file has "
        "mistakes.",
    )
    parser.add_argument("file", type=Path, nargs="?", default=Path("tidewise.yaml"), metavar="FILE")
    parser.add_argument("--prometheus", metavar="URL", help="ask this one instead of the file's prometheus.url")
    parser.add_argument("--no-prometheus", action="store_true", help="look at the file only")
    parser.add_argument("--no-cluster", action="store_true", help="do not look at the targets")
    options = parser.parse_args(argv)

    path: Path = options.file
    config = read(path)
    count = len(config.workloads)
    print(f"{path}: no mistakes; {count or 'no'} workload{'' if count == 1 else 's'}")
    for warning in (*unnamed_queues(config), *unpaid(config), *unreadable_calendars(config)):
        print(f"warning: {warning}")
    for line in calendars(config, time.time()):
        print(line)
    if options.no_prometheus or not count:
        return 0

    settings = config.prometheus
    if options.prometheus:
        override = {**settings.model_dump(), "url": options.prometheus}
        settings = validate(Prometheus, override, Path("--prometheus"))
    source = Source(settings)
    try:
        findings = ask(source, config, time.time())
    except SourceError as error:
        print(f"prometheus.url: {source.url} tells nothing ({error})", file=sys.stderr)
        print("Start it or correct the address; --no-prometheus looks at the file only.", file=sys.stderr)
        if not options.no_cluster:
            _look_at_kubernetes(config)
        return 1
    mistakes = [mistake for finding in findings.workloads.values() for mistake in finding.mistakes]
    print(f"{source.url}: answers\n")
    print("\n".join(report(config, findings)))
    for mistake in mistakes:
        print(f"{path}: {mistake}", file=sys.stderr)
    missing = [row for finding in findings.workloads.values() for row in finding.rows if row.required and row.problem]
    lacks = False if options.no_cluster else _look_at_kubernetes(config, source, _service_seconds(findings))
    lines, unscaled = (
        ([], False) if options.no_cluster else check_targets.report(config, source, _service_seconds(findings))
    )
    if not options.no_cluster:
        on_aws, refused = check_aws.report(config)
        lines, unscaled = [*lines, *on_aws], unscaled or refused
    for line in lines:
        print(line)
    return 2 if mistakes else 1 if missing or lacks or unscaled else 0


def _service_seconds(findings: Findings) -> dict[str, float]:
    rows = {name: row for name, finding in findings.workloads.items() for row in finding.rows
            if row.record == SERVICE_SECONDS}  # fmt: skip
    return {name: row.sample.value for name, row in rows.items() if row.sample is not None}


def _look_at_kubernetes(
    config: Config, source: Source | None = None, service_seconds: Mapping[str, float] | None = None
) -> bool:
    """Prints what the cluster says of the targets. Whether something is missing there."""
    if not any(workload.target.all_kubernetes for workload in config.workloads):
        return False
    from controllers import check_kubernetes

    found = check_kubernetes.report(config, check_kubernetes.taken(config, source, service_seconds or {}))
    print("\n".join(("", *found.lines)))
    return found.missing


def read(path: Path) -> Config:
    """The file, all sections checked. Raises ConfigError with every mistake."""
    config = validate(file_model(), read_yaml(path), path)
    problems = contradictions(config)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return config


def unnamed_queues(config: Config) -> list[str]:
    """Workloads on queues that this file's exporters do not watch. Another file's may, so it is no mistake."""
    queues = getattr(config.exporters, "queue", None)
    if queues is None:
        return []
    warnings: list[str] = []
    for place, workload in _places(config):
        system, name = workload.demand.system, workload.demand.queue
        watched = [queue.name for server in getattr(queues, system, []) for queue in server.queues]
        if name is not None and name not in watched:
            warnings.append(
                _at(place, f"demand.queue: '{name}' is not watched by this file's exporters.queue.{system}")
                + nearest(name, watched)
            )
    return warnings


def _places(config: Config) -> Iterator[tuple[str, Workload]]:
    """Each demand as if it were a workload of its own, with its place in the file."""
    for index, workload in enumerate(config.workloads):
        for number, signal in enumerate(workload.signals()):
            yield f"workloads.{index}" + (f".also.{number - 1}" if number else ""), signal


def _at(place: str, mistake: str) -> str:
    """A further demand (`also`) has no key `demand` of its own."""
    return f"{place}.{mistake.removeprefix('demand.') if '.also.' in place else mistake}"


def unpaid(config: Config) -> list[str]:
    """Prices and a budget that do not meet: nothing would be counted, or nothing would be permitted."""
    priced = [index for index, workload in enumerate(config.workloads) if workload.price is not None]
    if priced and config.budget is None:
        return [
            f"workloads.{priced[0]}.price: there is no budget that it counts against; add 'budget:' or leave it out"
        ]
    if config.budget is not None and config.budget.token_file is None:
        return [
            "budget.token_file: is missing, so the ledger permits nothing"
            + (" and replicas with a price are not added" if priced else "")
            + "; write a long random line into a file and name it here"
        ]
    return []


def unreadable_calendars(config: Config) -> list[str]:
    """Calendar files that say nothing. One may be written later, or lie on another machine, so it is no mistake."""
    warnings: list[str] = []
    for index, workload in enumerate(config.workloads):
        for place, path in enumerate(workload.calendar.ics if workload.calendar else ()):
            from controllers.forecast.calendars import parsed_ics

            try:
                parsed_ics(path)
            except Exception as error:  # whatever a library makes of what somebody wrote
                why = error.strerror if isinstance(error, OSError) and error.strerror else error
                warnings.append(f"workloads.{index}.calendar.ics.{place}: {path} cannot be read ({why})")
    return warnings


def calendars(config: Config, now: float) -> list[str]:
    """What each workload's calendar has, in a line: a mistyped country or time shows there."""
    if config.forecast.holidays is None and all(workload.calendar is None for workload in config.workloads):
        return []
    from controllers.forecast.calendars import Calendars

    configure_logs("check", "error")  # files that cannot be read are told of above
    known = Calendars(config)
    lines = []
    for workload in config.workloads:
        calendar = known.of(workload.identity, now)
        zone = ZoneInfo(calendar.time_zone)
        today = (datetime.fromtimestamp(now, zone).date() - date(1970, 1, 1)).days
        told = []
        coming = min((day for day in calendar.holidays if day >= today), default=None)
        if coming is not None:
            told.append(f"next holiday {date(1970, 1, 1) + timedelta(days=coming)} ({calendar.holidays[coming]})")
        for kind in sorted({event.kind for event in calendar.events}):
            begins = [event.begin for event in calendar.events if event.kind == kind]
            past = sum(begin <= now for begin in begins)
            soon = min((begin for begin in begins if begin > now), default=None)
            then = f", next {datetime.fromtimestamp(soon, zone):%Y-%m-%d %H:%M}" if soon else ""
            told.append(f"event '{kind}' {past} time{'' if past == 1 else 's'} so far{then}")
        floor = next((floor for floor in calendar.floors if floor.end > now), None)
        if floor is not None:
            begin = datetime.fromtimestamp(floor.begin, zone)
            told.append(f"at least {floor.demand_per_second:g} per second from {begin:%Y-%m-%d %H:%M}")
        if told:
            lines.append(f"{workload.identity}: calendar ({calendar.time_zone}): {'; '.join(told)}")
    return lines


def ask(source: Source, config: Config, now: float) -> Findings:
    """Everything that is to be known of every workload. Raises SourceError when Prometheus tells nothing at all."""
    deadline = time.monotonic() + SECONDS_OF_DEADLINE

    def left() -> float:
        return max(0.1, deadline - time.monotonic())

    fallbacks = expressions(config)
    warnings = _general_warnings(source, now, left())
    names = (DEMAND, BACKLOG, AGE, *WITHOUT)
    readings = source.contract_at(names, fallbacks, deadline_seconds=left())
    # Hourly samples tell how far back it goes and are few.
    start = now - config.forecast.history_days * DAY
    history = source.contract_range([DEMAND], fallbacks, start, now, 3600.0, deadline_seconds=left())[DEMAND]
    fastest, unread = _fastest(source, config, left())
    watched = source.instant('queue_messages{state="ready"}', deadline_seconds=left())
    queues = [(series.labels.get("system", ""), series.labels.get("queue", "")) for series in watched]
    findings: dict[str, Finding] = {}
    for place, workload in _places(config):
        name = workload.identity
        rows = tuple(_row(readings[record], workload, config) for record in names if name in fallbacks.get(record, {}))
        mistakes = _promql_mistake(source, workload, fallbacks, left()) + _slo_mistake(workload, fastest.get(name))
        refused, idle = _in_hand(source, workload, left()) if ".also." not in place else ([], [])
        mistakes += refused
        try:
            since = next((sample.at for sample in history.samples(name)), None)
        except SourceError:
            since = None  # the row of the demand says what is wrong
        findings[name] = Finding(
            rows,
            since,
            tuple(_at(place, mistake) for mistake in mistakes),
            (*_queue_warnings(workload, queues), *idle, *_warnings(workload, rows, since, now)),
        )
    return Findings(findings, warnings + unread + tuple(w for reading in readings.values() for w in reading.warnings))


def _general_warnings(source: Source, now: float, seconds: float) -> tuple[str, ...]:
    clock = source.instant("time()", deadline_seconds=seconds)
    skew = clock[0].samples[-1].value - now if clock else 0.0
    if abs(skew) <= SKEW_SECONDS:
        return ()
    return (f"Prometheus's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's; set both",)


def _row(reading: Reading, workload: Workload, config: Config) -> Row:
    required = reading.record in REQUIRED or (reading.record == BACKLOG and workload.demand.queue is not None)
    name, limit = workload.identity, config.scale.data_age_limit_seconds
    try:
        sample = reading.sample(name)
    except SourceError as error:
        return Row(reading.record, problem=str(error), required=required)
    if sample is None:
        return Row(reading.record, problem=WITHOUT.get(reading.record, "missing"), required=required)
    age = max(0.0, time.time() - sample.at)
    stale = age if reading.record != AGE else age + sample.value
    problem = f"{stale:.0f} s old, more than scale.data_age_limit_seconds ({limit:g})" if stale > limit else None
    return Row(reading.record, sample, age, reading.origin.get(name), problem, required)


def _fastest(source: Source, config: Config, seconds: float) -> tuple[dict[str, float], tuple[str, ...]]:
    """The shortest mean service time ever recorded, by workload, and a warning where that is too much to ask."""
    window = f"{config.forecast.history_days * DAY:.0f}s"
    try:
        found = source.instant(f"min by (workload) (min_over_time({SERVICE_SECONDS}[{window}]))", None, seconds)
    except SourceError as error:
        return {}, (f"the past service times cannot be read ({error}), so the objectives were not compared with them",)
    return {series.labels["workload"]: series.samples[-1].value for series in found if "workload" in series.labels}, ()


def _promql_mistake(
    source: Source, workload: Workload, fallbacks: Mapping[str, Mapping[str, str]], seconds: float
) -> list[str]:
    if workload.demand.promql is None:
        return []
    try:
        source.instant(fallbacks[DEMAND][workload.identity], deadline_seconds=seconds)
    except SourceError as error:
        if error.kind in (Kind.BAD_QUERY, Kind.DUPLICATE):
            return [f"demand.promql: Prometheus refuses it ({error.message}); it must give a vector, per second"]
        raise
    return []


def _in_hand(source: Source, workload: Workload, seconds: float) -> tuple[list[str], list[str]]:
    """What is wrong with the expression for work in hand: mistakes of the file, and what may yet come."""
    if workload.in_hand is None:
        return [], []
    try:
        found = source.instant(workload.in_hand, deadline_seconds=seconds)
    except SourceError as error:
        if error.kind in (Kind.BAD_QUERY, Kind.DUPLICATE):
            return [f"in_hand: Prometheus refuses it ({error.message}); it must give a vector by pod or instance"], []
        raise
    if not found:
        return [], ["in_hand gives nothing now, so scale-in would take any replica"]
    unnamed = sum(not (series.labels.get("pod") or series.labels.get("instance")) for series in found)
    if unnamed:
        return [
            f"in_hand: {unnamed} of {len(found)} series have neither pod nor instance; write 'sum by (pod) (…)'"
        ], []
    return [], []


def _slo_mistake(workload: Workload, fastest: float | None) -> list[str]:
    if fastest is None or workload.slo.deadline is not None or workload.slo.wait_seconds >= fastest:
        return []
    found = f"slo.wait_seconds: found {workload.slo.wait_seconds:g}"
    seen = f"no five minutes on record served a job in less than {fastest:.3g} s on average"
    return [f"{found}; {seen}, so no number of replicas keeps this promise: raise it"]


def _queue_warnings(workload: Workload, queues: list[tuple[str, str]]) -> list[str]:
    name, system = workload.demand.queue, workload.demand.system
    if name is None:
        return []
    found = queues.count((system, name))
    if found == 0:
        known = sorted({queue for of, queue in queues if of == system})
        end = nearest(name, known) if known else f"; no {system} queue is: is the exporter scraped?"
        return [f"the queue '{name}' is not exported{end}"]
    if found > 1:
        return [f"the queue '{name}' is exported {found} times and counted as often; export each queue once"]
    return []


def _warnings(workload: Workload, rows: tuple[Row, ...], since: float | None, now: float) -> list[str]:
    warnings: list[str] = []
    by_name = {row.record: row for row in rows}
    if any(row.origin is Origin.EXPRESSION for row in rows):
        warnings.append("rules are missing or not loaded; load what `tidewise rules` prints and prometheus/rules/")
    if since is None:
        warnings.append("there is no history of its demand, so it is scaled reactively until there is")
    elif now - since < DAY:
        hours = int((now - since) // 3600)
        length = f"{hours} h" if hours > 0 else "less than an hour"
        warnings.append(f"its history is {length} long; a forecast needs a day, a good one weeks")
    service = by_name.get(SERVICE_SECONDS)
    if (service is None or service.sample is None) and workload.capacity.service_seconds is None:
        warnings.append("nothing says how long one piece of work takes; write capacity.service_seconds")
    return warnings


def report(config: Config, findings: Findings) -> list[str]:
    """The summary, line by line: one block a workload."""
    lines = [f"warning: {warning}" for warning in findings.warnings]
    for place, workload in _places(config):
        finding = findings.workloads[workload.identity]
        bounds = f"{workload.replicas.min} to {workload.replicas.max} replicas, {workload.mode.value}"
        lines.append(f"{workload.identity}: {_demand(workload)}, {'the same replicas' if 'also' in place else bounds}")
        lines += [f"  {line}" for line in _table(finding.rows)]
        if finding.history_since is not None:
            since = datetime.fromtimestamp(finding.history_since, tz=UTC)
            lines.append(f"  history of the demand since {since:%Y-%m-%d %H:%M} UTC")
        lines += [f"  warning: {warning}" for warning in finding.warnings]
        lines.append("")
    rows = [row for finding in findings.workloads.values() for row in finding.rows]
    unusable = sum(row.required and row.problem is not None for row in rows)
    warned = len(findings.warnings) + sum(len(finding.warnings) for finding in findings.workloads.values())
    lines.append(
        f"{len(rows)} series, {sum(row.sample is not None for row in rows)} there; "
        f"needed and unusable: {unusable or 'none'}; warnings: {warned or 'none'}"
    )
    return lines


def _table(rows: tuple[Row, ...]) -> list[str]:
    cells = [("series", "value", "age", "from", "")]
    for row in rows:
        note = row.problem or ""
        cells.append(
            (
                row.record,
                "-" if row.sample is None else f"{row.sample.value:.4g}",
                "-" if row.age_seconds is None else f"{row.age_seconds:.0f} s",
                "-" if row.origin is None else row.origin.value,
                f"{'NEEDED: ' if note and row.required else ''}{note}",
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return ["  ".join([*map(str.ljust, line, widths), line[4]]).rstrip() for line in cells]


def _demand(workload: Workload) -> str:
    demand = workload.demand
    if demand.queue is not None:
        return f"queue {demand.queue} on {demand.system}"
    return f"service {demand.service}" if demand.service is not None else "its own PromQL"
