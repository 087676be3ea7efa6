"""What to do next about one instance: state and rules in, decision out. No client, clock, environment or log.

    symptom ─▶ known? ─▶ verification ─▶ step of the ladder ─▶ what holds it back ─▶ mode ─▶ next

The order is the safety: what is unknown freezes before anything else is looked at, a failed verification is the only
way to a later step, and the mode is asked last, so that `shadow` shows what `act` would do.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from controllers.domain import Mode
from controllers.recovery.operation import (
    DESTRUCTIVE,
    HOUR_SECONDS,
    Attempt,
    Health,
    Limits,
    Next,
    Operation,
    Reason,
    Result,
    Step,
)

FEWEST_GOOD_READINGS = 3
FINE_PEERS_RATIO = 0.51
UNKNOWN_TOLD_SECONDS = 60.0  # with nothing being mended, a source that restarts is not worth a page
FEWEST_FOR_BREAKER = 3  # in smaller groups "most of them" is one or two, and the group limit goes one by one

# A person has to hear of these even while no operation ends in a page.
_ALARMING = frozenset({Next.PAGE, Next.SUGGEST, Next.FREEZE})


@dataclass(frozen=True, slots=True)
class Rules:
    """What was configured for one target, as far as a decision needs it. `ladders`: by symptom, ending in a page."""

    target: str
    ladders: Mapping[str, tuple[Step, ...]]
    alerts: Mapping[str, str]  # by symptom
    mode: Mode = Mode.SHADOW
    destructive_mode: Mode = Mode.RECOMMEND
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Peers:
    """The target's other instances in this reading."""

    healthy: int = 0
    sick: int = 0
    unknown: int = 0

    @property
    def all(self) -> int:
        return self.healthy + self.sick + self.unknown


@dataclass(frozen=True, slots=True)
class Watch:
    """How long one instance has been seen healthy without a gap. `relapsed`: it was, and now is sick again."""

    good_since: float | None = None
    readings: int = 0
    relapsed: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """What the journal says about the last hour, this operation included where it says so."""

    recurrences: int = 0  # of this instance's symptom: earlier operations, and relapses of any
    attempts: tuple[float, ...] = ()  # when this instance's attempts ended, oldest first, of this operation too
    replacements: int = 0  # of any instance of the target


@dataclass(frozen=True, slots=True)
class State:
    """Everything a decision may depend on besides the rules. None is unknown."""

    now: float
    instance: str
    health: Health
    symptom: str | None = None  # the first of the declared ones that is present
    doubt: Reason | None = None  # why health is unknown
    doubt_seconds: float = 0.0  # for how long
    alive: bool | None = None  # its own liveness
    peers: Peers = Peers()
    watch: Watch = Watch()
    operation: Operation | None = None  # the open one
    past: Past = Past()
    others_in_action: int = 0  # of the same target
    domain_in_action: int = 0  # of the same failure domain
    tripped_at: float | None = None  # when the breaker was last seen open
    dependency: str | None = None  # a target this one depends on that is not known to be well
    silenced: bool | None = False
    clock_jumped: bool = False
    alert_firing: bool = False  # Alertmanager says so: a hint


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes next and why. `opens`: the operation that begins with it. `failed`: how the last attempt failed."""

    target: str
    instance: str
    at: float
    next: Next
    reasons: tuple[Reason, ...] = ()
    operation: str | None = None
    step: Step | None = None  # to be done, proposed or verified
    number: int | None = None  # of the attempt within its step
    opens: Operation | None = None
    relapsed: bool = False
    failed: Reason | None = None
    until: float | None = None  # when a wait is over, where that is known
    tells_people: bool = False


def decide(state: State, rules: Rules) -> Decision:
    """What comes next for one instance of `rules.target`."""
    decision = _decided(state, rules)
    idle = decision.operation is None and state.health is Health.UNKNOWN
    early = idle and state.doubt_seconds < UNKNOWN_TOLD_SECONDS
    return replace(decision, tells_people=decision.next in _ALARMING and rules.mode is not Mode.SHADOW and not early)


def _decided(state: State, rules: Rules) -> Decision:
    operation = state.operation
    if operation is None:
        if state.health is not Health.SICK:
            return _idle(state, rules)
        operation = opening(state, rules)
    last = operation.attempts[-1] if operation.attempts else None
    held = Decision(
        rules.target,
        state.instance,
        state.now,
        Next.WAIT,
        operation=operation.id,
        step=last.step if last else None,
        number=last.number if last else None,
        opens=operation if state.operation is None else None,
    )
    if operation.handed_for is not None:
        return _handed(state, operation, held)
    if state.health is Health.UNKNOWN:
        return replace(held, next=Next.FREEZE, reasons=(state.doubt or Reason.HEALTH_UNKNOWN,))
    if state.clock_jumped:
        return replace(held, next=Next.FREEZE, reasons=(Reason.CLOCK_JUMPED,))
    if state.health is Health.GONE:
        ended = not operation.attempts  # nobody touched it: the scaler or its owner took it away
        return replace(held, next=Next.CLOSE if ended else Next.PAGE, reasons=(Reason.INSTANCE_GONE,))
    if state.health is Health.HEALTHY:
        return _healthy(state, operation, held)
    if operation.pending is not None:
        return replace(held, next=Next.FREEZE, reasons=(Reason.OUTCOME_UNKNOWN,))
    if state.health is Health.MISSING and last is None:
        return replace(held, next=Next.FREEZE, reasons=(Reason.HEALTH_UNKNOWN,))
    failed = judged(state, operation)
    if last is not None and last.failed is None and failed is None:
        return replace(held, next=Next.VERIFY, reasons=(Reason.VERIFYING,))
    held = replace(held, failed=failed if last is not None else None, relapsed=state.watch.relapsed)
    return _climb(state, rules, operation, held)


def _idle(state: State, rules: Rules) -> Decision:
    """No operation and no symptom. What is unknown is told where all of it is, or where an alert fires."""
    blind = Decision(rules.target, state.instance, state.now, Next.FREEZE, (state.doubt or Reason.HEALTH_UNKNOWN,))
    if state.health is Health.UNKNOWN:
        return blind
    if state.health is Health.MISSING:
        return blind if state.alert_firing else replace(blind, next=Next.WAIT)
    return Decision(rules.target, state.instance, state.now, Next.NONE)


def _handed(state: State, operation: Operation, held: Decision) -> Decision:
    """People have it. The page stands until the symptom has stayed away, whatever else is unknown meanwhile."""
    if operation.handed_for is None:
        raise ValueError(f"{operation.id} was not handed over")
    if state.health is Health.HEALTHY and steady(state, operation.limits):
        return replace(held, next=Next.CLOSE, reasons=(Reason.RECOVERED,))
    if state.health is Health.GONE and age(state.now, operation.handed_at or 0.0) >= HOUR_SECONDS:
        return replace(held, next=Next.CLOSE, reasons=(Reason.INSTANCE_GONE,))
    return replace(held, next=Next.PAGE, reasons=(operation.handed_for,), relapsed=state.watch.relapsed)


def _healthy(state: State, operation: Operation, held: Decision) -> Decision:
    if steady(state, operation.limits):
        return replace(held, next=Next.CLOSE, reasons=(Reason.RECOVERED,))
    return replace(held, next=Next.VERIFY, reasons=(Reason.STABILIZING,))


def _climb(state: State, rules: Rules, operation: Operation, held: Decision) -> Decision:
    """The symptom is there and nothing is being verified: the next step, or what holds it back."""
    limits = operation.limits
    recurrences = state.past.recurrences + held.relapsed
    told = (held.failed,) if held.failed else ((Reason.RELAPSED,) if held.relapsed else ())

    def to(kind: Next, *reasons: Reason, step: Step, until: float | None = None) -> Decision:
        number = 1 + sum(attempt.step is step for attempt in operation.attempts)
        return replace(held, next=kind, reasons=(*told, *reasons), step=step, number=number, until=until)

    step = next_step(operation)
    if state.silenced:
        return to(Next.WAIT, Reason.SILENCED, step=step)
    if state.silenced is None:
        return to(Next.FREEZE, Reason.SILENCES_UNKNOWN, step=step)
    if recurrences >= limits.recurrences_per_hour:
        return to(Next.PAGE, Reason.FLAPPING, step=Step.PAGE)
    if step is Step.PAGE:
        return to(Next.PAGE, Reason.LADDER_END, step=step)
    if state.dependency is not None:
        return to(Next.WAIT, Reason.DEPENDENCY_DOWN, step=step)
    if breaker_open(state.peers, limits):
        return to(Next.FREEZE, Reason.BREAKER, step=step)
    if state.tripped_at is not None and age(state.now, state.tripped_at) < limits.stability_seconds:
        return to(Next.WAIT, Reason.COOLDOWN, step=step, until=state.tripped_at + limits.stability_seconds)
    evidence = evidence_against(state)
    if evidence is None:
        return to(Next.FREEZE, Reason.NO_EVIDENCE, step=step)
    known = state.peers.healthy + state.peers.sick + 1
    if state.others_in_action >= max(1, math.floor(limits.group_ratio * known)):
        return to(Next.WAIT, Reason.GROUP_LIMIT, step=step)
    if state.domain_in_action >= limits.per_domain:
        return to(Next.WAIT, Reason.DOMAIN_LIMIT, step=step)
    until = _not_before(state, operation)
    if until is not None:
        return to(Next.WAIT, Reason.BACK_OFF, step=step, until=until)
    if step is Step.REPLACE and state.past.replacements >= limits.replacements_per_hour:
        return to(Next.FREEZE, Reason.REPLACEMENT_LIMIT, step=step)
    match _mode_of(step, rules):
        case Mode.SHADOW:
            return to(Next.WAIT, evidence, Reason.SHADOW, step=step)
        case Mode.RECOMMEND:
            return to(Next.SUGGEST, evidence, Reason.RECOMMEND, step=step)
        case Mode.ACT:
            return to(Next(step.value), evidence, step=step)


def opening(state: State, rules: Rules) -> Operation:
    """The operation that begins with a confirmed symptom. Its id follows from what it is about and when."""
    if state.symptom is None:
        raise ValueError(f"{rules.target} {state.instance}: sick without a symptom")
    about = f"{rules.target}\n{state.instance}\n{state.symptom}\n{state.now:.3f}"
    return Operation(
        id=hashlib.sha256(about.encode()).hexdigest()[:12],
        target=rules.target,
        instance=state.instance,
        symptom=state.symptom,
        alert=rules.alerts[state.symptom],
        opened_at=state.now,
        ladder=rules.ladders[state.symptom],
        limits=rules.limits,
    )


def judged(state: State, operation: Operation) -> Reason | None:
    """How the verification of the last attempt has failed; None while it has not, or where there is none."""
    last = operation.attempts[-1] if operation.attempts else None
    if last is None or last.failed is not None or last.result is None:
        return None
    if state.watch.relapsed:
        return Reason.RELAPSED
    without_effect = last.result in (Result.REFUSED, Result.UNREACHABLE)
    limits = operation.limits
    window = limits.replace_seconds if last.step is Step.REPLACE else limits.verify_seconds
    if not without_effect and age(state.now, last.last_at) < window:
        return None
    return Reason.SYMPTOM_REMAINS if state.health is Health.SICK else Reason.INCONCLUSIVE


def next_step(operation: Operation) -> Step:
    """The step the ladder is on: a later one once the attempts of this one are used up, or it was refused."""
    last: Attempt | None = operation.attempts[-1] if operation.attempts else None
    if last is None:
        return operation.ladder[0]
    used = sum(attempt.step is last.step for attempt in operation.attempts)
    if used < operation.limits.attempts_per_step and last.result is not Result.REFUSED:
        return last.step
    return operation.ladder[operation.ladder.index(last.step) + 1]


def evidence_against(state: State) -> Reason | None:
    """Why it is this instance that is at fault and not the load, the network or what lies behind it. None: nothing."""
    if state.alive is False:
        return Reason.LIVENESS_FAILS
    if state.peers.all and state.peers.healthy >= FINE_PEERS_RATIO * state.peers.all:
        return Reason.PEERS_FINE
    return None


def breaker_open(peers: Peers, limits: Limits) -> bool:
    """Whether so much of the group is sick, this instance included, that mending one by one is wrong."""
    sick, known = peers.sick + 1, peers.healthy + peers.sick + 1
    return peers.all + 1 >= FEWEST_FOR_BREAKER and sick > limits.breaker_ratio * known


def back_off_seconds(operation: str, attempts: int, limits: Limits) -> float:
    """How long to wait after the `attempts`-th attempt of the hour: doubling, and a quarter more or less.

    The jitter follows from the operation's id, so that many do not act in step and a restart does not draw again.
    """
    digest = hashlib.sha256(f"{operation}/{attempts}".encode()).digest()
    jitter = 0.75 + 0.5 * int.from_bytes(digest[:4], "big") / 2**32
    return min(limits.back_off_max_seconds, limits.back_off_seconds * 2.0 ** min(attempts - 1, 30) * jitter)


def watched(watch: Watch, health: Health, now: float) -> Watch:
    """Takes in one reading. Anything but healthy ends the good time; only the symptom itself is a relapse."""
    if health is Health.HEALTHY:
        return Watch(now if watch.good_since is None else watch.good_since, watch.readings + 1)
    return Watch(relapsed=health is Health.SICK and watch.good_since is not None)


def counted_as(health: Health, operation: Operation | None) -> Health:
    """An instance that is gone after its replacement was acknowledged is as good as healed."""
    attempts = operation.attempts if operation else ()
    replaced = any(attempt.step is Step.REPLACE and attempt.result is Result.DONE for attempt in attempts)
    return Health.HEALTHY if replaced and health is Health.GONE else health


def steady(state: State, limits: Limits) -> bool:
    """Healthy for the stability window, and for at least three readings."""
    watch = state.watch
    return (
        watch.good_since is not None
        and watch.readings >= FEWEST_GOOD_READINGS
        and age(state.now, watch.good_since) >= limits.stability_seconds
    )


def age(now: float, at: float) -> float:
    """Seconds since `at`. After a clock was set back, what is "in the future" has just happened."""
    return max(0.0, now - at)


def _not_before(state: State, operation: Operation) -> float | None:
    if not state.past.attempts:
        return None
    last = max(state.past.attempts)
    delay = back_off_seconds(operation.id, len(state.past.attempts), operation.limits)
    return last + delay if age(state.now, last) < delay else None


def _mode_of(step: Step, rules: Rules) -> Mode:
    """A destructive step goes no further than its own mode, however far the target's goes."""
    order = [Mode.SHADOW, Mode.RECOMMEND, Mode.ACT]
    if step not in DESTRUCTIVE:
        return rules.mode
    return min(rules.mode, rules.destructive_mode, key=order.index)
