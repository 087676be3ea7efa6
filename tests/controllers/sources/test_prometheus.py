"""The questions as they are sent, and the contract's series of all workloads at once."""

from pathlib import Path

import pytest

from controllers.config import Prometheus
from controllers.domain import Sample
from controllers.sources import prometheus as module
from controllers.sources.prometheus import DuplicateSeries, Kind, Origin, Source, SourceError

NAME = "workload:demand:rate1m"


@pytest.fixture
def source(fake) -> Source:
    return Source(Prometheus(url=fake.url + "/"))


def timed(value: float, at: float, **labels: str) -> list[tuple[dict[str, str], float]]:
    """A contract series as `contract_at` asks for it: its value and its time."""
    return [({"__name__": NAME, "reading": "value", **labels}, value), ({"reading": "time", **labels}, at)]


def test_an_instant_question_is_a_form_with_our_deadline(fake, source: Source) -> None:
    source.instant('up{job="a&b"}', at=1234.5, deadline_seconds=3)
    (seen,) = fake.seen
    assert seen.path == "/api/v1/query"
    assert seen.form["query"] == 'up{job="a&b"}'
    assert seen.form["time"] == "1234.500"
    assert 2 < float(seen.form["timeout"].removesuffix("s")) <= 3


def test_without_a_time_the_servers_clock_counts(fake, source: Source) -> None:
    source.instant("up")
    assert "time" not in fake.seen[0].form


def test_headers_tenant_and_token_are_sent_and_the_token_is_read_anew(fake, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    source = Source(Prometheus(url=fake.url, headers={"X-A": "b"}, tenant="team-a", bearer_file=token))
    source.instant("up")
    token.write_text("second\n")
    source.instant("up")
    assert [seen.headers["Authorization"] for seen in fake.seen] == ["Bearer first", "Bearer second"]
    assert fake.seen[0].headers["X-A"] == "b"
    assert fake.seen[0].headers["X-Scope-OrgID"] == "team-a"


def test_the_environment_changes_no_credentials_and_no_way(
    fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    Source(Prometheus(url=fake.url)).instant("up", deadline_seconds=5)
    assert "Authorization" not in fake.seen[0].headers


def test_a_token_that_cannot_be_read_is_said_before_anything_is_sent(fake, tmp_path: Path) -> None:
    source = Source(Prometheus(url=fake.url, bearer_file=tmp_path / "missing"))
    with pytest.raises(SourceError, match="bearer_file cannot be read") as caught:
        source.instant("up")
    assert caught.value.kind is Kind.UNAUTHORIZED
    assert fake.seen == []


class TestRange:
    def test_a_short_one_is_one_request(self, fake, source: Source) -> None:
        fake.answer = fake.matrix(({"a": "b"}, ((0, 1), (60, 2))))
        (series,) = source.range("x", 0, 90, 60)
        assert series.samples == (Sample(1, 0), Sample(2, 60))
        form = fake.seen[0].form
        assert (form["start"], form["end"], form["step"]) == ("0.000", "90.000", "60.000")

    def test_a_long_one_is_cut_on_its_own_grid(self, fake, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_POINTS", 3)

        def points(seen):
            start, end, step = (float(seen.form[key]) for key in ("start", "end", "step"))
            return fake.matrix(
                ({"a": "b"}, [(start + n * step, n) for n in range(int((end - start) / step + 1e-6) + 1)])
            )

        fake.answer = points
        (series,) = source.range("x", 0.1, 1.2, 0.1)
        assert [round(sample.at, 3) for sample in series.samples] == [round(0.1 + n / 10, 3) for n in range(12)]
        assert [(seen.form["start"], seen.form["end"]) for seen in fake.seen] == [
            ("0.100", "0.300"),
            ("0.400", "0.600"),
            ("0.700", "0.900"),
            ("1.000", "1.200"),
        ]

    def test_a_request_stays_below_what_prometheus_allows(self, fake, source: Source) -> None:
        fake.answer = fake.matrix()
        source.range("x", 0, 30 * 86400, 60)
        counts = [
            (float(seen.form["end"]) - float(seen.form["start"])) / float(seen.form["step"]) + 1 for seen in fake.seen
        ]
        assert max(counts) < 11_000
        assert sum(counts) == 43_201

    def test_warnings_and_refusals_of_every_part_are_kept(
        self, fake, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_POINTS", 1)
        fake.answer = lambda seen: fake.matrix(
            ({}, [(float(seen.form["start"]), float("nan"))]), warnings=["part of it is missing"]
        )
        found = source.range("x", 0, 60, 60)
        assert (list(found), found.warnings, found.refused) == ([], ("part of it is missing",), 2)

    def test_parts_that_overlap_are_refused(self, fake, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_POINTS", 1)
        fake.answer = fake.matrix(({}, ((0, 1),)))
        with pytest.raises(DuplicateSeries, match="overlap at 0"):
            source.range("x", 0, 60, 60)

    def test_the_deadline_is_of_all_parts_together(self, fake, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_POINTS", 1)
        fake.answer = lambda seen: fake.Reply(body=fake.matrix().body, wait=0.1)
        with pytest.raises(SourceError) as caught:
            source.range("x", 0, 6000, 60, deadline_seconds=0.5)
        assert caught.value.kind is Kind.TIMEOUT
        assert 2 <= len(fake.seen) <= 6

    @pytest.mark.parametrize(("start", "end", "step"), [(10, 0, 1), (0, 10, 0), (0, 10, 0.0001)])
    def test_a_range_that_is_none_is_the_callers_mistake(
        self, source: Source, start: float, end: float, step: float
    ) -> None:
        with pytest.raises(ValueError, match="a range needs"):
            source.range("x", start, end, step)


class TestByWorkload:
    def test_one_sample_each(self, fake, source: Source) -> None:
        fake.answer = fake.vector(({"workload": "default/a"}, 1), ({"workload": "default/b"}, 2), ({}, 3), at=7)
        assert source.by_workload("x") == {"default/a": Sample(1, 7), "default/b": Sample(2, 7)}

    def test_nothing_is_unknown_not_0(self, fake, source: Source) -> None:
        assert source.by_workload("x") == {}

    def test_two_replicas_that_disagree_are_no_answer(self, fake, source: Source) -> None:
        fake.answer = fake.vector(
            ({"workload": "default/a", "replica": "1"}, 1), ({"workload": "default/a", "replica": "2"}, 9)
        )
        with pytest.raises(DuplicateSeries, match="2 series of default/a"):
            source.by_workload("x")

    def test_a_part_is_no_answer(self, fake, source: Source) -> None:
        fake.answer = fake.vector(({"workload": "default/a"}, 1), warnings=["a store is down"])
        with pytest.raises(SourceError, match="a store is down"):
            source.by_workload("x")


class TestContractAt:
    def test_one_question_a_series_with_the_time_of_measuring(self, fake, source: Source) -> None:
        fake.answer = fake.vector(*timed(2.5, 940.0, workload="default/a"), *timed(0, 955.0, workload="default/b"))
        reading = source.contract_at([NAME], {}, at=1000.0)[NAME]
        assert reading.sample("default/a") == Sample(2.5, 940.0)
        assert reading.sample("default/b") == Sample(0, 955.0)
        assert reading.origin == {"default/a": Origin.RULE, "default/b": Origin.RULE}
        assert len(fake.seen) == 1

    def test_a_workload_that_is_not_there_is_unknown(self, fake, source: Source) -> None:
        assert source.contract_at([NAME], {})[NAME].sample("default/a") is None

    def test_series_of_one_workload_stay_apart(self, fake, source: Source) -> None:
        fake.answer = fake.vector(
            *timed(1, 940.0, workload="default/a", quantile="0.1"),
            *timed(2, 940.0, workload="default/a", quantile="0.9"),
        )
        reading = source.contract_at([NAME], {})[NAME]
        found = {series.labels["quantile"]: series.samples[0].value for series in reading.series["default/a"]}
        assert found == {"0.1": 1.0, "0.9": 2.0}
        with pytest.raises(DuplicateSeries):
            reading.sample("default/a")

    def test_a_duplicate_hides_only_its_own_workload(self, fake, source: Source) -> None:
        fake.answer = fake.vector(
            *timed(1, 940.0, workload="default/a", replica="x"),
            *timed(2, 940.0, workload="default/a", replica="y"),
            *timed(3, 940.0, workload="default/b"),
        )
        reading = source.contract_at([NAME], {})[NAME]
        assert reading.sample("default/b") == Sample(3, 940.0)
        with pytest.raises(DuplicateSeries):
            reading.sample("default/a")

    def test_a_value_that_is_refused_is_unknown(self, fake, source: Source) -> None:
        fake.answer = fake.vector(*timed(float("nan"), 940.0, workload="default/a"))
        reading = source.contract_at([NAME], {})[NAME]
        assert reading.sample("default/a") is None
        assert reading.refused == 1

    def test_where_the_rule_is_missing_its_expression_is_evaluated(self, fake, source: Source) -> None:
        def answer(seen):
            if "timestamp" in seen.form["query"]:
                return fake.vector(*timed(1, 940.0, workload="default/a"))
            return fake.vector(({"workload": "default/b"}, 4), ({"workload": "default/c"}, 5))

        fake.answer = answer
        fallbacks = {NAME: {"default/a": "A", "default/b": "B", "default/c": "C"}}
        reading = source.contract_at([NAME], fallbacks)[NAME]
        assert fake.queries[1:] == ["(B) or (C)"]
        assert reading.sample("default/b") == Sample(4, 1000.0)
        assert reading.origin == {
            "default/a": Origin.RULE,
            "default/b": Origin.EXPRESSION,
            "default/c": Origin.EXPRESSION,
        }

    def test_one_bad_expression_hides_only_its_own_workload(self, fake, source: Source) -> None:
        def answer(seen):
            query = seen.form["query"]
            if "timestamp" in query:
                return fake.vector()
            if "BAD" in query:
                return fake.failure(400, "bad_data", "parse error")
            return fake.vector(({"workload": "default/b"}, 4))

        fake.answer = answer
        reading = source.contract_at([NAME], {NAME: {"default/a": "BAD", "default/b": "B"}})[NAME]
        assert reading.sample("default/b") == Sample(4, 1000.0)
        with pytest.raises(SourceError, match="parse error"):
            reading.sample("default/a")

    def test_many_expressions_are_asked_in_groups(self, fake, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FALLBACKS_PER_QUERY", 2)
        source.contract_at([NAME], {NAME: {f"default/{name}": name.upper() for name in "abcde"}})
        assert sorted(fake.queries[1:]) == ["(A) or (B)", "(C) or (D)", "(E)"]

    def test_a_server_that_fails_on_the_way_fails_the_whole(self, fake, source: Source) -> None:
        fake.answer = lambda seen: (
            fake.vector() if "timestamp" in seen.form["query"] else fake.failure(503, "unavailable", "going down")
        )
        with pytest.raises(SourceError) as caught:
            source.contract_at([NAME], {NAME: {"default/a": "A"}})
        assert caught.value.kind is Kind.OVERLOADED

    def test_warnings_travel_with_the_reading(self, fake, source: Source) -> None:
        fake.answer = fake.vector(*timed(1, 940.0, workload="default/a"), warnings=["a store is down"])
        assert source.contract_at([NAME], {})[NAME].warnings == ("a store is down",)


class TestContractRange:
    def test_before_a_young_rule_its_expression_speaks(self, fake, source: Source) -> None:
        def answer(seen):
            if seen.form["query"] == NAME:
                return fake.matrix(({"__name__": NAME, "workload": "default/a"}, ((180, 3), (240, 4))))
            return fake.matrix(({"workload": "default/a"}, ((0, 0), (60, 1), (120, 2))))

        fake.answer = answer
        reading = source.contract_range([NAME], {NAME: {"default/a": "A"}}, 0, 240, 60)[NAME]
        assert reading.samples("default/a") == tuple(Sample(n, n * 60) for n in range(5))
        assert reading.origin == {"default/a": Origin.EXPRESSION}
        assert [(seen.form["query"], seen.form["end"]) for seen in fake.seen] == [(NAME, "240.000"), ("(A)", "120.000")]

    def test_an_old_rule_is_asked_alone(self, fake, source: Source) -> None:
        fake.answer = fake.matrix(({"__name__": NAME, "workload": "default/a"}, ((0, 1), (60, 2))))
        reading = source.contract_range([NAME], {NAME: {"default/a": "A"}}, 0, 60, 60)[NAME]
        assert reading.origin == {"default/a": Origin.RULE}
        assert fake.queries == [NAME]

    def test_without_the_rule_the_expression_speaks_for_all_of_it(self, fake, source: Source) -> None:
        fake.answer = lambda seen: (
            fake.matrix() if seen.form["query"] == NAME else fake.matrix(({"workload": "default/a"}, ((0, 1), (60, 2))))
        )
        reading = source.contract_range([NAME], {NAME: {"default/a": "A"}}, 0, 60, 60)[NAME]
        assert reading.samples("default/a") == (Sample(1, 0), Sample(2, 60))
        assert reading.origin == {"default/a": Origin.EXPRESSION}

    def test_a_young_rule_without_older_raw_data_is_the_rule(self, fake, source: Source) -> None:
        fake.answer = lambda seen: (
            fake.matrix(({"workload": "default/a"}, ((60, 2),))) if seen.form["query"] == NAME else fake.matrix()
        )
        reading = source.contract_range([NAME], {NAME: {"default/a": "A"}}, 0, 60, 60)[NAME]
        assert reading.samples("default/a") == (Sample(2, 60),)
        assert reading.origin == {"default/a": Origin.RULE}

    def test_a_bad_expression_does_not_hide_what_the_rule_has(self, fake, source: Source) -> None:
        fake.answer = lambda seen: (
            fake.matrix(({"workload": "default/a"}, ((60, 2),)))
            if seen.form["query"] == NAME
            else fake.failure(400, "bad_data", "parse error")
        )
        reading = source.contract_range([NAME], {NAME: {"default/a": "A", "default/b": "B"}}, 0, 60, 60)[NAME]
        assert reading.samples("default/a") == (Sample(2, 60),)
        with pytest.raises(SourceError, match="parse error"):
            reading.samples("default/b")
