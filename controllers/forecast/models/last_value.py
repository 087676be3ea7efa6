"""What is now will go on: the newest known bin. The yardstick of every other model, and all there is at first."""

import numpy as np

from controllers.forecast.history import Floats, History, Ints
from controllers.forecast.sums import hold

NEEDS_SECONDS = 0.0


def fit(history: History, time_zone: str, steps: int) -> None:
    """Nothing is learned."""


def paths(learned: None, history: History, origins: Ints, steps: int) -> Floats:
    return np.repeat(hold(history.values, origins)[:, None], steps, axis=1)
