"""`tidewise scale`: observe, decide, apply, once every interval, for every workload of the configuration."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from controllers.actuators import ACTUATORS, Actuator, ActuatorError
from controllers.actuators.shadow import in_shadow
from controllers.config import Config, Workload, load
from controllers.domain import Forecast, Mode, Reason, Replicas
from controllers.loop import Controller, StepError, Tick, run
from controllers.rules import expressions
from controllers.scale import observe
from controllers.scale.decide import Decision, Rules, State, decide
from controllers.scale.memory import Memory, asked, decided, saw
from controllers.scale.publish import Published, Shown
from controllers.scale.records import Record, RecordError, Records
from controllers.sources.prometheus import Source, SourceError

log = structlog.get_logger()


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
    """The controller for the loop."""
    scaler = Scaler(config, source, {w.identity: actuator_of(w) for w in config.workloads})
    return Controller(
        name="scale",
        interval_seconds=config.scale.interval_seconds,
        listen=config.scale.listen,
        step=scaler.step,
        collectors=[scaler.published],
        landing=scaler.published.landing,
        deadline_seconds=max(20.0, 2 * config.scale.interval_seconds),
    )


def actuator_of(workload: Workload) -> Actuator:
    """The workload's actuator; one that touches nothing unless its mode is `act`."""
    kind = workload.target.kind
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


class Scaler:
    """The state between two steps, and the step itself."""

    def __init__(self, config: Config, source: Source, actuators: Mapping[str, Actuator]) -> None:
        self.published = Published()
        self._source = source
        self._actuators = actuators
        self._rules = {w.identity: rules_of(w, config) for w in config.workloads}
        self._fallbacks = expressions(config)
        self._records = Records(config.scale.records, config.scale.record_every_seconds)
        self._window = max([60.0, *(rules.stabilization_window_seconds for rules in self._rules.values())])
        self._interval = config.scale.interval_seconds
        self._memory = dict.fromkeys(self._rules, Memory())
        self._knows_past = False
        self._forecasts: dict[str, Forecast] = {}
        self._said: dict[str, str] = {}

    def step(self, tick: Tick) -> None:
        """Observes all workloads, decides each, carries out what may be carried out."""
        present, problem = self._read(tick)
        targets = observe.read_targets(self._actuators, tick)
        shown: dict[str, Shown] = {}
        for workload, rules in self._rules.items():
            replicas = self._replicas(workload, targets[workload], tick)
            memory = self._memory[workload]
            if workload in present.service_seconds:
                memory = replace(memory, service_seconds=present.service_seconds[workload])
                self._memory[workload] = memory
            state = State(
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
            )
            decision = decide(state, rules)
            outcome, detail = self._carry_out(decision, rules, tick)
            self._remember(decision, outcome)
            record = Record(state, rules, decision, outcome, detail)
            why = detail or problem or present.problems.get(workload) or _text(targets[workload])
            self._record(record)
            self._tell(record, why)
            shown[workload] = Shown(record, self._memory[workload].lead_time(), why)
        self.published.replace(shown)

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

    def _carry_out(self, decision: Decision, rules: Rules, tick: Tick) -> tuple[Reason, str | None]:
        """Tells the target, where that is wanted and needed."""
        if decision.desired is None or decision.desired == decision.current:
            return Reason.ALREADY_THERE, None
        if rules.mode is Mode.SHADOW:
            return Reason.SHADOW, None
        if rules.mode is Mode.RECOMMEND:
            return Reason.RECOMMEND, None
        try:
            self._actuators[rules.workload].apply(decision.desired, tick.remaining())
        except (ActuatorError, StepError) as error:
            return Reason.ACTION_FAILED, str(error)
        return Reason.APPLIED, None

    def _remember(self, decision: Decision, outcome: Reason) -> None:
        memory, rules = self._memory[decision.workload], self._rules[decision.workload]
        told = decision.desired if outcome is Reason.APPLIED else None
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
            "decided",
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
