"""Amounts: text with a currency in, integers of micro-units inside (1 KRW = 1,000,000), numbers on the page."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

MICRO = 1_000_000
LARGEST = Decimal(10) ** 12


@dataclass(frozen=True)
class Money:
    """An amount in one currency."""

    amount: Decimal
    currency: str


def micro(amount: Decimal) -> int:
    """Micro-units, rounded up: spend is never shown too low."""
    return int((amount * MICRO).to_integral_value(ROUND_CEILING))


def decimal(value: object) -> Decimal:
    """A number, or its text. Raises ValueError for what is none, infinite or too large."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ValueError("it is no number")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("it is no number") from None
    if not number.is_finite() or abs(number) > LARGEST:
        raise ValueError("it is no number that an amount can have")
    return number


def money(text: object) -> Money:
    """'12 KRW', '0.02 USD'. Raises ValueError, as a sentence."""
    if isinstance(text, Money):
        return text
    shown = str(text)[:60]
    amount, _, currency = text.strip().partition(" ") if isinstance(text, str) else ("", "", "")
    try:
        number = decimal(amount.replace(",", "").replace("_", ""))
    except ValueError:
        number = Decimal(-1)
    if number < 0 or not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise ValueError(f"found '{shown}'; write an amount with its currency, for example '12 KRW'")
    return Money(number, currency)


MoneyText = Annotated[
    Money, PlainValidator(money), WithJsonSchema({"type": "string", "examples": ["12 KRW"]})
]  # fmt: skip


def currency_code(value: Any) -> str:
    """Three capital letters. Raises ValueError."""
    if not (isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha() and value.isupper()):
        raise ValueError("it is no currency")
    return value
