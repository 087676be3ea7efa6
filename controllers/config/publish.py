"""A number that is only published, for KEDA or an HPA to follow, and the two doors beside /metrics that they ask at."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from controllers.config.values import Number, Text
from exporters.runtime.config import ListenAddress, Section


class PublishTarget(Section):
    """Replicas that somebody else sets, by the number that is published here.

    `ready`: PromQL, one series: how many replicas work. `wanted`: PromQL: how many that other one has asked for; it
    counts until a number was published. A number is good for `valid_seconds` after the last decision that rested on
    measurements; then it is gone, not 0.
    """

    ready: Text
    wanted: Text | None = None
    valid_seconds: Annotated[Number, Field(gt=0, le=3600)] = 120.0


class ExternalMetrics(Section):
    """Kubernetes' external metrics API. The API server asks it by TLS only: `web_config` is as of --web.config.file."""

    listen: list[ListenAddress] = ["127.0.0.1:9816"]
    web_config: Path


class ExternalScaler(Section):
    """KEDA's external scaler, by gRPC. With `client_ca_file` only clients with a certificate of that authority."""

    listen: ListenAddress = "127.0.0.1:9817"
    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("found one of cert_file and key_file; give both, or none for a connection without TLS")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("found client_ca_file without cert_file; clients show certificates only by TLS")
        return self
