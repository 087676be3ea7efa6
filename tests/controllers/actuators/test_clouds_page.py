"""docs/clouds.md: its code is run as it stands there, on Libcloud's own driver that has no cloud behind it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controllers import config
from controllers.actuators import Actuator, ActuatorError
from controllers.actuators.interface import NoCapacityError, NoGrowthError, PermanentError
from controllers.config import Target
from controllers.domain import Replicas

DOCS = Path(__file__).resolve().parents[3] / "docs"
SECONDS = 5.0
SETTINGS = {
    "auth_url": "http://127.0.0.1:5000",
    "user": "u",
    "password_file": "secret",
    "project": "p",
    "fleet": "video",
    "flavor": "Small",
    "image": "Ubuntu 9.10",
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def actuator(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Actuator]:
    section, file = blocks("clouds.md", "python")
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(section, "docs/clouds.md", "exec"), names)
    monkeypatch.setattr(config, "OpenStackTarget", names["OpenStackTarget"], raising=False)
    exec(compile(file, "docs/clouds.md", "exec"), names)

    def make(driver: Any) -> Actuator:
        made: Actuator = names["openstack_actuator"](names["OpenStackTarget"].model_validate(SETTINGS), driver)
        return made

    return make


@pytest.fixture
def cloud() -> Any:
    dummy = pytest.importorskip("libcloud.compute.drivers.dummy", reason="needs apache-libcloud")

    class Cloud(dummy.DummyNodeDriver):  # type: ignore[misc,name-defined]
        """As it is, but a server has the name that was asked for, and `error` is raised where there is one."""

        error: Exception | None = None
        state = "running"

        def create_node(self, name: str, size: Any, image: Any) -> Any:
            if self.error:
                raise self.error
            node = super().create_node(name, size, image)
            node.name, node.state = name, self.state
            return node

    return Cloud(0)


def names(cloud: Any) -> list[str]:
    return sorted(node.name for node in cloud.list_nodes() if node.name.startswith("video"))


def test_two_then_three_then_one(actuator: Callable[..., Actuator], cloud: Any) -> None:
    servers = actuator(cloud)
    assert servers.read_replicas(SECONDS) == Replicas(0, 0), "the driver's own two have other names"
    servers.apply(2, SECONDS)
    servers.apply(3, SECONDS)
    servers.apply(3, SECONDS)
    assert names(cloud) == ["video-0", "video-1", "video-2"]
    assert servers.read_replicas(SECONDS) == Replicas(3, 3)
    servers.apply(1, SECONDS, victims=("video-0",), in_hand={"video-1": 2.0, "video-2": 0.0})
    assert names(cloud) == ["video-1"]
    servers.apply(2, SECONDS)
    assert names(cloud) == ["video-0", "video-1"]
    assert len(cloud.list_nodes()) == 4, "the driver's own two are untouched"


def test_a_server_that_found_no_host_is_ended_and_said(actuator: Callable[..., Actuator], cloud: Any) -> None:
    servers = actuator(cloud)
    cloud.state = "error"
    servers.apply(1, SECONDS)
    assert servers.read_replicas(SECONDS) == Replicas(0, 0, unfinished=True)
    with pytest.raises(NoCapacityError, match="1 servers could not be placed on any host"):
        servers.apply(1, SECONDS)
    assert names(cloud) == []


def test_refusals_are_sentences(actuator: Callable[..., Actuator], cloud: Any) -> None:
    from libcloud.common.types import InvalidCredsError

    servers = actuator(cloud)
    for error, kind, says in (
        (Exception("403 Forbidden Quota exceeded for instances"), NoGrowthError, "have it raised, or lower max"),
        (Exception("503 Service Unavailable"), ActuatorError, "create_node: 503 Service Unavailable"),
        (ConnectionRefusedError("refused"), ActuatorError, "create_node: refused"),
        (InvalidCredsError(), PermanentError, "user or password were refused"),
    ):
        cloud.error = error
        with pytest.raises(kind, match=says):
            servers.apply(1, SECONDS)
    with pytest.raises(ActuatorError, match="no time was left for list_nodes"):
        servers.read_replicas(0.0)


def test_the_page_s_several_targets_are_a_valid_target() -> None:
    import yaml

    (text,) = blocks("clouds.md", "yaml")
    assert Target.model_validate(yaml.safe_load(text)["target"]).several is not None


def test_the_policy_of_the_aws_page_is_json() -> None:
    (text,) = blocks("aws.md", "json")
    assert "ec2:RunInstances" in [one["Action"] for one in json.loads(text)["Statement"]]
