"""Ensembles: who is better says more, who has no say is left out, and nobody leads the others astray for long."""

from types import SimpleNamespace

import numpy as np
import pytest

from controllers.forecast.history import Floats, History
from controllers.forecast.models import MODELS, ensemble
from controllers.forecast.models.ensemble import Mixture, combine, weigh

NAN = float("nan")


def rows(*errors: float) -> Floats:
    """The same error at each of 20 origins; one column a lead."""
    return np.tile(np.array(errors), (20, 1))


def test_the_better_member_says_more_and_at_every_lead_for_itself() -> None:
    missed = {"near": rows(1.0, 2.0), "far": rows(2.0, 1.0)}
    weights = weigh({name: rows(5.0, 5.0) for name in missed}, missed)
    assert weights["near"][0] > 0.95
    assert weights["far"][1] > 0.95
    np.testing.assert_allclose(weights["near"] + weights["far"], 1.0)


def test_equals_say_the_same_but_a_naive_one_says_less() -> None:
    missed = {name: rows(1.0) for name in ("ridge", "fourier", "last_value")}
    weights = weigh(missed, missed, naive=("last_value",))
    assert weights["ridge"] == pytest.approx(weights["fourier"])
    assert 0.05 < weights["last_value"][0] < 0.5 * weights["ridge"][0]


def test_who_is_far_off_everywhere_is_not_asked() -> None:
    missed = {"ridge": rows(1.0, 1.0), "fourier": rows(3.0, 4.0)}
    assert set(weigh(missed, missed)) == {"ridge"}


def test_who_could_not_be_tried_is_let_in_beside_the_best() -> None:
    paths = {"ridge": rows(5.0), "forest": rows(NAN)}
    weights = weigh(paths, {"ridge": rows(1.0), "forest": rows(NAN)})
    assert weights["ridge"] > weights["forest"] > 0.2


def test_members_without_any_error_share_the_say() -> None:
    missed = {"ridge": rows(0.0), "fourier": rows(0.0), "holt_winters": rows(1.0)}
    weights = weigh(missed, missed)
    assert {name: float(each[0]) for name, each in weights.items()} == {"ridge": 0.5, "fourier": 0.5}


def test_a_member_that_has_no_say_at_an_origin_is_left_out_there() -> None:
    paths = {"ridge": np.array([[1.0], [1.0], [NAN]]), "fourier": np.array([[3.0], [NAN], [NAN]])}
    paths["holt_winters"] = np.array([[5.0], [5.0], [5.0]])
    weights = {name: np.array([1.0]) / 3 for name in paths}
    # with one member left there is no ensemble
    np.testing.assert_allclose(combine(paths, weights), [[3.0], [3.0], [NAN]])


def test_a_member_that_fails_or_is_too_young_is_left_out(make: SimpleNamespace) -> None:
    day = make.poisson(make.daily(np.arange(2.0 * make.DAY))).reshape(-1, 5).mean(axis=1)
    history: History = make.grid(day, 300.0)

    def broken(history: History, time_zone: str, steps: int) -> None:
        raise ImportError("no module named 'sklearn'")

    members = {
        "last_value": MODELS["last_value"],
        "day_naive": MODELS["day_naive"],
        "week_naive": MODELS["week_naive"],  # wants eight days
        "broken": ensemble_member(broken),
    }
    learned = ensemble.fit(members, history, "UTC", 3)
    assert set(learned.learned) == {"last_value", "day_naive"}
    path = ensemble.paths(members, learned, history, np.array([len(day) - 1]), 3)
    each = [members[name].paths(part, history, np.array([len(day) - 1]), 3) for name, part in learned.learned.items()]
    np.testing.assert_allclose(path, np.mean(each, axis=0))


def ensemble_member(fit: object) -> object:
    return SimpleNamespace(fit=fit, paths=MODELS["last_value"].paths, needs_seconds=0.0)


def test_nobody_at_all_leaves_the_newest_value(make: SimpleNamespace) -> None:
    history: History = make.grid(np.array([1.0, 2.0, 7.0]))
    assert ensemble.paths({}, Mixture({}), history, np.array([2]), 2).tolist() == [[7.0, 7.0]]
