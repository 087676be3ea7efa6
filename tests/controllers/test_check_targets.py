"""What `tidewise check` says of targets that are published or in Docker."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controllers.check_targets import report
from controllers.config import Config
from controllers.domain import Sample
from controllers.sources.prometheus import Answer, Series
from tests.controllers.actuators.fake_docker import FakeDocker, serve


class Scripted:
    """A Prometheus that knows how many are ready, or nothing."""

    url = "http://prometheus"

    def __init__(self, ready: float | None) -> None:
        self.ready = ready

    def instant(self, expr: str, *_: object) -> Answer:
        known = expr == "sum(ready)" and self.ready is not None
        return Answer([Series({}, (Sample(self.ready or 0.0, 0.0),))] if known else [])


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeDocker]:
    fake = FakeDocker()
    fake.add_service(1, StopTimeout=30)
    fake.add_service(2, "exited", StopTimeout=30)
    stop = serve(fake, tmp_path / "d.sock")
    yield fake
    stop()


def said(
    target: Any, *, mode: str = "act", ready: float | None = 3.0, learned: float | None = None
) -> tuple[Any, bool]:
    workload = {"name": "video", "demand": {"queue": "jobs"}, "target": target, "replicas": {"max": 4}, "mode": mode}
    config = Config.model_validate({"workloads": [workload]})
    known = {} if learned is None else {"default/video": learned}
    return report(config, Scripted(ready), known)  # type: ignore[arg-type]


PUBLISHED = {"publish": {"ready": "sum(ready)"}}


def test_what_is_published_and_known_is_counted() -> None:
    assert said(PUBLISHED) == (["default/video: published: 3 of 3 replicas work"], False)


@pytest.mark.parametrize(("mode", "kind", "missing"), [("act", "error", True), ("shadow", "warning", False)])
def test_what_is_not_known_keeps_an_acting_workload_from_being_scaled(mode: str, kind: str, missing: bool) -> None:
    (line,), lacks = said(PUBLISHED, mode=mode, ready=None)
    assert line.startswith(f"{kind}: default/video: target.publish.ready: sum(ready) is empty")
    assert lacks is missing


@pytest.mark.parametrize(
    ("learned", "warned"),
    [(None, []), (10.0, []), (10.1, ["30 s, and one piece of work takes 10.1 s in the mean and 30.3 s now and then"])],
)
def test_a_grace_period_shorter_than_the_work_is_said(
    docker: FakeDocker, tmp_path: Path, learned: float | None, warned: list[str]
) -> None:
    lines, _ = said({"docker": {"project": "shop", "service": "worker", "host": f"unix://{tmp_path}/d.sock"}},
                    learned=learned)  # fmt: skip
    assert lines[0] == "default/video: docker: 1 of 1 replicas work"
    assert len(lines[1:]) == len(warned)
    for line, words in zip(lines[1:], warned, strict=True):
        assert words in line


def test_each_of_several_is_looked_at(docker: FakeDocker, tmp_path: Path) -> None:
    here = {"docker": {"project": "shop", "service": "worker", "host": f"unix://{tmp_path}/d.sock"}}
    gone = {"docker": {"project": "shop", "service": "worker", "host": f"unix://{tmp_path}/gone.sock"}}
    parts = [{"name": "own", "max": 2, "target": here}, {"name": "other", "max": 2, "target": gone}]
    (first, warning, error), missing = said({"several": parts}, learned=60.0)
    assert first == "default/video: own, docker: 1 of 1 replicas work"
    assert warning.startswith("warning: default/video: a container that is told to end is killed after 30 s")
    assert error.startswith("error: default/video: other, ")
    assert missing
