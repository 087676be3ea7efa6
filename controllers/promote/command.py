"""`tidewise promote WORKLOAD`: what acting would have come to, whether it can begin, and the change that begins it."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from controllers import check, check_aws, check_targets
from controllers.actuators import ACTUATORS, ActuatorError
from controllers.config import Config, Workload, load
from controllers.domain import Mode
from controllers.promote.evidence import Evidence, Side, evidence
from controllers.promote.patch import PatchError, diff, with_mode
from controllers.scale.moments import length, spoken, zone_of
from controllers.scale.records import Record, RecordError, backwards
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime.config import ConfigError

DAY = 86_400.0
TARGET_SECONDS = 10.0
SHORT_PROOF_SECONDS = DAY
FEWEST_REPLAY_DAYS = 30.0  # a quarter is played, the rest is history
LOOKED_AT_BY_CHECK = ("publish", "docker", "haproxy", "aws")
POLICIES = {
    "tidewise": "acting",
    "as-it-was": "what ran",
    "hpa": "an HPA as it comes",
    "oracle": "who knows the future",
}
SHORT_SHARE = 0.01  # of the time with too few ready, more than what ran


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition. `is_met` None: it speaks against acting, and a person may know better."""

    is_met: bool | None
    text: str

    def __str__(self) -> str:
        return f"  {'ok' if self.is_met else 'NOT YET' if self.is_met is False else 'mind':<8} {self.text}"


def main(argv: list[str]) -> int:
    """0: the patch was printed or applied. 1: not yet. 2: wrong usage, no such workload. Raises ConfigError."""
    options = _options(argv)
    mode = Mode(options.to)
    config = load(options.config)
    workload = config.workload(options.workload)
    if workload is None:
        print(f"{options.config}: {config.unknown(options.workload)}", file=sys.stderr)
        return 2
    if workload.mode is mode:
        print(f"{workload.identity}: its mode is {mode.value} already")
        return 0
    now = time.time()
    ready = True
    if mode is not Mode.SHADOW:
        if not options.no_replay:
            print("\n".join(_replayed(config, workload, options.days)), end="\n\n", flush=True)
        records = _records(config, workload.identity, now - options.days * DAY)
        print("\n".join(_proof(config, workload, now, records)), end="\n\n")
        if mode is Mode.ACT:
            findings = list(preconditions(config, workload, now, records))
            print("can it act?")
            print("\n".join(map(str, findings)))
            print()
            ready = all(finding.is_met is not False for finding in findings)
    if not ready and not options.anyway:
        print(f"{workload.identity}: not yet; mend what stands above, or add --anyway", file=sys.stderr)
        return 1
    return _change(options, config, workload, mode)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tidewise promote",
        description="What acting on a workload would have come to on its own history; whether it can begin; and the "
        "change of the configuration that begins it, for this workload only.",
        epilog="The change is a patch: tidewise promote video-analysis | patch tidewise.yaml. With --write it "
        "is made here.",
    )
    parser.add_argument("workload", help="name or namespace/name")
    parser.add_argument("--to", choices=[mode.value for mode in Mode], default=Mode.ACT.value, help="default: act")
    parser.add_argument("--days", type=_days, default=14.0, metavar="N", help="of history to look at (default: 14)")
    parser.add_argument("--no-replay", action="store_true", help="only its decisions: a replay takes about a minute")
    parser.add_argument("--write", action="store_true", help="change the file, in one step")
    parser.add_argument("--anyway", action="store_true", help="although a precondition is not met")
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    return parser.parse_args(argv)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= 400:
        raise argparse.ArgumentTypeError(f"found '{text}'; write a number of days up to 400")
    return days


def _replayed(config: Config, workload: Workload, days: float) -> Iterator[str]:
    """What a replay of the demand in Prometheus says, beside what ran and an HPA."""
    try:
        from controllers.replay.command import summary
        from controllers.replay.protocol import ProtocolError
        from controllers.replay.recorded import NothingRecordedError
    except ImportError as error:
        yield f"no replay: the Python package {error.name} is missing; install tidewise[forecast]"
        return
    try:
        found = summary(config, workload, Source(config.prometheus), max(days, FEWEST_REPLAY_DAYS))
    except (SourceError, NothingRecordedError, ProtocolError) as error:
        yield f"no replay of its demand: {error}"
        return
    yield from replay_table(found, workload, zone_of(workload, config))


def replay_table(found: Mapping[str, Any], workload: Workload, zone: ZoneInfo) -> Iterator[str]:
    """`controllers.replay.command.summary` as a table."""
    currency = workload.price.per_replica_hour.currency if workload.price else None
    begin, end = (datetime.fromisoformat(found["setting"][key]).timestamp() for key in ("begin", "end"))
    yield f"{workload.identity}, {spoken(begin, zone)} to {spoken(end, zone)}, a replay of its demand in Prometheus"
    rows = [("", "replica-hours", *(["they cost"] if currency else []), "SLO minutes", "short of the time")]
    for name, run in found["policies"].items():
        cost = [f"{_figure(run.get('money'))} {currency}"] if currency else []
        short = run.get("under")
        share = _figure(None if short is None else 100 * short, 2)
        minutes = _figure(run.get("slo_minutes"))
        rows.append((POLICIES.get(name, name), _figure(run.get("replica_hours"), 1), *cost, minutes, f"{share} %"))
    yield from _table(rows)
    yield from (f"  {note}" for note in found["notes"])
    yield f"  tidewise replay --workload {workload.identity} tells more"


def _figure(number: float | None, digits: int = 0) -> str:
    return "unknown" if number is None else f"{number:,.{digits}f}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        yield f"  {'  '.join(cells)}".rstrip()


def _proof(config: Config, workload: Workload, now: float, records: Sequence[Record] | str) -> Iterator[str]:
    """What the records say."""
    if isinstance(records, str):
        yield f"what acting would have come to is not known: {records}"
        return
    found = evidence(records, now, _longest(config))
    if found is None or found.known_seconds <= 0:
        yield f"what acting would have come to is not known: {len(records)} decisions so far; let it run on"
        return
    yield from told(found, workload, zone_of(workload, config))


def _records(config: Config, identity: str, since: float) -> list[Record] | str:
    """Oldest first; or the sentence why they cannot be had."""
    found = takewhile(lambda record: record.decision.at >= since, backwards(config.scale.records, identity))
    try:
        return sorted(found, key=lambda record: record.decision.at)
    except RecordError as error:
        return str(error)


def _longest(config: Config) -> float:
    """How long a record speaks for: until the next is due, and a little."""
    return 1.5 * max(config.scale.record_every_seconds, config.scale.interval_seconds) + 60.0


def told(found: Evidence, workload: Workload, zone: ZoneInfo) -> Iterator[str]:
    """The evidence as a table."""
    span = f"{spoken(found.since, zone)} to {spoken(found.until, zone)}"
    unknown = f", {length(found.unknown_seconds)} of it unknown" if found.unknown_seconds >= 60 else ""
    yield f"{workload.identity}, {span}{unknown}, from its decisions"
    yield from _table([("", "what ran", "acting"), *_compared(found, workload)])
    yield "  an estimate: in shadow each decision starts from the replicas that somebody else has set"


def _compared(found: Evidence, workload: Workload) -> Iterator[tuple[str, str, str]]:
    ran, act = found.ran, found.act
    yield "replica-hours", f"{ran.replica_hours:,.1f}", f"{act.replica_hours:,.1f}"
    if workload.price is not None:
        price = workload.price.per_replica_hour
        costs = [f"{side.cost(price):,.0f} {price.currency}" for side in (ran, act)]
        yield "they cost", costs[0], costs[1]
    yield "fewer ready than needed", _minutes(ran), _minutes(act)
    shares = [f"{100 * side.short_seconds / found.known_seconds:.2f} %" for side in (ran, act)]
    yield "  share of the time", shares[0], shares[1]
    yield "changes", str(ran.changes), str(act.changes)


def _minutes(side: Side) -> str:
    return f"{side.short_seconds / 60:,.0f} min"


def preconditions(config: Config, workload: Workload, now: float, records: Sequence[Record] | str) -> Iterator[Finding]:
    """What has to be so before it may act. `records`: its own, oldest first; or why there are none."""
    yield from _measured(config, workload, now)
    yield from _target(config, workload)
    yield _decided(config, now, records)
    if workload.price is not None and config.budget is not None and config.budget.token_file is None:
        yield Finding(False, "budget.token_file: is missing, so the ledger would permit no replica with a price")
    if config.scale.token_file is None:
        yield Finding(None, "scale.token_file: is missing, so nobody could surge or pause it")


def _measured(config: Config, workload: Workload, now: float) -> Iterator[Finding]:
    """`tidewise check` of this workload alone."""
    alone = config.model_copy(update={"workloads": [workload]})
    source = Source(config.prometheus)
    try:
        found = check.ask(source, alone, now)
    except SourceError as error:
        yield Finding(False, f"{source.url} tells nothing ({error})")
        return
    bad = [
        Finding(False, f"{row.record} of {name}: {row.problem}")
        for name, finding in found.workloads.items()
        for row in finding.rows
        if row.required and row.problem
    ]
    bad += [Finding(False, mistake.partition(".")[2]) for one in found.workloads.values() for mistake in one.mistakes]
    yield from bad or [Finding(True, f"{source.url} has what it is decided from")]
    for finding in found.workloads.values():
        yield from (Finding(None, warning) for warning in finding.warnings)


def _target(config: Config, workload: Workload) -> Iterator[Finding]:
    """What `tidewise check` says of its target, as if it acted."""
    acting = config.model_copy(update={"workloads": [workload.model_copy(update={"mode": Mode.ACT})]})
    target = workload.target
    if target.kind not in LOOKED_AT_BY_CHECK:
        try:
            replicas = ACTUATORS[target.kind](getattr(target, target.kind)).read_replicas(TARGET_SECONDS)
        except ActuatorError as error:
            yield Finding(False, f"the target cannot be read: {error}")
            return
        yield Finding(True, f"the target ({target.kind}) answers: {replicas.ready} ready of {replicas.wanted}")
    lines, _ = check_targets.report(acting, Source(config.prometheus), {})
    on_aws, _ = check_aws.report(acting)
    for line in (*lines, *on_aws):
        yield Finding(False if line.startswith("error: ") else None if "warning: " in line else True, _bare(line))
    if target.all_kubernetes:
        from controllers import check_kubernetes

        found = check_kubernetes.report(acting, {})
        for line in filter(None, found.lines):
            warned = False if found.missing else None
            yield Finding(warned if "warning: " in line else True, _bare(line))


def _bare(line: str) -> str:
    return line.replace("warning: ", "").removeprefix("error: ").strip()


def _decided(config: Config, now: float, records: Sequence[Record] | str) -> Finding:
    """Whether the scaler runs, for how long it has, and whether acting would have been worse."""
    if isinstance(records, str):
        return Finding(None, records)
    if not records:
        return Finding(None, "no decision about it is on record; is `tidewise scale` running?")
    silent = now - records[-1].decision.at
    if silent > _longest(config):
        return Finding(None, f"no decision about it was recorded for {length(silent)}; is `tidewise scale` running?")
    found = evidence(records, now, _longest(config))
    known = found.known_seconds if found else 0.0
    if found is None or known < SHORT_PROOF_SECONDS:
        return Finding(None, f"only {length(known)} of decisions are on record; a week tells more")
    worse = found.act.short_seconds - found.ran.short_seconds
    if worse > SHORT_SHARE * known:
        return Finding(None, f"acting would have been short for {length(worse)} more than what ran")
    return Finding(True, f"{length(known)} of decisions are on record")


def _change(options: argparse.Namespace, config: Config, workload: Workload, mode: Mode) -> int:
    """Prints the patch, or makes the change."""
    path: Path = options.config
    before = path.read_bytes()
    bom = "\ufeff" if before.startswith(b"\xef\xbb\xbf") else ""
    text = before.decode("utf-8").removeprefix("\ufeff")
    try:
        after = with_mode(text, config, workload.identity, mode, path)
    except PatchError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.write(diff(bom + text, bom + after, path))
    if options.write:
        _replace(path, before, (bom + after).encode())
        print(f"\n{path}: changed; restart `tidewise scale`, which reads it at its start")
    return 0


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """The file anew, in one step, with its permissions. Raises ConfigError where it cannot be, or was changed."""
    real = path.resolve()
    try:
        status = real.stat()
        file, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
        try:
            with os.fdopen(file, "wb") as fresh:
                fresh.write(after)
                fresh.flush()
                os.fsync(fresh.fileno())
            os.chmod(name, status.st_mode & 0o7777)
            with suppress(PermissionError):  # only root may give a file away; then it is ours from now on
                os.chown(name, status.st_uid, status.st_gid)
            if real.read_bytes() != before:
                raise ConfigError([f"{path}: somebody else changed it meanwhile; ask again"])
            os.replace(name, real)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise ConfigError([f"{path}: cannot be changed ({error.strerror}); apply the patch where it can"]) from None
