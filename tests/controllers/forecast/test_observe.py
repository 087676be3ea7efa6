"""Reading: all of the past once, then only what is new."""

import itertools
import tracemalloc
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


@pytest.mark.parametrize("back", [120, 3600, 20 * 3600, 2 * 86_400, 5 * 86_400], ids=lambda back: f"by {back} s")
@pytest.mark.parametrize("moved", [False, True], ids=["before the window has moved", "after"])
def test_a_clock_that_is_set_back_is_followed(make: SimpleNamespace, back: int, moved: bool) -> None:
    observer = Observer(make.FakeSource({NAME: minute}), make.config("a", history_days=3))
    for hours in range(0, 24 * 6, 7) if moved else (0,):
        newest = NOW + hours * 3600
        observer.read(newest, plenty)
    for later in (0, 60, 3600, back + 60):  # and then time goes on
        now = newest - back + later
        observer.read(now, plenty)
        assert observer.complete
        history = observer.history(NAME)
        assert history.end == now - 30
        assert 2 * 1440 <= len(history.values) <= 3 * 1440
        times = history.start + 60 * np.arange(len(history.values))
        np.testing.assert_array_equal(history.values, [minute(t) for t in times])


def test_hours_that_lie_ahead_of_a_clock_set_back_are_not_told(make: SimpleNamespace) -> None:
    observer = Observer(make.FakeSource({NAME: minute}), make.config("a", history_days=1, rollup_days=30))
    observer.read(NOW, plenty)
    for back in (40 * 86_400, 86_400):
        observer.read(NOW - back, plenty)
        hours = observer.hours(NAME)
        assert hours is None or hours.end <= NOW - back


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


def test_a_chunk_that_is_too_much_is_halved_and_reading_goes_on_at_once(make: SimpleNamespace) -> None:
    def fail(start: float, end: float) -> None:
        if end - start > 6 * 3600:
            raise SourceError(Kind.BAD_QUERY, "HTTP 422: the query range exceeds the limit of 6h")

    source = make.FakeSource({NAME: minute}, fail=fail)
    observer = Observer(source, make.config("a", history_days=3))
    observer.read(NOW, plenty)
    assert observer.complete
    assert np.isfinite(observer.history(NAME).values).all()
    assert len(source.asked) == 20  # four that failed, then sixteen of four hours and a half


def test_an_unreachable_server_is_not_asked_in_ever_smaller_parts(make: SimpleNamespace) -> None:
    def fail(start: float, end: float) -> None:
        raise SourceError(Kind.UNREACHABLE, "refused")

    source = make.FakeSource({NAME: minute}, fail=fail)
    with pytest.raises(SourceError):
        Observer(source, make.config("a", history_days=10)).read(NOW, plenty)
    assert len(source.asked) == 1


@pytest.mark.parametrize("jump", [-300, 600], ids=["back by five minutes", "ahead by ten minutes"])
def test_a_clock_that_jumps_and_is_set_right_again_leaves_no_hole(make: SimpleNamespace, jump: float) -> None:
    clock = {"true": NOW}
    source = make.FakeSource({NAME: lambda t: minute(t) if t <= clock["true"] else None})
    observer = Observer(source, make.config("a", history_days=1))
    for cycle in range(40):
        clock["true"] = NOW + 30 * cycle
        shown = clock["true"] + (jump if 10 <= cycle < 16 else 0)
        observer.read(shown, plenty)
        assert observer.history(NAME).until(shown).end <= shown
    history = observer.history(NAME)
    times = history.start + 60 * np.arange(len(history.values))
    np.testing.assert_array_equal(history.values, [minute(t) for t in times])


def test_a_clock_set_back_by_days_starts_anew(make: SimpleNamespace) -> None:
    observer = Observer(make.FakeSource({NAME: minute}), make.config("a", history_days=1))
    observer.read(NOW, plenty)
    observer.read(NOW - 20 * 86_400, plenty)
    assert observer.history(NAME).end == NOW - 20 * 86_400 - 30
    assert np.isfinite(observer.history(NAME).values).all()


def test_long_bins_ask_for_the_mean_of_their_minutes_and_whether_any_was_censored(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: minute})
    observer = Observer(source, make.config("a", history_days=2, step_seconds=300))
    observer.read(NOW, plenty)
    demand, censored = source.names[-1]
    assert demand == "avg_over_time(workload:demand:rate1m[299999ms])"
    assert censored == "max_over_time(workload:demand_censored:bool[299999ms])"
    expression = source.fallbacks[-1][demand][NAME]
    assert expression.startswith("avg_over_time((label_replace(sum(")
    assert expression.endswith(")[299999ms:60s])")
    history = observer.history(NAME)
    assert (history.step_seconds, len(history.values)) == (300.0, 2 * 288)
    assert history.end % 300 == 0
    source.asked.clear()
    for cycle in range(1, 21):
        observer.read(NOW + 30 * cycle, plenty)
    assert [end - start for start, end in source.asked] == [600.0, 600.0]  # two new bins within ten minutes


def hour_number(t: float) -> float:
    """The demand of a year that says which hour it is; constant within the hour that ends at a full one."""
    return float(np.ceil(t / 3600) % 10_000)


def test_the_year_is_read_once_and_newer_hours_are_made_of_the_history(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: hour_number}, {NAME: lambda t: float(hour_number(t) % 7 == 0)})
    observer = Observer(source, make.config("a", history_days=2, rollup_days=90))
    observer.read(NOW, plenty)
    assert observer.complete
    assert observer.year_complete
    rollups = [names for names in source.names if len(names) == 1]
    assert rollups == [["workload:demand:avg1h"], ["max_over_time(workload:demand_censored:bool[3599999ms])"]] * 2
    source.asked.clear()
    for cycle in range(1, 3 * 120):
        observer.read(NOW + 30 * cycle, plenty)
    assert max(end - start for start, end in source.asked) == OVERLAP_BINS * 60  # three hours: no further question
    hours = observer.hours(NAME)
    assert hours is not None
    assert hours.end == (NOW + 3 * 3600) // 3600 * 3600
    assert len(hours.values) == 90 * 24
    ends = hours.start + 3600 * np.arange(len(hours.values))
    assert (ends % 3600 == 0).all()
    np.testing.assert_array_equal(hours.values, [hour_number(t) for t in ends])
    np.testing.assert_array_equal(hours.censored, hours.values % 7 == 0)


def test_without_the_rollup_rule_its_expression_is_asked(make: SimpleNamespace) -> None:
    source = make.FakeSource({NAME: hour_number}, unknown=("workload:demand:avg1h",))
    observer = Observer(source, make.config("a", history_days=2, rollup_days=40))
    observer.read(NOW, plenty)
    assert ["avg_over_time(workload:demand:rate1m[3599999ms])"] in source.names
    hours = observer.hours(NAME)
    assert hours is not None
    assert np.isfinite(hours.values).all()


def test_the_year_waits_for_spare_time_and_for_a_server_that_fails(make: SimpleNamespace) -> None:
    def fail(start: float, end: float) -> None:
        if start < NOW - 3 * 86_400:
            raise SourceError(Kind.UNREACHABLE, "refused")

    source = make.FakeSource({NAME: hour_number}, fail=fail)
    observer = Observer(source, make.config("a", history_days=2, rollup_days=90))
    observer.read(NOW, lambda: 0.5)
    assert all(len(names) == 2 for names in source.names)  # the year comes last
    observer.read(NOW + 30, plenty)
    assert observer.complete
    assert not observer.year_complete
    asked = len(source.asked)
    observer.read(NOW + 60, plenty)
    assert len(source.asked) <= asked + 1  # the failing server is left in peace for some minutes
    hours = observer.hours(NAME)
    assert hours is not None
    assert len(hours.values) in (47, 48)  # what the history tells
    assert Observer(source, make.config("a", rollup_days=0)).hours(NAME) is None


def test_the_year_comes_from_the_server_that_keeps_it_in_parts_as_large_as_it_allows(make: SimpleNamespace) -> None:
    def fail(start: float, end: float) -> None:
        if end - start > 10 * 86_400:
            raise SourceError(Kind.OVERLOADED, "query processing would load too many samples into memory")

    near = make.FakeSource({NAME: lambda t: 1.0 if t > NOW - 86_400 * 3 else None})
    far = make.FakeSource({NAME: hour_number}, fail=fail)
    observer = Observer(near, make.config("a", history_days=2, rollup_days=60), far)
    observer.read(NOW, plenty)
    assert observer.year_complete
    hours = observer.hours(NAME)
    assert hours is not None
    assert len(hours.values) == 60 * 24
    assert (hours.values[-47:] == 1.0).all()
    assert (hours.values[:-49] > 1.0).all()


def test_after_a_sleep_the_hours_between_are_asked_for(make: SimpleNamespace) -> None:
    observer = Observer(make.FakeSource({NAME: hour_number}), make.config("a", history_days=2, rollup_days=30))
    for days in (0, 10, 11, 60):
        observer.read(NOW + 86_400 * days, plenty)
        hours = observer.hours(NAME)
        assert hours is not None
        ends = hours.start + 3600 * np.arange(len(hours.values))
        assert len(ends) == 30 * 24
        np.testing.assert_array_equal(hours.values, [hour_number(t) for t in ends])


def test_a_thousand_workloads_for_a_month_in_five_minutes_fit_in_120_mb(make: SimpleNamespace) -> None:
    names = [f"w{number}" for number in range(1000)]
    settings = make.config(*names, history_days=30, step_seconds=300, rollup_days=0)
    source = make.FakeSource({"default/w0": lambda t: 1.0})
    tracemalloc.start()
    observer = Observer(source, settings)
    observer.read(NOW, lambda: 0.5)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 120e6
    assert peak < 160e6
    assert max((end - start) / 300 * len(names) for start, end in source.asked) <= 250_000  # samples of one answer


def test_the_year_is_asked_of_the_configured_second_server(make: SimpleNamespace) -> None:
    settings = make.config("a", history_days=2, rollup_days=60)
    nobody = settings.prometheus.model_copy(update={"longterm_url": "http://127.0.0.1:1"})
    source = make.FakeSource({NAME: hour_number})
    observer = Observer(source, settings.model_copy(update={"prometheus": nobody}))
    observer.read(NOW, plenty)
    assert observer.complete
    assert not observer.year_complete  # nobody answers there, which keeps nothing else waiting
    assert all(len(names) == 2 for names in source.names)
