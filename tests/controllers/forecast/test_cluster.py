"""Fitting on a real Dask cluster: a scheduler and two worker processes, one of which is killed, then the scheduler."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.almanac import Calendar
from controllers.forecast.command import main
from controllers.forecast.fit import Fitter
from controllers.forecast.history import History
from controllers.forecast.job import Done, Failure, Job, fit
from controllers.forecast.predict import outlook
from controllers.forecast.run import Forecaster
from controllers.forecast.selection import Fitted
from controllers.loop import Tick

ROOT = Path(__file__).resolve().parents[3]
NAMES = [f"default/{letter}" for letter in "abcdefgh"]


def noting(job: Job) -> Fitted:
    """Leaves its process id in the folder that the calendar's name of a holiday is, and takes half a second."""
    Path(job.calendar.holidays[0], str(os.getpid())).touch()
    time.sleep(0.5)
    return fit(job)


class Cluster:
    """`dask scheduler` and `dask worker` on ports that the kernel chose."""

    def __init__(self, folder: Path) -> None:
        self._file, self._log = folder / "scheduler.json", (folder / "dask.log").open("w")
        self._scheduler = self._start("scheduler", "--port", "0", "--no-show")
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if self._file.exists() and (text := self._file.read_text()):
                return str(json.loads(text)["address"])
            time.sleep(0.05)
        raise TimeoutError("no scheduler")

    def add_worker(self, python_path: Path = ROOT) -> "subprocess.Popen[bytes]":
        worker = self._start("worker", "--no-nanny", "--nthreads", "1", python_path=python_path)
        self.workers.append(worker)
        return worker

    def wait(self, workers: int) -> None:
        from distributed import Client

        with Client(self.address, timeout=10, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=20)

    def kill_worker(self, worker: "subprocess.Popen[bytes]") -> None:
        self.workers.remove(worker)
        worker.kill()
        worker.wait()

    def kill_scheduler(self) -> None:
        self._scheduler.kill()
        self._scheduler.wait()

    def close(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()
        self._log.close()

    def _start(self, *arguments: str, python_path: Path = ROOT) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        return subprocess.Popen(
            [*command, "--scheduler-file", str(self._file)],
            env={**os.environ, "PYTHONPATH": str(python_path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            cwd=self._file.parent,
            stderr=self._log,
            stdout=self._log,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("dask"))
    try:
        assert found.address
        found.add_worker()
        found.add_worker()
        found.wait(2)
        yield found
    finally:
        found.close()


@pytest.fixture
def jobs(fortnight: History, tmp_path: Path) -> dict[str, Job]:
    """Three hours each, all different."""
    return {
        name: Job(fortnight.first(180 + number), Calendar(holidays={0: str(tmp_path)}), (120, 300))
        for number, name in enumerate(NAMES)
    }


def everything(fitter: Fitter, seconds: float = 60.0) -> dict[str, Done]:
    done: dict[str, Done] = {}
    until = time.monotonic() + seconds
    while fitter.busy and time.monotonic() < until:
        done.update(fitter.collect(1.0))
    assert not fitter.busy
    return done


def models(done: dict[str, Done]) -> dict[str, str]:
    return {name: one.result.model for name, one in done.items() if isinstance(one.result, Fitted)}


def test_a_worker_without_this_tidewise_is_refused_and_the_round_is_fitted_here(
    cluster: Cluster, jobs: dict[str, Job], tmp_path: Path
) -> None:
    (tmp_path / "controllers").mkdir()
    (tmp_path / "controllers" / "__init__.py").touch()
    other = cluster.add_worker(python_path=tmp_path)
    cluster.wait(3)
    fitter = Fitter(scheduler=cluster.address)
    fitter.begin(jobs)
    assert set(models(everything(fitter))) == set(NAMES)
    (trouble,) = fitter.troubles()
    assert trouble.kind == "cluster_differs"
    assert "has tidewise none, this machine " in trouble.message
    cluster.kill_worker(other)


def test_workers_of_a_cluster_fit_as_this_process_does(cluster: Cluster, fortnight: History) -> None:
    job = Job(fortnight.first(3 * 1440), Calendar(), (120, 3600), heavy=False)
    fitter = Fitter(scheduler=cluster.address)
    fitter.begin({"default/a": job})
    there, here = everything(fitter)["default/a"], fit(job)
    assert fitter.troubles() == []
    assert isinstance(there.result, Fitted)
    assert there.cpu_seconds > 0
    assert there.result.wape == pytest.approx(here.wape, rel=1e-9)
    now = job.history.end + 20
    theirs, ours = (
        outlook(job.history, Calendar(), fitted, now, quantiles=(0.1, 0.9), valid_seconds=900)
        for fitted in (there.result, here)
    )
    np.testing.assert_allclose([value for _, value, _ in theirs.path], [value for _, value, _ in ours.path], rtol=1e-9)
    for one, other in zip(theirs.forecast.horizons, ours.forecast.horizons, strict=True):
        assert one.peak == pytest.approx(other.peak, rel=1e-9)


def test_a_worker_killed_in_the_middle_of_a_round_loses_nothing(
    cluster: Cluster, jobs: dict[str, Job], tmp_path: Path
) -> None:
    fitter = Fitter(noting, scheduler=cluster.address)
    fitter.begin(jobs)
    done: dict[str, Done] = {}
    until = time.monotonic() + 30
    while not done and time.monotonic() < until:
        done.update(fitter.collect(0.05))
    cluster.kill_worker(cluster.workers[0])
    assert 0 < len(done) < len(NAMES)
    done.update(everything(fitter))
    assert set(models(done)) == set(NAMES)
    assert fitter.troubles() == []
    assert cluster.workers[0].pid in {int(file.name) for file in tmp_path.iterdir()}


def test_a_scheduler_killed_in_the_middle_of_a_round_leaves_the_rest_to_this_machine(
    cluster: Cluster, jobs: dict[str, Job], tmp_path: Path
) -> None:
    cluster.add_worker()  # in the place of the killed one: joblib does not send work to a single core
    cluster.wait(2)
    fitter = Fitter(noting, scheduler=cluster.address)
    fitter.begin(jobs)
    here = fitter.pid
    done: dict[str, Done] = {}
    until = time.monotonic() + 30
    while not done and time.monotonic() < until:
        done.update(fitter.collect(0.05))
    cluster.kill_scheduler()
    assert 0 < len(done) < len(NAMES)
    done.update(everything(fitter))
    assert set(models(done)) == set(NAMES)
    assert [trouble.kind for trouble in fitter.troubles()] == ["cluster_lost"]
    assert {here} < {int(file.name) for file in tmp_path.iterdir()}

    fitter.begin({"default/a": jobs["default/a"]})
    assert set(models(everything(fitter))) == {"default/a"}
    (trouble,) = fitter.troubles()
    assert isinstance(trouble, Failure)
    assert trouble.kind == "cluster_unreachable"
    assert cluster.address in trouble.message


def test_the_process_goes_on_without_its_cluster_counts_that_and_says_it_once(
    make: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make.config("a", history_days=0.1, refit_seconds=60, scheduler="tcp://127.0.0.1:1", rollup_days=0)
    forecaster = Forecaster(config, make.FakeSource({"default/a": lambda at: 5.0}))
    for seconds in (0, 3600):
        forecaster.step(Tick(make.MIDNIGHT + seconds, time.monotonic() + 60))
        until = time.monotonic() + 30
        while forecaster._fitter.busy and time.monotonic() < until:
            time.sleep(0.2)
            forecaster.step(Tick(make.MIDNIGHT + seconds, time.monotonic() + 60))
    forecaster.close()
    assert forecaster._fits["default/a"].trained_at == make.MIDNIGHT + 3600
    failed = {
        sample.labels["kind"]: sample.value
        for family in forecaster.collector.collect()
        for sample in family.samples
        if sample.name == "tidewise_forecast_fit_failures_total"
    }
    assert failed == {"cluster_unreachable": 2}
    assert capsys.readouterr().out.count("cluster_unused") == 1


def test_an_address_without_a_port_is_refused_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--scheduler", "tcp://10.0.0.5"])
    assert "found 'tcp://10.0.0.5'; write a Dask scheduler's address" in capsys.readouterr().err
