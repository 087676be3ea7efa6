"""How many replicas a workload should have now: state and rules in, decision out. No client, clock, environment or log.

    each demand: present ─┬─▶ reactive answer ─┐
                 forecast ┴─▶ forecast answer ─┴─▶ the demand that needs most
      ─▶ dependency ─▶ schedule floor ─▶ surge ─▶ needed soon ─▶ pause ─▶ min/max           = recommended
      ─▶ rate limits ─▶ stabilisation ─▶ paid already ─▶ min/max ─▶ money ─▶ replacements   = desired

The window that a decision covers is [L, L + D): L from asking for a replica to its first work, D until the next
decision's replicas could be there. Scale-in must also hold for as long as capacity is kept (economics.keep_seconds), or
the replica would be asked for again before it had saved anything.
"""

from collections.abc import Iterable
from dataclasses import replace

from controllers.domain import Reason, Recommendation
from controllers.scale.affordable import affordable
from controllers.scale.bounds import Steps, paid_already, paused, rate_limited, stabilized, surge, within_bounds
from controllers.scale.frame import Frame
from controllers.scale.needs import Need, needs_of
from controllers.scale.state import Decision, Rules, State


def decide(state: State, rules: Rules) -> Decision:
    """The replicas that `rules` want in `state`. Missing data holds the present number and says so."""
    told = state.replicas
    if told is None:
        return Decision(rules.workload, state.now, None, None, None, None, None, None, (Reason.TARGET_UNKNOWN,))
    replicas = told if not state.surge else replace(told, wanted=max(0, told.wanted - state.surge))
    frame = Frame.of(state, rules, replicas)
    needs = needs_of(state, rules, frame)
    most = max(needs, key=lambda need: -1 if need.replicas is None else need.replicas)
    steps = Steps(replicas.wanted, *_begun(needs, most, replicas.wanted))
    recommended = _recommended(steps, needs, most, state, rules)
    _moderated(steps, _bounds(needs, steps.current, rules), state, rules)
    unbudgeted = _paid(steps, state, rules)
    if state.replacing:  # on top: each has its victim's place and money, so neither a maximum nor a price binds it
        steps.to(Reason.REPLACEMENT, steps.number + state.replacing)
    knows = most.service_seconds is not None
    return Decision(  # in the order of its fields: by name it takes a tenth of the time of a decision
        rules.workload,
        state.now,
        steps.number,
        told.wanted,
        told.ready,
        recommended,
        _largest(need.reactive for need in needs),
        _largest(need.forecast for need in needs),
        steps.reasons,
        steps.changes,
        frame.lead if knows else None,
        frame.window if knows else None,
        most.service_seconds,
        most.rate_expected,
        most.rate_upper,
        unbudgeted,
        most.signal,
        None if most.missing else most.replicas,
    )


def _begun(needs: list[Need], most: Need, current: int) -> tuple[int, tuple[Reason, ...]]:
    """The number before anything bounds it. While a demand is unknown, the others and a forecast lead upwards only."""
    unknown = [need for need in needs if need.missing]
    if not unknown and most.replicas is not None:
        return most.replicas, most.reasons
    missing = tuple(reason for need in unknown for reason in need.reasons)
    if most.replicas is None or most.replicas <= current:
        return current, (*missing, Reason.HOLD)
    if most.missing:
        return most.replicas, (*missing, Reason.BLIND_FOLLOWS_FORECAST)
    return most.replicas, (*most.reasons, *missing)


def _bounds(needs: list[Need], current: int, rules: Rules) -> tuple[int, int]:
    """The least and the most. Without data nothing is taken away, not even what is above a maximum."""
    is_blind = any(need.missing for need in needs)
    return rules.min_replicas, max(current, rules.max_replicas) if is_blind else rules.max_replicas


def _recommended(steps: Steps, needs: list[Need], most: Need, state: State, rules: Rules) -> int | None:
    """What would be right now; None: that is not known, the number is held."""
    least, highest = _bounds(needs, steps.current, rules)
    if state.bound is not None:
        steps.at_most(Reason.BOUND_BY_DEPENDENCY, max(steps.current, state.bound))
    # a surge is on top of what is needed, not of what is held: that has it already
    needed = min(steps.number, rules.min_replicas if most.replicas is None else most.replicas)
    if state.schedule_floor is not None:
        steps.at_least(Reason.SCHEDULE_FLOOR, state.schedule_floor)
        needed = max(needed, state.schedule_floor)
    if state.overrides:
        steps.at_least(Reason.SURGE, needed + surge(state))
    if steps.number < steps.current:
        soon = max(need.stay() if need.stay else 0 for need in needs)
        steps.at_least(Reason.NEEDED_SOON, min(steps.current, soon))
    if state.overrides:
        paused(steps, state)
    within_bounds(steps, least, highest)
    return None if most.replicas is None else steps.number


def _moderated(steps: Steps, bounds: tuple[int, int], state: State, rules: Rules) -> None:
    """How fast it may get there."""
    current = steps.current
    steps.to(Reason.RATE_LIMIT, rate_limited(steps.number, current, state, rules))
    steps.to(Reason.STABILIZATION, stabilized(steps.number, current, state, rules))
    steps.to(Reason.PAID_ALREADY, paid_already(steps.number, current, state, rules))
    within_bounds(steps, *bounds)


def _paid(steps: Steps, state: State, rules: Rules) -> int | None:
    """Money last: it takes from the number, and never adds. The number without it; None: it has no price."""
    if state.money is None:
        return None
    unbudgeted = steps.number + state.replacing
    reason, number = affordable(steps.number, steps.current, state.money, rules.min_replicas)
    if reason is not None:
        steps.to(reason, number)
    return unbudgeted


def _largest(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return max(known) if known else None


def recommendation(decision: Decision) -> Recommendation | None:
    """What later decisions remember of this one for their stabilisation."""
    if decision.recommended is None:
        return None
    return Recommendation(decision.at, decision.recommended)
