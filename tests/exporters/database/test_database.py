"""The database exporter as a whole: its configuration, its demonstration, and how facts become series."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from exporters import database
from exporters.collector import CollectFunction
from exporters.database.state import FAMILIES, LAG, SIZE, UP, Health, database_metrics
from exporters.runtime.config import ConfigError

Configure = Callable[[Mapping[str, Any]], Mapping[str, CollectFunction]]


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        pytest.param({"mysql": []}, "mysql: unknown key; known here: postgresql, redis, sqlite", id="another system"),
        pytest.param(
            {"postgresql": [{"url": "postgresql://h:port/d"}]},
            "postgresql.0.url: not the address of one PostgreSQL server; write postgresql://USER@HOST:PORT/DB "
            "(postgresql://watcher@db.example.com:5432/shop)",
            id="a port in words",
        ),
        pytest.param(
            {"postgresql": [{"url": "postgresql://a:1,b:2/d"}]},
            "postgresql.0.url: not the address of one PostgreSQL server; write postgresql://USER@HOST:PORT/DB "
            "(postgresql://watcher@db.example.com:5432/shop)",
            id="several servers in one address",
        ),
        pytest.param(
            {"postgresql": [{"url": "postgresql://h/d"}, {"url": "postgres://u@h:5432/d", "name": "d"}]},
            "postgresql: 'h:5432/d' stands twice; each database is watched once, under a name of its own",
            id="a PostgreSQL twice",
        ),
        pytest.param(
            {"postgresql": [{"url": "postgresql://h/d", "statements": 500}]},
            "postgresql.0.statements: found 500; it must be at most 200",
            id="too many statements",
        ),
        pytest.param(
            {"redis": [{"url": "redis://h", "name": "a"}, {"url": "redis://i", "name": "a"}]},
            "redis: 'a' stands twice; each database is watched once, under a name of its own",
            id="a name twice",
        ),
        pytest.param(
            {"sqlite": [{"path": "/a.db"}, {"path": "/a.db"}]},
            "sqlite: the database '/a.db' stands twice; remove one, or give it a name",
            id="a file twice",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_a_sentence(
    configure: Configure, section: Mapping[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        configure(section)
    assert str(refused.value) == f"t.yaml: exporters.database.{sentence}"


def test_collectors_are_named_by_addresses_without_credentials(configure: Configure) -> None:
    section = {
        "postgresql": [
            {"url": "postgresql://u:secret@[::1]:5433/shop%20a", "name": "shop"},
            {"url": "postgresql:///shop?host=/run/postgresql"},
            {"url": "postgresql://only-a-user@h"},
        ],
        "redis": [{"url": "redis://u:secret@h"}],
        "sqlite": [{"path": "/a.db", "name": "notes"}],
    }
    assert list(configure(section)) == [
        "postgresql.[::1]:5433/shop a", "postgresql./run/postgresql:5432/shop", "postgresql.h:5432/only-a-user",
        "redis.h:6379/0", "sqlite.notes",
    ]  # fmt: skip


def test_nothing_configured_is_nothing_watched(configure: Configure) -> None:
    assert configure({}) == {}


def identities(metrics: list[Metric]) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(s.name, tuple(s.labels.values())): s.value for metric in metrics for s in metric.samples}


def test_the_demonstration_has_every_family_and_its_counters_only_rise() -> None:
    pages = [list(database.demo(1_800_000_000.0 + 15 * step)) for step in range(60)]
    assert {metric.name for metric in pages[0]} == {family.name for family in FAMILIES}
    for earlier, later in itertools.pairwise(pages):
        assert identities(earlier).keys() == identities(later).keys()
        falls = [
            key
            for key, value in identities(later).items()
            if key[0].endswith("_total") and value < identities(earlier)[key]
        ]
        assert falls == []
    databases = {sample.labels["database"] for metric in pages[0] for sample in metric.samples}
    assert all(name.startswith("demo-") for name in databases)


def test_what_shares_a_label_is_added_up_and_of_delays_the_worst_counts() -> None:
    which = ("postgresql", "d")
    facts = [(SIZE, ("other",), 3.0), (SIZE, ("other",), 4.0), (LAG, ("other",), 3.0), (LAG, ("other",), 4.0)]
    values = {metric.name: metric.samples[0].value for metric in database_metrics({which: facts})}
    assert values == {"database_size_bytes": 7, "database_replication_lag_seconds": 4}


def test_the_log_hears_once_that_a_database_is_down_and_once_that_it_is_up(
    log_events: Callable[[], list[tuple[str, str]]],
) -> None:
    health = Health("postgresql", "d")
    for _ in range(3):
        metrics = list(health.down("refused", "cannot connect"))
    assert identities(metrics) == {
        ("database_up", ("postgresql", "d")): 0,
        ("database_unreachable", ("postgresql", "d", "refused")): 1,
    }
    list(health.down("starting", "it starts"))
    for _ in range(3):
        assert identities(list(health.up([]))) == {(UP.name, ("postgresql", "d")): 1}
    assert log_events() == [("database_down", "cannot connect"), ("database_down", "it starts"), ("database_up", "")]
