"""How many replicas a workload should have now: state and rules in, decision out. No client, clock, environment or log.

    present demand ─┬─▶ reactive answer ─┐
    forecast ───────┴─▶ forecast answer ─┴─▶ min/max ─▶ rate limits ─▶ stabilisation ─▶ money ─▶ replacements ─▶ desired

The window that a decision covers is [L, L + D): L from asking for a replica to its first work, D until the next
decision's replicas could be there. Scale-in must also hold over [0, L + minimum run), or the replica would be asked for
again before it had saved anything.
"""

import math
from dataclasses import dataclass, replace

from controllers.domain import Forecast, Horizon, Reason, Recommendation, Replicas, Sample
from controllers.scale.affordable import affordable
from controllers.scale.queueing import Load, Service, Supply, Wanted, at_quantile, backlog_after, smallest
from controllers.scale.state import Changed, Decision, LeadTime, Rules, State

# Demand is a rate over the last minute: it tells of half a minute ago, and so does every forecast of it.
RATE_DELAY_SECONDS = 30.0


def decide(state: State, rules: Rules) -> Decision:
    """The replicas that `rules` want in `state`. Missing data holds the present number and says so."""
    if state.replicas is None:
        return Decision(rules.workload, state.now, None, None, None, None, None, None, (Reason.TARGET_UNKNOWN,))
    replicas = replace(state.replicas, wanted=max(0, state.replicas.wanted - state.surge))
    decision = _paid(_needed(state, rules, replicas), state, rules)
    return _replacing(decision, state, state.replicas.wanted)


def _needed(state: State, rules: Rules, replicas: Replicas) -> Decision:
    """What the work needs, whatever it costs, beside what is there for replacements."""
    held = Decision(
        rules.workload,
        state.now,
        replicas.wanted,
        replicas.wanted,
        replicas.ready,
        None,
        None,
        None,
        (),
    )
    seconds = state.service_seconds or rules.service_seconds
    missing = unknown(state, rules)
    if seconds is None:
        return replace(held, reasons=(*((missing,) if missing else ()), Reason.CAPACITY_UNKNOWN, Reason.HOLD))
    view = _view(state, rules, replicas, seconds)
    held = replace(held, lead_seconds=view.lead, window_seconds=view.window, service_seconds=seconds)
    forecast, doubt = usable(state.forecast, state.now)
    if missing is None and state.demand is not None:
        return _finish(_answered(state, rules, view, held, state.demand, forecast, doubt), state, rules)
    missing = missing or Reason.DEMAND_UNKNOWN
    if forecast is None:
        return replace(held, reasons=(missing, *doubt, Reason.HOLD))
    return _finish(_blind(state, rules, view, held, forecast, missing), state, rules)


def usable(forecast: Forecast | None, now: float) -> tuple[Forecast | None, tuple[Reason, ...]]:
    """The forecast if it may count now, else None and why not."""
    if forecast is None or not forecast.horizons:
        return None, (Reason.FORECAST_MISSING,)
    if not forecast.made_at - 60 <= now <= forecast.valid_until:
        return None, (Reason.FORECAST_EXPIRED,)
    if not forecast.gate_open:
        return None, (Reason.GATE_CLOSED,)
    return forecast, ()


def unknown(state: State, rules: Rules) -> Reason | None:
    """What is missing for an answer from present data, or None."""
    if state.demand is None:
        return Reason.DEMAND_UNKNOWN
    if state.now - state.demand.at > rules.data_age_limit_seconds:
        return Reason.DEMAND_STALE
    if rules.is_queue and (state.backlog is None or state.now - state.backlog.at > rules.data_age_limit_seconds):
        return Reason.BACKLOG_UNKNOWN
    return None


@dataclass(frozen=True, slots=True)
class _View:
    """The window of this decision and the capacity it is about; times in seconds from now."""

    lead: float
    window: float
    service: Service
    wanted: Wanted
    supply: Supply
    backlog: float
    is_queue: bool
    most: int

    def out(self, load: Load) -> int:
        """The fewest replicas for [lead, lead + window)."""
        if not self.is_queue:
            return self._serves(load, self.lead, self.lead + self.window)
        late = backlog_after(self.backlog, self.lead, load, self.supply, self.service)
        return smallest(self.most, late, self.lead, self.lead + self.window, load, self.service, self.wanted)

    def stay(self, load: Load, run: float) -> int:
        """The fewest replicas for [0, lead + run): how far one may scale in without asking again at once."""
        if not self.is_queue:
            return self._serves(load, 0.0, self.lead + run)
        return smallest(self.most, self.backlog, 0.0, self.lead + run, load, self.service, self.wanted)

    def _serves(self, load: Load, start: float, end: float) -> int:
        times = [start, end, *(t for t in load.times if start < t < end)]
        return math.ceil(max(load.upper_at(t) for t in times) / self.service.rate - 1e-9)


def _view(state: State, rules: Rules, replicas: Replicas, seconds: float) -> _View:
    known = state.lead_time or LeadTime(rules.lead_time_seconds, rules.lead_time_seconds)
    delay = max(0.0, state.now - state.demand.at) if state.demand else rules.interval_seconds
    delay = min(delay, rules.data_age_limit_seconds)
    return _View(
        lead=known.high,
        # until the next decision's replicas: an interval later, on data as late as this, and an interval for the loop
        window=2 * rules.interval_seconds + delay + (known.high - known.median),
        service=Service(seconds, rules.concurrency),
        wanted=Wanted(
            rules.wait_seconds, rules.objective, max(rules.wait_seconds, known.high + rules.minimum_run_seconds)
        ),
        supply=Supply(
            replicas.ready, tuple((max(0.0, known.median - p.age_seconds), p.count) for p in replicas.pending)
        ),
        backlog=state.backlog.value if state.backlog else 0.0,
        is_queue=rules.is_queue,
        most=rules.max_replicas,
    )


def _answered(
    state: State,
    rules: Rules,
    view: _View,
    held: Decision,
    demand: Sample,
    forecast: Forecast | None,
    doubt: tuple[Reason, ...],
) -> Decision:
    """The number from present demand and, where it may count, the forecast."""
    present = Load.steady(demand.value)
    reactive = view.out(present)
    foreseen: int | None = None
    load, answer, reasons = present, reactive, (Reason.REACTIVE, *doubt)
    if forecast is not None:
        ahead = load_of(forecast, state.now, demand, rules)
        foreseen = view.out(ahead)
        load, answer, reasons = ahead, foreseen, (Reason.FORECAST,)
        if reactive > foreseen and demand.value > above_band(forecast):
            load, answer, reasons = present, reactive, (Reason.REACTIVE_FLOOR,)
    if view.is_queue and view.backlog > on_time(view, answer):
        reasons = (*reasons, Reason.LATE_WORK)
    current = held.current or 0
    if answer < current:
        stay = min(view.stay(load, rules.minimum_run_seconds), current)
        if stay > answer:
            reasons, answer = (*reasons, Reason.NEEDED_SOON), stay
    held = _rated(held, view, load)
    return replace(held, recommended=answer, reactive=reactive, forecast=foreseen, reasons=reasons)


def _rated(held: Decision, view: _View, load: Load) -> Decision:
    end = view.lead + view.window
    return replace(held, rate_expected=load.middle_at(end), rate_upper=load.upper_at(end))


def _blind(state: State, rules: Rules, view: _View, held: Decision, forecast: Forecast, missing: Reason) -> Decision:
    """Present data is missing: the last valid forecast may lead upwards, never down."""
    load = load_of(forecast, state.now, None, rules)
    answer = view.out(load)
    current = held.current or 0
    held = _rated(replace(held, forecast=answer), view, load)
    if answer <= current:
        return replace(held, recommended=current, reasons=(missing, Reason.HOLD))
    return replace(held, recommended=answer, reasons=(missing, Reason.BLIND_FOLLOWS_FORECAST))


def _finish(decision: Decision, state: State, rules: Rules) -> Decision:
    """Bounds, rate limits, stabilisation, bounds again: each step that changes the number leaves its reason."""
    if decision.recommended is None or decision.current is None:
        return decision
    current, blind = decision.current, Reason.HOLD in decision.reasons
    changes: list[Changed] = []

    def step(reason: Reason, before: int, after: int) -> int:
        if after != before:
            changes.append(Changed(reason, before, after))
        return after

    def bounded(number: int) -> int:
        number = step(Reason.MAX_REPLICAS, number, min(number, rules.max_replicas))
        return step(Reason.MIN_REPLICAS, number, max(number, rules.min_replicas))

    # without data nothing is taken away, not even what is above a maximum
    recommended = decision.recommended if blind else bounded(decision.recommended)
    number = step(Reason.RATE_LIMIT, recommended, rate_limited(recommended, current, state, rules))
    number = step(Reason.STABILIZATION, number, stabilized(number, current, state, rules))
    desired = number if blind else bounded(number)
    reasons = dict.fromkeys((*decision.reasons, *(change.reason for change in changes)))
    return replace(decision, recommended=recommended, desired=desired, reasons=tuple(reasons), changes=tuple(changes))


def _paid(decision: Decision, state: State, rules: Rules) -> Decision:
    """Money last: it takes from the number, and never adds."""
    if state.money is None or decision.desired is None or decision.current is None:
        return decision
    reason, number = affordable(decision.desired, decision.current, state.money, rules.min_replicas)
    decision = replace(decision, unbudgeted=decision.desired + state.replacing)
    return decision if reason is None else _changed(decision, reason, number)


def _replacing(decision: Decision, state: State, told: int) -> Decision:
    """Replacements on top: each has its victim's place and money, so neither a maximum nor a price binds it."""
    decision = replace(decision, current=told)
    if not state.replacing or decision.desired is None:
        return decision
    return _changed(decision, Reason.REPLACEMENT, decision.desired + state.replacing)


def _changed(decision: Decision, reason: Reason, number: int) -> Decision:
    change = Changed(reason, decision.desired or 0, number)
    return replace(decision, desired=number, reasons=(*decision.reasons, reason), changes=(*decision.changes, change))


def rate_limited(number: int, current: int, state: State, rules: Rules) -> int:
    """At most `up_per_minute` above the lowest, `down_per_minute` below the highest number told in the last minute."""
    lately = [told.replicas for told in state.wanted if state.now - told.at <= 60.0] + [current]
    if rules.up_per_minute is not None and number > current:
        return max(current, min(number, min(lately) + rules.up_per_minute))
    if rules.down_per_minute is not None and number < current:
        return min(current, max(number, max(lately) - rules.down_per_minute))
    return number


def stabilized(number: int, current: int, state: State, rules: Rules) -> int:
    """Scale-in goes no lower than the highest recommendation of the window (as the HPA's does).

    While the window is not wholly known, as after a first start, nothing is scaled in.
    """
    window = rules.stabilization_window_seconds
    if number >= current or window <= 0:
        return number
    if state.known_since is None or state.now - state.known_since < window:
        return current
    lately = [past.replicas for past in state.recommendations if state.now - past.at <= window]
    return min(current, max([number, *lately]))


def load_of(forecast: Forecast, now: float, demand: Sample | None, rules: Rules) -> Load:
    """The forecast as a load from now on, tied to present demand where known.

    Queue: the upper path is the middle one times what the forecast says about the `objective` quantile of cumulative
    arrivals relative to their median, so that short noise, which a queue evens out, is not paid for.
    Service: the upper path is the `objective` quantile of the largest one-minute demand up to the horizon, for a
    service cannot wait; between two horizons the longer one counts.
    """
    ahead = [(forecast.made_at + h.seconds - RATE_DELAY_SECONDS - now, h) for h in forecast.horizons]
    ahead = [(due, h) for due, h in ahead if due > 0] or [(0.0, forecast.horizons[-1])]
    times, middle = [due for due, _ in ahead], [h.value for _, h in ahead]
    if rules.is_queue:
        ratio = [_upper_ratio(h, rules.objective) for _, h in ahead]
        if demand is not None:
            since = min(demand.at - now, 0.0) - RATE_DELAY_SECONDS
            times, middle, ratio = [since, *times], [demand.value, *middle], [ratio[0], *ratio]
        upper = [m * r for m, r in zip(middle, ratio, strict=True)]
        return Load(tuple(times), tuple(middle), tuple(upper))
    known = [at_quantile(h.peak, rules.objective) for _, h in ahead]
    peaks = [h.value if peak is None else peak for peak, (_, h) in zip(known, ahead, strict=True)]
    stairs = [
        (times[i] + nudge, middle[i], peaks[min(i + after, len(peaks) - 1)])
        for i in range(len(times))
        for after, nudge in ((0, 0.0), (1, 1e-6))
    ]
    return Load(tuple(t for t, _, _ in stairs), tuple(m for _, m, _ in stairs), tuple(p for _, _, p in stairs))


def _upper_ratio(horizon: Horizon, objective: float) -> float:
    upper, median = at_quantile(horizon.arrivals, objective), horizon.arrivals.get(0.5)
    return max(1.0, upper / median) if upper is not None and median else 1.0


def above_band(forecast: Forecast) -> float:
    """The demand above which the forecast is evidently wrong now: its highest quantile of the nearest horizon."""
    nearest = forecast.horizons[0]
    return max([nearest.value, *nearest.quantiles.values()])


def on_time(view: _View, replicas: int) -> float:
    """The backlog that `replicas` serve within the SLO."""
    return replicas * (view.service.rate * view.wanted.wait_seconds + view.service.concurrency)


def recommendation(decision: Decision) -> Recommendation | None:
    """What later decisions remember of this one for their stabilisation."""
    if decision.recommended is None:
        return None
    return Recommendation(decision.at, decision.recommended)
