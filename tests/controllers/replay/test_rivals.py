"""The policies of others on cases small enough to be computed by hand from what documents them."""

import math

import numpy as np
import pytest

from controllers.replay.protocol import Demand, Ints, Setting, scored
from controllers.replay.rivals import POLICIES, named
from controllers.replay.rivals.foresighted import (
    autopilot,
    aws,
    by_hour,
    crane,
    filled,
    google,
    holt_winters,
    period_of,
    phpa,
    phpa_linear,
    schedule,
    seasonal_max,
    static,
)
from controllers.replay.rivals.reactive import hpa, keda, knative

MONDAY = 4 * 86_400.0  # 1970-01-05


def minutes(steps: list[float], lead: float = 60.0) -> Setting:
    """Scored minutes; one replica serves 1."""
    values = np.array([*[1.0] * len(steps), *steps])
    return scored(Demand(0.0, 60.0, values), lead, capacity=1.0, share=0.5)


def hours(history: list[float], steps: list[float], lead: float = 900.0, begin: float = MONDAY) -> Setting:
    values = np.array([*history, *steps])
    return scored(Demand(begin, 3600.0, values), lead, capacity=1.0, share=len(steps) / len(values), days=1000)


def each(wanted: Ints, found: Setting) -> list[int]:
    """What is wanted when each step begins."""
    return [int(number) for number in wanted[found.changes()]]


@pytest.mark.parametrize(
    ("name", "steps", "target", "wanted"),
    [
        ("ceil(metric / target)", [3.5, 3.5], 0.5, [7, 7]),
        ("off by 10 % is left alone", [10.0, 10.9, 11.1], 1.0, [10, 10, 12]),
        ("up by four pods a sync, or double", [1.0, 30.0], 1.0, [1, 5, 10, 20, 30]),
        ("down to the highest of 300 s: at first as it was", [4.0, 1.0, 1.0], 1.0, [4, 4, 4]),
        ("without a metric it stays", [4.0, math.nan, 4.0], 1.0, [4, 4, 4]),
    ],
)
def test_hpa(name: str, steps: list[float], target: float, wanted: list[int]) -> None:
    found = minutes(steps)
    got = hpa(found, target)
    assert (got[3:8].tolist() if len(wanted) > len(steps) else each(got, found)) == wanted, name


def test_an_hpa_scales_in_when_the_window_is_over() -> None:
    got = hpa(minutes([4.0] + [1.0] * 9), 1.0)
    # the last sync with four was at 45 s; 300 s later it still counts, a tick after that no more
    assert got.tolist() == [4] * 24 + [1] * 16
    assert hpa(minutes([4.0] + [1.0] * 9), 1.0, down_window_seconds=60.0).tolist() == [4] * 8 + [1] * 32


def test_keda_goes_to_none_after_its_cooldown_and_wakes_at_a_poll() -> None:
    # demand ends at 60 s, the last tick with it is at 45 s: none at 345 s; at 480 s there is demand again
    got = keda(minutes([2.0] + [0.0] * 7 + [3.0] * 2), 1.0)
    assert got[:23].tolist() == [2] * 23
    assert got[23:32].tolist() == [0] * 9
    assert got[32:34].tolist() == [1, 3]
    assert keda(minutes([0.0, 0.0]), 1.0).tolist() == [0] * 8


def test_knative_panics_at_twice_what_is_ready_and_halves_at_most() -> None:
    got = knative(minutes([4.0, 9.0, 9.0, 0.0], lead=0.0), 1.0)
    assert got[:4].tolist() == [4] * 4
    assert got[4] == 9, "the present tick needs twice what is ready"
    assert got[8:12].tolist() == [9] * 4
    # a minute's mean falls by a quarter a tick: 9 x 3/4 = 6.75, 4.5, 2.25 and none, after the grace a last one
    assert got[12:].tolist() == [7, 5, 3, 1]


def test_holt_winters_by_hand() -> None:
    """Additive, period 2, all smoothings a half, three values after two seasons."""
    rows = np.array([[1.0, 3.0, 2.0, 4.0, 5.0]])
    trend = ((2 + 4) / 2 - (1 + 3) / 2) / 2  # a half
    level, season = 2.0 + trend / 2, [1.0 - 2.0 + trend / 2, 3.0 - 2.0 - trend / 2]
    for place, value in ((2, 2.0), (3, 4.0), (4, 5.0)):
        old = season[place % 2]
        after = 0.5 * (value - old) + 0.5 * (level + trend)
        season[place % 2] = 0.5 * (value - level - trend) + 0.5 * old
        trend = 0.5 * (after - level) + 0.5 * trend
        level = after
    assert holt_winters(rows, 2, 0.5)[0] == pytest.approx(level + trend + season[1])
    assert holt_winters(np.full((1, 24), 7.0), 6, 0.9)[0] == pytest.approx(7.0)
    assert holt_winters(np.arange(24.0)[None], 6, 0.9)[0] == pytest.approx(24.0), "a line goes on"


def test_phpa_as_documented_sees_a_rise_go_on_and_as_coded_sees_it_backwards() -> None:
    found = minutes([float(n) for n in range(10, 30)])
    right, reverse = phpa(found, 1.0, newest_first=False), phpa(found, 1.0, newest_first=True)
    reactive = hpa(found, 1.0, down_window_seconds=0.0)
    assert (right >= reactive).all()
    assert right[40:].sum() > reactive[40:].sum()
    assert reverse[40:].sum() < right[40:].sum()


def test_phpa_linear_extends_the_line_through_six_points_a_lead_time_ahead() -> None:
    found = minutes([float(4 * n) for n in range(5, 15)], lead=60.0)
    calculated = hpa(found, 1.0, down_window_seconds=0.0)
    tick = 21
    slope, level = np.polyfit(np.arange(-5, 1), calculated[tick - 5 : tick + 1], 1)
    assert phpa_linear(found, 1.0)[tick] == math.ceil(level + 4 * slope - 1e-9)


DAY = [1.0] * 8 + [8.0] * 4 + [2.0] * 12


def test_crane_needs_a_period_and_then_has_the_hour_before_it_comes() -> None:
    assert period_of(np.array(DAY * 7), 3600.0) == 24
    noise = np.random.default_rng(1).uniform(0, 1, 24 * 7)
    assert period_of(noise, 3600.0) is None
    found = hours(DAY * 7, DAY)
    got = crane(found, 1.0)
    wanted = each(got, found)
    assert wanted[8:12] == [8] * 4
    assert got[7 * 240] == 1
    assert got[7 * 240 + 2] == 8, "within the hour that begins now there are some seconds of the busy one"
    assert wanted[15] < 8
    flat = hours([3.0] * 24 * 7, [3.0] * 24)
    assert set(crane(flat, 1.0).tolist()) == {3}, "no period: reactive alone"


def test_autopilot_takes_the_highest_of_three_days() -> None:
    found = hours([1.0] * 96 + [5.0] + [1.0] * 70, [1.0] * 24)
    got = each(autopilot(found, 1.0), found)
    # the hour of five is the 71st before the first scored one: for two hours it is among the last 72 that are over
    assert got[:3] == [5, 5, 1]
    assert each(autopilot(found, 0.5), found)[0] == 10
    # the 95th percentile of 72 hours with four high ones is high, and two days later it is still believed
    busy = hours([1.0] * 60 + [5.0] * 4 + [1.0] * 80, [1.0] * 24)
    assert each(autopilot(busy, 1.0, percentile=95.0), busy)[0] == 5
    assert each(autopilot(busy, 1.0, percentile=90.0), busy)[0] == 1


WEEK = [float(hour % 24 == 9) * (1 + hour // 24) for hour in range(168)]  # at nine, more every day


def test_aws_has_the_hours_mean_of_two_weeks_before_the_hour_begins() -> None:
    found = hours(WEEK + [3 * value for value in WEEK], WEEK, lead=60.0)
    assert by_hour(found, 14.0, "mean")[found.changes()][9] == 2.0
    got = aws(found, 1.0)
    nine = 9 * 240
    assert got[nine - 20 : nine + 1].tolist() == [2] * 21, "from five minutes before"
    assert got[nine - 21] == 1
    assert aws(found, 0.5)[nine - 20] == 4


def test_google_looks_an_init_period_ahead_at_the_last_seven_days() -> None:
    found = hours([4.0 * (hour % 24 == 9) for hour in range(168)], [0.0] * 24, lead=900.0)
    got = google(found, 1.0)
    nine = 9 * 240
    assert got[nine - 61] == 1
    assert got[nine - 60] == 4
    # in force until the hour is over but the init period, then down after ten minutes
    assert got[nine + 180 + 39] == 4
    assert got[nine + 180 + 41] == 1


def test_seasonal_max_has_what_the_next_half_hour_needed_a_week_ago() -> None:
    found = hours(WEEK, WEEK)
    got = seasonal_max(found, 1.0)
    nine = 33 * 240  # on Tuesday: two
    assert got[nine - 121] == 1
    assert got[nine - 119] == 2


def test_a_schedule_is_the_highest_of_each_hour_of_the_week_a_lead_time_before() -> None:
    found = hours(WEEK + [3 * value for value in WEEK], WEEK, lead=900.0)
    got = schedule(found, 1.0)
    nine = 33 * 240
    assert got[nine - 61 : nine - 59].tolist() == [1, 6]
    assert got[nine + 239 : nine + 241].tolist() == [6, 1]
    assert schedule(found, 2.0)[nine] == 3


def test_a_history_of_less_than_a_week_gives_the_same_hour_of_other_days() -> None:
    found = hours(WEEK[:48], WEEK[:24], begin=MONDAY)
    assert schedule(found, 1.0)[9 * 240] == 2


def test_static_is_the_highest_of_the_history() -> None:
    assert set(static(hours(WEEK, [0.0] * 24), 1.0).tolist()) == {7}
    assert set(static(hours(WEEK, [0.0] * 24), 2.0).tolist()) == {4}


def test_what_is_unknown_is_as_before() -> None:
    assert filled(np.array([math.nan, 1.0, math.nan, 2.0])).tolist() == [0.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_sees_what_is_yet_to_come(name: str) -> None:
    """Whatever comes after a step, what was wanted until then stays. But for the oracle."""
    rng = np.random.default_rng(3)
    past = [float(value) for value in 5 + 4 * np.sin(np.arange(24 * 16) / 24 * 2 * np.pi) + rng.uniform(0, 1, 24 * 16)]
    known, later = past[:48], [9.0, 0.0, math.nan] * 16
    one, other = hours(past, [*known, *past[48:96]]), hours(past, [*known, *later])
    rival = POLICIES[name]
    for knobs in (rival.usual, rival.knobs()[-1]):
        policy = rival.policy(knobs)
        until = 48 * 240 - (240 if name == "oracle" else 0)
        assert policy(one)[:until].tolist() == policy(other)[:until].tolist()


def test_every_policy_has_knobs_with_names() -> None:
    for rival in POLICIES.values():
        assert rival.knobs()[0] == rival.usual
        assert len({named(knobs) for knobs in rival.knobs()}) == len(rival.knobs())
    assert named(POLICIES["hpa"].usual) == "target=0.7 down_window_seconds=300"
