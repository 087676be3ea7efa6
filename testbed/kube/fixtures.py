"""pytest fixtures: one control plane for the whole run, a fresh namespace for each test."""

from collections.abc import Iterator

import pytest

from testbed.kube import build
from testbed.kube.cluster import Cluster


@pytest.fixture(scope="session")
def kube_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One control plane for the whole run. Skips the test where it is not built or not wanted."""
    if (reason := build.absence()) is not None:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("kube"), root=build.find()) as cluster:
        yield cluster


@pytest.fixture
def kube_namespace(kube_cluster: Cluster) -> str:
    """A fresh namespace in which pods can run."""
    return kube_cluster.namespace()
