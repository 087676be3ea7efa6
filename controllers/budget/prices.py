"""What a call costs: prices of the configuration, else those that genai-prices carries with it (offline, dated).

Two questions. `most`: the true maximum of a call that has not been made, to be held. `actual`: what it cost. Whatever
has no price is refused: a unit that nobody prices would count as free.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from controllers.budget.words import BudgetReason
from exporters.runtime.config import nearest

if TYPE_CHECKING:  # a second of import: only who asks for a listed price waits for it
    from genai_prices.types import ModelInfo, ModelPrice, Provider

Units = Mapping[str, Decimal]  # usage key, such as input_tokens -> count
Prices = Mapping[str, Decimal]  # genai-prices' price key, such as input_mtok -> US dollars


class UnpricedError(Exception):
    """No price, or no bound on one. `reason` is the permit's; `str()` says how to price it."""

    def __init__(self, reason: BudgetReason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Quote:
    """A price in its own currency, before tax and exchange."""

    amount: Decimal
    currency: str
    version: str


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """One model's price of the configuration: unit -> price of one, in `currency`."""

    provider: str
    model: str
    currency: str
    units: Mapping[str, Decimal]

    def quote(self, units: Units) -> Quote:
        """Of so many units. Raises UnpricedError."""
        for unit in units:
            if unit not in self.units:
                raise UnpricedError(
                    BudgetReason.UNPRICED,
                    f"units: {unit} has no price in budget.prices for {self.provider}/{self.model}; "
                    f"priced there: {', '.join(sorted(self.units))}",
                )
        missing = sorted(set(self.units) - set(units))
        if missing:
            raise UnpricedError(
                BudgetReason.UNBOUNDED,
                f"units: {missing[0]} is missing; budget.prices bills it for {self.provider}/{self.model}, so give "
                "its number (0 where there is none)",
            )
        text = f"{self.currency} {sorted(self.units.items())}"
        return Quote(
            sum((self.units[unit] * count for unit, count in units.items()), Decimal(0)),
            self.currency,
            "config:" + hashlib.sha256(text.encode()).hexdigest()[:12],
        )


class PriceList:
    """All prices. `tokens_per_second`: unit in seconds -> tokens, for models that bill media by the token."""

    def __init__(self, own: Sequence[OwnPrice] = (), tokens_per_second: Mapping[str, Decimal] | None = None) -> None:
        self._own = {(price.provider.lower(), price.model.lower()): price for price in own}
        self._tokens_per_second = dict(tokens_per_second or {})

    @staticmethod
    def load() -> None:
        """Loads genai-prices; otherwise whoever first asks for a price in it waits a second."""
        from genai_prices.data_snapshot import get_snapshot

        get_snapshot()

    @staticmethod
    def table(at: float) -> tuple[str, float | None]:
        """genai-prices' release, and the newest date up to `at` of which it knows a price: it is no older than that."""
        known = [day for day in _dates() if day <= _moment(at).date()]
        newest = max(known, default=None)
        return f"genai-prices {_release()}", None if newest is None else _midnight(newest)

    def most(
        self, provider: str, model: str, units: Units, context: Mapping[str, str], times: Sequence[float]
    ) -> Quote:
        """The most that a call within `units` can cost at any of `times`: the dearest tier unless `context` names one.

        Raises UnpricedError.
        """
        own = self._own.get((provider.lower(), model.lower()))
        if own is not None:
            return own.quote(units)
        seller, info = _listed(provider, model)
        _refuse_unknown_context(seller, info, context)
        tiers = [context] if context else [{}, *(variant.when for variant in info.price_variants or ())]
        prices = [_plain(info.get_prices(_moment(at), tier), units) for at in times for tier in tiers]
        billed = {key for price in prices for key in price}
        dearest = {key: max(price.get(key, Decimal(0)) for price in prices) for key in billed}
        units = self._as_tokens(units, dearest)
        _refuse_unbounded(seller, info, units, dearest)
        return _quote(seller, info, units, _worst(dearest, units))

    def actual(self, provider: str, model: str, units: Units, context: Mapping[str, str], at: float) -> Quote:
        """What a call cost that was made at `at`. Raises UnpricedError."""
        own = self._own.get((provider.lower(), model.lower()))
        if own is not None:
            return own.quote(units)
        seller, info = _listed(provider, model)
        _refuse_unknown_context(seller, info, context)
        price = _plain(info.get_prices(_moment(at), context), units)
        return _quote(seller, info, self._as_tokens(units, price), price)

    def _as_tokens(self, units: Units, price: Prices) -> Units:
        """Seconds of media as the tokens they are billed as, where the configuration says how many."""
        tokens = dict(units)
        for unit, rate in self._tokens_per_second.items():
            if unit not in tokens or _pricing(unit, price):
                continue
            count = (tokens.pop(unit) * rate).to_integral_value(ROUND_CEILING)
            kind = f"input_{unit.removesuffix('_seconds')}_tokens"
            tokens["input_tokens"] = tokens.get("input_tokens", Decimal(0)) + count
            if _pricing(kind, price):
                tokens[kind] = tokens.get(kind, Decimal(0)) + count
        return tokens


@lru_cache(maxsize=512)
def _listed(provider: str, model: str) -> "tuple[Provider, ModelInfo]":
    """The list's entry. The provider must be spelt as there: near misses have other prices."""
    from genai_prices.data_snapshot import get_snapshot

    sellers = get_snapshot().providers
    seller = next((one for one in sellers if one.id == provider.lower()), None)
    if seller is None:
        raise _unknown(f"provider '{provider}' is unknown{nearest(provider, [one.id for one in sellers])}")
    info = seller.find_model(model, all_providers=sellers)
    if info is None:
        known = [one.id for one in seller.models]
        close = nearest(model, known) if len(known) <= 20 or get_close_matches(model, known, 1) else ""
        raise _unknown(f"model '{model}' of '{provider}' is unknown{close}")
    return seller, info


def _unknown(what: str) -> UnpricedError:
    return UnpricedError(
        BudgetReason.UNPRICED,
        f"{what} (in genai-prices {_release()}); price it in budget.prices with provider, model and "
        "per_million, per_unit or per_second",
    )


def _refuse_unknown_context(seller: "Provider", info: "ModelInfo", context: Mapping[str, str]) -> None:
    """A misspelt tier would silently get the standard price."""
    known = {(key, value) for variant in info.price_variants or () for key, value in variant.when.items()}
    for key, value in context.items():
        if (key, value) not in known:
            listed = ", ".join(f"{k}={v}" for k, v in sorted(known)) or "none"
            raise UnpricedError(
                BudgetReason.UNPRICED, f"context: {key}={value} has no price for {seller.id}/{info.id}; known: {listed}"
            )


def _refuse_unbounded(seller: "Provider", info: "ModelInfo", units: Units, price: Prices) -> None:
    """What the model bills by the token must have its maximum in the request."""
    for direction, how in (("input", "the tokens of the prompt"), ("output", "max_tokens, thinking included")):
        billed = [unit for unit in _units_of(price) if _dimensions(unit).get("direction") == direction]
        billed = [unit for unit in billed if _dimensions(unit).get("family") == "tokens"]
        if billed and not any(_dimensions(unit).get("direction") == direction for unit in units):
            raise UnpricedError(
                BudgetReason.UNBOUNDED,
                f"units: {direction}_tokens is missing; {seller.id}/{info.id} bills them, so give their maximum: {how}",
            )
    if not units and "requests_kcount" not in price:
        raise UnpricedError(
            BudgetReason.UNBOUNDED,
            f"units: is empty; give the most that {seller.id}/{info.id} can bill: {', '.join(_units_of(price))}",
        )


def _plain(price: "ModelPrice", units: Units) -> Prices:
    """Price key -> price. Of a price in tiers, the dearest one that so many input tokens can reach."""
    found: dict[str, Decimal] = {}
    for key, value in vars(price).items():
        if isinstance(value, Decimal):
            found[key] = value
        elif value is not None:
            reached = [tier.price for tier in value.tiers if tier.start < units.get("input_tokens", 0)]
            found[key] = max([value.base, *reached])
    return found


def _worst(price: Prices, units: Units) -> Prices:
    """No cheaper kind of token is counted on: all input may be written to a cache, none may come from one."""
    worst = dict(price)
    if not any(unit.startswith("cache_write") for unit in units):
        writes = [amount for key, amount in price.items() if key.startswith("cache_write")]
        if "input_mtok" in worst:
            worst["input_mtok"] = max([worst["input_mtok"], *writes])
    for unit in _units_of(price):
        for above in _pricing(unit, worst):
            key = _catalogue()[unit]["price_key"]
            worst[key] = max(worst[key], worst[above])
    return worst


def _quote(seller: "Provider", info: "ModelInfo", units: Units, price: Prices) -> Quote:
    from genai_prices.types import ModelPrice, Usage

    if not price:
        raise _unknown(f"model '{info.id}' of '{seller.id}' is listed without a price")
    for unit in units:
        if unit not in _catalogue() or unit == "requests" or not _pricing(unit, price):
            raise _unknown(
                f"units: {unit} has no price for {seller.id}/{info.id}; it bills {', '.join(_units_of(price))}"
            )
    bare = replace(info, prices=ModelPrice(**price), price_variants=None)
    try:
        cost = bare.calc_price(Usage(**{unit: _number(count) for unit, count in units.items()}), seller)
    except ValueError as error:  # parts without their whole, or more than it
        raise UnpricedError(BudgetReason.UNPRICED, f"units: {error}") from None
    return Quote(cost.total_price, "USD", f"genai-prices {_release()}")


@cache
def _release() -> str:
    """Of the list; reading it takes a millisecond, as long as all the rest of a permit."""
    return version("genai-prices")


@cache
def _dates() -> frozenset[date]:
    """From which prices of the list hold; the list itself has no date."""
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import StartDateConstraint

    models = (model for seller in get_snapshot().providers for model in seller.models)
    priced = (model.prices for model in models if isinstance(model.prices, list))
    dated = (one.constraint for prices in priced for one in prices)
    return frozenset(one.start_date for one in dated if isinstance(one, StartDateConstraint))


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


@cache
def _catalogue() -> Mapping[str, Any]:
    """genai-prices' units: usage key -> {per, price_key, dimensions}."""
    from genai_prices.data_units import unit_data

    return unit_data


def _dimensions(unit: str) -> Mapping[str, str]:
    found: Mapping[str, str] = _catalogue()[unit]["dimensions"] if unit in _catalogue() else {}
    return found


def _units_of(price: Prices) -> list[str]:
    """The units that a set of prices bills."""
    return [unit for unit, about in _catalogue().items() if about["price_key"] in price]


def _pricing(unit: str, price: Prices) -> list[str]:
    """The price keys that bill a unit: its own, and those of the wider kinds that it is a part of."""
    mine = _dimensions(unit).items()
    return [
        _catalogue()[wider]["price_key"] for wider in _units_of(price) if mine and _dimensions(wider).items() <= mine
    ]


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _number(count: Decimal) -> int | Decimal:
    return int(count) if count == count.to_integral_value() else count
