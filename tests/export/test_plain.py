"""Experts as models of transformers: opened without mope, and whole with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mope.export.parity import prompts
from mope.predictor.bundle import MoPE

pytest.importorskip("transformers")

ALONE = """
import json, sys
import torch
from transformers import AutoModel, AutoTokenizer
torch.set_num_threads(1)
folder, text = sys.argv[1:]
model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
ids = [tokenizer.cls_token_id, *tokenizer(text, add_special_tokens=False).input_ids, tokenizer.sep_token_id]
hidden = model(torch.tensor([ids])).last_hidden_state[0, 0]
print(json.dumps([type(model).__name__, hidden.tolist(), "mope" in sys.modules]))
"""


@pytest.fixture(scope="module")
def saved(
    exported: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[MoPE, dict[str, Path]]:
    from mope.export.plain import save_experts

    bundle = MoPE.from_pretrained(exported[0], backend="torch")
    return bundle, save_experts(bundle, tmp_path_factory.mktemp("plain"))


def test_an_expert_forecasts_as_in_the_bundle(saved: tuple[MoPE, dict[str, Path]]):
    from mope.export.plain import ExpertModel

    bundle, folders = saved
    inputs = bundle.inputs(prompts()[-8:])
    batch = inputs.batch(np.arange(8))
    arrays = [batch.ids, batch.mask, batch.segments, batch.features, batch.model]
    for name, folder in folders.items():
        expert = ExpertModel.from_pretrained(folder).eval()
        assert expert.config.levels == list(bundle.config.quantiles)
        with torch.no_grad():
            got = expert(*map(torch.from_numpy, arrays)).numpy()
        assert np.allclose(got, bundle.backend.run(name, batch, bundle.backend.shared(batch)), atol=1e-5)


def test_automodel_opens_it_without_mope(saved: tuple[MoPE, dict[str, Path]]):
    bundle, folders = saved
    words = [sys.executable, "-c", ALONE, str(folders["long"]), "explain quicksort"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, hidden, mope_too = json.loads(done.stdout)
    assert (name, mope_too) == ("BertModel", False)
    inputs = bundle.inputs([type(prompts()[0])("explain quicksort")])
    batch = inputs.batch(np.array([0]))
    arrays = torch.from_numpy(batch.segments), torch.from_numpy(batch.mask)
    with torch.inference_mode():
        ours = bundle.backend._network("long").encoder(bundle.backend.shared(batch), *arrays)
    assert np.allclose(hidden, ours[0, 0].numpy(), atol=1e-5)


def test_with_mope_automodel_knows_the_whole_expert(saved: tuple[MoPE, dict[str, Path]], tmp_path: Path):
    from transformers import AutoModel

    from mope.export.plain import ExpertModel

    ExpertModel.from_pretrained(saved[1]["short"]).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "mope-expert"
    assert isinstance(AutoModel.from_pretrained(tmp_path), ExpertModel)
