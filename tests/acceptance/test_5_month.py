"""A month of realistic use: dearer than the budget without limits, within it with them, and what matters was served."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.month import FIXED, TOTAL, Month, live_month, served_text
from controllers.budget.statement import statement_text
from controllers.budget.words import Priority

pytestmark = pytest.mark.timeout(400)

SEED = 1
WAYS = {
    "without limits": {"limited": False},
    "with limits": {},
    "the cap alone": {"alike": True},
}
# What is tested here are the decisions; that a commit survives a crash has tests of its own, and needs a disk.
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def months(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Month]]]:
    """The same month in three ways, two at a time, each in a process and a ledger of its own."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("months")
        if MEMORY.is_dir():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        spawn = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(2, mp_context=spawn))
        futures = {}
        for way, how in WAYS.items():
            (ledger := folder / way.replace(" ", "-")).mkdir()
            futures[way] = pool.submit(live_month, ledger, SEED, **how)
        yield futures


def test_a_month_stays_within_its_budget(
    months: dict[str, Future[Month]], seen: Callable[[int, str], None]
) -> None:  # fmt: skip
    free, month = months["without limits"].result(), months["with limits"].result()

    assert free.total > TOTAL
    assert min(free.lived.served_ratio(priority) or 0.0 for priority in Priority) > 0.99

    # after every single row of the ledger
    assert month.highest_posted <= TOTAL
    assert month.highest_promised <= TOTAL
    assert month.total >= 0.7 * TOTAL
    critical = month.lived.served_ratio(Priority.CRITICAL)
    assert critical is not None
    assert critical >= 0.95
    assert month.level_changes < 100  # people can follow what the levels do

    text = list(statement_text(month.statement, "KRW"))
    assert text[-1].startswith(f"{month.total:,.2f} KRW spent")
    assert month.statement.posted + month.statement.committed == round((month.posted + FIXED) * 1e6)
    seen(
        5,
        f"without limits {free.total:,.0f} KRW; with them {month.total:,.0f} of {TOTAL:,} ({month.total / TOTAL:.0%}), "
        f"with holds never above {month.highest_promised:,.0f}; served {served_text(month.lived)}",
    )
    seen(5, "its statement:\n\n" + "\n".join(f"   {line}".rstrip() for line in text) + "\n")


def test_with_the_cap_alone_what_is_critical_would_not_have_been_served(months: dict[str, Future[Month]]) -> None:
    month = months["the cap alone"].result()
    assert month.highest_promised <= TOTAL
    critical = month.lived.served_ratio(Priority.CRITICAL)
    assert critical is not None
    assert critical < 0.95
