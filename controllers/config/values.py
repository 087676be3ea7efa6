"""The kinds of value that stand in the file: strict numbers, money with its currency, names, addresses, time zones."""

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from exporters.runtime.config import Section

# As written: neither true nor '60' is a number here.
Number = Annotated[float, Field(strict=True)]
Count = Annotated[int, Field(strict=True)]


class Money(Section):
    """An amount in one currency, written as '12 KRW'."""

    amount: Annotated[Decimal, Field(ge=0, max_digits=24)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]

    def __str__(self) -> str:
        return f"{self.amount:,f} {self.currency}"


def _money(value: object) -> object:
    if not isinstance(value, str):
        if isinstance(value, (int, float)):
            raise ValueError(f"found {value!r}; write an amount with its currency, for example '12 KRW'")
        return value
    amount, _, currency = value.strip().partition(" ")
    try:
        number = Decimal(amount.replace(",", "").replace("_", ""))
    except InvalidOperation:
        raise ValueError(f"found '{value}'; write an amount with its currency, for example '12 KRW'") from None
    if not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise ValueError(f"found '{value}'; write the currency as three capital letters, for example '12 KRW'")
    if not number.is_finite() or number < 0:
        raise ValueError(f"found '{value}'; money cannot be negative or infinite")
    return {"amount": number, "currency": currency}


MoneyText = Annotated[Money, BeforeValidator(_money, json_schema_input_type=str)]


def _time_zone(value: object) -> object:
    if isinstance(value, str) and value not in available_timezones():
        raise ValueError(f"found '{value}'; write an IANA time zone, for example Asia/Seoul")
    return value


TimeZone = Annotated[str, BeforeValidator(_time_zone)]


def _written(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; write it, or leave the key out")
    return text


Text = Annotated[str, AfterValidator(_written)]

NAME = r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$"


def _name(text: str) -> str:
    if not re.match(NAME, text) or text.endswith("\n"):
        raise ValueError(
            f"found {text!r}; write at most 63 lower-case letters, digits, '-' and '.', "
            "with a letter or digit at both ends"
        )
    return text


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": NAME})]

URL = r"^https?://[^/\s]+(/\S*)?$"


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.username or parts.password:  # not repeated: it would be in every log
        raise ValueError(
            "holds a user or password; write them into headers or bearer_file, addresses are shown in logs"
        )
    if not re.match(URL, text) or not parts.hostname or port == 0:
        raise ValueError(f"found {text!r}; write http://HOST:PORT or https://HOST:PORT")
    return text


HttpUrl = Annotated[str, AfterValidator(_http_url), Field(json_schema_extra={"pattern": URL})]


def distinct(values: list[Any]) -> list[Any]:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"found {twice} twice; remove one")
    return values


_LENGTH = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def seconds_of(duration: str) -> float:
    """Of a length of time as it is written: '90m', '1h30m', '2d'. 0 for what is none."""
    found = _LENGTH.fullmatch(duration)
    sizes = zip(found.groups(), (86_400, 3600, 60, 1), strict=True) if found else ()
    return float(sum(int(number or 0) * size for number, size in sizes))


def _duration(value: object) -> object:
    if not isinstance(value, str) or not 0 < seconds_of(value) <= 366 * 86_400:
        raise ValueError(f"found {value!r}; write a length of time such as 90m, 2h, 1h30m or 1d")
    return value


Duration = Annotated[str, BeforeValidator(_duration, json_schema_input_type=str)]
