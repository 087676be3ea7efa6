"""Gradient boosting on level-relative features (scikit-learn's histogram trees), fitted for absolute error."""

from typing import Any

import numpy as np

from controllers.forecast.history import Floats, History
from controllers.forecast.models import trees
from controllers.forecast.models.trees import Learned, Rows, Trees

ROUNDS = 70
LEARNING_RATE = 0.06
LEAVES = 8
MIN_ROWS = 80  # in a leaf
FIRMNESS = 1.0


def fit(history: History, time_zone: str, steps: int) -> Learned:
    return trees.fit(history, time_zone, steps, grow)


def grow(rows: Rows) -> Trees:
    grown = boosted(rows.x, rows.y)
    return arrays(grown)


def boosted(x: Floats, y: Floats, rounds: int | None = None, leaves: int = LEAVES, min_rows: int = MIN_ROWS) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = HistGradientBoostingRegressor(
        loss="absolute_error",
        max_iter=ROUNDS if rounds is None else rounds,
        learning_rate=LEARNING_RATE,
        max_leaf_nodes=leaves,
        min_samples_leaf=min_rows,
        l2_regularization=FIRMNESS,
        early_stopping=False,
        random_state=0,
    )
    with threadpool_limits(1, user_api="openmp"):  # threads that wait for one another on a busy machine are slower
        return model.fit(x, y)


def arrays(model: Any) -> Trees:
    """What scikit-learn's model knows, as arrays; a test compares the two."""
    nodes = [tree.nodes for iteration in model._predictors for tree in iteration]
    sizes = np.array([len(each) for each in nodes])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shift = np.repeat(roots, sizes)
    whole = np.concatenate(nodes)
    leaf = whole["is_leaf"].astype(bool)
    own = np.arange(len(whole))
    left, right = (np.where(leaf, own, whole[side].astype(np.int64) + shift) for side in ("left", "right"))
    return Trees(
        np.where(leaf, 0, whole["feature_idx"]).astype(np.int64),
        np.where(leaf, np.inf, whole["num_threshold"]),
        np.column_stack([left, right]),
        np.where(leaf, whole["value"], 0.0),
        roots.astype(np.int64),
        int(whole["depth"].max()),
        float(model._baseline_prediction.ravel()[0]),
    )
