"""The controllers' sections of tidewise.yaml, as pydantic models: they check, they never change what was written."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, Field, model_validator

from controllers.domain import Mode
from exporters.runtime.config import ConfigError, ListenAddress, Section, read_yaml, validate

HOURS_PER_MONTH = Decimal("744")  # the longest month: a floor must be affordable in July too


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


class Tls(Section):
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure_skip_verify: bool = False


class Prometheus(Section):
    """Where history is read. `tenant` is sent as X-Scope-OrgID; the bearer file is read again at each request."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] = "http://127.0.0.1:9090"
    headers: dict[str, str] = {}
    tenant: str | None = None
    bearer_file: Path | None = None
    tls: Tls = Tls()
    timeout_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0


class Demand(Section):
    """Work arriving: exactly one of a queue, a service (of the `service:` contract), or one's own PromQL (per second)."""

    queue: str | None = None
    system: str = "redis"
    service: str | None = None
    promql: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("queue", "service", "promql") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'} of queue, service, promql; give exactly one")
        return self


class CommandTarget(Section):
    """Replicas asked for and set by programs of the user's own; argv lists, never a shell.

    `get` prints either a number or JSON: {"replicas": wanted, "ready": working}. One of the arguments of `set` holds
    `{replicas}`; `set` is told an absolute number and may be told the same number again.
    """

    get: Annotated[list[str], Field(min_length=1)]
    set: Annotated[list[str], Field(min_length=1)]
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0

    @model_validator(mode="after")
    def _has_placeholder(self) -> Self:
        if not any("{replicas}" in argument for argument in self.set):
            raise ValueError(f"set: found {self.set!r}; one argument must hold {{replicas}}")
        return self


class Target(Section):
    """Where the replicas live: exactly one of the actuators."""

    command: CommandTarget | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in type(self).model_fields if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of {', '.join(type(self).model_fields)}; give exactly one"
            )
        return self

    @property
    def kind(self) -> str:
        return next(key for key in type(self).model_fields if getattr(self, key) is not None)


class Bounds(Section):
    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"found min {self.min} and max {self.max}; max must be at least min")
        return self


class Slo(Section):
    """`objective` of the work waits at most `wait_seconds`."""

    wait_seconds: Annotated[float, Field(gt=0)] = 60.0
    objective: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class Capacity(Section):
    """What one replica serves until it has been learned: `concurrency` jobs at once, each of `service_seconds`."""

    service_seconds: Annotated[float, Field(gt=0)] | None = None
    concurrency: Annotated[int, Field(ge=1)] = 1


class Price(Section):
    per_replica_hour: MoneyText


class Limits(Section):
    """How fast the number may move: replicas a minute. None: no limit."""

    up_per_minute: Annotated[int, Field(ge=1)] | None = None
    down_per_minute: Annotated[int, Field(ge=1)] | None = None


class Workload(Section):
    """What is scaled. Identity is namespace/name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")] = "default"
    demand: Demand
    target: Target
    replicas: Bounds
    slo: Slo = Slo()
    capacity: Capacity = Capacity()
    price: Price | None = None
    mode: Mode = Mode.SHADOW
    lead_time_seconds: Annotated[float, Field(ge=0)] = 60.0  # until learned
    minimum_run_seconds: Annotated[float, Field(ge=0)] = 60.0  # minimum billing time of a replica
    stabilization_window_seconds: Annotated[float, Field(ge=0)] = 300.0  # for scale-in, as the HPA's
    limits: Limits = Limits()
    time_zone: TimeZone | None = None  # of its daily pattern; the budget's zone if absent

    @property
    def identity(self) -> str:
        return f"{self.namespace}/{self.name}"


class ForecastSection(Section):
    """`tidewise forecast`: how often it publishes, fits anew, and what it publishes."""

    listen: list[ListenAddress] = ["127.0.0.1:9812"]
    interval_seconds: Annotated[float, Field(ge=1)] = 30.0
    refit_seconds: Annotated[float, Field(ge=60)] = 3600.0
    history_days: Annotated[float, Field(gt=0, le=400)] = 30.0
    valid_seconds: Annotated[float, Field(gt=0)] = 900.0
    horizons_seconds: Annotated[list[Annotated[int, Field(ge=60, le=86400)]], Field(min_length=1, max_length=5)] = [
        120,
        300,
        900,
        1800,
        3600,
    ]
    quantiles: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=3)] = [
        0.1,
        0.9,
        0.98,
    ]


class ScaleSection(Section):
    """`tidewise scale`: how often it decides, when data is too old, where decision records are kept."""

    listen: list[ListenAddress] = ["127.0.0.1:9813"]
    interval_seconds: Annotated[float, Field(ge=1)] = 15.0
    data_age_limit_seconds: Annotated[float, Field(gt=0)] = 120.0
    records: Path = Path(".tidewise/decisions")
    record_every_seconds: Annotated[float, Field(ge=0)] = 600.0  # 0: every decision, not only changes


class FixedCost(Section):
    name: str
    monthly: MoneyText


class Budget(Section):
    """The month's money: in all, and the part of it for API and cloud usage."""

    total: MoneyText
    usage: MoneyText | None = None
    fixed: list[FixedCost] = []
    time_zone: TimeZone = "UTC"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


class Config(Section):
    """The whole file as the controllers see it; the exporters' section is theirs to read."""

    prometheus: Prometheus = Prometheus()
    exporters: dict[str, Any] | None = None
    workloads: list[Workload] = []
    forecast: ForecastSection = ForecastSection()
    scale: ScaleSection = ScaleSection()
    budget: Budget | None = None

    def workload(self, name: str) -> Workload | None:
        """By identity, or by bare name where only one namespace has it."""
        found = [w for w in self.workloads if name in (w.identity, w.name)]
        return found[0] if len(found) == 1 else next((w for w in found if w.identity == name), None)


def load(path: Path) -> Config:
    """Raises ConfigError: every mistake of the file, and what cannot be although each value alone is right."""
    config = validate(Config, read_yaml(path), path)
    problems = list(contradictions(config))
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return config


def contradictions(config: Config) -> list[str]:
    """Mistakes that only show between sections: twins, and floors dearer than the budget."""
    problems: list[str] = []
    seen: dict[str, int] = {}
    for index, workload in enumerate(config.workloads):
        if workload.identity in seen:
            problems.append(
                f"workloads.{index}.name: '{workload.identity}' stands twice (also workloads.{seen[workload.identity]}); "
                "rename one or give it a namespace"
            )
        seen.setdefault(workload.identity, index)
    return problems + _floors(config)


def _floors(config: Config) -> list[str]:
    budget = config.budget
    if budget is None:
        return []
    problems: list[str] = []
    limit, limit_name = (budget.usage, "budget.usage") if budget.usage else (budget.total, "budget.total")
    for index, fixed in enumerate(budget.fixed):
        if fixed.monthly.currency != budget.total.currency:
            problems.append(
                f"budget.fixed.{index}.monthly: found {fixed.monthly}; "
                f"the budget is in {budget.total.currency}, write it in that"
            )
    if budget.usage and budget.usage.currency != budget.total.currency:
        problems.append(
            f"budget.usage: found {budget.usage}; budget.total is in {budget.total.currency}, write both in one currency"
        )
    if problems:
        return problems
    committed = sum((f.monthly.amount for f in budget.fixed), Decimal(0))
    if committed + (budget.usage.amount if budget.usage else Decimal(0)) > budget.total.amount:
        problems.append(
            f"budget.total: found {budget.total}; fixed costs and usage add up to more: raise it or lower them"
        )
    floor = Decimal(0)
    for index, workload in enumerate(config.workloads):
        if workload.price is None:
            continue
        price = workload.price.per_replica_hour
        if price.currency != limit.currency:
            continue  # converted by the ledger, which knows the day's rate
        floor += workload.replicas.min * price.amount * HOURS_PER_MONTH
        if floor > limit.amount:
            problems.append(
                f"workloads.{index}.replicas.min: found {workload.replicas.min}; "
                f"the floors so far cost {floor:,.0f} {limit.currency} a month "
                f"({price} an hour x {HOURS_PER_MONTH} hours), "
                f"more than {limit_name} ({limit}); lower min or raise the budget"
            )
    return problems
