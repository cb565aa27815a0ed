"""Graphs on disk: other weights in the place of the traced ones, and no word of the machine that wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from mope.export.graphs import after, refill, save, strip

ROWS = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


class Small(torch.nn.Module):
    """One weight that the exporter keeps by name (a bias, a table), one that it may fold."""

    def __init__(self, seed: int, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = torch.nn.Linear(3, width), torch.nn.Linear(width, width, bias=False)
        self.register_buffer("mean", torch.randn(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) - self.mean)


def weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of `Small(0)`, written node by node: a transpose under a name of its own, a note at a node."""
    path = tmp_path_factory.mktemp("traced") / "small.onnx"
    held = weights(Small(0))
    arrays = {**{k: held[k] for k in ("first.bias", "mean")}, "val_0": held["first.weight"].T}
    arrays |= {"val_1": held["second.weight"].T}
    make = onnx.helper.make_node
    nodes = [
        make("MatMul", ["x", "val_0"], ["a"]), make("Add", ["a", "first.bias"], ["b"]),
        make("Sub", ["b", "mean"], ["c"]), make("MatMul", ["c", "val_1"], ["out"]),
    ]  # fmt: skip
    nodes[0].metadata_props.add(
        key="pkg.torch.onnx.stack_trace", value="/home/someone/mope/encoder.py, line 3"
    )
    float_ = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "small", [onnx.helper.make_tensor_value_info("x", float_, [None, 3])],
        [onnx.helper.make_tensor_value_info("out", float_, [None, 4])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(a), k) for k, a in arrays.items()],
    )  # fmt: skip
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path
    )
    return path


def computed(path: Path) -> np.ndarray:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": ROWS})[0]


def test_a_refilled_graph_computes_what_the_other_network_does(traced: Path, tmp_path: Path):
    other = Small(1)
    assert refill(traced, tmp_path / "other.onnx", weights(Small(0)), weights(other))
    with torch.no_grad():
        expected = other(torch.from_numpy(ROWS)).numpy()
    assert np.allclose(computed(tmp_path / "other.onnx"), expected, atol=1e-6)
    assert not np.allclose(computed(traced), expected, atol=1e-2)


@pytest.mark.parametrize("name", ["first.weight", "second.weight", "mean"])
def test_a_weight_that_is_not_found_is_told(name: str, traced: Path, tmp_path: Path):
    before = weights(Small(0))
    lost = (
        {**before, "extra": np.ones(2, np.float32)} if name == "mean" else {**before, name: before[name] + 1}
    )
    assert not refill(traced, tmp_path / "other.onnx", lost, lost)
    assert not (tmp_path / "other.onnx").exists()


def test_a_weight_that_could_stand_in_two_places_is_told(traced: Path, tmp_path: Path):
    twice = {**weights(Small(0)), "twin": weights(Small(0))["second.weight"]}
    assert not refill(traced, tmp_path / "other.onnx", twice, twice)


def test_other_shapes_are_told(traced: Path, tmp_path: Path):
    assert not refill(traced, tmp_path / "other.onnx", weights(Small(0)), weights(Small(1, width=5)))


def test_strip_takes_the_notes_and_nothing_else(traced: Path, tmp_path: Path):
    path = tmp_path / "stripped.onnx"
    path.write_bytes(traced.read_bytes())
    assert b"/home/someone" in path.read_bytes()
    strip(path)
    assert b"/home/someone" not in path.read_bytes()
    assert np.array_equal(computed(path), computed(traced))


def test_large_weights_lie_in_a_file_beside_the_graph(traced: Path, tmp_path: Path):
    model = onnx.load(traced)
    save(model, tmp_path / "large.onnx", most_bytes=20)
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(files) == {"large.onnx", "large.onnx.data"}
    weights_there = [t for t in onnx.load(traced).graph.initializer if t.raw_data]
    assert files["large.onnx.data"] > sum(len(t.raw_data) for t in weights_there)  # each starts a page
    assert np.array_equal(computed(tmp_path / "large.onnx"), computed(traced))
    moved = Path(tmp_path.rename(tmp_path.with_name("moved")))
    assert np.array_equal(computed(moved / "large.onnx"), computed(traced))


@pytest.mark.parametrize("place", ["../secret", "{root}/secret", "link"])
def test_weights_outside_the_folder_are_refused(place: str, traced: Path, tmp_path: Path):
    """The runtime itself says no: nothing of ours reads such files."""
    home = tmp_path / "bundle"
    model = onnx.load(traced)
    save(model, home / "large.onnx", most_bytes=20)
    (home / "large.onnx.data").rename(tmp_path / "secret")
    (home / "link").symlink_to(tmp_path / "secret")
    hostile = onnx.load(home / "large.onnx", load_external_data=False)
    for tensor in hostile.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place.format(root=tmp_path)
    (home / "large.onnx").write_bytes(hostile.SerializeToString())
    with pytest.raises(Exception, match="External data path"):
        computed(home / "large.onnx")


def test_what_comes_after_an_input(traced: Path):
    graph = onnx.load(traced).graph
    assert after(graph, ["x"]) == {"x", "a", "b", "c", "out"}
    assert after(graph, ["c"]) == {"c", "out"}
    assert after(graph, ["nothing"]) == {"nothing"}
