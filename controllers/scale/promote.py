"""`tidewise promote WORKLOAD`: what acting would have come to, whether it can begin, and the change that begins it."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

from controllers import check
from controllers.actuators import ACTUATORS, ActuatorError
from controllers.config import Config, Workload, load
from controllers.domain import Mode
from controllers.scale.evidence import Evidence, Side, evidence
from controllers.scale.moments import length, spoken, zone_of
from controllers.scale.patch import PatchError, diff, with_mode
from controllers.scale.records import Record, RecordError, backwards
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime.config import ConfigError

DAY = 86_400.0
TARGET_SECONDS = 10.0
SHORT_PROOF_SECONDS = DAY
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
        print("\n".join(_proof(config, workload, now, options.days)))
        print()
        if mode is Mode.ACT:
            findings = list(preconditions(config, workload, now))
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
        epilog="The change is a patch: tidewise promote video-analysis | patch -p0. With --write it is made here.",
    )
    parser.add_argument("workload", help="name or namespace/name")
    parser.add_argument("--to", choices=[mode.value for mode in Mode], default=Mode.ACT.value, help="default: act")
    parser.add_argument("--days", type=_days, default=14.0, metavar="N", help="of history to look at (default: 14)")
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


def _proof(config: Config, workload: Workload, now: float, days: float) -> Iterator[str]:
    """What the records say of the last so many days."""
    try:
        records = _records(config, workload.identity, now - days * DAY)
    except RecordError as error:
        yield f"what acting would have come to is not known: {error}"
        return
    found = evidence(records, now, _longest(config))
    if found is None or found.known_seconds <= 0:
        yield f"what acting would have come to is not known: {len(records)} decisions in {days:g} days; let it run on"
        return
    yield from told(found, workload, zone_of(workload, config))


def _records(config: Config, identity: str, since: float) -> list[Record]:
    """Oldest first. Raises RecordError."""
    found = takewhile(lambda record: record.decision.at >= since, backwards(config.scale.records, identity))
    return sorted(found, key=lambda record: record.decision.at)


def _longest(config: Config) -> float:
    """How long a record speaks for: until the next is due, and a little."""
    return 1.5 * max(config.scale.record_every_seconds, config.scale.interval_seconds) + 60.0


def told(found: Evidence, workload: Workload, zone: ZoneInfo) -> Iterator[str]:
    """The evidence as a table."""
    span = f"{spoken(found.since, zone)} to {spoken(found.until, zone)}"
    unknown = f", {length(found.unknown_seconds)} of it unknown" if found.unknown_seconds >= 60 else ""
    yield f"{workload.identity}, {span}{unknown}, from its decisions"
    rows = [("", "what ran", "acting"), *_compared(found, workload)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        yield f"  {row[0].ljust(widths[0])}  {row[1].rjust(widths[1])}  {row[2].rjust(widths[2])}"
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


def preconditions(config: Config, workload: Workload, now: float) -> Iterator[Finding]:
    """What has to be so before it may act."""
    yield from _measured(config, workload, now)
    yield _target(workload)
    yield from _decided(config, workload, now)
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


def _target(workload: Workload) -> Finding:
    kind = workload.target.kind
    if kind == "publish":
        return Finding(True, "the target is a published number: whoever follows it acts")
    try:
        replicas = ACTUATORS[kind](getattr(workload.target, kind)).read_replicas(TARGET_SECONDS)
    except ActuatorError as error:
        return Finding(False, f"the target cannot be read: {error}")
    return Finding(True, f"the target ({kind}) answers: {replicas.ready} ready of {replicas.wanted}")


def _decided(config: Config, workload: Workload, now: float) -> Iterator[Finding]:
    """Whether the scaler runs, and for how long it has."""
    try:
        records = _records(config, workload.identity, now - 14 * DAY)
    except RecordError as error:
        yield Finding(None, str(error))
        return
    if not records or now - records[-1].decision.at > _longest(config):
        since = f"for {length(now - records[-1].decision.at)}" if records else "within 14 days"
        yield Finding(None, f"no decision about it was recorded {since}; is `tidewise scale` running?")
        return
    found = evidence(records, now, _longest(config))
    known = found.known_seconds if found else 0.0
    if found is None or known < SHORT_PROOF_SECONDS:
        yield Finding(None, f"only {length(known)} of decisions are on record; a week tells more")
        return
    yield Finding(True, f"{length(known)} of decisions are on record")
    worse = found.act.short_seconds - found.ran.short_seconds
    if worse > SHORT_SHARE * known:
        yield Finding(None, f"acting would have been short for {length(worse)} more than what ran")


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
