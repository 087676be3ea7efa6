"""`tidewise schema`: the JSON Schema of the whole configuration file, for editors and for the chart's values.

Here, and only here, the controllers' sections and the exporters' section meet in one model.
"""

import argparse
import json
from typing import Any

from pydantic import create_model

from controllers.config import Config
from exporters.config import exporters_model


def main(argv: list[str]) -> int:
    """Prints the schema."""
    parser = argparse.ArgumentParser(
        prog="tidewise schema",
        description="Print the JSON Schema of tidewise.yaml; docs/tidewise.schema.json is a copy of it.",
        epilog="In an editor with a YAML language server, the file's first line may be: "
        "# yaml-language-server: $schema=docs/tidewise.schema.json",
    )
    parser.parse_args(argv)
    print(render(), end="")
    return 0


def file_model() -> type[Config]:
    """The model of the whole file; `exporters` is the exporters' own model, None where the file has no such section."""
    exporters: Any = exporters_model() | None
    return create_model(
        "Tidewise",
        __base__=Config,
        __doc__="The configuration of Tidewise: what is measured, what is scaled, and within which budget.",
        exporters=(exporters, None),
    )


def schema() -> dict[str, Any]:
    """The JSON Schema as a document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **file_model().model_json_schema()}


def render() -> str:
    """The JSON Schema as text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
