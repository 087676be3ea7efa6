"""The queue exporter as a whole: nothing configured, and its demonstration."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from exporters.queue import FAMILIES, collectors, demo
from exporters.queue.state import STATES
from exporters.runtime.config import Section


def test_without_any_queue_it_runs_and_shows_nothing(watched: Callable[[Mapping[str, Any]], Any]) -> None:
    assert watched({}).series() == {}


def shown(at: float) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sample.labels.items())): sample.value for metric in demo(at) for sample in metric.samples
    }


def test_the_demonstration_has_every_family_and_every_state() -> None:
    pages = list(demo(1_800_000_000))
    assert {metric.name for metric in pages} == {family.name for family in FAMILIES}
    series = shown(1_800_000_000)
    states = {dict(labels)["state"] for name, labels in series if name == "queue_messages"}
    assert states == set(STATES)
    assert all(dict(labels)["queue"].startswith("demo-") for _, labels in series)


def test_the_demonstration_depends_on_time_alone_and_its_counters_never_fall() -> None:
    times = [1_800_000_000 + step for step in range(0, 1800, 7)]
    pages = [shown(at) for at in times]
    assert pages[0] == shown(times[0])
    assert all(page.keys() == pages[0].keys() for page in pages)
    for name, labels in pages[0]:
        values = [page[name, labels] for page in pages]
        assert min(values) >= 0
        if name.endswith(("_total", "_bucket", "_count", "_sum")):
            assert values == sorted(values), name
    ready = [
        page["queue_messages", (("system", "redis"), ("queue", "demo-video-jobs"), ("state", "ready"))]
        for page in pages
    ]
    assert 20 < min(ready) < 40 < max(ready) < 60


@pytest.mark.parametrize("section", [{}, {"redis": [], "rq": []}])
def test_an_empty_section_is_no_mistake(section: Mapping[str, Any]) -> None:
    from exporters.queue import Config

    config = Config(**section)
    assert isinstance(config, Section)
    assert collectors(config) == {}
