"""The Docker actuator on a daemon that misbehaves on request."""

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from controllers.actuators import ACTUATORS
from controllers.actuators.docker import docker_actuator
from controllers.actuators.docker_daemon import Client
from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.config import DockerTarget
from controllers.domain import Replicas
from tests.controllers.actuators.fake_docker import LABELS, FakeDocker, Fault, serve


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeDocker]:
    """Shop's worker runs three times; there are others that are not its."""
    fake = FakeDocker()
    for number in (1, 2, 3):
        fake.add_service(number)
    for name, service, one_off in (("shop-web-1", "web", "False"), ("shop-worker-run-1", "worker", "True")):
        labels = {"project": "shop", "service": service, "oneoff": one_off}
        fake.add(name, {"Labels": {LABELS + key: value for key, value in labels.items()}}, "running")
    stop = serve(fake, tmp_path / "d.sock")
    yield fake
    stop()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Actuator]:
    def actuator(**settings: Any) -> Actuator:
        target = {"project": "shop", "service": "worker", "host": f"unix://{tmp_path}/d.sock", **settings}
        return docker_actuator(DockerTarget(**target))

    return actuator


@pytest.fixture
def actuator(make: Callable[..., Actuator]) -> Actuator:
    return make()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def worker_names(docker: FakeDocker, *states: str) -> list[str]:
    return [name for name in docker.names(*states) if name.startswith("shop-worker-") and "run" not in name]


def test_its_kind_is_known() -> None:
    assert isinstance(ACTUATORS["docker"](DockerTarget(project="a", service="b")), Actuator)


def test_wanted_are_those_told_to_run_and_ready_those_that_are_healthy(docker: FakeDocker, actuator: Actuator) -> None:
    one, two, _ = list(docker.containers.values())[:3]
    one["Health"], two["Health"] = "starting", "unhealthy"
    docker.add_service(4, "exited")
    docker.add_service(5, "paused")
    docker.add_service(6, "created")
    assert actuator.read_replicas(5) == Replicas(wanted=4, ready=1)


def test_the_next_ones_get_the_numbers_that_are_free(docker: FakeDocker, actuator: Actuator) -> None:
    docker.add_service(5)
    actuator.apply(6, 5)
    assert worker_names(docker, "running") == [f"shop-worker-{number}" for number in range(1, 7)]
    assert [body["Labels"][LABELS + "container-number"] for body in docker.bodies] == ["4", "6"]


def test_the_same_number_again_changes_nothing(docker: FakeDocker, actuator: Actuator) -> None:
    actuator.apply(3, 5)
    assert all(method == "GET" for method, _ in docker.asked)


def test_stopped_ones_of_the_same_settings_are_started_before_new_ones_are_made(
    docker: FakeDocker, actuator: Actuator
) -> None:
    docker.add_service(4, "exited", config_hash="old")
    docker.add_service(5, "exited")
    docker.add_service(6, "created")
    actuator.apply(6, 5)
    assert worker_names(docker, "running") == [f"shop-worker-{number}" for number in (1, 2, 3, 5, 6, 7)]
    assert worker_names(docker, "exited") == ["shop-worker-4"]


def test_scale_in_ends_and_removes_the_newest_numbers(docker: FakeDocker, actuator: Actuator) -> None:
    actuator.apply(1, 5)
    assert worker_names(docker) == ["shop-worker-1"]
    assert "shop-web-1" in docker.names("running")
    assert "shop-worker-run-1" in docker.names("running")


def test_victims_go_first_and_then_the_idlest(docker: FakeDocker, actuator: Actuator) -> None:
    actuator.apply(2, 5, victims=("shop-worker-1",), in_hand={"shop-worker-2": 0.0, "shop-worker-3": 9.0})
    assert worker_names(docker) == ["shop-worker-2", "shop-worker-3"]
    actuator.apply(1, 5, in_hand={"shop-worker-2:9100": 7.0, "shop-worker-3:9100": 1.0})
    assert worker_names(docker) == ["shop-worker-2"]


def test_the_last_one_stays_stopped_to_be_copied_from(docker: FakeDocker, actuator: Actuator) -> None:
    actuator.apply(0, 5)
    until(lambda: worker_names(docker) == ["shop-worker-3"])  # the one with the latest settings
    assert worker_names(docker, "exited") == ["shop-worker-3"]
    assert actuator.read_replicas(5) == Replicas(0, 0)
    actuator.apply(0, 5)
    actuator.apply(2, 5)
    assert worker_names(docker, "running") == ["shop-worker-1", "shop-worker-3"]


def test_a_slow_end_is_not_waited_for_and_seen_by_everybody(
    docker: FakeDocker, actuator: Actuator, make: Callable[..., Actuator]
) -> None:
    docker.stop_seconds = 1.5
    began = time.monotonic()
    actuator.apply(2, 5)
    assert time.monotonic() - began < 1.4
    assert actuator.read_replicas(5) == Replicas(2, 2, draining=1)
    # one that was started since sees it too, and goes on with it, for it cannot know that somebody waits
    assert make().read_replicas(5) == Replicas(2, 2, draining=1, unfinished=True)
    until(lambda: worker_names(docker) == ["shop-worker-1", "shop-worker-2"])
    assert actuator.read_replicas(5) == Replicas(2, 2)


def test_what_was_marked_and_never_ended_is_ended_by_the_next(
    docker: FakeDocker, make: Callable[..., Actuator]
) -> None:
    one = list(docker.containers.values())[2]
    one["Name"] += ".leaving"  # and then the scaler was killed
    actuator = make()
    assert actuator.read_replicas(5) == Replicas(2, 2, draining=1, unfinished=True)
    actuator.apply(2, 5)
    until(lambda: worker_names(docker) == ["shop-worker-1", "shop-worker-2"])
    assert actuator.read_replicas(5) == Replicas(2, 2)


def test_one_that_does_not_end_is_tried_again(docker: FakeDocker, actuator: Actuator) -> None:
    docker.faults = [Fault("POST", "/stop", 500, "no such process")]
    actuator.apply(2, 5)
    until(lambda: actuator.read_replicas(5) == Replicas(2, 2, draining=1, unfinished=True))
    actuator.apply(2, 5)
    until(lambda: actuator.read_replicas(5) == Replicas(2, 2))


@pytest.mark.parametrize(
    ("settings", "config", "grace"),
    [({}, {}, "10"), ({}, {"StopTimeout": 120}, "120"), ({"stop_seconds": 45}, {"StopTimeout": 120}, "45")],
)
def test_the_grace_period_is_the_services_own(
    docker: FakeDocker, make: Callable[..., Actuator], settings: Any, config: Any, grace: str
) -> None:
    docker.add_service(4, **config)
    make(**settings).apply(3, 5)
    until(lambda: docker.graces == [grace])


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault("POST", "/containers/create", 409, "Conflict"), ActuatorError, "does another scaler, or somebody's"),
        (
            Fault("POST", "/containers/create", 403, "authz: no"),
            PermanentError,
            "whoever guards the daemon has to allow",
        ),
        (Fault("POST", "/containers/create", 404, "No such image: worker:1"), PermanentError, "pull or build it"),
        (
            Fault("POST", "/containers/create", 500, "disk full"),
            ActuatorError,
            "create_container_from_config: 500: disk",
        ),
        (Fault("GET", "/containers/json", 0), ActuatorError, "the connection failed"),
        (
            Fault("GET", "/containers/json", 200, silent_seconds=1.0),
            ActuatorError,
            "no answer to containers within 0.4 s",
        ),
        (Fault("GET", "/version", 0), ActuatorError, "the connection failed"),
    ],
)
def test_what_the_daemon_says_is_said(
    docker: FakeDocker, make: Callable[..., Actuator], fault: Fault, kind: type[ActuatorError], words: str
) -> None:
    docker.faults = [fault]
    with pytest.raises(ActuatorError, match=words) as caught:
        make(timeout_seconds=0.4).apply(4, 5)
    assert type(caught.value) is kind or kind is ActuatorError
    assert isinstance(caught.value, PermanentError) is (kind is PermanentError)


def test_a_port_of_the_host_can_be_had_once_and_nothing_is_left_of_the_attempt(
    docker: FakeDocker, actuator: Actuator
) -> None:
    docker.faults = [Fault("POST", "/start", 500, "Bind for 0.0.0.0:80 failed: port is already allocated")]
    with pytest.raises(
        PermanentError, match="two containers cannot have one port of the host; publish none, or a range"
    ):
        actuator.apply(5, 5)
    assert worker_names(docker) == ["shop-worker-1", "shop-worker-2", "shop-worker-3"]


def test_some_of_several_are_no_loss(docker: FakeDocker, actuator: Actuator) -> None:
    actuator.apply(4, 5)
    docker.faults = [Fault("POST", "/containers/create", 500, "disk full")]
    with pytest.raises(ActuatorError, match="disk full"):
        actuator.apply(6, 5)
    actuator.apply(6, 5)
    assert len(worker_names(docker, "running")) == 6


def test_a_lost_answer_makes_no_second_one(docker: FakeDocker, actuator: Actuator) -> None:
    docker.faults = [Fault("POST", "/containers/create", 0, done=True)]
    with pytest.raises(ActuatorError, match="the connection failed"):
        actuator.apply(4, 5)
    assert worker_names(docker, "created") == ["shop-worker-4"]
    actuator.apply(4, 5)
    assert worker_names(docker) == [f"shop-worker-{number}" for number in (1, 2, 3, 4)]
    assert worker_names(docker, "running") == worker_names(docker)


def test_a_service_without_a_container_is_unknown_and_not_none(
    docker: FakeDocker, make: Callable[..., Actuator]
) -> None:
    with pytest.raises(PermanentError, match=r"no container has these labels.*docker compose up --no-start wroker"):
        make(service="wroker").read_replicas(5)


def test_a_name_of_its_own_can_be_had_once(docker: FakeDocker, actuator: Actuator) -> None:
    docker.containers.clear()
    id_ = docker.add_service(1)
    docker.containers[id_]["Name"] = "/the-worker"
    with pytest.raises(PermanentError, match=r"called the-worker, a name of its own \(container_name\)"):
        actuator.apply(2, 5)


def test_the_image_is_the_one_that_runs_though_its_name_moved_on(docker: FakeDocker, actuator: Actuator) -> None:
    actuator.apply(4, 5)
    docker.images["worker:1"] = "sha256:2"
    actuator.apply(5, 5)
    docker.images.clear()  # as when its name was taken away
    actuator.apply(6, 5)
    assert [body["Image"] for body in docker.bodies] == ["worker:1", "sha256:1", "sha256:1"]


def test_nobody_at_the_socket(make: Callable[..., Actuator], tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match="no daemon answers there; is Docker running, and is that its socket"):
        make(host=f"unix://{tmp_path}/none.sock").read_replicas(5)
    with pytest.raises(ActuatorError, match="no daemon answers there"):
        make(host="tcp://127.0.0.1:1").read_replicas(5)


def test_no_right_to_the_socket_is_for_a_person_to_mend() -> None:
    class Refused:
        timeout = 0.0

        def containers(self) -> None:
            cause = PermissionError(errno.EACCES, "Permission denied")
            raise requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", cause))

    with pytest.raises(PermanentError, match="no right to it; add this user to the group that owns the socket"):
        Client(Refused(), "unix:///var/run/docker.sock", time.monotonic() + 5).ask("containers")
