"""How many replicas cost least, where being short has a price: marginal reasoning on a distribution. Pure.

One more replica is worth it while it saves more late or lost work than it costs. What is saved falls with every
replica, so the first one that is not worth it ends the search.
"""

import math
from dataclasses import dataclass

from controllers.scale.distribution import Distribution
from controllers.scale.queueing import Load, Service, Wanted, Window, late_share, smallest


@dataclass(frozen=True, slots=True)
class Prices:
    """Both in one currency, whichever: of a replica for an hour, and of a piece of work that is late or lost."""

    per_replica_hour: float
    per_late_job: float

    @property
    def late_jobs_per_second(self) -> float:
        """So many late jobs a second cost as much as a replica does."""
        if self.per_late_job <= 0:
            return math.inf
        return self.per_replica_hour / 3600.0 / self.per_late_job


def least_cost(demand: Distribution, capacity: float, prices: Prices, most: int) -> int:
    """Of a service: replicas of `capacity` (work per second) each against `demand`, what is above them being lost.

    The smallest n with E[(X - nc)+] - E[(X - (n+1)c)+] <= the price of a replica: the newsvendor's fractile, in whole
    replicas. `most + 1` where even more were worth their price.
    """
    worth = prices.late_jobs_per_second
    fractile = 1.0 - worth / capacity  # of a replica so small that it could be bought in parts
    if fractile <= 0.0:
        return 0
    number = min(most + 1, int(demand.at(min(fractile, 1.0 - 1e-12)) / capacity))

    def is_worth_it(n: int) -> bool:
        return demand.excess(n * capacity) - demand.excess((n + 1) * capacity) > worth

    while number > 0 and not is_worth_it(number - 1):
        number -= 1
    while number <= most and is_worth_it(number):
        number += 1
    return number


def least_risk(demand: Distribution, capacity: float, shortage: float, most: int) -> int:
    """Of a service: minimises n + shortage x P(X > nc), from the median on. `shortage`: how many idle replicas weigh as
    much as being short for the same time.

    For the same share of time that one is short it costs less than a fixed quantile: where demand is well known,
    protection is cheap and more of it is bought; where it is not, less.
    """
    number = max(0, math.ceil(demand.at(0.5) / capacity - 1e-9))
    best, cheapest = number, math.inf
    while number <= most:
        risk = shortage * demand.above(number * capacity)
        if number + risk < cheapest:
            best, cheapest = number, number + risk
        if number >= cheapest or risk <= 1.0:  # no further replica can bring as much as it costs
            return best
        number += 1
    return best if math.isfinite(cheapest) else most + 1


def least_cost_of_queue(
    most: int,
    backlog: float,
    start: float,
    end: float,
    load: Load,
    demand: Distribution,
    service: Service,
    wanted: Wanted,
    prices: Prices,
) -> int:
    """Of a queue: as many as the expected load and the backlog need in any case, then more while they are worth it.

    Late is what waits for longer than `wait_seconds` by chance at the expected rate (M/M/c), and what comes above the
    capacity: `demand`, the mean rate of the window. `most + 1` where even `most` are not enough.
    """
    expected = Load(load.times, load.middle, load.middle)
    certain = Wanted(wanted.wait_seconds, 0.0, wanted.drain_seconds)  # chance has its price, so it has no bound
    number = smallest(most, backlog, start, end, expected, service, certain)
    rate = Window.of(expected, start, end).highest
    worth = prices.late_jobs_per_second

    def late(n: int) -> float:
        return rate * late_share(n, rate, service, wanted.wait_seconds) + demand.excess(n * service.rate)

    now = late(number)
    while number <= most:
        then = late(number + 1)
        if now - then <= worth:
            break
        number, now = number + 1, then
    return number


def keep_seconds(lead_seconds: float, start_seconds: float | None, minimum_run_seconds: float) -> float:
    """So far ahead capacity that will be needed again is kept.

    Ended now, it would have to be asked for again a lead time before, and paid for from then on, or for `start_seconds`
    where a start costs more; and then for its minimum billing time.
    """
    return max(lead_seconds, start_seconds or 0.0) + minimum_run_seconds
