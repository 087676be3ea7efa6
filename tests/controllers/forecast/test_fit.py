"""The process that fits: its death, its failures and its end."""

import os
import signal
import time
from dataclasses import replace

import psutil
import pytest

from controllers.forecast.almanac import Calendar
from controllers.forecast.crew import NICENESS
from controllers.forecast.fit import Fitter
from controllers.forecast.history import History
from controllers.forecast.job import Failure, Job, fit
from controllers.forecast.selection import Fitted


def slowly(job: Job) -> Fitted:
    time.sleep(60)
    return fit(job)


def picky(job: Job) -> Fitted:
    if job.calendar.time_zone == "Mars/Olympus":
        raise LookupError("no such zone")
    return fit(job)


@pytest.fixture
def job(fortnight: History) -> Job:
    return Job(fortnight.first(300), Calendar(), (120, 300))


def test_a_fit_comes_back_from_another_process(job: Job) -> None:
    fitter = Fitter()
    assert fitter.begin({"default/a": job, "default/b": job}) == ["default/a", "default/b"]
    assert fitter.pid not in (None, os.getpid())
    done = fitter.collect(30.0)
    assert {name: one.result.model for name, one in done.items() if isinstance(one.result, Fitted)} == {
        "default/a": "last_value",
        "default/b": "last_value",
    }
    assert not fitter.busy


def test_one_round_at_a_time(job: Job) -> None:
    fitter = Fitter(slowly)
    fitter.begin({"default/a": job})
    assert fitter.begin({"default/b": job}) == []
    assert fitter.collect() == {}
    fitter.close()


def test_a_process_killed_in_the_middle_costs_one_round(job: Job) -> None:
    fitter = Fitter(slowly)
    fitter.begin({"default/a": job})
    assert fitter.pid is not None
    os.kill(fitter.pid, signal.SIGKILL)
    lost = fitter.collect(30.0)["default/a"].result
    assert isinstance(lost, Failure)
    assert lost.kind == "died"
    assert "-9" in lost.message

    again = Fitter()
    again.begin({"default/a": job})
    assert isinstance(again.collect(30.0)["default/a"].result, Fitted)


def test_a_workload_whose_fit_fails_does_not_cost_the_others(job: Job) -> None:
    fitter = Fitter(picky)
    fitter.begin({"default/bad": replace(job, calendar=Calendar("Mars/Olympus")), "default/good": job})
    done = fitter.collect(30.0)
    assert done["default/bad"].result == Failure("LookupError", "no such zone")
    assert isinstance(done["default/good"].result, Fitted)


def test_close_ends_the_process_at_once_and_it_runs_at_low_priority(job: Job) -> None:
    fitter = Fitter(slowly)
    fitter.begin({"default/a": job})
    assert fitter.pid is not None
    process = psutil.Process(fitter.pid)
    until = time.monotonic() + 20
    while process.nice() < NICENESS and time.monotonic() < until:
        time.sleep(0.05)
    assert process.nice() == NICENESS
    began = time.monotonic()
    fitter.close()
    assert time.monotonic() - began < 2
    assert not process.is_running()
    assert fitter.collect() == {}
