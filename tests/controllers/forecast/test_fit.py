"""The process that fits: its death, its failures and its end."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil
import pytest

from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import FRUGAL, Learned
from controllers.forecast.crew import NICENESS
from controllers.forecast.fit import Fitter
from controllers.forecast.history import History
from controllers.forecast.job import Failure, Job, fit, without_idle
from controllers.forecast.models import MODELS
from controllers.forecast.models.ensemble import Mixture
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


def test_a_process_that_cannot_be_started_is_told_and_tried_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    fitter, files = Fitter(), psutil.Process().num_fds()
    with monkeypatch.context() as patched:

        def refused(process: SpawnProcess) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        patched.setattr(SpawnProcess, "start", refused)
        assert fitter.begin({"default/a": job}) == []
    assert not fitter.busy
    assert [trouble.kind for trouble in fitter.troubles()] == ["not_started"]
    assert psutil.Process().num_fds() == files
    assert fitter.begin({"default/a": job}) == ["default/a"]
    assert isinstance(fitter.collect(30.0)["default/a"].result, Fitted)


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
    wanted = min(os.nice(0) + NICENESS, 19)
    while process.nice() < wanted and time.monotonic() < until:
        time.sleep(0.05)
    assert process.nice() == wanted
    began = time.monotonic()
    fitter.close()
    assert time.monotonic() - began < 10  # of the sixty that it would go on
    assert not process.is_running()
    assert fitter.collect() == {}


def deadly(job: Job) -> Fitted:
    if job.calendar.time_zone == "Mars/Olympus":
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(job)


def noting(job: Job) -> Fitted:
    """Leaves its process id in a folder, then takes forever."""
    Path(job.calendar.holidays[0], str(os.getpid())).touch()
    return slowly(job)


def until_noted(folder: Path, count: int) -> list[psutil.Process]:
    """The processes that fit, once there are so many."""
    until = time.monotonic() + 30
    while len(found := list(folder.iterdir())) < count and time.monotonic() < until:
        time.sleep(0.05)
    assert len(found) == count
    return [psutil.Process(int(file.name)) for file in found]


def test_a_pool_fits_as_one_process_does_and_costs_are_told(fortnight: History) -> None:
    job = Job(fortnight.first(2000), Calendar(), (120, 300))
    jobs = {"default/a": job, "default/b": replace(job, history=fortnight.first(1900))}
    answers = []
    for workers in (1, 2):
        fitter = Fitter(workers=workers)
        fitter.begin(jobs)
        done = fitter.collect(60.0)
        assert all(one.cpu_seconds > 0 for one in done.values())
        answers.append({name: one.result.wape for name, one in done.items() if isinstance(one.result, Fitted)})
    assert set(answers[0]) == set(jobs)
    assert answers[1] == {name: pytest.approx(wape, rel=1e-9) for name, wape in answers[0].items()}


def test_a_process_of_the_pool_that_dies_each_time_costs_its_own_workload_only(job: Job) -> None:
    jobs = {f"default/{number}": job for number in range(6)}
    jobs["default/bad"] = replace(job, calendar=Calendar("Mars/Olympus"))
    fitter = Fitter(deadly, workers=2)
    fitter.begin(jobs)
    done = fitter.collect(60.0)
    assert {name for name, one in done.items() if isinstance(one.result, Failure)} == {"default/bad"}
    assert isinstance(done["default/bad"].result, Failure)
    assert done["default/bad"].result.kind == "died"
    assert set(done) == set(jobs)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends what is below a process on Linux only")
def test_nothing_of_the_pool_outlives_the_process_above_it(job: Job, tmp_path: Path) -> None:
    fitter = Fitter(noting, workers=2)
    noted = replace(job, calendar=Calendar(holidays={0: str(tmp_path)}))
    fitter.begin({"default/a": noted, "default/b": noted})
    pool = until_noted(tmp_path, 2)
    assert fitter.pid is not None
    assert {process.ppid() for process in pool} == {fitter.pid}
    everything = [psutil.Process(fitter.pid), *psutil.Process(fitter.pid).children(recursive=True)]
    os.kill(fitter.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(everything[1:], timeout=30)
    assert alive == []
    # joblib and loky name what they share by process; others on this machine have theirs
    ours = re.compile("|".join(rf"(?<!\d){process.pid}(?!\d)" for process in everything))
    assert [name for name in os.listdir("/dev/shm") if ours.search(name)] == []
    fitter.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends what is below a process on Linux only")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_process_that_publishes(tmp_path: Path, blow: signal.Signals) -> None:
    """However that ends; by Ctrl-C it also says nothing but its own traceback."""
    code = (
        "import signal, sys, numpy as np\n"
        # whoever runs the tests in the background has Ctrl-C ignored, and so would this process
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from controllers.forecast.almanac import Calendar\n"
        "from controllers.forecast.fit import Fitter\n"
        "from controllers.forecast.history import History\n"
        "from controllers.forecast.job import Job\n"
        "from tests.controllers.forecast.test_fit import noting\n"
        "history = History(1.7e9, 60.0, np.ones(300), np.zeros(300, dtype=bool))\n"
        "fitter = Fitter(noting, workers=2)\n"
        "job = Job(history, Calendar(holidays={0: sys.argv[1]}), (120,))\n"
        "fitter.begin({'a': job, 'b': job})\n"
        "fitter.collect(60.0)\n"
    )
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, stderr=subprocess.PIPE, start_new_session=True
    )
    pool = until_noted(tmp_path, 2)
    everything = psutil.Process(parent.pid).children(recursive=True)
    os.killpg(parent.pid, blow) if blow is signal.SIGINT else parent.kill()  # Ctrl-C goes to all of them
    _, said = parent.communicate(timeout=60)
    _, alive = psutil.wait_procs([*everything, *pool], timeout=30)
    assert alive == []
    if blow is signal.SIGINT:
        assert said.count(b"Traceback") == 1


def test_only_workloads_that_were_being_fitted_are_blamed_for_a_death(fortnight: History) -> None:
    """The others are not mentioned, and come first in the next round."""
    job = Job(fortnight, Calendar(), (120,))  # of some hundred kB: the pipe holds no two
    jobs = {f"default/{number}": replace(job, history=fortnight.first(300)) for number in range(2)}
    jobs |= {"default/bad": replace(job, calendar=Calendar("Mars/Olympus"))}
    jobs |= {f"default/{number}": job for number in range(3, 20)}
    fitter = Fitter(deadly)
    assert len(fitter.begin(jobs)) == 20
    done = fitter.collect(60.0)
    assert {name for name, one in done.items() if isinstance(one.result, Fitted)} == {"default/0", "default/1"}
    blamed = {name for name, one in done.items() if isinstance(one.result, Failure)}
    assert "default/bad" in blamed
    assert len(blamed) <= 4


def test_a_round_that_gives_nothing_any_more_is_ended(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.forecast.fit.STUCK_SECONDS", 1.0)
    fitter = Fitter(slowly)
    fitter.begin({"default/a": job})
    assert fitter.collect(0.5) == {}
    stuck = fitter.collect(1.0)["default/a"].result
    assert isinstance(stuck, Failure)
    assert stuck.kind == "stuck"
    assert not fitter.busy


def test_jobs_beyond_the_rounds_size_wait_for_the_next(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.forecast.fit.ROUND_BYTES", 6000)
    fitter = Fitter(slowly)
    assert fitter.begin({f"default/{number}": job for number in range(9)}) == ["default/0", "default/1"]
    fitter.close()


def test_a_fleet_keeps_no_heavy_model_that_has_no_part_in_the_forecast(job: Job) -> None:
    idle, used = (Learned(name, 0.0) for name in ("idle", "used"))
    fitted = fit(replace(job, effort=FRUGAL))
    fitted = replace(fitted, parts={**fitted.parts, "random_forest": idle, "gradient_boosting": used})
    cheap = {name for name in fitted.parts if not MODELS[name].heavy}
    assert set(without_idle(fitted).parts) == cheap
    mixed = replace(fitted, model="ensemble", learned=Mixture({"gradient_boosting": "used"}))
    assert set(without_idle(mixed).parts) == {*cheap, "gradient_boosting"}
    alone = replace(fitted, model="random_forest", learned="idle")
    assert set(without_idle(alone).parts) == {*cheap, "random_forest"}
