"""The schema in the tree is the code's, and the pages know every key."""

import re
from pathlib import Path
from typing import Any

import pytest

from controllers import schema
from controllers.check import read

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()


def test_the_schema_in_the_tree_is_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main([]) == 0
    assert (ROOT / "docs" / "tidewise.schema.json").read_text() == capsys.readouterr().out, (
        "run: tidewise schema > docs/tidewise.schema.json"
    )


def test_it_knows_the_exporters_section() -> None:
    document = schema.schema()
    text = str(document["properties"]["exporters"])
    assert "#/$defs/Exporters" in text
    assert {"host", "queue", "listen"} <= set(document["$defs"]["Exporters"]["properties"])


def test_money_is_written_as_text() -> None:
    assert schema.schema()["$defs"]["Price"]["properties"]["per_replica_hour"]["type"] == "string"


def test_unknown_keys_are_refused_everywhere() -> None:
    document = schema.schema()
    models = [document, *(model for model in document["$defs"].values() if "properties" in model)]
    assert [model["title"] for model in models if model.get("additionalProperties") is not False] == []


def keys(document: dict[str, Any]) -> set[str]:
    """The names of all keys: of the document and of every model that it refers to, which may refer to itself."""
    found: set[str] = set()
    waiting, seen = [document], set[str]()
    while waiting:
        for name, value in waiting.pop().get("properties", {}).items():
            found.add(name)
            for reference in set(re.findall(r"#/\$defs/(\w+)", str(value))) - seen:
                seen.add(reference)
                waiting.append(document["$defs"][reference])
    return found


def test_a_table_names_every_key() -> None:
    """In docs/configuration.md, or on the page of the process whose section it is."""
    document = schema.schema()
    pages = [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    tables = " ".join(line for page in pages for line in page.splitlines() if line.startswith(("|", "#")))
    words = set(re.findall(r"\w+", tables))
    assert sorted(keys(document) - words) == []


def test_the_first_workload_of_the_page_takes_15_lines_at_most_and_is_right(tmp_path: Path) -> None:
    first = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert first is not None
    assert len(first[1].splitlines()) <= 15
    (tmp_path / "tidewise.yaml").write_text(first[1])
    assert len(read(tmp_path / "tidewise.yaml").workloads) == 1
