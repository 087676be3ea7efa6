"""What `--demo` shows, exporter by exporter: everything that is declared, and plausible as far as can be computed."""

import math
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporters.__main__ import demo_functions
from exporters.collector import Collectors
from exporters.families import Family
from exporters.registry import EXPORTERS, exporter
from exporters.runtime.exposition import Pages

NOW = 1_800_000_000.0
TIMES = (NOW, NOW + 1, NOW + 60, NOW + 3600, NOW + 86_400, NOW + 40 * 86_400)
COUNTED = ("_total", "_bucket", "_sum", "_count")

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]

by_exporter = pytest.mark.parametrize("name", list(EXPORTERS))


def families(name: str) -> dict[str, Family]:
    return {family.name: family for family in exporter(name).FAMILIES}


def series(metrics: Iterable[Metric]) -> Series:
    """Every series and its value. Fails where one is there twice."""
    found: Series = {}
    for metric in metrics:
        for sample in metric.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


@by_exporter
def test_it_declares_what_it_may_publish(name: str) -> None:
    declared = exporter(name).FAMILIES
    assert declared, "an exporter publishes something"
    assert len({family.name for family in declared}) == len(declared)
    for family in declared:
        assert family.meaning.endswith("."), f"{family.name}: a sentence"
        assert family.source, f"{family.name}: says where its values are read"
        assert len(set(family.labels)) == len(family.labels)


@by_exporter
def test_its_demo_has_every_declared_family_with_the_declared_labels_and_no_other(name: str) -> None:
    declared = families(name)
    shown: dict[str, list[Metric]] = {}
    for metric in exporter(name).demo(NOW):
        shown.setdefault(metric.name, []).append(metric)
    assert set(shown) == set(declared)
    for family_name, metrics in shown.items():
        family = declared[family_name]
        assert any(metric.samples for metric in metrics), f"{family_name} is empty"
        for metric in metrics:
            assert (metric.type, metric.documentation) == (family.kind, family.meaning)
            for sample in metric.samples:
                own = {"le"} if sample.name.endswith("_bucket") and family.kind == "histogram" else set()
                assert set(sample.labels) - own == set(family.labels), sample.name


@by_exporter
def test_its_demo_is_the_same_set_of_finite_values_at_every_time_and_a_function_of_it(name: str) -> None:
    first = series(exporter(name).demo(NOW))
    assert first == series(exporter(name).demo(NOW)), "the same for the same time"
    for at in TIMES[1:]:
        later = series(exporter(name).demo(at))
        assert set(later) == set(first)
        assert all(math.isfinite(value) for value in later.values())
    assert series(exporter(name).demo(NOW + 60)) != first, "it moves"


@by_exporter
def test_what_its_demo_counts_never_falls(name: str) -> None:
    counted = {f.name for f in exporter(name).FAMILIES if f.kind in ("counter", "histogram")}

    def counts(at: float) -> Series:
        found = series(metric for metric in exporter(name).demo(at) if metric.name in counted)
        return {key: value for key, value in found.items() if key[0].endswith(COUNTED)}

    steps = [NOW + 7.5 * n for n in range(60)] + list(TIMES[3:])
    for before, after in pairwise(counts(at) for at in sorted(steps)):
        fallen = [key for key, value in after.items() if value < before[key]]
        assert not fallen


@by_exporter
def test_ratios_of_its_demo_are_between_0_and_1_and_sizes_and_times_not_negative(name: str) -> None:
    declared = families(name)
    for at in TIMES:
        for metric in exporter(name).demo(at):
            for sample in metric.samples:
                if declared[metric.name].unit == "0 to 1":
                    assert 0 <= sample.value <= 1, sample
                elif declared[metric.name].unit:
                    assert sample.value >= 0, sample


@by_exporter
def test_names_of_its_demo_say_that_they_are_made_up(name: str) -> None:
    values = [value for metric in exporter(name).demo(NOW) for s in metric.samples for value in s.labels.values()]
    assert not values or any(value.startswith("demo-") for value in values)


class Page:
    """All demos as one process shows them."""

    def collect(self) -> Iterable[Metric]:
        return Collectors(demo_functions(list(EXPORTERS))).collect()


def test_all_of_them_are_one_page_in_both_formats() -> None:
    registry = CollectorRegistry()
    registry.register(Page())  # type: ignore[arg-type]  # collect() is all that a registry asks of it
    plain = list(parse_text(Pages().page(registry, "")[0].decode()))
    strict = list(parse_openmetrics(Pages().page(registry, "application/openmetrics-text;version=1.0.0")[0].decode()))
    assert len(series(plain)) == len(series(strict))
    success: dict[str, Any] = {
        sample.labels["collector"]: sample.value
        for family in plain
        if family.name == "tidewise_exporter_collector_success"
        for sample in family.samples
    }
    assert success == {f"demo.{name}": 1 for name in EXPORTERS}
    assert {family.name for name in EXPORTERS for family in exporter(name).FAMILIES} <= {f.name for f in strict}


def test_the_demo_of_the_present_follows_the_clock() -> None:
    (function,) = demo_functions(["queue"]).values()
    assert set(series(function(time.monotonic() + 5))) == set(series(exporter("queue").demo(time.time())))
