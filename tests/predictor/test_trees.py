import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.errors import BundleError
from mope.predictor.trees import Trees

NAN = np.nan


def small() -> Trees:
    """Class 0: x0 <= 1 (missing left) ? 10 : (x1 <= 5 ? 20 : 30). Class 1: always 4."""
    return Trees(
        feature=np.array([0, 0, 1, 0, 0, 0], dtype=np.int32),
        threshold=np.array([1, 0, 5, 0, 0, 0], dtype=np.float32),
        left=np.array([1, 1, 3, 3, 4, 5], dtype=np.int32),
        right=np.array([2, 1, 4, 3, 4, 5], dtype=np.int32),
        missing_left=np.array([True, False, False, False, False, False]),
        value=np.array([0, 10, 0, 20, 30, 4], dtype=np.float64),
        roots=np.array([0, 5], dtype=np.int32),
        classes=np.array([0, 1], dtype=np.int32),
        baseline=np.array([0.5, -1.0]),
        columns=np.array([2], dtype=np.int32),
    )


ROWS = np.array([[1, 9], [NAN, 9], [2, 5], [2, 6], [2, NAN], [np.inf, -np.inf]], dtype=np.float32)
EXPECTED = [10.5, 10.5, 20.5, 30.5, 30.5, 20.5]


def test_margins_of_a_small_forest():
    got = small().margins(ROWS)
    assert got[:, 0].tolist() == EXPECTED
    assert got[:, 1].tolist() == [3.0] * 6
    assert small().depth == 2


def test_one_row_is_walked_like_many():
    got = [small().margins(ROWS[i : i + 1])[0, 0] for i in range(len(ROWS))]
    assert got == EXPECTED


def test_no_rows():
    assert small().margins(ROWS[:0]).shape == (0, 2)


def test_many_rows_are_walked_in_pieces(monkeypatch):
    monkeypatch.setattr("mope.predictor.trees.CHUNK", 8)
    assert small().margins(ROWS)[:, 0].tolist() == EXPECTED


def test_arrays_come_back():
    arrays = small().to_arrays("p.")
    assert all(name.startswith("p.") for name in arrays)
    assert Trees.from_arrays(arrays, "p.").margins(ROWS).tolist() == small().margins(ROWS).tolist()


TAMPERED = {
    "child before its parent": ("left", [1, 1, 0, 3, 4, 5]),
    "node that is half a leaf": ("left", [0, 1, 3, 3, 4, 5]),
    "child outside": ("right", [6, 1, 4, 3, 4, 5]),
    "negative child": ("right", [-1, 1, 4, 3, 4, 5]),
    "feature outside": ("feature", [2, 0, 1, 0, 0, 0]),
    "negative feature": ("feature", [-1, 0, 1, 0, 0, 0]),
    "root outside": ("roots", [0, 6]),
    "class outside": ("classes", [0, 2]),
    "too few values": ("value", [0.0, 10.0]),
    "infinite value": ("value", [0, 10, 0, np.inf, 30, 4.0]),
    "threshold NaN": ("threshold", [NAN, 0, 5, 0, 0, 0]),
    "baseline NaN": ("baseline", [0.5, NAN]),
    "two widths": ("columns", [2, 2]),
    "no width": ("columns", [0]),
    "roots without classes": ("roots", [0]),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_arrays_are_refused(case):
    name, values = TAMPERED[case]
    arrays = small().to_arrays()
    arrays[name] = np.array(values, dtype=arrays[name].dtype)
    with pytest.raises(BundleError):
        Trees.from_arrays(arrays)


def test_arrays_of_other_types_or_none_are_refused():
    arrays = small().to_arrays()
    with pytest.raises(BundleError, match="left of type float32"):
        Trees.from_arrays({**arrays, "left": arrays["left"].astype(np.float32)})
    with pytest.raises(BundleError, match="value of type"):
        Trees.from_arrays({**arrays, "value": arrays["value"].reshape(2, 3)})
    del arrays["roots"]
    with pytest.raises(BundleError, match="roots"):
        Trees.from_arrays(arrays)


indices = st.lists(st.integers(-2, 8), min_size=6, max_size=6)


@given(left=indices, right=indices, root=st.integers(-1, 7))
def test_any_links_are_refused_or_end(left, right, root):
    links = {"left": left, "right": right, "roots": [0, root]}
    arrays = {name: np.array(values, dtype=np.int32) for name, values in links.items()}
    try:
        trees = dataclasses.replace(small(), **arrays)
    except BundleError:
        return
    assert trees.depth < 6
    assert np.isfinite(trees.margins(ROWS)).all()


def test_a_ladder_of_shared_children_does_not_blow_up():
    n = 2000
    step = np.arange(n, dtype=np.int32)
    trees = Trees(
        feature=np.zeros(n, np.int32),
        threshold=np.zeros(n, np.float32),
        left=np.minimum(step + 1, n - 1),
        right=np.minimum(step + 2, n - 1),
        missing_left=np.zeros(n, bool),
        value=np.ones(n),
        roots=np.zeros(1, np.int32),
        classes=np.zeros(1, np.int32),
        baseline=np.zeros(1),
        columns=np.ones(1, np.int32),
    )
    assert trees.depth == n - 1
    assert trees.margins(np.zeros((2, 1), np.float32)).tolist() == [[1.0], [1.0]]
