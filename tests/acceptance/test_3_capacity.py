"""Load rises and capacity rises: on the real queue and workers of the run of the demo that all tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from controllers.domain import Reason
from controllers.scale.records import read
from demo.recording import Recording
from demo.summary import need

pytestmark = [pytest.mark.real, pytest.mark.demo, pytest.mark.timeout(500)]


def test_load_rises_and_capacity_rises(recording: Recording, seen: Callable[[int, str], None]) -> None:
    times = [recording.live_start + n for n in range(int(recording.live_end - recording.live_start))]
    needed = need(recording, times)
    rising = next(at for at, number in zip(times, needed, strict=True) if number == max(needed))
    assert max(needed) > needed[0], "demand did not rise"

    # what was measured: jobs a second arriving, and workers ready to work
    (demand,) = recording.named("workload:demand:rate1m")
    first = [value for at, value in zip(demand.times, demand.values, strict=True) if at <= recording.rise_at]
    most = max(demand.values)
    assert most > 1.1 * first[0]

    fleet = [change for change in recording.fleet if recording.live_start <= change.at <= recording.live_end]
    ready_before = [change for change in recording.fleet if change.at <= recording.live_start][-1].ready
    ready_after = max(change.ready for change in fleet)
    assert ready_after >= max(needed) > 0
    assert ready_after > ready_before

    # it was told before demand came to need it, by decisions that looked ahead
    told_at = next(change.at for change in recording.fleet if change.wanted >= max(needed))
    assert told_at < rising
    records = list(read(Path(recording.decisions)))
    foreseen = [record for record in records if Reason.FORECAST in record.decision.reasons]
    assert foreseen, "no decision rested on a forecast"
    seen(
        3,
        f"demand rose from {first[0]:.0f} to {most:.0f} jobs/s, ready workers from {ready_before} to {ready_after}; "
        f"the {max(needed)} that the rise came to need were told {rising - told_at:.0f} s before it did; "
        f"{len(foreseen)} of {len(records)} decisions rested on a forecast",
    )
