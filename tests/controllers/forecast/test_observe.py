"""Reading: all of the past once, then only what is new."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.observe import OVERLAP_SECONDS, Observer
from controllers.sources.prometheus import Kind, SourceError

NOW = 1_700_000_010.0  # half past a minute
NAME = "default/a"
OVERLAP_BINS = round(OVERLAP_SECONDS / 60)


def plenty() -> float:
    return 100.0


def minute(t: float) -> float:
    """The demand that says when it was measured."""
    return round(t / 60) % 1000


def test_the_past_is_read_once_and_then_only_what_is_new(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: minute})
    observer = Observer(source, make.config("a", history_days=12))
    observer.read(NOW, plenty)
    assert observer.complete
    chunks = sorted(source.asked)
    assert len(chunks) == 3  # of at most five days
    assert chunks[0][0] == pytest.approx(NOW - 30 - 12 * 86_400 + 60)
    assert [later[0] - earlier[1] for earlier, later in itertools.pairwise(chunks)] == [60.0, 60.0]
    source.asked.clear()
    for cycle in range(1, 11):
        observer.read(NOW + 30 * cycle, plenty)
    assert len(source.asked) == 5  # one a minute, although there were ten cycles
    assert all(end - start == OVERLAP_BINS * 60 for start, end in source.asked)
    history = observer.history(NAME)
    assert history.end == NOW + 300 - 30
    assert len(history.values) == 12 * 1440
    times = history.start + 60 * np.arange(len(history.values))
    np.testing.assert_array_equal(history.values, [minute(t) for t in times])


def test_the_window_moves_on_for_days(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: minute})
    observer = Observer(source, make.config("a", history_days=2))
    for hours in (*range(0, 24 * 6, 7), 24 * 70):  # and after a long sleep
        observer.read(NOW + hours * 3600, plenty)
    history = observer.history(NAME)
    times = history.start + 60 * np.arange(len(history.values))
    assert len(history.values) == 2 * 1440
    np.testing.assert_array_equal(history.values, [minute(t) for t in times])


def test_bins_end_when_the_stored_samples_were_taken(make: SimpleNamespace) -> None:
    observer = Observer(make.FakeSource({NAME: minute}, sampled_at=17.0), make.config("a", history_days=1))
    observer.read(NOW, plenty)
    assert observer.history(NAME).end % 60 == 17.0


def test_what_came_late_is_read_again(make: SimpleNamespace) -> None:
    late = {NOW - 30: None}
    source = make.FakeSource({NAME: lambda t: late.get(t, 1.0)})
    observer = Observer(source, make.config("a", history_days=1))
    observer.read(NOW, plenty)
    assert observer.history(NAME).until(NOW).end == NOW - 90
    late.clear()
    observer.read(NOW + 60, plenty)
    assert np.isfinite(observer.history(NAME).values).all()


def test_a_gap_in_an_answer_with_warnings_is_no_news(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: lambda t: 1.0})
    observer = Observer(source, make.config("a", history_days=1))
    observer.read(NOW, plenty)
    source.demand, source.warnings = {}, ("a store did not answer",)
    observer.read(NOW + 60, plenty)
    known = observer.history(NAME).values
    assert np.isfinite(known[:-1]).all()
    assert np.isnan(known[-1])


def test_gone_samples_without_a_warning_are_gone(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: lambda t: 1.0})
    observer = Observer(source, make.config("a", history_days=1))
    observer.read(NOW, plenty)
    source.demand = {}
    observer.read(NOW + 60, plenty)
    assert np.isnan(observer.history(NAME).values[-OVERLAP_BINS - 1 :]).all()


def test_the_past_waits_when_time_runs_out_or_the_server_is_overloaded(make: SimpleNamespace) -> None:
    def fail(start: float, end: float) -> None:
        if end < NOW - 86_400:
            raise SourceError(Kind.OVERLOADED, "too many samples")

    source = make.FakeSource({NAME: minute}, fail=fail)
    observer = Observer(source, make.config("a", history_days=10))
    observer.read(NOW, plenty)
    assert not observer.complete
    assert len(observer.history(NAME).values) == 5 * 1440
    source.fail = lambda start, end: None
    for cycle in range(4):
        observer.read(NOW + 60 * cycle, plenty)
    assert observer.complete
    assert np.isfinite(observer.history(NAME).values).all()


def test_a_first_read_that_fails_is_an_error_and_the_next_one_starts_anew(make: SimpleNamespace) -> None:
    def fail(start: float, end: float) -> None:
        raise SourceError(Kind.UNREACHABLE, "refused")

    source = make.FakeSource({NAME: minute}, fail=fail)
    observer = Observer(source, make.config("a", history_days=1))
    with pytest.raises(SourceError):
        observer.read(NOW, plenty)
    source.fail = lambda start, end: None
    observer.read(NOW + 60, plenty)
    assert observer.complete


def test_unknown_workloads_are_all_missing_and_bad_values_too(make: SimpleNamespace) -> None:
    wild = {0: -1.0, 1: 1e300, 2: 5.0}
    source = make.FakeSource({NAME: lambda t: wild[round(t / 60) % 3], "other/x": minute}, {NAME: lambda t: 1.0})
    observer = Observer(source, make.config("a", "b", history_days=1))
    observer.read(NOW, plenty)
    known = observer.history(NAME)
    assert set(known.values[np.isfinite(known.values)]) == {5.0}
    assert known.censored.all()
    assert np.isnan(observer.history("default/b").values).all()
