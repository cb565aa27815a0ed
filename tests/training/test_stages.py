"""A stage is done once; what is damaged is done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mope.training.stages import Stages, key_of


class Work:
    """Sets a network to `value`, and counts how often it was asked to."""

    def __init__(self, network: nn.Linear, value: float) -> None:
        self.network, self.value, self.calls = network, value, 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.calls += 1
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.ckpt").write_text("x")
        with torch.no_grad():
            self.network.weight.fill_(self.value)
        return {"steps": 3, "best": 1.5}


def once(root: Path, key: str = "k", value: float = 1.0) -> tuple[Work, Stages, nn.Linear]:
    network = nn.Linear(2, 2)
    with torch.no_grad():
        network.weight.zero_()
    stages, work = Stages(root), Work(network, value)
    stages.run("proxy", key, {"net": network}, work)
    return work, stages, network


def test_a_done_stage_is_loaded_not_run(tmp_path: Path):
    first, _, _ = once(tmp_path)
    again, stages, network = once(tmp_path, value=9.0)
    assert (first.calls, again.calls) == (1, 0)
    assert (network.weight == 1).all()
    assert stages.records == {"proxy": {"steps": 3, "best": 1.5}}


def test_another_key_is_another_stage(tmp_path: Path):
    once(tmp_path, "a")
    work, _, network = once(tmp_path, "b", 2.0)
    assert work.calls == 1
    assert (network.weight == 2).all()
    assert len(list(tmp_path.iterdir())) == 2


def test_checkpoints_go_even_where_the_run_died_before_removing_them(tmp_path: Path):
    once(tmp_path)
    folder = Stages(tmp_path).folder("proxy", "k")
    assert sorted(p.name for p in folder.iterdir()) == ["done.json", "net.safetensors"]
    (folder / "best.ckpt").write_text("x")
    work, _, _ = once(tmp_path)
    assert work.calls == 0
    assert not list(folder.glob("*.ckpt"))


def _cut(folder: Path) -> None:
    path = folder / "net.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def _other_shape(folder: Path) -> None:
    save_file({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, folder / "net.safetensors")


def _one_missing(folder: Path) -> None:
    save_file({"weight": torch.full((2, 2), 7.0)}, folder / "net.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _other_shape,
        _one_missing,
        lambda folder: (folder / "net.safetensors").unlink(),
        lambda folder: (folder / "done.json").unlink(),
        lambda folder: (folder / "done.json").write_text('{"steps": 3'),
        lambda folder: (folder / "done.json").write_text("[]"),
    ],
)
def test_a_damaged_stage_is_run_again_from_untouched_weights(damage: Callable[[Path], None], tmp_path: Path):
    once(tmp_path)
    folder = Stages(tmp_path).folder("proxy", "k")
    damage(folder)
    network = nn.Linear(2, 2)
    before = network.weight.clone()
    seen: list[torch.Tensor] = []

    def work(folder: Path) -> dict[str, Any]:
        seen.append(network.weight.clone())
        return {"steps": 4}

    stages = Stages(tmp_path)
    stages.run("proxy", "k", {"net": network}, work)
    assert torch.equal(seen[0], before)
    assert stages.records["proxy"] == {"steps": 4} == json.loads((folder / "done.json").read_text())


def test_a_stage_that_raises_is_not_done(tmp_path: Path):
    def work(folder: Path) -> dict[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Stages(tmp_path).run("proxy", "k", {"net": nn.Linear(1, 1)}, work)
    assert not list(tmp_path.rglob("done.json"))


def test_a_key_depends_on_every_part_and_their_order():
    keys = {key_of("a", {"x": 1}), key_of("a", {"x": 2}), key_of({"x": 1}, "a"), key_of("a")}
    assert len(keys) == 4
    assert key_of({"x": 1, "y": 2}) == key_of({"y": 2, "x": 1})
