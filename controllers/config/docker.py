"""One service of a Compose project, scaled through the Docker API."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from controllers.config.values import Number
from exporters.runtime.config import Section


def _daemon(url: str) -> str:
    try:
        parts = urlsplit(url)
        at_socket = parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc
        at_port = parts.scheme == "tcp" and bool(parts.hostname) and bool(parts.port) and not parts.path
    except ValueError:
        at_socket = at_port = False
    if not (at_socket or at_port):
        raise ValueError(f"found '{url}'; write unix:///var/run/docker.sock or tcp://HOST:2376")
    return url


class DockerTarget(Section):
    """Containers of one service, found by Compose's own labels `com.docker.compose.project` and `…service`.

    `stop_seconds`: how long a busy container may take to end; None: its own (`stop_grace_period`, else 10 s).
    """

    project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    service: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]+$")]
    host: Annotated[str, AfterValidator(_daemon)] = "unix:///var/run/docker.sock"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    stop_seconds: Annotated[Number, Field(ge=0, le=86400)] | None = None
    timeout_seconds: Annotated[Number, Field(gt=0, le=300)] = 10.0  # for reading, and again for setting

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("found one of cert_file and key_file; give both")
        return self
