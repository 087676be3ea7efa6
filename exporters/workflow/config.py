"""How a configuration names an n8n: its database or its API, and what is expected of its workflows."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from exporters.postgresql import Server as PostgresqlServer
from exporters.runtime.config import HttpUrl, Section, repeated

Text = Annotated[str, Field(min_length=1, max_length=200)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$", max_length=60)]


class Expected(Section):
    """A workflow (its id or name) that must succeed at least this often, active or not."""

    workflow: Text
    seconds: Annotated[float, Field(gt=0, le=366 * 86_400, strict=True)]


class N8n(Section):
    """One n8n, read from its PostgreSQL or SQLite database or from its API. `name`: the label `system`."""

    name: Text = "n8n"
    postgresql: PostgresqlServer | None = None
    sqlite: Path | None = None
    api: HttpUrl | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    db_schema: Annotated[Identifier, Field(alias="schema", min_length=1)] = "public"
    table_prefix: Identifier = ""
    workflows_max: Annotated[int, Field(ge=1, le=20_000, strict=True)] = 1000
    expected: list[Expected] = []

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = [key for key in ("postgresql", "sqlite", "api") if getattr(self, key) is not None]
        if len(named) != 1:
            found = " and ".join(named) or "none of them"
            raise ValueError(f"found {found}; name one source: postgresql, sqlite or api")
        if self.api and self.api_key_file is None:
            raise ValueError("api needs api_key_file, a file with a key made in n8n under Settings, n8n API")
        if not self.api and (self.api_key_file or self.ca_file):
            raise ValueError("api_key_file and ca_file belong to api, which is not named")
        return self

    @property
    def address(self) -> str:
        """Where it is read, without credentials."""
        if self.postgresql:
            return self.postgresql.address
        if self.sqlite:
            return str(self.sqlite)
        parts = urlsplit(self.api or "")
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}{parts.path}"


def _distinct(found: list[N8n]) -> list[N8n]:
    for key in ("name", "address"):
        values = [getattr(one, key) for one in found]
        twice = repeated(values)
        if twice is not None:
            what = f"give each n8n a name of its own: '{twice}' stands twice" if key == "name" else f"{twice} twice"
            raise ValueError(f"found {what}" if key == "address" else what)
    return found


Instances = Annotated[list[N8n], AfterValidator(_distinct)]
