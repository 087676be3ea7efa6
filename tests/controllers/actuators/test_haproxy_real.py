"""Servers of a real HAProxy, started and stopped under load: nothing is lost, whatever happens meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controllers.domain import Replicas
from tests.controllers.actuators.haproxy_ground import Ground, Load, settle, until

pytestmark = pytest.mark.real


@pytest.fixture
def ground(services_root: Path, tmp_path: Path) -> Iterator[Ground]:
    with Ground(tmp_path, services_root) as one:
        yield one


def test_from_one_to_four_and_back_nothing_is_lost(ground: Ground) -> None:
    actuator = ground.actuator()
    assert actuator.read_replicas(5) == Replicas(0, 0)
    settle(actuator, 1)
    with Load(ground.haproxy.port) as load:
        until(lambda: load.answers["200"] > 50)
        settle(actuator, 4)
        assert ground.running() == [0, 1, 2, 3]
        before = sum(load.servers.values())
        until(lambda: sum(load.servers.values()) > before + 200)
        settle(actuator, 1)
        before = load.answers["200"]
        until(lambda: load.answers["200"] > before + 50)
    assert len(load.servers) == 4  # each of them answered
    assert load.lost == {}
    assert len(ground.running()) == 1
    assert len(ground.lines()) == 1
