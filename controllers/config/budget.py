"""The month's money, what things cost, and how `budget` runs."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from controllers.config.values import HttpUrl, Money, MoneyText, Number, Text, TimeZone
from exporters.runtime.config import ListenAddress, Section


class FixedCost(Section):
    name: Text
    monthly: MoneyText


Unit = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class ModelPrice(Section):
    """What genai-prices does not know, or knows wrongly: unit -> price of a million, of one, of a second."""

    provider: Text
    model: Text
    per_million: dict[Unit, MoneyText] = {}
    per_unit: dict[Unit, MoneyText] = {}
    per_second: dict[Unit, MoneyText] = {}

    @model_validator(mode="after")
    def _one_price_a_unit(self) -> Self:
        money = [*self.per_million.values(), *self.per_unit.values(), *self.per_second.values()]
        units = [*self.per_million, *self.per_unit, *self.per_second]
        currencies = {price.currency for price in money}
        if not units:
            raise ValueError("has no price; give per_million, per_unit or per_second")
        if len(set(units)) < len(units):
            raise ValueError(f"prices {next(u for u in units if units.count(u) > 1)} twice; remove one")
        if len(currencies) > 1:
            raise ValueError(f"found {' and '.join(sorted(currencies))}; write one model's prices in one currency")
        odd = next((unit for unit in self.per_second if not unit.endswith("_seconds")), None)
        if odd is not None:
            raise ValueError(f"per_second: found {odd}; a unit of time ends in _seconds, for example video_seconds")
        return self

    @property
    def currency(self) -> str:
        return next(price.currency for price in (*self.per_million.values(), *self.each.values()))

    @property
    def each(self) -> dict[str, Money]:
        return {**self.per_unit, **self.per_second}


class Gross(Section):
    """What a foreign amount is multiplied with. Amounts in the budget's own currency are what is paid."""

    tax: Annotated[Decimal, Field(ge=1, le=3)] = Decimal(1)
    card_fee: Annotated[Decimal, Field(ge=1, le=2)] = Decimal(1)
    fx_buffer: Annotated[Decimal, Field(ge=1, le=2)] = Decimal("1.03")


class ReplicaHold(Section):
    """A running replica's hold is renewed every `ttl_seconds`; unrenewed, it pays for `grace_seconds` more."""

    ttl_seconds: Annotated[Number, Field(ge=1)] = 300.0
    grace_seconds: Annotated[Number, Field(ge=0)] = 900.0


class Budget(Section):
    """The month's money: in all, and the part of it for API and cloud usage; and `tidewise budget`, which keeps it.

    `url`: where the other controllers ask it. `token_file`: the bearer token of both; without it nothing is permitted.
    """

    total: MoneyText
    usage: MoneyText | None = None
    fixed: list[FixedCost] = []
    time_zone: TimeZone = "UTC"
    listen: list[ListenAddress] = ["127.0.0.1:9814"]
    url: HttpUrl = "http://127.0.0.1:9814"
    token_file: Path | None = None
    ledger: Path = Path(".tidewise/ledger.sqlite")
    interval_seconds: Annotated[Number, Field(ge=1)] = 15.0
    hold_seconds: Annotated[Number, Field(gt=0, le=86400)] = 900.0  # until an unsettled call counts as spent
    replica_hold: ReplicaHold = ReplicaHold()
    prices: list[ModelPrice] = []
    tokens_per_second: dict[Unit, Annotated[Decimal, Field(gt=0)]] = {}  # of media, such as video_seconds: 263
    gross: Gross = Gross()
    fx: dict[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], MoneyText] = {}  # USD: 1400 KRW

    @model_validator(mode="after")
    def _fx_is_into_this_currency(self) -> Self:
        for currency, rate in self.fx.items():
            if rate.currency != self.total.currency or currency == rate.currency or rate.amount <= 0:
                raise ValueError(f"fx.{currency}: found {rate}; write what 1 {currency} is in {self.total.currency}")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)
