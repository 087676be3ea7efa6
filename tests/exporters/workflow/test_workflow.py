"""The workflow exporter's configuration, what it remembers, and its demonstration."""

from pathlib import Path
from typing import Any

import pytest

from exporters.runtime.config import ConfigError, validate
from exporters.workflow import FAMILIES, Config, collectors, demo
from exporters.workflow.executions import HOLES_MOST, Execution, Follower, Tally
from exporters.workflow.expectation import Expectations
from exporters.workflow.state import Workflow


def test_nothing_configured_is_nothing_read() -> None:
    assert collectors(Config()) == {}


@pytest.mark.parametrize(
    ("n8n", "message"),
    [
        ([{}], "n8n.0: found none of them; name one source: postgresql, sqlite or api"),
        ([{"sqlite": "a", "api": "http://n8n:5678", "api_key_file": "k"}],
         "n8n.0: found sqlite and api; name one source: postgresql, sqlite or api"),
        ([{"api": "http://n8n:5678"}],
         "n8n.0: api needs api_key_file, a file with a key made in n8n under Settings, n8n API"),
        ([{"sqlite": "a", "ca_file": "k"}],
         "n8n.0: api_key_file and ca_file belong to api, which is not named"),
        ([{"api": "http://me:secret@n8n", "api_key_file": "k"}],
         "n8n.0.api: holds more than scheme, host, port and path; keys and passwords go into files"),
        ([{"api": "n8n:5678", "api_key_file": "k"}],
         "n8n.0.api: 'n8n:5678' is no address; write http://HOST:PORT or https://HOST"),
        ([{"sqlite": "a"}, {"sqlite": "b"}],
         "n8n: give each n8n a name of its own: 'n8n' stands twice"),
        ([{"sqlite": "a"}, {"sqlite": "a", "name": "b"}], "n8n: found a twice"),
        ([{"sqlite": "a", "expected": [{"workflow": "w", "seconds": 0}]}],
         "n8n.0.expected.0.seconds: found 0; it must be more than 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(n8n: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Config, {"n8n": n8n}, Path("tidewise.yaml"))
    assert str(caught.value) == f"tidewise.yaml: {message}"


def test_a_collector_is_called_by_its_address_without_credentials() -> None:
    config = Config(
        n8n=[
            {"name": "a", "postgresql": {"url": "postgresql://me:secret@db:5433/n8n"}},
            {"name": "b", "api": "https://n8n.example.com/tools/", "api_key_file": "k"},
        ]
    )
    assert list(collectors(config)) == ["db:5433/n8n", "n8n.example.com:443/tools"]


def test_the_demonstration_shows_every_family_and_no_counter_falls() -> None:
    first, later = (
        {(s.name, *s.labels.items()): s.value for metric in demo(at) for s in metric.samples}
        for at in (1.8e9, 1.8e9 + 30_000)
    )
    assert {metric.name for metric in demo(1.8e9)} == {family.name for family in FAMILIES}
    assert first.keys() == later.keys()
    counted = [key for key in first if key[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    assert all(first[key] <= later[key] for key in counted)


def execution(number: int, status: str = "success", **more: Any) -> Execution:
    return Execution(number, "w", "trigger", status, **more)


def test_a_number_is_looked_for_while_it_may_still_come_and_no_more_of_them_than_can_be_asked() -> None:
    follower = Follower(10, [])
    assert [one.number for one in follower.absorb([execution(13)], (), now=0)] == [13]
    assert sorted(follower.asks) == [11, 12]
    assert [one.number for one in follower.absorb([execution(12)], [11, 12], now=30)] == [12]
    assert follower.asks == [11]
    assert follower.absorb([], [11], now=61) == []
    assert follower.asks == []
    follower.absorb([execution(10**9)], (), now=62)
    assert len(follower.asks) == HOLES_MOST


def test_a_canceled_execution_is_neither_success_nor_failure_and_its_time_tells_nothing() -> None:
    tally = Tally()
    tally.add(execution(1, "canceled", started=1.0, stopped=2.0))
    assert tally.of("w").counts == {}
    assert tally.of("w").durations is None


@pytest.mark.parametrize(
    ("changed", "last_success", "looks_before", "since"),
    [
        pytest.param(50.0, 80.0, 0, 80.0, id="it succeeded: from then"),
        pytest.param(90.0, 80.0, 0, 80.0, id="an edit after a success is no excuse"),
        pytest.param(50.0, None, 0, 50.0, id="it never did: from its last change"),
        pytest.param(None, None, 0, 100.0, id="nothing is known: from now"),
        pytest.param(50.0, 80.0, 1, 100.0, id="it appeared while the exporter runs: from now"),
        pytest.param(150.0, None, 0, 100.0, id="changed in the future: from now"),
        pytest.param(50.0, 150.0, 0, 100.0, id="succeeded in the future, the clock was set back: from now"),
    ],
)
def test_from_when_an_interval_counts(
    changed: float | None, last_success: float | None, looks_before: int, since: float
) -> None:
    expectations = Expectations()
    for _ in range(looks_before):
        expectations.looked(set())
    found = expectations.since(Workflow("w", "W", True, changed), 3600, last_success, now=100.0)
    assert found == since
