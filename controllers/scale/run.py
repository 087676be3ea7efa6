"""`tidewise scale`: observe, decide, apply, once every interval, for every workload of the configuration."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from controllers.actuators import ACTUATORS, Actuator, ActuatorError
from controllers.actuators.shadow import in_shadow
from controllers.budget.client import Client
from controllers.config import Config, ConfigError, Workload, load
from controllers.domain import Forecast, Mode, Money, Reason, Replicas
from controllers.leases import Leader
from controllers.loop import Controller, StepError, Tick, run
from controllers.rules import expressions
from controllers.scale import observe, override_routes
from controllers.scale.decide import decide
from controllers.scale.following.followers import Followers, followers
from controllers.scale.memory import Memory, asked, decided, saw
from controllers.scale.overrides import OverrideError, Overrides
from controllers.scale.publish import Published, Shown, Standing
from controllers.scale.purse import Purse, exists
from controllers.scale.records import Record, RecordError, Records
from controllers.scale.replacements import Replacement, ReplacementError, Replacements, as_told, routes, worked
from controllers.scale.state import Decision, Rules, State
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime import bearer
from exporters.runtime.endpoint import Request, Response, json_response

log = structlog.get_logger()

CLOSE_SECONDS = 5.0  # in all, for giving up floors at an orderly end


def main(argv: list[str]) -> int:
    """`tidewise scale`. Raises ConfigError, EndpointError."""
    parser = argparse.ArgumentParser(
        prog="tidewise scale",
        description="Decides the replicas of every workload, and sets them where its mode is 'act'.",
        epilog="A workload without 'mode' is in shadow: decided and published on /metrics, never touched. "
        "`tidewise why WORKLOAD` explains the last decision.",
    )
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    config = load(parser.parse_args(argv).config)
    return run(build(config, Source(config.prometheus)))


def build(config: Config, source: Source) -> Controller:
    """The controller for the loop. Raises ConfigError for what the files hold, EndpointError."""
    deadline_seconds = max(20.0, 2 * config.scale.interval_seconds)
    try:
        book = Replacements(config.scale.replacements)
        overrides = Overrides(config.scale.overrides)
    except (ReplacementError, OverrideError) as error:
        raise ConfigError([str(error)]) from None
    leader = Leader(config.scale.lease, silence_seconds=3 * deadline_seconds) if config.scale.lease else None
    purse = purse_of(config)
    following = followers(config)
    actuators = {w.identity: actuator_of(w, source, following) for w in config.workloads}
    scaler = Scaler(config, source, actuators, purse, book, leader, overrides)

    def refused(request: Request) -> Response | None:
        answer = bearer.refused(request, config.scale.token_file, "scale.token_file")
        if answer is None and not scaler.may_act():
            return json_response({"error": "another replica of the scaler acts; ask that one"}, 503)
        return answer

    def close() -> None:
        scaler.release(CLOSE_SECONDS)
        following.stop()
        if leader is not None:
            leader.stop()
        if purse is not None:
            purse.close()

    following.start()
    if leader is not None:
        leader.start()
    return Controller(
        name="scale",
        interval_seconds=config.scale.interval_seconds,
        listen=config.scale.listen,
        step=scaler.step,
        collectors=[scaler.published, following.board],
        routes={
            **routes(book, {w.identity: w.mode is Mode.ACT for w in config.workloads}, refused),
            **override_routes.routes(
                overrides,
                {w.identity: override_routes.Steered(w.mode, w.replicas.max) for w in config.workloads},
                scaler.published.decided,
                refused,
            ),
        },
        landing=scaler.published.landing,
        close=close,
        deadline_seconds=deadline_seconds,
    )


def purse_of(config: Config) -> Purse | None:
    """The way to the ledger; None where nothing has a price, or there is no budget that it counts against."""
    budget = config.budget
    if budget is None or not any(w.price for w in config.workloads):
        return None
    hold = budget.replica_hold
    grace_seconds = hold.ttl_seconds + hold.grace_seconds  # so long is what was held last paid for
    return Purse(Client(budget.url, budget.token_file), hold.ttl_seconds, grace_seconds)


def actuator_of(workload: Workload, source: Source, following: Followers) -> Actuator:
    """The workload's actuator; one that touches nothing unless its mode is `act`."""
    kind = workload.target.kind
    if workload.target.publish is not None:
        actuator = following.actuator(workload, source)
    else:
        actuator = ACTUATORS[kind](getattr(workload.target, kind))
    return actuator if workload.mode is Mode.ACT else in_shadow(actuator)


def rules_of(workload: Workload, config: Config) -> Rules:
    """What the configuration says about one workload, as decide() wants it."""
    return Rules(
        workload=workload.identity,
        is_queue=workload.demand.queue is not None,
        min_replicas=workload.replicas.min,
        max_replicas=workload.replicas.max,
        wait_seconds=workload.slo.wait_seconds,
        objective=workload.slo.objective,
        concurrency=workload.capacity.concurrency,
        service_seconds=workload.capacity.service_seconds,
        lead_time_seconds=workload.lead_time_seconds,
        minimum_run_seconds=workload.minimum_run_seconds,
        stabilization_window_seconds=workload.stabilization_window_seconds,
        up_per_minute=workload.limits.up_per_minute,
        down_per_minute=workload.limits.down_per_minute,
        interval_seconds=config.scale.interval_seconds,
        data_age_limit_seconds=config.scale.data_age_limit_seconds,
        mode=workload.mode,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a decision was carried out. `told`: the number that the target heard; None: none."""

    reason: Reason
    told: int | None = None
    detail: str | None = None


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
        self.published = Published()
        self._source = source
        self._actuators = actuators
        self._purse = purse
        self._book = book
        self._leader = leader
        self._overrides = overrides
        self._priced = frozenset(w.identity for w in config.workloads if w.price is not None)
        self._rules = {w.identity: rules_of(w, config) for w in config.workloads}
        self._fallbacks = expressions(config)
        self._records = Records(config.scale.records, config.scale.record_every_seconds, config.scale.record_days)
        self._window = max([60.0, *(rules.stabilization_window_seconds for rules in self._rules.values())])
        self._interval = config.scale.interval_seconds
        self._memory = dict.fromkeys(self._rules, Memory())
        self._knows_past = False
        self._forecasts: dict[str, Forecast] = {}
        self._said: dict[str, str] = {}

    def may_act(self) -> bool:
        """Whether this process may touch targets and ledger now."""
        return self._leader is None or self._leader.may_act()

    def release(self, seconds: float) -> None:
        """At an orderly end: gives up what is held of the targets. What is not given up expires."""
        tick = Tick.starting(seconds)
        for workload, actuator in self._actuators.items():
            if actuator.release is None or not self.may_act():
                continue
            try:
                actuator.release(tick.remaining())
            except (ActuatorError, StepError) as error:
                log.error("not_released", workload=workload, error=str(error))

    def step(self, tick: Tick) -> None:
        """Observes all workloads, decides each, carries out what may be carried out."""
        present, problem = self._read(tick)
        targets = observe.read_targets(self._actuators, tick)
        replicas = {workload: self._replicas(workload, targets[workload], tick) for workload in self._rules}
        money = self._money(replicas, tick)
        steered = self._overrides.in_force(tick.now) if self._overrides else {}
        shown: dict[str, Shown] = {}
        for workload, rules in self._rules.items():
            state = self._state(workload, present, replicas[workload], money.get(workload), tick)
            state = replace(state, overrides=steered.get(workload, ()))
            decision = decide(state, rules)
            outcome = self._carry_out(decision, state, rules, tick)
            self._remember(decision, outcome.told)
            detail = outcome.detail or self._said_of_money(workload, state.money)
            record = Record(state, rules, decision, outcome.reason, detail, outcome.told)
            why = detail or problem or present.problems.get(workload) or _text(targets[workload])
            self._record(record)
            self._tell(record, why)
            shown[workload] = Shown(record, self._memory[workload].lead_time(), why)
        leads = None if self._leader is None else self._leader.may_act()
        silent = None if self._purse is None else self._purse.silent_seconds
        unanswered = None if self._purse is None else self._purse.problem
        unread = None if self._overrides is None else self._overrides.problem
        self.published.replace(shown, Standing(leads, silent, unanswered, unread))
        if self._leader is not None:
            self._leader.worked()

    def _state(
        self, workload: str, present: observe.Present, replicas: Replicas | None, money: Money | None, tick: Tick
    ) -> State:
        memory = self._memory[workload]
        if workload in present.service_seconds:
            memory = replace(memory, service_seconds=present.service_seconds[workload])
            self._memory[workload] = memory
        return State(
            now=tick.now,
            demand=present.demand.get(workload),
            backlog=present.backlog.get(workload),
            service_seconds=memory.service_seconds,
            lead_time=memory.lead_time(),
            replicas=replicas,
            forecast=self._forecasts.get(workload),
            recommendations=memory.recommendations,
            wanted=memory.wanted,
            known_since=memory.known_since,
            money=money,
            replacing=len(self._replacing(workload, replicas, tick)),
            surge=self._surge(workload),
        )

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
            self._note(over)
            active = self._book.active(workload, tick.now)
        return active

    def _note(self, changed: Iterable[Replacement]) -> str | None:
        """The sentence why it could not be noted, or None."""
        try:
            if self._book is not None:
                self._book.note(changed)
        except ReplacementError as error:
            log.error("replacement_not_noted", error=str(error))
            return str(error)
        return None

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
        workloads = list(self._rules)
        present = observe.Present()
        try:
            present = observe.read_present(self._source, self._fallbacks, workloads, tick)
            self._forecasts = observe.read_forecasts(self._source, workloads, tick)
            if not self._knows_past:
                past = observe.read_past(self._source, self._window, self._interval, tick)
                self._memory = {w: self._with_past(m, past.get(w)) for w, m in self._memory.items()}
                self._knows_past = True
        except (SourceError, StepError) as error:
            self.published.source_answered(error.kind)
            return present, str(error)
        self.published.source_answered(None)
        return present, None

    @staticmethod
    def _with_past(memory: Memory, past: observe.Past | None) -> Memory:
        if past is None:
            return memory
        recommendations = (*past.recommendations, *memory.recommendations)
        return replace(
            memory,
            recommendations=recommendations,
            wanted=(*past.wanted, *memory.wanted),
            learned=past.lead_time,
            service_seconds=past.service_seconds,
            known_since=min([r.at for r in recommendations], default=memory.known_since),
        )

    def _replicas(self, workload: str, target: Replicas | str, tick: Tick) -> Replicas | None:
        if isinstance(target, str):
            return None
        self._memory[workload], replicas = saw(self._memory[workload], target, tick.now)
        return replicas

    def _said_of_money(self, workload: str, money: Money | None) -> str | None:
        """Why the ledger did not answer, or would not pay on."""
        if self._purse is None or money is None:
            return None
        return self._purse.problem if money.max_new is None else self._purse.refusals.get(workload)

    def _carry_out(self, decision: Decision, state: State, rules: Rules, tick: Tick) -> Outcome:
        """Tells the target, where that is wanted, needed and paid for."""
        floor = state.replicas.floor if state.replicas else None
        if decision.desired is None or decision.current is None:
            return Outcome(Reason.ALREADY_THERE)
        if decision.desired == decision.current and floor is None:
            if self._actuators[rules.workload].expires and Reason.HOLD in decision.reasons:
                return Outcome(Reason.ALREADY_THERE)  # nothing is known: what was told runs out
            return self._go_on(decision.desired, state, rules, tick)
        if rules.mode is Mode.SHADOW:
            return Outcome(Reason.SHADOW)
        if rules.mode is Mode.RECOMMEND:
            return Outcome(Reason.RECOMMEND)
        if not self.may_act():
            return Outcome(Reason.NOT_LEADER)
        told, reason, detail = decision.desired, Reason.APPLIED, None
        if floor is not None:
            # told each time, for a floor expires; what is held is the floor, not the number its autoscaler has now
            held = {Reason.HOLD, Reason.PAUSED}.intersection(decision.reasons)
            told, reason = (floor if held else told), Reason.FLOOR_TOLD
        try:
            growth = (told - state.replacing) - (decision.current - state.surge)
            if growth > 0 and state.money is not None and self._purse is not None:
                running = exists(state.replicas, state.surge) or 0
                lead = decision.lead_seconds or rules.lead_time_seconds
                taken = self._purse.take(rules.workload, running, growth, lead, tick)
                if taken.granted < growth:
                    told -= growth - taken.granted
                    reason = Reason.BUDGET_UNREACHABLE if taken.silent else Reason.PERMIT_REFUSED
                    detail = taken.said
            if told == decision.current and floor is None:
                return Outcome(reason, None, detail)
            return self._told(rules.workload, told, reason, detail, tick)
        except (ActuatorError, StepError) as error:
            return Outcome(Reason.ACTION_FAILED, None, str(error))

    def _go_on(self, told: int, state: State, rules: Rules, tick: Tick) -> Outcome:
        """What the target heard earlier and has not finished, such as a server that drains: no new action."""
        unfinished = state.replicas is not None and state.replicas.unfinished
        if not unfinished or rules.mode is not Mode.ACT or not self.may_act():
            return Outcome(Reason.ALREADY_THERE)
        try:
            seconds = tick.remaining()
            if self._leader is not None:
                seconds = min(seconds, self._leader.remaining_seconds())
            self._actuators[rules.workload].apply(told, seconds)
        except (ActuatorError, StepError) as error:
            return Outcome(Reason.ACTION_FAILED, None, str(error))
        return Outcome(Reason.ALREADY_THERE)

    def _told(self, workload: str, told: int, reason: Reason, detail: str | None, tick: Tick) -> Outcome:
        """Raises ActuatorError, StepError."""
        seconds = tick.remaining()
        victims: tuple[str, ...] = ()
        before: tuple[Replacement, ...] = ()
        if self._leader is not None:
            seconds = min(seconds, self._leader.remaining_seconds())
        if self._book is not None:
            victims = self._book.victims(workload, tick.now)
            before = (*self._book.active(workload, tick.now), *self._book.surging(workload))
            problem = self._note(as_told(self._book.active(workload, tick.now), self._book.surging(workload)))
            if problem is not None:
                return Outcome(Reason.ACTION_FAILED, None, problem)
        try:
            self._actuators[workload].apply(told, seconds, victims)
        except (ActuatorError, StepError):
            self._note(before)
            raise
        if self._purse is not None:
            self._purse.started(workload)
        return Outcome(reason, told, detail)

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


def _text(target: Replicas | str) -> str | None:
    return target if isinstance(target, str) else None
