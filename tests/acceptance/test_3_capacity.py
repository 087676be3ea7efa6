"""Load rises and capacity rises: on the real queue and workers of the run of the demo that all tests share.

That run is short: of the trace's daily rise it sees the first minute, and a burst on top. How far ahead a whole rise is
met is measured by `make demo` and benchmarks/ramp.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from controllers.scale.records import Record, read
from demo.recording import Recording

pytestmark = [pytest.mark.real, pytest.mark.demo, pytest.mark.timeout(500)]


def test_load_rises_and_capacity_rises(recording: Recording, seen: Callable[[int, str], None]) -> None:
    (demand,) = recording.named("workload:demand:rate1m")
    before, most = demand.values[0], max(demand.values)
    assert most > 1.1 * before

    ready_before = [change for change in recording.fleet if change.at <= recording.live_start][-1].ready
    ready_after = max(change.ready for change in recording.fleet if change.at <= recording.live_end)
    assert ready_after > ready_before

    # of the numbers on the way up, which were told before present demand asked for them: said, not asked for here,
    # since a burst that nobody can foresee is most of this short way
    ahead = _ahead(list(read(Path(recording.decisions))))
    assert ahead, "nothing was told on the way up"
    early = {number: seconds for number, seconds in ahead.items() if seconds is None or seconds > 0}
    longest = max((seconds for seconds in early.values() if seconds is not None), default=None)
    by = "" if longest is None else f", by up to {longest:.0f} s"
    seen(3, f"demand rose from {before:.0f} to {most:.0f} jobs/s, ready workers from {ready_before} to {ready_after}")
    seen(3, f"{len(early)} of {len(ahead)} numbers told on the way up came before present demand asked for them{by}")


def _ahead(records: Sequence[Record]) -> dict[int, float | None]:
    """Number told on the way up -> seconds until present demand alone wanted as many; None: it never did.

    Zero or less: it did already.
    """
    found: dict[int, float | None] = {}
    highest = records[0].decision.current or 0
    for record in records:
        told = record.told or 0
        for number in range(highest + 1, told + 1):
            wanted = [one.decision.at for one in records if (one.decision.reactive or 0) >= number]
            found[number] = wanted[0] - record.decision.at if wanted else None
        highest = max(highest, told)
    return found
