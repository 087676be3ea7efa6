"""A decision record in words: the numbers that went in, the reasons, what bound it, and what would be otherwise."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, tzinfo

from controllers.domain import Money, Override, Reason, Replicas, Sample
from controllers.scale.ahead import correction
from controllers.scale.decide import decide
from controllers.scale.meaning import MEANING
from controllers.scale.moments import length
from controllers.scale.records import Record
from controllers.scale.state import Decision, Rules, Signal, SignalRules, State

WIDTH = 22
Line = tuple[str, str]


def explanation(record: Record, zone: tzinfo = UTC) -> Iterator[str]:
    """The record in lines of words; times in `zone`."""
    decision, state, rules = record.decision, record.state, record.rules
    yield f"{decision.workload} at {_time(decision.at, zone)}: {_step(decision)} replicas"
    yield ""
    yield "because"
    for reason in dict.fromkeys((*decision.reasons, record.outcome)):
        yield _line(reason.value, MEANING[reason])
    if record.detail:
        yield _line("", record.detail)
    if record.told is not None and record.told != decision.desired:
        yield _line("", f"so the target was told {record.told}")
    for change in decision.changes:
        yield _line(change.reason.value, f"changed {change.before} to {change.after}")
    yield ""
    yield "from"
    yield from (_line(name, value) for name, value in inputs(decision, state, rules, zone))
    yield ""
    yield "otherwise"
    yield from (_line(name, value) for name, value in counterfactuals(record))


def inputs(decision: Decision, state: State, rules: Rules, zone: tzinfo) -> Iterator[Line]:
    """What the decision was made from."""
    yield "demand", _dated(state.demand, state.now, "a second")
    if rules.is_queue:
        yield "backlog", _dated(state.backlog, state.now, "waiting or in hand")
    if state.oldest_age_seconds is not None:
        yield "oldest work waits", length(state.oldest_age_seconds)
    if state.replicas:
        yield from _replicas(state.replicas)
    if decision.service_seconds:
        yield "one replica", _capacity(decision.service_seconds, state, rules)
    if state.bound is not None:
        yield "bound", f"beyond {state.bound} replicas throughput did not grow"
    if decision.lead_seconds is not None and decision.window_seconds is not None:
        window = f"{decision.lead_seconds:.0f} s to {decision.lead_seconds + decision.window_seconds:.0f} s from then"
        yield "window", f"{window} (lead time {'learned' if state.lead_time else 'configured'})"
    if decision.rate_expected is not None and decision.rate_upper is not None:
        expected = f"{decision.rate_expected:.2f} a second expected, {decision.rate_upper:.2f} to be safe"
        yield "demand at its end", expected
    if state.forecast:
        gate = "open" if state.forecast.gate_open else "closed"
        made = f"made {state.now - state.forecast.made_at:.0f} s before, gate {gate}"
        if Reason.FORECAST_CORRECTED in decision.reasons:
            made += f"; scaled by {correction(state.forecast, state.demand):.3g}"
        yield "forecast", made
    else:
        yield "forecast", "none"
    for signal, asked in zip(state.more, rules.more, strict=False):
        yield f"also {asked.name.rpartition('/')[2]}", "; ".join(_further(signal, asked, state.now))
    if decision.signal is not None:
        yield "rests on", f"the demand {decision.signal.rpartition('/')[2]}, which needs most"
    yield from _people(state, zone)
    yield from _worth(state, rules, zone)
    yield "slo", promise(rules.deadline_seconds, rules.objective, rules.wait_seconds)
    yield "bounds", f"{rules.min_replicas} to {rules.max_replicas}"


def counterfactuals(record: Record) -> Iterator[Line]:
    """What the same decide() says with one thing taken away."""
    state, rules = record.state, record.rules

    def would(state: State, rules: Rules = rules) -> str:
        return _count(decide(state, rules).desired)

    blind = tuple(replace(signal, forecast=None) for signal in state.more)
    yield "without forecast", would(replace(state, forecast=None, more=blind))
    if state.money is not None:
        yield "without budget", would(replace(state, money=None))
    yield "without stabilisation", would(state, replace(rules, stabilization_window_seconds=0.0))
    if state.overrides:
        yield "without overrides", would(replace(state, overrides=()))
    if state.schedule_floor is not None:
        yield "without the schedule", would(replace(state, schedule_floor=None))


def same_decision(record: Record) -> bool:
    """Whether the decision follows from its record: what makes a record worth keeping."""
    return decide(record.state, record.rules) == record.decision


def changes(records: Iterable[Record], count: int) -> Iterator[Record]:
    """The last `count` of records at which the number, or how it was carried out, changed; newest first.

    `records`: newest first.
    """
    newer: Record | None = None
    for record in records:
        if newer is not None and _number(record) != _number(newer):
            yield newer
            count -= 1
            if count <= 0:
                return
        newer = record
    if newer is not None:
        yield newer


def history(records: Iterable[Record], zone: tzinfo = UTC) -> list[str]:
    """Records as a table, one a line, in the order given."""
    rows = [("when", "replicas", "told", "carried out", "reasons")]
    for record in records:
        decision = record.decision
        told = "-" if record.told is None else str(record.told)
        reasons = ", ".join(reason.value for reason in decision.reasons)
        rows.append((_time(decision.at, zone), _step(decision), told, record.outcome.value, reasons))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def promise(deadline_seconds: float | None, objective: float, wait_seconds: float) -> str:
    """What was promised about the work."""
    if deadline_seconds is not None:
        return f"done within {length(deadline_seconds)} of its arrival"
    return f"{objective:.1%} wait at most {wait_seconds:g} s"


def override_words(one: Override, zone: tzinfo) -> str:
    """+5 until 2026-11-20 21:00:00 KST, by ann@desk: launch."""
    what = f"+{one.surge}" if one.pause is None else f"no change {_WAYS[one.pause.value]}"
    return f"{what} until {_time(one.until, zone)}, by {one.by}" + (f": {one.note}" if one.note else "")


_WAYS = {"up": "upwards", "down": "downwards", "both": "at all"}


def _number(record: Record) -> tuple[object, ...]:
    return record.decision.desired, record.outcome, record.told


def _replicas(replicas: Replicas) -> Iterator[Line]:
    pending = ", ".join(f"{p.count} since {p.age_seconds:.0f} s" for p in replicas.pending)
    starting = f", starting {pending}" if pending else ""
    yield "replicas", f"{replicas.ready} ready of {replicas.wanted}{starting}{_draining(replicas.draining)}"
    for part in replicas.parts:
        yield f"  in {part.name}", f"{part.ready} ready of {part.wanted}{_draining(part.draining)}"
    if replicas.floor is not None:
        yield "own autoscaler", f"its minimum is {replicas.floor} now; that is what is told"
    if replicas.unfinished:
        yield "unfinished", "what was told last is still being carried out"


def _draining(count: int) -> str:
    return f", {count} draining" if count else ""


def _people(state: State, zone: tzinfo) -> Iterator[Line]:
    for one in state.overrides:
        yield "override", override_words(one, zone)
    if state.schedule_floor is not None:
        yield "schedule", f"at least {state.schedule_floor}"
    if state.replacing:
        yield "being replaced", f"{state.replacing}, of which the target's number holds {state.surge}"


def _worth(state: State, rules: Rules, zone: tzinfo) -> Iterator[Line]:
    """Money: the ledger's word, prices, cheaper hours."""
    if state.money is not None:
        yield "money", _money(state.money)
    if rules.price_per_replica_hour is not None and rules.price_per_late_job is not None:
        prices = f"{rules.price_per_replica_hour:g} a replica and hour, {rules.price_per_late_job:g} a late job"
        yield "price", prices
    if state.cheap:
        spans = ", ".join(f"{_time(begin, zone)} to {_time(end, zone)}" for begin, end in state.cheap[:3])
        yield "cheaper hours", spans + (f" and {len(state.cheap) - 3} more" if len(state.cheap) > 3 else "")


def _further(signal: Signal, asked: SignalRules, now: float) -> Iterator[str]:
    """One further demand of the same replicas."""
    yield _dated(signal.demand, now, "a second")
    if asked.is_queue:
        yield f"backlog {_dated(signal.backlog, now, 'waiting or in hand')}"
    seconds = signal.service_seconds or asked.service_seconds
    if seconds is not None:
        at_once = asked.concurrency if signal.concurrency is None else signal.concurrency
        yield f"{_pieces(seconds, signal.service_seconds)}, {at_once:.3g} at a time ({_known(signal.concurrency)})"
    yield "with a forecast" if signal.forecast else "no forecast"
    yield promise(asked.deadline_seconds, asked.objective, asked.wait_seconds)


def _capacity(seconds: float, state: State, rules: Rules) -> str:
    at_once = rules.concurrency if state.concurrency is None else state.concurrency
    words = f"{_pieces(seconds, state.service_seconds)}, {at_once:.3g} at a time ({_known(state.concurrency)})"
    start = rules.start_seconds if state.start_seconds is None else state.start_seconds
    return words if start is None else f"{words}; a start costs {start:.3g} s ({_known(state.start_seconds)})"


def _pieces(seconds: float, learned: float | None) -> str:
    return f"{seconds:.3g} s a piece ({_known(learned)})"


def _known(learned: float | None) -> str:
    return "configured" if learned is None else "learned"


def _money(money: Money) -> str:
    if money.max_new is None:
        return f"the ledger has been silent for {money.silent_seconds:.0f} s (grace {money.grace_seconds:.0f} s)"
    refused = f", {money.refused} refused" if money.refused else ""
    return f"{money.paid} replicas paid for{refused}, {money.max_new} more would be admitted"


def _dated(sample: Sample | None, now: float, unit: str) -> str:
    return "unknown" if sample is None else f"{sample.value:.2f} {unit}, measured {now - sample.at:.0f} s before"


def _step(decision: Decision) -> str:
    return f"{_count(decision.current)} -> {_count(decision.desired)}"


def _line(name: str, value: str) -> str:
    return f"  {name:<{WIDTH}} {value}"


def _time(at: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def _count(number: int | None) -> str:
    return "unknown" if number is None else str(number)
