"""What the acceptance tests saw, as one line for each line of the definition of done, printed at the end of the run.

A line's tests live in `test_<line>_*.py`. `seen(line, text)` says what was seen; a line counts as seen when all of its
tests passed and one of them said something. Otherwise the run's end says "not seen", and why.
"""

import re
from collections.abc import Callable, Generator

import pytest

from demo.recording import Recording
from tests.live_demo import LiveDemo

LINES = {
    1: "system state is seen live",
    2: "people are warned before the limit",
    3: "load rises and capacity rises",
    4: "a component fails, is mended, and people are told",
    5: "a month stays within its budget",
    6: "a bottleneck is named and remedied",
}
SEEN = pytest.StashKey[dict[int, list[str]]]()
WANTED = pytest.StashKey[set[int]]()
_FILE = re.compile(r"tests/acceptance/test_(\d)_\w+\.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The lines that this run has tests for, before -k and -m take some away."""
    config.stash[WANTED] = {line for item in items if (line := _line(item.nodeid))}


@pytest.fixture
def seen(pytestconfig: pytest.Config) -> Callable[[int, str], None]:
    """`seen(2, "75 % passed at 11,250 KRW, told after 9 s")`; several texts of one line are joined."""

    def say(line: int, text: str) -> None:
        assert line in LINES, f"there is no line {line}; the lines are {sorted(LINES)}"
        pytestconfig.stash.setdefault(SEEN, {}).setdefault(line, []).append(text)

    return say


@pytest.fixture(scope="session")
def recording(live_demo: LiveDemo) -> Recording:
    """What the shared run of the demo left behind."""
    assert live_demo.status == 0, live_demo.said
    return Recording.read(live_demo.folder)


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Generator[None]:
    """The six lines, after what failed."""
    yield
    reports = [
        report
        for outcome in ("passed", "failed", "error", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport) and _line(report.nodeid)
    ]
    if not reports:
        return  # this run was about something else
    terminalreporter.write_sep("=", "acceptance")
    texts = config.stash.get(SEEN, {})
    for line, title in LINES.items():
        why = _not_seen([report for report in reports if _line(report.nodeid) == line], texts.get(line, []))
        if why is None:
            terminalreporter.write_line(f"{line}. {title}: {'; '.join(texts[line])}")
        elif line in config.stash.get(WANTED, set()):
            so_far = f" (until then: {'; '.join(texts[line])})" if line in texts else ""
            terminalreporter.write_line(f"{line}. {title}: not seen: {why}{so_far}", red=True)
        else:
            terminalreporter.write_line(f"{line}. {title}: not seen: this run has no test of it", yellow=True)


def _line(node_id: str) -> int | None:
    found = _FILE.search(node_id)
    return int(found[1]) if found else None


def _not_seen(reports: list[pytest.TestReport], texts: list[str]) -> str | None:
    """Why a line was not seen; None if it was."""
    for report in reports:
        name = report.nodeid.rpartition("::")[2]
        if report.failed:
            lines = [text[1:].strip() for text in report.longreprtext.splitlines() if text.startswith("E ")]
            return f"{name} failed: {lines[0] if lines else report.longreprtext[-200:]}"
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            return f"{name} was skipped: {reason.removeprefix('Skipped: ')}"
    if not reports:
        return "its tests were not run"
    return None if texts else "its tests passed and said nothing"
