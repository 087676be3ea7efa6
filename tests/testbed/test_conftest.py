"""The end of every run lists what was skipped and why."""

import subprocess
import sys
from pathlib import Path

import pytest

TWO_SKIP = """
import pytest

def test_runs(): pass

@pytest.mark.parametrize("part", ["a", "b"])
def test_needs(part): pytest.skip("no GPU here")
"""
FILE_SKIPS = "import pytest\npytest.importorskip('a_library_nobody_has', reason='needs a_library_nobody_has')\n"


@pytest.mark.parametrize(
    ("source", "options", "end"),
    [
        pytest.param(
            TWO_SKIP,
            [],
            ["skipped: 2", "no GPU here:", "  test_it.py::test_needs[a]", "  test_it.py::test_needs[b]"],
            id="skipped tests stand under their reason",
        ),
        pytest.param(
            FILE_SKIPS, [], ["skipped: 1", "needs a_library_nobody_has:", "  test_it.py"], id="a whole file that skips"
        ),
        pytest.param(
            TWO_SKIP,
            ["-k", "runs"],
            ["skipped: none (2 not selected)"],
            id="nothing skipped is said too, and what was not asked for",
        ),
    ],
)
def test_a_run_ends_with_the_list_of_what_was_skipped(
    tmp_path: Path, source: str, options: list[str], end: list[str]
) -> None:
    conftest = Path(__file__).parents[1] / "conftest.py"
    (tmp_path / "conftest.py").write_text(conftest.read_text())
    (tmp_path / "test_it.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--rootdir", tmp_path, *options, tmp_path],
        cwd=conftest.parents[1],
        capture_output=True,
        text=True,
    )

    lines = run.stdout.splitlines()
    heading = next(number for number, line in enumerate(lines) if line.strip("=") == " skipped ")
    assert lines[heading + 1 : -1] == end  # the very last line counts the tests
