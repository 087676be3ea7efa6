"""The demonstration: every family, the same series at each time, no counter that falls."""

from exporters.latency import FAMILIES, demo


def values(at: float) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in demo(at)
        for sample in metric.samples
    }


def test_it_shows_every_family_and_nothing_falls() -> None:
    assert {metric.name for metric in demo(1.8e9)} == {family.name for family in FAMILIES}
    before = values(1.8e9)
    for step in range(1, 100):
        now = values(1.8e9 + 37 * step)
        assert now.keys() == before.keys()
        counters = [key for key in now if key[0].endswith(("_total", "_bucket", "_count", "_sum"))]
        assert [key for key in counters if now[key] < before[key]] == []
        before = now


def test_buckets_of_a_histogram_rise_to_its_count() -> None:
    found = values(1.8e9)
    for (name, labels), count in found.items():
        if name == "request_duration_seconds_count":
            buckets = [value for (each, of), value in found.items()
                       if each == "request_duration_seconds_bucket" and set(labels) < set(of)]  # fmt: skip
            assert buckets == sorted(buckets)
            assert buckets[-1] == count
