"""The answers of two kinds of demand: of a queue, whose work can wait a little, and of a service, whose cannot. Pure.

Each answers the same three questions: how many replicas the window of the decision needs, how many the time for which
capacity is kept, and what demand is expected at the window's end.
"""

import math

from controllers.domain import Forecast, Sample
from controllers.scale.ahead import (
    highest_middle,
    load_ahead,
    middle_ahead,
    peak_until,
    peak_within,
    rate_ahead,
    steady_peak,
)
from controllers.scale.distribution import Distribution, at_quantile
from controllers.scale.economics import least_cost, least_cost_of_queue, least_risk
from controllers.scale.frame import Frame
from controllers.scale.queueing import Load, Service, Wanted, backlog_after, smallest
from controllers.scale.state import Rules, Signal, SignalRules, State


class Asked:
    """One demand with all that its number depends on."""

    def __init__(
        self, signal: Signal | State, promised: SignalRules | Rules, frame: Frame, service: Service, present: bool
    ) -> None:
        self.frame, self.service = frame, service
        self.is_queue, self.objective = promised.is_queue, promised.objective
        self.prices, self.shortage, self.most = frame.prices, frame.rules.shortage, frame.rules.max_replicas
        self.told = signal.forecast
        self.backlog = signal.backlog.value if signal.backlog and promised.is_queue else 0.0
        self.wanted = Wanted(promised.wait_seconds, promised.objective, max(promised.wait_seconds, frame.drain))
        rate = signal.demand.value if present and signal.demand else None
        self.present = rate
        self.is_idle = not rate and self.backlog <= 0.0  # as far as anybody knows
        # measured work has somebody to do it
        self.fewest = 1 if rate is not None and (rate > 0.0 or self.backlog > 0.0) else 0

    def steadily(self, rate: float, told: Forecast | None = None) -> "QueueAnswer | ServiceAnswer":
        """If present demand went on. `told`: a forecast that may not count, but knows how far demand strays."""
        if self.is_queue:
            return QueueAnswer(self, Load.steady(rate), None)
        return ServiceAnswer(self, rate, strays=steady_peak(told, self.frame.now, self.frame.lead, self.frame.end))

    def foreseen(self, forecast: Forecast, demand: Sample | None, factor: float = 1.0) -> "QueueAnswer | ServiceAnswer":
        frame = self.frame
        if not self.is_queue:
            return ServiceAnswer(self, middle_ahead(forecast, frame.now, frame.end), forecast, factor)
        until = max(frame.end, frame.keep)
        load = load_ahead(forecast, frame.now, demand, self.objective, until, factor)
        return QueueAnswer(self, load, forecast)

    def on_time(self, replicas: int) -> float:
        """The backlog that so many replicas serve within the SLO."""
        return replicas * (self.service.rate * self.wanted.wait_seconds + self.service.concurrency)

    def is_nothing(self, rate: float, seconds: float) -> bool:
        """Nothing is there, and of what is foreseen at most one in 1 / (1 - objective) such times brings a piece."""
        return self.is_idle and rate * seconds < 1.0 - self.objective


class QueueAnswer:
    """What a queue needs under a load."""

    def __init__(self, asked: Asked, load: Load, forecast: Forecast | None) -> None:
        self._asked, self._load, self._forecast = asked, load, forecast
        self.counts_cost = asked.prices is not None

    def out(self) -> int:
        """The fewest replicas for the window."""
        asked, frame = self._asked, self._asked.frame
        late = backlog_after(asked.backlog, frame.lead, self._load, frame.supply, asked.service)
        return self._fewest(late, frame.lead, frame.end)

    def stay(self) -> int:
        """The fewest replicas for the time for which capacity is kept."""
        return self._fewest(self._asked.backlog, 0.0, self._asked.frame.keep)

    def at_end(self) -> tuple[float, float]:
        end = self._asked.frame.end
        return self._load.middle_at(end), self._load.upper_at(end)

    def _fewest(self, backlog: float, start: float, end: float) -> int:
        asked, load = self._asked, self._load
        if asked.is_nothing(max(load.upper), end - start):
            return 0
        if asked.prices is None:
            number = smallest(asked.most, backlog, start, end, load, asked.service, asked.wanted)
        else:
            if self._forecast is None:
                demand = Distribution.certain(load.middle_at(end))
            else:
                demand = rate_ahead(self._forecast, asked.frame.now, load, end)
            number = least_cost_of_queue(
                asked.most, backlog, start, end, load, demand, asked.service, asked.wanted, asked.prices
            )
        return max(asked.fewest, number)


class ServiceAnswer:
    """What a service needs: it cannot wait, so the largest minute of a time counts.

    Without a forecast, that of present demand, and `strays` tells how much more there may be.
    """

    def __init__(
        self,
        asked: Asked,
        rate: float,
        forecast: Forecast | None = None,
        factor: float = 1.0,
        strays: dict[float, float] | None = None,
    ) -> None:
        self._asked, self._rate, self._forecast, self._factor = asked, rate, forecast, factor
        self._strays = strays
        knows_risk = forecast is not None or strays is not None
        self.counts_cost = knows_risk and (asked.prices is not None or asked.shortage is not None)

    def out(self) -> int:
        number = self._fewest(self._within(), self._asked.frame.window)
        return number if self._forecast is not None else max(number, self._now())

    def stay(self) -> int:
        """Of two answers that each cover the time for which capacity is kept, the smaller one.

        What the forecast says of all of it at once; and what earlier decisions said of their windows until this one's,
        but no less than is expected there by now: they may have known nothing of it.
        """
        frame = self._asked.frame
        if self._forecast is None:
            steady = max(self._fewest(self._within(), frame.keep), self._now())
            return steady if self._strays is None else max(steady, frame.kept or 0)
        number = self._fewest(peak_until(self._forecast, frame.now, frame.keep, self._factor), frame.keep)
        if frame.kept is None:
            return number
        beyond = peak_within(self._forecast, frame.now, frame.lead, max(frame.keep, frame.end), self._factor)
        until = self._serve(highest_middle(self._forecast, frame.now, frame.lead))
        return min(number, max(frame.kept, until, self._now(), self._fewest(beyond, frame.keep)))

    def _now(self) -> int:
        """For present demand."""
        return self._serve(self._asked.present or 0.0)

    def _serve(self, rate: float) -> int:
        return math.ceil(rate / self._asked.service.rate - 1e-9)

    def at_end(self) -> tuple[float, float]:
        return self._rate, self._upper(self._within())

    def _within(self) -> dict[float, float]:
        """Quantiles of the largest minute of the window."""
        frame = self._asked.frame
        if self._forecast is None:
            return self._strays or {0.5: self._rate}
        return peak_within(self._forecast, frame.now, frame.lead, frame.end, self._factor)

    def _upper(self, peaks: dict[float, float]) -> float:
        upper = at_quantile(peaks, self._asked.objective)
        return self._rate if upper is None else upper

    def _fewest(self, peaks: dict[float, float], seconds: float) -> int:
        asked, capacity = self._asked, self._asked.service.rate
        upper = self._upper(peaks)
        if asked.is_nothing(upper, seconds):
            return 0
        number = math.ceil(upper / capacity - 1e-9)
        if self.counts_cost:
            demand = Distribution.from_quantiles(peaks) or Distribution.certain(self._rate)
            if asked.prices is not None:
                number = least_cost(demand, capacity, asked.prices, asked.most)
            elif asked.shortage is not None:
                number = least_risk(demand, capacity, asked.shortage, asked.most)
        return max(asked.fewest, number)
