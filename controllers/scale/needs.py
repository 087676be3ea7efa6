"""How many replicas each demand of a workload needs, from what is known of it. Pure.

A workload has one demand of its own and may have further ones; all of them are asked the same questions: how many for
[L, L + D), the window of this decision, and how many for what lies before, so that nothing is ended that is needed
again. Where present data is missing, a forecast may answer the first.
"""

from collections.abc import Callable
from dataclasses import dataclass

from controllers.domain import Forecast, Reason, Sample
from controllers.scale.ahead import band_at, correction, usable
from controllers.scale.answers import Asked, QueueAnswer, ServiceAnswer
from controllers.scale.bounds import young
from controllers.scale.deferrable import Deferred, replicas_for
from controllers.scale.distribution import at_quantile
from controllers.scale.frame import Frame
from controllers.scale.queueing import Service
from controllers.scale.state import Rules, Signal, SignalRules, State


@dataclass(frozen=True, slots=True)
class Need:
    """What one demand asks for. `replicas` is None where that is unknown, and `reasons` say why.

    `missing`: present data is not there, so that it may only lead upwards. `stay`: how many are needed within the time
    for which capacity is kept; never less than what is needed now. `rate_expected`, `rate_upper`: at the window's end.
    """

    signal: str | None
    replicas: int | None
    reasons: tuple[Reason, ...]
    missing: bool = False
    reactive: int | None = None
    forecast: int | None = None
    service_seconds: float | None = None
    rate_expected: float | None = None
    rate_upper: float | None = None
    stay: Callable[[], int] | None = None


def needs_of(state: State, rules: Rules, frame: Frame) -> list[Need]:
    """One of each demand, the workload's own first. A further demand of which nothing is known is unknown."""
    needs = [need_of(state, rules, frame, None)]
    for index, promised in enumerate(rules.more):
        signal = state.more[index] if index < len(state.more) else Signal()
        needs.append(need_of(signal, promised, frame, promised.name))
    return needs


def need_of(signal: Signal | State, promised: SignalRules | Rules, frame: Frame, name: str | None) -> Need:
    """What this one demand needs, whatever the others do and whatever it costs.

    The workload's own demand is told by its state and rules, which have the fields of a signal among theirs.
    """
    seconds = signal.service_seconds or promised.service_seconds
    missing = unknown(signal, promised, frame)
    if seconds is None:
        why = (missing, Reason.CAPACITY_UNKNOWN) if missing else (Reason.CAPACITY_UNKNOWN,)
        return Need(name, None, why, missing=True)
    service = Service(seconds, signal.concurrency or promised.concurrency)
    if promised.deadline_seconds is not None:
        return _deferred(signal, promised, frame, name, service, missing)
    forecast, doubt = usable(signal.forecast, frame.now)
    demand = signal.demand
    if missing is None and demand is not None:
        return _answered(Asked(signal, promised, frame, service, True), name, demand, forecast, doubt)
    missing = missing or Reason.DEMAND_UNKNOWN
    if forecast is None:
        return Need(name, None, (missing, *doubt), missing=True, service_seconds=seconds)
    asked = Asked(signal, promised, frame, service, False)
    foreseen = asked.foreseen(forecast, None)
    number = foreseen.out()
    return Need(name, number, (missing,), True, None, number, seconds, *foreseen.at_end())


def unknown(signal: Signal | State, promised: SignalRules | Rules, frame: Frame) -> Reason | None:
    """What is missing for an answer from present data, or None."""
    oldest = frame.now - frame.rules.data_age_limit_seconds
    if promised.deadline_seconds is None:
        if signal.demand is None:
            return signal.doubt or Reason.DEMAND_UNKNOWN
        if signal.demand.at < oldest:
            return Reason.DEMAND_STALE
        if not promised.is_queue:
            return None
    if signal.backlog is None or signal.backlog.at < oldest:
        return Reason.BACKLOG_UNKNOWN if signal.doubt is None else signal.doubt
    return None


def _answered(
    asked: Asked, name: str | None, demand: Sample, forecast: Forecast | None, doubt: tuple[Reason, ...]
) -> Need:
    """The number from present demand and, where it may count, the forecast."""
    present: QueueAnswer | ServiceAnswer = asked.steadily(demand.value, asked.told)
    view, stay = present, present.stay
    answer = reactive = present.out()
    foreseen: int | None = None
    reasons = (Reason.REACTIVE, *doubt)
    if forecast is not None:
        factor = correction(forecast, demand)
        view = asked.foreseen(forecast, demand, factor)
        stay = view.stay
        answer = foreseen = view.out()
        reasons = (Reason.FORECAST,) if factor == 1.0 else (Reason.FORECAST, Reason.FORECAST_CORRECTED)
        if reactive > foreseen and demand.value > band_at(forecast, demand.at)[1]:
            ahead, view, answer, reasons = view, present, reactive, (Reason.REACTIVE_FLOOR,)

            def stay() -> int:
                return max(present.stay(), ahead.stay())

    if view.counts_cost:
        reasons = (*reasons, Reason.LEAST_COST)
    if asked.is_queue and asked.backlog > asked.on_time(answer):
        reasons = (*reasons, Reason.LATE_WORK)
    if asked.is_idle:
        reasons = (*reasons, Reason.DEMAND_ZERO)
    expected, upper = view.at_end()
    return Need(name, answer, reasons, False, reactive, foreseen, asked.service.seconds, expected, upper, stay)


def _deferred(
    signal: Signal | State,
    promised: SignalRules | Rules,
    frame: Frame,
    name: str | None,
    service: Service,
    missing: Reason | None,
) -> Need:
    """What work with a deadline needs now."""
    if missing is not None or signal.backlog is None or promised.deadline_seconds is None:
        return Need(name, None, (missing or Reason.BACKLOG_UNKNOWN,), True, service_seconds=service.seconds)
    state, rules, now = frame.state, frame.rules, frame.now
    current, most = frame.replicas.wanted, rules.max_replicas
    if state.money is not None:
        most = min(most, max(current, state.money.paid) + (state.money.max_new or 0))
    forecast, _ = usable(signal.forecast, now)
    arriving = forecast.horizons if forecast else ()
    age = signal.oldest_age_seconds
    replicas, reasons = replicas_for(
        Deferred(
            backlog=signal.backlog.value,
            age=None if age is None else age + max(0.0, now - signal.backlog.at),
            deadline=promised.deadline_seconds,
            rate=service.rate,
            at_once=service.concurrency,
            most=most,
            current=current,
            paid=young(state, rules),
            lead=frame.lead,
            drain=frame.drain,
            ahead=tuple(
                (float(h.seconds), at_quantile(h.arrivals, promised.objective) or h.value * h.seconds) for h in arriving
            ),
            cheap=tuple((begin - now, end - now) for begin, end in state.cheap),
        )
    )
    if signal.backlog.value <= 0 and signal.demand is not None and signal.demand.value == 0:
        reasons = (*reasons, Reason.DEMAND_ZERO)
    rate = signal.demand.value if signal.demand else None
    return Need(name, replicas, reasons, False, replicas, None, service.seconds, rate, rate)
