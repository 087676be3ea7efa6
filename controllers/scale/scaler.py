"""One step of the scaler over all workloads: observe, learn, decide, carry out, record, publish."""

from collections.abc import Mapping
from dataclasses import replace

import structlog

from controllers.actuators import Actuator
from controllers.config import Config
from controllers.domain import Forecast, Mode, Money, Override, Reason, Replicas
from controllers.leases import Leader
from controllers.loop import StepError, Tick
from controllers.rules import expressions
from controllers.scale import observe
from controllers.scale.capacity import Learned, Seen, learn, recalled
from controllers.scale.carry_out import Teller
from controllers.scale.configured import cheap_of, floors_of, rules_of
from controllers.scale.decide import decide
from controllers.scale.memory import Memory, asked, decided, saw, started_by
from controllers.scale.overrides import Overrides
from controllers.scale.publish import Published, Shown, Standing
from controllers.scale.purse import Purse, exists
from controllers.scale.records import Record, RecordError, Records
from controllers.scale.replacements import Replacement, Replacements, worked
from controllers.scale.schedule import Timetable
from controllers.scale.state import Decision, Rules, Signal, State
from controllers.sources.prometheus import Source, SourceError

MOST_CHEAP_SECONDS = 7 * 86_400.0  # ahead, of cheap hours: who plans further learns nothing new
MOST_PAST_SECONDS = 6 * 3600.0  # of our own history that is read back at the start

log = structlog.get_logger()


class Scaler:
    """The state between two steps, and the step itself."""

    def __init__(
        self,
        config: Config,
        source: Source,
        actuators: Mapping[str, Actuator],
        purse: Purse | None = None,
        book: Replacements | None = None,
        leader: Leader | None = None,
        overrides: Overrides | None = None,
    ) -> None:
        currencies = {w.identity: w.price.per_replica_hour.currency for w in config.workloads if w.price is not None}
        self.published = Published(currencies)
        self._source = source
        self._actuators = actuators
        self._purse = purse
        self._book = book
        self._leader = leader
        self._overrides = overrides
        self._priced = frozenset(currencies)
        self._rules = {w.identity: rules_of(w, config) for w in config.workloads}
        self._names = [signal.identity for signal in config.signals()]
        self._floors = {w.identity: floors_of(w, config) for w in config.workloads}
        self._cheap = {w.identity: cheap_of(w, config) for w in config.workloads}
        self._in_hand = {w.identity: w.in_hand for w in config.workloads if w.in_hand is not None}
        self._timetable = Timetable()
        self._fallbacks = expressions(config)
        self._records = Records(config.scale.records, config.scale.record_every_seconds, config.scale.record_days)
        windows = (
            seconds
            for r in self._rules.values()
            for seconds in (r.stabilization_window_seconds, r.minimum_run_seconds, r.lead_time_seconds)
        )
        self._window = min(MOST_PAST_SECONDS, max([60.0, *windows]))
        self._interval = config.scale.interval_seconds
        self._teller = Teller(actuators, purse, book, leader, self._read_in_hand, self._interval)
        self._memory = {name: Memory(more=(Learned(),) * len(rules.more)) for name, rules in self._rules.items()}
        self._knows_past = False
        self._forecasts: dict[str, Forecast] = {}
        self._doubts: dict[str, Reason | None] = {}
        self._said: dict[str, str] = {}

    def may_act(self) -> bool:
        """Whether this process may touch targets and ledger now."""
        return self._teller.may_act()

    def release(self, seconds: float) -> None:
        """At an orderly end: gives up what is held of the targets. What is not given up expires."""
        self._teller.release(seconds)

    def step(self, tick: Tick) -> None:
        """Observes all workloads, decides each, carries out what may be carried out."""
        present, problem = self._read(tick)
        self._doubts = {name: observe.doubt(present, name, self._doubts.get(name)) for name in self._names}
        targets = observe.read_targets(self._actuators, tick)
        replicas = {workload: self._replicas(workload, targets[workload], tick) for workload in self._rules}
        money = self._money(replicas, tick)
        steered = self._overrides.in_force(tick.now) if self._overrides else {}
        shown: dict[str, Shown] = {}
        for workload, rules in self._rules.items():
            self._learn(rules, present, replicas[workload], tick)
            state = self._state(
                rules, present, replicas[workload], money.get(workload), steered.get(workload, ()), tick
            )
            decision = decide(state, rules)
            outcome = self._teller.carry_out(decision, state, rules, tick)
            self._remember(decision, outcome.told)
            detail = outcome.detail or self._said_of_money(workload, state.money)
            record = Record(state, rules, decision, outcome.reason, detail, outcome.told)
            target = targets[workload]
            why = detail or problem or present.problems.get(workload) or (target if isinstance(target, str) else None)
            self._record(record)
            self._tell(record, why)
            shown[workload] = Shown(record, self._memory[workload].lead_time(), why, outcome.retry_seconds)
        self.published.replace(shown, self._standing())
        if self._leader is not None:
            self._leader.worked()

    def _standing(self) -> Standing:
        return Standing(
            None if self._leader is None else self._leader.may_act(),
            None if self._purse is None else self._purse.silent_seconds,
            None if self._purse is None else self._purse.problem,
            None if self._overrides is None else self._overrides.problem,
        )

    def _learn(self, rules: Rules, present: observe.Present, replicas: Replicas | None, tick: Tick) -> None:
        """What this look teaches of the capacity of a replica. Old measurements teach nothing."""
        memory = self._memory[rules.workload]
        ready = replicas.ready if replicas else None

        def seen(name: str) -> Seen:
            demand = present.demand.get(name)
            if demand is None or tick.now - demand.at > rules.data_age_limit_seconds:
                return Seen(tick.now, ready)
            return Seen(
                tick.now,
                ready,
                present.throughput.get(name),
                present.service_seconds.get(name),
                present.backlog[name].value if name in present.backlog else None,
                shared=bool(rules.more),
            )

        self._memory[rules.workload] = replace(
            memory,
            capacity=learn(memory.capacity, seen(rules.workload), rules.concurrency),
            more=tuple(
                learn(known, seen(signal.name), signal.concurrency)
                for known, signal in zip(memory.more, rules.more, strict=True)
            ),
        )

    def _state(
        self,
        rules: Rules,
        present: observe.Present,
        replicas: Replicas | None,
        money: Money | None,
        overrides: tuple[Override, ...],
        tick: Tick,
    ) -> State:
        workload = rules.workload
        memory = self._memory[workload]
        lead = memory.lead_time()
        own = self._signal(workload, memory.capacity, present)
        return State(
            now=tick.now,
            demand=own.demand,
            backlog=own.backlog,
            service_seconds=own.service_seconds,
            lead_time=lead,
            replicas=replicas,
            forecast=own.forecast,
            recommendations=memory.recommendations,
            answers=memory.answers,
            wanted=memory.wanted,
            known_since=memory.known_since,
            money=money,
            doubt=own.doubt,
            concurrency=own.concurrency,
            oldest_age_seconds=own.oldest_age_seconds,
            start_seconds=lead.median if lead is not None and rules.start_seconds is None else None,
            bound=memory.capacity.bound.replicas if memory.capacity.bound else None,
            started=memory.started,
            schedule_floor=self._schedule_floor(rules, memory, tick.now),
            overrides=overrides,
            cheap=self._cheap_hours(rules, tick.now),
            more=tuple(
                self._signal(signal.name, known, present) for known, signal in zip(memory.more, rules.more, strict=True)
            ),
            replacing=len(self._replacing(workload, replicas, tick)),
            surge=self._surge(workload),
        )

    def _signal(self, name: str, learned: Learned, present: observe.Present) -> Signal:
        return Signal(
            demand=present.demand.get(name),
            backlog=present.backlog.get(name),
            service_seconds=learned.service_seconds,
            concurrency=learned.concurrency,
            oldest_age_seconds=present.oldest_age_seconds.get(name),
            forecast=self._forecasts.get(name),
            doubt=self._doubts.get(name),
        )

    def _schedule_floor(self, rules: Rules, memory: Memory, now: float) -> int | None:
        """Of the hours that a replica asked for now would still see begin, or that are on."""
        floors = self._floors[rules.workload]
        if not floors:
            return None
        lead = memory.lead_time()
        slow, spread = (lead.high, lead.high - lead.median) if lead else (rules.lead_time_seconds, 0.0)
        return self._timetable.floor(floors, now, now + slow + spread + 2 * rules.interval_seconds)

    def _cheap_hours(self, rules: Rules, now: float) -> tuple[tuple[float, float], ...]:
        deadlines = [d for d in (rules.deadline_seconds, *(more.deadline_seconds for more in rules.more)) if d]
        cheap = self._cheap[rules.workload]
        if not cheap or not deadlines:
            return ()
        return self._timetable.windows(cheap, now, now + min(MOST_CHEAP_SECONDS, max(deadlines)))

    def _surge(self, workload: str) -> int:
        return len(self._book.surging(workload)) if self._book else 0

    def _replacing(self, workload: str, replicas: Replicas | None, tick: Tick) -> tuple[Replacement, ...]:
        """The replacements in force, once those whose replacement works are noted as over."""
        if self._book is None or self._rules[workload].mode is not Mode.ACT:
            return ()
        active = self._book.active(workload, tick.now)
        if active and replicas is not None:
            lead = self._memory[workload].lead_time()
            lead_seconds = lead.high if lead else self._rules[workload].lead_time_seconds
            over = worked(active, replicas.ready, replicas.wanted, tick.now, lead_seconds + 2 * self._interval)
            self._teller.note(over)
            active = self._book.active(workload, tick.now)
        return active

    def _money(self, replicas: Mapping[str, Replicas | None], tick: Tick) -> dict[str, Money]:
        """What the ledger says of every priced workload; in the same turn holds are renewed and given up."""
        if self._purse is None:
            return {}
        running = {workload: exists(replicas[workload], self._surge(workload)) for workload in self._priced}
        return self._purse.look(running, tick, acting=self.may_act())

    def _read(self, tick: Tick) -> tuple[observe.Present, str | None]:
        """Present demand, forecasts and, once, our own past.

        What was read before Prometheus fell silent counts; the last forecasts stay.
        """
        present: observe.Present | None = None
        try:
            present = observe.read_present(self._source, self._fallbacks, self._names, tick)
            self._forecasts = observe.read_forecasts(self._source, self._names, tick, self._forecasts)
            if not self._knows_past:
                past = observe.read_past(self._source, self._window, self._interval, tick)
                self._memory = {w: with_past(m, self._rules[w], past, tick.now) for w, m in self._memory.items()}
                self._knows_past = True
        except (SourceError, StepError) as error:
            self.published.source_answered(error.kind)
            silent = observe.Present(source_down=isinstance(error, SourceError))
            return present or silent, str(error)
        self.published.source_answered(None)
        return present, None

    def _read_in_hand(self, workload: str, tick: Tick) -> Mapping[str, float] | None:
        expr = self._in_hand.get(workload)
        return None if expr is None else observe.read_in_hand(self._source, expr, tick)

    def _replicas(self, workload: str, target: Replicas | str, tick: Tick) -> Replicas | None:
        if isinstance(target, str):
            return None
        self._memory[workload], replicas = saw(self._memory[workload], target, tick.now, self._interval)
        return replicas

    def _said_of_money(self, workload: str, money: Money | None) -> str | None:
        """Why the ledger did not answer, or would not pay on."""
        if self._purse is None or money is None:
            return None
        return self._purse.problem if money.max_new is None else self._purse.refusals.get(workload)

    def _remember(self, decision: Decision, told: int | None) -> None:
        memory, rules = self._memory[decision.workload], self._rules[decision.workload]
        if told is not None and decision.current is not None:
            memory = asked(memory, told - decision.current, decision.at)
        self._memory[decision.workload] = decided(memory, decision, told, rules.stabilization_window_seconds)

    def _record(self, record: Record) -> None:
        try:
            self._records.write(record)
        except RecordError as error:  # a full disk must not stop the scaling; it is said, and `why` will have a gap
            log.error("record_not_written", error=str(error))

    def _tell(self, record: Record, why: str | None) -> None:
        """One log line when something changed: the number, the reasons, or how it was carried out."""
        decision = record.decision
        text = f"{decision.desired} {decision.reasons} {record.outcome} {why}"
        if self._said.get(decision.workload) == text:
            return
        self._said[decision.workload] = text
        write = log.warning if why else log.info
        write(
            "recommended" if record.outcome is Reason.RECOMMEND else "decided",
            workload=decision.workload,
            current=decision.current,
            ready=decision.ready,
            desired=decision.desired,
            reasons=[reason.value for reason in decision.reasons],
            outcome=record.outcome.value,
            problem=why,
        )


def with_past(memory: Memory, rules: Rules, past: Mapping[str, observe.Past], now: float) -> Memory:
    """`memory` with what an earlier run had published. What was learned since this one's start comes after it."""

    def known(name: str, learned: Learned) -> Learned:
        found = past.get(name)
        return recalled(found.service_seconds, found.concurrency, found.bound, now) if found else learned

    own = past.get(rules.workload, observe.Past())
    recommendations, wanted = (*own.recommendations, *memory.recommendations), (*own.wanted, *memory.wanted)
    lately = any(now - r.at <= max(60.0, rules.stabilization_window_seconds) for r in recommendations)
    return replace(
        memory,
        recommendations=recommendations,
        wanted=wanted,
        answers=(*own.answers, *memory.answers),
        started=started_by(wanted),
        learned=own.lead_time or memory.learned,
        known_since=min(r.at for r in recommendations) if lately else memory.known_since,
        capacity=known(rules.workload, memory.capacity),
        more=tuple(known(signal.name, learned) for signal, learned in zip(rules.more, memory.more, strict=True)),
    )
