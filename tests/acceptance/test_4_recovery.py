"""A component fails, recovery is attempted and people are told: a worker that is killed, another one that hangs.

From the run of the demo that all tests share. What was done to workers and when they were started anew is what the
demo wrote down; the attempts are those of recovery's journal; what people were told is what Alertmanager delivered.
"""

from collections.abc import Callable

import pytest

from demo.recording import Recording, Repair

pytestmark = [pytest.mark.real, pytest.mark.demo, pytest.mark.timeout(500)]

SYMPTOMS = {"killed": "WorkerDown", "hung": "WorkerHung"}


@pytest.mark.parametrize("what", SYMPTOMS)
def test_a_worker_fails_is_mended_and_people_are_told(
    recording: Recording, what: str, seen: Callable[[int, str], None]
) -> None:
    (failure,) = [one for one in recording.failures if one.what == what]
    repair = _repair(recording, failure.worker, SYMPTOMS[what], failure.at)

    # the symptom was seen, an attempt was made, it did what it said, and the symptom was away and stayed away
    assert repair.tries
    assert failure.restarted_at is not None
    attempt = repair.tries[0]
    assert attempt.ended_at is not None
    assert repair.well_since is not None
    assert repair.closed_at is not None
    assert repair.mended, repair
    assert failure.at < repair.opened_at <= attempt.at <= failure.restarted_at
    assert attempt.at <= attempt.ended_at
    assert attempt.at < repair.well_since < repair.closed_at

    told = [
        float(one["at"])
        for one in recording.notifications
        if one["status"] == "firing"
        and one["alertname"] == SYMPTOMS[what]
        and one["labels"]["worker"] == failure.worker
        and float(one["at"]) >= failure.at
    ]
    assert told, f"nobody was told of {failure.worker}: {recording.notifications}"

    # nobody else was touched
    assert {one.worker for one in recording.repairs} == {one.worker for one in recording.failures}
    seen(
        4,
        f"{failure.worker} {what}: people told after {told[0] - failure.at:.0f} s, {attempt.step} tried after "
        f"{attempt.at - failure.at:.0f} s, well after {repair.well_since - failure.at:.0f} s and verified after "
        f"{repair.closed_at - failure.at:.0f} s ({len(repair.tries)} attempt{'s' * (len(repair.tries) > 1)})",
    )


def _repair(recording: Recording, worker: str, symptom: str, since: float) -> Repair:
    found = [one for one in recording.repairs if one.worker == worker and one.opened_at >= since]
    assert found, f"recovery took nothing up for {worker}: {recording.repairs}"
    assert found[0].symptom == symptom
    return found[0]
