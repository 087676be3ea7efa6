"""Label values from outside: whatever they are, a page carries them, says the same to every parser, and stays small."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporters.labels import LONGEST, OTHER, Cap, clean, refused
from exporters.runtime.exposition import Pages

anything = st.one_of(st.text(st.characters(), max_size=300), st.binary(max_size=300))  # lone surrogates included
NASTY = ['a"b\\c\nd', "\\n", "\r\n", "\x00", "\u2028", "}", '"} 1\nfake 2', "\ud800", "ﬀ" * 250, b"\xff\xfe", b"\xc3"]


class One:
    """A family whose series carry the given values."""

    def __init__(self, values: list[str]) -> None:
        self._values = values

    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily("seen", 'Seen "here",\nnow.', labels=["value"])
        for place, value in enumerate(self._values):
            family.add_metric([value], place)
        return [family]


def assert_carried(values: list[str]) -> None:
    """By prometheus-client's encoders and by ours, in both formats."""
    expected = dict(zip(values, range(len(values)), strict=True))
    registry = CollectorRegistry()
    registry.register(One(values))  # type: ignore[arg-type]  # collect() is all that a registry asks of it
    for page in (generate_latest(registry), Pages().page(registry, "")[0]):
        (family,) = parse_text(page.decode())
        assert {sample.labels["value"]: sample.value for sample in family.samples} == expected
    accept = "application/openmetrics-text;version=1.0.0"
    for page in (generate_openmetrics(registry), Pages().page(registry, accept)[0]):
        (family,) = parse_openmetrics(page.decode())
        assert {sample.labels["value"]: sample.value for sample in family.samples} == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(anything, min_size=1, max_size=6))
def test_any_text_and_any_bytes_come_back_from_the_page_as_they_were_cleaned(values: list[str | bytes]) -> None:
    cleaned = list(dict.fromkeys(clean(value) for value in values))
    assert all(len(text) <= LONGEST for text in cleaned)
    assert_carried(cleaned)


def test_the_nastiest_together() -> None:
    cleaned = [clean(value) for value in NASTY]
    assert len(set(cleaned)) == len(NASTY)
    assert_carried(cleaned)


@settings(max_examples=100, deadline=None)
@given(anything)
def test_cleaning_twice_changes_nothing_and_short_text_stays(value: str | bytes) -> None:
    text = clean(value)
    assert clean(text) == text
    text.encode()
    if isinstance(value, str) and len(value) <= LONGEST and not any("\ud800" <= c <= "\udfff" for c in value):
        assert text == value


def test_ten_kilobytes_are_cut_and_what_differs_later_is_one() -> None:
    assert clean("x" * 10_240) == "x" * (LONGEST - 1) + "…"
    assert clean(b"\xff" * 10_240) == (r"\xff" * LONGEST)[: LONGEST - 1] + "…"
    assert clean("é" * 10_240) == "é" * (LONGEST - 1) + "…"
    assert clean("x" * 10_240 + "a") == clean("x" * 10_240 + "b")


def test_a_million_values_are_a_few_and_are_counted() -> None:
    cap = Cap("test.million", "route", 100)
    kept = {cap(f"/user/{number}") for number in range(990_000)}
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept |= {cap(f"/user/{number}") for number in range(990_000, 1_000_000)}
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(kept) == 101
    assert OTHER in kept
    assert cap("/user/99") == "/user/99", "the first ones stay what they are"
    assert cap("/user/100") == OTHER
    assert grown < 20_000, "bytes, by ten thousand values beyond the limit"
    counted = {tuple(sample.labels.values()): sample.value for sample in refused().samples}
    assert counted["test.million", "route"] == 999_901


def test_caps_of_one_collector_and_label_are_one_series() -> None:
    for _ in range(2):
        cap = Cap("test.two", "queue", 0)
        cap("a")
    samples = [sample for sample in refused().samples if sample.labels["collector"] == "test.two"]
    assert [(sample.labels["label"], sample.value) for sample in samples] == [("queue", 2)]
