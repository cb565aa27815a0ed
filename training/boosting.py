"""Gradient boosting by scikit-learn, exported to plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.predictor.trees import Trees
from mope.types import BUCKETS


@dataclass(frozen=True)
class Boosting:
    """How many trees (a class), how fast they learn, how large they may grow."""

    iterations: int
    rate: float
    leaves: int = 31
    depth: int | None = None
    leaf_size: int = 40
    l2: float = 0.0


def fit_lengths(
    rows: NDArray[np.float32], targets: NDArray[np.float64], boosting: Boosting, seed: int
) -> Trees:
    """Trees whose one margin is the median of `targets` [n] given `rows` [n, features]."""
    from sklearn.ensemble import HistGradientBoostingRegressor  # type: ignore[import-untyped]

    model = HistGradientBoostingRegressor(loss="absolute_error", **_settings(boosting, len(rows), seed))
    return to_trees(model.fit(_fit_rows(rows), targets))


def fit_buckets(
    rows: NDArray[np.float32], shares: NDArray[np.float64], boosting: Boosting, seed: int
) -> Trees:
    """Trees whose margins are log-odds of the buckets. `shares` [n, 3] says how each row's answers fall."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    at, bucket = np.nonzero(shares)
    weights = shares[at, bucket]
    # A faint row for each bucket: every class has a margin, however small the data.
    rows = np.concatenate([rows[at], np.full((len(BUCKETS), rows.shape[1]), np.nan, dtype=np.float32)])
    bucket = np.concatenate([bucket, np.arange(len(BUCKETS))])
    weights = np.concatenate([weights, np.full(len(BUCKETS), 1e-3)])
    model = HistGradientBoostingClassifier(**_settings(boosting, len(rows), seed))
    return to_trees(model.fit(_fit_rows(rows), bucket, sample_weight=weights))


def to_trees(model: Any) -> Trees:
    """A fitted HistGradientBoosting model without categorical features, as arrays."""
    grown = [(tree.nodes, k) for step in model._predictors for k, tree in enumerate(step)]
    sizes = [len(nodes) for nodes, _ in grown]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    nodes = np.concatenate([nodes for nodes, _ in grown])
    leaf = nodes["is_leaf"].astype(bool)
    here, root = np.arange(len(nodes)), np.repeat(roots, sizes)
    return Trees(
        feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
        threshold=np.where(leaf, np.float32(0), _at_most(nodes["num_threshold"])),
        left=np.where(leaf, here, nodes["left"] + root).astype(np.int32),
        right=np.where(leaf, here, nodes["right"] + root).astype(np.int32),
        missing_left=~leaf & nodes["missing_go_to_left"].astype(bool),
        value=np.where(leaf, nodes["value"], 0.0),
        roots=roots,
        classes=np.array([k for _, k in grown], dtype=np.int32),
        baseline=np.asarray(model._baseline_prediction, dtype=np.float64).ravel(),
        columns=np.array([model.n_features_in_], dtype=np.int32),
    )


def _at_most(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each threshold: float32 rows then fall to the same sides."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _settings(boosting: Boosting, rows: int, seed: int) -> dict[str, Any]:
    # Small data would otherwise be learned by heart, or never be cut at all.
    return {
        "max_iter": min(boosting.iterations, max(20, rows // 20)),
        "learning_rate": boosting.rate,
        "max_leaf_nodes": boosting.leaves,
        "max_depth": boosting.depth,
        "min_samples_leaf": min(boosting.leaf_size, max(5, rows // 50)),
        "l2_regularization": boosting.l2,
        "early_stopping": False,
        "random_state": seed,
    }


def _fit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows` with columns that are missing everywhere as zeros: scikit-learn cannot bin them."""
    empty = np.isnan(rows).all(axis=0)
    return np.where(empty, np.float32(0), rows)
