"""The page's writer, held to prometheus-client: the same bytes as its encoders, and what its parsers read back."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Exemplar, NativeHistogram, Timestamp

from exporters.runtime.exposition import Pages

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
ACCEPTS = (
    "",
    "text/plain;version=0.0.4",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "text/plain;version=1.0.0;escaping=dots",
    OPENMETRICS,
    "application/openmetrics-text",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
    "application/openmetrics-text;version=1.0.0;escaping=values",
    "application/openmetrics-text;version=2.0.0",
    "application/openmetrics-text;version=0.0.1",
)


class Given:
    """A registry of these families."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self.metrics


def expected(metrics: Sequence[Metric], accept: str) -> tuple[bytes, str]:
    encode: Callable[[Any], bytes]
    encode, content_type = choose_encoder(accept)
    return encode(Given(metrics)), content_type


words = st.from_regex("[a-z_:é][a-z0-9_]{0,6}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(['a"b', "a\\nb", "a\nb", "\\"])
values = (
    st.floats()
    | st.integers(-(10**20), 10**20)
    | st.sampled_from([999_999, 1e6, 1e7, 1e15, 1e16, 1e-7, -0.0, math.inf, -math.inf, math.nan])
)
stamps = st.none() | st.floats(0, 4e9) | st.integers(0, 2**32) | st.just(Timestamp(1_700_000_000, 5))


@st.composite
def families(draw: st.DrawFn) -> Metric:
    kind = draw(
        st.sampled_from(["gauge", "counter", "summary", "histogram", "unknown", "gaugehistogram", "info", "stateset"])
    )
    name = draw(words)
    metric = Metric(name, draw(texts), kind)
    metric.unit = draw(st.sampled_from(["", "seconds"]))
    endings = ["", "_total", "_created", "_gsum", "_gcount", "_bucket", "_sum", "_count", "_info"]
    for _ in range(draw(st.integers(0, 4))):
        labels = draw(st.dictionaries(words, texts, max_size=3))
        metric.add_sample(name + draw(st.sampled_from(endings)), labels, draw(values), draw(stamps))
    return metric


@settings(max_examples=50, deadline=None)
@given(st.lists(families(), max_size=5), st.sampled_from(ACCEPTS))
def test_any_page_is_written_as_prometheus_client_writes_it(metrics: list[Metric], accept: str) -> None:
    pages = Pages()
    for _ in range(2):  # the second time out of its memory
        assert pages.page(Given(metrics), accept) == expected(metrics, accept)


def everything() -> list[Metric]:
    """One family of each kind that an exporter may publish."""
    gauge = GaugeMetricFamily("depth_bytes", 'Bytes \\ "of"\nit.', labels=["queue", "a"])
    gauge.add_metric(['odd"\\\n', "é"], 1.5)
    gauge.add_metric(["", "z"], math.nan)
    gauge.add_metric(["far", "z"], math.inf, timestamp=1_700_000_000.25)
    counter = CounterMetricFamily("jobs", "Jobs.", labels=["queue"], unit="")
    counter.add_metric(["a"], 12_345_678.0, created=1_700_000_000.5)
    counter.add_metric(["b"], 1e16)
    histogram = HistogramMetricFamily("wait_seconds", "Waited.", labels=["queue"])
    histogram.add_metric(["a"], [("0.1", 1.0), ("1000000.0", 2.0), ("+Inf", 3.0)], 7.25)
    summary = SummaryMetricFamily("took_seconds", "Took.", labels=["queue"])
    summary.add_metric(["a"], 4, 2.5)
    info = InfoMetricFamily("build", "Build.", {"version": "1"})
    states = StateSetMetricFamily("light", "Light.", {"red": True, "green": False})
    return [gauge, counter, histogram, summary, info, states]


@pytest.mark.parametrize("accept", ACCEPTS)
def test_every_kind_of_family_in_every_format(accept: str) -> None:
    assert Pages().page(Given(everything()), accept) == expected(everything(), accept)


def test_both_parsers_read_back_what_was_written() -> None:
    pages = Pages()
    text = {family.name: family for family in parse_text(pages.text(everything(), False).decode())}
    strict = {family.name: family for family in parse_openmetrics(pages.text(everything(), True).decode())}
    for read in (text, strict):
        assert read["depth_bytes"].documentation == 'Bytes \\ "of"\nit.'
        first, second, third = read["depth_bytes"].samples
        assert (first.labels, first.value) == ({"queue": 'odd"\\\n', "a": "é"}, 1.5)
        assert math.isnan(second.value)
        assert third.value == math.inf
        assert third.timestamp is not None
        assert float(third.timestamp) == 1_700_000_000.25
        assert [sample.value for sample in read["jobs"].samples if sample.name == "jobs_total"] == [12_345_678.0, 1e16]
        assert read["wait_seconds"].type == "histogram"
        assert {sample.name for sample in read["took_seconds"].samples} == {"took_seconds_count", "took_seconds_sum"}


def test_exemplars_and_native_histograms_are_left_to_prometheus_client() -> None:
    counter = CounterMetricFamily("jobs", "Jobs.", exemplar=Exemplar({"trace": "a"}, 1.0, 5.0), value=3)
    native = Metric("sizes", "Sizes.", "histogram")
    native.add_sample("sizes", {}, 0.0, native_histogram=NativeHistogram(1, 2, 3, 0.1, 0))
    for metrics in ([counter], [native]):
        for accept in ("", OPENMETRICS):
            assert Pages().page(Given(metrics), accept) == expected(metrics, accept)
    assert b"# {trace=" in Pages().page(Given([counter]), OPENMETRICS)[0]


def test_a_value_that_is_no_number_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="a cable"):
        Pages().page(Given([GaugeMetricFamily("depth", "", "a cable")]), "")  # type: ignore[arg-type]


def test_what_is_kept_is_no_more_than_the_last_page() -> None:
    pages = Pages()
    for page in range(20):
        family = GaugeMetricFamily(f"depth_{page}" if page < 15 else "depth", "Depth.", labels=["queue"])
        for number in range(300):
            family.add_metric([f"{page}.{number}"], number)
        assert pages.page(Given([family]), "") == expected([family], "")
    assert pages.page(Given([GaugeMetricFamily("depth", "Depth.", 1)]), "")[0].endswith(b"depth 1.0\n")
    assert pages.kept <= 15 * 301 + 2
    for page in range(1200):  # names that nobody declared; an exporter's are declared
        pages.text([GaugeMetricFamily(f"depth_{page}", "Depth.", 1)], False)
    assert pages.kept <= 2 * 1004


def test_series_that_come_and_go_and_change_their_order_stay_themselves() -> None:
    pages = Pages()
    for queues in ("abc", "ac", "cab", "", "bb", "abcd"):
        family = GaugeMetricFamily("depth", "Depth.", labels=["queue"])
        for place, queue in enumerate(queues):
            family.add_metric([queue], place)
        assert pages.page(Given([family]), "") == expected([family], "")


def test_labels_that_their_owner_changes_are_written_as_they_are_now() -> None:
    pages, labels = Pages(), {"queue": "a"}
    for queue in "ab":
        labels["queue"] = queue
        metric = Metric("depth", "", "gauge")
        metric.add_sample("depth", labels, 1)
        assert pages.text([metric], True).endswith(f'depth{{queue="{queue}"}} 1.0\n# EOF\n'.encode())


def test_equal_values_of_other_labels_are_other_series() -> None:
    metric = Metric("depth", "", "gauge")
    for label in ("a", "b", "a"):
        metric.add_sample("depth", {label: "x"}, 1)
    assert Pages().text([metric], False).endswith(b'depth{a="x"} 1.0\ndepth{b="x"} 1.0\ndepth{a="x"} 1.0\n')
