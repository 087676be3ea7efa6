"""From units, bills and hours to costs in the budget's currency: price list x exchange, rounded up."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from controllers.budget.decide import Floor, Limit, Rules
from controllers.budget.fx import Conversion, Exchange, FxUnknownError
from controllers.budget.prices import OwnPrice, PriceList
from controllers.budget.replicas import TimePrice
from controllers.budget.words import MICRO, Cost, Entry, micro
from controllers.config import Budget, Config, Money, Workload

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Costing:
    """Everything that turns use into money. Raises UnpricedError and FxUnknownError."""

    prices: PriceList
    exchange: Exchange
    zone: ZoneInfo

    def warm(self, at: float) -> None:
        """Loads the price list and the rate of its currency, some two seconds, before the first caller waits."""
        self.prices.load()
        try:
            self.exchange.into("USD", self._day(at))
        except FxUnknownError:
            return  # said to whoever asks for a price in it

    def most(
        self,
        provider: str,
        model: str,
        units: Mapping[str, Decimal],
        context: Mapping[str, str],
        times: Sequence[float],
    ) -> Cost:
        """What has to be held for a call that will be made between `times`."""
        quote = self.prices.most(provider, model, units, context, times)
        rate = self.exchange.into(quote.currency, self._day(times[0]))
        return _cost(quote.amount, quote.currency, rate, quote.version, _text(units, context))

    def actual(
        self, provider: str, model: str, units: Mapping[str, Decimal], context: Mapping[str, str], at: float
    ) -> Cost:
        """What a call cost that was made at `at`."""
        quote = self.prices.actual(provider, model, units, context, at)
        rate = self.exchange.into(quote.currency, self._day(at))
        return _cost(quote.amount, quote.currency, rate, quote.version, _text(units, context))

    def settled(
        self, held: Entry, units: Mapping[str, Decimal] | None, bill: Money | None, context: Mapping[str, str] | None
    ) -> Cost:
        """What a hold really cost: at the prices and the exchange rate of the time it was taken."""
        if bill is not None:
            return self._fixed(held, bill.amount, bill.currency, "bill", "{}")
        tier: Mapping[str, str] = json.loads(held.cost.units).get("context", {}) if context is None else context
        quote = self.prices.actual(held.scope.provider, held.scope.model, units or {}, tier, held.at)
        return self._fixed(held, quote.amount, quote.currency, quote.version, _text(units or {}, tier))

    def billed(self, bill: Money, at: float) -> Cost:
        """What was paid, as somebody's bill says."""
        return _cost(bill.amount, bill.currency, self.exchange.into(bill.currency, self._day(at)), "bill", "{}")

    def hourly(self, price: Money, at: float) -> Cost:
        """An hour of a replica."""
        return _cost(price.amount, price.currency, self.exchange.into(price.currency, self._day(at)), "config", "{}")

    def _fixed(self, held: Entry, amount: Decimal, currency: str, version: str, units: str) -> Cost:
        if currency == held.cost.currency:
            rate = Conversion(held.cost.fx, Decimal(held.cost.factor))
        else:
            rate = self.exchange.into(currency, self._day(held.at))
        return _cost(amount, currency, rate, version, units)

    def _day(self, at: float) -> date:
        return datetime.fromtimestamp(at, self.zone).date()


def costing_of(budget: Budget) -> Costing:
    """As configured."""
    gross = budget.gross.tax * budget.gross.card_fee * budget.gross.fx_buffer
    own = [
        OwnPrice(
            price.provider,
            price.model,
            price.currency,
            {
                **{unit: money.amount / MICRO for unit, money in price.per_million.items()},
                **{unit: money.amount for unit, money in price.each.items()},
            },
        )
        for price in budget.prices
    ]
    fixed = {currency: rate.amount for currency, rate in budget.fx.items()}
    return Costing(PriceList(own, budget.tokens_per_second), Exchange(budget.total.currency, fixed, gross), budget.zone)


def rules_of(config: Config, budget: Budget, costing: Costing, at: float) -> Rules:
    """What decide() has to know, with the day's exchange rates. Raises FxUnknownError."""
    floors = {}
    for workload in config.workloads:
        price = time_price(workload, budget, costing, at)
        if price is not None and price.floor_replicas:
            floors[workload.identity] = Floor(price.floor_replicas, price.hourly.amount, price.first_seconds)
    return Rules(limits_of(budget), budget.total.currency, floors)


def limits_of(budget: Budget) -> tuple[Limit, ...]:
    """The narrower one first: it is the one to name where both refuse."""
    total = Limit("total", micro(budget.total.amount), counts_fixed=True)
    if budget.usage is None:
        return (total,)
    return Limit("usage", micro(budget.usage.amount), counts_fixed=False), total


def time_price(
    workload: Workload, budget: Budget, costing: Costing, at: float, lead_seconds: float | None = None
) -> TimePrice | None:
    """What a replica costs and holds; None without a price. `lead_seconds`: as learned. Raises FxUnknownError."""
    if workload.price is None:
        return None
    return TimePrice(
        hourly=costing.hourly(workload.price.per_replica_hour, at),
        lead_seconds=workload.lead_time_seconds if lead_seconds is None else lead_seconds,
        minimum_seconds=workload.minimum_run_seconds,
        ttl_seconds=budget.replica_hold.ttl_seconds,
        grace_seconds=budget.replica_hold.grace_seconds,
        floor_replicas=workload.replicas.min,
    )


def _cost(amount: Decimal, currency: str, rate: Conversion, version: str, units: str) -> Cost:
    return Cost(
        amount=micro(amount * rate.factor),
        units=units,
        native=math.ceil(amount * MICRO),
        currency=currency,
        price=version,
        fx=rate.name,
        factor=str(rate.factor),
    )


def _text(units: Mapping[str, Decimal], context: Mapping[str, str]) -> str:
    """Raw units as JSON, exact; the tier beside them."""
    counts: dict[str, object] = {unit: _exact(count) for unit, count in sorted(units.items())}
    return json.dumps({**counts, "context": dict(context)} if context else counts)


def _exact(count: Decimal) -> int | str:
    return int(count) if count == count.to_integral_value() else str(count)
