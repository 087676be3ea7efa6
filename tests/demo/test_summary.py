"""The figures of a run, and the reasons where there are none."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from demo.compare import _as_recorded
from demo.recording import FleetChange, Job, Recording
from demo.summary import need, ramp_lead_seconds, simulator_fidelity, summary, worker_minutes

START = 1_800_000_000.0
Changed = Callable[..., Recording]


def told(*steps: tuple[float, int]) -> list[FleetChange]:
    """A fleet that was told these numbers at these seconds and has them at once."""
    return [FleetChange(START + second, number, number, 0, 0) for second, number in steps]


def test_a_run_that_went_well(recording: Recording) -> None:
    figures = summary(recording, None, "not compared here")
    assert figures["complete"] is True
    assert figures["jobs_done"] == figures["jobs_delivered"] == 8800
    assert (figures["jobs_lost"], figures["jobs_left"]) == (0, 0)
    assert 0.4 < figures["wait_p95_seconds"] < 0.8 < figures["wait_p95_with_burst_seconds"]
    assert figures["ramp_lead_seconds"] == pytest.approx(90.0, abs=2.0)
    assert figures["notifications"] == 1
    assert figures["notification_seconds_after_burst"] == pytest.approx(33.0)
    assert figures["simulated"] == {"tidewise": None, "reactive": None}
    assert figures["simulated_reason"] == "not compared here"


def test_need_is_demand_over_the_measured_capacity_rounded_up(recording: Recording, changed: Changed) -> None:
    assert need(recording, [START, START + 415.0]) == [10, 15]
    slow = changed(jobs=[Job("a", START, START, START + 1.0, burst=False)])
    assert need(slow, [START]) == [20]
    assert need(changed(jobs=[]), [START]) == [10]  # nothing measured: capacity by design


@pytest.mark.parametrize(
    ("fleet", "lead", "reason"),
    [
        pytest.param(told((-9, 11), (200, 15)), 210.0, None, id="asked for in good time"),
        pytest.param(told((-9, 11), (350, 15)), 60.0, None, id="asked for as early as a start-up"),
        pytest.param(told((-9, 11), (230, 12), (300, 15)), 110.0, None, id="step by step: the last step counts"),
        pytest.param(told((-9, 11)), None, "never told the 15 workers", id="never asked for"),
        pytest.param(told((-9, 15)), None, "before the live part began: headroom", id="there from the start"),
        pytest.param(told((-9, 11), (5, 13), (300, 15)), None, "headroom, not foresight", id="large before the rise"),
        pytest.param(
            told((-9, 11), (50, 15)), None, "160 s before the rise began", id="asked for long before the rise"
        ),
        pytest.param(told((-9, 11), (360, 15)), None, "only asked for under the burst", id="asked for under the burst"),
        pytest.param([], None, "never told", id="no fleet known"),
    ],
)
def test_lead(changed: Changed, fleet: list[FleetChange], lead: float | None, reason: str | None) -> None:
    found, why = ramp_lead_seconds(changed(fleet=fleet, planned_end=START + 420.0))
    assert found == (None if lead is None else pytest.approx(lead, abs=1.5))
    assert (why is None) if reason is None else reason in str(why)


def test_a_lead_is_not_claimed_for_a_run_stopped_before_the_rise(changed: Changed) -> None:
    lead, why = ramp_lead_seconds(changed(live_end=START + 100.0))
    assert lead is None
    assert "never needed more" in str(why)


def test_worker_minutes_count_every_process_that_is_there() -> None:
    fleet = [
        FleetChange(START - 5, 2, 2, 0, 0),
        FleetChange(START + 60, 3, 2, 1, 0),
        FleetChange(START + 90, 1, 1, 0, 2),
    ]
    assert worker_minutes(fleet, START, START + 120.0) == pytest.approx((60 * 2 + 30 * 3 + 30 * 3) / 60)
    assert worker_minutes([], START, START + 120.0) is None


def test_a_job_that_neither_came_out_nor_waits_is_lost(recording: Recording, changed: Changed) -> None:
    figures = summary(changed(delivered=recording.delivered + 5, left=3), None, None)
    assert (figures["jobs_left"], figures["jobs_lost"]) == (3, 2)


def test_a_job_reported_twice_is_done_once(recording: Recording, changed: Changed) -> None:
    figures = summary(changed(jobs=[*recording.jobs, recording.jobs[0]]), None, None)
    assert figures["jobs_done"] == len(recording.jobs)


def test_a_run_stopped_at_once_has_figures_that_are_unknown_not_zero(changed: Changed) -> None:
    figures = summary(
        changed(jobs=[], arrivals=[], fleet=[], series=[], notifications=[], burst_at=None, live_end=START), None, None
    )
    assert figures["complete"] is False
    for name in ("wait_p95_seconds", "worker_minutes", "ramp_lead_seconds", "service_mean_seconds"):
        assert figures[name] is None, name


@pytest.mark.parametrize(
    ("measured", "simulated", "within"),
    [
        pytest.param(1.0, 1.1, True, id="ten per cent off"),
        pytest.param(1.0, 1.3, False, id="thirty per cent off"),
        pytest.param(1.0, None, None, id="not simulated"),
        pytest.param(None, 1.0, None, id="not measured"),
    ],
)
def test_the_simulators_fidelity(measured: float | None, simulated: float | None, within: bool | None) -> None:
    found = simulator_fidelity(measured, {"wait_p95_seconds": simulated})
    assert found["within_limit"] is within


def test_a_recording_is_read_as_it_was_written(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("written")
    recording.write(folder)
    again = Recording.read(folder)
    assert again.jobs[:5] == recording.jobs[:5]
    assert again.series[0].labels == recording.series[0].labels
    assert summary(again, None, None) == summary(recording, None, None)


def warning(at: float) -> dict[str, object]:
    labels = {"budget": "usage", "threshold": "75"}
    return {"at": at, "status": "firing", "alertname": "BudgetThreshold", "labels": labels, "summary": "", "link": None}


def test_money_is_what_the_ledger_said_last_and_when_people_were_warned(changed: Changed) -> None:
    jobs = [Job(f"job-{i}", START, START, START + 0.5, burst=False, permit=permit)
            for i, permit in enumerate(["granted"] * 3 + ["denied"] * 2 + ["unanswered", None])]  # fmt: skip
    figures = summary(changed(jobs=jobs, notifications=[warning(START + 150.0)]), None, None)["money"]
    assert (figures["posted"], figures["posted_before"], figures["posted_live"]) == (11315.0, 11210.0, 105.0)
    assert (figures["paid_calls"], figures["paid_calls_denied"], figures["paid_calls_unanswered"]) == (3, 2, 1)
    assert (figures["warnings"], figures["warned_at_seconds"], figures["warned_before_limit"]) == (1, 150.0, True)
    assert (figures["projected"], figures["level"]) == (12800.25, "normal")


def test_a_ledger_that_did_not_answer_leaves_money_unknown_and_not_zero(recording: Recording, changed: Changed) -> None:
    assert recording.money is not None
    figures = summary(changed(money=replace(recording.money, state=None, statement=None)), None, None)["money"]
    assert (figures["posted"], figures["posted_live"], figures["level"]) == (None, None, None)
    assert figures["warned_before_limit"] is None
    assert summary(changed(money=None), None, None)["money"] is None


def test_a_repair_is_told_from_its_failure_on(recording: Recording, changed: Changed) -> None:
    told = {"at": START + 42.0, "status": "firing", "alertname": "WorkerDown", "labels": {"worker": "worker-01"}}
    down, hung = summary(changed(notifications=[told]), None, None)["repairs"]
    assert (down["what"], down["worker"], down["at_seconds"]) == ("killed", "worker-01", 34.0)
    assert (down["people_told_after"], down["confirmed_after"], down["restarted_after"]) == (8.0, 10.0, 10.5)
    assert (down["well_after"], down["verified_after"], down["mended"]) == (76.0, 88.0, True)
    assert (hung["verified_after"], hung["mended"], hung["people_told_after"]) == (None, False, None)


def test_a_failure_that_nobody_noticed_and_a_repair_that_nobody_planned_are_told_too(
    recording: Recording, changed: Changed
) -> None:
    first, second = recording.repairs
    found = summary(changed(repairs=[replace(second, worker="worker-09")]), None, None)["repairs"]
    assert [(one["what"], one["worker"], one["alert"]) for one in found] == [
        ("killed", "worker-01", None),
        ("hung", "worker-02", None),
        (None, "worker-09", "WorkerHung"),
    ]
    assert first.mended


def test_failed_jobs_are_neither_done_nor_lost(recording: Recording, changed: Changed) -> None:
    jobs = [replace(job, failed=index < 10) for index, job in enumerate(recording.jobs)]
    figures = summary(changed(jobs=jobs), None, None)
    assert (figures["jobs_done"], figures["jobs_failed"], figures["jobs_lost"]) == (8790, 10, 0)


def test_a_worker_that_hung_did_nothing_although_it_counted_as_ready(changed: Changed) -> None:
    constant = [FleetChange(START - 9.0, 12, 12, 0, 0)]
    ready = _as_recorded(changed(fleet=constant))
    seen = [ready(SimpleNamespace(now=START + at)) for at in (34.0, 128.0, 129.0, 150.0, 151.0)]  # type: ignore[arg-type]
    assert seen == [12, 12, 11, 11, 12]  # the killed one is in the fleet's own timeline
