"""Ours in the comparison: forecasts as the forecaster makes them, of what was known then, and the live decide()."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controllers.domain import Mode, Reason, Replicas
from controllers.forecast.almanac import Calendar
from controllers.forecast.history import History
from controllers.forecast.predict import outlook
from controllers.forecast.selection import select
from controllers.replay import ours
from controllers.replay.foresee import (
    HORIZONS,
    QUANTILES,
    Foreseen,
    Teller,
    foresee,
    hourly,
    restored,
    save,
    window_bins,
)
from controllers.replay.protocol import Demand, Setting, oracle, play, replica_hours, score, scored


@pytest.fixture(scope="module")
def foreseen(setting: Setting) -> Foreseen:
    return foresee(setting, every_seconds=60.0)


@pytest.mark.parametrize(
    ("name", "lead", "step", "every", "bins"),
    [
        ("a lead time of whole steps is for one bin", 900.0, 60.0, 60.0, {0: (15, 15)}),
        ("one between two steps is for both", 90.0, 60.0, 60.0, {0: (1, 2)}),
        ("short of the step's end it is the present", 120.0, 300.0, 60.0, {0: (0, 0), 120: (0, 0), 180: (1, 1)}),
        ("a start-up as long as a step is for the next", 300.0, 300.0, 60.0, {0: (1, 1), 240: (1, 1)}),
        ("every tick", 300.0, 300.0, 15.0, {0: (1, 1), 285: (1, 1)}),
    ],
)
def test_which_bins_a_decision_is_for(
    name: str, lead: float, step: float, every: float, bins: dict[int, tuple[int, int]]
) -> None:
    found = window_bins(lead, step, every)
    assert {offset: found[offset] for offset in bins} == bins, name


def test_a_step_is_forecast_as_the_process_would_have_done(setting: Setting, foreseen: Foreseen) -> None:
    """The first step's, of the first fit: there is nothing yet that is looked at more seldom than live."""
    step = setting.step_seconds
    values = np.concatenate((setting.history, setting.steps[:1]))
    start = setting.begin - len(setting.history) * step
    history = History(start, step, values, np.zeros(len(values), dtype=np.bool_))
    horizons = tuple(sorted({*HORIZONS, 600, 1200}))
    # a start-up of 15 min is, in steps of ten, for the first bin after the present one until half of the step is over
    window = (0.0, 600.0)
    fitted = select(history, Calendar(), horizons, hours=hourly(history), window=window, heavy=False)
    made = outlook(history, Calendar(), fitted, setting.begin, quantiles=QUANTILES, valid_seconds=900.0).forecast
    assert foreseen.gate_open[0] == made.gate_open
    assert made.window is not None
    assert (foreseen.first, foreseen.last) == (1, 1)
    np.testing.assert_allclose(foreseen.window[0], [made.window.peak[q] for q in QUANTILES], rtol=1e-4)
    for place, horizon in enumerate(made.horizons):
        assert foreseen.value[0, place] == pytest.approx(horizon.value, rel=1e-4)
        np.testing.assert_allclose(foreseen.quantile[0, place], list(horizon.quantiles.values()), rtol=1e-4)
        np.testing.assert_allclose(foreseen.peak[0, place], list(horizon.peak.values()), rtol=1e-4)
        arrivals = [horizon.arrivals[q] for q in QUANTILES]
        np.testing.assert_allclose(foreseen.arrivals[0, place], arrivals, rtol=1e-4)


def test_what_comes_later_changes_nothing_of_what_was_said_before(setting: Setting, foreseen: Foreseen) -> None:
    known = 20
    steps = setting.steps.copy()
    steps[known:] = 1000.0
    other = foresee(replace(setting, steps=steps), every_seconds=60.0)
    for name in ("gate_open", "value", "quantile", "peak", "arrivals", "window", "bins"):
        np.testing.assert_array_equal(getattr(foreseen, name)[:known], getattr(other, name)[:known], err_msg=name)
    assert not np.array_equal(foreseen.window[known:], other.window[known:])


def test_the_quantiles_hold_about_as_often_as_they_say(wave: Callable[..., Demand]) -> None:
    found = scored(wave(10.0, seed=2), 600.0, share=0.1)
    said = foresee(found, every_seconds=60.0, refit_seconds=6 * 3600.0)
    came = found.steps[1:]
    for q in (0.1, 0.5, 0.9):
        share = float((came <= said.bins[:-1, 0, said.quantiles.index(q)]).mean())
        assert share == pytest.approx(q, abs=0.08)


def test_forecasts_are_kept_and_read_back(foreseen: Foreseen, tmp_path: Path) -> None:
    save(foreseen, str(tmp_path / "a.npz"))
    again = restored(str(tmp_path / "a.npz"))
    assert (again.quantiles, again.horizons, again.leads) == (foreseen.quantiles, foreseen.horizons, foreseen.leads)
    np.testing.assert_array_equal(again.window, foreseen.window)


def test_a_decision_is_told_of_its_own_window(setting: Setting, foreseen: Foreseen) -> None:
    teller = Teller(foreseen, setting, 60.0)
    first, late = teller.at(0), teller.at(36)
    assert first is not None
    assert late is not None
    assert first.window is not None
    assert late.window is not None
    assert (first.window.begin_seconds, first.window.end_seconds) == (900.0, 960.0)
    assert (late.made_at, late.window.begin_seconds) == (first.made_at + 540.0, 900.0), "said anew, so never old"
    assert [horizon.seconds for horizon in first.horizons] == list(foreseen.horizons)
    assert [h.seconds for h in late.horizons] == [h - 540 for h in foreseen.horizons if h > 540], "of the same times"
    # a window that lies within the present step is its demand, which is known
    short = replace(setting, lead_seconds=120.0)
    told = Teller(foresee(short, every_seconds=60.0), short, 60.0).at(0)
    assert told is not None
    assert told.window is not None
    assert list(told.window.peak.values()) == pytest.approx([setting.steps[0]] * len(QUANTILES), rel=1e-6)


def test_nothing_is_forecast_where_nothing_is_known() -> None:
    values = np.array([math.nan] * 300 + [1.0] * 100)
    found = scored(Demand(0.0, 60.0, values), 60.0, share=0.25)
    said = foresee(found, every_seconds=60.0)
    assert np.isfinite(said.window).all(axis=1).sum() > 0
    empty = scored(Demand(0.0, 60.0, np.array([math.nan] * 399 + [1.0])), 60.0, share=0.25)
    assert Teller(foresee(empty, every_seconds=60.0), empty, 60.0).at(0) is None
    assert ours.tidewise(empty, foresee(empty, every_seconds=60.0), ours.rules(empty, 0.9)).desired[0] == 0


def test_a_higher_objective_is_short_less_often_and_costs_more(setting: Setting, foreseen: Foreseen) -> None:
    hours = replica_hours(oracle(setting), setting)
    low, high = (
        score(play(ours.tidewise(setting, foreseen, ours.rules(setting, objective)).desired, setting), hours)
        for objective in (0.5, 0.98)
    )
    assert high["under"] < low["under"]
    assert high["cost_to_oracle"] > low["cost_to_oracle"]
    assert high["under"] < 0.1


def test_with_forecasts_it_is_ahead_of_a_ramp_and_says_so(setting: Setting, foreseen: Foreseen) -> None:
    rules = ours.rules(setting, 0.9)
    ahead, blind = ours.tidewise(setting, foreseen, rules), ours.tidewise(setting, None, rules)
    assert Reason.FORECAST in ahead.reasons
    assert Reason.FORECAST_MISSING in blind.reasons
    hours = replica_hours(oracle(setting), setting)
    scores = [score(play(each.desired, setting), hours)["under"] for each in (ahead, blind)]
    assert scores[0] < scores[1]


def test_a_queue_that_is_late_gets_more_than_its_demand_needs(setting: Setting) -> None:
    rules = ours.rules(setting, 0.95, is_queue=True)
    assert rules.mode is Mode.ACT
    queue = ours.tidewise(setting, None, rules)
    service = ours.tidewise(setting, None, replace(rules, is_queue=False))
    assert Reason.LATE_WORK in queue.reasons
    assert (queue.desired > service.desired).any()


def test_the_fleet_pays_from_the_ask_and_lets_the_newest_go() -> None:
    fleet = ours._Fleet(lead_ticks=4, tick_seconds=15.0)
    fleet.begin(2)
    fleet.tell(5, 0)
    fleet.pass_to(2)
    assert (fleet.seen().wanted, fleet.seen().ready) == (5, 2)
    assert [(p.count, p.age_seconds) for p in fleet.seen().pending] == [(3, 30.0)]
    fleet.tell(4, 2)
    fleet.tell(6, 2)
    fleet.pass_to(4)
    assert [(p.count, p.age_seconds) for p in fleet.seen().pending] == [(2, 30.0)]
    assert fleet.ready == 4
    fleet.tell(1, 4)
    assert fleet.seen() == Replicas(1, 1)


def test_hours_are_means_of_full_hours() -> None:
    minutes = History(60.0, 60.0, np.arange(150.0), np.zeros(150, dtype=np.bool_))
    found = hourly(minutes)
    assert found is not None
    assert (found.start, found.values.tolist()) == (3600.0, [29.5, 89.5])
    assert hourly(minutes.first(30)) is None
