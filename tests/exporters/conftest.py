"""What the exporters' tests share: the page that collect functions make, and what was logged meanwhile."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from exporters.collector import CollectFunction, PartialReadError
from tests.exporters import seen

seen.watch()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and report.when == "setup" and "skipif" not in report.keywords:
        seen.MISSING.add(report.location[0])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What judges the run comes last."""
    items.sort(key=lambda item: item.path.name == "test_seen.py")


class _Plain:
    """Collect functions without the wrapper, which adds series of its own."""

    def __init__(self, functions: Mapping[str, CollectFunction]) -> None:
        self.functions = functions

    def collect(self) -> Iterable[object]:
        for function in self.functions.values():
            try:
                yield from function(time.monotonic() + 5)
            except PartialReadError:
                continue


@pytest.fixture
def page() -> Callable[[Mapping[str, CollectFunction]], str]:
    """The text page of some collect functions, nothing else on it."""

    def render(functions: Mapping[str, CollectFunction]) -> str:
        registry = CollectorRegistry()
        registry.register(_Plain(functions))  # type: ignore[arg-type]  # collect() is all that a registry asks of it
        return generate_latest(registry).decode()

    return render


@pytest.fixture
def log_events() -> Iterator[Callable[[], list[tuple[str, str]]]]:
    """The events logged so far, each with its problem."""
    with structlog.testing.capture_logs() as entries:
        yield lambda: [(entry["event"], entry.get("problem", "")) for entry in entries]
