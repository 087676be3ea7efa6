"""What events and holidays did is learned, taken out of the past and put ahead."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.almanac import Calendar, Event
from controllers.forecast.events import NO_EFFECTS, believed, factor, learn, without
from controllers.forecast.history import Floats, History
from controllers.forecast.occasions import BODY_PARTS, LEAD_PARTS, Occasion

MIDNIGHT = 1_700_006_400.0  # a Wednesday in UTC
TODAY = int(MIDNIGHT // 86_400)
STEP = 300.0
DAYS = 28
BODY = slice(LEAD_PARTS, LEAD_PARTS + BODY_PARTS)
# (day, hour) at which two hours of an event began: no weekday and no hour twice
BEGINS = ((3, 10), (9, 15), (12, 20), (17, 3), (23, 12), (25, 6))


def shape(times: Floats) -> Floats:
    of_day = times % 86_400 / 86_400
    wave: Floats = 10 - 6 * np.cos(2 * np.pi * of_day)
    return wave


def matches(count: int, kind: str = "match") -> tuple[Event, ...]:
    return tuple(
        Event(kind, at, at + 7200) for at in (MIDNIGHT + 86_400 * day + 3600 * hour for day, hour in BEGINS[:count])
    )


def past(events: tuple[Event, ...], ratio: float, noise: float = 300.0, days: int = DAYS) -> tuple[History, Floats]:
    """Demand with the events in it, and what it would have been without them. `noise`: counts per unit of demand."""
    times = MIDNIGHT + STEP * np.arange(1, days * 288 + 1)
    plain = shape(times)
    lifted = plain.copy()
    for event in events:
        lifted[(times > event.begin) & (times <= event.end)] *= ratio
    values = np.random.default_rng(4).poisson(lifted * noise) / noise
    return History(float(times[0]), STEP, values, np.zeros(len(times), dtype=np.bool_)), plain


def within(history: History, events: tuple[Event, ...]) -> np.ndarray:
    times = history.start + history.step_seconds * np.arange(len(history.values))
    return np.any([(times > event.begin) & (times <= event.end) for event in events], axis=0)


def test_an_effect_is_learned_where_it_was_and_nowhere_else() -> None:
    events = matches(6)
    history, _ = past(events, 1.6)
    effects = learn(history, Calendar(events=events))
    ratios = np.exp(effects.events["match"])
    np.testing.assert_allclose(ratios[BODY], 1.6, rtol=0.06)
    np.testing.assert_allclose(np.delete(ratios, np.arange(BODY.start, BODY.stop)), 1.0, atol=0.03)
    assert effects.seen == {"match": 6}
    assert pickle.loads(pickle.dumps(effects)).seen == effects.seen


def test_one_occurrence_counts_half_and_each_further_one_more() -> None:
    found = []
    for count in (1, 2, 4, 6):
        events = matches(count)
        history, _ = past(events, 1.6)
        found.append(float(learn(history, Calendar(events=events)).events["match"][BODY].mean() / np.log(1.6)))
    assert found[0] == pytest.approx(0.5, abs=0.05)
    assert found == sorted(found)
    assert found[-1] > 0.9


def test_events_that_do_nothing_in_a_noisy_series_stay_without_effect() -> None:
    events = matches(6)
    history, _ = past(events, 1.0, noise=0.05)
    effects = learn(history, Calendar(events=events))
    assert np.abs(np.exp(effects.events["match"][BODY]).mean() - 1) < 0.1


def test_the_past_without_its_events_is_what_it_would_have_been() -> None:
    events = matches(6)
    history, plain = past(events, 1.6)
    calendar = Calendar(events=events)
    effects = learn(history, calendar)
    cleaned = without(history, calendar, effects)
    there = within(history, events)
    assert np.abs(cleaned.values[there] / plain[there] - 1).mean() < 0.04  # 0.6 before
    far = ~within(history, tuple(Event("", e.begin - 3600, e.end + 7200) for e in events))
    np.testing.assert_array_equal(cleaned.values[far], history.values[far])
    assert without(history, Calendar(), effects) is history


def test_a_coming_event_is_as_strong_as_the_past_ones_whatever_its_length_and_time() -> None:
    events = matches(6)
    history, _ = past(events, 1.6)
    effects = learn(history, Calendar(events=events))
    begin = MIDNIGHT + 40 * 86_400 + 17 * 3600
    coming = Calendar(events=(Event("match", begin, begin + 3 * 3600), Event("unheard of", begin, begin + 3600)))
    times = begin - 7200 + 60 * np.arange(1, 8 * 60 + 1)
    ratios = factor(effects, coming, times)
    during = (times > begin) & (times <= begin + 3 * 3600)
    np.testing.assert_allclose(ratios[during], 1.6, rtol=0.08)
    np.testing.assert_allclose(ratios[~during], 1.0, atol=0.03)
    hourly = factor(effects, coming, begin + 1800 + 3600 * np.arange(-1.0, 4.0), 3600.0)
    assert hourly[1] == pytest.approx(1.3, rel=0.1)  # half of this hour is within
    assert (factor(NO_EFFECTS, coming, times) == 1.0).all()


def test_what_happens_every_week_at_the_same_time_is_compared_with_other_days() -> None:
    events = tuple(
        Event("show", at, at + 7200) for at in (MIDNIGHT + 86_400 * day + 19 * 3600 for day in range(2, DAYS, 7))
    )
    history, _ = past(events, 2.0)
    effects = learn(history, Calendar(events=events))
    np.testing.assert_allclose(np.exp(effects.events["show"][BODY]), 2.0, rtol=0.12)


def test_demand_that_is_there_during_events_only_is_foreseen() -> None:
    events = matches(6)
    times = MIDNIGHT + STEP * np.arange(1, DAYS * 288 + 1)
    values = np.zeros(len(times))
    for event in events:
        values[(times > event.begin) & (times <= event.end)] = 8.0
    history = History(float(times[0]), STEP, values, np.zeros(len(times), dtype=np.bool_))
    effects = learn(history, Calendar(events=events))
    begin = MIDNIGHT + 40 * 86_400
    ratio = factor(effects, Calendar(events=(Event("match", begin, begin + 7200),)), np.array([begin + 3600]))
    assert (0.0 + effects.offset) * ratio[0] - effects.offset == pytest.approx(8.0, rel=0.5)


def test_older_events_are_learned_from_the_hourly_year() -> None:
    events = matches(6)
    history, _ = past(events, 1.6, noise=2000.0)
    hours = History(
        history.start + 3300, 3600.0, history.values.reshape(-1, 12).mean(axis=1), np.zeros(DAYS * 24, dtype=np.bool_)
    )
    recent = history.last(2 * 288)  # after the last event
    assert learn(recent, Calendar(events=events)).events == {}
    effects = learn(recent, Calendar(events=events), hours)
    np.testing.assert_allclose(np.exp(effects.events["match"][BODY]), 1.6, rtol=0.08)


def year(holidays: dict[int, str], ratio: float, days: int = 200) -> History:
    """Hours of a workload that does half as much at the weekend; `ratio` on holidays."""
    number = TODAY - days
    hours = np.arange(days * 24)
    day = number + hours // 24
    values = shape((hours + 0.5) * 3600) * np.where((day + 3) % 7 >= 5, 0.5, 1.0)
    values = np.where(np.isin(day, list(holidays)), shape((hours + 0.5) * 3600) * ratio, values)
    return History(number * 86_400 + 3600.0, 3600.0, values, np.zeros(len(hours), dtype=np.bool_))


def on(day: int) -> Floats:
    """Ends of the hours of a day."""
    hours: Floats = day * 86_400 + 3600.0 * np.arange(1, 25)
    return hours


def test_before_any_holiday_was_seen_one_is_halfway_to_the_quietest_weekday() -> None:
    hours = year({}, 1.0)
    calendar = Calendar(holidays={TODAY + 1: "New Year", TODAY + 3: "Founders' Day"})
    effects = learn(hours, calendar, hours)
    np.testing.assert_allclose(factor(effects, calendar, on(TODAY + 1), 3600.0), 0.5**0.5, rtol=0.08)
    np.testing.assert_allclose(factor(effects, calendar, on(TODAY + 3), 3600.0), 1.0, atol=0.05)  # a Saturday as it is
    np.testing.assert_allclose(factor(effects, calendar, on(TODAY + 2), 3600.0), 1.0)


def test_a_holiday_is_like_those_seen_and_like_itself() -> None:
    seen = {TODAY - 30: "Spring", TODAY - 63: "Autumn", TODAY - 93: "Rest", TODAY - 120: "Peace"}
    hours = year(seen, 0.3)
    calendar = Calendar(holidays={**seen, TODAY + 1: "New Year"})
    effects = learn(hours, calendar, hours)
    assert factor(effects, calendar, on(TODAY + 1), 3600.0).mean() == pytest.approx(0.3, rel=0.2)
    cleaned = without(hours, calendar, effects)
    usual = shape((np.arange(24) + 0.5) * 3600)
    at = int(((TODAY - 30) * 86_400 + 3600 - hours.start) // 3600)
    np.testing.assert_allclose(cleaned.values[at : at + 24], usual, rtol=0.25)


def test_a_holiday_lasts_from_local_midnight_to_local_midnight() -> None:
    hours = year({}, 1.0)
    calendar = Calendar("Asia/Seoul", holidays={TODAY + 1: "New Year"})
    ratios = factor(learn(hours, calendar, hours), calendar, (TODAY * 86_400) + 3600.0 * np.arange(1, 49), 3600.0)
    changed = np.flatnonzero(np.abs(ratios - 1) > 0.05)
    assert (changed.min(), changed.max()) == (15, 38)  # from 15:00 UTC on, for 24 hours


@pytest.mark.parametrize("values", [np.zeros(4000), np.full(4000, np.nan), np.ones(10), np.empty(0)], ids=str)
def test_a_past_that_tells_nothing_has_no_effects(values: Floats) -> None:
    history = History(MIDNIGHT, STEP, values, np.zeros(len(values), dtype=np.bool_))
    calendar = Calendar(holidays={TODAY + 3: "x"}, events=matches(3))
    effects = learn(history, calendar)
    assert (factor(effects, calendar, on(TODAY + 3), 3600.0) == 1.0).all()


def test_gaps_and_lower_bounds_stay_what_they_are() -> None:
    events = matches(6)
    history, _ = past(events, 1.6)
    history.values[1000:1200] = np.nan
    history.censored[5000:] = True
    cleaned = without(history, Calendar(events=events), learn(history, Calendar(events=events)))
    np.testing.assert_array_equal(np.isnan(cleaned.values), np.isnan(history.values))
    assert cleaned.censored is history.censored


def test_an_event_that_goes_on_is_believed_as_far_as_it_shows() -> None:
    events = matches(6)
    begin = MIDNIGHT + 27 * 86_400 + 10 * 3600
    now = Event("match", begin, begin + 7200)
    calendar = Calendar(events=(*events, now))
    shares = {}
    for kind, really in {"as ever": (*events, now), "nothing": events}.items():
        history, _ = past(really, 1.6)
        effects = learn(history.first(26 * 288), calendar)
        seen = history.first(round((begin + 4200 - history.start) / STEP) + 1)  # 70 minutes of it
        known = believed(effects, seen, calendar)
        assert list(known.belief) == [Occasion("match", now.begin, now.end)]
        shares[kind] = known.belief[Occasion("match", now.begin, now.end)]
        before = history.first(round((begin - 4200 - history.start) / STEP) + 1)
        assert believed(effects, before, calendar) is effects
        ratio = factor(known, calendar, np.array([begin + 6000.0]))[0]
        assert ratio == pytest.approx(1.6 if kind == "as ever" else 1.0, rel=0.15)
    assert shares["as ever"] == pytest.approx(1.0, abs=0.15)
    assert shares["nothing"] < 0.3


def test_a_forecast_knows_of_a_coming_event(make: SimpleNamespace) -> None:
    from controllers.forecast.models import MODELS
    from controllers.forecast.predict import outlook
    from controllers.forecast.selection import select

    begin = MIDNIGHT + DAYS * 86_400 + 600
    events = (*matches(6), Event("match", begin, begin + 7200))
    history, _ = past(events, 1.6)
    models = {name: MODELS[name] for name in ("last_value", "seasonal_naive")}
    made = {}
    for kind, calendar in {"with": Calendar(events=events), "without": Calendar()}.items():
        fitted = select(history, calendar, [900, 3600], models)
        said = outlook(history, calendar, fitted, history.end, quantiles=[0.9], valid_seconds=900)
        made[kind] = said.forecast.horizons[1].value
    assert made["with"] == pytest.approx(1.6 * made["without"], rel=0.15)
