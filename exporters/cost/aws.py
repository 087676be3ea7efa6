"""The month as AWS bills it: Cost Explorer, at most once a day, because each request costs 0.01 USD.

What was asked and answered stands in a file, and the asking is written down before it happens: a restart, or a crash in
the middle, does not ask again. A request that failed is repeated after an hour. Without that file nothing is asked.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from prometheus_client.metrics_core import Metric
from pydantic import Field

from exporters.collector import PartialReadError
from exporters.cost.money import currency_code, decimal, micro
from exporters.cost.spend import ASKED, ASKING, Line, Month, Scope, month_metrics
from exporters.runtime.config import ConfigError, HttpUrl, Section

SOURCE = "aws"
DAY, HOUR = 86_400.0, 3_600.0
ASKING_MICRO_USD = 10_000  # 0.01 USD
PAGES_MOST = 10


class Aws(Section):
    """Credentials are found as every AWS tool finds them: environment, profile, role."""

    state_file: Path
    profile: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    endpoint_url: HttpUrl | None = None


@dataclass
class State:
    """What stands in the file. `asks`: requests by month; `lines`: (service, amount as text, currency) of `month`."""

    asked_at: float = 0.0
    answered_at: float = 0.0
    month: str = ""
    lines: list[tuple[str, str, str]] = field(default_factory=list)
    asks: dict[str, int] = field(default_factory=dict)


class StateError(Exception):
    """The file cannot be used, so nothing is asked."""


class CostExplorer:
    """Asks once a day and shows the last answer."""

    def __init__(self, config: Aws, most: int) -> None:
        self._config, self._most = config, most
        self._state: State | None = None
        self._problem = ""  # of the last request; it stands until one is answered

    def collect(self, deadline: float) -> Iterator[Metric]:
        now = time.time()
        state = self._state = self._state or read_state(self._config.state_file)
        month = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
        if due(state, now):
            try:
                self._ask(state, now, month, deadline)
                self._problem = ""
            except StateError as error:
                self._problem = str(error)
            except Exception as error:  # whatever AWS or the way to it says; the last answer is still right
                state.asked_at = now
                self._problem = f"Cost Explorer did not answer; it is asked again in an hour: {said(error)}"
        if state.month == month:
            start = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp()
            lines = [
                Line(Scope("aws", service), currency, micro(decimal(amount)))
                for service, amount, currency in state.lines
            ]
            yield from month_metrics(Month(SOURCE, "billed", start, lines), self._most)
            asked = ASKED.metric()
            asked.add_metric([SOURCE], state.answered_at)
            yield asked
        asking = ASKING.metric()
        asking.add_metric([SOURCE, "USD"], state.asks.get(month, 0) * ASKING_MICRO_USD / 1_000_000)
        yield asking
        if self._problem:
            raise PartialReadError(self._problem)

    def _ask(self, state: State, now: float, month: str, deadline: float) -> None:
        """Raises StateError, and what boto3 raises."""
        token: str | None = None
        lines: list[tuple[str, str, str]] = []
        client = self._client(deadline)  # without credentials it ends here, and nothing was asked
        for _ in range(PAGES_MOST):
            asking = replace(state, asked_at=now, asks={month: state.asks.get(month, 0) + 1})
            write_state(self._config.state_file, asking)  # where that fails nothing was asked
            state.asked_at, state.asks = asking.asked_at, asking.asks
            answer = client.get_cost_and_usage(
                TimePeriod=period(now),
                Granularity="MONTHLY",
                Metrics=["UnblendedCost"],
                GroupBy=[{"Type": "DIMENSION", "Key": "SERVICE"}],
                **({"NextPageToken": token} if token else {}),
            )
            lines += lines_of(answer)
            token = answer.get("NextPageToken")
            if not token:
                break
        state.lines, state.month, state.answered_at = lines, month, now
        write_state(self._config.state_file, state)

    def _client(self, deadline: float) -> Any:
        import boto3
        from botocore.config import Config as Options

        seconds = max(0.5, (deadline - time.monotonic()) / 2 - 0.2)
        options = Options(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
        session = boto3.Session(profile_name=self._config.profile)
        if session.get_credentials() is None:
            raise RuntimeError("no credentials were found; give them as for any AWS tool, or a profile")
        return session.client(
            "ce", region_name="us-east-1", endpoint_url=self._config.endpoint_url, config=options
        )  # Cost Explorer lives there only


def needs_boto3() -> None:
    """Raises ConfigError where the package is not installed."""
    from importlib.util import find_spec

    if find_spec("boto3") is None:
        raise ConfigError(["exporters.cost.aws: needs the package boto3; install tidewise[aws]"])


def due(state: State, now: float) -> bool:
    """Whether it may be asked: a day after it was last asked, an hour after that failed. A clock set back waits."""
    answered = state.answered_at >= state.asked_at
    return now - state.asked_at >= (DAY if answered else HOUR) or state.asked_at > now + DAY


def period(now: float) -> dict[str, str]:
    """From the first of the month to the end of today; AWS counts in UTC and leaves the end out."""
    today = datetime.fromtimestamp(now, UTC).date()
    return {"Start": today.replace(day=1).isoformat(), "End": (today + timedelta(days=1)).isoformat()}


def lines_of(answer: Any) -> list[tuple[str, str, str]]:
    """(service, amount, currency) of an answer. Raises ValueError, as a sentence, for what is none."""
    try:
        found = [
            (str(group["Keys"][0]), group["Metrics"]["UnblendedCost"])
            for result in answer["ResultsByTime"]
            for group in result["Groups"]
        ]
        return [(name, str(decimal(cost["Amount"])), currency_code(cost["Unit"])) for name, cost in found]
    except (KeyError, TypeError, IndexError, ValueError):
        raise ValueError("the answer is not that of GetCostAndUsage by service") from None


def read_state(path: Path) -> State:
    """What the file says; nothing where there is none. Raises StateError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        state = State(**found)
        lines = [(str(a), str(decimal(b)), currency_code(c)) for a, b, c in state.lines]
        asks = {str(month): int(count) for month, count in state.asks.items()}
        return State(float(state.asked_at), float(state.answered_at), str(state.month), lines, asks)
    except FileNotFoundError:
        return State()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StateError(f"{path}: cannot be used ({said(error)}); AWS is not asked. Mend it or remove it") from None


def write_state(path: Path, state: State) -> None:
    """Replaces the file as a whole. Raises StateError."""
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StateError(f"{path}: cannot be written ({error.strerror}); AWS is not asked without it") from None


def said(error: Exception) -> str:
    """One line of what an error says."""
    return " ".join(str(error).split())[:300] or type(error).__name__
