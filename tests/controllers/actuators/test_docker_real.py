"""The Docker actuator on a real daemon: further containers are like the first, and a busy one ends its work."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from docker.errors import NotFound

from controllers.actuators.docker import docker_actuator
from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.config import DockerTarget
from controllers.domain import Replicas
from testbed import docker as testbed_docker
from testbed import fetch
from testbed.parts import PartError

pytestmark = pytest.mark.real

LABELS = "com.docker.compose."
IMAGE = "tidewise-worker:1"
MILLISECOND = 1_000_000  # in nanoseconds, as Docker counts
# Takes a job every 50 ms; when told to end it finishes the one in hand, which takes so long, and says so.
WORKER = "trap 'sleep {seconds}; echo done $HOSTNAME >> /out/log; exit 0' TERM; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[APIClient]:
    """A daemon of the tests' own, with one image. Skips the tests where none can be started."""
    if (reason := testbed_docker.absence()) is not None:
        pytest.skip(reason)
    try:
        root = fetch.ensure_docker()
    except fetch.FetchError as error:
        pytest.skip(f"no Docker daemon: {error}")
    try:
        part = testbed_docker.Docker(tmp_path_factory.mktemp("d"), root=root).start()
    except PartError as error:
        pytest.skip(f"no Docker daemon: it did not start here ({str(error).splitlines()[-1].strip()})")
    client = APIClient(part.url, version="auto")
    client.import_image_from_data(testbed_docker.image(root), *IMAGE.split(":"))
    yield client
    client.close()
    part.stop()


@pytest.fixture
def project(daemon: APIClient) -> Iterator[str]:
    """The name of one; what was started in it is gone after the test."""
    name = f"shop{time.monotonic_ns()}"
    yield name
    for row in daemon.containers(all=True, filters={"label": f"{LABELS}project={name}"}):
        with contextlib.suppress(NotFound):  # the actuator was about to
            daemon.remove_container(row["Id"], force=True, v=True)


@pytest.fixture
def make(daemon: APIClient, project: str) -> Callable[[], Actuator]:
    def actuator() -> Actuator:
        host = daemon._custom_adapter.socket_path
        return docker_actuator(DockerTarget(project=project, service="worker", host=f"unix://{host}"))

    return actuator


def begin(daemon: APIClient, project: str, command: str, **options: Any) -> str:
    """The service's first container, as Compose would make it."""
    labels = {"project": project, "service": "worker", "container-number": "1", "oneoff": "False", "config-hash": "h"}
    host = daemon.create_host_config(**{"network_mode": "none", **options.pop("host", {})})
    created = daemon.create_container(
        IMAGE,
        ["/bin/sh", "-c", command],
        name=f"{project}-worker-1",
        labels={LABELS + key: value for key, value in labels.items()},
        host_config=host,
        **options,
    )
    daemon.start(created["Id"])
    return str(created["Id"])


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_further_ones_are_like_the_first_and_none_is_left_that_was_not_told(
    daemon: APIClient, project: str, make: Callable[[], Actuator], tmp_path: Path
) -> None:
    for network in ("front", "back"):
        daemon.create_network(f"{project}-{network}", driver="bridge")
    front, back = f"{project}-front", f"{project}-back"
    first = begin(
        daemon,
        project,
        WORKER.format(seconds=0),
        environment={"QUEUE": "video jobs"},
        healthcheck={"test": ["CMD", "/bin/true"], "interval": 200 * MILLISECOND},
        stop_timeout=60,
        host={"network_mode": front, "binds": [f"{tmp_path}:/out:rw"], "mem_limit": "64m",
              "restart_policy": {"Name": "always"}},
        networking_config={"EndpointsConfig": {front: {"Aliases": ["worker", f"{project}-worker-1"]}}},
    )  # fmt: skip
    daemon.connect_container_to_network(first, back, aliases=["jobs"])
    actuator = make()
    actuator.apply(4, 10)
    until(lambda: actuator.read_replicas(5) == Replicas(4, 4), "four are healthy")
    one, four = (daemon.inspect_container(f"{project}-worker-{number}") for number in (1, 4))
    for key in ("Env", "Cmd", "Image", "Healthcheck", "StopTimeout"):
        assert four["Config"][key] == one["Config"][key], key
    assert four["Config"]["Labels"] == {**one["Config"]["Labels"], f"{LABELS}container-number": "4"}
    assert four["Config"]["Hostname"] == four["Id"][:12]
    assert four["HostConfig"] == one["HostConfig"]
    networks = four["NetworkSettings"]["Networks"]
    assert set(networks) == {front, back}
    assert {"worker", f"{project}-worker-4"} <= set(networks[front]["Aliases"])
    assert f"{project}-worker-1" not in networks[front]["Aliases"]
    assert "jobs" in networks[back]["Aliases"]

    actuator.apply(1, 10)
    until(lambda: actuator.read_replicas(5) == Replicas(1, 1), "three are gone")
    actuator.apply(0, 10)
    until(lambda: actuator.read_replicas(5) == Replicas(0, 0), "the last has ended")
    (kept,) = daemon.containers(all=True, filters={"label": f"{LABELS}project={project}"})
    assert (kept["State"], kept["Names"]) == ("exited", [f"/{project}-worker-1"])
    actuator.apply(2, 10)
    until(lambda: actuator.read_replicas(5) == Replicas(2, 2), "two from none")
    assert len((tmp_path / "log").read_text().splitlines()) == 4  # each of the four that were ended had its time


def test_a_busy_one_ends_its_work_while_decisions_go_on(
    daemon: APIClient, project: str, make: Callable[[], Actuator], tmp_path: Path
) -> None:
    begin(daemon, project, WORKER.format(seconds=1.5), stop_timeout=30, host={"binds": [f"{tmp_path}:/out:rw"]})
    actuator = make()
    actuator.apply(3, 10)
    until(lambda: actuator.read_replicas(5) == Replicas(3, 3), "three run")
    time.sleep(0.3)  # each is past its first line
    began = time.monotonic()
    actuator.apply(2, 10, victims=(f"{project}-worker-2",))
    assert time.monotonic() - began < 1.4
    assert actuator.read_replicas(5) == Replicas(2, 2, draining=1)
    assert make().read_replicas(5) == Replicas(2, 2, draining=1, unfinished=True)  # a scaler that was started since
    actuator.apply(3, 10)  # needed again: another one, the one that was told to end is left alone
    assert actuator.read_replicas(5) == Replicas(3, 3, draining=1)
    until(lambda: actuator.read_replicas(5) == Replicas(3, 3), "it has ended")
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_port_of_the_host_can_be_had_once(daemon: APIClient, project: str, make: Callable[[], Actuator]) -> None:
    daemon.create_network(f"{project}-net", driver="bridge")
    begin(daemon, project, "sleep 1000", ports=[80],
          host={"network_mode": f"{project}-net", "port_bindings": {80: 18080}})  # fmt: skip
    with pytest.raises(PermanentError, match="two containers cannot have one port"):
        make().apply(2, 10)
    assert len(daemon.containers(all=True, filters={"label": f"{LABELS}project={project}"})) == 1


def test_two_scalers_at_once_make_no_more_than_was_told(
    daemon: APIClient, project: str, make: Callable[[], Actuator]
) -> None:
    begin(daemon, project, WORKER.format(seconds=0))
    said: list[str] = []

    def scale() -> None:
        try:
            make().apply(4, 10)
        except ActuatorError as error:
            said.append(str(error))

    both = [threading.Thread(target=scale) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert make().read_replicas(5).wanted <= 4
    assert all("does another scaler" in words for words in said)
    make().apply(4, 10)
    assert make().read_replicas(5).wanted == 4
