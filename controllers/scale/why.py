"""`tidewise why WORKLOAD`: the last decision about it, or the one at a time, in words, from its record."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from controllers.config import Config, load
from controllers.domain import Money, Sample
from controllers.scale.decide import decide
from controllers.scale.meaning import MEANING
from controllers.scale.records import Record, RecordError, as_json, read
from controllers.scale.state import Decision, Rules, State
from exporters.runtime.config import nearest


def main(argv: list[str]) -> int:
    """`tidewise why`: 0 answered, 1 no record, 2 no such workload. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="tidewise why",
        description="Why a workload has the replicas it has: the numbers that went in, the reasons, what bound it.",
        epilog="Example: tidewise why video-analysis --at 2026-11-20T13:25:00Z",
    )
    parser.add_argument("workload", help="name or namespace/name")
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    parser.add_argument("--at", type=_time, help="the decision in force at this time (ISO 8601); default: the last one")
    parser.add_argument("--json", action="store_true", help="the whole record, from which it can be computed again")
    arguments = parser.parse_args(argv)
    config = load(arguments.config)
    workload = config.workload(arguments.workload)
    if workload is None:
        known = [w.identity for w in config.workloads]
        print(
            f"{arguments.config}: no workload '{arguments.workload}'{nearest(arguments.workload, known)}",
            file=sys.stderr,
        )
        return 2
    try:
        record = _in_force(config, workload.identity, arguments.at)
    except RecordError as error:
        print(error, file=sys.stderr)
        return 1
    if record is None:
        print(f"{config.scale.records}: no decision about {workload.identity} yet", file=sys.stderr)
        return 1
    print(as_json(record) if arguments.json else "\n".join(explanation(record)))
    return 0


def _time(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no ISO 8601 time, such as 2026-11-20T13:25:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _in_force(config: Config, workload: str, at: float | None) -> Record | None:
    """The newest record of the workload, not after `at`."""
    found: Record | None = None
    for record in read(config.scale.records, until=at):
        if record.decision.workload == workload:
            found = record
    return found


def explanation(record: Record) -> Iterator[str]:
    """The record in lines of words."""
    decision, state, rules = record.decision, record.state, record.rules
    when = datetime.fromtimestamp(decision.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield f"{decision.workload} at {when}: {_count(decision.current)} -> {_count(decision.desired)} replicas"
    yield ""
    yield "because"
    for reason in dict.fromkeys((*decision.reasons, record.outcome)):
        yield f"  {reason.value:<22} {MEANING[reason]}"
    if record.detail:
        yield f"  {'':<22} {record.detail}"
    if record.told is not None and record.told != decision.desired:
        yield f"  {'':<22} so the target was told {record.told}"
    for change in decision.changes:
        yield f"  {change.reason.value:<22} changed {change.before} to {change.after}"
    yield ""
    yield "from"
    yield from (f"  {name:<22} {value}" for name, value in _inputs(decision, state, rules))
    yield ""
    yield "otherwise"
    yield from (f"  {name:<22} {value}" for name, value in counterfactuals(record))


def _inputs(decision: Decision, state: State, rules: Rules) -> Iterator[tuple[str, str]]:
    yield "demand", _dated(state.demand, state.now, "a second")
    if rules.is_queue:
        yield "backlog", _dated(state.backlog, state.now, "waiting or in hand")
    if state.replicas:
        pending = ", ".join(f"{p.count} since {p.age_seconds:.0f} s" for p in state.replicas.pending)
        yield (
            "replicas",
            f"{state.replicas.ready} ready of {state.replicas.wanted}" + (f", starting {pending}" if pending else ""),
        )
    if decision.service_seconds:
        one = f"{decision.service_seconds:.3g} s a piece, {rules.concurrency} at a time"
        yield "one replica", f"{one} ({'learned' if state.service_seconds else 'configured'})"
    if decision.lead_seconds is not None and decision.window_seconds is not None:
        window = f"{decision.lead_seconds:.0f} s to {decision.lead_seconds + decision.window_seconds:.0f} s from then"
        yield "window", f"{window} (lead time {'learned' if state.lead_time else 'configured'})"
    if decision.rate_expected is not None and decision.rate_upper is not None:
        yield (
            "demand at its end",
            f"{decision.rate_expected:.2f} a second expected, {decision.rate_upper:.2f} to be safe",
        )
    if state.forecast:
        gate = "open" if state.forecast.gate_open else "closed"
        yield "forecast", f"made {state.now - state.forecast.made_at:.0f} s before, gate {gate}"
    else:
        yield "forecast", "none"
    if state.money is not None:
        yield "money", _money(state.money)
    if state.replacing:
        yield "being replaced", f"{state.replacing}, of which the target's number holds {state.surge}"
    yield "slo", f"{rules.objective:.1%} wait at most {rules.wait_seconds:g} s"
    yield "bounds", f"{rules.min_replicas} to {rules.max_replicas}"


def _money(money: Money) -> str:
    if money.max_new is None:
        return f"the ledger has been silent for {money.silent_seconds:.0f} s (grace {money.grace_seconds:.0f} s)"
    refused = f", {money.refused} refused" if money.refused else ""
    return f"{money.paid} replicas paid for{refused}, {money.max_new} more would be admitted"


def counterfactuals(record: Record) -> Iterator[tuple[str, str]]:
    """What the same decide() says with one thing taken away."""
    state, rules = record.state, record.rules
    yield "without forecast", _count(decide(replace(state, forecast=None), rules).desired)
    if state.money is not None:
        yield "without budget", _count(decide(replace(state, money=None), rules).desired)
    yield "without stabilisation", _count(decide(state, replace(rules, stabilization_window_seconds=0.0)).desired)


def _dated(sample: Sample | None, now: float, unit: str) -> str:
    return "unknown" if sample is None else f"{sample.value:.2f} {unit}, measured {now - sample.at:.0f} s before"


def _count(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def same_decision(record: Record) -> bool:
    """Whether the decision follows from its record: what makes a record worth keeping."""
    return decide(record.state, record.rules) == record.decision
