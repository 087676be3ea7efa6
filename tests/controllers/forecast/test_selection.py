"""Choosing: nothing fitted twice, heavy models used on, costs counted, failures told, stages as the history grows."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from controllers.forecast.almanac import Calendar, Event
from controllers.forecast.backtest import CLOSE, FRUGAL, Effort, effort_for, memory_of, trial
from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.models import MODELS, Model, last_value
from controllers.forecast.selection import LIMIT_SECONDS, NOT_ITS_TURN, TOO_YOUNG, Stage, errors_of, margin, select

STEP, PER_DAY, HOUR = 300.0, 288, 12
HORIZONS = (900, 3600)
UTC = Calendar()


@pytest.fixture(scope="module")
def history(make: SimpleNamespace) -> History:
    found: History = make.grid(make.poisson(make.daily(np.arange(20.0 * make.DAY))).reshape(-1, 5).mean(axis=1), STEP)
    return found


class Counted:
    """A model that says what `last_value` says times a factor, and counts how often it is fitted and asked."""

    def __init__(self, factor: float = 1.0, *, heavy: bool = False, error: Exception | None = None) -> None:
        self.calls: Counter[str] = Counter()
        self._factor, self._error = factor, error
        self.model = Model(self.fit, self.paths, 0.0, heavy)

    def fit(self, history: History, time_zone: str, steps: int) -> float:
        self.calls["fit"] += 1
        if self._error:
            raise self._error
        return self._factor

    def paths(self, learned: float, history: History, origins: Ints, steps: int) -> Floats:
        self.calls["asked"] += len(origins)
        return learned * last_value.paths(None, history, origins, steps)


def small(**others: Model) -> dict[str, Model]:
    return {"last_value": MODELS["last_value"], "day_naive": MODELS["day_naive"], **others}


def test_an_hour_later_nothing_is_fitted_again_for_the_backtest(history: History) -> None:
    first, later = Counted(), Counted()
    before = select(history.first(18 * PER_DAY), UTC, HORIZONS, small(one=first.model), effort=FRUGAL)
    assert first.calls["fit"] == 1 + FRUGAL.folds
    grown = history.first(18 * PER_DAY + HOUR)
    after = select(grown, UTC, HORIZONS, small(one=later.model), effort=FRUGAL, before=before)
    assert later.calls["fit"] == 1
    assert later.calls["asked"] <= 2  # the origins that are new
    anew = select(grown, UTC, HORIZONS, small(one=Counted().model), effort=FRUGAL)
    assert after.wape["one"] == pytest.approx(anew.wape["one"], rel=1e-3)


def test_what_a_model_said_before_is_not_what_it_would_say_now(history: History) -> None:
    before = select(history.first(18 * PER_DAY), UTC, HORIZONS, small(one=Counted(0.5).model), effort=FRUGAL)
    after = select(
        history.first(19 * PER_DAY), UTC, HORIZONS, small(one=Counted(1.0).model), effort=FRUGAL, before=before
    )
    # the new model never said anything yet: the day since was told by the one before
    assert after.wape["one"] == pytest.approx(before.wape["one"], rel=0.1)


def test_heavy_models_are_fitted_when_it_is_their_turn_and_used_on_for_two_days(history: History) -> None:
    heavy = Counted(heavy=True)
    models = small(heavy=heavy.model)
    found = select(history.first(16 * PER_DAY), UTC, HORIZONS, models, heavy=False)
    assert heavy.calls["fit"] == 0
    assert found.left_out["heavy"] == NOT_ITS_TURN
    found = select(history.first(16 * PER_DAY), UTC, HORIZONS, models, heavy=True, before=found)
    assert heavy.calls["fit"] == 2  # to the whole history, and once for the backtest
    assert "heavy" in found.wape
    heavy.calls.clear()
    for days in (17, 18):
        found = select(history.first(days * PER_DAY), UTC, HORIZONS, models, heavy=False, before=found)
        assert "heavy" in found.wape
        assert found.parts["heavy"].fitted_at == history.first(16 * PER_DAY).end
    assert heavy.calls["fit"] == 0
    found = select(history.first(18 * PER_DAY + HOUR), UTC, HORIZONS, models, heavy=False, before=found)
    assert history.first(18 * PER_DAY + HOUR).end - history.first(16 * PER_DAY).end > LIMIT_SECONDS
    assert found.left_out["heavy"] == NOT_ITS_TURN
    assert "heavy" not in found.parts


def test_a_library_that_is_missing_costs_only_its_model(history: History) -> None:
    broken = Counted(error=ModuleNotFoundError("No module named 'sklearn'"))
    found = select(history, UTC, HORIZONS, small(broken=broken.model))
    assert found.left_out["broken"] == "ModuleNotFoundError: No module named 'sklearn'"
    assert found.stage is Stage.NAIVE
    assert found.model in ("last_value", "day_naive")


def test_a_model_that_cannot_say_anything_costs_only_itself(history: History) -> None:
    def silent(learned: float, history: History, origins: Ints, steps: int) -> Floats:
        raise IndexError("of the test")

    dumb = Model(Counted().fit, silent, 0.0)
    ensemble = replace(MODELS["cheap_ensemble"], members=("last_value", "day_naive", "dumb"))
    models = small(dumb=dumb, ensemble=ensemble)
    for before in (None, select(history.first(18 * PER_DAY), UTC, HORIZONS, models, effort=FRUGAL)):
        found = select(history.first(18 * PER_DAY + HOUR), UTC, HORIZONS, models, effort=FRUGAL, before=before)
        assert found.left_out["dumb"] == "IndexError: of the test"
        assert found.model != "dumb"
        assert "dumb" not in getattr(found.learned, "learned", {})


def test_a_model_of_the_last_fit_that_fails_by_now_costs_what_it_would_have_taught_and_no_more(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = small()
    before = select(history.first(18 * PER_DAY), UTC, HORIZONS, models, effort=FRUGAL)
    taught = replace(before.ahead, state=replace(before.ahead.state, shifts=before.ahead.state.shifts + 0.5))
    before = replace(before, ahead=taught)

    def failing(*_: object) -> dict[str, Floats]:
        raise IndexError("of the test")

    monkeypatch.setattr("controllers.forecast.selection.asked", failing)
    found = select(history.first(18 * PER_DAY + 2 * HOUR), UTC, HORIZONS, models, effort=FRUGAL, before=before)
    np.testing.assert_array_equal(found.ahead.state.shifts, taught.state.shifts)
    assert found.ahead.followed == taught.followed


def test_cpu_seconds_are_counted_by_model_and_count_at_the_next_choice(history: History) -> None:
    clock = iter(np.arange(1000.0))
    dear, cheap = Counted(), Counted(1.0001)
    models = small(dear=dear.model, cheap=cheap.model)
    found = select(history, UTC, HORIZONS, models, counter=lambda: float(next(clock)))
    assert found.cpu_seconds == {"last_value": 1.0, "day_naive": 1.0, "dear": 1.0, "cheap": 1.0}
    costs = {"dear": 60.0, "cheap": 0.01}
    assert margin("dear", models, costs) > 1.01 * margin("cheap", models, costs)


def test_a_model_alone_has_to_be_better_than_the_ensemble_by_more() -> None:
    assert margin("ridge", MODELS, {}) > margin("cheap_ensemble", MODELS, {}) == 1.0
    assert margin("ensemble", MODELS, {}) > margin("cheap_ensemble", MODELS, {})
    assert margin("day_naive", MODELS, {}) > margin("cheap_ensemble", MODELS, {})


STAGES: dict[str, tuple[float, bool, Stage]] = {
    "an hour": (1 / 24, True, Stage.LAST_VALUE),
    "three days": (3.0, False, Stage.CHEAP),
    "twelve days, heavy models waiting": (12.0, False, Stage.CHEAP),
}


@pytest.mark.parametrize(("days", "heavy", "stage"), STAGES.values(), ids=STAGES)
def test_stages(days: float, heavy: bool, stage: Stage, history: History) -> None:
    found = select(history.first(round(days * PER_DAY)), UTC, HORIZONS, heavy=heavy, effort=FRUGAL)
    assert found.stage is stage
    assert set(found.left_out.values()) <= {TOO_YOUNG, NOT_ITS_TURN}


def test_every_model_had_its_say_when_none_waits(history: History) -> None:
    models = {name: model for name, model in MODELS.items() if not model.heavy}
    assert select(history, UTC, HORIZONS, models, effort=FRUGAL).stage is Stage.FULL


def test_the_choice_is_no_worse_than_the_best_naive_forecast(make: SimpleNamespace) -> None:
    rng = np.random.default_rng(3)
    walk = np.exp(np.cumsum(rng.normal(0, 0.03, 12 * PER_DAY)))
    found = select(make.grid(walk, STEP), UTC, HORIZONS, heavy=False, effort=FRUGAL)
    assert found.best_naive is not None
    assert found.wape[found.model] <= 1.05 * found.best_naive


def test_a_point_and_the_mean_until_there_both_count() -> None:
    actual = np.tile([2.0, 4.0], (5, 1))
    none = np.zeros(actual.shape, dtype=np.bool_)
    twice_at_last = np.tile([2.0, 8.0], (5, 1))
    bins, windows = errors_of(np.array([actual, twice_at_last]), actual, none, [2])
    assert bins.tolist() == [[0.0], [1.0]]
    assert windows.tolist() == [[0.0], [pytest.approx(4 / 6)]]


def test_origins_stay_the_same_from_one_trial_to_the_next(history: History) -> None:
    first = trial(history.first(18 * PER_DAY), "UTC", HOUR, small(), Effort(100, 1))
    later = history.first(18 * PER_DAY + HOUR).last(18 * PER_DAY)  # the window moves on, the origins do not
    second = trial(later, "UTC", HOUR, small(), Effort(100, 1))
    before, after = memory_of(first, history).times, memory_of(second, later).times
    assert len(np.intersect1d(before, after)) >= len(before) - 3


def test_a_fleet_is_looked_at_less_closely() -> None:
    assert effort_for(10) == CLOSE
    assert effort_for(1000) == FRUGAL


def test_events_are_hidden_from_models_and_put_onto_what_they_say(history: History) -> None:
    seen: list[Any] = []

    def fit(past: History, time_zone: str, steps: int) -> None:
        seen.append(past)

    # every third day demand doubles for two hours
    begins = [history.start + (day + 0.5) * 86_400.0 for day in range(1, 20, 3)]
    times = history.start + np.arange(len(history.values)) * STEP
    during = np.any([(times > begin) & (times <= begin + 7200.0) for begin in begins], axis=0)
    busy = replace(history, values=np.where(during, 2 * history.values, history.values))
    calendar = Calendar(events=tuple(Event("sale", begin, begin + 7200.0) for begin in begins))
    model = Model(fit, last_value.paths, 0.0)
    found = select(busy, calendar, HORIZONS, {"last_value": MODELS["last_value"], "spy": model}, effort=FRUGAL)
    assert found.effects.seen == {"sale": len(begins)}
    np.testing.assert_allclose(seen[0].values[during].mean(), history.values[during].mean(), rtol=0.15)
