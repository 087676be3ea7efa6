"""The month's money in the demo: what was spent before it (assumed), what people know of that, what the ledger says.

The ledger begins with the spend of the month so far, so that the live part passes one line of the budget. That spend
is the demo's assumption; it is put into the ledger's file by the ledger's own code, with the clock of those days,
before the live part: as the demand's history is put into Prometheus.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from controllers.budget.costing import costing_of
from controllers.budget.ledger import Ledger
from controllers.budget.periods import bounds, period_of
from controllers.budget.words import MICRO, Scope, micro
from controllers.config import Config, Money
from demo import settings
from demo.paid import used_units

HOME = "Asia/Seoul"
AWAY_FROM_TURN_SECONDS = 6 * 3600.0  # of a month: nearer than this the demo's month is that of UTC
DAY = 86_400.0
RECENT_SECONDS = 7 * DAY  # what the ledger projects the month's end from
LAST_ENTRY_SECONDS = 2 * 3600.0  # before now: the ledger's short windows hold nothing of the assumption
THRESHOLDS = (0.5, 0.75, 0.9)  # people are told at, as prometheus/rules/budget-alerts.yml has it


class MoneyError(Exception):
    """The ledger or Alertmanager does not answer as it should. `str()` says what was found."""


@dataclass(frozen=True, slots=True)
class Spend:
    """One entry of the assumed past, in micro-KRW."""

    at: float
    amount: int


def time_zone(now: float, live_seconds: float) -> str:
    """Seoul's, except around the turn of its month: then that of UTC, whose month turns nine hours later.

    So the month is hours old and does not end while the demo runs, whatever day it is.
    """
    zone = ZoneInfo(HOME)
    start, end = bounds(period_of(now, zone), zone)
    near = now - start < AWAY_FROM_TURN_SECONDS or end - now < AWAY_FROM_TURN_SECONDS + live_seconds
    return "UTC" if near else HOME


def call_cost(config: Config, at: float) -> Decimal:
    """What a paid call costs on average, in KRW, as the ledger would reckon it."""
    if config.budget is None:
        raise ValueError("the configuration has no section 'budget'")
    costing = costing_of(config.budget)
    numbers = range(0, 11 * settings.PAID_EVERY, settings.PAID_EVERY)
    amounts = [
        costing.actual(
            settings.PROVIDER, settings.MODEL, {k: Decimal(v) for k, v in used_units(n).items()}, {}, at
        ).amount
        for n in numbers
    ]
    return Decimal(sum(amounts)) / len(amounts) / MICRO


def earlier(now: float, zone: ZoneInfo, posted: int, limit: int) -> list[Spend]:
    """`posted` micro-KRW over the month until now: a day's share each day, or, where the month is too young for that
    to end well, most of it as a batch at its beginning.

    The last week's part is bounded so that the month's end as foreseen from it stays below the limit where it can.
    """
    start, end = bounds(period_of(now, zone), zone)
    last = now - LAST_ENTRY_SECONDS
    times = [start + 1800.0]
    while times[-1] + DAY <= last:
        times.append(times[-1] + DAY)
    recent = [at for at in times[1:] if at > now - RECENT_SECONDS]
    if not recent:
        return [Spend(times[0], posted)]
    even = posted * len(recent) // len(times)
    room = max(0.0, 0.95 * limit - posted) * RECENT_SECONDS / max(end - now, DAY)
    lately = min(even, int(room))
    before = times[: len(times) - len(recent)]
    shares = [(before, posted - lately), (recent, lately)]
    return [
        Spend(at, amount) for some, whole in shares for at, amount in zip(some, _parts(whole, len(some)), strict=True)
    ]


def _parts(whole: int, count: int) -> list[int]:
    """As even as integers can be; they add up to the whole."""
    return [whole * (i + 1) // count - whole * i // count for i in range(count)]


def write_ledger(config: Config, spent: Sequence[Spend]) -> None:
    """The ledger's file with the assumed past in it. Raises LedgerError."""
    budget = config.budget
    if budget is None:
        raise ValueError("the configuration has no section 'budget'")
    costing = costing_of(budget)
    fixed = [(cost.name, micro(cost.monthly.amount)) for cost in budget.fixed]
    ledger = Ledger(budget.ledger, budget.total.currency, budget.zone, fixed)
    scope = Scope(settings.PROVIDER, "", settings.MODEL, "earlier this month (assumed)", settings.WORKLOAD)
    try:
        for number, spend in enumerate(spent):
            bill = Money(amount=Decimal(spend.amount) / MICRO, currency=budget.total.currency)
            ledger.usage(f"demo/earlier/{number}", "assumed", scope, costing.billed(bill, spend.at), spend.at)
    finally:
        ledger.close()


def passed(posted: int) -> list[tuple[str, str]]:
    """(budget, threshold) of the lines that this much posted spend has passed, in micro-KRW."""
    ratios = {
        "usage": posted / (settings.USAGE_BUDGET * MICRO),
        "total": (posted + settings.SERVER_COST * MICRO) / (settings.TOTAL_BUDGET * MICRO),
    }
    return [
        (name, f"{threshold * 100:g}")
        for name, ratio in ratios.items()
        for threshold in THRESHOLDS
        if ratio >= threshold
    ]


def silence_known(alertmanager_url: str, known: Sequence[tuple[str, str]], now: float) -> None:
    """Keep quiet about what people were told earlier in the month. Raises MoneyError."""
    for budget, threshold in known:
        about = {"alertname": "BudgetThreshold", "budget": budget, "threshold": threshold}
        ask(
            f"{alertmanager_url}/api/v2/silences",
            {
                "matchers": [{"name": k, "value": v, "isRegex": False, "isEqual": True} for k, v in about.items()],
                "startsAt": datetime.fromtimestamp(now, UTC).isoformat(),
                "endsAt": (datetime.fromtimestamp(now, UTC) + timedelta(days=1)).isoformat(),
                "createdBy": "demo",
                "comment": "passed earlier in the month; people were told then (the demo's assumption)",
            },
        )


def read_ledger(budget_url: str, token_file: Path) -> dict[str, Any] | None:
    """State and statement as the ledger tells them; None where it does not answer."""
    try:
        return {name: ask(f"{budget_url}/{name}", None, token_file) for name in ("state", "statement")}
    except MoneyError:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: never through a proxy


def ask(url: str, body: Mapping[str, Any] | None, token_file: Path | None = None) -> dict[str, Any]:
    """The JSON answer to a GET, or to a POST where there is a body. Raises MoneyError."""
    headers = {"Content-Type": "application/json"}
    if token_file is not None:
        headers["Authorization"] = f"Bearer {token_file.read_text(encoding='utf-8').strip()}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, headers)  # noqa: S310 - an address that the demo made
    try:
        with _OPENER.open(request, timeout=5.0) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as error:
        raise MoneyError(f"{url}: {error.code} {error.read(300).decode(errors='replace')}") from None
    except (OSError, ValueError) as error:
        raise MoneyError(f"{url}: {error}") from None
