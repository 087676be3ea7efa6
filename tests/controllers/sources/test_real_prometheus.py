"""The same questions to a real Prometheus: what the script of the fake assumes is what the server does."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from controllers.config import Prometheus as Settings
from controllers.sources.prometheus import Kind, Origin, Sample, Source, SourceError
from testbed.parts import Prometheus, create_blocks

pytestmark = pytest.mark.real

STEP = 60
POINTS = 12_000  # more than one request may ask for
NAME = "workload:demand:rate1m"
RAW = "queue_enqueued_total"


@pytest.fixture(scope="module")
def until() -> int:
    """The newest sample's time: three minutes ago, within what an instant question looks back."""
    return int(time.time()) // STEP * STEP - 180


@pytest.fixture(scope="module")
def server(parts_root: Path, tmp_path_factory: pytest.TempPathFactory, until: int) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("history")
    times = [until - STEP * n for n in reversed(range(POINTS))]
    lines = [f"# TYPE {NAME} gauge"]
    lines += [f'{NAME}{{workload="default/old"}} {n} {at}' for n, at in enumerate(times)]
    # this rule is an hour old; the counter below was there before it
    lines += [f'{NAME}{{workload="default/young"}} 2 {at}' for at in times[-60:]]
    lines += [f'{NAME}{{workload="default/twice",replica="{r}"}} {r} {at}' for r in "12" for at in times[-5:]]
    lines += [f'{NAME}{{workload="default/broken"}} NaN {at}' for at in times[-5:]]
    lines += [f"# TYPE {RAW.removesuffix('_total')} counter"]
    lines += [f'{RAW}{{system="redis",queue="young"}} {n * STEP * 2} {at}' for n, at in enumerate(times[-300:])]
    (folder / "history.om").write_text("\n".join([*lines, "# EOF"]) + "\n")
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    prometheus = Prometheus(folder, folder / "prometheus.yml", root=parts_root)
    create_blocks(folder / "history.om", prometheus.data_folder, root=parts_root)
    with prometheus:
        yield prometheus


@pytest.fixture
def source(server: Prometheus) -> Source:
    return Source(Settings(url=server.url))


YOUNG = {
    NAME: {
        "default/young": f'label_replace(sum(rate({RAW}{{queue="young"}}[5m])), "workload", "default/young", "", "")'
    }
}


def test_more_points_than_one_request_may_ask_for(source: Source, until: int) -> None:
    start = until - STEP * (POINTS - 1)
    (series,) = source.range(f'{NAME}{{workload="default/old"}}', start, until, STEP)
    assert [sample.value for sample in series.samples] == list(range(POINTS))
    assert [sample.at for sample in series.samples] == [start + STEP * n for n in range(POINTS)]


def test_a_sample_tells_when_it_was_measured(source: Source, until: int) -> None:
    reading = source.contract_at([NAME], {})[NAME]
    assert reading.sample("default/old") == Sample(POINTS - 1, until)
    (asked,) = source.instant(f'{NAME}{{workload="default/old"}}')
    assert asked.samples[0].at > until + 100  # the time of the question, which is why contract_at asks for both


def test_two_replicas_and_a_broken_value_hide_only_themselves(source: Source) -> None:
    reading = source.contract_at([NAME], {})[NAME]
    assert reading.sample("default/broken") is None
    assert reading.refused == 1
    with pytest.raises(SourceError, match="2 series of default/twice"):
        reading.sample("default/twice")


def test_what_lies_before_a_young_rule_comes_from_its_expression(source: Source, until: int) -> None:
    start = until - 299 * STEP
    reading = source.contract_range([NAME], YOUNG, start, until, STEP)[NAME]
    samples = reading.samples("default/young")
    assert reading.origin["default/young"] is Origin.EXPRESSION
    # the counter's first sample alone gives no rate, on 3.x as on 2.x
    assert len(samples) == 299
    assert {round(sample.value, 6) for sample in samples[4:]} == {2.0}  # from when the five minutes are full
    assert all(after.at - before.at == STEP for before, after in pairwise(samples))


def test_a_rule_that_was_always_there_is_left_alone(source: Source, until: int) -> None:
    reading = source.contract_range([NAME], YOUNG, until - 59 * STEP, until, STEP)[NAME]
    assert reading.origin["default/young"] is Origin.RULE
    assert len(reading.samples("default/young")) == 60


KINDS = [
    ("an expression that is none", "sum(", Kind.BAD_QUERY),
    ("a sum of a number", "sum(1)", Kind.BAD_QUERY),
    ("text", '"hello"', Kind.BAD_QUERY),
    ("two series on one side", f"{NAME} * on () group_left () {NAME}", Kind.DUPLICATE),
    ("two series made one", f'label_replace({NAME}, "workload", "x", "", "")', Kind.DUPLICATE),
]


@pytest.mark.parametrize(("expr", "kind"), [r[1:] for r in KINDS], ids=[r[0] for r in KINDS])
def test_refusals_have_their_kind(source: Source, expr: str, kind: Kind) -> None:
    with pytest.raises(SourceError) as caught:
        source.instant(expr)
    assert caught.value.kind is kind


def test_a_remark_on_the_expression_is_no_warning(source: Source) -> None:
    assert source.instant(f"rate({NAME}[10m])").warnings == ()


def test_it_is_stopped_and_comes_back(parts_root: Path, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text("scrape_configs: []\n")
    with Prometheus(tmp_path, tmp_path / "prometheus.yml", root=parts_root) as prometheus:
        source = Source(Settings(url=prometheus.url))
        assert len(source.instant("vector(1)")) == 1
        prometheus.stop()
        with pytest.raises(SourceError) as caught:
            source.instant("vector(1)")
        assert caught.value.kind is Kind.UNREACHABLE
        prometheus.start()
        assert len(source.instant("vector(1)")) == 1
