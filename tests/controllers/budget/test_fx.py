"""Exchange: dated rates carried forward, configured ones first, and no rate is no permit."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from currency_converter import CurrencyConverter

from controllers.budget.fx import OLDEST_DAYS, Exchange, FxUnknownError

D = Decimal


@pytest.fixture(scope="module")
def bank() -> Exchange:
    return Exchange("KRW", {}, D("1.1"))


@pytest.mark.parametrize(
    ("sentence", "day", "name"),
    [
        ("a day with a rate", date(2026, 10, 30), "ecb:2026-10-30"),
        ("a Sunday: the Friday before", date(2026, 10, 25), "ecb:2026-10-23"),
        ("Christmas: the day before", date(2025, 12, 26), "ecb:2025-12-24"),
    ],
)
def test_rates_are_dated_and_carried_forward(bank: Exchange, sentence: str, day: date, name: str) -> None:
    found = bank.into("USD", day)
    assert found.name == name, sentence
    assert found.day == date.fromisoformat(name.removeprefix("ecb:"))
    assert D(1000) < found.factor < D(2500)


def test_after_the_file_ends_its_last_rate_counts_for_a_while(bank: Exchange) -> None:
    last: date = CurrencyConverter().bounds["USD"].last_date
    assert bank.into("USD", last + timedelta(days=OLDEST_DAYS)).name == f"ecb:{last}"
    with pytest.raises(FxUnknownError):
        bank.into("USD", last + timedelta(days=OLDEST_DAYS + 1))


def test_the_factor_has_tax_fees_and_buffer_in_it(bank: Exchange) -> None:
    plain = Exchange("KRW", {}, D(1)).into("USD", date(2026, 10, 30)).factor
    assert bank.into("USD", date(2026, 10, 30)).factor == plain * D("1.1")


def test_a_configured_rate_comes_first_and_is_named() -> None:
    found = Exchange("KRW", {"USD": D(1400)}, D("1.1")).into("USD", date(2030, 1, 1))
    assert (found.name, found.factor, found.day) == ("config:USD=1400", D(1540), None)


def test_the_budgets_own_money_is_what_is_paid() -> None:
    assert Exchange("KRW", {}, D("1.5")).into("KRW", date(2026, 11, 22)).factor == 1


@pytest.mark.parametrize(
    ("sentence", "currency", "day"),
    [
        ("a currency the bank does not publish", "XAU", date(2026, 10, 30)),
        ("a day before the kept ones", "USD", date(2010, 1, 4)),
    ],
)
def test_no_rate_is_said_with_what_to_do(bank: Exchange, sentence: str, currency: str, day: date) -> None:
    with pytest.raises(FxUnknownError) as caught:
        bank.into(currency, day)
    assert str(caught.value) == (
        f"no exchange rate from {currency} to KRW within {OLDEST_DAYS} days before {day}; write one as "
        f"budget.fx.{currency}, for example {currency}: '1400 KRW', or install a newer CurrencyConverter"
    ), sentence
