"""Training that starts from a bundle: the same weights before the first step, names carried over, graphs refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mope.data.synthetic import synthetic
from mope.errors import BundleError
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.torch_backend import build
from mope.training.origin import MODELS, Origin
from mope.training.recipe import load_recipe
from mope.training.train import train

STILL = ("optim.lr=0", "optim.head_lr=0", "optim.dropout=0", "epochs.joint=0", "epochs.proxy_tower=0")


def test_without_a_step_every_network_is_the_origins(tiny: Path, tmp_path: Path, quick: tuple[str, ...]):
    recipe = load_recipe("tiny", settings=[*quick, *STILL])
    folder = train(recipe, synthetic(300, seed=4), tmp_path / "same", origin=tiny)
    before, after = MoPE.from_pretrained(tiny), MoPE.from_pretrained(folder)
    requests = synthetic(20, seed=7).requests
    names = [layout.PROXY, layout.ENCODER_ROUTER, "short", "medium", "long"]
    old, new = (bundle.run(names, bundle.inputs(requests)) for bundle in (before, after))
    assert np.allclose(old[layout.PROXY], new[layout.PROXY], atol=1e-5)
    # The tiny bundle answers with networks that were chosen on validation: its own are what it starts from.
    for name in names[1:]:
        assert np.allclose(old[name], new[name], atol=1e-5), name
    assert after.config.data_hash != before.config.data_hash


def test_known_models_keep_their_effect_and_new_ones_start_at_the_population(tiny: Path):
    origin = Origin.of(tiny)
    width = origin.states[layout.PROXY][MODELS].shape[1]
    table = torch.arange(3.0)[:, None].expand(3, width).clone()
    origin.states[layout.PROXY][MODELS] = table
    known = replace(origin, config=replace(origin.config, models=("b", "a")))
    models = known.config_of(replace(origin.config, models=("a", "c"))).models
    assert models == ("b", "a", "c")
    proxy = build("medium", replace(origin.config, models=models))
    known.states["medium"] = origin.states[layout.PROXY]
    assert known.fill("medium", proxy, models)
    assert proxy.state_dict()[MODELS][:, 0].tolist() == [0, 1, 2, 0]
    assert not known.fill("none", proxy, models)


def test_a_bundle_with_graphs_alone_is_refused(exported: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(BundleError, match=r"without trunk\.safetensors.*PyTorch weights"):
        Origin.of(exported[1])
    folder = Path(shutil.copytree(exported[0], tmp_path / "broken"))
    (folder / layout.weights_file("short")).write_bytes(b"short")
    with pytest.raises(BundleError, match="short"):
        Origin.of(folder)


def test_the_cut_of_the_texts_is_the_origins_unless_another_is_asked_for(tiny: Path):
    origin = Origin.of(tiny)
    kept = replace(origin.config.text, prompt_head=7)
    other = replace(origin, config=replace(origin.config, text=kept))
    assert other.shape(load_recipe("tiny")).text == kept
    asked = other.shape(load_recipe("tiny", settings=["text.prompt_head=200"]))
    assert (asked.text.prompt_head, asked.encoder) == (200, origin.config.encoder)
