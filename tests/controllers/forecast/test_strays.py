"""How far the window of a decision strays, as told by what was seen just before."""

import numpy as np
import pytest

from controllers.forecast import strays
from controllers.forecast.history import DAY_SECONDS, History

STEP = 300.0
WANTED = np.array([0.25, 0.5, 0.9, 0.99, 0.995])


def history(values: np.ndarray) -> History:
    return History(0.0, STEP, values, np.zeros(len(values), dtype=np.bool_))


def days(count: int, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """(expected, came): nights without work, noons that are loud, each a bin of five minutes."""
    random = np.random.default_rng(seed)
    hours = np.arange(count * 288) * STEP % DAY_SECONDS / 3600.0
    expected = np.maximum(0.0, 20.0 * np.sin((hours - 6.0) / 24.0 * 2 * np.pi))
    return expected, random.gamma(np.maximum(expected, 1e-9) / 2.0, 2.0)


def learned(count: int = 14) -> tuple[strays.Strays, np.ndarray, np.ndarray, np.ndarray]:
    expected, came = days(count)
    origins = np.arange(200, len(came) - 1)
    seen = strays.hints(history(came), origins)
    known = strays.learn(seen[: -2 * 288], expected[origins + 1][: -2 * 288], came[origins + 1][: -2 * 288])
    assert known is not None
    return known, seen[-2 * 288 :], expected[origins + 1][-2 * 288 :], came[origins + 1][-2 * 288 :]


def test_quantiles_hold_by_day_and_are_narrow_by_night() -> None:
    known, seen, expected, came = learned()
    told = known.quantiles(seen, expected, WANTED)
    loud, quiet = expected > 10.0, expected == 0.0
    assert np.mean(came[loud] <= told[loud, 2]) == pytest.approx(0.9, abs=0.06)
    assert np.mean(came <= told[:, 3]) >= 0.98
    assert told[quiet, 3].mean() < 0.1 * told[loud, 3].mean(), "a night is not a noon"
    assert (np.diff(told, axis=1) >= 0).all()


def test_the_tail_goes_on_beyond_what_was_seen() -> None:
    known, seen, expected, _ = learned()
    noon = int(np.argmax(expected))
    told = known.quantiles(seen[noon : noon + 1], expected[noon : noon + 1], np.array([0.99, 0.999, 0.9999]))[0]
    assert told[0] < told[1] < told[2] < 10 * told[0]


def test_unit_of_demand_changes_nothing() -> None:
    expected, came = days(6)
    origins = np.arange(200, len(came) - 1)
    for factor in (1e-3, 1e4):
        seen = strays.hints(history(came * factor), origins)
        known = strays.learn(seen, expected[origins + 1] * factor, came[origins + 1] * factor)
        assert known is not None
        told = known.quantiles(seen[-5:], expected[origins + 1][-5:] * factor, WANTED) / factor
        if factor == 1e-3:
            first = told
    assert told == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize(
    ("came", "why"),
    [
        (np.full(59, 1.0), "too few"),
        (np.full(500, np.nan), "none known"),
        (np.zeros(500), "no work at all"),
    ],
)
def test_nothing_is_told(came: np.ndarray, why: str) -> None:
    seen = strays.hints(history(np.ones(len(came))), np.arange(len(came)))
    assert strays.learn(seen, np.zeros(len(came)), came) is None, why


def test_unknown_bins_are_not_looked_at() -> None:
    values = np.array([5.0, np.nan, np.nan, 3.0, np.nan])
    told = strays.hints(history(values), np.array([0, 3, 4]))
    assert told[:, 0].tolist() == [5.0, 3.0, 0.0], "the newest bin"
    assert told[:, 1].tolist() == [5.0, 4.0, 4.0], "the mean of half an hour"
    assert told[:, 2].tolist() == [5.0, 5.0, 5.0], "the highest of an hour"
