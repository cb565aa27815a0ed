"""Boosted regression trees as plain arrays, and their inference in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError

Arrays = Mapping[str, NDArray[np.generic]]
# Rows x trees visited at once: small enough for the cache, large enough to hide numpy's overhead.
CHUNK = 1 << 16
KINDS = {"threshold": "f", "value": "f", "baseline": "f", "missing_left": "b"}  # all others are integers


@dataclass(frozen=True, eq=False)
class Trees:
    """Sums of regression trees, one sum for each class (one class: a regression).

    Nodes of all trees stand in joined arrays: a row goes `left` where its feature is at most `threshold`,
    or is NaN and `missing_left` is set. A leaf is its own left and right child and holds a `value`; a
    child of any other node stands behind its parent, so every walk ends. Raises `BundleError` for arrays
    that do not fit together.
    """

    feature: NDArray[np.int32]  # [nodes]
    threshold: NDArray[np.float32]  # [nodes]
    left: NDArray[np.int32]  # [nodes]
    right: NDArray[np.int32]  # [nodes]
    missing_left: NDArray[np.bool_]  # [nodes]
    value: NDArray[np.float64]  # [nodes]
    roots: NDArray[np.int32]  # [trees]
    classes: NDArray[np.int32]  # [trees]: the class a tree adds to
    baseline: NDArray[np.float64]  # [classes]
    columns: NDArray[np.int32]  # [1]: how many features a row has

    def __post_init__(self) -> None:
        problem = _shape_problem(self) or _link_problem(self)
        if problem:
            raise BundleError(f"boosted trees with {problem}", "arrays as written by mope", "train again")

    @property
    def n_features(self) -> int:
        """How many features a row must have."""
        return int(self.columns[0])

    @cached_property
    def depth(self) -> int:
        """Steps from a root to the farthest leaf."""
        steps, front = 0, np.unique(self.roots)
        while (inner := front[self.left[front] != front]).size:
            front = np.unique(np.concatenate([self.left[inner], self.right[inner]]))
            steps += 1
        return steps

    @cached_property
    def _walk(self) -> _Walk:
        return _Walk.of(self)

    def margins(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Baseline plus the values of the leaves that each row reaches: float64 [n, classes]."""
        assert rows.shape == (len(rows), self.n_features), rows.shape
        step = max(1, CHUNK // max(1, len(self.roots)))
        sums = [self._walk.sums(rows[i : i + step], self.depth) for i in range(0, len(rows), step)]
        return self.baseline + (np.concatenate(sums) if sums else np.zeros((0, len(self.baseline))))

    def to_arrays(self, prefix: str = "") -> dict[str, NDArray[np.generic]]:
        """The arrays by name, ready for safetensors."""
        return {prefix + f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Arrays, prefix: str = "") -> Trees:
        """What `to_arrays` wrote. Raises `BundleError` for missing, foreign or contradictory arrays."""
        missing = [prefix + f.name for f in fields(cls) if prefix + f.name not in arrays]
        if missing:
            raise BundleError(f"boosted trees without {', '.join(missing)}", "all arrays", "train again")
        return cls(**{f.name: arrays[prefix + f.name] for f in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class _Walk:
    """The trees laid out for walking: node i has its entries at 2i and 2i + 1.

    Entry 2i + 1 of `child` is the left child, entry 2i the right one, both as positions in these arrays.
    `column` points into a row that is followed by a copy of itself with NaN as minus infinity: the nodes
    that send NaN to the left read the copy, so one comparison decides for missing values too.
    """

    column: NDArray[np.int64]
    threshold: NDArray[np.float32]
    child: NDArray[np.int64]
    roots: NDArray[np.int64]
    value: NDArray[np.float64]
    members: NDArray[np.float64]  # [trees, classes]: one-hot

    @classmethod
    def of(cls, trees: Trees) -> _Walk:
        column = trees.feature + np.where(trees.missing_left, trees.n_features, 0)
        return cls(
            np.repeat(column.astype(np.int64), 2),
            np.repeat(trees.threshold, 2),
            np.stack([trees.right, trees.left], axis=1).ravel().astype(np.int64) * 2,
            trees.roots.astype(np.int64) * 2,
            np.repeat(trees.value, 2),
            np.eye(len(trees.baseline))[trees.classes],
        )

    def sums(self, rows: NDArray[np.float32], depth: int) -> NDArray[np.float64]:
        """Sums of leaf values for each row and class, float64 [n, classes]."""
        leaves: NDArray[np.float64] = self.value.take(self._leaves(rows, depth)) @ self.members
        return leaves

    def _leaves(self, rows: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
        both = np.concatenate([rows, np.where(np.isnan(rows), np.float32(-np.inf), rows)], axis=1)
        flat = both.ravel()
        if len(rows) == 1:
            return self._leaves_of_one(flat, depth)[None]
        start = np.arange(0, flat.size, both.shape[1])[:, None]
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        for _ in range(depth):
            goes_left = flat.take(self.column.take(at) + start) <= self.threshold.take(at)
            at = self.child.take(at + goes_left)
        return at

    def _leaves_of_one(self, flat: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
        """As `_leaves`, with every node asked at once: a third of the calls, which is what one row costs."""
        goes_left = flat.take(self.column[::2]) <= self.threshold[::2]
        following = np.where(goes_left, self.child[1::2], self.child[::2]) >> 1
        at = self.roots >> 1
        for _ in range(depth):
            at = following.take(at)
        return at << 1


def _shape_problem(trees: Trees) -> str:
    nodes, grown = trees.feature.shape, trees.roots.shape
    for f in fields(trees):
        array = getattr(trees, f.name)
        if array.ndim != 1 or array.dtype.kind != KINDS.get(f.name, "i"):
            return f"{f.name} of type {array.dtype} and shape {array.shape}"
        same = {"roots": grown, "classes": grown, "baseline": array.shape, "columns": (1,)}.get(f.name, nodes)
        if array.shape != same:
            return f"{f.name} of shape {array.shape}, not {same}"
    return "" if trees.baseline.size else "no class"


def _link_problem(trees: Trees) -> str:
    here = np.arange(len(trees.feature))
    leaf = (trees.left == here) & (trees.right == here)
    behind = np.minimum(trees.left, trees.right) > here
    inside = np.maximum(trees.left, trees.right) < len(here)
    checks = {
        "children outside the tree or before their parent": inside & (leaf | behind),
        "features outside the row": _within(trees.feature, trees.n_features),
        "roots outside the nodes": _within(trees.roots, len(here)),
        "classes without a baseline": _within(trees.classes, len(trees.baseline)),
        "a threshold that is no number": ~np.isnan(trees.threshold),
        "values that are not finite": np.isfinite(trees.value),
        "a baseline that is not finite": np.isfinite(trees.baseline),
    }
    return next((problem for problem, good in checks.items() if not good.all()), "")


def _within(index: NDArray[np.int32], size: int) -> NDArray[np.bool_]:
    return (index >= 0) & (index < size)
