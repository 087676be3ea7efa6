"""docs/faults.md names a test for each bad day; each of them is there."""

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"


def test_every_test_that_the_page_names_is_there_and_every_line_names_one() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "| shown by |" not in line]
    assert len(rows) > 40
    missing = []
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert named, row
        missing += [f"{path}::{name}" for path, name in named if name not in _functions(TESTS / path)]
    assert missing == []


@cache
def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
