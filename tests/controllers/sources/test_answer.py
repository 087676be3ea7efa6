"""What an envelope is made into: an answer, or an error of one kind."""

import json

import pytest

from controllers.sources import answer as module
from controllers.sources.answer import DuplicateSeries, Kind, SourceError, answer, retry_after, rows

NOW = 1_000_000.0


def envelope(kind: str, result: object, **more: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **more}).encode()


def error(error_type: str, text: str) -> bytes:
    return json.dumps({"status": "error", "errorType": error_type, "error": text}).encode()


def row(value: object, at: object = 5, **labels: str) -> dict[str, object]:
    return {"metric": labels, "value": [at, value]}


REFUSED = [
    ("a redirect is not followed", 302, b"", Kind.MALFORMED),
    ("no credentials", 401, b"who are you?", Kind.UNAUTHORIZED),
    ("credentials that may not", 403, error("forbidden", "no"), Kind.UNAUTHORIZED),
    ("an address that is not Prometheus's", 404, b"<html>not here</html>", Kind.MALFORMED),
    ("an expression that cannot be parsed", 400, error("bad_data", "parse error"), Kind.BAD_QUERY),
    ("an expression that cannot be evaluated", 422, error("execution", "many-to-many"), Kind.BAD_QUERY),
    (
        "an expression that meets duplicates",
        422,
        error("execution", "found duplicate series for the match group {} on the left"),
        Kind.DUPLICATE,
    ),
    (
        "an expression that makes duplicates",
        422,
        error("execution", "vector cannot contain metrics with the same labelset"),
        Kind.DUPLICATE,
    ),
    ("too many samples", 422, error("execution", "query processing would load too many samples"), Kind.OVERLOADED),
    ("the server's own deadline", 503, error("timeout", "query timed out"), Kind.TIMEOUT),
    ("a server that is starting", 503, b"Service Unavailable", Kind.OVERLOADED),
    ("a server with too much to do", 429, b"", Kind.OVERLOADED),
    ("a server with a broken disk", 500, error("internal", "io error"), Kind.OVERLOADED),
    ("a proxy without a server", 502, b"Bad Gateway", Kind.UNREACHABLE),
    ("a proxy that gave up", 504, b"Gateway Timeout", Kind.TIMEOUT),
    ("JSON that ends early", 200, envelope("vector", [row("1")])[:-9], Kind.MALFORMED),
    ("a login page", 200, b"<html>sign in</html>", Kind.MALFORMED),
    ("nothing at all", 200, b"", Kind.MALFORMED),
    ("another service's JSON", 200, b'{"hits": []}', Kind.MALFORMED),
    ("a list", 200, b"[]", Kind.MALFORMED),
    ("NaN that is no JSON", 200, b'{"status": NaN}', Kind.MALFORMED),
    ("success without data", 200, b'{"status": "success"}', Kind.MALFORMED),
    ("a value that is no number", 200, envelope("vector", [row("many")]), Kind.MALFORMED),
    ("a time that is no number", 200, envelope("vector", [row("1", at="now")]), Kind.MALFORMED),
    ("labels that are no mapping", 200, envelope("vector", [{"metric": [], "value": [5, "1"]}]), Kind.MALFORMED),
    ("a row without labels", 200, envelope("vector", [{"value": [5, "1"]}]), Kind.MALFORMED),
    ("text instead of numbers", 200, envelope("string", [5, "hello"]), Kind.BAD_QUERY),
    (
        "times that go back",
        200,
        envelope("matrix", [{"metric": {}, "values": [[5, "1"], [4, "1"]]}]),
        Kind.MALFORMED,
    ),
    ("one time twice", 200, envelope("matrix", [{"metric": {}, "values": [[5, "1"], [5, "2"]]}]), Kind.MALFORMED),
    ("one series twice", 200, envelope("vector", [row("1", a="b"), row("2", a="b")]), Kind.DUPLICATE),
    ("deep nesting", 200, b'{"status":' + b"[" * 100_000, Kind.MALFORMED),
]


@pytest.mark.parametrize(("status", "body", "kind"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused(status: int, body: bytes, kind: Kind) -> None:
    with pytest.raises(SourceError) as caught:
        answer(status, {}, body, NOW)
    assert caught.value.kind is kind
    assert str(caught.value).startswith(f"{kind.value}: ")


def test_a_redirect_names_the_address_to_write() -> None:
    with pytest.raises(SourceError, match=r"redirects to https://new/; .* write the final address into prometheus.url"):
        answer(308, {"Location": "https://new/"}, b"", NOW)


def test_an_empty_vector_is_unknown_and_no_error() -> None:
    assert list(answer(200, {}, envelope("vector", []), NOW)) == []


@pytest.mark.parametrize("text", ["NaN", "+Inf", "-Inf", "1e999"])
def test_what_is_no_finite_number_is_refused_and_counted(text: str) -> None:
    found = answer(200, {}, envelope("vector", [row(text, a="1"), row("2", a="2")]), NOW)
    assert [series.labels for series in found] == [{"a": "2"}]
    assert found.refused == 1


def test_a_gap_in_a_range_stays_a_gap() -> None:
    points = [[1, "1"], [2, "NaN"], [3, "3"]]
    found = answer(200, {}, envelope("matrix", [{"metric": {}, "values": points}]), NOW)
    assert [(sample.at, sample.value) for sample in found[0].samples] == [(1.0, 1.0), (3.0, 3.0)]
    assert found.refused == 1


def test_a_histogram_is_no_number() -> None:
    found = answer(200, {}, envelope("vector", [{"metric": {}, "histogram": [5, {"count": "1"}]}]), NOW)
    assert list(found) == []
    assert found.refused == 1


def test_a_scalar_is_one_series_without_labels() -> None:
    (series,) = answer(200, {}, envelope("scalar", [5, "7"]), NOW)
    assert series.labels == {}
    assert [(sample.at, sample.value) for sample in series.samples] == [(5.0, 7.0)]


def test_warnings_are_seen_and_remarks_are_not() -> None:
    body = envelope(
        "vector", [row("1")], warnings=["store gateway down", "PromQL info: not a counter"], infos=["not a counter"]
    )
    found = answer(200, {}, body, NOW)
    assert found.warnings == ("store gateway down",)
    assert [series.samples[0].value for series in found] == [1.0]
    with pytest.raises(SourceError, match="store gateway down") as caught:
        found.complete()
    assert caught.value.kind is Kind.PARTIAL


def test_an_answer_without_warnings_is_complete() -> None:
    found = answer(200, {}, envelope("vector", [row("1")], infos=["not a counter"]), NOW)
    assert found.complete() is found


def test_a_cardinality_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 10)
    with pytest.raises(SourceError, match="11 series where at most 10 are read") as caught:
        answer(200, {}, envelope("vector", [row("1", a=str(number)) for number in range(11)]), NOW)
    assert caught.value.kind is Kind.OVERLOADED


def test_duplicates_have_their_own_class() -> None:
    with pytest.raises(DuplicateSeries):
        answer(200, {}, envelope("vector", [row("1"), row("2")]), NOW)


RETRY = [
    ("seconds", {"Retry-After": "120"}, 120.0),
    ("a date counts from the server's clock", {
        "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"
    }, 30.0),
    ("a date in the past is now", {
        "Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:30 GMT"
    }, 0.0),
    ("a date without the server's counts from ours", {"Retry-After": "Mon, 12 Jan 1970 13:47:10 GMT"}, 30.0),
    ("nonsense is no wish", {"Retry-After": "soon"}, None),
    ("a date that is none", {"Retry-After": "Wed, 99 Oct 2015 07:28:30 GMT"}, None),
    ("nothing said", {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "seconds"), [r[1:] for r in RETRY], ids=[r[0] for r in RETRY])
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


def test_an_error_carries_the_wish() -> None:
    with pytest.raises(SourceError) as caught:
        answer(503, {"Retry-After": "7"}, b"", NOW)
    assert caught.value.retry_after_seconds == 7.0


# all but what lies in times, in ranges and in twins, which plain rows do not look at
ALIKE = [r for r in REFUSED if "time" not in r[0] and "twice" not in r[0]]


class TestRows:
    """The plain way for answers of tens of thousands of series."""

    @pytest.mark.parametrize(("status", "body", "kind"), [r[1:] for r in ALIKE], ids=[r[0] for r in ALIKE])
    def test_what_is_refused_otherwise_is_refused_here(self, status: int, body: bytes, kind: Kind) -> None:
        with pytest.raises(SourceError) as caught:
            rows(status, {}, body, NOW, 10)
        assert caught.value.kind is kind

    def test_labels_and_values_as_they_come_and_nothing_that_is_no_finite_number(self) -> None:
        body = envelope("vector", [row("1.5", a="b"), row("NaN", a="c"), row("+Inf", a="d")])
        assert rows(200, {}, body, NOW, 10) == [({"a": "b"}, 1.5)]

    def test_a_part_is_no_answer_and_a_bomb_is_refused(self) -> None:
        with pytest.raises(SourceError, match="answered in part: one store"):
            rows(200, {}, envelope("vector", [row("1")], warnings=["one store is away"]), NOW, 10)
        with pytest.raises(SourceError, match="2 series where at most 1 are read"):
            rows(200, {}, envelope("vector", [row("1", a="b"), row("1", a="c")]), NOW, 1)
        with pytest.raises(SourceError, match="gives a matrix"):
            rows(200, {}, envelope("matrix", []), NOW, 1)
