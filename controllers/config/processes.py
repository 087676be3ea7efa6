"""Where history is read, and how `forecast` and `scale` run."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controllers.config.calendar import Holidays
from controllers.config.publish import ExternalMetrics, ExternalScaler
from controllers.config.targets import Lease
from controllers.config.values import Count, HttpUrl, Number, distinct
from exporters.runtime.config import ListenAddress, Section


class Tls(Section):
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure_skip_verify: bool = False

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("found key_file without cert_file; give both")
        return self


class Prometheus(Section):
    """Where history is read. `tenant` is sent as X-Scope-OrgID; the bearer file is read again at each request.

    `longterm_url`: the server that keeps a year (prometheus/longterm.yml), where that is another one.
    """

    url: HttpUrl = "http://127.0.0.1:9090"
    longterm_url: HttpUrl | None = None
    headers: dict[str, str] = {}
    tenant: str | None = None
    bearer_file: Path | None = None
    tls: Tls = Tls()
    timeout_seconds: Annotated[Number, Field(gt=0, le=120)] = 10.0


def _divides_an_hour(seconds: int) -> int:
    if 3600 % seconds:
        raise ValueError(f"found {seconds}, which does not divide an hour; write 60, 120, 300, 600, 900, 1800 or 3600")
    return seconds


def scheduler_address(address: str) -> str:
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("tcp", "tls") or not host or not port.isascii() or not port.isdigit() or "/" in rest:
        raise ValueError(f"found '{address}'; write a Dask scheduler's address, for example tcp://10.0.0.5:8786")
    return address


class ForecastSection(Section):
    """`tidewise forecast`: how often it publishes, fits anew, and what it publishes."""

    listen: list[ListenAddress] = ["127.0.0.1:9812"]
    interval_seconds: Annotated[Number, Field(ge=1)] = 30.0
    refit_seconds: Annotated[Number, Field(ge=60)] = 3600.0
    history_days: Annotated[Number, Field(gt=0, le=400)] = 30.0
    step_seconds: Annotated[Count, Field(ge=60, le=3600), AfterValidator(_divides_an_hour)] = 60  # fleets: 300
    rollup_days: Annotated[Count, Field(ge=0, le=800)] = 365  # of hourly means; 0: none
    holidays: Holidays | None = None  # of every workload that does not name its own
    workers: Annotated[Count, Field(ge=0, le=256)] = 1  # processes that fit; 0: as many as there are cores but one
    scheduler: Annotated[str, AfterValidator(scheduler_address)] | None = None  # of a Dask cluster that fits instead
    heavy_cpu_seconds_per_day: Annotated[Number, Field(ge=0, le=1e7)] = 3600.0  # for slow models, over all workloads
    valid_seconds: Annotated[Number, Field(gt=0)] = 900.0
    horizons_seconds: Annotated[
        list[Annotated[Count, Field(ge=60, le=86400)]], Field(min_length=1, max_length=5), AfterValidator(distinct)
    ] = [
        120,
        300,
        900,
        1800,
        3600,
    ]
    quantiles: Annotated[
        list[Annotated[Number, Field(gt=0, lt=1)]], Field(min_length=1, max_length=3), AfterValidator(distinct)
    ] = [
        0.1,
        0.9,
        0.98,
    ]


class ScaleSection(Section):
    """`tidewise scale`: how often it decides, when data is too old, where decision records are kept.

    `token_file`: the bearer token of whoever may ask for a replacement or an override; without it nobody may.
    `lease`: where several run, the Kubernetes Lease by which one of them acts.
    """

    listen: list[ListenAddress] = ["127.0.0.1:9813"]
    interval_seconds: Annotated[Number, Field(ge=1)] = 15.0
    data_age_limit_seconds: Annotated[Number, Field(gt=0)] = 120.0
    records: Path = Path(".tidewise/decisions")
    record_every_seconds: Annotated[Number, Field(ge=0)] = 600.0  # 0: every decision, not only changes
    record_days: Annotated[Count, Field(ge=1)] = 90  # of so many days decisions are kept
    token_file: Path | None = None
    replacements: Path = Path(".tidewise/replacements.json")
    overrides: Path = Path(".tidewise/overrides.jsonl")
    url: HttpUrl = "http://127.0.0.1:9813"  # where `tidewise surge` and `pause` ask
    lease: Lease | None = None
    external_metrics: ExternalMetrics | None = None  # for an HPA that follows a target `publish`
    external_scaler: ExternalScaler | None = None  # for a ScaledObject of KEDA's that does
