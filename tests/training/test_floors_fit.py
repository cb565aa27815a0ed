import numpy as np
import pytest

from mope.data.records import Example, LengthData
from mope.data.split import Bounds, split
from mope.data.synthetic import synthetic
from mope.errors import BundleError
from mope.predictor.floors import FLOORS, Floors
from mope.training.boosting import Boosting
from mope.training.floors import fit_floors
from mope.types import History, Request


@pytest.fixture(scope="module")
def parts() -> dict[str, LengthData]:
    data = synthetic(2500, seed=2)
    return {name: data.take(rows) for name, rows in split(data).items()}


@pytest.fixture(scope="module")
def floors(parts) -> Floors:
    return fit_floors(parts["train"], parts["validation"], Bounds.fit(parts["train"].lengths), seed=0)


def test_floors_that_read_the_prompt_err_less(floors, parts):
    test = parts["test"]
    errors = {name: np.abs(got - test.lengths).mean() for name, got in floors.predict(test.requests).items()}
    assert tuple(errors) == FLOORS
    assert errors["context"] < 0.8 * errors["constant"]
    assert errors["surface"] < 0.8 * errors["constant"]


def test_only_context_reads_the_conversation():
    data = LengthData(
        [Example(Request("go", history=History(lengths=(i % 97,))), (i % 97,), str(i)) for i in range(600)]
    )
    floors = fit_floors(data, data, Bounds.fit(data.lengths), seed=0)
    errors = {name: np.abs(got - data.lengths).mean() for name, got in floors.predict(data.requests).items()}
    assert errors["context"] < 5 < 20 < errors["surface"]


def test_buckets_too(floors, parts):
    truth = Bounds.fit(parts["train"].lengths).bucket(parts["test"].lengths)
    hits = {name: (got == truth).mean() for name, got in floors.buckets(parts["test"].requests).items()}
    assert hits["context"] > hits["constant"] + 0.2
    assert hits["surface"] > hits["constant"] + 0.2


def test_constant_is_the_training_median(floors, parts):
    got = floors.predict(parts["test"].requests[:3])["constant"]
    assert got.tolist() == [np.median(parts["train"].lengths)] * 3


def test_arrays_come_back(floors, parts):
    again = Floors.from_arrays(floors.to_arrays())
    requests = parts["test"].requests[:20]
    for name, lengths in floors.predict(requests).items():
        assert again.predict(requests)[name].tolist() == lengths.tolist()
        assert again.buckets(requests)[name].tolist() == floors.buckets(requests)[name].tolist()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("constant", np.array([-1.0, 0.0])),
        ("constant", np.array([10.0, 3.0])),
        ("constant", np.array([10.0, np.nan])),
        ("constant", np.array([10.0])),
        ("surface.log", np.array([1.0])),
        ("surface.length.columns", np.array([3], dtype=np.int32)),
        ("context.bucket.baseline", np.zeros(5)),
    ],
)
def test_foreign_arrays_are_refused(floors, name, array):
    with pytest.raises(BundleError):
        Floors.from_arrays({**floors.to_arrays(), name: array})


def test_targets_above_the_cap_count_as_the_cap(monkeypatch):
    monkeypatch.setattr("mope.training.floors.LENGTH", Boosting(20, 0.5))
    monkeypatch.setattr("mope.training.floors.BUCKET", Boosting(2, 0.5))
    rows = [Example(Request("x" * (1 + i % 50)), (1 if i % 50 < 20 else 10**6,), str(i)) for i in range(200)]
    floors = fit_floors(LengthData(rows), LengthData([]), Bounds(1, 50, 100), seed=0)
    got = floors.predict([Request("x" * 50)])
    assert got["surface"][0] == pytest.approx(100, abs=5)
    assert got["constant"][0] == 100
