"""The encoder is BERT, and an expert's quantiles never cross."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertModel

from mope.data.split import Bounds
from mope.predictor.config import BundleConfig, EncoderConfig, TextConfig
from mope.predictor.encoder import Stack
from mope.predictor.expert import Expert, rising

SHAPE = EncoderConfig(32, 3, 4, 48, 50, 40, 2)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    ids, segments = torch.randint(0, 50, (4, 11)), torch.randint(0, 2, (4, 11))
    mask = (torch.arange(11)[None] < torch.tensor([11, 3, 1, 7])[:, None]).long()
    return ids, segments, mask


def test_stack_is_hugging_faces_bert():
    torch.manual_seed(0)
    theirs = BertModel(
        BertConfig(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, vocab_size=50,
            max_position_embeddings=40, attn_implementation="eager",
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    ours = Stack(SHAPE, 0, 3).eval()
    names = {k.removeprefix("encoder."): v for k, v in theirs.state_dict().items() if not k.endswith("_ids")}
    ours.load_state_dict(names)
    ids, segments, mask = inputs()
    with torch.no_grad():
        expected = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask).last_hidden_state
        got = ours(ids, segments, mask)
    assert torch.allclose(got[mask.bool()], expected[mask.bool()], atol=1e-5)


def test_a_cut_stack_computes_what_the_whole_does():
    whole, lower, upper = Stack(SHAPE, 0, 3).eval(), Stack(SHAPE, 0, 2).eval(), Stack(SHAPE, 2, 3).eval()
    state = whole.state_dict()
    lower.load_state_dict({k: v for k, v in state.items() if k in lower.state_dict()})
    upper.load_state_dict({k: v for k, v in state.items() if k in upper.state_dict()})
    ids, segments, mask = inputs()
    with torch.no_grad():
        assert torch.equal(upper(lower(ids, segments, mask), segments, mask), whole(ids, segments, mask))


def test_rising_never_falls():
    raw = torch.tensor([[3.0, -50.0, 0.0, 50.0]])
    assert (rising(raw).diff(dim=1) >= 0).all()


def test_padding_and_missing_features_do_not_reach_the_answer():
    torch.manual_seed(0)
    config = BundleConfig(
        Bounds(1, 2, 3), text=TextConfig(8, 8, 8, 8), encoder=SHAPE, features=("a", "b"), models=("m", "n")
    )
    expert = Expert(config, 0).eval()
    torch.nn.init.normal_(expert.head.out.weight)
    ids, segments, mask = inputs()
    text, model = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0])
    features = torch.tensor([[1.0, 5.0], [float("nan"), 5.0], [1.0, float("nan")], [0.0, 0.0]])
    with torch.no_grad():
        first = expert(ids, segments, mask, text, features, model)
        other = expert(torch.where(mask.bool(), ids, 7), segments, mask, text, features, model)
        alone = expert(
            ids[1:2, :3], segments[1:2, :3], mask[1:2, :3], torch.tensor([0]), features[1:2], model[1:2]
        )
    assert torch.isfinite(first).all()
    assert torch.allclose(first, other, atol=1e-6)
    assert torch.allclose(first[1:2], alone, atol=1e-5)
    assert (first.diff(dim=1) >= 0).all()
