"""Demand that is made up for replays: a daily wave with noise, in ten-minute steps."""

from collections.abc import Callable

import numpy as np
import pytest

from controllers.replay.protocol import Demand, Setting, scored

STEP = 600.0


@pytest.fixture(scope="session")
def wave() -> Callable[..., Demand]:
    """`wave(days=8.0)`: demand of five around ten a second."""

    def make(days: float = 8.0, seed: int = 1) -> Demand:
        at = np.arange(round(days * 86_400 / STEP))
        middle = 10 + 8 * np.sin(at * STEP / 86_400 * 2 * np.pi)
        values = np.random.default_rng(seed).poisson(middle * 20) / 20
        return Demand(1_700_006_400.0, STEP, values)

    return make


@pytest.fixture(scope="session")
def setting(wave: Callable[..., Demand]) -> Setting:
    """The last half day of eight, with a start-up of a quarter of an hour."""
    return scored(wave(), 900.0, share=0.0625)
