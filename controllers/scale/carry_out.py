"""Carries a decision out: asks the ledger, tells the target, and says what came of it.

A target that refuses for good (a right, a name, another scaler) is asked again ever less often; one without capacity
after a while, or at once for fewer. Everything else is tried again with the next decision.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import structlog

from controllers.actuators import Actuator, ActuatorError
from controllers.actuators.interface import NoCapacityError, NoGrowthError, PermanentError
from controllers.domain import Mode, Reason
from controllers.leases import Leader
from controllers.loop import StepError, Tick
from controllers.scale.observe import unexpected
from controllers.scale.purse import Purse, exists
from controllers.scale.replacements import Replacement, ReplacementError, Replacements, as_told
from controllers.scale.state import Decision, Rules, State
from controllers.sources.prometheus import SourceError

MOST_SECONDS = 300.0  # between two attempts at a target that refuses for good
MOST_SECONDS_WITHOUT_CAPACITY = 60.0

log = structlog.get_logger()

# Work in hand by pod or instance, of a workload that says how to read it; None: it says nothing. Raises SourceError.
ReadInHand = Callable[[str, Tick], Mapping[str, float] | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a decision was carried out. `told`: the number that the target heard; None: none.

    `retry_seconds`: in how long it is tried again, where it was not tried now because it was refused before.
    """

    reason: Reason
    told: int | None = None
    detail: str | None = None
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a target said, how often in a row, and until when it is left alone (for more than it has: `growth`)."""

    reason: Reason
    said: str
    count: int
    until: float
    growth: bool


def refused(before: Refusal | None, error: ActuatorError, now: float, interval_seconds: float) -> Refusal | None:
    """The refusal after one more; None for an error that may be gone with the next decision."""
    if isinstance(error, NoGrowthError):
        reason, most, growth = Reason.ACTION_FAILED, MOST_SECONDS, True
    elif isinstance(error, NoCapacityError):
        reason, most, growth = Reason.NO_CAPACITY, MOST_SECONDS_WITHOUT_CAPACITY, True
    elif isinstance(error, PermanentError):
        reason, most, growth = Reason.ACTION_FAILED, MOST_SECONDS, False
    else:
        return None
    count = before.count + 1 if before and before.reason is reason and (growth or before.said == str(error)) else 1
    wait = min(most, interval_seconds * 2.0 ** min(count, 30))
    # an interval's jitter must not make it a step later
    return Refusal(reason, str(error), count, now + wait - interval_seconds / 2, growth)


class Teller:
    """Tells targets, within the money, the lease and their patience. `refusals`: of each target that refused last."""

    def __init__(
        self,
        actuators: Mapping[str, Actuator],
        purse: Purse | None,
        book: Replacements | None,
        leader: Leader | None,
        read_in_hand: ReadInHand,
        interval_seconds: float,
    ) -> None:
        self.refusals: dict[str, Refusal] = {}
        self._actuators = actuators
        self._purse = purse
        self._book = book
        self._leader = leader
        self._read_in_hand = read_in_hand
        self._interval = interval_seconds

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

    def carry_out(self, decision: Decision, state: State, rules: Rules, tick: Tick) -> Outcome:
        """Tells the target, where that is wanted, needed and paid for."""
        if decision.desired is None or decision.current is None or state.replicas is None:
            return Outcome(Reason.ALREADY_THERE)
        floor = state.replicas.floor
        is_floor = floor is not None or self._actuators[rules.workload].is_floor
        again = is_floor or state.replicas.unfinished  # the same number is told again
        if self._actuators[rules.workload].expires and Reason.HOLD in decision.reasons:
            again = False  # nothing is known: what was told runs out
        if decision.desired == decision.current and not again:
            self.refusals.pop(rules.workload, None)
            return Outcome(Reason.ALREADY_THERE)
        if rules.mode is Mode.SHADOW:
            return Outcome(Reason.SHADOW)
        if rules.mode is Mode.RECOMMEND:
            return Outcome(Reason.RECOMMEND)
        if not self.may_act():
            return Outcome(Reason.NOT_LEADER)
        waits = self._waits(rules.workload, decision.desired > decision.current, tick.now)
        if waits is not None:
            if state.replicas.unfinished and self.refusals[rules.workload].growth:
                self._go_on(rules.workload, decision.current, waits, tick)
            return waits
        told, reason, detail = decision.desired, Reason.FLOOR_TOLD if is_floor else Reason.APPLIED, None
        if floor is not None and {Reason.HOLD, Reason.PAUSED}.intersection(decision.reasons):
            told = floor  # what is held is the floor, not the number that its autoscaler has now
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
            if told == decision.current and not again:
                return Outcome(reason, None, detail)
            outcome = self._told(decision, told, reason, detail, tick)
            if told == decision.current and not is_floor and outcome.reason is Reason.APPLIED:
                return replace(outcome, reason=Reason.ALREADY_THERE, told=None)  # no action: it went on with one
            return outcome
        except (ActuatorError, StepError) as error:
            return self._failed(rules.workload, error, tick.now)
        except Exception as error:  # of a library, or of somebody's own actuator: the other workloads go on
            log.exception("target_not_told", workload=rules.workload)
            return self._failed(rules.workload, ActuatorError(unexpected(error)), tick.now)

    def note(self, changed: Iterable[Replacement]) -> str | None:
        """The sentence why it could not be noted, or None."""
        try:
            if self._book is not None:
                self._book.note(changed)
        except ReplacementError as error:
            log.error("replacement_not_noted", error=str(error))
            return str(error)
        return None

    def _waits(self, workload: str, grows: bool, now: float) -> Outcome | None:
        """That it is not tried now; None: it is."""
        refusal = self.refusals.get(workload)
        if refusal is None or (refusal.growth and not grows):
            return None
        left = refusal.until - now
        if not 0 < left <= MOST_SECONDS:  # or the clock was set back
            return None
        return Outcome(refusal.reason, None, f"{refusal.said} (refused {refusal.count} times; it is asked again)", left)

    def _go_on(self, workload: str, current: int, waits: Outcome, tick: Tick) -> None:
        """While no more are asked for, what was begun with those that are there goes on."""
        try:
            seconds = tick.remaining()
            if self._leader is not None:
                seconds = min(seconds, self._leader.remaining_seconds())
            if seconds > 0:
                self._actuators[workload].apply(current, seconds)
        except (ActuatorError, StepError) as error:
            log.warning("not_finished", workload=workload, error=str(error), beside=waits.detail)

    def _failed(self, workload: str, error: ActuatorError | StepError, now: float) -> Outcome:
        refusal = None
        if isinstance(error, ActuatorError):
            refusal = refused(self.refusals.get(workload), error, now, self._interval)
        if refusal is None:
            return Outcome(Reason.ACTION_FAILED, None, str(error))
        self.refusals[workload] = refusal
        return Outcome(refusal.reason, error.told if isinstance(error, NoCapacityError) else None, refusal.said)

    def _told(self, decision: Decision, told: int, reason: Reason, detail: str | None, tick: Tick) -> Outcome:
        """Raises ActuatorError, StepError."""
        workload = decision.workload
        in_hand: Mapping[str, float] | None = None
        if told <= (decision.current or 0):  # what is told again may be a drain
            try:
                in_hand = self._read_in_hand(workload, tick)
            except SourceError as error:
                detail = detail or f"which replica has work in hand is not known ({error}), so the target chooses"
        seconds = tick.remaining()
        victims: tuple[str, ...] = ()
        before: tuple[Replacement, ...] = ()
        if self._leader is not None:
            seconds = min(seconds, self._leader.remaining_seconds())
            if seconds <= 0:
                return Outcome(Reason.NOT_LEADER, None, "the lease ended while this decision was being carried out")
        if self._book is not None:
            victims = self._book.victims(workload, tick.now)
            before = (*self._book.active(workload, tick.now), *self._book.surging(workload))
            problem = self.note(as_told(self._book.active(workload, tick.now), self._book.surging(workload)))
            if problem is not None:
                return Outcome(Reason.ACTION_FAILED, None, problem)
        try:
            self._actuators[workload].apply(told, seconds, victims, in_hand)
        except Exception:
            self.note(before)
            raise
        self.refusals.pop(workload, None)
        if self._purse is not None:
            self._purse.started(workload)
        return Outcome(reason, told, detail)
