"""A small API server that can be told to misbehave, and nothing that is reached by a proxy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controllers.fake_api import FakeApi, Fault, serving, write_kubeconfig


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxy this machine has, the servers of these tests are on the loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def fault() -> type[Fault]:
    return Fault


@pytest.fixture
def fake_api() -> Iterator[FakeApi]:
    """A FakeApi that answers on `fake_api.url`."""
    api = FakeApi()
    with serving(api):
        yield api


@pytest.fixture
def kubeconfig(fake_api: FakeApi, tmp_path: Path) -> Path:
    """A kubeconfig for the fake server, with its token in a file beside it (and a newline at its end)."""
    return write_kubeconfig(tmp_path, fake_api.url, "first\n")
