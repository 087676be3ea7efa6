"""What holds for every card, whatever it can: read through the real library where the machine has a card, else through
the shim. With a card at hand, run just these:

    python -m pytest tests/exporters/gpu/test_card.py
"""

import time
from collections.abc import Callable, Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporters.collector import CollectFunction
from exporters.gpu import FAMILIES, Config, fleet
from exporters.gpu.families import CARD_PROBLEMS, THROTTLE_REASONS

Page = Callable[[Mapping[str, CollectFunction]], str]
Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def two_scrapes(nvml: str, page: Page) -> tuple[Samples, Samples]:
    """By series name, the samples of one scrape and of one a moment later."""
    cards = fleet(Config(processes=True))
    try:
        texts = [page({"nvml": cards.collect}), page({"nvml": cards.collect})]
    finally:
        cards.close()
    first, second = ({}, {})
    for text, found in zip(texts, (first, second), strict=True):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return first, second


def values(samples: Samples, name: str) -> dict[str, float]:
    return {labels["uuid"]: value for labels, value in samples.get(name, [])}


def test_every_card_answers_and_is_called_something(two_scrapes: tuple[Samples, Samples]) -> None:
    _, found = two_scrapes
    assert found["gpu_driver_up"] == [({}, 1.0)]
    assert found["gpu_driver_info"][0][0]["driver_version"]
    up = values(found, "gpu_up")
    assert up
    assert set(up.values()) == {1.0}
    assert all(uuid.startswith("GPU-") for uuid in up)
    assert {labels["uuid"]: bool(labels["name"]) for labels, _ in found["gpu_info"]} == dict.fromkeys(up, True)
    assert len(found["gpu_problem_active"]) == len(up) * len(CARD_PROBLEMS)


def test_nothing_stands_on_the_page_that_is_not_declared(two_scrapes: tuple[Samples, Samples]) -> None:
    declared = {family.series: set(family.labels) for family in FAMILIES}
    for name, samples in two_scrapes[1].items():
        assert all(set(labels) == declared[name] for labels, _ in samples), name


def test_ratios_lie_between_0_and_1_and_temperatures_are_of_this_world(two_scrapes: tuple[Samples, Samples]) -> None:
    _, found = two_scrapes
    for name, samples in found.items():
        for labels, value in samples:
            if name.endswith("_ratio"):
                assert 0 <= value <= 1, (name, labels)
            elif name.endswith("_celsius"):
                assert -20 < value < 150, (name, labels)
            else:
                assert value >= 0, (name, labels)


def test_memory_adds_up(two_scrapes: tuple[Samples, Samples]) -> None:
    _, found = two_scrapes
    total, used, free, reserved = (
        values(found, f"gpu_memory_{part}_bytes") for part in ("total", "used", "free", "reserved")
    )
    assert total
    for uuid in total:
        assert used[uuid] + free[uuid] + reserved.get(uuid, 0) == pytest.approx(total[uuid], rel=0.02)


def test_power_is_near_its_limit_at_most(two_scrapes: tuple[Samples, Samples]) -> None:
    _, found = two_scrapes
    power, limit = values(found, "gpu_power_watts"), values(found, "gpu_power_limit_watts")
    for uuid in power.keys() & limit.keys():
        assert 0 < power[uuid] < 2 * limit[uuid]


def test_every_known_reason_to_throttle_is_there_as_0_or_1(two_scrapes: tuple[Samples, Samples]) -> None:
    _, found = two_scrapes
    by_card: dict[str, set[str]] = {}
    for labels, value in found.get("gpu_throttle_active", []):
        assert value in (0, 1)
        by_card.setdefault(labels["uuid"], set()).add(labels["reason"])
    assert by_card
    assert all(reasons == set(THROTTLE_REASONS.values()) for reasons in by_card.values())


def test_counters_do_not_fall(two_scrapes: tuple[Samples, Samples]) -> None:
    first, second = two_scrapes
    for family in FAMILIES:
        if family.kind == "counter":
            now = {tuple(labels.items()): value for labels, value in second.get(family.series, [])}
            for labels, value in first.get(family.series, []):
                assert now[tuple(labels.items())] >= value, family.series


def test_activity_is_there_from_the_second_scrape_on_where_the_card_measures_it(
    nvml: str, two_scrapes: tuple[Samples, Samples]
) -> None:
    first, second = two_scrapes
    assert "gpu_sm_active_ratio" not in first
    able = {labels["uuid"] for labels, _ in second["gpu_info"] if float(labels["compute_capability"] or 0) >= 9}
    measured = set(values(second, "gpu_sm_active_ratio"))
    assert measured == able if nvml == "shim" else measured <= able


def test_a_scrape_of_a_real_card_takes_less_than_a_second(nvml: str) -> None:
    if nvml != "real":
        pytest.skip("needs a real NVIDIA card: how long its driver takes")
    cards = fleet(Config(processes=True))
    try:
        list(cards.collect(time.monotonic() + 30))
        began = time.monotonic()
        list(cards.collect(time.monotonic() + 30))
        assert time.monotonic() - began < 1
    finally:
        cards.close()


def test_a_real_card_counts_the_energy_it_draws(nvml: str) -> None:
    if nvml != "real":
        pytest.skip("needs a real NVIDIA card: its energy counter against its power")
    cards = fleet(Config())
    try:
        readings = []
        for _ in range(2):
            metrics = {metric.name: metric.samples for metric in cards.collect(time.monotonic() + 30)}
            readings.append({s.labels["uuid"]: s.value for s in metrics.get("gpu_energy_joules", [])})
            time.sleep(0.5)
        power = {sample.labels["uuid"]: sample.value for sample in metrics["gpu_power_watts"]}
        for uuid, before in readings[0].items():
            assert 0.05 * power[uuid] < readings[1][uuid] - before < 5 * power[uuid]
    finally:
        cards.close()
