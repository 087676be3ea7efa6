"""Where history is read, and how `forecast` and `scale` run."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controllers.config.values import Count, HttpUrl, Number, distinct
from controllers.config.workloads import Lease
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
    """Where history is read. `tenant` is sent as X-Scope-OrgID; the bearer file is read again at each request."""

    url: HttpUrl = "http://127.0.0.1:9090"
    headers: dict[str, str] = {}
    tenant: str | None = None
    bearer_file: Path | None = None
    tls: Tls = Tls()
    timeout_seconds: Annotated[Number, Field(gt=0, le=120)] = 10.0


class ForecastSection(Section):
    """`tidewise forecast`: how often it publishes, fits anew, and what it publishes."""

    listen: list[ListenAddress] = ["127.0.0.1:9812"]
    interval_seconds: Annotated[Number, Field(ge=1)] = 30.0
    refit_seconds: Annotated[Number, Field(ge=60)] = 3600.0
    history_days: Annotated[Number, Field(gt=0, le=400)] = 30.0
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

    `token_file`: the bearer token of whoever may ask for a replacement; without it nobody may. `lease`: where several
    run, the Kubernetes Lease by which one of them acts.
    """

    listen: list[ListenAddress] = ["127.0.0.1:9813"]
    interval_seconds: Annotated[Number, Field(ge=1)] = 15.0
    data_age_limit_seconds: Annotated[Number, Field(gt=0)] = 120.0
    records: Path = Path(".tidewise/decisions")
    record_every_seconds: Annotated[Number, Field(ge=0)] = 600.0  # 0: every decision, not only changes
    token_file: Path | None = None
    replacements: Path = Path(".tidewise/replacements.json")
    lease: Lease | None = None
