"""The month as Tidewise's ledger has it: `GET /statement`, with the ledger's token."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.metrics_core import Metric

from exporters.cost.money import currency_code, decimal, micro
from exporters.cost.spend import Line, Month, Scope, month_metrics
from exporters.jsonapi import ApiError, get_json, secret
from exporters.runtime.config import HttpUrl, Section

SOURCE = "ledger"


class Ledger(Section):
    """Where `tidewise budget` answers."""

    url: HttpUrl
    token_file: Path
    ca_file: Path | None = None

    @property
    def address(self) -> str:
        """HOST:PORT."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


class LedgerReader:
    """Reads the statement at each scrape."""

    def __init__(self, config: Ledger, most: int) -> None:
        self._config, self._most = config, most

    def collect(self, deadline: float) -> Iterator[Metric]:
        token = secret(self._config.token_file, "exporters.cost.ledger.token_file")
        url = f"{self._config.url}/statement"
        answer = get_json(url, {"Authorization": f"Bearer {token}"}, deadline, ca_file=self._config.ca_file)
        try:
            month = month_of(answer)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ApiError(f"{url}: an answer of another kind; is this the ledger, and of this version?") from None
        yield from month_metrics(month, self._most)


def month_of(answer: Any) -> Month:
    """A statement as values. Raises KeyError, TypeError, ValueError or AttributeError for what is none."""
    currency = currency_code(answer["currency"])
    dated = answer["price_table"]["dated"]
    lines = [
        Line(
            Scope(*(str(line[name]) for name in ("provider", "service", "model", "workflow", "workload"))),
            currency,
            micro(decimal(line["posted"])),
            {str(unit): float(quantity) for unit, quantity in line["units"].items()},
        )
        for line in answer["lines"]
    ]
    spent = [line for line in lines if line.amount or line.units]
    return Month(SOURCE, "estimated", float(answer["start"]), spent, None if dated is None else float(dated))
