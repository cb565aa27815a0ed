"""Served models while training: held to the population by their number of rows; caps are handed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from mope.data.records import Example, LengthData
from mope.data.synthetic import synthetic
from mope.predictor.config import BundleConfig, EncoderConfig
from mope.predictor.expert import Expert
from mope.predictor.features import ALL, NAMES
from mope.training.modules import LengthModule
from mope.training.prepare import prepare
from mope.training.recipe import OptimConfig, load_recipe


def module(pull: torch.Tensor | None) -> LengthModule:
    from mope.data.split import Bounds

    config = BundleConfig(
        Bounds(10, 20, 90), encoder=EncoderConfig(8, 1, 1, 8, 32, 128), features=NAMES, models=("a", "b")
    )
    network = Expert(config, 0)
    with torch.no_grad():
        network.head.model.weight[:] = torch.tensor([[1.0], [2.0], [4.0]])
    return LengthModule(
        network, config.quantiles, optim=OptimConfig(), steps=1, seed=0, model_dropout=0.0, pull=pull
    )


def test_shrinkage_by_hand():
    """Distances from the population of 1 and 3 in each of 32 columns; a row of model a weighs 1/2, of b 1/4."""
    found = module(torch.tensor([0.0, 0.5, 0.25]))
    assert found.shrinkage(torch.tensor([1])).item() == pytest.approx(32 * 0.5 * 1)
    assert found.shrinkage(torch.tensor([0, 1, 2, 2])).item() == pytest.approx(
        32 * (0.5 * 1 + 2 * 0.25 * 9) / 4
    )
    assert found.shrinkage(torch.tensor([0, 0])).item() == 0
    assert module(None).shrinkage(torch.tensor([1, 2])).item() == 0


@pytest.mark.parametrize("names", [ALL, NAMES])
def test_sampling_settings_are_hidden_together_in_a_share_of_the_rows(names: tuple[str, ...]):
    """Where they are no inputs nothing is hidden; the other features never are."""
    found, rows = module(None), 4000
    found.sampling_dropout = 0.25
    batch = {"model": torch.ones(rows, dtype=torch.int64), "features": torch.ones(rows, len(names))}
    found.hide(batch)
    gone = torch.isnan(batch["features"])
    assert not gone[:, : len(NAMES)].any()
    if names == ALL:
        assert torch.equal(gone[:, len(NAMES)], gone[:, len(NAMES) + 1])
        assert gone[:, len(NAMES)].float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (batch["model"] == 1).all()  # a model dropout of 0


def two_models(rows: int, few: int) -> LengthData:
    """`wordy` answers with ten times as many tokens; of `rare`, as wordy, only `few` answers are known."""
    examples = synthetic(rows).examples
    return LengthData([
        Example(replace(e.request, model=name), (max(1, e.lengths[0] * times),), e.group)
        for name, times, count in (("terse", 1, rows), ("wordy", 10, rows), ("rare", 10, few))
        for e in examples[:count]
    ])  # fmt: skip


def test_the_pull_of_a_model_falls_with_its_rows(quick: tuple[str, ...]):
    from rich.progress import Progress

    from mope.training.fitter import Fitter

    recipe = load_recipe("tiny", settings=[*quick, "model_shrink=3", "min_model_rows=5"])
    ready = prepare(recipe, two_models(200, 40))
    pull = Fitter(ready, Progress(disable=True)).common("proxy")["pull"]
    counts = np.bincount(ready.parts["train"].inputs.model)
    assert ready.config.models == ("rare", "terse", "wordy")
    assert pull.tolist() == pytest.approx([0, *(3 / counts[1:])])


def test_the_pull_moves_models_to_the_population_and_not_the_population_to_them():
    found = module(torch.tensor([0.0, 0.5, 0.25]))
    table = found.network.head.model.weight
    found.shrinkage(torch.tensor([1, 2])).backward()  # type: ignore[no-untyped-call]
    assert table.grad is not None
    assert table.grad[:, 0].tolist() == pytest.approx([0, 0.5 * 2 * 1 / 2, 0.25 * 2 * 3 / 2])


def test_caps_reach_the_batches_where_they_are_wanted(quick: tuple[str, ...]):
    rows = [replace(e, cap=50 if i % 2 else None) for i, e in enumerate(synthetic(200).examples)]
    recipe: Callable[..., object] = lambda *more: load_recipe("tiny", settings=[*quick, *more])  # noqa: E731
    part = prepare(recipe(), LengthData(rows)).parts["train"]  # type: ignore[arg-type]
    assert part.caps is not None
    assert set(part.caps.tolist()) == {50.0, np.inf}
    assert prepare(recipe("censored=false"), LengthData(rows)).parts["train"].caps is None  # type: ignore[arg-type]
    plain = LengthData([replace(e, cap=None) for e in rows])
    assert prepare(recipe(), plain).parts["train"].caps is None  # type: ignore[arg-type]


def test_what_cuts_an_answer_is_the_least_of_cap_and_max_tokens():
    example = synthetic(1).examples[0]
    for cap, asked, limit in (
        (None, None, None),
        (90, None, 90),
        (None, 70, 70),
        (90, 70, 70),
        (90, 300, 90),
    ):
        assert replace(example, cap=cap, request=replace(example.request, max_tokens=asked)).limit == limit
